//! A report as a picture: bars, ours and those of the peers, beside the limit.

use std::fmt::Write;

use super::{Report, Row, table::number};

const WIDTH: f64 = 900.0;
const LEFT: f64 = 330.0;
const BAR: f64 = 18.0;
const GAP: f64 = 14.0;
const TOP: f64 = 84.0;
const OURS: &str = "#2b6cb0";
const THEIRS: &str = "#a0aec0";

struct Bar {
    label: String,
    value: f64,
    fill: &'static str,
}

/// Draws a report as one SVG.
pub fn plot(report: &Report) -> String {
    let mut body = String::new();
    let mut y = TOP;
    for row in &report.rows {
        group(&mut body, row, &bars(row, report), &mut y);
    }
    let head: String = std::iter::once(format!("rollforge {}", report.command.join(" ")))
        .chain(report.circumstances())
        .enumerate()
        .map(|(line, said)| text(12.0, 20.0 + 17.0 * line as f64, "start", &said))
        .collect();
    format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {y}\" font-family=\"sans-serif\" \
         font-size=\"12\">\n<rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n{head}{body}</svg>\n"
    )
}

fn bars(row: &Row, report: &Report) -> Vec<Bar> {
    let ours = Bar { label: row.name.clone(), value: row.values.median(), fill: OURS };
    let theirs = report.ratios_of(row).map(|ratio| Bar {
        label: ratio.name(),
        value: ratio.median,
        fill: THEIRS,
    });
    std::iter::once(ours).chain(theirs).collect()
}

/// Draws bars of one scale: the longest is as wide as there is room.
fn group(body: &mut String, row: &Row, bars: &[Bar], y: &mut f64) {
    let longest =
        bars.iter().map(|bar| bar.value).chain(row.limit).fold(f64::MIN_POSITIVE, f64::max);
    let room = WIDTH - LEFT - 130.0;
    let top = *y;
    for bar in bars {
        let width = room * bar.value / longest;
        body.push_str(&text(LEFT - 8.0, *y + 13.0, "end", &bar.label));
        // A string has no place to fail to write to.
        writeln!(
            body,
            "<rect x=\"{LEFT}\" y=\"{y:.0}\" width=\"{width:.1}\" height=\"{:.0}\" fill=\"{}\"/>",
            BAR - 2.0,
            bar.fill
        )
        .unwrap_or_default();
        let said = format!("{} {}", number(bar.value), row.unit.name());
        body.push_str(&text(LEFT + width + 6.0, *y + 13.0, "start", &said));
        *y += BAR;
    }
    if let Some(limit) = row.limit {
        let x = LEFT + room * limit / longest;
        writeln!(
            body,
            "<line x1=\"{x:.1}\" x2=\"{x:.1}\" y1=\"{:.0}\" y2=\"{:.0}\" stroke=\"#c53030\" stroke-width=\"2\"/>",
            top - 2.0,
            *y
        )
        .unwrap_or_default();
    }
    *y += GAP;
}

fn text(x: f64, y: f64, anchor: &str, said: &str) -> String {
    let said = said.replace('&', "&amp;").replace('<', "&lt;");
    format!("<text x=\"{x:.1}\" y=\"{y:.1}\" text-anchor=\"{anchor}\">{said}</text>\n")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::run::bench::report::tests::example;

    #[test]
    fn every_bar_is_drawn_and_every_limit() {
        let mut report = example();
        report.command.push("--model a<b&c".into());
        let drawn = plot(&report);
        assert_eq!(drawn.matches("<rect x=").count(), 6, "{drawn}");
        assert_eq!(drawn.matches("<line").count(), 2, "{drawn}");
        assert!(drawn.contains("a&lt;b&amp;c") && drawn.contains("25.00 tokens/s"), "{drawn}");
        // Half of the limit is half as wide as the limit's place.
        assert!(drawn.contains("width=\"220.0\"") && drawn.contains("x1=\"770.0\""), "{drawn}");
    }
}
