//! How good the policy is on prompts that it does not learn from.

use std::{ops::Range, sync::Arc};

use anyhow::Result;

use crate::{
    config::PpoConfig,
    data::PromptSample,
    engine::{Engine, Request, SamplingParams},
    rollout::{Prompt, PromptId, Ticket},
    run::{Metrics, generator::Answered, scorer::Scorer},
    trainer::{reward::Reward, stats::Summary},
};

/// Beyond the ticket of any prompt that is learned from: a queue ends before.
const FIRST: u64 = 1 << 62;

/// So many prompts are with the engine at a time.
const CHUNK: usize = 256;

/// Held-out prompts, each to be completed once and judged as those that are learned from.
pub(super) struct Evaluation {
    /// Where they stand among the run's prompts.
    indices: Range<usize>,
    sampling: Arc<SamplingParams>,
}

impl Evaluation {
    /// Takes those of a run's prompts that are held out. `None` where there are none.
    pub(super) fn new(config: &PpoConfig, indices: Range<usize>) -> Option<Self> {
        // The same key for the same prompt in every iteration: what changes is the policy.
        let sampling = SamplingParams {
            temperature: config.ppo.eval_temperature,
            ..config.sampling.params(config.seed, 1)
        };
        (!indices.is_empty()).then(|| Self { indices, sampling: Arc::new(sampling) })
    }

    /// Has every prompt completed and judged.
    ///
    /// # Errors
    /// When the engine or a source of rewards fails.
    pub(super) fn measure(
        &self,
        iteration: u64,
        prompts: &[PromptSample],
        engine: &Engine,
        scorer: &mut Scorer,
    ) -> Result<Metrics> {
        let indices: Vec<usize> = self.indices.clone().collect();
        let (mut scores, mut lengths, mut ended) = (Vec::new(), Vec::new(), 0);
        for chunk in indices.chunks(CHUNK) {
            let request = |&index: &usize| Request {
                prompt: Prompt {
                    id: PromptId(FIRST + index as u64),
                    tokens: prompts[index].tokens.clone(),
                },
                sampling: self.sampling.clone(),
            };
            let rollouts = engine.blocking().generate_all(chunk.iter().map(request).collect())?;
            lengths.extend(rollouts.iter().map(|rollout| rollout.completion.len() as f32));
            ended += rollouts.iter().filter(|rollout| rollout.stop.is_end()).count();
            let answered: Vec<Arc<Answered>> = chunk
                .iter()
                .zip(rollouts)
                .map(|(&prompt, rollout)| {
                    let ticket = Ticket(rollout.prompt.id.0);
                    Arc::new(Answered { ticket, prompt, rollouts: vec![rollout] })
                })
                .collect();
            let (rewards, _) = scorer.score(iteration, &answered)?;
            scores.extend(rewards.iter().map(Reward::score));
        }
        let (scores, lengths) = (Summary::of(&scores), Summary::of(&lengths));
        Ok(Metrics::new()
            .with("eval/scores", scores.mean)
            .with("eval/scores_std", scores.std)
            .with("eval/response_length", lengths.mean)
            .with("eval/ended", ended as f64 / indices.len() as f64))
    }
}
