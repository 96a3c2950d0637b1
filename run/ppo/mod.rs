//! The loop of PPO: generate, score, update, refit.

mod setup;

use std::{path::PathBuf, sync::Arc, thread, time::Duration};

use anyhow::{Result, anyhow};
use serde::Serialize;

use super::{
    Launch, Metrics, RunDirectory,
    batches::order,
    canary::Canary,
    generator::{Answered, Generator},
    models,
    placement::Placement,
    resume,
    reward::RewardSource,
    samples::{self, Samples},
    session::{self, Session},
    stopwatch::Stopwatch,
};
use crate::{
    config::PpoConfig,
    data::{Cursor, PromptSample},
    engine::{Engine, RefitReport},
    model::Model,
    rollout::{Consumer, QueueOptions, Rollout, Ticket, WeightVersion, queue},
    trainer::reward::Reward,
};
use setup::Trainer;

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
    let Samples { train: prompts, .. } =
        samples::read::<PromptSample>(&config.data, &base, launch.observer)?;
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
    if config.queue.overlaps() {
        session.observer.note(&placement.describe());
    }
    if done > 0 {
        session.directory.rewind(done)?;
        session.observer.note(&format!("resumed after iteration {done}"));
    }
    let busy_before = engine.stats().busy_seconds;

    let batch = config.ppo.prompts_per_iteration;
    let (issuer, consumer) = queue(QueueOptions {
        batch,
        max_staleness: config.queue.max_staleness(),
        order: config.queue.order,
        deadline: Duration::from_secs_f64(config.engine.deadline_seconds),
        version: WeightVersion(done),
        first: Ticket(done * batch as u64),
    });
    let mut order = order(&config.data, config.seed, prompts.len());
    order.seek(Cursor::after(done * batch as u64, prompts.len()))?;
    let generator = Generator {
        engine: engine.clone(),
        issuer,
        prompts: &prompts,
        order,
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

/// A run under way.
struct PpoRun<'a, 'o> {
    config: &'a PpoConfig,
    /// Iterations that an earlier run has done.
    done: u64,
    base: &'a Model,
    prompts: &'a [PromptSample],
    reward: RewardSource,
    trainer: Trainer,
    engine: Engine,
    /// Seconds the engine had computed when the first prompt of this iteration was let in. That is before the iteration
    /// begins: the engine generates while the last one's checkpoint is written.
    busy_before: f64,
    canary: Canary,
    consumer: Consumer<Answered>,
    session: Session<'o>,
}

impl PpoRun<'_, '_> {
    fn run(mut self) -> Result<PpoOutcome> {
        let mut outcome = PpoOutcome { policy: PathBuf::new(), iterations: Vec::new() };
        self.say_notes();
        if self.done > 0 {
            outcome.policy = RunDirectory::latest(&self.config.output_dir)?.join("policy");
        }
        for iteration in self.done + 1..=self.config.ppo.iterations {
            let metrics = self.iterate(iteration)?;
            self.say_notes();
            self.session.report(iteration, &metrics)?;
            outcome.iterations.push(metrics);
            if self.session.saves(iteration) {
                outcome.policy = self.save(iteration)?;
            }
        }
        self.session.observer.finish();
        Ok(outcome)
    }

    /// Does one iteration of the algorithm box.
    fn iterate(&mut self, iteration: u64) -> Result<Metrics> {
        let mut watch = Stopwatch::start();
        let answered = self.consumer.take()?;
        let busy = self.engine.stats().busy_seconds - self.busy_before;
        watch.lap("timing_s/gen");
        let rewards = self.reward.score(&answered, self.prompts)?;
        watch.lap("timing_s/reward");
        let rollouts: Vec<Rollout> = answered.into_iter().flat_map(|one| one.rollouts).collect();
        let trajectories = self.trainer.score(&rollouts, &rewards)?;
        watch.lap("timing_s/score");
        let stats = self.trainer.update(&trajectories)?;
        watch.lap("timing_s/update");
        let refit = self.refit()?;
        watch.lap("timing_s/update_weights");
        let parity = self.canary.check(&self.engine, self.trainer.policy())?;
        watch.lap("timing_s/canary");
        self.busy_before = self.engine.stats().busy_seconds;
        // After the last iteration nobody takes what this would let in.
        if iteration < self.config.ppo.iterations {
            self.consumer.advance(refit.version);
        }

        self.write_samples(iteration, &rollouts, &rewards)?;
        let tokens: usize = rollouts.iter().map(|rollout| rollout.completion.len()).sum();
        let mut metrics = Metrics::from_iter(trajectories.stats.metrics());
        metrics.extend(Metrics::from_iter(stats.metrics()));
        metrics.extend(parity);
        metrics.set("sync/seconds", refit.seconds);
        metrics.set("sync/bytes", refit.bytes as f64);
        metrics.set("sync/version", refit.version.0 as f64);
        metrics.set("perf/generated_tokens", tokens as f64);
        metrics.set("perf/generation_tokens_per_s", tokens as f64 / busy.max(1e-9));
        metrics.set("perf/throughput", tokens as f64 / watch.total());
        metrics.extend(watch.metrics("timing_s/step"));
        Ok(metrics)
    }

    /// Passes on what the engine has to say.
    fn say_notes(&mut self) {
        for line in self.engine.take_notes() {
            self.session.observer.note(&line);
        }
    }

    /// Lets the engine see the policy as it now is.
    fn refit(&mut self) -> Result<RefitReport> {
        let version = self.consumer.version().next();
        let weights = setup::weights(self.config, &self.trainer.policy().model, version)?;
        Ok(self.engine.blocking().refit(&weights, setup::refit_mode(self.config))?)
    }

    fn write_samples(
        &self,
        iteration: u64,
        rollouts: &[Rollout],
        rewards: &[Reward],
    ) -> Result<()> {
        let row = |(rollout, reward): (&Rollout, &Reward)| -> Result<SampleRow> {
            let tokenizer = self.base.tokenizer()?;
            Ok(SampleRow {
                prompt: tokenizer.decode(rollout.prompt.tokens.ids(), false)?,
                completion: tokenizer.decode(&rollout.completion, true)?,
                score: reward.score(),
                tokens: rollout.completion.len(),
                ended: rollout.stop.is_end(),
            })
        };
        self.session
            .samples(iteration, |most| rollouts.iter().zip(rewards).take(most).map(row).collect())
    }

    fn save(&mut self, iteration: u64) -> Result<PathBuf> {
        let (trainer, base) = (&self.trainer, self.base);
        let checkpoint = self.session.save(iteration, |dir| {
            models::save(&dir.join("policy"), &trainer.policy().model, base, &[])?;
            models::save(&dir.join("value"), &trainer.critic().model, base, &[])?;
            resume::save(dir, trainer)
        })?;
        Ok(checkpoint.join("policy"))
    }
}

/// One completion of `samples/iteration_N.jsonl`.
#[derive(Serialize)]
struct SampleRow {
    prompt: String,
    completion: String,
    score: f32,
    tokens: usize,
    ended: bool,
}
