//! TOML into typed, validated structs.
//!
//! ```toml
//! output_dir = "runs/first"
//!
//! [ppo]
//! clip_range = 0.1
//! ```
//!
//! A key that is not known is an error that names the file, the line and the key that was probably meant; so are a
//! missing key, a value of the wrong type, and values that contradict each other. Command-line overrides
//! (`ppo.clip_range=0.1`) are laid over the file before anything is checked. Paths are relative to the folder of the
//! configuration file, wherever the program is started.

mod checkpoint;
mod constitution;
mod deadlines;
mod distill;
mod dpo;
mod error;
mod eval;
mod explain;
#[cfg(feature = "fault-injection")]
mod faults;
mod invariants;
mod kto;
mod lora;
mod memory;
mod mismatch;
mod offline;
mod ppo;
mod queue;
mod recipes;
mod regression;
mod resume;
mod reward;
mod reward_model;
mod sampling;
mod sections;
mod sft;
mod source;
mod spin;
mod steerlm2;

use std::{fs, path::Path};

use serde::{Serialize, de::DeserializeOwned};

pub use checkpoint::{Best, CheckpointConfig, StopConfig};
pub use constitution::{
    ConstitutionConfig, ConstitutionDataConfig, ConstitutionModelConfig, ConstitutionOptions,
    Principle, PrinciplesSource, Stage, TalkFormat,
};
pub use deadlines::DeadlinesConfig;
pub use distill::{DistillConfig, StudentConfig};
pub use dpo::DpoConfig;
pub use error::{Error, Violation};
pub use eval::{EvalConfig, EvalDataConfig, EvalModelConfig, EvalOptions, Measure};
#[cfg(feature = "fault-injection")]
pub use faults::Fault;
pub use invariants::{FiniteConfig, InvariantsConfig, OnBreak};
pub use kto::KtoConfig;
pub use lora::{EmaConfig, LoraConfig};
pub use memory::{ByteSize, MemoryCheck, MemoryConfig};
pub use mismatch::{MismatchAction, MismatchConfig};
pub use offline::{Common, OfflineConfig};
pub use ppo::{PolicyConfig, PpoConfig};
pub use queue::{Mode, QueueConfig};
pub use recipes::{RECIPES, Recipe, RecipeCommand, UnknownRecipe};
pub use regression::RegressionConfig;
pub use resume::{Change, forbidden_change};
pub use reward::{HttpReward, RewardConfig, RewardKind, RewardSource, Take};
pub use reward_model::RewardModelConfig;
pub use sampling::SamplingConfig;
pub use sections::{ComputeDtype, LogConfig, ModelConfig};
pub use sft::SftConfig;
use source::{Entries, Source};
pub use spin::SpinConfig;
pub use steerlm2::SteerLm2Config;

/// A whole configuration file.
pub trait Config: Serialize + DeserializeOwned {
    /// Checks everything that the types cannot: ranges, and values that contradict each other.
    ///
    /// # Errors
    /// The first rule that is broken, with the key to blame.
    fn validate(&self) -> Result<(), Violation>;

    /// Spells out what the file leaves to other keys, and makes relative paths those of the file's folder.
    fn resolve(&mut self, folder: &Path);

    /// Says in words how the batch sizes fit together, a line for each.
    fn arithmetic(&self) -> Vec<String>;
}

/// Reads a configuration file and lays `key=value` overrides over it.
///
/// An override's value is read as TOML, or as a string where it is not TOML: `optimizer.lr=1e-5`, `model.path=base`.
///
/// # Errors
/// When the file cannot be read, or anything in it breaks a rule; one line with the place.
pub fn load<T: Config>(path: &Path, overrides: &[String]) -> Result<T, Error> {
    let read = |source| Error::Read { path: path.into(), source };
    let text = fs::read_to_string(path).map_err(read)?;
    let folder = path.parent().unwrap_or(Path::new(""));
    let folder = if folder.as_os_str().is_empty() { Path::new(".") } else { folder };
    let folder = folder.canonicalize().map_err(read)?;
    parse(&path.display().to_string(), text, &folder, overrides)
}

/// Does what [`load`] does, with a text that is already there. `name` is what errors call it.
///
/// # Errors
/// When anything in it breaks a rule; one line with the place.
///
/// # Example
/// ```
/// use rollforge::config::{self, SftConfig};
///
/// let text = "output_dir = 'run'\nmodel.path = 'base'\ndata.train = 'a.jsonl'\nsft.batch_siz = 8\n";
/// let error = config::parse::<SftConfig>("run.toml", text.into(), "/project".as_ref(), &[]).unwrap_err();
/// assert_eq!(
///     error.to_string(),
///     "run.toml:4:5: unknown key \"batch_siz\" in [sft], did you mean \"batch_size\"?"
/// );
/// ```
pub fn parse<T: Config>(
    name: &str,
    text: String,
    folder: &Path,
    overrides: &[String],
) -> Result<T, Error> {
    let source = Source::new(name, text, overrides)?;
    let table = source.table()?;
    let entries = Entries::of(table.get_ref());
    let mut config = T::deserialize(toml::Deserializer::from(table))
        .map_err(|error| explain::type_error(&source, &entries, &error))?;
    config.validate().map_err(|broken| explain::violation(&source, &entries, &broken))?;
    config.resolve(folder);
    Ok(config)
}

/// Writes a configuration as TOML, with every default spelled out and the batch arithmetic on top. What is written
/// reads back as the same configuration.
pub fn to_toml<T: Config>(config: &T) -> String {
    let arithmetic = config
        .arithmetic()
        .iter()
        .map(|line| {
            format!(
                "# {line}
"
            )
        })
        .collect::<String>();
    let keys = toml::to_string(config).expect("configurations hold nothing that TOML lacks");
    format!(
        "{arithmetic}
{keys}"
    )
}

#[cfg(test)]
mod tests;

#[cfg(test)]
mod run_tests;
