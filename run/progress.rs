//! Shows a run as it goes: a bar on a terminal, plain lines elsewhere, and how reward and KL went at the end.

use std::{
    io::{self, IsTerminal, Write},
    time::{Duration, Instant},
};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use super::{Metrics, Observer};

/// Metrics worth a glance, and what they are called on the line.
const SHOWN: [(&str, &str); 9] = [
    ("loss", "loss"),
    ("accuracy", "accuracy"),
    ("eval/loss", "eval loss"),
    ("eval/accuracy", "eval accuracy"),
    ("objective/scores", "reward"),
    ("objective/kl", "kl"),
    ("response_length/mean", "length"),
    ("val/clipfrac_avg", "value clip"),
    ("perf/throughput", "tokens/s"),
];

/// Metrics drawn when their stage ends.
const PLOTTED: [(&str, &str); 2] = [("objective/scores", "reward"), ("objective/kl", "kl")];

/// Where the progress of a run goes.
enum Output {
    Bar(ProgressBar),
    Lines { last: Option<Instant>, every: Duration },
    Nothing,
}

/// An [`Observer`] for people. It writes to the standard error, so that the standard output holds results only.
pub struct Progress {
    output: Output,
    stage: String,
    total: u64,
    /// The values of each plotted metric.
    history: [Vec<f64>; PLOTTED.len()],
}

impl Progress {
    /// Shows bars on a terminal, at most a line in five seconds elsewhere, and nothing when `quiet`.
    pub fn new(quiet: bool) -> Self {
        let output = if quiet {
            Output::Nothing
        } else if io::stderr().is_terminal() {
            Output::Bar(ProgressBar::hidden())
        } else {
            Output::Lines { last: None, every: Duration::from_secs(5) }
        };
        Self { output, stage: String::new(), total: 0, history: Default::default() }
    }

    fn say(&self, line: &str) {
        match &self.output {
            Output::Bar(bar) if !bar.is_hidden() => bar.suspend(|| write_line(line)),
            Output::Nothing => {}
            _ => write_line(line),
        }
    }
}

/// A line that cannot be shown (a closed pipe) is no reason to end a run.
fn write_line(line: &str) {
    writeln!(io::stderr().lock(), "{line}").ok();
}

impl Observer for Progress {
    fn start(&mut self, stage: &str, total: u64) {
        self.stage = stage.to_owned();
        self.total = total;
        self.history = Default::default();
        match &mut self.output {
            Output::Bar(bar) => {
                *bar = ProgressBar::with_draw_target(Some(total), ProgressDrawTarget::stderr());
                let style = "{prefix:4} {bar:24} {pos}/{len} {elapsed} eta {eta}  {msg}";
                bar.set_style(ProgressStyle::with_template(style).expect("the template is valid"));
                bar.set_prefix(stage.to_owned());
            }
            Output::Lines { last, .. } => *last = None,
            Output::Nothing => {}
        }
    }

    fn step(&mut self, step: u64, metrics: &Metrics) {
        for (values, (metric, _)) in self.history.iter_mut().zip(PLOTTED) {
            values.extend(metrics.get(metric));
        }
        let now = Instant::now();
        match &mut self.output {
            Output::Bar(bar) => {
                bar.set_position(step);
                bar.set_message(glance(metrics));
            }
            Output::Lines { last, every } => {
                let due = last.is_none_or(|last| now - last >= *every) || step == self.total;
                if due {
                    *last = Some(now);
                    write_line(&format!(
                        "{} {step}/{}  {}",
                        self.stage,
                        self.total,
                        glance(metrics)
                    ));
                }
            }
            Output::Nothing => {}
        }
    }

    fn note(&mut self, line: &str) {
        self.say(line);
    }

    fn finish(&mut self) {
        if let Output::Bar(bar) = &self.output {
            bar.finish();
        }
        for (values, (_, name)) in self.history.iter().zip(PLOTTED) {
            if let Some(plot) = plot(name, values) {
                self.say(&plot);
            }
        }
    }
}

/// Returns the shown metrics on one line.
fn glance(metrics: &Metrics) -> String {
    let shown = SHOWN.iter().filter_map(|(metric, name)| {
        metrics.get(metric).map(|value| format!("{name} {}", short(value)))
    });
    shown.collect::<Vec<_>>().join("  ")
}

/// Returns a number in three to four digits.
fn short(value: f64) -> String {
    match value.abs() {
        size if size >= 100.0 => format!("{value:.0}"),
        size if size >= 10.0 => format!("{value:.1}"),
        size if size >= 0.01 || size == 0.0 => format!("{value:.3}"),
        _ => format!("{value:.1e}"),
    }
}

/// Draws values as a row of blocks, first and last beside them. `None` for fewer than two.
///
/// `reward  -1.204 ▁▂▂▃▅▆▇█ 2.310`
fn plot(name: &str, values: &[f64]) -> Option<String> {
    const BLOCKS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];
    const WIDTH: usize = 60;
    if values.len() < 2 || values.iter().any(|value| !value.is_finite()) {
        return None;
    }
    let columns = WIDTH.min(values.len());
    let means: Vec<f64> = (0..columns)
        .map(|column| {
            let part =
                &values[column * values.len() / columns..(column + 1) * values.len() / columns];
            part.iter().sum::<f64>() / part.len() as f64
        })
        .collect();
    let low = means.iter().copied().fold(f64::INFINITY, f64::min);
    let high = means.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let block = |mean: &f64| {
        let height = if high > low { (mean - low) / (high - low) } else { 0.0 };
        BLOCKS[((height * 8.0) as usize).min(7)]
    };
    let row: String = means.iter().map(block).collect();
    Some(format!("{name:7} {} {row} {}", short(values[0]), short(values[values.len() - 1])))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_glance_shows_what_is_there_in_few_digits() {
        let metrics = Metrics::new()
            .with("objective/kl", 0.12345)
            .with("perf/throughput", 12_345.6)
            .with("objective/scores", -1.5)
            .with("something/else", 3.0);
        assert_eq!(glance(&metrics), "reward -1.500  kl 0.123  tokens/s 12346");
    }

    #[test]
    fn a_plot_rises_with_its_values() {
        let rising: Vec<f64> = (0..8).map(f64::from).collect();
        assert_eq!(plot("reward", &rising).unwrap(), "reward  0.000 ▁▂▃▄▅▆▇█ 7.000");
        assert_eq!(plot("kl", &[1.0, 1.0]).unwrap(), "kl      1.000 ▁▁ 1.000");
        assert_eq!(plot("kl", &[1.0]), None);
        assert_eq!(plot("kl", &[1.0, f64::NAN]), None);
    }

    #[test]
    fn a_long_plot_is_sixty_columns_wide() {
        let many: Vec<f64> = (0..1000).map(f64::from).collect();
        let drawn = plot("reward", &many).unwrap();
        assert_eq!(drawn.chars().filter(|c| ('▁'..='█').contains(c)).count(), 60);
    }
}
