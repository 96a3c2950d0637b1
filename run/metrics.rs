//! Named numbers of one iteration or optimizer step, in the order they were put in.
//!
//! Names are those of the peers, so that dashboards carry over: TRL's for `objective/`, `policy/`, `loss/` and `val/`,
//! verl's for `timing_s/`, `perf/` and `response_length/`.

use serde::{Serialize, Serializer, ser::SerializeMap};

/// An ordered map from metric name to number.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Metrics(Vec<(String, f64)>);

impl Metrics {
    /// Starts with nothing.
    pub fn new() -> Self {
        Self::default()
    }

    /// Puts a number under a name; a name that is there keeps its place.
    pub fn set(&mut self, name: impl Into<String>, value: impl Into<f64>) {
        let (name, value) = (name.into(), value.into());
        match self.0.iter_mut().find(|(known, _)| *known == name) {
            Some((_, old)) => *old = value,
            None => self.0.push((name, value)),
        }
    }

    /// Does what [`Metrics::set`] does and returns itself, for chains.
    #[must_use]
    pub fn with(mut self, name: impl Into<String>, value: impl Into<f64>) -> Self {
        self.set(name, value);
        self
    }

    /// Returns the number under a name.
    pub fn get(&self, name: &str) -> Option<f64> {
        self.0.iter().find(|(known, _)| known == name).map(|&(_, value)| value)
    }

    /// Returns names and numbers in order.
    pub fn iter(&self) -> impl Iterator<Item = (&str, f64)> {
        self.0.iter().map(|(name, value)| (name.as_str(), *value))
    }

    /// Takes over all of another's numbers.
    pub fn extend(&mut self, other: Self) {
        for (name, value) in other.0 {
            self.set(name, value);
        }
    }
}

/// One JSON object; a number that is not finite becomes `null`, which JSON has in its place.
impl Serialize for Metrics {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(self.0.len()))?;
        for (name, value) in &self.0 {
            map.serialize_entry(name, value)?;
        }
        map.end()
    }
}

impl<N: Into<String>, V: Into<f64>> FromIterator<(N, V)> for Metrics {
    fn from_iter<I: IntoIterator<Item = (N, V)>>(entries: I) -> Self {
        let mut metrics = Self::new();
        for (name, value) in entries {
            metrics.set(name, value);
        }
        metrics
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_keep_their_order_and_the_last_value_wins() {
        let mut metrics =
            Metrics::new().with("objective/kl", 0.5).with("lr", 1e-3).with("objective/kl", 2);
        metrics.extend([("val/ratio", 1.0)].into_iter().collect());
        let names: Vec<&str> = metrics.iter().map(|(name, _)| name).collect();
        assert_eq!(names, ["objective/kl", "lr", "val/ratio"]);
        assert_eq!(metrics.get("objective/kl"), Some(2.0));
        assert_eq!(metrics.get("kl"), None);
    }

    #[test]
    fn numbers_that_json_lacks_become_null() {
        let metrics = Metrics::new().with("loss", f64::NAN).with("lr", 0.25);
        assert_eq!(serde_json::to_string(&metrics).unwrap(), r#"{"loss":null,"lr":0.25}"#);
    }
}
