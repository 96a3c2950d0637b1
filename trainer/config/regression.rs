//! Options of regression over attributes.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use super::{OptionError, at_least_one, ensure};

/// Options of regression over attributes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RegressionOptions {
    /// Passes over the data. Default 1.
    pub epochs: usize,
    /// Ends the run after so many optimizer steps. Default 0: when the epochs are over.
    pub max_steps: u64,
    /// Rated completions of one optimizer step. Default 64.
    pub batch_size: usize,
    /// Tokens of one forward pass; a longer completion goes alone. Affects memory and speed, not the result. Default 8192.
    pub micro_batch_tokens: usize,
    /// What is rated: the columns with the ratings, and what the model's labels are called, in this order. Default: those of
    /// the usual attributes that the training data rate.
    pub attributes: Vec<String>,
    /// Judge the held-out completions every so many optimizer steps. Default 0: at the end only.
    pub eval_every: u64,
}

impl Default for RegressionOptions {
    fn default() -> Self {
        Self {
            epochs: 1,
            max_steps: 0,
            batch_size: 64,
            micro_batch_tokens: 8192,
            attributes: Vec::new(),
            eval_every: 0,
        }
    }
}

impl RegressionOptions {
    /// Checks every range.
    ///
    /// # Errors
    /// Names the first option out of its range.
    pub fn validate(&self) -> Result<(), OptionError> {
        at_least_one("epochs", self.epochs)?;
        at_least_one("batch_size", self.batch_size)?;
        at_least_one("micro_batch_tokens", self.micro_batch_tokens)?;
        let plain = |c: char| c.is_ascii_alphanumeric() || "_-".contains(c);
        let named = |name: &&String| !name.is_empty() && name.chars().all(plain);
        let odd = self.attributes.iter().find(|name| !named(name));
        let rule = "names of letters, digits, _ and -, for metrics are called by them";
        ensure(
            odd.is_none(),
            "attributes",
            rule,
            format!("{:?}", odd.cloned().unwrap_or_default()),
        )?;
        let distinct = self.attributes.iter().collect::<BTreeSet<_>>().len();
        let (rule, most) = ("at most 1024 names, no two alike", 1024);
        let fits = distinct == self.attributes.len() && distinct <= most;
        ensure(fits, "attributes", rule, self.attributes.join(", "))
    }
}
