//! Where an engine stands around a refit.

use crate::engine::Error;

/// Where the engine stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    /// It generates under verified weights.
    Serving,
    /// Nothing new goes in; what is in flight comes to its end.
    Draining,
    /// TensorRT-LLM has nothing to do.
    Quiesced,
    /// Weights are on their way in.
    Refitting,
    /// It generates under new weights that nobody has compared with the trainer's yet.
    Verifying,
    /// Nobody knows which weights it has: it must not generate before it is rebuilt.
    Poisoned,
}

/// The engine's phase, and the steps it may take.
#[derive(Debug)]
pub(super) struct State {
    phase: Phase,
    /// Why it is poisoned.
    reason: String,
}

impl State {
    /// Begins without weights.
    pub(super) fn new() -> Self {
        Self { phase: Phase::Quiesced, reason: String::new() }
    }

    /// Returns where the engine stands.
    pub(super) fn phase(&self) -> Phase {
        self.phase
    }

    /// Takes a step.
    ///
    /// # Errors
    /// When no step leads from here to there: then nothing has changed.
    pub(super) fn step(&mut self, to: Phase) -> Result<(), Error> {
        use Phase::{Draining, Poisoned, Quiesced, Refitting, Serving, Verifying};
        let legal = match (self.phase, to) {
            // A drain that came to nothing, a refit that was refused before it changed anything.
            (Draining | Quiesced | Refitting, Serving | Verifying)
            | (Serving | Verifying, Draining)
            | (Draining, Quiesced)
            | (Quiesced | Poisoned, Refitting)
            | (Verifying, Serving)
            | (_, Poisoned) => true,
            _ => false,
        };
        if !legal {
            return Err(Error::Stopped(format!(
                "an engine that is {:?} cannot become {to:?}",
                self.phase
            )));
        }
        self.phase = to;
        Ok(())
    }

    /// Forbids the engine to generate.
    pub(super) fn poison(&mut self, reason: impl ToString) {
        self.phase = Phase::Poisoned;
        self.reason = reason.to_string();
    }

    /// Says why the engine must not generate, if so.
    pub(super) fn poisoned(&self) -> Option<&str> {
        (self.phase == Phase::Poisoned).then_some(self.reason.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::{Phase::*, *};

    #[test]
    fn a_refit_takes_every_step_in_order() {
        let mut state = State::new();
        let round =
            [Refitting, Verifying, Serving, Draining, Quiesced, Refitting, Verifying, Draining];
        for step in round {
            state.step(step).unwrap();
        }
    }

    #[test]
    fn no_step_leads_past_the_drain() {
        for (from, to) in [(Serving, Refitting), (Draining, Refitting), (Verifying, Quiesced)] {
            let mut state = State { phase: from, reason: String::new() };
            let error = state.step(to).unwrap_err().to_string();
            assert!(error.ends_with(&format!("an engine that is {from:?} cannot become {to:?}")));
            assert_eq!(state.phase(), from);
        }
    }

    #[test]
    fn only_a_refit_leads_out_of_poison() {
        let mut state = State::new();
        state.poison("half of it is new");
        assert_eq!(state.poisoned(), Some("half of it is new"));
        for step in [Serving, Draining, Quiesced, Verifying] {
            assert!(state.step(step).is_err());
        }
        state.step(Refitting).unwrap();
        assert_eq!(state.poisoned(), None);
    }
}
