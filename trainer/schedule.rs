//! The learning rate at each optimizer step.

use super::config::{ScheduleConfig, ScheduleKind};

/// A learning rate over `total` optimizer steps.
#[derive(Clone, Debug, PartialEq)]
pub struct Schedule {
    config: ScheduleConfig,
    peak: f64,
    total: u64,
    warmup: u64,
}

impl Schedule {
    /// Lays a schedule over `total` optimizer steps with the given peak.
    pub fn new(config: &ScheduleConfig, peak: f64, total: u64) -> Self {
        let warmup = if config.warmup_steps > 0 {
            config.warmup_steps
        } else {
            (config.warmup_ratio * total as f64).ceil() as u64
        };
        Self { config: config.clone(), peak, total, warmup }
    }

    /// Returns the learning rate of an optimizer step, counted from 0.
    ///
    /// Warm-up: `(step + 1) / warmup` of the peak, so that no step is wasted at 0. Then with `p` the share of the
    /// remaining steps that is behind, from 0 to 1: constant 1, linear `1 - p`, cosine `(1 + cos(pi p)) / 2`, scaled
    /// so that it ends at `min_lr_ratio`. Steps past the end keep the last rate.
    pub fn lr(&self, step: u64) -> f64 {
        if step < self.warmup {
            return self.peak * (step + 1) as f64 / self.warmup as f64;
        }
        let left = self.total.saturating_sub(self.warmup).max(1);
        let progress = ((step - self.warmup) as f64 / left as f64).min(1.0);
        let share = match self.config.kind {
            ScheduleKind::Constant => return self.peak,
            ScheduleKind::Linear => 1.0 - progress,
            ScheduleKind::Cosine => f64::midpoint(1.0, (std::f64::consts::PI * progress).cos()),
        };
        self.peak * (self.config.min_lr_ratio + (1.0 - self.config.min_lr_ratio) * share)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rates(config: ScheduleConfig, steps: &[u64]) -> Vec<f64> {
        let schedule = Schedule::new(&config, 2.0, 10);
        steps.iter().map(|&step| (schedule.lr(step) * 1e9).round() / 1e9).collect()
    }

    #[test]
    fn a_constant_rate_rises_and_stays() {
        let config = ScheduleConfig { warmup_steps: 4, ..ScheduleConfig::default() };
        assert_eq!(rates(config, &[0, 1, 3, 4, 9, 99]), [0.5, 1.0, 2.0, 2.0, 2.0, 2.0]);
    }

    #[test]
    fn a_linear_rate_falls_to_its_floor() {
        let config = ScheduleConfig { kind: ScheduleKind::Linear, ..ScheduleConfig::default() };
        assert_eq!(rates(config.clone(), &[0, 5, 9, 10, 99]), [2.0, 1.0, 0.2, 0.0, 0.0]);
        let config = ScheduleConfig { min_lr_ratio: 0.5, ..config };
        assert_eq!(rates(config, &[0, 5, 10]), [2.0, 1.5, 1.0]);
    }

    #[test]
    fn a_cosine_rate_is_half_way_at_the_middle() {
        let config = ScheduleConfig {
            kind: ScheduleKind::Cosine,
            warmup_ratio: 0.2,
            ..ScheduleConfig::default()
        };
        assert_eq!(rates(config, &[0, 1, 2, 6, 10]), [1.0, 2.0, 2.0, 1.0, 0.0]);
    }

    #[test]
    fn a_warm_up_longer_than_the_run_never_divides_by_nothing() {
        let config = ScheduleConfig {
            kind: ScheduleKind::Linear,
            warmup_steps: 20,
            ..ScheduleConfig::default()
        };
        assert_eq!(rates(config, &[9, 19, 20, 21]), [1.0, 2.0, 2.0, 0.0]);
    }
}
