//! The algorithm box, iteration by iteration.

use std::{path::PathBuf, sync::Arc};

use anyhow::Result;

use super::{
    PpoOutcome,
    batch::Batch,
    evaluation::Evaluation,
    setup::{self, Trainer},
};
use crate::{
    config::{OnBreak, PpoConfig},
    data::PromptSample,
    engine::{self, Engine, RefitReport, Stats},
    model::Model,
    rollout::{Consumer, Dtype, QueueError, QueueSnapshot, Rollout, WeightVersion},
    run::{
        Metrics,
        canary::Canary,
        checkpoint::{self, Resumable},
        faults::Faults,
        generator::Answered,
        heartbeat::Heartbeat,
        invariants::Invariants,
        mismatch::Gate,
        models,
        record::{EntryKind, Lane, SampleRow, choose},
        scorer::{RewardLate, Scorer},
        session::Session,
        stopwatch::Stopwatch,
        whereabouts,
    },
    trainer::{
        ppo::{PpoState, ScoreStats, Trajectories, teaches},
        reward::Reward,
    },
};

/// A run under way.
pub(super) struct PpoRun<'a, 'o> {
    pub(super) config: &'a PpoConfig,
    /// Iterations that an earlier run has done.
    pub(super) done: u64,
    /// The policy that they left; no path if there were none.
    pub(super) begun_from: PathBuf,
    pub(super) base: &'a Model,
    pub(super) prompts: &'a [PromptSample],
    /// `None` where no prompts are held out.
    pub(super) evaluation: Option<Evaluation>,
    pub(super) reward: Scorer,
    pub(super) invariants: Invariants<'a>,
    /// Where the trainer stood when its weights last were those of a whole iteration.
    pub(super) whole: PpoState,
    /// The iteration of the latest checkpoint.
    pub(super) saved: u64,
    pub(super) heartbeat: &'a Heartbeat,
    pub(super) faults: Faults,
    pub(super) trainer: Trainer,
    pub(super) engine: Engine,
    /// What the engine had done when the latest batch was taken.
    pub(super) counted: Stats,
    pub(super) canary: Canary,
    pub(super) gate: Gate,
    pub(super) consumer: Consumer<Arc<Answered>>,
    /// The queue as the latest iteration left it: what a checkpoint keeps of it.
    pub(super) queued: QueueSnapshot<Arc<Answered>>,
    pub(super) session: Session<'o>,
}

impl PpoRun<'_, '_> {
    /// Does the iterations that are left; then gives up its end of the queue, which ends the generator, and hears from
    /// that what it came to.
    ///
    /// # Errors
    /// When an iteration cannot be done, or what it leaves cannot be written. What is whole is then in a checkpoint.
    pub(super) fn run(mut self, generated: impl FnOnce() -> Result<()>) -> Result<PpoOutcome> {
        let outcome = self.iterations();
        if outcome.is_err()
            && let Err(error) = self.leave()
        {
            // Why there is no checkpoint matters less than why one was needed.
            let text = format!("the last whole state could not be saved: {error:#}");
            drop(self.session.journal(EntryKind::Warning, Some("checkpoint"), &text));
        }
        let Self { mut session, consumer, .. } = self;
        drop(consumer);
        // Where the generator failed, the trainer can only say that nothing came.
        session.end(generated().and(outcome))
    }

    fn iterations(&mut self) -> Result<PpoOutcome> {
        let mut outcome = PpoOutcome { policy: self.begun_from.clone(), last: None };
        self.say_notes()?;
        for iteration in self.done + 1..=self.config.ppo.iterations {
            if self.session.is_exhausted(iteration - 1)? {
                break;
            }
            let Some(metrics) = self.iterate(iteration).map_err(|error| self.explained(error))?
            else {
                self.abandon(iteration)?;
                break;
            };
            self.say_notes()?;
            self.session.report(iteration, &metrics)?;
            outcome.last = Some(metrics);
            if self.session.saves(iteration) {
                self.works("the checkpoint", iteration);
                outcome.policy = self.save(iteration)?;
            }
            self.invariants.verdict()?;
            self.session.stop_at(iteration)?;
        }
        Ok(outcome)
    }

    /// Gives an iteration up that has only waited so far, since the run was asked to stop: the checkpoint of the one
    /// before it is written, if it is not there.
    fn abandon(&mut self, iteration: u64) -> Result<()> {
        let done = iteration - 1;
        if !self.session.has_saved(done) {
            self.works("the checkpoint", done);
            self.save(done)?;
        }
        self.session.stop_at(done)
    }

    /// Does one iteration of the algorithm box. `None` if the run was asked to stop before there was anything to train
    /// on.
    fn iterate(&mut self, iteration: u64) -> Result<Option<Metrics>> {
        let mut watch = self.session.begin(iteration);

        self.faults.strike("queue", iteration)?;
        let Some(batch) = self.gather(iteration, &mut watch)? else { return Ok(None) };
        let Batch { rollouts, rewards, mut metrics } = batch;
        metrics.extend(self.pace());

        self.works("scores", iteration);
        let mut trajectories = self.trainer.score(&rollouts, &rewards)?;
        self.invariants.scored(&rollouts, &trajectories, self.trainer.state())?;
        metrics.extend(self.pass_gate(iteration, &mut trajectories)?);
        metrics.extend(trajectories.stats.metrics().into_iter().collect());
        watch.lap(Lane::Score, "score")?;
        watch.parts(Lane::Score, &self.trainer.take_phases())?;

        self.works("the update", iteration);
        self.faults.strike("trainer", iteration)?;
        self.faults.spoil_gradient(iteration, &mut trajectories);
        let stats = self.trainer.update(&trajectories)?;
        self.invariants.updated(&stats, || setup::check_weights(&self.trainer))?;
        self.whole = self.trainer.state().clone();
        metrics.extend(stats.metrics().into_iter().collect());
        watch.lap(Lane::Train, "update")?;
        watch.parts(Lane::Train, &self.trainer.take_phases())?;

        self.waits("settling", iteration);
        self.settle()?;
        watch.lap(Lane::Wait, "settle")?;

        self.waits("the refit", iteration);
        let refit = self.refit()?;
        metrics.extend(refit_metrics(&refit));
        watch.lap(Lane::Refit, "update_weights")?;

        metrics.extend(self.canary.check(&self.engine, self.trainer.policy())?);
        watch.lap(Lane::Refit, "canary")?;

        metrics.extend(self.evaluate(iteration, &mut watch)?);
        metrics.extend(lag(&rollouts, self.consumer.version()));
        self.end(iteration, refit.version);
        metrics.set("queue/depth", self.queued.answered.len() as f64);
        metrics.set("queue/dropped", self.queued.dropped as f64);

        self.works("records", iteration);
        self.write_samples(iteration, &rollouts, (&rewards, &trajectories.stats))?;
        metrics.extend(self.invariants.findings.metrics());
        self.invariants.findings.write(&mut self.session)?;
        metrics.extend(speed(&rollouts, watch.total()));
        self.trace_generation(iteration)?;
        let tokens = rollouts.iter().map(|rollout| rollout.tokens()).sum();
        metrics.extend(watch.metrics(tokens));
        Ok(Some(metrics))
    }

    /// Takes a batch of prompts and hears what their completions earned. Prompts that teach nothing give way to others, as
    /// often as the options say. `None` as in [`PpoRun::iterate`].
    fn gather(&mut self, iteration: u64, watch: &mut Stopwatch) -> Result<Option<Batch>> {
        let (options, mut batch) = (&self.config.ppo, Batch::default());
        self.invariants.findings.begin(iteration);
        let mut refused = 0;
        for refill in 0..=options.max_refills {
            self.waits("rollouts", iteration);
            let taken = self.consumer.take_while(|| !self.session.is_to_stop())?;
            let Some(mut answered) = taken else { return Ok(None) };
            self.faults.spoil_batch(iteration, &mut answered);
            self.invariants.taken(&answered, self.queued.dropped)?;
            watch.lap(Lane::Wait, "gen")?;

            self.waits("rewards", iteration);
            let (rewards, judged) = self.reward.score(iteration, &answered)?;
            self.invariants.rewarded(&answered, &rewards)?;
            watch.lap(Lane::Score, "reward")?;
            if refill == 0 {
                // Of what was drawn before anything was chosen.
                batch.metrics.extend(judged);
            }
            let may_refuse = refill < options.max_refills;
            let idle = batch.add(answered, rewards, |rollouts, rewards| {
                may_refuse && !teaches(options, rollouts, rewards)
            });
            if idle == 0 {
                break;
            }
            refused += idle;
            self.consumer.refuse(idle);
        }
        if options.max_refills > 0 {
            batch.metrics.set("queue/refused", refused as f64);
        }
        Ok(Some(batch))
    }

    /// Measures the policy on the prompts that are held out, where that is due or a checkpoint is chosen by it.
    fn evaluate(&mut self, iteration: u64, watch: &mut Stopwatch) -> Result<Metrics> {
        let session = &self.session;
        let needed = session.saves(iteration) && session.is_chosen_by("eval/");
        let Some(evaluation) = &self.evaluation else { return Ok(Metrics::new()) };
        if !needed && !session.is_due(iteration, self.config.ppo.eval_every) {
            return Ok(Metrics::new());
        }
        self.works("the evaluation", iteration);
        let measured =
            evaluation.measure(iteration, self.prompts, &self.engine, &mut self.reward)?;
        watch.lap(Lane::Score, "eval")?;
        Ok(measured)
    }

    /// Passes on what the engine has to say.
    fn say_notes(&mut self) -> Result<()> {
        self.session.notes(&self.engine.take_notes())
    }

    /// Returns how fast the engine was, whenever it was at work since the batch before was taken.
    fn pace(&mut self) -> Metrics {
        let (before, now) = (self.counted, self.engine.stats());
        self.counted = now;
        let tokens = now.generated_tokens.saturating_sub(before.generated_tokens) as f64;
        let busy = now.busy_seconds - before.busy_seconds;
        Metrics::new().with("perf/generation_tokens_per_s", tokens / busy.max(1e-9))
    }

    /// Traces when the engine was at work.
    fn trace_generation(&self, iteration: u64) -> Result<()> {
        for busy in self.engine.take_busy() {
            let lane = (Lane::Generate, "generate");
            self.session.trace.span(lane, (busy.start, busy.end), iteration)?;
        }
        Ok(())
    }

    /// Waits, where runs are to repeat, until no prompt is with the engine: which weights answer it is then no matter of
    /// time.
    fn settle(&mut self) -> Result<()> {
        if self.config.queue.settles() {
            self.consumer.settle()?;
        }
        Ok(())
    }

    /// Says with an error of somebody who waited in vain where everybody was.
    fn explained(&self, error: anyhow::Error) -> anyhow::Error {
        let waited = error.is::<QueueError>() || error.is::<RewardLate>();
        let for_engine = matches!(
            error.downcast_ref(),
            Some(engine::Error::Deadline { .. } | engine::Error::Stopped(_))
        );
        if !waited && !for_engine {
            return error;
        }
        let (queue, engine) = (self.consumer.state(), self.engine.stats());
        let others = whereabouts::describe(Some(&queue), Some(&engine));
        error.context(format!("the trainer cannot go on{others}"))
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

    /// Shows that the trainer has begun to compute or to write.
    fn works(&self, at: &str, iteration: u64) {
        self.heartbeat.works(format!("{at} of iteration {iteration}"), self.consumer.state());
    }

    /// Shows that the trainer has begun to wait for somebody.
    fn waits(&self, at: &str, iteration: u64) {
        self.heartbeat.waits(format!("{at} of iteration {iteration}"), self.consumer.state());
    }

    /// Lets the engine see the policy as it now is.
    fn refit(&mut self) -> Result<RefitReport> {
        let version = self.consumer.version().next();
        let weights = setup::weights(self.config, &self.trainer.policy().model, version)?;
        // The invariant looked at the trainer's own numbers. In f32 the engine gets those, or what they are widened to;
        // but for those that an adapter is merged into.
        let looked_at = self.config.invariants.finite == OnBreak::Stop && !self.config.lora.is_on();
        let exact = weights.iter().all(|(_, tensor)| tensor.dtype == Dtype::F32);
        let weights = if looked_at && exact { weights.found_finite() } else { weights };
        Ok(self.engine.blocking().refit(&weights, setup::refit_mode(self.config))?)
    }

    fn write_samples(
        &self,
        iteration: u64,
        rollouts: &[Rollout],
        (rewards, stats): (&[Reward], &ScoreStats),
    ) -> Result<()> {
        self.session.samples(iteration, |most| {
            let tokenizer = self.base.tokenizer()?;
            let row =
                |i: usize| SampleRow::new(rollouts, i, (rewards[i].score(), stats), tokenizer);
            choose(rollouts, most).into_iter().map(row).collect()
        })
    }

    /// Saves the last whole state of a run that cannot go on, unless there is no weight that has moved since the latest
    /// checkpoint, or one has moved since that state.
    fn leave(&mut self) -> Result<()> {
        self.invariants.findings.write(&mut self.session)?;
        let (now, whole) = (self.trainer.state(), &self.whole);
        let moved =
            (now.policy_steps, now.critic_steps) != (whole.policy_steps, whole.critic_steps);
        let iteration = whole.iteration;
        if moved || iteration == self.saved {
            return Ok(());
        }
        // What scoring has counted since belongs to an iteration that will be done again.
        self.trainer.restore(self.whole.clone());
        if iteration > self.queued.iteration {
            // The iteration got as far as its update: a resumed run answers what is left in the queue under the new weights.
            self.consumer.close(self.consumer.version().next());
            self.queued = self.consumer.snapshot();
        }
        self.works("the checkpoint", iteration);
        self.save(iteration).map(drop)
    }

    fn save(&mut self, iteration: u64) -> Result<PathBuf> {
        let (trainer, queued) = (&self.trainer, &self.queued);
        let (base, faults) = (self.base, &self.faults);
        let checkpoint = self.session.save(iteration, |dir| {
            faults.strike("checkpoint", iteration)?;
            models::save(dir, &trainer.learners(), base, &[])?;
            checkpoint::save(dir, trainer)?;
            checkpoint::save_queue(dir, queued)
        })?;
        self.saved = iteration;
        Ok(checkpoint.join("policy"))
    }
}

/// Returns how many refits lie between the weights that sampled the batch's tokens and those that learn from them.
fn lag(rollouts: &[Rollout], learner: WeightVersion) -> Metrics {
    let spans = || rollouts.iter().flat_map(|rollout| &rollout.versions);
    let lags = spans().map(|span| (span.version.staleness(learner) as f64, f64::from(span.tokens)));
    let (sum, tokens) = lags.fold((0.0, 0.0), |(sum, all), (lag, n)| (sum + lag * n, all + n));
    let oldest = spans().map(|span| span.version).min().unwrap_or(learner);
    Metrics::new()
        .with("queue/lag_mean", sum / f64::max(tokens, 1.0))
        .with("queue/lag_max", oldest.staleness(learner) as f64)
}

fn refit_metrics(refit: &RefitReport) -> Metrics {
    Metrics::new()
        .with("sync/seconds", refit.seconds)
        .with("sync/bytes", refit.bytes as f64)
        .with("sync/version", refit.version.0 as f64)
}

/// Returns how fast an iteration was; `total` is all its seconds.
fn speed(rollouts: &[Rollout], total: f64) -> Metrics {
    let tokens: usize = rollouts.iter().map(|rollout| rollout.completion.len()).sum();
    Metrics::new()
        .with("eps", rollouts.len() as f64 / total.max(1e-9))
        .with("perf/generated_tokens", tokens as f64)
}
