//! The loop of PPO: generate, score, update, refit.

use std::{path::PathBuf, sync::Arc, thread, time::Duration};

use anyhow::{Result, anyhow};
use serde::Serialize;

use super::{
    Earlier, Launch, Metrics, RunDirectory,
    batches::order,
    canary::Canary,
    generator::{Answered, Generator},
    models::{self, Wanted},
    resume,
    reward::RewardSource,
    samples::{self, Samples},
    session::{self, Session},
    stopwatch::Stopwatch,
};
use crate::{
    config::{PpoConfig, RewardConfig},
    data::{Cursor, PromptSample},
    engine::{BackendKind, Engine, EngineModel, RefitMode, RefitReport},
    model::Model,
    rollout::{Consumer, Dtype, QueueOptions, Rollout, Ticket, WeightVersion, Weights, queue},
    trainer::{
        config::ValueInit,
        learner::LanguageModel,
        ppo::{Ppo, PpoModels, PpoSetup},
        reward::Reward,
        torch::{self, LearningModel, ModelOptions},
    },
};

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
    models::use_threads(config.threads)?;
    let base = models::open(&config.model.path)?;
    let Samples { train: prompts, .. } =
        samples::read::<PromptSample>(&config.data, &base, launch.observer)?;
    let longest = longest_rollout(config, &base, &prompts);
    let reward = RewardSource::open(config, &base, longest)?;
    reward.check(&prompts)?;
    let mut trainer = trainer(config, &base, longest)?;
    let done = resume(config, launch.earlier, &mut trainer)?;
    let engine = engine(config, &base, &trainer, WeightVersion(done))?;
    let canary = Canary::new(&config.engine, &prompts);
    // Before anything is sampled: an engine that does not compute what the policy does would be trained on.
    canary.check(&engine, trainer.policy())?;
    let mut session = Session::start(launch, config, ("ppo", config.ppo.iterations))?;
    if done > 0 {
        session.directory.rewind(done)?;
        session.observer.note(&format!("resumed after iteration {done}"));
    }
    let busy_before = engine.stats().busy_seconds;

    let (issuer, consumer) = queue(QueueOptions {
        batch: config.ppo.prompts_per_iteration,
        deadline: Duration::from_secs_f64(config.engine.deadline_seconds),
        version: WeightVersion(done),
        first: Ticket(done * config.ppo.prompts_per_iteration as u64),
        ..QueueOptions::default()
    });
    let mut order = order(&config.data, config.seed, prompts.len());
    order.seek(Cursor::after(done * config.ppo.prompts_per_iteration as u64, prompts.len()))?;
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
    trainer: Ppo<LearningModel, LearningModel>,
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

    /// Lets the engine see the policy as it now is: by alias, so without copying a byte, where it can.
    fn refit(&mut self) -> Result<RefitReport> {
        let version = self.consumer.version().next();
        let weights = weights(self.config, &self.trainer.policy().model, version)?;
        Ok(self.engine.blocking().refit(&weights, RefitMode::Alias)?)
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

/// Returns the most tokens that a prompt and its completion can have.
fn longest_rollout(config: &PpoConfig, base: &Model, prompts: &[PromptSample]) -> usize {
    let prompt = prompts.iter().map(|prompt| prompt.tokens.ids().len()).max().unwrap_or_default();
    prompt.saturating_add(config.sampling.max_new_tokens).min(base.spec().max_positions)
}

/// Loads policy, reference and critic.
fn trainer(
    config: &PpoConfig,
    base: &Model,
    longest: usize,
) -> Result<Ppo<LearningModel, LearningModel>> {
    let options =
        models::options(config.device, config.model.dtype, config.model.activation_checkpointing);
    let learner =
        |opened: &Model, wanted| models::learner(opened, wanted, &options, &config.optimizer);
    let policy = learner(base, Wanted::LanguageModel)?;
    // Without a penalty nobody asks the reference.
    let reference = match config.ppo.kl_coef > 0.0 {
        true => Some(reference(config, base, longest, &options)?),
        false => None,
    };
    let critic = match (config.ppo.value_init, &config.reward) {
        (ValueInit::RewardModel, RewardConfig::Model { path, .. }) => {
            learner(&models::open(path)?, Wanted::ZeroScore)?
        }
        _ => learner(base, Wanted::ZeroScore)?,
    };
    let setup = PpoSetup {
        options: config.ppo.clone(),
        optimizer: config.optimizer.clone(),
        schedule: config.schedule.clone(),
        temperature: config.sampling.temperature.into(),
        seed: config.seed,
    };
    Ok(Ppo::new(PpoModels { policy, reference, critic }, setup)?)
}

/// Loads what the KL is taken against.
fn reference(
    config: &PpoConfig,
    base: &Model,
    longest: usize,
    options: &ModelOptions,
) -> Result<Box<dyn LanguageModel + Send>> {
    let opened = models::open(config.model.reference.as_ref().unwrap_or(&config.model.path))?;
    models::check_reader(base, &opened, longest)?;
    let frozen = ModelOptions { frozen: true, ..*options };
    Ok(Box::new(models::load(&opened, Wanted::LanguageModel, &frozen)?))
}

/// Puts the latest checkpoint's state into the trainer, if the run is resumed. Returns the iterations that are over.
fn resume(
    config: &PpoConfig,
    earlier: Earlier,
    trainer: &mut Ppo<LearningModel, LearningModel>,
) -> Result<u64> {
    match earlier {
        Earlier::Resume => resume::restore(&RunDirectory::latest(&config.output_dir)?, trainer),
        Earlier::Refuse | Earlier::Delete => Ok(0),
    }
}

/// Starts an engine over the policy's own weights.
fn engine(
    config: &PpoConfig,
    base: &Model,
    trainer: &Ppo<LearningModel, LearningModel>,
    version: WeightVersion,
) -> Result<Engine> {
    let policy = &trainer.policy().model;
    let dtype = engine_dtype(config);
    let mut spec = policy.spec().clone();
    spec.dtype = dtype;
    let model = EngineModel {
        spec,
        weights: weights(config, policy, version)?,
        eos: base.generation.eos_token_ids.clone(),
        tokenizer: base.tokenizer.clone(),
    };
    Ok(Engine::builder().config(config.engine.clone()).model(model).build()?)
}

/// Returns the policy's weights where the engine reads them: TensorRT-LLM on the trainer's device, the others on the host.
fn weights(config: &PpoConfig, policy: &torch::Model, version: WeightVersion) -> Result<Weights> {
    let dtype = engine_dtype(config);
    let on_device =
        config.engine.backend == BackendKind::TensorRtLlm && !config.engine.tensorrt_llm.double;
    Ok(match on_device {
        true => policy.device_weights(version, dtype)?,
        false => policy.weights(version, dtype)?,
    })
}

/// The engine computes in the format the trainer computes in, unless told otherwise.
fn engine_dtype(config: &PpoConfig) -> Dtype {
    config.engine.dtype.resolve(config.model.dtype.into())
}
