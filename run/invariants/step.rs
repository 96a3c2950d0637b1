//! The invariants of runs that take one optimizer step at a time: `sft`, `rm` and `dpo`.

use anyhow::Result;

use super::{Broken, Findings, Finite};
use crate::{
    config::FiniteConfig,
    run::{Metrics, session::Session},
    trainer::{skips::Skips, torch::Model},
};

/// Watches optimizer steps.
pub(in crate::run) struct StepInvariants {
    finite: Finite,
    findings: Findings,
}

impl StepInvariants {
    /// Prepares the first step.
    pub(in crate::run) fn new(config: FiniteConfig) -> Self {
        Self { finite: Finite::new(config), findings: Findings::default() }
    }

    /// Looks at a step that was taken or skipped, and at the weights it left.
    ///
    /// # Errors
    /// When a weight is not finite, or the journal cannot be written. Too many skipped steps are no error yet:
    /// [`StepInvariants::verdict`] has it.
    pub(in crate::run) fn stepped(
        &mut self,
        step: u64,
        (skips, model): (Skips, &Model),
        session: &mut Session<'_>,
    ) -> Result<Metrics> {
        self.findings.begin(step);
        let finite = || model.check_finite().map_err(|error| error.to_string());
        self.finite.look(&mut self.findings, (skips.count(), skips.longest()), finite)?;
        self.findings.write(session)?;
        Ok(self.findings.metrics())
    }

    /// Says whether the run may go on after a step that is over.
    ///
    /// # Errors
    /// When too many optimizer steps in a row were skipped.
    pub(in crate::run) fn verdict(&mut self) -> Result<(), Broken> {
        self.finite.verdict()
    }
}
