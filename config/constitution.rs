//! `rollforge constitution --config`: data that a model makes by criticising itself.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::{
    ComputeDtype, Config, SamplingConfig, Violation, ppo::engine_violation, sections::resolve,
};
use crate::{
    data::{Columns, DataConfig, one_or_many},
    engine::EngineConfig,
};

/// Constitutional AI's part without a gradient (Bai et al., 2022).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ConstitutionConfig {
    /// Where `pairs.jsonl` and `revisions.jsonl` are written.
    pub output_dir: PathBuf,
    /// Key of all random numbers. Default 0.
    #[serde(default)]
    pub seed: u64,
    /// Number of threads. Default 0: every core.
    #[serde(default)]
    pub threads: usize,
    /// Who answers, criticises, revises and judges.
    pub model: ConstitutionModelConfig,
    /// What it is asked.
    pub data: ConstitutionDataConfig,
    /// How it goes about it.
    pub constitution: ConstitutionOptions,
    /// How it speaks. Default: as in a run of PPO.
    #[serde(default)]
    pub sampling: SamplingConfig,
    /// How the engine is set up.
    #[serde(default)]
    pub engine: EngineConfig,
}

/// The `[model]` section.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ConstitutionModelConfig {
    /// A model directory, or that of a run: then its latest checkpoint.
    pub path: PathBuf,
    /// The number format to compute in. Default `f32`.
    #[serde(default)]
    pub dtype: ComputeDtype,
}

/// The `[data]` section.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ConstitutionDataConfig {
    /// Files of prompts, text or conversations; one path or a list.
    #[serde(deserialize_with = "one_or_many")]
    pub prompts: Vec<PathBuf>,
    /// Read at most so many rows. Default: all.
    #[serde(default)]
    pub rows: Option<usize>,
    /// What columns are called, as in a run.
    #[serde(default)]
    pub columns: Columns,
}

/// The `[constitution]` section.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ConstitutionOptions {
    /// What is made of each prompt. Default `revise`.
    #[serde(default)]
    pub stage: Stage,
    /// What answers are held against: `[[constitution.principles]]`, or a JSON file of such a list. Anthropic's, with `prompt`
    /// and `edit_request`, is read, too.
    pub principles: PrinciplesSource,
    /// Whole conversations of answer, critique and revision to put before each, JSON Lines with `messages`. Default: none.
    #[serde(default)]
    pub examples: Option<PathBuf>,
    /// How often an answer is criticised and revised, each time by another principle. Default 1.
    #[serde(default = "one")]
    pub revisions: usize,
    /// How a conversation is written down. Default: `chat` where the model has a chat template, else `plain`.
    #[serde(default)]
    pub format: Option<TalkFormat>,
}

/// Where principles are.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(
    untagged,
    expecting = "must be a JSON file, or a list of principles with `critique`, `revision`, `comparison` and nothing else"
)]
pub enum PrinciplesSource {
    /// In a JSON file.
    File(PathBuf),
    /// Here.
    Here(Vec<Principle>),
}

/// A principle: instructions, of which a stage needs some.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Principle {
    /// Asks what is wrong with an answer. For `revise`.
    #[serde(default, alias = "prompt", skip_serializing_if = "String::is_empty")]
    pub critique: String,
    /// Asks for a better one. For `revise`.
    #[serde(default, alias = "edit_request", skip_serializing_if = "String::is_empty")]
    pub revision: String,
    /// Asks which of two is better. For `compare`.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub comparison: String,
}

/// What is made of each prompt.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Stage {
    /// An answer, a critique of it and a revision: to imitate, and to prefer over the answer.
    #[default]
    Revise,
    /// Two answers, of which the model itself says which one follows a principle better.
    Compare,
}

/// How a conversation is written down.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TalkFormat {
    /// By the model's chat template.
    Chat,
    /// `Human: ...` and `Assistant: ...`, a blank line before each.
    Plain,
}

fn one() -> usize {
    1
}

impl ConstitutionDataConfig {
    /// Returns the same as the section of a run.
    pub fn as_train(&self) -> DataConfig {
        DataConfig {
            max_tokens: usize::MAX,
            append_eos: false,
            shuffle: false,
            train_rows: self.rows,
            columns: self.columns.clone(),
            ..DataConfig::new(self.prompts.clone())
        }
    }
}

impl Config for ConstitutionConfig {
    fn resolve(&mut self, folder: &Path) {
        let options = &mut self.constitution;
        resolve(folder, [&mut self.output_dir, &mut self.model.path]);
        if let PrinciplesSource::File(path) = &mut options.principles {
            resolve(folder, [path]);
        }
        resolve(folder, options.examples.as_mut());
        resolve(folder, self.data.prompts.iter_mut());
        resolve(folder, self.engine.tensorrt_llm.engine_dir.as_mut());
    }

    fn validate(&self) -> Result<(), Violation> {
        Violation::unless(i64::try_from(self.seed).is_ok(), "seed", "below 2^63", self.seed)?;
        Violation::unless(self.threads <= 1024, "threads", "at most 1024", self.threads)?;
        let files = self.data.prompts.len();
        Violation::unless(files > 0, "data.prompts", "at least one file", files)?;
        Violation::unless(self.data.rows != Some(0), "data.rows", "at least 1", 0)?;
        self.sampling.validate()?;
        self.engine.validate().map_err(engine_violation)?;
        let ConstitutionOptions { stage, examples, revisions, .. } = &self.constitution;
        let rounds = (1..=16).contains(revisions);
        Violation::unless(rounds, "constitution.revisions", "from 1 to 16", revisions)?;
        let revises = *stage == Stage::Revise;
        let rule = "unset where constitution.stage is \"compare\"";
        Violation::unless(revises || *revisions == 1, "constitution.revisions", rule, revisions)?;
        Violation::unless(revises || examples.is_none(), "constitution.examples", rule, "a file")?;
        let differs = revises || self.sampling.temperature > 0.0;
        let rule =
            "above 0 where constitution.stage is \"compare\", for both answers would be the same";
        Violation::unless(differs, "sampling.temperature", rule, self.sampling.temperature)
    }

    fn arithmetic(&self) -> Vec<String> {
        let new = self.sampling.max_new_tokens;
        vec![match self.constitution.stage {
            Stage::Revise => {
                let completions = 1 + 2 * self.constitution.revisions;
                format!("{completions} completions of each prompt, {new} tokens at most")
            }
            Stage::Compare => format!("2 completions of each prompt, {new} tokens at most"),
        }]
    }
}
