//! Optimizer steps that had to be skipped, and weights that must not get into a checkpoint.

use super::{Breach, Broken, Findings};
use crate::config::{FiniteConfig, OnBreak};

const NAME: &str = "finite";

/// Watches what is not finite over the steps of a run.
pub(super) struct Finite {
    config: FiniteConfig,
    /// Why the run is to stop after this step.
    stop: Option<Broken>,
}

impl Finite {
    /// Prepares the first step.
    pub(super) fn new(config: FiniteConfig) -> Self {
        Self { config, stop: None }
    }

    /// Looks at a step: how many optimizer steps of it were skipped and how many in a row, and whether the weights are
    /// finite.
    ///
    /// # Errors
    /// When the weights are not. Skipped steps leave them as they were; whether there are too many of them is left to
    /// [`Finite::verdict`].
    pub(super) fn look(
        &mut self,
        findings: &mut Findings,
        (skipped, in_a_row): (u64, u64),
        weights: impl FnOnce() -> Result<(), String>,
    ) -> Result<(), Broken> {
        let FiniteConfig { finite, max_skipped_steps: most } = self.config;
        findings.look((NAME, finite), || {
            weights().map_err(|got| Breach {
                what: "every weight".into(),
                rule: "finite".into(),
                got,
            })
        })?;
        if skipped == 0 {
            return Ok(());
        }
        let breach = Breach {
            what: "loss and gradient".into(),
            rule: format!("finite at least every {most} optimizer steps"),
            got: format!("{skipped} skipped, {in_a_row} in a row"),
        };
        // Written down in any case; the end comes after the step.
        let noted = if finite == OnBreak::Off { OnBreak::Off } else { OnBreak::Warn };
        let step = findings.step;
        findings.look((NAME, noted), || Err(breach.clone()))?;
        if finite == OnBreak::Stop && in_a_row >= most {
            self.stop = Some(Broken { name: NAME, step, breach });
        }
        Ok(())
    }

    /// Says whether the run may go on after a step that is over.
    ///
    /// # Errors
    /// When too many optimizer steps in a row were skipped.
    pub(super) fn verdict(&mut self) -> Result<(), Broken> {
        self.stop.take().map_or(Ok(()), Err)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn look(finite: OnBreak, skips: (u64, u64), weights: Result<(), String>) -> (Finite, Findings) {
        let mut watch = Finite::new(FiniteConfig { finite, max_skipped_steps: 3 });
        let mut findings = Findings::default();
        findings.begin(5);
        watch.look(&mut findings, skips, || weights).unwrap();
        (watch, findings)
    }

    #[test]
    fn skipped_steps_are_written_down_and_too_many_in_a_row_stop_the_run_afterwards() {
        let (mut watch, findings) = look(OnBreak::Stop, (4, 2), Ok(()));
        watch.verdict().unwrap();
        assert_eq!(findings.metrics().get("invariant/finite"), Some(1.0));
        assert_eq!(findings.warnings.len(), 1);
        let (mut watch, _) = look(OnBreak::Stop, (4, 3), Ok(()));
        assert_eq!(
            watch.verdict().unwrap_err().to_string(),
            "invariant finite is broken at step 5: loss and gradient must be finite at least every 3 optimizer steps, \
             got 4 skipped, 3 in a row"
        );
        look(OnBreak::Warn, (4, 4), Ok(())).0.verdict().unwrap();
        look(OnBreak::Off, (4, 4), Err("no one looks".into())).0.verdict().unwrap();
    }

    #[test]
    fn weights_that_are_not_finite_are_an_error_at_once() {
        let mut watch = Finite::new(FiniteConfig::default());
        let error = watch.look(&mut Findings::default(), (0, 0), || Err("inf".into())).unwrap_err();
        assert!(error.to_string().ends_with("every weight must be finite, got inf"), "{error}");
    }
}
