//! The loop of PPO: generate, score, update, refit.

mod iteration;
mod setup;

use std::{path::PathBuf, sync::Arc, thread, time::Duration};

use anyhow::{Result, anyhow};

use super::{
    Launch, Metrics,
    batches::order,
    canary::Canary,
    generator::Generator,
    mismatch::Gate,
    models,
    placement::Placement,
    record::EntryKind,
    reward::RewardSource,
    samples::{self, Samples},
    session::{self, Session},
};
use crate::{
    config::PpoConfig,
    data::PromptSample,
    rollout::{QueueOptions, QueueSnapshot, Ticket, WeightVersion, restore},
};
use iteration::PpoRun;

/// What came of a run.
#[derive(Clone, Debug)]
pub struct PpoOutcome {
    /// The policy's model directory that was written last.
    pub policy: PathBuf,
    /// Metrics of each iteration, from the first.
    pub iterations: Vec<Metrics>,
}

/// Trains a policy against a reward and writes it into the run directory, with its critic.
///
/// # Errors
/// As [`super::sft`]; and when engine or reward fail on the way.
pub fn ppo(config: &PpoConfig, launch: Launch<'_>) -> Result<PpoOutcome> {
    session::check(config, launch.earlier)?;
    // On a thread of its own: the places that its threads get end with it.
    thread::scope(|scope| {
        let trainer = thread::Builder::new().name("trainer".into());
        let run = trainer.spawn_scoped(scope, || run(config, launch))?;
        run.join().map_err(|_| anyhow!("the trainer thread panicked"))?
    })
}

fn run(config: &PpoConfig, launch: Launch<'_>) -> Result<PpoOutcome> {
    let placement = match config.queue.overlaps() {
        true => Placement::side_by_side(config.threads, config.engine.threads),
        false => Placement::in_turns(config.threads, config.engine.threads),
    };
    models::use_threads(placement.trainer_threads)?;
    let base = models::open(&config.model.path)?;
    let Samples { train: prompts, reports, .. } =
        samples::read::<PromptSample>(&config.data, &base)?;
    let longest = setup::longest_rollout(config, &base, &prompts);
    let reward = RewardSource::open(config, &base, longest)?;
    reward.check(&prompts)?;
    let mut trainer = setup::trainer(config, &base, longest)?;
    let done = setup::resume(config, launch.earlier, &mut trainer)?;
    let policy = &trainer.policy().model;
    let engine = setup::engine(config, &placement, &base, (policy, WeightVersion(done)))?;
    let canary = Canary::new(&config.engine, &prompts);
    // Before anything is sampled: an engine that does not compute what the policy does would be trained on.
    canary.check(&engine, trainer.policy())?;
    let mut session = Session::start(launch, config, ("ppo", config.ppo.iterations))?;
    session.notes(&reports)?;
    if config.queue.overlaps() {
        session.note(&placement.describe())?;
    }
    if let Some(reason) = config.not_comparable() {
        session.note(&format!("[mismatch] gates nothing: {reason}"))?;
    }
    if done > 0 {
        session.directory.rewind(done)?;
        session.journal(EntryKind::Resume, None, &format!("resumed after iteration {done}"))?;
    }
    let busy_before = engine.stats().busy_seconds;

    let batch = config.ppo.prompts_per_iteration;
    let queued = QueueSnapshot {
        iteration: done,
        version: WeightVersion(done),
        next: Ticket(done * batch as u64),
        ..QueueSnapshot::default()
    };
    let (issuer, mut consumer) = restore(
        QueueOptions {
            batch,
            max_staleness: config.queue.max_staleness(),
            order: config.queue.order,
            deadline: Duration::from_secs_f64(config.engine.deadline_seconds),
        },
        queued,
    )?;
    let generator = Generator {
        engine: engine.clone(),
        issuer,
        prompts: &prompts,
        order: order(&config.data, config.seed, prompts.len()),
        sampling: Arc::new(
            config.sampling.params(config.seed, config.ppo.samples_per_prompt as u32),
        ),
    };
    let run = PpoRun {
        config,
        done,
        base: &base,
        prompts: &prompts,
        reward,
        trainer,
        engine,
        busy_before,
        canary,
        gate: Gate::new(config),
        queued: consumer.snapshot(),
        consumer,
        session,
    };
    thread::scope(|scope| {
        let generator = scope.spawn(|| generator.run());
        // Whichever way this ends, its end of the queue goes with it, and the generator notices.
        let outcome = run.run();
        let generated = generator.join().map_err(|_| anyhow!("the generator thread panicked"))?;
        // Where the generator failed, the trainer can only say that nothing came.
        generated.and(outcome)
    })
}
