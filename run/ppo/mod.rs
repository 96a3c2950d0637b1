//! The loop of PPO: generate, score, update, refit.

mod batch;
mod evaluation;
mod iteration;
mod setup;

use std::{any::Any, path::PathBuf, sync::Arc, thread};

use anyhow::{Result, anyhow, ensure};

use super::{
    Launch, Metrics,
    batches::order,
    canary::Canary,
    faults::Faults,
    generator::{Answered, Generator},
    heartbeat::Heartbeat,
    invariants::{Invariants, Ledger},
    mismatch::Gate,
    models,
    opening::Opening,
    panics,
    placement::Placement,
    plan::{self, Length},
    record::Journal,
    relay::relay,
    reward,
    samples::{self, Samples},
    scorer::{Scorer, ScorerOptions},
    session::Session,
};
use crate::{
    config::PpoConfig,
    data::PromptSample,
    rollout::{QueueOptions, QueueSnapshot, WeightVersion, restore},
};
use evaluation::Evaluation;
use iteration::PpoRun;

/// What came of a run.
#[derive(Clone, Debug)]
pub struct PpoOutcome {
    /// The policy's model directory that was written last.
    pub policy: PathBuf,
    /// The last iteration's metrics; `None` where no iteration was left. The run directory has those of all.
    pub last: Option<Metrics>,
}

/// Trains a policy against a reward and writes it into the run directory, with its critic where it has one.
///
/// # Errors
/// As [`super::sft`]; when engine or reward fail on the way, or do not answer until their deadlines; when an invariant is
/// broken; and when the trainer gives no sign of life: its thread is then left behind, and ends with the process.
pub fn ppo(config: &PpoConfig, launch: Launch<'_>) -> Result<PpoOutcome> {
    let opening = Opening::new(config, launch.earlier)?;
    if opening.is_over(config.ppo.iterations, launch.observer) {
        return Ok(PpoOutcome { policy: opening.model("policy"), last: None });
    }
    let Launch { earlier, observer, stop } = launch;
    let (heartbeat, (mut relay, relayed)) = (Heartbeat::new("opening the models"), relay());
    // On a thread of its own: the places that its threads get end with it, and it can be left behind.
    let trainer = thread::Builder::new().name("trainer".into()).spawn({
        let (config, heartbeat) = (config.clone(), heartbeat.clone());
        move || run(&config, Launch { earlier, observer: &mut relay, stop }, opening, &heartbeat)
    })?;
    let panicked = |panic: Box<dyn Any + Send>| {
        anyhow!(
            "the trainer thread panicked: {}; {}",
            panics::message(&*panic),
            heartbeat.describe()
        )
    };
    relayed
        .tell(observer, &heartbeat, config.deadlines.trainer())
        .and_then(|()| trainer.join().map_err(panicked))
        .inspect_err(|lost| Journal::note_end(&config.output_dir, &format!("{lost:#}")))?
}

fn run(
    config: &PpoConfig,
    launch: Launch<'_>,
    opening: Opening,
    heartbeat: &Heartbeat,
) -> Result<PpoOutcome> {
    let placement = match config.queue.overlaps() {
        true => Placement::side_by_side(config.threads, config.engine.threads),
        false => Placement::in_turns(config.threads, config.engine.threads),
    };
    placement.settle_trainer()?;
    models::use_threads(placement.trainer_threads)?;
    let base = models::open(&config.model.path)?;
    let Samples { train, eval, reports } = samples::read::<PromptSample>(&config.data, &base)?;
    let lengths = train.iter().map(Length::of_prompt).collect();
    let learned_from = train.len();
    // Those that are held out stand behind the others.
    let prompts: Arc<[PromptSample]> = train.into_iter().chain(eval).collect();
    let longest = setup::longest_rollout(config, &base, &prompts);
    let checked = plan::check(config, config.memory, lengths)?;
    let sources = reward::open(config, &base, (longest, placement.trainer_threads))?;
    reward::check(&sources, &prompts)?;
    let mut trainer = setup::trainer(config, &base, longest)?;
    opening.restore(&mut trainer)?;
    let (done, begun_from) = (opening.done(), opening.model("policy"));
    let queued: QueueSnapshot<Arc<Answered>> = opening.queue()?;
    let known = queued.answered.iter().all(|(_, answered)| answered.prompt < learned_from);
    ensure!(known, "the checkpoint's queue answers prompts beyond the {learned_from} of the data");
    let policy = &trainer.policy().model;
    let engine = setup::engine(config, &placement, &base, (policy, WeightVersion(done)))?;
    heartbeat.watch(&engine);
    let canary = Canary::new(&config.engine, &prompts);
    // Before anything is sampled: an engine that does not compute what the policy does would be trained on.
    canary.check(&engine, trainer.policy())?;
    let mut session = Session::start(launch, config, opening, ("ppo", config.ppo.iterations))?;
    session.planned(&checked)?;
    session.notes(&reports)?;
    if config.queue.overlaps() {
        session.note(&placement.describe())?;
    }
    if let Some(reason) = config.not_comparable() {
        session.note(&format!("[mismatch] gates nothing: {reason}"))?;
    }
    let faults = Faults::of(config);
    let options = ScorerOptions { deadline: config.deadlines.reward(), faults: faults.clone() };
    let reward = Scorer::start(sources, &prompts, options)?;

    let batch = config.ppo.prompts_per_iteration;
    let options = QueueOptions {
        batch,
        max_staleness: config.queue.max_staleness(),
        order: config.queue.order,
        deadline: config.deadlines.rollouts(config.engine.deadline_seconds),
    };
    let ledger = Ledger::new(&options, &queued);
    let (issuer, mut consumer) = restore(options, queued)?;
    let generator = Generator {
        engine: engine.clone(),
        issuer,
        heartbeat: heartbeat.clone(),
        patience: config.deadlines.trainer(),
        prompts: &prompts[..learned_from],
        order: order(&config.data, config.seed, learned_from),
        sampling: Arc::new(
            config.sampling.params(config.seed, config.ppo.samples_per_prompt as u32),
        ),
        finished: reward.finished(),
    };
    let run = PpoRun {
        config,
        done,
        begun_from,
        base: &base,
        prompts: &prompts,
        evaluation: Evaluation::new(config, learned_from..prompts.len()),
        reward,
        invariants: Invariants::new(config, &prompts, ledger),
        whole: trainer.state().clone(),
        saved: done,
        heartbeat,
        faults,
        trainer,
        counted: engine.stats(),
        engine,
        canary,
        gate: Gate::new(config),
        queued: consumer.snapshot(),
        consumer,
        session,
    };
    thread::scope(|scope| {
        let generator = placement.beside_trainer(|| {
            let thread = thread::Builder::new().name("generator".into());
            Ok(thread.spawn_scoped(scope, || generator.run())?)
        })?;
        // Whichever way this ends, its end of the queue goes with it, and the generator notices.
        run.run(|| {
            let panicked = |panic: Box<dyn Any + Send>| {
                anyhow!("the generator thread panicked: {}", panics::message(&*panic))
            };
            generator.join().map_err(panicked)?
        })
    })
}
