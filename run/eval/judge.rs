//! Completions of a policy, and what each is worth.

use std::{path::Path, sync::Arc};

use anyhow::{Context, Result};

use super::mean;
use crate::{
    config::EvalConfig,
    data::PromptSample,
    engine::{Engine, EngineConfig, Request},
    model::Model,
    rollout::{Prompt, PromptId, Rollout},
    run::{
        model_directory,
        reward::{self, Completion, NamedSource},
    },
};

/// So many prompts are with the engine at a time.
const CHUNK: usize = 256;

/// The sources of rewards, and how completions are sampled for them.
pub(super) struct Judge<'a> {
    config: &'a EvalConfig,
    sources: Vec<NamedSource>,
}

/// What a policy's completions are worth.
#[derive(Default)]
pub(super) struct Judged {
    /// By prompt, by sample.
    pub(super) rewards: Vec<Vec<f64>>,
    lengths: Vec<usize>,
    finished: usize,
}

impl<'a> Judge<'a> {
    /// Opens the sources, and checks that every prompt has what they need.
    ///
    /// # Errors
    /// When a source cannot be opened, or a prompt lacks something.
    pub(super) fn open(
        config: &'a EvalConfig,
        model: &Model,
        prompts: &[PromptSample],
    ) -> Result<Self> {
        let longest = prompts.iter().map(|prompt| prompt.tokens.ids().len()).max().unwrap_or(0);
        let longest = longest.saturating_add(config.sampling.max_new_tokens);
        let longest = longest.min(model.spec().max_positions);
        let ppo = config.as_ppo().context("an evaluation has a [reward] section")?;
        let sources = reward::open(&ppo, model, (longest, config.threads))?;
        reward::check(&sources, prompts)?;
        Ok(Self { config, sources })
    }

    /// Samples completions of each prompt from the model of a directory, and judges them.
    ///
    /// # Errors
    /// When the model cannot be opened, or engine or a source fail.
    pub(super) fn judge(&mut self, path: &Path, prompts: &[PromptSample]) -> Result<Judged> {
        let config = self.config;
        let options = EngineConfig {
            threads: config.threads,
            dtype: config.model.dtype.into(),
            ..EngineConfig::default()
        };
        let engine = Engine::builder().config(options).model_dir(model_directory(path)).build()?;
        let samples = config.eval.samples_per_prompt();
        let sampling = Arc::new(config.sampling.params(config.seed, samples as u32));
        let mut judged = Judged::default();
        for (chunk, prompts) in prompts.chunks(CHUNK).enumerate() {
            let first = (chunk * CHUNK) as u64;
            let request = |(id, prompt): (u64, &PromptSample)| {
                let prompt = Prompt { id: PromptId(id), tokens: prompt.tokens.clone() };
                Request::new(prompt, sampling.clone())
            };
            let requests = (first..).zip(prompts).map(request).collect();
            let rollouts = engine.blocking().generate_all(requests)?;
            judged.add(&rollouts, samples, &self.rewards(&rollouts, prompts, samples)?);
        }
        Ok(judged)
    }

    /// Returns what each completion earned: the weighted sum of what the sources say.
    fn rewards(
        &mut self,
        rollouts: &[Rollout],
        prompts: &[PromptSample],
        samples: usize,
    ) -> Result<Vec<f64>> {
        let completions: Vec<Completion<'_>> = rollouts
            .chunks(samples)
            .zip(prompts)
            .flat_map(|(rollouts, prompt)| {
                rollouts.iter().map(move |rollout| Completion { prompt, rollout })
            })
            .collect();
        let said = self.sources.iter_mut().map(|NamedSource { name, weight, source }| {
            let rewards = source.score(&completions);
            Ok((*weight, rewards.with_context(|| format!("reward source {name:?}"))?))
        });
        let said: Vec<_> = said.collect::<Result<_>>()?;
        let sums = reward::weighted_sum(&said, completions.len());
        Ok(sums.iter().map(|reward| f64::from(reward.score())).collect())
    }
}

impl Judged {
    fn add(&mut self, rollouts: &[Rollout], samples: usize, rewards: &[f64]) {
        self.rewards.extend(rewards.chunks(samples).map(<[f64]>::to_vec));
        self.lengths.extend(rollouts.iter().map(|rollout| rollout.completion.len()));
        self.finished += rollouts.iter().filter(|rollout| rollout.stop.is_end()).count();
    }

    /// Returns mean reward, mean length and the share of completions that ended by themselves, under these names.
    pub(super) fn values(
        &self,
        [reward, length, finished]: [&'static str; 3],
    ) -> [(&'static str, f64); 3] {
        [
            (reward, mean(self.rewards.iter().flatten().copied())),
            (length, mean(self.lengths.iter().map(|&length| length as f64))),
            (finished, self.finished as f64 / self.lengths.len().max(1) as f64),
        ]
    }
}
