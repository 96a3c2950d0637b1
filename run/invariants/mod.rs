//! What must hold in every iteration, whatever the configuration: checked always, cheaply, and written down.
//!
//! | name | what must hold | looked at |
//! |------|----------------|-----------|
//! | `ledger` | every prompt issued is trained on once, with all its samples | when a batch is taken |
//! | `rewards` | finite, and in the range that the configuration names | after scoring by the reward |
//! | `masks` | every token of every completion is trained on once, with the weight it should have | before the update |
//! | `kl` | the policy is its reference until its first optimizer step | before the update |
//! | `ratio` | 1 at the first optimizer step of an iteration | after the update |
//! | `finite` | loss, gradient and weights | after the update |
//!
//! Each is a pure function on plain numbers that answers with a [`Breach`]. What follows is up to the `[invariants]`
//! section. A step's metrics say `invariant/<name>`: 0 where it held, 1 where it did not, nothing where it was not looked
//! at.

mod exactness;
mod finite;
mod ledger;
mod masks;
mod rewards;
mod step;

use std::sync::Arc;

use anyhow::Result;

use super::{Metrics, generator::Answered, record::EntryKind, session::Session};
use crate::{
    config::{InvariantsConfig, OnBreak, PpoConfig},
    data::PromptSample,
    rollout::Rollout,
    trainer::{
        config::PpoOptions,
        ppo::{PpoState, PpoStats, Trajectories},
        reward::Reward,
    },
};
use finite::Finite;
pub(super) use ledger::Ledger;
pub(super) use step::StepInvariants;

/// How an invariant was broken.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{what} must be {rule}, got {got}")]
pub(super) struct Breach {
    what: String,
    rule: String,
    got: String,
}

impl Breach {
    /// Returns `Ok` where `holds` is true. The words are only put together where it is not.
    fn unless<G: ToString>(
        holds: bool,
        words: impl FnOnce() -> (String, String, G),
    ) -> Result<(), Self> {
        if holds {
            return Ok(());
        }
        let (what, rule, got) = words();
        Err(Self { what, rule, got: got.to_string() })
    }
}

/// An invariant that was broken where the configuration stops the run for it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("invariant {name} is broken at step {step}: {breach}")]
pub(super) struct Broken {
    name: &'static str,
    step: u64,
    breach: Breach,
}

impl Broken {
    /// Returns the invariant's name.
    pub(super) fn name(&self) -> &'static str {
        self.name
    }
}

/// What was found in a step: which invariants were looked at, and which of them were broken.
#[derive(Debug, Default)]
pub(super) struct Findings {
    step: u64,
    held: Vec<(&'static str, bool)>,
    warnings: Vec<Broken>,
}

impl Findings {
    /// Forgets the last step's and begins another.
    pub(super) fn begin(&mut self, step: u64) {
        *self = Self { step, ..Self::default() };
    }

    /// Looks at an invariant, unless it is off.
    ///
    /// # Errors
    /// When it is broken and that stops the run.
    pub(super) fn look(
        &mut self,
        (name, on_break): (&'static str, OnBreak),
        check: impl FnOnce() -> Result<(), Breach>,
    ) -> Result<(), Broken> {
        if on_break == OnBreak::Off {
            return Ok(());
        }
        let checked = check();
        self.held.push((name, checked.is_ok()));
        let Err(breach) = checked else { return Ok(()) };
        let broken = Broken { name, step: self.step, breach };
        if on_break == OnBreak::Stop {
            return Err(broken);
        }
        self.warnings.push(broken);
        Ok(())
    }

    /// Returns the metrics of what was looked at.
    pub(super) fn metrics(&self) -> Metrics {
        let mut metrics = Metrics::new();
        for (name, held) in &self.held {
            let name = format!("invariant/{name}");
            let before = metrics.get(&name).unwrap_or_default();
            metrics.set(name, before.max(f64::from(u8::from(!held))));
        }
        metrics
    }

    /// Writes a line into the journal for each invariant that was broken and does not end the run, once.
    ///
    /// # Errors
    /// When the journal cannot be written.
    pub(super) fn write(&mut self, session: &mut Session<'_>) -> Result<()> {
        self.warnings.drain(..).try_for_each(|broken| {
            session.journal(EntryKind::Warning, Some(broken.name), &broken.to_string())
        })
    }
}

/// PPO's invariants over a run.
pub(super) struct Invariants<'a> {
    config: &'a InvariantsConfig,
    options: &'a PpoOptions,
    prompts: &'a [PromptSample],
    pub(super) ledger: Ledger,
    finite: Finite,
    pub(super) findings: Findings,
}

impl<'a> Invariants<'a> {
    /// Prepares the first iteration after what `ledger` knows of.
    pub(super) fn new(config: &'a PpoConfig, prompts: &'a [PromptSample], ledger: Ledger) -> Self {
        Self {
            config: &config.invariants,
            options: &config.ppo,
            prompts,
            ledger,
            finite: Finite::new(config.invariants.finite()),
            findings: Findings::default(),
        }
    }

    /// Looks at a batch that was taken, before anything is done with it.
    ///
    /// # Errors
    /// When a prompt, or a sample of one, is missing or there twice.
    pub(super) fn taken(&mut self, batch: &[Arc<Answered>], dropped: u64) -> Result<(), Broken> {
        let (ledger, samples) = (&mut self.ledger, self.options.samples_per_prompt);
        let tickets = batch.iter().map(|answered| answered.ticket);
        self.findings.look(("ledger", self.config.ledger), || {
            batch.iter().try_for_each(|answered| ledger::check_samples(answered, samples))?;
            ledger.take(tickets, dropped)
        })
    }

    /// Looks at what the completions earned.
    ///
    /// # Errors
    /// When a reward is not finite or out of range.
    pub(super) fn rewarded(
        &mut self,
        batch: &[Arc<Answered>],
        rewards: &[Reward],
    ) -> Result<(), Broken> {
        let (range, prompts) = (self.config.reward_range(), self.prompts);
        self.findings.look(("rewards", self.config.rewards), || {
            rewards::check(batch, rewards, prompts, range)
        })
    }

    /// Looks at what is to be trained on.
    ///
    /// # Errors
    /// When tokens are missing or there twice, or the policy is not its reference though it has never moved.
    pub(super) fn scored(
        &mut self,
        rollouts: &[Rollout],
        trajectories: &Trajectories,
        state: &PpoState,
    ) -> Result<(), Broken> {
        let options = self.options;
        self.findings
            .look(("masks", self.config.masks), || masks::check(rollouts, trajectories, options))?;
        if state.policy_steps > 0 || trajectories.ref_logprobs.is_empty() {
            return Ok(());
        }
        self.findings.look(("kl", self.config.kl.unwrap_or_default()), || {
            exactness::check_kl(&trajectories.old_logprobs, &trajectories.ref_logprobs)
        })
    }

    /// Looks at what the update did.
    ///
    /// # Errors
    /// When the ratio did not start from 1, or weights are not finite; `weights` looks at those. Too many skipped steps are
    /// no error yet, for the weights are whole: [`Invariants::verdict`] has it.
    pub(super) fn updated(
        &mut self,
        stats: &PpoStats,
        weights: impl FnOnce() -> Result<(), String>,
    ) -> Result<(), Broken> {
        if stats.policy_steps > 0 {
            let tolerance = self.config.ratio_tolerance;
            self.findings.look(("ratio", self.config.ratio.unwrap_or_default()), || {
                exactness::check_ratio(stats.first_ratio_error, tolerance)
            })?;
        }
        self.finite.look(&mut self.findings, (stats.skipped(), stats.skipped_in_a_row()), weights)
    }

    /// Says whether the run may go on after an iteration that is over.
    ///
    /// # Errors
    /// When too many optimizer steps in a row were skipped.
    pub(super) fn verdict(&mut self) -> Result<(), Broken> {
        self.finite.verdict()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn breach() -> Result<(), Breach> {
        Breach::unless(1 + 1 == 3, || ("the sum".into(), "3".into(), 2))
    }

    #[test]
    fn a_breach_is_passed_over_written_down_or_the_end() {
        let mut findings = Findings::default();
        findings.begin(7);
        findings.look(("ratio", OnBreak::Off), || panic!("it is off")).unwrap();
        findings.look(("masks", OnBreak::Stop), || Ok(())).unwrap();
        findings.look(("kl", OnBreak::Warn), breach).unwrap();
        findings.look(("kl", OnBreak::Warn), || Ok(())).unwrap();
        let stopped = findings.look(("ledger", OnBreak::Stop), breach).unwrap_err().to_string();
        assert_eq!(stopped, "invariant ledger is broken at step 7: the sum must be 3, got 2");
        let metrics = findings.metrics();
        let found: Vec<(&str, f64)> = metrics.iter().collect();
        assert_eq!(
            found,
            [("invariant/masks", 0.0), ("invariant/kl", 1.0), ("invariant/ledger", 1.0)]
        );
        let warned: Vec<_> = findings.warnings.iter().map(|broken| broken.name).collect();
        assert_eq!(warned, ["kl"]);
    }
}
