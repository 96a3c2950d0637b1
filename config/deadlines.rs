//! The `[deadlines]` section: how long a run waits for whom. The engine's own is `engine.deadline_seconds`.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::Violation;

/// The `[deadlines]` section.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct DeadlinesConfig {
    /// The longest time in which no rollout reaches the trainer that waits for some. Default: 2.5 times
    /// `engine.deadline_seconds`. A stall of the engine is found out within two of them, and its own error knows more.
    pub rollouts_seconds: Option<f64>,
    /// The longest time that the reward source takes for an iteration's completions. Default 600.
    pub reward_seconds: f64,
    /// The longest time without a sign of life of the trainer, which gives one at the end of each phase: opening, scores,
    /// update, refit, canary, checkpoint. Default 3600.
    pub trainer_seconds: f64,
}

impl Default for DeadlinesConfig {
    fn default() -> Self {
        Self { rollouts_seconds: None, reward_seconds: 600.0, trainer_seconds: 3600.0 }
    }
}

impl DeadlinesConfig {
    /// Spells out what follows from the engine's deadline.
    pub(super) fn resolve(&mut self, engine_seconds: f64) {
        self.rollouts_seconds.get_or_insert(2.5 * engine_seconds);
    }

    pub(super) fn validate(&self) -> Result<(), Violation> {
        let given = [
            ("rollouts_seconds", self.rollouts_seconds.unwrap_or(1.0)),
            ("reward_seconds", self.reward_seconds),
            ("trainer_seconds", self.trainer_seconds),
        ];
        given.into_iter().try_for_each(|(key, seconds)| {
            let within = seconds > 0.0 && seconds <= 1e9;
            Violation::unless(within, format!("deadlines.{key}"), "above 0, at most 1e9", seconds)
        })
    }

    /// Returns how long the trainer waits for a rollout, given the engine's deadline.
    pub fn rollouts(&self, engine_seconds: f64) -> Duration {
        Duration::from_secs_f64(self.rollouts_seconds.unwrap_or(2.5 * engine_seconds))
    }

    /// Returns how long the trainer waits for rewards.
    pub fn reward(&self) -> Duration {
        Duration::from_secs_f64(self.reward_seconds)
    }

    /// Returns how long others wait for a sign of life of the trainer.
    pub fn trainer(&self) -> Duration {
        Duration::from_secs_f64(self.trainer_seconds)
    }
}
