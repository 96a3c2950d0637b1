//! The `[queue]` section: how generation and training take turns.

use serde::{Deserialize, Serialize};

use super::Violation;
use crate::{engine::RefitInFlight, rollout::Order};

/// Who works while who else does.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Mode {
    /// The engine answers a batch, then the trainer learns from it: every token is from the policy that learns.
    #[default]
    Sync,
    /// The engine answers the next batch while the trainer learns from this one; the refit waits for both. All tokens of
    /// a batch are of one weight version, one refit old.
    OneStepOff,
    /// The engine never waits for the trainer, as long as nothing becomes staler than `max_staleness`.
    Async,
}

/// The `[queue]` section.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct QueueConfig {
    /// Who works while who else does: `sync`, `one_step_off` or `async`. Default `sync`.
    pub mode: Mode,
    /// By how many refits the weights may have moved on between a prompt's issue and its use. Default by the mode: 0, 1
    /// and 1; only `async` takes another.
    pub max_staleness: Option<usize>,
    /// In which order the trainer takes answers: `ticket` (as the prompts were issued: runs repeat bit for bit) or
    /// `arrival` (as they come). Default `ticket`. Under `ticket` every refit waits for the engine to be empty, since
    /// which weights answer a prompt must not depend on time: beyond 1, `max_staleness` then buys nothing.
    pub order: Order,
}

/// Beyond this, what the queue holds says nothing about the policy any more.
const MOST_STALENESS: usize = 64;

impl QueueConfig {
    /// Returns the staleness that the mode allows.
    pub fn max_staleness(&self) -> usize {
        self.max_staleness.unwrap_or(match self.mode {
            Mode::Sync => 0,
            Mode::OneStepOff | Mode::Async => 1,
        })
    }

    /// Says whether the engine generates while the trainer trains.
    pub fn overlaps(&self) -> bool {
        self.mode != Mode::Sync
    }

    /// Says whether a refit waits until everything that was let in has been answered. It has, where the modes take turns.
    pub fn settles(&self) -> bool {
        self.mode != Mode::Async || self.order == Order::Ticket
    }

    pub(super) fn validate(&self, in_flight: RefitInFlight) -> Result<(), Violation> {
        let staleness = self.max_staleness();
        let (rule, kept) = match self.mode {
            Mode::Sync => ("0 where queue.mode is \"sync\"", staleness == 0),
            Mode::OneStepOff => ("1 where queue.mode is \"one_step_off\"", staleness == 1),
            Mode::Async => (
                "from 1 to 64 where queue.mode is \"async\"",
                (1..=MOST_STALENESS).contains(&staleness),
            ),
        };
        Violation::unless(kept, "queue.max_staleness", rule, staleness)?;
        // Nothing is in flight at any of the refits: a slip of the pen.
        Violation::unless(
            !self.settles() || in_flight == RefitInFlight::Drain,
            "engine.refit_in_flight",
            "\"drain\" unless queue.mode is \"async\" and queue.order is \"arrival\"",
            format!("{:?}", in_flight.name()),
        )
    }
}
