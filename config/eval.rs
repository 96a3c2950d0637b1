//! `rollforge eval --config`: what a model is worth.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::{
    ComputeDtype, Config, PpoConfig, RewardConfig, SamplingConfig, Violation, sections::resolve,
};
use crate::{
    data::{Columns, DataConfig, OverLong, one_or_many},
    trainer::config::Device,
};

/// An evaluation.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EvalConfig {
    /// Key of all random numbers. Default 0.
    #[serde(default)]
    pub seed: u64,
    /// Where models other than the engine's compute. Default `cpu`.
    #[serde(default)]
    pub device: Device,
    /// Number of threads. Default 0: every core.
    #[serde(default)]
    pub threads: usize,
    /// What is measured.
    pub model: EvalModelConfig,
    /// What it is measured on.
    pub data: EvalDataConfig,
    /// What says how good a completion is: the sources of a PPO run. For `win_rate`, `accuracy` and `best_of_n`.
    #[serde(default)]
    pub reward: Option<RewardConfig>,
    /// How completions are sampled. Temperature 0 takes the most likely token.
    #[serde(default)]
    pub sampling: SamplingConfig,
    /// How it is measured.
    pub eval: EvalOptions,
}

/// The `[model]` section of an evaluation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EvalModelConfig {
    /// A model directory, or that of a run: then its latest checkpoint.
    pub path: PathBuf,
    /// The policy that it is compared with, for `win_rate`.
    #[serde(default)]
    pub against: Option<PathBuf>,
    /// The number format to compute in. Default `f32`.
    #[serde(default)]
    pub dtype: ComputeDtype,
}

/// The `[data]` section of an evaluation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EvalDataConfig {
    /// Files to measure on; one path or a list.
    #[serde(deserialize_with = "one_or_many")]
    pub eval: Vec<PathBuf>,
    /// Read at most so many rows. Default: all.
    #[serde(default)]
    pub rows: Option<usize>,
    /// As in a run: longest sample in tokens, of sampled measures the prompt alone. Default 1024.
    #[serde(default = "max_tokens")]
    pub max_tokens: usize,
    /// As in a run. Default `drop`.
    #[serde(default)]
    pub over_long: OverLong,
    /// As in a run. Default true.
    #[serde(default = "yes")]
    pub append_eos: bool,
    /// As in a run: perplexity of completions, not of prompts. Default true.
    #[serde(default = "yes")]
    pub completion_only: bool,
    /// Which column holds what, where the usual names do not say.
    #[serde(default)]
    pub columns: Columns,
}

/// The `[eval]` section.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EvalOptions {
    /// What is measured.
    pub measure: Measure,
    /// Completions of each prompt. Default 1; for `best_of_n` 16.
    #[serde(default)]
    pub samples_per_prompt: Option<usize>,
    /// From which reward on an answer is right, for `accuracy` and pass@n. Default 0.5.
    #[serde(default = "threshold")]
    pub threshold: f64,
    /// Tokens of one forward pass. Affects memory and speed, not the result. Default 8192.
    #[serde(default = "micro_batch_tokens")]
    pub micro_batch_tokens: usize,
}

/// What is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Measure {
    /// How likely the data are under a language model.
    Perplexity,
    /// Of how many pairs a reward model scores the chosen completion higher.
    PairAccuracy,
    /// How often a policy's completion earns more than another's; a tie counts half.
    WinRate,
    /// How many completions are right.
    Accuracy,
    /// What the best of n completions is worth, for n = 1 to `samples_per_prompt`.
    BestOfN,
}

impl Measure {
    /// Returns its name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Perplexity => "perplexity",
            Self::PairAccuracy => "pair_accuracy",
            Self::WinRate => "win_rate",
            Self::Accuracy => "accuracy",
            Self::BestOfN => "best_of_n",
        }
    }

    /// Says whether completions are sampled.
    pub fn samples(self) -> bool {
        matches!(self, Self::WinRate | Self::Accuracy | Self::BestOfN)
    }
}

impl EvalOptions {
    /// Returns the completions of each prompt.
    pub fn samples_per_prompt(&self) -> usize {
        let usual = if self.measure == Measure::BestOfN { 16 } else { 1 };
        self.samples_per_prompt.unwrap_or(usual)
    }
}

impl EvalDataConfig {
    /// Returns the same as the section of a run that trains on these files.
    pub fn as_train(&self) -> DataConfig {
        DataConfig {
            max_tokens: self.max_tokens,
            over_long: self.over_long,
            append_eos: self.append_eos,
            completion_only: self.completion_only,
            shuffle: false,
            train_rows: self.rows,
            columns: self.columns.clone(),
            ..DataConfig::new(self.eval.clone())
        }
    }
}

impl EvalConfig {
    /// Returns the run of PPO whose rewards these would be; `None` where there is no `[reward]`.
    pub fn as_ppo(&self) -> Option<PpoConfig> {
        const LEAST: &str = "output_dir = '.'\nmodel.path = '.'\ndata.train = '.'\n\
                             reward = { kind = 'exact_match', column = '.' }\n";
        let mut ppo: PpoConfig = toml::from_str(LEAST).expect("it has all that a run must have");
        ppo.reward = self.reward.clone()?;
        ppo.seed = self.seed;
        ppo.device = self.device;
        ppo.threads = self.threads;
        ppo.model.path = self.model.path.clone();
        ppo.model.dtype = self.model.dtype;
        ppo.data = self.data.as_train();
        ppo.sampling = self.sampling.clone();
        ppo.ppo.samples_per_prompt = self.eval.samples_per_prompt();
        ppo.ppo.micro_batch_tokens = self.eval.micro_batch_tokens;
        Some(ppo)
    }
}

impl Config for EvalConfig {
    fn resolve(&mut self, folder: &Path) {
        resolve(folder, [&mut self.model.path]);
        resolve(folder, self.model.against.as_mut());
        resolve(folder, self.data.eval.iter_mut());
        if let Some(reward) = &mut self.reward {
            reward.resolve(folder, self.sampling.max_new_tokens);
        }
        let samples = if self.eval.measure.samples() { self.eval.samples_per_prompt() } else { 0 };
        self.eval.samples_per_prompt = (samples > 0).then_some(samples);
    }

    fn validate(&self) -> Result<(), Violation> {
        let (measure, options) = (self.eval.measure, &self.eval);
        Violation::unless(i64::try_from(self.seed).is_ok(), "seed", "below 2^63", self.seed)?;
        Violation::unless(self.threads <= 1024, "threads", "at most 1024", self.threads)?;
        Violation::unless(!self.data.eval.is_empty(), "data.eval", "at least one file", "none")?;
        let most = self.data.max_tokens;
        Violation::unless(most >= 2, "data.max_tokens", "at least 2", most)?;
        Violation::unless(self.data.rows != Some(0), "data.rows", "at least 1", 0)?;
        let named = |what: &str| format!("{what} where eval.measure is {:?}", measure.name());
        let needs = |is: bool, key: &str, wanted: bool| {
            let rule = named(if wanted { "set" } else { "unset" });
            Violation::unless(is == wanted, key, rule, if is { "a value" } else { "none" })
        };
        needs(self.reward.is_some(), "reward", measure.samples())?;
        needs(self.model.against.is_some(), "model.against", measure == Measure::WinRate)?;
        if let Some(reward) = &self.reward {
            reward.validate(self.sampling.max_new_tokens)?;
        }
        self.sampling.validate()?;
        let samples = options.samples_per_prompt();
        let key = "eval.samples_per_prompt";
        let least = if measure == Measure::BestOfN { 2 } else { 1 };
        Violation::unless(samples >= least, key, named(&format!("at least {least}")), samples)?;
        Violation::unless(samples <= 1 << 16, key, "at most 65536", samples)?;
        Violation::unless(
            measure.samples() || options.samples_per_prompt.is_none(),
            key,
            named("unset"),
            samples,
        )?;
        let sampled = self.sampling.temperature > 0.0 || samples == 1 || !measure.samples();
        let rule = "1 where sampling.temperature is 0, for all would be the same";
        Violation::unless(sampled, key, rule, samples)?;
        let finite = options.threshold.is_finite();
        Violation::unless(finite, "eval.threshold", "finite", options.threshold)?;
        let budget = options.micro_batch_tokens;
        Violation::unless(budget >= 1, "eval.micro_batch_tokens", "at least 1", budget)
    }

    fn arithmetic(&self) -> Vec<String> {
        match self.eval.measure.samples() {
            true => {
                let samples = self.eval.samples_per_prompt();
                vec![format!(
                    "{samples} completions of each prompt, {} + {} tokens at most",
                    self.data.max_tokens, self.sampling.max_new_tokens
                )]
            }
            false => Vec::new(),
        }
    }
}

fn max_tokens() -> usize {
    1024
}

fn yes() -> bool {
    true
}

fn threshold() -> f64 {
    0.5
}

fn micro_batch_tokens() -> usize {
    8192
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::parse;

    const REWARD: &str = "reward = { kind = 'exact_match', column = 'answer' }";

    fn read(more: &str) -> Result<EvalConfig, String> {
        let text = format!("model.path = 'm'\ndata.eval = 'd.jsonl'\n{more}\n");
        parse("e.toml", text, Path::new("/here"), &[]).map_err(|error| error.to_string())
    }

    #[test]
    fn the_usual_number_of_completions_is_that_of_the_measure() {
        let samples = |more: &str| read(more).unwrap().eval.samples_per_prompt;
        assert_eq!(samples("eval.measure = 'perplexity'"), None);
        assert_eq!(samples(&format!("eval.measure = 'accuracy'\n{REWARD}")), Some(1));
        assert_eq!(samples(&format!("eval.measure = 'best_of_n'\n{REWARD}")), Some(16));
    }

    #[test]
    fn paths_are_those_of_the_folder_and_rewards_those_of_a_run() {
        let more = format!("eval.measure = 'win_rate'\nmodel.against = 'o'\n{REWARD}");
        let config = read(&more).unwrap();
        assert_eq!(config.model.against.as_deref(), Some(Path::new("/here/o")));
        assert_eq!(config.data.eval, [Path::new("/here/d.jsonl")]);
        let ppo = config.as_ppo().unwrap();
        assert_eq!(Some(ppo.reward), config.reward);
        assert_eq!(ppo.model.path, Path::new("/here/m"));
        assert!(read("eval.measure = 'perplexity'").unwrap().as_ppo().is_none());
    }

    #[test]
    fn what_a_measure_lacks_or_does_not_look_at_is_refused() {
        let best = |more: &str| format!("eval.measure = 'best_of_n'\n{REWARD}\n{more}");
        let table = [
            (String::new(), "missing key \"eval\""),
            ("eval.measure = 'luck'".into(), "unknown value \"luck\""),
            (
                "eval.measure = 'accuracy'".into(),
                "reward must be set where eval.measure is \"accuracy\"",
            ),
            (
                format!("eval.measure = 'perplexity'\n{REWARD}"),
                "reward must be unset where eval.measure is \"perplexity\"",
            ),
            (format!("eval.measure = 'win_rate'\n{REWARD}"), "model.against must be set"),
            (best("model.against = 'o'"), "model.against must be unset"),
            (best("eval.samples_per_prompt = 1"), "eval.samples_per_prompt must be at least 2"),
            (best("sampling.temperature = 0.0"), "eval.samples_per_prompt must be 1 where"),
            (best("data.rows = 0"), "data.rows must be at least 1"),
            (best("eval.threshold = nan"), "eval.threshold must be finite"),
            (best("sampling.top_p = 0.0"), "sampling.top_p must be above 0"),
            (
                "eval.measure = 'perplexity'\neval.samples_per_prompt = 4".into(),
                "eval.samples_per_prompt must be unset",
            ),
        ];
        for (more, wanted) in table {
            let said = read(&more).unwrap_err();
            assert!(said.contains(wanted), "{more}: {said}");
        }
    }
}
