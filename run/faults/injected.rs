//! What goes wrong on demand.

use std::{sync::Arc, thread};

use anyhow::{Result, ensure};

use crate::{
    config::{Fault, PpoConfig},
    engine::{
        Backend, Engine, EngineConfig, EngineModel, Error, Event, RefitMode, RefitReport, Request,
        RequestId, Stats, Verdict, open,
    },
    rollout::Weights,
    run::generator::Answered,
    trainer::{ppo::Trajectories, reward::Reward},
};

/// The faults that a configuration asks for. Clones are cheap.
#[derive(Clone)]
pub(in crate::run) struct Faults(Arc<[Fault]>);

impl Faults {
    /// Takes them from a configuration.
    pub(in crate::run) fn of(config: &PpoConfig) -> Self {
        Self(config.faults.as_slice().into())
    }

    fn is_due(&self, what: &str, iteration: u64) -> bool {
        self.0.iter().any(|fault| fault.what == what && fault.step == iteration)
    }

    /// Hangs, panics or fails at a place, where that is due.
    ///
    /// # Errors
    /// Where that is what is due.
    pub(in crate::run) fn strike(&self, place: &str, iteration: u64) -> Result<()> {
        let is_due = |kind| self.is_due(&format!("{place}:{kind}"), iteration);
        if is_due("hang") || is_due("full") {
            stand_still();
        }
        assert!(!is_due("panic"), "told to panic");
        ensure!(!is_due("error"), "told to fail");
        Ok(())
    }

    /// Makes the last reward no number, where that is due.
    pub(in crate::run) fn spoil_rewards(
        &self,
        iteration: u64,
        mut rewards: Vec<Reward>,
    ) -> Vec<Reward> {
        if let (true, Some(last)) = (self.is_due("reward:nan", iteration), rewards.last_mut()) {
            *last = Reward::Score(f32::NAN);
        }
        rewards
    }

    /// Puts the first answer in the place of the last, where that is due.
    pub(in crate::run) fn spoil_batch(&self, iteration: u64, batch: &mut [Arc<Answered>]) {
        if let (true, [first, .., last]) = (self.is_due("queue:twice", iteration), batch) {
            *last = first.clone();
        }
    }

    /// Makes an advantage and a return of each mini-batch no numbers, where that is due.
    pub(in crate::run) fn spoil_gradient(&self, iteration: u64, trajectories: &mut Trajectories) {
        if !self.is_due("gradient:nan", iteration) {
            return;
        }
        for mini_batch in &trajectories.plan.mini_batches {
            let row = mini_batch[0].rows.start;
            trajectories.advantages[row] = f32::NAN;
            if let Some(target) = trajectories.returns.get_mut(row) {
                *target = f32::NAN;
            }
        }
    }

    /// Opens an engine that breaks down when it is due.
    ///
    /// # Errors
    /// As [`crate::engine::EngineBuilder::build`].
    pub(in crate::run) fn engine(
        &self,
        config: EngineConfig,
        model: EngineModel,
    ) -> Result<Engine, Error> {
        config.validate()?;
        let tokenizer = model.tokenizer.clone();
        let backend = Breaking { backend: open(&config, model)?, faults: self.clone() };
        Engine::builder().config(config).backend(Box::new(backend), tokenizer).build()
    }
}

/// Never returns.
fn stand_still() -> ! {
    loop {
        thread::park();
    }
}

/// A backend that breaks down in the step of an iteration: the one whose weights are of that many refits but one.
struct Breaking {
    backend: Box<dyn Backend>,
    faults: Faults,
}

impl Backend for Breaking {
    fn submit(&mut self, request: Request) -> Result<RequestId, Error> {
        self.backend.submit(request)
    }

    fn poll(&mut self, events: &mut Vec<Event>) -> Result<(), Error> {
        let iteration = self.backend.stats().version.0 + 1;
        if self.backend.is_busy() {
            if self.faults.is_due("engine:stall", iteration) {
                stand_still();
            }
            assert!(!self.faults.is_due("engine:panic", iteration), "told to panic");
        }
        self.backend.poll(events)
    }

    fn cancel(&mut self, id: RequestId) {
        self.backend.cancel(id);
    }

    fn is_busy(&self) -> bool {
        self.backend.is_busy()
    }

    fn is_drained(&self) -> bool {
        self.backend.is_drained()
    }

    fn hold_admission(&mut self, hold: bool) {
        self.backend.hold_admission(hold);
    }

    fn refit(
        &mut self,
        weights: &Weights,
        mode: RefitMode,
        checksum: bool,
    ) -> Result<RefitReport, Error> {
        self.backend.refit(weights, mode, checksum)
    }

    fn conclude_refit(&mut self, verdict: Verdict) -> Result<(), Error> {
        self.backend.conclude_refit(verdict)
    }

    fn take_notes(&mut self) -> Vec<String> {
        self.backend.take_notes()
    }

    fn stats(&self) -> Stats {
        self.backend.stats()
    }
}
