//! The newest events of `trace.json`.
//!
//! Chrome's trace event format, JSON array form, an event a line; the closing bracket may be missing.
//! <https://docs.google.com/document/d/1CvAClvFfyA5R-PhYUmn5OOQtYMH4h6I0nSsKchNAySU>

use std::collections::{BTreeMap, VecDeque};

use serde::{Deserialize, Serialize};

/// How many spans are kept.
pub(super) const MOST_SPANS: usize = 2000;
/// More lanes than this are none of ours.
const MOST_LANES: u64 = 64;

/// Who was busy when.
#[derive(Debug, Serialize)]
pub(super) struct Timeline {
    lanes: BTreeMap<u64, String>,
    spans: VecDeque<Span>,
}

/// Something that took a while.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(super) struct Span {
    name: String,
    lane: u64,
    /// Unix seconds.
    start: f64,
    seconds: f64,
    #[serde(skip_serializing_if = "Option::is_none")]
    iteration: Option<u64>,
}

/// An event as the file has it.
#[derive(Deserialize)]
struct Event {
    name: String,
    ph: String,
    #[serde(default)]
    ts: f64,
    #[serde(default)]
    dur: f64,
    #[serde(default)]
    tid: u64,
    #[serde(default)]
    args: Arguments,
}

#[derive(Default, Deserialize)]
struct Arguments {
    name: Option<String>,
    iteration: Option<u64>,
}

impl Default for Timeline {
    /// Starts with the lanes that every run has: the events that name them may lie far back in a long file.
    fn default() -> Self {
        let lanes = ["generate", "score", "train", "refit", "wait", "checkpoint"];
        let lanes = (1..).zip(lanes.map(String::from)).collect();
        Self { lanes, spans: VecDeque::new() }
    }
}

impl Timeline {
    /// Adds a line of the file. Returns the span it tells of.
    pub(super) fn push(&mut self, line: &str) -> Option<Span> {
        let object = line.trim().trim_start_matches(['[', ',']).trim_end_matches([']', ',']).trim();
        let event: Event = serde_json::from_str(object).ok()?;
        match (event.ph.as_str(), event.tid) {
            ("M", lane) if event.name == "thread_name" && lane < MOST_LANES => {
                self.lanes.extend(event.args.name.map(|name| (lane, name)));
                None
            }
            ("X", lane) if event.ts.is_finite() && event.dur.is_finite() => {
                let span = Span {
                    name: event.name,
                    lane,
                    start: event.ts / 1e6,
                    seconds: event.dur / 1e6,
                    iteration: event.args.iteration,
                };
                if self.spans.len() == MOST_SPANS {
                    self.spans.pop_front();
                }
                self.spans.push_back(span.clone());
                Some(span)
            }
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_are_read_however_their_lines_are_joined() {
        let mut timeline = Timeline::default();
        for line in [
            "[",
            r#"{"name":"thread_name","ph":"M","pid":1,"tid":7,"args":{"name":"tea"}},"#,
            r#"{"name":"generate","cat":"gen","ph":"X","ts":1500000,"dur":500000,"pid":1,"tid":1,"args":{"iteration":3}},"#,
            r#",{"name":"pour","ph":"X","ts":0,"dur":1000,"pid":1,"tid":7}"#,
            r#"{"name":"half","#,
            "]",
        ] {
            timeline.push(line);
        }
        let generate = Span {
            name: "generate".to_owned(),
            lane: 1,
            start: 1.5,
            seconds: 0.5,
            iteration: Some(3),
        };
        assert_eq!(timeline.spans.len(), 2);
        assert_eq!(timeline.spans[0], generate);
        assert_eq!((timeline.lanes[&7].as_str(), timeline.lanes[&3].as_str()), ("tea", "train"));
    }

    #[test]
    fn only_the_newest_spans_are_kept() {
        let mut timeline = Timeline::default();
        for at in 0..MOST_SPANS + 5 {
            timeline.push(&format!(r#"{{"name":"x","ph":"X","ts":{at}000000,"dur":1,"tid":1}}"#));
        }
        assert_eq!((timeline.spans.len(), timeline.spans[0].start), (MOST_SPANS, 5.0));
    }
}
