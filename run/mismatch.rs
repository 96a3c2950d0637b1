//! Whether the engine sampled with what the trainer learns from: the gate between scoring and training.

use std::fmt;

use crate::{
    config::{MismatchAction, MismatchConfig, PpoConfig},
    trainer::{ppo::ScoreStats, stats::Mismatch},
};

/// A threshold; 0 is none.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Threshold {
    /// The metric may be this at most.
    Most(f64),
    /// The metric must be this at least.
    Least(f64),
}

impl Threshold {
    /// Says whether a metric keeps it. One that is no number keeps none.
    fn holds(self, value: f64) -> bool {
        match self {
            Self::Most(threshold) => threshold == 0.0 || value <= threshold,
            Self::Least(threshold) => threshold == 0.0 || value >= threshold,
        }
    }
}

/// A metric beyond its threshold.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Breach {
    /// The metric.
    pub metric: &'static str,
    /// What it was.
    pub value: f64,
    /// The key of its threshold.
    pub key: &'static str,
    /// The threshold.
    pub threshold: Threshold,
}

impl fmt::Display for Breach {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { metric, value, key, threshold } = self;
        match threshold {
            Threshold::Most(most) => {
                write!(f, "{metric} is {value:.6}, {key} allows {most} at most")
            }
            Threshold::Least(least) => {
                write!(f, "{metric} is {value:.6}, {key} asks for {least} at least")
            }
        }
    }
}

/// Engine and trainer were too far apart to train on what was sampled.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[error(
    "engine and trainer do not agree in iteration {iteration}: {}; mismatch.action is \"stop\", nothing of it was trained on",
    list(breaches)
)]
pub struct MismatchError {
    /// The iteration.
    pub iteration: u64,
    /// What was beyond its threshold; at least one.
    pub breaches: Vec<Breach>,
}

fn list(breaches: &[Breach]) -> String {
    breaches.iter().map(Breach::to_string).collect::<Vec<_>>().join("; ")
}

/// What is to be done with an iteration's trajectories.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Judgement {
    /// How many metrics were beyond their thresholds; `None` where nothing is gated.
    pub(super) breaches: Option<usize>,
    /// Importance weights are to act.
    pub(super) correct: bool,
    /// What the run has to say, where something changed.
    pub(super) note: Option<String>,
}

/// Compares each iteration's mismatch with the thresholds.
#[derive(Debug)]
pub(super) struct Gate {
    /// `None` where engine and trainer cannot be expected to agree.
    config: Option<MismatchConfig>,
    /// What was beyond its threshold last time: a run that goes on all night says it once.
    said: Vec<&'static str>,
}

impl Gate {
    /// Takes the thresholds, unless sampling is such that engine and trainer differ by right.
    pub(super) fn new(config: &PpoConfig) -> Self {
        let config = config.not_comparable().is_none().then_some(config.mismatch);
        Self { config, said: Vec::new() }
    }

    /// Judges an iteration before anything is trained on it.
    ///
    /// # Errors
    /// When something is beyond its threshold and the configuration wants the run to stop.
    pub(super) fn judge(
        &mut self,
        iteration: u64,
        stats: &ScoreStats,
    ) -> Result<Judgement, MismatchError> {
        let Some(config) = &self.config else { return Ok(Judgement::default()) };
        let breaches = breaches(config, stats);
        if !breaches.is_empty() && config.action == MismatchAction::Stop {
            return Err(MismatchError { iteration, breaches });
        }
        let correct = !breaches.is_empty() && config.action == MismatchAction::Correct;
        let names: Vec<&str> = breaches.iter().map(|breach| breach.metric).collect();
        let note = (names != self.said).then(|| match names.is_empty() {
            true => format!("engine and trainer agree again in iteration {iteration}"),
            false => {
                let remedy = if correct { "; importance weights act" } else { "" };
                format!("iteration {iteration}: {}{remedy}", list(&breaches))
            }
        });
        self.said = names;
        Ok(Judgement { breaches: Some(breaches.len()), correct, note })
    }
}

/// Returns every metric that is beyond its threshold.
fn breaches(config: &MismatchConfig, stats: &ScoreStats) -> Vec<Breach> {
    use Threshold::{Least, Most};
    let parity = |value: fn(&Mismatch) -> f64| stats.mismatch.as_ref().map(value);
    let stale_ess = stats.staleness.as_ref().map(|compared| compared.ess);
    let error = Most(config.mult_prob_error);
    let checks = [
        ("parity/dlogp_mean", parity(|m| m.mean), "mismatch.dlogp_mean", Most(config.dlogp_mean)),
        ("parity/dlogp_max", parity(|m| m.max), "mismatch.dlogp_max", Most(config.dlogp_max)),
        ("parity/kl", parity(|m| m.kl), "mismatch.kl", Most(config.kl)),
        (
            "parity/mult_prob_error",
            parity(|m| m.mult_prob_error),
            "mismatch.mult_prob_error",
            error,
        ),
        ("parity/ess", parity(|m| m.ess), "mismatch.ess", Least(config.ess)),
        ("staleness/ess", stale_ess, "mismatch.ess", Least(config.ess)),
    ];
    let breach = |(metric, value, key, threshold): (_, Option<f64>, _, Threshold)| {
        let value = value.filter(|&value| !threshold.holds(value))?;
        Some(Breach { metric, value, key, threshold })
    };
    checks.into_iter().filter_map(breach).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stats(mismatch: Option<Mismatch>, staleness: Option<Mismatch>) -> ScoreStats {
        ScoreStats { mismatch, staleness, ..ScoreStats::default() }
    }

    fn agreement() -> Mismatch {
        let logprobs = [-1.0, -2.0];
        Mismatch::between(&logprobs, &logprobs, |_| true).unwrap()
    }

    fn gate(action: MismatchAction) -> Gate {
        let config = MismatchConfig { action, dlogp_max: 0.5, ..MismatchConfig::default() };
        Gate { config: Some(config), said: Vec::new() }
    }

    #[test]
    fn every_threshold_is_broken_by_its_own_metric() {
        let m = agreement();
        let table = [
            (
                "parity/dlogp_mean",
                Mismatch { mean: 0.031, ..m },
                "0.031000, mismatch.dlogp_mean allows 0.03 at most",
            ),
            (
                "parity/dlogp_max",
                Mismatch { max: 0.6, ..m },
                "0.600000, mismatch.dlogp_max allows 0.5 at most",
            ),
            ("parity/kl", Mismatch { kl: 0.02, ..m }, "0.020000, mismatch.kl allows 0.01 at most"),
            (
                "parity/mult_prob_error",
                Mismatch { mult_prob_error: 1.1, ..m },
                "1.100000, mismatch.mult_prob_error allows 1.05 at most",
            ),
            (
                "parity/ess",
                Mismatch { ess: 0.4, ..m },
                "0.400000, mismatch.ess asks for 0.5 at least",
            ),
        ];
        for (metric, mismatch, said) in table {
            let found = gate(MismatchAction::Stop).judge(3, &stats(Some(mismatch), None));
            assert_eq!(
                found.unwrap_err().to_string(),
                format!(
                    "engine and trainer do not agree in iteration 3: {metric} is {said}; mismatch.action is \"stop\", \
                     nothing of it was trained on"
                )
            );
            // A token of older weights differs by right; only what is left of the batch counts.
            let stale = gate(MismatchAction::Stop).judge(3, &stats(None, Some(mismatch)));
            assert_eq!(stale.is_err(), metric == "parity/ess", "{metric}");
        }
    }

    #[test]
    fn what_agrees_or_was_not_compared_passes() {
        for compared in [None, Some(agreement())] {
            let judged = gate(MismatchAction::Stop).judge(1, &stats(compared, compared));
            assert_eq!(judged, Ok(Judgement { breaches: Some(0), ..Judgement::default() }));
        }
        let off = MismatchConfig {
            action: MismatchAction::Stop,
            dlogp_mean: 0.0,
            dlogp_max: 0.0,
            kl: 0.0,
            mult_prob_error: 0.0,
            ess: 0.0,
        };
        let wild = Mismatch {
            mean: 9.0,
            max: 9.0,
            kl: 9.0,
            mult_prob_error: 9.0,
            ess: 0.0,
            ..agreement()
        };
        for config in [Some(off), None] {
            let judged = Gate { config, said: Vec::new() }.judge(1, &stats(Some(wild), None));
            let breaches = config.map(|_| 0);
            assert_eq!(judged, Ok(Judgement { breaches, ..Judgement::default() }));
        }
    }

    #[test]
    fn what_is_no_number_does_not_pass() {
        let nan = Mismatch::between(&[f32::NAN], &[-1.0], |_| true);
        let breaches = gate(MismatchAction::Stop).judge(1, &stats(nan, nan)).unwrap_err().breaches;
        assert_eq!(breaches.len(), 6);
    }

    #[test]
    fn a_breach_is_said_when_it_begins_and_when_it_ends() {
        for (action, remedy) in
            [(MismatchAction::Warn, ""), (MismatchAction::Correct, "; importance weights act")]
        {
            let mut gate = gate(action);
            let apart = Mismatch { kl: 0.02, ..agreement() };
            let mut judge =
                |iteration, mismatch| gate.judge(iteration, &stats(Some(mismatch), None)).unwrap();
            let first = judge(1, apart);
            let said = "iteration 1: parity/kl is 0.020000, mismatch.kl allows 0.01 at most";
            assert_eq!(first.note.unwrap(), format!("{said}{remedy}"));
            assert_eq!(
                (first.breaches, first.correct),
                (Some(1), action == MismatchAction::Correct)
            );
            let second = judge(2, apart);
            assert_eq!((second.note, second.breaches), (None, Some(1)));
            let third = judge(3, agreement());
            assert_eq!(third.note.unwrap(), "engine and trainer agree again in iteration 3");
            assert!(!third.correct && third.breaches == Some(0));
        }
    }
}
