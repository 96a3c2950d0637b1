//! Sections that several configurations share.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::{CheckpointConfig, EmaConfig, LoraConfig, StopConfig, Violation};
use crate::{
    data::DataConfig,
    engine::EngineDtype,
    rollout::Dtype,
    trainer::config::{Freeze, OptimizerConfig, OptionError, ScheduleConfig},
};

/// The number format the trainer computes in; weights and optimizer state are f32 in either.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ComputeDtype {
    /// 32-bit floats.
    #[default]
    F32,
    /// 16-bit brain floats.
    Bf16,
}

impl From<ComputeDtype> for EngineDtype {
    fn from(dtype: ComputeDtype) -> Self {
        match dtype {
            ComputeDtype::F32 => Self::F32,
            ComputeDtype::Bf16 => Self::Bf16,
        }
    }
}

impl From<ComputeDtype> for Dtype {
    fn from(dtype: ComputeDtype) -> Self {
        match dtype {
            ComputeDtype::F32 => Self::F32,
            ComputeDtype::Bf16 => Self::Bf16,
        }
    }
}

/// The `[model]` section: what is trained.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ModelConfig {
    /// The Hugging Face model directory to start from.
    pub path: PathBuf,
    /// The number format to compute in. Default `f32`.
    #[serde(default)]
    pub dtype: ComputeDtype,
    /// Compute each layer again in the backward pass instead of keeping what it computed: less memory, a third more
    /// work. Default false.
    #[serde(default)]
    pub activation_checkpointing: bool,
    /// Parameters that stay as they are: names, or beginnings of names followed by `*`. Default: none.
    #[serde(default)]
    pub freeze: Vec<String>,
    /// So many layers stay as they are, counted from the first, and the token embeddings with them. Default 0.
    #[serde(default)]
    pub freeze_layers: usize,
}

impl ModelConfig {
    /// Returns what stays as it is.
    pub fn freeze(&self) -> Freeze {
        Freeze { names: self.freeze.clone(), layers: self.freeze_layers }
    }
}

/// Defines a `[model]` section that names a model beside the one that learns.
macro_rules! model_beside {
    (
        $(#[$documentation:meta])*
        $name:ident {
            $(#[$of_path:meta])* path,
            $(#[$of_beside:meta])* $beside:ident
        }
    ) => {
        $(#[$documentation])*
        #[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
        #[serde(deny_unknown_fields)]
        pub struct $name {
            $(#[$of_path])*
            pub path: std::path::PathBuf,
            $(#[$of_beside])*
            #[serde(default)]
            pub $beside: Option<std::path::PathBuf>,
            /// The number format to compute in. Default `f32`.
            #[serde(default)]
            pub dtype: crate::config::ComputeDtype,
            /// Compute each layer again in the backward pass instead of keeping what it computed. Default false.
            #[serde(default)]
            pub activation_checkpointing: bool,
            /// Parameters of what learns that stay as they are, as in [`ModelConfig`](crate::config::ModelConfig). Default:
            /// none.
            #[serde(default)]
            pub freeze: Vec<String>,
            /// So many of its layers stay as they are, as in [`ModelConfig`](crate::config::ModelConfig). Default 0.
            #[serde(default)]
            pub freeze_layers: usize,
        }

        impl $name {
            /// Returns what of the model that learns stays as it is.
            pub fn freeze(&self) -> crate::trainer::config::Freeze {
                self.trained().freeze()
            }

            /// Returns what is said of the model that learns alone.
            pub fn trained(&self) -> crate::config::ModelConfig {
                crate::config::ModelConfig {
                    path: self.path.clone(),
                    dtype: self.dtype,
                    activation_checkpointing: self.activation_checkpointing,
                    freeze: self.freeze.clone(),
                    freeze_layers: self.freeze_layers,
                }
            }
        }

        impl crate::config::offline::Trained for $name {
            fn resolve(&mut self, folder: &std::path::Path) {
                use crate::config::sections::resolve;
                resolve(folder, [&mut self.path]);
                resolve(folder, self.$beside.as_mut());
            }

            fn trained(&self) -> crate::config::ModelConfig {
                Self::trained(self)
            }
        }
    };
}
pub(super) use model_beside;

/// The `[log]` section.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct LogConfig {
    /// Write metrics after so many optimizer steps (PPO: iterations). Default 1.
    pub every: u64,
    /// Write so many sampled completions each time, where the run samples any. Default 4.
    pub samples: usize,
    /// Write metrics as TensorBoard's event files, too. Default true.
    pub tensorboard: bool,
    /// Write when what was at work into `trace.json`. Default true.
    pub trace: bool,
}

impl Default for LogConfig {
    fn default() -> Self {
        Self { every: 1, samples: 4, tensorboard: true, trace: true }
    }
}

/// What every training run has, for the checks that are the same in each.
pub(crate) struct Shared<'a> {
    pub(crate) output_dir: &'a Path,
    pub(crate) model: &'a Path,
    pub(crate) seed: u64,
    pub(crate) threads: usize,
    pub(crate) data: &'a DataConfig,
    pub(crate) learns: (Freeze, &'a LoraConfig, EmaConfig),
    pub(crate) optimizer: &'a OptimizerConfig,
    pub(crate) schedule: &'a ScheduleConfig,
    pub(crate) checkpoint: &'a CheckpointConfig,
    pub(crate) stop: &'a StopConfig,
    pub(crate) log: &'a LogConfig,
}

impl Shared<'_> {
    pub(super) fn validate(&self) -> Result<(), Violation> {
        let not_empty = |path: &Path| !path.as_os_str().is_empty();
        Violation::unless(not_empty(self.output_dir), "output_dir", "a folder", "\"\"")?;
        Violation::unless(not_empty(self.model), "model.path", "a folder", "\"\"")?;
        Violation::unless(
            self.output_dir != self.model,
            "output_dir",
            "another folder than model.path",
            self.output_dir.display(),
        )?;
        // TOML has no larger integers, and the resolved configuration must read back.
        Violation::unless(i64::try_from(self.seed).is_ok(), "seed", "below 2^63", self.seed)?;
        Violation::unless(self.threads <= 1024, "threads", "at most 1024", self.threads)?;
        Violation::unless(self.log.every >= 1, "log.every", "at least 1", self.log.every)?;
        let (freeze, lora, ema) = &self.learns;
        lora.validate(freeze)?;
        ema.validate()?;
        self.checkpoint.validate()?;
        self.stop.validate()?;
        self.validate_data()?;
        within("optimizer", self.optimizer.validate())?;
        within("schedule", self.schedule.validate())
    }

    fn validate_data(&self) -> Result<(), Violation> {
        let data = self.data;
        let files = |key: &str| format!("data.{key}");
        Violation::unless(!data.train.is_empty(), files("train"), "at least one file", "none")?;
        Violation::unless(
            data.max_tokens >= 2,
            files("max_tokens"),
            "at least 2",
            data.max_tokens,
        )?;
        for (key, rows) in [("train_rows", data.train_rows), ("eval_rows", data.eval_rows)] {
            Violation::unless(rows != Some(0), files(key), "at least 1", 0)?;
        }
        let rows_of_nothing = data.eval_rows.is_some() && data.eval.is_empty();
        let rule = "unset where data.eval names no file";
        Violation::unless(!rows_of_nothing, files("eval_rows"), rule, data.eval_rows.unwrap_or(0))
    }
}

/// Names the section of an option that breaks a rule.
pub(super) fn within(section: &str, checked: Result<(), OptionError>) -> Result<(), Violation> {
    checked.map_err(|error| {
        Violation::new(format!("{section}.{}", error.field), error.rule, error.got)
    })
}

/// Checks that something to measure on is there where measuring is asked for.
pub(super) fn eval_has_data(key: &str, every: u64, data: &DataConfig) -> Result<(), Violation> {
    Violation::unless(
        every == 0 || !data.eval.is_empty(),
        key,
        "0 where data.eval names no file",
        every,
    )
}

/// Makes paths absolute, as seen from `folder`.
pub(super) fn resolve<'a>(folder: &Path, paths: impl IntoIterator<Item = &'a mut PathBuf>) {
    for path in paths {
        *path = folder.join(&*path);
    }
}
