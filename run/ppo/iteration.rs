//! The algorithm box, iteration by iteration.

use std::{path::PathBuf, sync::Arc};

use anyhow::Result;
use serde::Serialize;

use super::{
    PpoOutcome,
    setup::{self, Trainer},
};
use crate::{
    config::PpoConfig,
    data::PromptSample,
    engine::{Engine, RefitReport},
    model::Model,
    rollout::{Consumer, QueueSnapshot, Rollout, WeightVersion},
    run::{
        Metrics, RunDirectory,
        canary::Canary,
        generator::Answered,
        mismatch::Gate,
        models,
        record::{EntryKind, Lane},
        resume,
        reward::RewardSource,
        session::Session,
    },
    trainer::{ppo::Trajectories, reward::Reward},
};

/// A run under way.
pub(super) struct PpoRun<'a, 'o> {
    pub(super) config: &'a PpoConfig,
    /// Iterations that an earlier run has done.
    pub(super) done: u64,
    pub(super) base: &'a Model,
    pub(super) prompts: &'a [PromptSample],
    pub(super) reward: RewardSource,
    pub(super) trainer: Trainer,
    pub(super) engine: Engine,
    /// Seconds the engine had computed when the first prompt of this iteration was let in. That is before the iteration
    /// begins: the engine generates while the last one's checkpoint is written.
    pub(super) busy_before: f64,
    pub(super) canary: Canary,
    pub(super) gate: Gate,
    pub(super) consumer: Consumer<Arc<Answered>>,
    /// The queue as the latest iteration left it: what a checkpoint keeps of it.
    pub(super) queued: QueueSnapshot<Arc<Answered>>,
    pub(super) session: Session<'o>,
}

impl PpoRun<'_, '_> {
    /// Does the iterations that are left.
    ///
    /// # Errors
    /// When an iteration cannot be done, or what it leaves cannot be written.
    pub(super) fn run(mut self) -> Result<PpoOutcome> {
        let outcome = self.iterations();
        self.session.end(outcome)
    }

    fn iterations(&mut self) -> Result<PpoOutcome> {
        let mut outcome = PpoOutcome { policy: PathBuf::new(), iterations: Vec::new() };
        self.say_notes()?;
        if self.done > 0 {
            outcome.policy = RunDirectory::latest(&self.config.output_dir)?.join("policy");
        }
        for iteration in self.done + 1..=self.config.ppo.iterations {
            let metrics = self.iterate(iteration)?;
            self.say_notes()?;
            self.session.report(iteration, &metrics)?;
            outcome.iterations.push(metrics);
            if self.session.saves(iteration) {
                outcome.policy = self.save(iteration)?;
            }
        }
        Ok(outcome)
    }

    /// Does one iteration of the algorithm box.
    fn iterate(&mut self, iteration: u64) -> Result<Metrics> {
        let (mut metrics, mut watch) = (Metrics::new(), self.session.begin(iteration));

        let answered = self.consumer.take()?;
        let busy = self.engine.stats().busy_seconds - self.busy_before;
        watch.lap(Lane::Wait, "gen")?;

        let rewards = self.reward.score(&answered, self.prompts)?;
        watch.lap(Lane::Score, "reward")?;

        let rollouts: Vec<Rollout> =
            answered.into_iter().flat_map(|one| Arc::unwrap_or_clone(one).rollouts).collect();
        let mut trajectories = self.trainer.score(&rollouts, &rewards)?;
        metrics.extend(self.pass_gate(iteration, &mut trajectories)?);
        metrics.extend(trajectories.stats.metrics().into_iter().collect());
        watch.lap(Lane::Score, "score")?;

        let stats = self.trainer.update(&trajectories)?;
        metrics.extend(stats.metrics().into_iter().collect());
        watch.lap(Lane::Train, "update")?;

        self.settle()?;
        watch.lap(Lane::Wait, "settle")?;

        let refit = self.refit()?;
        metrics.extend(refit_metrics(&refit));
        watch.lap(Lane::Refit, "update_weights")?;

        metrics.extend(self.canary.check(&self.engine, self.trainer.policy())?);
        watch.lap(Lane::Refit, "canary")?;

        self.busy_before = self.engine.stats().busy_seconds;
        self.end(iteration, refit.version);

        self.write_samples(iteration, &rollouts, &rewards)?;
        let tokens: usize = rollouts.iter().map(|rollout| rollout.completion.len()).sum();
        metrics.set("perf/generated_tokens", tokens as f64);
        metrics.set("perf/generation_tokens_per_s", tokens as f64 / busy.max(1e-9));
        metrics.set("perf/throughput", tokens as f64 / watch.total());
        metrics.extend(watch.metrics());
        Ok(metrics)
    }

    /// Passes on what the engine has to say.
    fn say_notes(&mut self) -> Result<()> {
        self.session.notes(&self.engine.take_notes())
    }

    /// Waits, where runs are to repeat, until no prompt is with the engine: which weights answer it is then no matter of
    /// time.
    fn settle(&mut self) -> Result<()> {
        if self.config.queue.settles() {
            self.consumer.settle()?;
        }
        Ok(())
    }

    /// Ends the iteration for the queue, and lets the engine begin the next while this one is written down.
    fn end(&mut self, iteration: u64, version: WeightVersion) {
        self.consumer.close(version);
        self.queued = self.consumer.snapshot();
        // After the last iteration nobody takes what this would let in.
        if iteration < self.config.ppo.iterations {
            self.consumer.open();
        }
    }

    /// Looks at how far engine and trainer are apart before anything is trained on what came of it.
    fn pass_gate(&mut self, iteration: u64, trajectories: &mut Trajectories) -> Result<Metrics> {
        let judgement = self.gate.judge(iteration, &trajectories.stats)?;
        if judgement.correct {
            self.trainer.correct(trajectories);
        }
        if let Some(note) = judgement.note {
            let apart = judgement.breaches.is_some_and(|breaches| breaches > 0);
            let kind = if apart { EntryKind::Warning } else { EntryKind::Note };
            self.session.journal(kind, Some("mismatch"), &note)?;
        }
        let breaches = judgement.breaches.map(|breaches| ("parity/breaches", breaches as f64));
        Ok(breaches.into_iter().collect())
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

fn refit_metrics(refit: &RefitReport) -> Metrics {
    Metrics::new()
        .with("sync/seconds", refit.seconds)
        .with("sync/bytes", refit.bytes as f64)
        .with("sync/version", refit.version.0 as f64)
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
