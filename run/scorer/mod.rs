//! The sources of rewards at work: each on a thread of its own, where one that hangs or panics takes nobody with it.

mod worker;

#[cfg(test)]
mod tests;

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::Result;
use crossbeam::channel::Sender;

use super::{
    Metrics,
    faults::Faults,
    generator::Answered,
    reward::{NamedSource, weighted_sum},
};
use crate::{
    data::PromptSample,
    trainer::{reward::Reward, stats::Summary},
};
use worker::{Job, Worker};

/// A source did not answer in time.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[error(
    "the trainer waited {seconds:.1} s for {source_name} to score {completions} completions of iteration {iteration} \
     (deadlines.reward_seconds)"
)]
pub(super) struct RewardLate {
    source_name: String,
    seconds: f64,
    completions: usize,
    iteration: u64,
}

/// The sources at work.
///
/// # Drop
/// Their threads end with the completions they are at, and nobody waits for them; programs that judge are ended.
pub(super) struct Scorer {
    workers: Vec<Worker>,
    deadline: Duration,
    faults: Faults,
}

/// What is to be known about the sources' work.
pub(super) struct ScorerOptions {
    /// The longest time for one iteration's completions.
    pub(super) deadline: Duration,
    /// What is to go wrong.
    pub(super) faults: Faults,
}

/// Where finished prompts go, to be scored while others are generated. Clones lead to the same sources.
#[derive(Clone, Default)]
pub(super) struct Finished(Vec<Sender<Job>>);

impl Finished {
    /// Lets the sources that are asked at once begin with a prompt. Never waits.
    pub(super) fn tell(&self, answered: &Arc<Answered>) {
        for jobs in &self.0 {
            // Fails where the source has ended: so does the trainer's next question.
            drop(jobs.send(Job::Finished(answered.clone())));
        }
    }
}

impl Scorer {
    /// Puts sources to work.
    ///
    /// # Errors
    /// When a thread cannot start.
    pub(super) fn start(
        sources: Vec<NamedSource>,
        prompts: &Arc<[PromptSample]>,
        options: ScorerOptions,
    ) -> Result<Self> {
        let ScorerOptions { deadline, faults } = options;
        let alone = sources.len() == 1;
        let workers = sources.into_iter().map(|named| {
            let label = match alone {
                true => "the reward source".to_owned(),
                false => format!("the reward source {:?}", named.name),
            };
            Worker::start(named, label, prompts.clone(), faults.clone())
        });
        Ok(Self { workers: workers.collect::<Result<_>>()?, deadline, faults })
    }

    /// Returns where finished prompts go.
    pub(super) fn finished(&self) -> Finished {
        Finished(self.workers.iter().filter_map(Worker::asked_at_once).collect())
    }

    /// Returns what each sample of each prompt earned, in order, and the sources' metrics.
    ///
    /// # Errors
    /// When a source fails, panics, or does not answer until the deadline. After the latter two it never answers again.
    pub(super) fn score(
        &mut self,
        iteration: u64,
        answered: &[Arc<Answered>],
    ) -> Result<(Vec<Reward>, Metrics)> {
        let since = Instant::now();
        let completions = answered.iter().map(|one| one.rollouts.len()).sum();
        for worker in &self.workers {
            worker.ask(iteration, answered);
        }
        let (mut parts, mut metrics) = (Vec::new(), Metrics::new());
        for worker in &mut self.workers {
            let left = self.deadline.saturating_sub(since.elapsed());
            let judged = worker.judgement(iteration, left)?.ok_or_else(|| RewardLate {
                source_name: worker.label.clone(),
                seconds: since.elapsed().as_secs_f64(),
                completions,
                iteration,
            })?;
            let scores: Vec<f32> = judged.rewards.iter().map(Reward::score).collect();
            let (name, summary) = (&worker.name, Summary::of(&scores));
            metrics.set(format!("reward/{name}/mean"), summary.mean);
            metrics.set(format!("reward/{name}/std"), summary.std);
            for (said, value) in judged.metrics {
                metrics.set(format!("reward/{name}/{said}"), value);
            }
            metrics.set(format!("timing_s/reward/{name}"), judged.seconds);
            parts.push((worker.weight, judged.rewards));
        }
        let rewards = weighted_sum(&parts, completions);
        Ok((self.faults.spoil_rewards(iteration, rewards), metrics))
    }
}
