//! The newest metrics for Prometheus: text exposition format 0.0.4.
//!
//! <https://prometheus.io/docs/instrumenting/exposition_formats/>

use std::{collections::BTreeMap, fmt::Write};

use super::recording::Recording;

pub(super) const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// One metric: its help, its type, and its samples' labels and values.
struct Family {
    help: String,
    kind: &'static str,
    samples: Vec<(String, f64)>,
}

/// Writes the newest row's metrics as gauges, and how often each invariant was checked and broken as counters.
pub(super) fn exposition(recording: &Recording) -> String {
    let head = recording.head();
    let run = format!("run=\"{}\"", label(head.name()));
    let mut families = BTreeMap::new();
    let gauge = |help: String, value: f64| Family {
        help,
        kind: "gauge",
        samples: vec![(run.clone(), value)],
    };
    families.insert(
        "rollforge_step".to_owned(),
        gauge("Steps that are done".to_owned(), head.step as f64),
    );
    if let Some(total) = head.total {
        let help = "Steps in the whole run".to_owned();
        families.insert("rollforge_steps".to_owned(), gauge(help, total as f64));
    }
    for (name, value) in recording.latest().map_or(&[][..], |row| &row.metrics) {
        // Two names may come to the same: the first has it.
        families.entry(metric_name(name)).or_insert_with(|| gauge(name.clone(), *value));
    }
    for (counter, help) in [
        ("checked", "Steps in which an invariant was checked"),
        ("broken", "Steps in which an invariant did not hold"),
    ] {
        let samples: Vec<_> = recording
            .invariants()
            .iter()
            .map(|(name, record)| {
                let count = if counter == "checked" { record.checked } else { record.broken };
                (format!("{run},invariant=\"{}\"", label(name)), count as f64)
            })
            .collect();
        if !samples.is_empty() {
            let family = Family { help: help.to_owned(), kind: "counter", samples };
            families.insert(format!("rollforge_invariant_{counter}_total"), family);
        }
    }
    families.iter().map(|(name, family)| family.text(name)).collect()
}

impl Family {
    fn text(&self, name: &str) -> String {
        let help = self.help.replace('\\', "\\\\").replace('\n', "\\n");
        let mut text = format!("# HELP {name} {help}\n# TYPE {name} {}\n", self.kind);
        for (labels, value) in &self.samples {
            // Rust's NaN is Prometheus's, and numbers are written as it reads them.
            writeln!(text, "{name}{{{labels}}} {value}").expect("a string takes everything");
        }
        text
    }
}

/// Returns a name of letters, digits and underscores: `rollforge_objective_kl` of `objective/kl`.
fn metric_name(name: &str) -> String {
    let letter = |c: char| if c.is_ascii_alphanumeric() { c } else { '_' };
    format!("rollforge_{}", name.chars().map(letter).collect::<String>())
}

fn label(value: &str) -> String {
    value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}
