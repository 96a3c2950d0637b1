//! Metrics over the steps, in bounded memory: of a long run, neighbouring steps become one point, their mean.

use std::collections::HashMap;

use serde::{Serialize, Serializer, ser::SerializeStruct};
use serde_json::{Map, Value};

/// More points than this cannot be told apart on a screen.
pub(super) const MOST_POINTS: usize = 2000;
/// More metrics than this are none of ours.
const MOST_METRICS: usize = 512;

/// One line of `metrics.jsonl`.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Row {
    pub(super) step: u64,
    /// NaN stands for whatever is not finite: JSON has `null` in its place.
    pub(super) metrics: Vec<(String, f64)>,
}

impl Row {
    /// Reads a line. `None` if it is none: a crash may have cut it off.
    pub(super) fn parse(line: &str) -> Option<Self> {
        let fields: Map<String, Value> = serde_json::from_str(line).ok()?;
        let step = fields.get("step")?.as_u64()?;
        let number = |value: &Value| if value.is_null() { Some(f64::NAN) } else { value.as_f64() };
        let rest = fields.iter().filter(|(name, _)| *name != "step");
        let metrics = rest.filter_map(|(name, value)| Some((name.clone(), number(value)?)));
        Some(Self { step, metrics: metrics.collect() })
    }
}

/// `{"step": 3, "loss": 1.5, "val/ratio": "NaN"}`
impl Serialize for Row {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut fields = Map::from_iter([("step".to_owned(), self.step.into())]);
        fields.extend(self.metrics.iter().map(|(name, value)| (name.clone(), shown(*value))));
        fields.serialize(serializer)
    }
}

/// All metrics of a run over its steps.
#[derive(Debug)]
pub(super) struct Curves {
    names: Vec<String>,
    places: HashMap<String, usize>,
    points: Vec<Point>,
    /// Rows that make a point.
    stride: usize,
    latest: Option<Row>,
}

/// The mean of neighbouring rows.
#[derive(Clone, Debug, Default)]
struct Point {
    /// The last row's.
    step: u64,
    rows: usize,
    /// One for each name, those at the end may lack.
    cells: Vec<Cell>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Cell {
    sum: f64,
    count: u32,
}

impl Default for Curves {
    fn default() -> Self {
        Self {
            names: Vec::new(),
            places: HashMap::new(),
            points: Vec::new(),
            stride: 1,
            latest: None,
        }
    }
}

impl Curves {
    /// Adds a row. Points from its step on are replaced: they are of an attempt that was given up.
    pub(super) fn push(&mut self, row: Row) {
        while self.points.last().is_some_and(|last| last.step >= row.step) {
            self.points.pop();
        }
        if self.points.last().is_none_or(|last| last.rows >= self.stride) {
            if self.points.len() == MOST_POINTS {
                self.halve();
            }
            self.points.push(Point::default());
        }
        let places: Vec<_> = row.metrics.iter().map(|(name, _)| self.place(name)).collect();
        let point = self.points.last_mut().expect("one was pushed where there was none");
        (point.step, point.rows) = (row.step, point.rows + 1);
        for (&(_, sum), place) in row.metrics.iter().zip(places) {
            if let Some(place) = place {
                point.add(place, Cell { sum, count: 1 });
            }
        }
        self.latest = Some(row);
    }

    /// Returns the newest row.
    pub(super) fn latest(&self) -> Option<&Row> {
        self.latest.as_ref()
    }

    fn place(&mut self, name: &str) -> Option<usize> {
        if let Some(&place) = self.places.get(name) {
            return Some(place);
        }
        let place = self.names.len();
        (place < MOST_METRICS).then(|| {
            self.names.push(name.to_owned());
            self.places.insert(name.to_owned(), place);
            place
        })
    }

    /// Makes one point of two.
    fn halve(&mut self) {
        self.stride *= 2;
        let join = |pair: &[Point]| {
            let mut joined = pair[0].clone();
            if let Some(second) = pair.get(1) {
                (joined.step, joined.rows) = (second.step, joined.rows + second.rows);
                for (place, cell) in second.cells.iter().enumerate() {
                    joined.add(place, *cell);
                }
            }
            joined
        };
        self.points = self.points.chunks(2).map(join).collect();
    }
}

impl Point {
    fn add(&mut self, place: usize, cell: Cell) {
        if self.cells.len() <= place {
            self.cells.resize(place + 1, Cell::default());
        }
        let sum = &mut self.cells[place];
        *sum = Cell { sum: sum.sum + cell.sum, count: sum.count + cell.count };
    }

    /// Returns the mean under a name's place; nothing where no row had it.
    fn mean(&self, place: usize) -> Option<f64> {
        let cell = self.cells.get(place).filter(|cell| cell.count > 0)?;
        Some(cell.sum / f64::from(cell.count))
    }
}

/// `{"stride": 1, "steps": [1, 2], "metrics": {"loss": [1.5, null], "val/ratio": [1.0, "NaN"]}}`: `null` where a metric
/// was not taken.
impl Serialize for Curves {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let steps: Vec<u64> = self.points.iter().map(|point| point.step).collect();
        let mut curves = serializer.serialize_struct("Curves", 3)?;
        curves.serialize_field("stride", &self.stride)?;
        curves.serialize_field("steps", &steps)?;
        curves.serialize_field("metrics", &Columns(self))?;
        curves.end()
    }
}

/// The points by metric. Number by number: a tree of all of them would take many times the curves' own memory.
struct Columns<'a>(&'a Curves);

impl Serialize for Columns<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let columns = self.0.names.iter().enumerate();
        serializer.collect_map(columns.map(|(place, name)| (name, Column(self.0, place))))
    }
}

struct Column<'a>(&'a Curves, usize);

impl Serialize for Column<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let means = self.0.points.iter().map(|point| point.mean(self.1).map(shown));
        serializer.collect_seq(means)
    }
}

/// Returns a number to seven digits, which a curve needs, or the word for one that JSON lacks.
fn shown(value: f64) -> Value {
    if !value.is_finite() {
        return "NaN".into();
    }
    format!("{value:.6e}").parse::<f64>().map_or(Value::Null, Value::from)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn pushed(lines: impl IntoIterator<Item = String>) -> Curves {
        let mut curves = Curves::default();
        lines.into_iter().filter_map(|line| Row::parse(&line)).for_each(|row| curves.push(row));
        curves
    }

    #[test]
    fn columns_have_a_place_for_every_step() {
        let lines = [
            r#"{"step":1,"loss":1.5,"val/ratio":null}"#,
            "no line",
            r#"{"loss":3}"#,
            r#"{"step":2,"loss":0.1234567891,"kl":2}"#,
        ];
        let curves = pushed(lines.map(String::from));
        let expected = json!({
            "stride": 1,
            "steps": [1, 2],
            "metrics": {"loss": [1.5, 0.1234568], "val/ratio": ["NaN", null], "kl": [null, 2.0]},
        });
        assert_eq!(serde_json::to_value(&curves).unwrap(), expected);
        assert_eq!(curves.latest().unwrap().metrics[0], ("loss".to_owned(), 0.123_456_789_1));
    }

    #[test]
    fn a_long_run_becomes_means_of_neighbours() {
        let steps = 2 * MOST_POINTS as u64 + 3;
        let curves = pushed((1..=steps).map(|step| format!(r#"{{"step":{step},"x":{step}}}"#)));
        let value = serde_json::to_value(&curves).unwrap();
        assert_eq!(value["stride"], 4);
        let (steps_of, means) =
            (value["steps"].as_array().unwrap(), value["metrics"]["x"].as_array().unwrap());
        assert_eq!(steps_of.len(), MOST_POINTS / 2 + 1);
        assert_eq!((&steps_of[0], &means[0]), (&json!(4), &json!(2.5)));
        // The last point is not full.
        assert_eq!(steps_of.last().unwrap(), &json!(steps));
        assert_eq!(means.last().unwrap().as_f64(), Some((steps - 1) as f64));
    }

    #[test]
    fn a_step_that_comes_again_replaces_what_followed_it() {
        let lines = (1..=4).map(|step| format!(r#"{{"step":{step},"x":1}}"#));
        let curves = pushed(lines.chain([r#"{"step":3,"x":7}"#.to_owned()]));
        let value = serde_json::to_value(&curves).unwrap();
        assert_eq!(value["steps"], json!([1, 2, 3]));
        assert_eq!(value["metrics"]["x"], json!([1.0, 1.0, 7.0]));
    }

    #[test]
    fn metrics_without_end_are_bounded() {
        let curves = pushed((1..2000).map(|step| format!(r#"{{"step":{step},"x{step}":1}}"#)));
        assert_eq!(curves.names.len(), MOST_METRICS);
    }
}
