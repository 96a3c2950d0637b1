//! One source on its thread.

use std::{
    collections::HashMap,
    sync::Arc,
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use anyhow::{Context, Error, Result, anyhow, ensure};
use crossbeam::channel::{Receiver, RecvTimeoutError, Sender, unbounded};

use crate::{
    data::PromptSample,
    run::{
        faults::Faults,
        generator::Answered,
        panics,
        reward::{Asked, Completion, Ender, NamedSource, Source},
    },
    trainer::reward::Reward,
};

/// The most completions that a source is handed at once while others are generated.
const AT_ONCE: usize = 64;

/// What a source is asked.
pub(super) enum Job {
    /// To score a prompt's completions before they are asked for.
    Finished(Arc<Answered>),
    /// What the completions of an iteration earned.
    Batch(u64, Vec<Arc<Answered>>),
}

/// What a source says of an iteration's completions.
pub(super) struct Judged {
    pub(super) rewards: Vec<Reward>,
    /// How long it has worked since it last was asked for an iteration's.
    pub(super) seconds: f64,
    /// What else it has to say of them, by name.
    pub(super) metrics: Vec<(String, f64)>,
}

/// One source, as others see it.
///
/// # Drop
/// Ends what the source waits for. Its thread ends by itself.
pub(super) struct Worker {
    pub(super) name: String,
    /// What errors call it.
    pub(super) label: String,
    pub(super) weight: f64,
    asked: Asked,
    jobs: Sender<Job>,
    judged: Receiver<Result<Judged>>,
    thread: Option<JoinHandle<()>>,
    ender: Option<Ender>,
}

impl Worker {
    /// Puts a source to work.
    ///
    /// # Errors
    /// When the thread cannot start.
    pub(super) fn start(
        named: NamedSource,
        label: String,
        prompts: Arc<[PromptSample]>,
        faults: Faults,
    ) -> Result<Self> {
        let NamedSource { name, weight, source } = named;
        let (jobs, inbox) = unbounded::<Job>();
        let (outbox, judged) = unbounded();
        let (asked, ender) = (source.asked(), source.ender());
        let thread = thread::Builder::new().name(format!("reward {name}")).spawn(move || {
            let early = HashMap::new();
            let desk = Desk { source, prompts, early, failed: None, spent: Duration::ZERO };
            desk.work(&inbox, &outbox, &faults);
        })?;
        Ok(Self { name, label, weight, asked, jobs, judged, thread: Some(thread), ender })
    }

    /// Returns where it hears of finished prompts, if it wants to.
    pub(super) fn asked_at_once(&self) -> Option<Sender<Job>> {
        (self.asked == Asked::AtOnce).then(|| self.jobs.clone())
    }

    /// Asks for what an iteration's completions earned.
    pub(super) fn ask(&self, iteration: u64, answered: &[Arc<Answered>]) {
        // Fails where the thread has ended: then there will be no judgement either.
        drop(self.jobs.send(Job::Batch(iteration, answered.to_vec())));
    }

    /// Waits for what was asked; `None` if that takes too long.
    ///
    /// # Errors
    /// When the source fails or panics.
    pub(super) fn judgement(&mut self, iteration: u64, most: Duration) -> Result<Option<Judged>> {
        match self.judged.recv_timeout(most) {
            Ok(judged) => {
                let failed = || format!("{} failed in iteration {iteration}", self.label);
                judged.map(Some).with_context(failed)
            }
            Err(RecvTimeoutError::Timeout) => Ok(None),
            Err(RecvTimeoutError::Disconnected) => {
                let panic = self.thread.take().and_then(|thread| thread.join().err());
                let said = panic.as_ref().map_or("earlier", |panic| panics::message(&**panic));
                Err(anyhow!("{} panicked in iteration {iteration}: {said}", self.label))
            }
        }
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        self.ender.take().into_iter().for_each(|end| end());
    }
}

/// One source, as its thread has it.
struct Desk {
    source: Box<dyn Source>,
    prompts: Arc<[PromptSample]>,
    /// What was scored before it was asked for, by ticket.
    early: HashMap<u64, Vec<Reward>>,
    /// Why that is not all: told when the next iteration's completions are asked for.
    failed: Option<Error>,
    spent: Duration,
}

impl Desk {
    fn work(mut self, inbox: &Receiver<Job>, outbox: &Sender<Result<Judged>>, faults: &Faults) {
        let mut next = inbox.recv().ok();
        while let Some(job) = next.take() {
            match job {
                Job::Finished(first) => {
                    let mut finished = vec![first];
                    next = drain(inbox, &mut finished);
                    self.begin(&finished);
                }
                Job::Batch(iteration, answered) => {
                    let judged =
                        faults.strike("reward", iteration).and_then(|()| self.judge(&answered));
                    // The trainer then has the only copy, and need not make another.
                    drop(answered);
                    if outbox.send(judged).is_err() {
                        return;
                    }
                }
            }
            next = next.or_else(|| inbox.recv().ok());
        }
    }

    /// Scores prompts whose iteration is still to come.
    fn begin(&mut self, finished: &[Arc<Answered>]) {
        if self.failed.is_some() {
            return;
        }
        match self.score(finished) {
            Ok(rewards) => {
                let tickets = finished.iter().map(|answered| answered.ticket.0);
                self.early.extend(tickets.zip(rewards));
            }
            Err(error) => self.failed = Some(error),
        }
    }

    /// Says what an iteration's completions earned, having scored those that are not.
    fn judge(&mut self, answered: &[Arc<Answered>]) -> Result<Judged> {
        if let Some(error) = self.failed.take() {
            return Err(error);
        }
        let is_new = |answered: &&Arc<Answered>| !self.early.contains_key(&answered.ticket.0);
        let new: Vec<Arc<Answered>> = answered.iter().filter(is_new).cloned().collect();
        let mut scored = self.score(&new)?.into_iter();
        let mut rewards = Vec::new();
        for one in answered {
            let early = self.early.get(&one.ticket.0).cloned();
            rewards.extend(early.or_else(|| scored.next()).unwrap_or_default());
        }
        answered.iter().for_each(|one| drop(self.early.remove(&one.ticket.0)));
        let seconds = std::mem::take(&mut self.spent).as_secs_f64();
        Ok(Judged { rewards, seconds, metrics: self.source.metrics() })
    }

    /// Returns what the samples of each prompt earned.
    fn score(&mut self, answered: &[Arc<Answered>]) -> Result<Vec<Vec<Reward>>> {
        let since = Instant::now();
        let completions: Vec<Completion<'_>> = answered
            .iter()
            .flat_map(|one| {
                let prompt = &self.prompts[one.prompt];
                one.rollouts.iter().map(move |rollout| Completion { prompt, rollout })
            })
            .collect();
        if completions.is_empty() {
            return Ok(Vec::new());
        }
        let rewards = self.source.score(&completions)?;
        let (wanted, got) = (completions.len(), rewards.len());
        ensure!(wanted == got, "it must judge {wanted} completions, got {got} rewards");
        let mut rewards = rewards.into_iter();
        let split = answered.iter().map(|one| rewards.by_ref().take(one.rollouts.len()).collect());
        let split = split.collect();
        self.spent += since.elapsed();
        Ok(split)
    }
}

/// Takes the finished prompts that wait, up to a measure, and returns what is to be done next where that is something else.
fn drain(inbox: &Receiver<Job>, finished: &mut Vec<Arc<Answered>>) -> Option<Job> {
    let mut completions = finished.iter().map(|one| one.rollouts.len()).sum::<usize>();
    while completions < AT_ONCE {
        match inbox.try_recv() {
            Ok(Job::Finished(answered)) => {
                completions += answered.rollouts.len();
                finished.push(answered);
            }
            Ok(other) => return Some(other),
            Err(_) => return None,
        }
    }
    None
}
