//! What the demo came to, as a table and a few samples.

use std::{io, time::Duration};

use comfy_table::{Table, presets};

use super::output::print;
use crate::run::demo::{DemoReport, Summary};

/// How many openings are shown.
const SHOWN: usize = 4;

/// Prints samples before and after PPO, and the judge's opinion of both.
pub(super) fn print_demo(report: &DemoReport, elapsed: Duration) -> io::Result<()> {
    for sample in report.samples.iter().take(SHOWN) {
        print(&sample.prompt)?;
        print(format_args!("  before: ...{}", sample.before))?;
        print(format_args!("  after:  ...{}", sample.after))?;
    }
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_header([
        "judged by the grammar",
        "before PPO",
        "after PPO",
    ]);
    let mut row = |name: &str, number: &dyn Fn(&Summary) -> String| {
        table.add_row([name, &number(&report.before), &number(&report.after)]);
    };
    let percent = |share: f64| format!("{:.1}%", 100.0 * share);
    row("positive and fluent", &|summary| percent(summary.positive));
    row("negative", &|summary| percent(summary.negative));
    row("fluent", &|summary| percent(summary.fluent));
    row("distinct-2", &|summary| format!("{:.3}", summary.distinct_2));
    row("words", &|summary| format!("{:.1}", summary.mean_words));
    print(format_args!("\n{table}\n"))?;
    print(format_args!("held-out perplexity after SFT    {:.2}", report.perplexity))?;
    print(format_args!("reward model, held-out accuracy  {}", percent(report.accuracy)))?;
    print(format_args!("KL from the reference            {:.2} nats per completion", report.kl))?;
    print(format_args!("time                             {:.0} s", elapsed.as_secs_f64()))?;
    print(format_args!("the aligned policy               {}", report.policy.display()))
}
