//! What a source of rewards does, and its options.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};

use super::{HttpReward, join};
use crate::config::Violation;

/// What a source of rewards does.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub enum RewardKind {
    /// What a reward model says of prompt and completion.
    Model {
        /// Its directory: a sequence classifier with one label, or with several and `weights`.
        path: PathBuf,
        /// Bring its scores to mean 0 and variance 1 by what `rollforge rm` wrote beside its weights. A critic that
        /// starts from the reward model starts at the raw scores nevertheless. Default false.
        #[serde(default)]
        standardize: bool,
        /// What each of its labels counts, by name: the reward is the weighted sum, and a label that is not named adds
        /// nothing to it. Needed where there are several. Default none.
        #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
        weights: BTreeMap<String, f64>,
    },
    /// 1 where the completion's text is that of a data column, white space around either aside; 0 where it is not.
    ExactMatch {
        /// The column.
        column: String,
    },
    /// The share of a data column's tokens that the completion has in the same place. Each token is rewarded by itself,
    /// where it stands: 1 / tokens of the column if it is right, 0 if it is not.
    PositionMatch {
        /// The column.
        column: String,
    },
    /// 1 where a regular expression matches somewhere in the completion, and what it captures is what a data column says;
    /// 0 where that is not so.
    Regex {
        /// The expression, in the syntax of the crate `regex`: Perl's without look-around and back-references.
        pattern: String,
        /// The column. It is held against the group `answer`, or the first one, or the whole match where there is no
        /// group; white space around either aside. Default: none, the match is enough.
        #[serde(default)]
        column: Option<String>,
        /// Which match counts: `first` or `last`. Default `first`.
        #[serde(default)]
        take: Take,
    },
    /// 1 where the completion's answer is the number of a data column, 0 where it is another or none. The answer is what
    /// the last `\boxed{}` holds, or what comes after the last `####`, or else the last number of the text.
    Numeric {
        /// The column: a number, or a text whose answer is found in the same way.
        column: String,
        /// How far apart two equal numbers may be: absolutely up to 1, as a share of the column's number above. Default 1e-6.
        #[serde(default = "tolerance")]
        tolerance: f64,
    },
    /// 1 where the completion is JSON that satisfies a schema, 0 where it is not.
    JsonSchema {
        /// The schema, written as TOML.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        schema: Option<toml::Table>,
        /// A file that holds it, in the place of `schema`.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        schema_file: Option<PathBuf>,
    },
    /// 1 where the completion has a form, 0 where it has not.
    Format {
        /// Text with `{}` where anything may stand: `<think>{}</think><answer>{}</answer>`. The completion must be of this
        /// form as a whole, white space around the parts aside, and each written part be in it once.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        template: Option<String>,
        /// Texts that must be somewhere in it. Default none.
        #[serde(default)]
        contains: Vec<String>,
    },
    /// A penalty for completions of the wrong length, from -1 to 0.
    Length {
        /// The soft punishment of over-long completions (DAPO; Yu et al., 2025, equation 13): 0 up to
        /// `max_tokens - cache_tokens`, then linearly down to -1 at `max_tokens`.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        cache_tokens: Option<usize>,
        /// Where that reaches -1. Default `sampling.max_new_tokens`.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        max_tokens: Option<usize>,
        /// In the place of the two: the length that costs nothing. Others cost their distance from it as a share of it, 1 at
        /// most.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        target_tokens: Option<usize>,
    },
    /// What any program says, over JSON lines.
    Program {
        /// The program and its arguments.
        command: Vec<String>,
        /// The folder it runs in. Default: that of the configuration file.
        #[serde(default)]
        directory: PathBuf,
        /// The longest time without an answer while one is due. Default 60.
        #[serde(default = "deadline")]
        deadline_seconds: f64,
        /// How often in a row it is started again, where it has died or not answered in time. Default 2.
        #[serde(default = "retries")]
        retries: u32,
    },
    /// What a reward model elsewhere says, over HTTP.
    Http(HttpReward),
    /// 0 for everything: the KL from a teacher is then all there is to learn from.
    None {},
}

/// Which of several matches counts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Take {
    /// The first.
    #[default]
    First,
    /// The last.
    Last,
}

pub(super) fn deadline() -> f64 {
    60.0
}

fn retries() -> u32 {
    2
}

fn tolerance() -> f64 {
    1e-6
}

impl RewardKind {
    /// Returns the name that a configuration calls it by.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Model { .. } => "model",
            Self::ExactMatch { .. } => "exact_match",
            Self::PositionMatch { .. } => "position_match",
            Self::Regex { .. } => "regex",
            Self::Numeric { .. } => "numeric",
            Self::JsonSchema { .. } => "json_schema",
            Self::Format { .. } => "format",
            Self::Length { .. } => "length",
            Self::Program { .. } => "program",
            Self::Http(_) => "http",
            Self::None {} => "none",
        }
    }

    /// Returns the reward model's directory, where it is one.
    pub(super) fn model(&self) -> Option<&Path> {
        match self {
            Self::Model { path, .. } => Some(path),
            _ => None,
        }
    }

    pub(super) fn schema_file(&self) -> Option<&Path> {
        match self {
            Self::JsonSchema { schema_file, .. } => schema_file.as_deref(),
            _ => None,
        }
    }

    pub(super) fn resolve(&mut self, folder: &Path, max_new_tokens: usize) {
        match self {
            Self::Model { path, .. }
            | Self::JsonSchema { schema_file: Some(path), .. }
            | Self::Program { directory: path, .. } => join(folder, path),
            Self::Length { cache_tokens: Some(_), max_tokens, .. } => {
                max_tokens.get_or_insert(max_new_tokens);
            }
            _ => {}
        }
    }

    /// Checks what the types cannot. The keys of the violations are those of the source's table.
    pub(super) fn validate(&self, max_new_tokens: usize) -> Result<(), Violation> {
        match self {
            Self::Model { standardize, weights, .. } => {
                let odd = weights.iter().find(|(_, weight)| !weight.is_finite());
                let got = || odd.map(|(name, weight)| format!("{name} = {weight}"));
                let rule = "finite numbers";
                Violation::unless(odd.is_none(), "weights", rule, got().unwrap_or_default())?;
                let rule = "false where weights are given, for nothing has measured their sum";
                Violation::unless(!standardize || weights.is_empty(), "standardize", rule, "true")
            }
            Self::Regex { pattern, .. } => regex::Regex::new(pattern).map(drop).map_err(|error| {
                // The last line says what is wrong, those before it show where.
                let said = error.to_string();
                let said = said.lines().last().unwrap_or_default().trim_start_matches("error: ");
                let rule = format!("a regular expression ({said})");
                Violation::new("pattern", rule, format!("{pattern:?}"))
            }),
            Self::Numeric { tolerance, .. } => {
                let within = tolerance.is_finite() && *tolerance >= 0.0;
                Violation::unless(within, "tolerance", "a number from 0 up", tolerance)
            }
            Self::JsonSchema { schema, schema_file } => {
                let (one, rule) =
                    (schema.is_some() != schema_file.is_some(), "given, or schema_file");
                let got = if schema.is_some() { "both" } else { "neither" };
                Violation::unless(one, "schema", rule, got)
            }
            Self::Format { template, contains } => validate_format(template.as_deref(), contains),
            Self::Length { cache_tokens, max_tokens, target_tokens } => {
                let max = max_tokens.unwrap_or(max_new_tokens);
                validate_length(*cache_tokens, (max, max_tokens.is_some()), *target_tokens)
            }
            Self::Program { command, deadline_seconds, .. } => {
                let named = command.first().is_some_and(|program| !program.is_empty());
                let rule = "a program and its arguments";
                Violation::unless(named, "command", rule, format!("{command:?}"))?;
                validate_deadline(*deadline_seconds)
            }
            Self::Http(http) => http.validate(),
            _ => Ok(()),
        }
    }
}

pub(super) fn validate_deadline(seconds: f64) -> Result<(), Violation> {
    let within = seconds > 0.0 && seconds <= 1e9;
    Violation::unless(within, "deadline_seconds", "above 0, at most 1e9", seconds)
}

fn validate_format(template: Option<&str>, contains: &[String]) -> Result<(), Violation> {
    let asked = template.is_some() || !contains.is_empty();
    Violation::unless(asked, "template", "given, or contains", "neither")?;
    let written = template.is_none_or(|text| text.split("{}").any(|part| !part.trim().is_empty()));
    let rule = "more than {} and white space";
    Violation::unless(written, "template", rule, format!("{:?}", template.unwrap_or_default()))?;
    let empty = contains.iter().any(String::is_empty);
    Violation::unless(!empty, "contains", "a list of texts that are not empty", "\"\"")
}

fn validate_length(
    cache: Option<usize>,
    (max, max_is_given): (usize, bool),
    target: Option<usize>,
) -> Result<(), Violation> {
    match (cache, target) {
        (Some(cache), None) => {
            let rule = format!("from 1 to max_tokens ({max})");
            Violation::unless((1..=max).contains(&cache), "cache_tokens", rule, cache)
        }
        (None, Some(target)) => {
            let rule = "unset where target_tokens is given";
            Violation::unless(!max_is_given, "max_tokens", rule, max)?;
            Violation::unless(target >= 1, "target_tokens", "at least 1", target)
        }
        (cache, _) => {
            let got = if cache.is_some() { "both" } else { "neither" };
            Err(Violation::new("cache_tokens", "given, or target_tokens", got))
        }
    }
}
