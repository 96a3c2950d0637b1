//! A best-of-n curve as a picture.

use std::fmt::Write;

use super::{CurvePoint, EvalReport};

const WIDTH: f64 = 720.0;
const HEIGHT: f64 = 300.0;
const LEFT: f64 = 60.0;
const TOP: f64 = 60.0;
const BOTTOM: f64 = 40.0;
/// Above each other: rewards and probabilities have scales of their own.
const PANELS: [Panel; 3] = [
    Panel { name: "reward of the best of n", value: |point| point.best, colour: "#2b6cb0" },
    Panel { name: "pass@n", value: |point| point.pass, colour: "#2f855a" },
    Panel { name: "bound of the KL (nats)", value: |point| point.kl_bound, colour: "#718096" },
];

struct Panel {
    name: &'static str,
    value: fn(&CurvePoint) -> f64,
    colour: &'static str,
}

/// Draws the curve of a report as one SVG, n on a logarithmic scale; `None` where the report has no curve.
pub fn plot(report: &EvalReport) -> Option<String> {
    let curve = &report.curve;
    let last = curve.last()?;
    let mut body = text(12.0, 20.0, "start", &report.title());
    for (place, panel) in PANELS.iter().enumerate() {
        draw(&mut body, panel, curve, (TOP + HEIGHT * place as f64, last.n));
    }
    let height = TOP + HEIGHT * PANELS.len() as f64;
    Some(format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" font-family=\"sans-serif\" \
         font-size=\"12\">\n<rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n{body}</svg>\n"
    ))
}

fn draw(body: &mut String, panel: &Panel, curve: &[CurvePoint], (top, last): (f64, usize)) {
    let values = curve.iter().map(panel.value);
    let (low, high) = values.fold((f64::MAX, f64::MIN), |(a, b), v| (a.min(v), b.max(v)));
    let span = if high > low { high - low } else { 1.0 };
    let (room, height) = (WIDTH - LEFT - 30.0, HEIGHT - BOTTOM - 30.0);
    let x = |n: usize| LEFT + room * (n as f64).ln() / (last.max(2) as f64).ln();
    let y = |value: f64| top + 20.0 + height * (1.0 - (value - low) / span);
    body.push_str(&text(LEFT, top + 8.0, "start", panel.name));
    for value in [low, high] {
        body.push_str(&text(LEFT - 6.0, y(value) + 4.0, "end", &format!("{value:.3}")));
    }
    let ticks = std::iter::successors(Some(1), |n| Some(2 * n)).take_while(|&n| n <= last);
    for n in ticks {
        body.push_str(&text(x(n), top + height + 36.0, "middle", &n.to_string()));
    }
    let points: Vec<String> = curve
        .iter()
        .map(|point| format!("{:.1},{:.1}", x(point.n), y((panel.value)(point))))
        .collect();
    // A string has no place to fail to write to.
    writeln!(
        body,
        "<polyline points=\"{}\" fill=\"none\" stroke=\"{}\" stroke-width=\"2\"/>",
        points.join(" "),
        panel.colour
    )
    .unwrap_or_default();
}

fn text(x: f64, y: f64, anchor: &str, said: &str) -> String {
    let said = said.replace('&', "&amp;").replace('<', "&lt;");
    format!("<text x=\"{x:.1}\" y=\"{y:.1}\" text-anchor=\"{anchor}\">{said}</text>\n")
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::{config::Measure, run::eval::best_of_n};

    #[test]
    fn a_curve_is_drawn_from_corner_to_corner() {
        let mut report = EvalReport {
            measure: Measure::BestOfN,
            model: "a<b".into(),
            against: None,
            data: String::new(),
            rows: 1,
            samples_per_prompt: 4,
            share: None,
            values: BTreeMap::new(),
            curve: best_of_n(&[vec![0.0, 0.0, 0.0, 1.0]], 1.0),
        };
        let drawn = plot(&report).unwrap();
        assert_eq!(drawn.matches("<polyline").count(), 3, "{drawn}");
        // 1/4 at n = 1 is the bottom on the left, 1 at n = 4 the top on the right; 2 lies half way.
        assert!(drawn.contains("points=\"60.0,310.0 375.0,"), "{drawn}");
        assert!(drawn.contains("690.0,80.0\""), "{drawn}");
        assert!(drawn.contains("best_of_n of a&lt;b"), "{drawn}");
        report.curve.clear();
        assert_eq!(plot(&report), None);
    }
}
