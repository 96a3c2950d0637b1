//! The `faults` key, which only builds with the feature `fault-injection` know: what is to go wrong, and when.

use std::fmt;

use serde::{Deserialize, Serialize};

/// What can go wrong; `run::faults` says how.
const KNOWN: [&str; 13] = [
    "checkpoint:error",
    "engine:panic",
    "engine:stall",
    "gradient:nan",
    "queue:full",
    "queue:twice",
    "reward:error",
    "reward:hang",
    "reward:nan",
    "reward:panic",
    "trainer:error",
    "trainer:hang",
    "trainer:panic",
];

/// Something that is to go wrong: `reward:hang@3`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Fault {
    /// Where and how: `reward:hang`.
    pub what: String,
    /// In which iteration (or optimizer step), from 1.
    pub step: u64,
}

impl TryFrom<String> for Fault {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let parsed = || {
            let (what, step) = text.split_once('@')?;
            let known = KNOWN.contains(&what);
            known.then_some(Self { what: what.into(), step: step.parse().ok()? })
        };
        let rule =
            || format!("a fault must be one of {} and @iteration, got {text:?}", KNOWN.join(", "));
        parsed().ok_or_else(rule)
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}@{}", self.what, self.step)
    }
}

impl From<Fault> for String {
    fn from(fault: Fault) -> Self {
        fault.to_string()
    }
}
