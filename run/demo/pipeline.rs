//! The demo: the main job on a model of a million weights, by the same loops and configurations as any other run.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::Arc,
};

use anyhow::{Context, Result};

use super::{DemoData, Judge, Sizes, Summary};
use crate::{
    config::{self, Config, PpoConfig, RewardModelConfig, SftConfig},
    engine::{Engine, EngineConfig, Request, SamplingParams},
    model::{NewModelSpec, new_model},
    rollout::{Prompt, PromptId},
    run::{Earlier, Launch, Observer, Stop, ppo, reward_model, sft},
};

/// The demo's configurations, as they lie in `examples/demo/`.
const MODEL: &str = include_str!("../../examples/demo/model.toml");
const SFT: &str = include_str!("../../examples/demo/sft.toml");
const REWARD_MODEL: &str = include_str!("../../examples/demo/rm.toml");
const PPO: &str = include_str!("../../examples/demo/ppo.toml");

/// What a demo must reach. The judge knows nothing of the reward model.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Thresholds {
    /// Share of positive reviews before PPO: about a half.
    pub positive_before: (f64, f64),
    /// Least share of positive reviews after PPO.
    pub positive_after: f64,
    /// Least accuracy of the reward model on held-out pairs.
    pub accuracy: f64,
    /// Largest KL from the reference at the end (nats per completion).
    pub kl: f64,
    /// Least distinct-2 after PPO, as a share of that before.
    pub distinct_2: f64,
}

impl Default for Thresholds {
    fn default() -> Self {
        Self {
            positive_before: (0.3, 0.65),
            positive_after: 0.9,
            accuracy: 0.85,
            kl: 15.0,
            distinct_2: 0.5,
        }
    }
}

/// How a demo is run.
#[derive(Clone, Debug)]
pub struct DemoOptions {
    /// Where data, models and runs are written.
    pub folder: PathBuf,
    /// Everything drawn at random follows from it.
    pub seed: u64,
    /// Number of threads; 0 takes every core.
    pub threads: usize,
    /// Further `key=value` overrides of the PPO stage.
    pub ppo_overrides: Vec<String>,
    /// Who may ask it to stop.
    pub stop: Stop,
}

/// One opening, continued before and after PPO.
#[derive(Clone, Debug)]
pub struct Continuation {
    /// The opening.
    pub prompt: String,
    /// What the policy made of it after SFT.
    pub before: String,
    /// What it made of it after PPO.
    pub after: String,
}

/// What a demo came to.
#[derive(Clone, Debug)]
pub struct DemoReport {
    /// Perplexity on held-out reviews after SFT.
    pub perplexity: f64,
    /// The reward model's accuracy on held-out pairs.
    pub accuracy: f64,
    /// The judge's opinion of the policy after SFT.
    pub before: Summary,
    /// The judge's opinion of the policy after PPO.
    pub after: Summary,
    /// KL from the reference in the last iteration (nats per completion).
    pub kl: f64,
    /// All held-out openings, continued.
    pub samples: Vec<Continuation>,
    /// The aligned policy's model directory.
    pub policy: PathBuf,
}

impl DemoReport {
    /// Lists what was missed, a line each.
    pub fn missed(&self, thresholds: &Thresholds) -> Vec<String> {
        let (low, high) = thresholds.positive_before;
        let distinct = thresholds.distinct_2 * self.before.distinct_2;
        let checks = [
            (
                (low..=high).contains(&self.before.positive),
                "positive share before PPO",
                format!("from {low} to {high}"),
                self.before.positive,
            ),
            (
                self.after.positive > thresholds.positive_after,
                "positive share after PPO",
                format!("above {}", thresholds.positive_after),
                self.after.positive,
            ),
            (
                self.accuracy > thresholds.accuracy,
                "reward model's held-out accuracy",
                format!("above {}", thresholds.accuracy),
                self.accuracy,
            ),
            (
                self.kl < thresholds.kl,
                "KL from the reference",
                format!("below {}", thresholds.kl),
                self.kl,
            ),
            (
                self.after.distinct_2 > distinct,
                "distinct-2 after PPO",
                format!("above {distinct:.3}"),
                self.after.distinct_2,
            ),
        ];
        let missed = checks.into_iter().filter(|(kept, ..)| !kept);
        missed.map(|(_, what, rule, got)| format!("{what} must be {rule}, got {got:.3}")).collect()
    }
}

/// Makes data and a model, runs the three stages, and has the result judged.
///
/// # Errors
/// One line that says which stage failed and why.
pub fn demo(options: &DemoOptions, observer: &mut dyn Observer) -> Result<DemoReport> {
    let folder = &options.folder;
    let data = DemoData::new(options.seed, Sizes::default());
    data.write(&folder.join("data"))?;
    let spec =
        NewModelSpec { seed: options.seed, ..toml::from_str(MODEL).context("the demo's model")? };
    let model = folder.join("model");
    if model.exists() {
        fs::remove_dir_all(&model)
            .with_context(|| format!("cannot replace {}", model.display()))?;
    }
    let created = new_model(&spec, data.texts(), &model)?;
    observer.note(&format!(
        "a new model of {:.2} million weights and {} tokens",
        created.parameters as f64 / 1e6,
        created.spec.vocab_size
    ));
    let tuned =
        sft(&stage::<SftConfig>("sft.toml", SFT, options, &[])?, launch(options, observer))?;
    let config = stage::<RewardModelConfig>("rm.toml", REWARD_MODEL, options, &[])?;
    let rewarding = reward_model(&config, launch(options, observer))?;
    let config = stage::<PpoConfig>("ppo.toml", PPO, options, &options.ppo_overrides)?;
    let aligned = ppo(&config, launch(options, observer))?;

    let openings = &data.prompts.held_out;
    let before = continuations(&tuned.policy, openings, options)?;
    let after = continuations(&aligned.policy, openings, options)?;
    let judge = Judge::new();
    let summary = |ends: &[String]| judge.summarise(&whole(openings, ends));
    Ok(DemoReport {
        perplexity: tuned.evaluation.map_or(f64::NAN, |evaluation| evaluation.perplexity()),
        accuracy: rewarding.evaluation.accuracy,
        before: summary(&before),
        after: summary(&after),
        kl: aligned.last.and_then(|metrics| metrics.get("objective/kl")).unwrap_or(f64::NAN),
        samples: openings
            .iter()
            .zip(before.into_iter().zip(after))
            .map(|(prompt, (before, after))| Continuation { prompt: prompt.clone(), before, after })
            .collect(),
        policy: aligned.policy,
    })
}

fn launch<'a>(options: &DemoOptions, observer: &'a mut dyn Observer) -> Launch<'a> {
    Launch { earlier: Earlier::Delete, observer, stop: options.stop.clone() }
}

/// Reads a stage's configuration as if it lay in the demo's folder.
fn stage<T: Config>(name: &str, text: &str, options: &DemoOptions, more: &[String]) -> Result<T> {
    let mut overrides =
        vec![format!("seed={}", options.seed), format!("threads={}", options.threads)];
    overrides.extend_from_slice(more);
    let folder = std::path::absolute(&options.folder)?;
    Ok(config::parse(name, text.to_owned(), &folder, &overrides)?)
}

/// Samples one end for each opening.
fn continuations(policy: &Path, openings: &[String], options: &DemoOptions) -> Result<Vec<String>> {
    let config = EngineConfig { threads: options.threads, ..EngineConfig::default() };
    let engine = Engine::builder().config(config).model_dir(policy).build()?;
    let sampling = Arc::new(SamplingParams {
        seed: options.seed,
        max_new_tokens: 64,
        ..SamplingParams::default()
    });
    let request = |(id, opening): (usize, &String)| -> Result<Request> {
        let prompt = Prompt { id: PromptId(id as u64), ..engine.encode(opening)? };
        Ok(Request { prompt, sampling: sampling.clone() })
    };
    let requests = openings.iter().enumerate().map(request).collect::<Result<_>>()?;
    let rollouts = engine.blocking().generate_all(requests)?;
    Ok(rollouts.iter().map(|rollout| engine.text(rollout)).collect::<Result<_, _>>()?)
}

fn whole(openings: &[String], ends: &[String]) -> Vec<String> {
    openings.iter().zip(ends).map(|(opening, end)| format!("{opening}{end}")).collect()
}
