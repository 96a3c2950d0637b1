//! Knowledge distillation, as a run.

use std::path::{Path, PathBuf};

use anyhow::{Result, ensure};

use super::{
    Launch,
    models::{self, Wanted},
    offline::{self, Algorithm, Begun, Lessons, Passes, Ready},
    plan::Length,
    reference,
    samples::Samples,
};
use crate::{
    config::DistillConfig,
    data::{SftSample, TaughtSample},
    model::Model,
    trainer::{
        batch::MaskedSequence,
        config::DistillOptions,
        distill::{Answers, DistillStats, TaughtSequence},
        learner::TopLogprobs,
    },
};

/// What came of a run.
#[derive(Clone, Debug)]
pub struct DistillOutcome {
    /// The model directory that was written last.
    pub policy: PathBuf,
    /// On held-out sequences, where there are any.
    pub evaluation: Option<DistillStats>,
}

/// Teaches a student what a teacher would say, and writes it into the run directory. A teacher that is named is asked first, and is
/// gone before the student is loaded; otherwise the rows carry its answers.
///
/// # Errors
/// As [`super::sft`]; when teacher and student have not the same tokenizer, or fewer tokens than are to be compared; when the
/// answers of a row do not fit.
pub fn distill(config: &DistillConfig, launch: Launch<'_>) -> Result<DistillOutcome> {
    let (ready, begun, answers) = match &config.model.teacher {
        Some(teacher) => asked(config, &launch, teacher)?,
        None => cached(config, &launch)?,
    };
    let student = offline::learner(config, &begun.base, Wanted::LanguageModel)?;
    let lessons = Lessons {
        train: taught(&begun.samples.train, &answers.train),
        held_out: taught(&begun.samples.eval, &answers.held_out),
    };
    let outcome = offline::train(config, launch, (ready, &begun), student, &lessons)?;
    Ok(DistillOutcome { policy: outcome.written, evaluation: outcome.evaluation })
}

/// A run that may begin, its sequences, and a teacher's answers to them.
type Taught = (Ready, Begun<SftSample>, Lessons<Answers>);

/// Asks a teacher about all sequences that are trained or measured on.
fn asked(config: &DistillConfig, launch: &Launch<'_>, path: &Path) -> Result<Taught> {
    let lengths = |samples: &[SftSample]| samples.iter().map(Length::of_text).collect();
    let (ready, begun) = offline::begin(config, launch, lengths)?;
    let options = &config.distill;
    let samples = &begun.samples;
    let all = samples.train.iter().chain(&samples.eval);
    let longest = all.map(|sample| sample.tokens.len()).max().unwrap_or_default();
    let vocab = begun.base.spec().vocab_size;
    check_top_k("distill.top_k", &begun.base, options.top_k)?;
    check_top_k("distill.top_k", &models::open(path)?, options.top_k)?;
    let held = offline::learning(config).options();
    let teacher = reference::load(path, &begun.base, longest, &held)?;
    let mut train = vec![Answers::default(); samples.train.len()];
    for dealt in reference::first_epoch(config, samples.train.len()) {
        let batch: Vec<_> = dealt.iter().map(|&i| sequence(&samples.train[i])).collect();
        let answers = options.ask(&teacher, &batch, true)?;
        dealt.into_iter().zip(answers).for_each(|(i, answers)| train[i] = answers);
    }
    let held_out: Vec<_> = samples.eval.iter().map(sequence).collect();
    let held_out = options.ask(&teacher, &held_out, false)?;
    // Tokenizers are the same, but rows of an embedding that no token has may be more of the teacher's.
    let ids = train.iter().chain(&held_out).flat_map(|answers| &answers.top.ids);
    let largest = ids.max().copied().unwrap_or_default();
    ensure!(
        (largest as usize) < vocab,
        "{}: its most probable tokens must be below the student's vocabulary of {vocab}, got {largest}",
        path.display()
    );
    Ok((ready, begun, Lessons { train, held_out }))
}

/// Takes the answers that rows carry.
fn cached(config: &DistillConfig, launch: &Launch<'_>) -> Result<Taught> {
    let lengths = |samples: &[TaughtSample]| samples.iter().map(Length::of_taught).collect();
    let (ready, Begun { base, samples }) = offline::begin(config, launch, lengths)?;
    let Samples { train, eval, reports } = samples;
    let take = |samples: Vec<TaughtSample>| -> Result<(Vec<SftSample>, Vec<Answers>)> {
        let taken = samples.into_iter().map(|sample| taken(sample, &config.distill, &base));
        taken.collect()
    };
    let ((train, train_answers), (eval, eval_answers)) = (take(train)?, take(eval)?);
    let answers = Lessons { train: train_answers, held_out: eval_answers };
    Ok((ready, Begun { base, samples: Samples { train, eval, reports } }, answers))
}

/// Takes a row apart, and keeps the most probable of its answers.
fn taken(
    sample: TaughtSample,
    options: &DistillOptions,
    base: &Model,
) -> Result<(SftSample, Answers)> {
    let TaughtSample { tokens, loss_mask, each, ids, logprobs, place } = sample;
    let (vocab, top_k) = (base.spec().vocab_size, options.top_k);
    for (column, ids) in [("tokens", &tokens), ("topk_token_ids", &ids)] {
        let largest = ids.iter().max().copied().unwrap_or_default();
        ensure!(
            (largest as usize) < vocab,
            "{place}: {column} must be below the vocabulary of {vocab}, got {largest}"
        );
    }
    ensure!(
        top_k <= each,
        "{place}: distill.top_k must be at most the {each} answers that its tokens have, got {top_k}"
    );
    let top = kept(TopLogprobs { ids, logprobs }, each, top_k);
    let logprobs = top.logprobs.iter().map(|&t| (f64::from(t) / options.temperature) as f32);
    let top = TopLogprobs { logprobs: logprobs.collect(), ids: top.ids };
    let answers = Answers { top, is_whole: options.temperature == 1.0 };
    Ok((SftSample { tokens, loss_mask }, answers))
}

/// Keeps the most probable of each token's answers.
fn kept(all: TopLogprobs, each: usize, top_k: usize) -> TopLogprobs {
    if each == top_k {
        return all;
    }
    let mut top = TopLogprobs::default();
    for (ids, logprobs) in all.ids.chunks_exact(each).zip(all.logprobs.chunks_exact(each)) {
        let mut places: Vec<usize> = (0..each).collect();
        places.sort_by(|&a, &b| logprobs[b].total_cmp(&logprobs[a]));
        top.ids.extend(places[..top_k].iter().map(|&place| ids[place]));
        top.logprobs.extend(places[..top_k].iter().map(|&place| logprobs[place]));
    }
    top
}

/// Checks that a vocabulary has as many tokens as are wanted.
pub(super) fn check_top_k(name: &str, model: &Model, top_k: usize) -> Result<()> {
    let vocab = model.spec().vocab_size;
    ensure!(
        top_k <= vocab,
        "{name} must be at most the vocabulary of {}, {vocab}, got {top_k}",
        model.checkpoint.dir().display()
    );
    Ok(())
}

impl Algorithm for DistillOptions {
    const STAGE: &'static str = "distill";
    const MODEL: &'static str = "policy";

    fn passes(&self) -> Passes {
        let Self { epochs, max_steps, batch_size, eval_every, .. } = *self;
        Passes { epochs, max_steps, batch_size, eval_every }
    }

    fn tokens(sample: &TaughtSequence<'_>) -> usize {
        sample.sequence.tokens.len()
    }
}

fn sequence(sample: &SftSample) -> MaskedSequence<'_> {
    MaskedSequence { tokens: &sample.tokens, mask: &sample.loss_mask }
}

fn taught<'a>(samples: &'a [SftSample], answers: &'a [Answers]) -> Vec<TaughtSequence<'a>> {
    let pairs = samples.iter().map(sequence).zip(answers);
    pairs.map(|(sequence, answers)| TaughtSequence { sequence, answers }).collect()
}
