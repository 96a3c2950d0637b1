//! The reward source on a thread of its own, where one that hangs or panics takes nobody with it.

use std::{
    sync::Arc,
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, anyhow};
use crossbeam::channel::{Receiver, RecvTimeoutError, Sender, unbounded};

use super::{faults::Faults, generator::Answered, models, panics, reward::RewardSource};
use crate::{data::PromptSample, trainer::reward::Reward};

/// Completions and what they earned, in the same order.
type Scored = (Vec<Arc<Answered>>, Vec<Reward>);

/// The reward source did not answer in time.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[error(
    "the trainer waited {seconds:.1} s for the reward source to score {completions} completions of iteration {iteration} \
     (deadlines.reward_seconds)"
)]
pub(super) struct RewardLate {
    seconds: f64,
    completions: usize,
    iteration: u64,
}

/// A reward source at work.
///
/// # Drop
/// Its thread ends with the completions it is at; nobody waits for it.
pub(super) struct Scorer {
    jobs: Sender<(u64, Vec<Arc<Answered>>)>,
    scored: Receiver<Result<Scored>>,
    thread: Option<JoinHandle<()>>,
    deadline: Duration,
}

/// How a reward source works.
pub(super) struct ScorerOptions {
    /// Threads that a reward model computes with.
    pub(super) threads: usize,
    /// The longest time for one iteration's completions.
    pub(super) deadline: Duration,
    /// What is to go wrong.
    pub(super) faults: Faults,
}

impl Scorer {
    /// Puts a source to work.
    ///
    /// # Errors
    /// When the thread cannot start.
    pub(super) fn start(
        source: RewardSource,
        prompts: Arc<[PromptSample]>,
        options: ScorerOptions,
    ) -> Result<Self> {
        let ScorerOptions { threads, deadline, faults } = options;
        let (jobs, inbox) = unbounded::<(u64, Vec<Arc<Answered>>)>();
        let (outbox, scored) = unbounded();
        let work = move || {
            for (iteration, answered) in inbox {
                let rewards = models::use_threads(threads)
                    .and_then(|()| faults.strike("reward", iteration))
                    .and_then(|()| source.score(&answered, &prompts));
                let rewards = rewards.map(|rewards| faults.spoil_rewards(iteration, rewards));
                if outbox.send(rewards.map(|rewards| (answered, rewards))).is_err() {
                    return;
                }
            }
        };
        let thread = thread::Builder::new().name("reward".into()).spawn(work)?;
        Ok(Self { jobs, scored, thread: Some(thread), deadline })
    }

    /// Returns the completions with what each of their samples earned.
    ///
    /// # Errors
    /// When the source fails, panics, or does not answer until the deadline. After the latter two it never answers again.
    pub(super) fn score(&mut self, iteration: u64, answered: Vec<Arc<Answered>>) -> Result<Scored> {
        let (since, completions) =
            (Instant::now(), answered.iter().map(|one| one.rollouts.len()).sum());
        // Fails where the thread has ended: then so does what follows.
        drop(self.jobs.send((iteration, answered)));
        match self.scored.recv_timeout(self.deadline) {
            Ok(scored) => {
                scored.with_context(|| format!("the reward source failed in iteration {iteration}"))
            }
            Err(RecvTimeoutError::Timeout) => {
                Err(RewardLate { seconds: since.elapsed().as_secs_f64(), completions, iteration }
                    .into())
            }
            Err(RecvTimeoutError::Disconnected) => Err(self.panicked(iteration)),
        }
    }

    fn panicked(&mut self, iteration: u64) -> anyhow::Error {
        let panic = self.thread.take().and_then(|thread| thread.join().err());
        let said = panic.as_ref().map_or("earlier", |panic| panics::message(&**panic));
        anyhow!("the reward source panicked in iteration {iteration}: {said}")
    }
}
