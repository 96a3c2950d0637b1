//! The measures, one function for each kind.

use std::{collections::BTreeMap, path::Path};

use anyhow::{Result, ensure};

use super::{
    EvalReport, Share, best_of_n,
    judge::{Judge, Judged},
    mean,
};
use crate::{
    config::{EvalConfig, Measure},
    data::{self, DataConfig, Loaded, PairSample, PromptSample, Sample, SftSample, TextEncoder},
    model::{Head, Model},
    run::models::{self, Wanted},
    trainer::{
        batch::{MaskedSequence, Plan},
        learner::LogprobOptions,
        reward_model,
        torch::{self, ModelOptions},
    },
};

/// Measures what the configuration asks for, and says what comes next to `progress`.
///
/// # Errors
/// One line that says what is wrong with configuration, model or data; and what engine or reward source report.
pub fn eval(config: &EvalConfig, progress: &mut dyn FnMut(&str)) -> Result<EvalReport> {
    models::use_threads(config.threads)?;
    let model = models::open(&config.model.path)?;
    match config.eval.measure {
        Measure::Perplexity => perplexity(config, &model),
        Measure::PairAccuracy => pair_accuracy(config, &model),
        Measure::WinRate | Measure::Accuracy | Measure::BestOfN => {
            sampled(config, &model, progress)
        }
    }
}

/// Perplexity of the loss tokens: `exp(mean of -log p)`.
fn perplexity(config: &EvalConfig, model: &Model) -> Result<EvalReport> {
    let loaded = read::<SftSample>(config, model)?;
    let loaded_model = load(config, model, Wanted::LanguageModel)?;
    let sequences: Vec<_> = loaded
        .samples
        .iter()
        .map(|sample| MaskedSequence { tokens: &sample.tokens, mask: &sample.loss_mask })
        .collect();
    let all = (0..sequences.len()).collect();
    let plan = Plan::new(&sequences, &[all], config.eval.micro_batch_tokens);
    let options = LogprobOptions { top: true, ..LogprobOptions::default() };
    let (mut sum, mut hits) = (0.0, 0);
    for micro_batch in plan.micro_batches() {
        let out = loaded_model.logprobs(&micro_batch.packed, &options)?;
        sum -= out.logprobs.iter().map(|&logprob| f64::from(logprob)).sum::<f64>();
        hits += out.top.iter().filter(|&&hit| hit).count();
    }
    // At least 1: a row without a loss token is no sample.
    let tokens = plan.tokens() as f64;
    let mut report = report(config, &loaded);
    report.values = BTreeMap::from([
        ("loss", sum / tokens),
        ("perplexity", (sum / tokens).exp()),
        ("mean_token_accuracy", hits as f64 / tokens),
        ("tokens", tokens),
    ]);
    Ok(report)
}

/// How often the chosen completion of a pair scores higher than the rejected one; a tie counts half.
fn pair_accuracy(config: &EvalConfig, model: &Model) -> Result<EvalReport> {
    ensure!(
        model.spec().head == Head::Score,
        "{}: a reward model must have a score head, this is a language model",
        model.checkpoint.dir().display()
    );
    let loaded = read::<PairSample>(config, model)?;
    let judge = load(config, model, Wanted::Score(0))?;
    let sides = loaded.samples.iter().flat_map(|pair| [&pair.chosen[..], &pair.rejected[..]]);
    let sides: Vec<&[u32]> = sides.collect();
    let scores = reward_model::score(&judge, &sides, config.eval.micro_batch_tokens)?;
    let scores: Vec<f64> = scores.into_iter().map(f64::from).collect();
    let (pairs, _) = scores.as_chunks::<2>();
    let mut report = report(config, &loaded);
    report.share = Some(Share::of(&pairs.iter().map(|&[c, r]| better(c, r)).collect::<Vec<_>>()));
    report.values = BTreeMap::from([
        ("margin", mean(pairs.iter().map(|[chosen, rejected]| chosen - rejected))),
        ("chosen", mean(pairs.iter().map(|[chosen, _]| *chosen))),
        ("rejected", mean(pairs.iter().map(|[_, rejected]| *rejected))),
    ]);
    Ok(report)
}

fn sampled(
    config: &EvalConfig,
    model: &Model,
    progress: &mut dyn FnMut(&str),
) -> Result<EvalReport> {
    let loaded = read::<PromptSample>(config, model)?;
    let mut judge = Judge::open(config, model, &loaded.samples)?;
    let mut judged = |path: &Path, progress: &mut dyn FnMut(&str)| {
        progress(&format!("completions of {}", path.display()));
        judge.judge(path, &loaded.samples)
    };
    let ours = judged(&config.model.path, progress)?;
    let mut report = report(config, &loaded);
    let threshold = config.eval.threshold;
    match (config.eval.measure, &config.model.against) {
        (Measure::WinRate, Some(against)) => {
            models::check_reader(model, &models::open(against)?, 0)?;
            let theirs = judged(against, progress)?;
            wins(&mut report, &ours, &theirs);
        }
        (Measure::BestOfN, _) => report.curve = best_of_n(&ours.rewards, threshold),
        _ => {
            let right = |rewards: &Vec<f64>| {
                mean(rewards.iter().map(|&reward| f64::from(u8::from(reward >= threshold))))
            };
            report.share = Some(Share::of(&ours.rewards.iter().map(right).collect::<Vec<_>>()));
        }
    }
    report.values.extend(ours.values(["reward", "length", "finished"]));
    Ok(report)
}

/// Compares the completions of two policies one by one.
fn wins(report: &mut EvalReport, ours: &Judged, theirs: &Judged) {
    let prompts: Vec<Vec<f64>> = ours
        .rewards
        .iter()
        .zip(&theirs.rewards)
        .map(|(a, b)| a.iter().zip(b).map(|(&a, &b)| better(a, b)).collect())
        .collect();
    let ties = prompts.iter().flatten().map(|&won| f64::from(u8::from(won == 0.5)));
    report.values.insert("ties", mean(ties));
    report.values.extend(theirs.values(["reward_against", "length_against", "finished_against"]));
    let wins: Vec<f64> = prompts.iter().map(|won| mean(won.iter().copied())).collect();
    report.share = Some(Share::of(&wins));
}

/// 1 where `a` is larger, 0 where `b` is, half where neither is.
fn better(a: f64, b: f64) -> f64 {
    if a > b {
        1.0
    } else if a < b {
        0.0
    } else {
        0.5
    }
}

fn report<S>(config: &EvalConfig, loaded: &Loaded<S>) -> EvalReport {
    let measure = config.eval.measure;
    EvalReport {
        measure,
        model: config.model.path.display().to_string(),
        against: config.model.against.as_ref().map(|path| path.display().to_string()),
        data: loaded.report.to_string(),
        rows: loaded.samples.len(),
        samples_per_prompt: if measure.samples() { config.eval.samples_per_prompt() } else { 0 },
        share: None,
        values: BTreeMap::new(),
        curve: Vec::new(),
    }
}

fn read<S: Sample>(config: &EvalConfig, model: &Model) -> Result<Loaded<S>> {
    let most = model.spec().max_positions.saturating_sub(S::ROOM).max(1);
    let data = config.data.as_train();
    let data = DataConfig { max_tokens: data.max_tokens.min(most), ..data };
    let template = model.chat_template.as_ref();
    let encoder = TextEncoder::new(&data, model.tokenizer()?, template, &model.generation)?;
    Ok(data::load_train(&data, &encoder)?)
}

fn load(config: &EvalConfig, model: &Model, wanted: Wanted) -> Result<torch::Model> {
    let options = models::options(config.device, config.model.dtype, false);
    models::load(model, wanted, &ModelOptions { frozen: true, ..options })
}
