//! What the configurations of runs that learn from a data set have in common: every section but the algorithm's own.

use super::{
    Config, FiniteConfig, MemoryConfig, ModelConfig, Violation,
    sections::{Shared, resolve},
};
use crate::{data::DataConfig, trainer::config::Device};

/// A run that learns from a data set, whatever the algorithm.
pub trait OfflineConfig: Config {
    /// The algorithm's options.
    type Options;

    /// Returns the algorithm's options.
    fn options(&self) -> &Self::Options;

    /// Returns the sections that every algorithm has.
    fn common(&self) -> Common<'_>;
}

/// The sections that every algorithm has.
#[cfg_attr(not(feature = "libtorch"), allow(dead_code, reason = "only runs read all of it"))]
pub struct Common<'a> {
    pub(crate) shared: Shared<'a>,
    pub(crate) device: Device,
    pub(crate) trained: ModelConfig,
    pub(crate) invariants: FiniteConfig,
    pub(crate) memory: MemoryConfig,
}

impl Common<'_> {
    pub(super) fn validate(&self) -> Result<(), Violation> {
        self.shared.validate()?;
        self.invariants.validate()
    }
}

/// A `[model]` section, whatever else it says.
pub(super) trait Trained {
    fn resolve(&mut self, folder: &std::path::Path);

    /// Returns what it says of the model that learns.
    fn trained(&self) -> ModelConfig;
}

impl Trained for ModelConfig {
    fn resolve(&mut self, folder: &std::path::Path) {
        resolve(folder, [&mut self.path]);
    }

    fn trained(&self) -> ModelConfig {
        self.clone()
    }
}

/// Says how the batch sizes fit together; `samples` are those of an optimizer step, in words.
pub(super) fn arithmetic(
    samples: &str,
    (epochs, batch_size, micro_batch_tokens): (usize, usize, usize),
    data: &DataConfig,
) -> Vec<String> {
    vec![
        format!("optimizer step: {batch_size} {samples} {} tokens each", data.max_tokens),
        format!("micro-batch: up to {micro_batch_tokens} tokens, as many as the step needs"),
        format!("run: {epochs} x the samples / {batch_size} optimizer steps"),
    ]
}

/// Defines the configuration of a run that learns from a data set: the sections of all of them, and the algorithm's own.
macro_rules! offline_config {
    (
        $(#[$documentation:meta])*
        $name:ident {
            $section:ident: $options:ty,
            model: $model:ty,
            $(#[$data:meta])* data
            $(, $(#[$more:meta])* $also:ident: $other:ty)*
        }
    ) => {
        $(#[$documentation])*
        #[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
        #[serde(deny_unknown_fields)]
        pub struct $name {
            /// Where everything about the run is written.
            pub output_dir: std::path::PathBuf,
            /// Key of all random numbers. Default 0.
            #[serde(default)]
            pub seed: u64,
            /// Where the trainer computes. Default `cpu`.
            #[serde(default)]
            pub device: crate::trainer::config::Device,
            /// Number of threads. Default 0: every core.
            #[serde(default)]
            pub threads: usize,
            /// What is trained.
            pub model: $model,
            $(#[$data])*
            pub data: crate::data::DataConfig,
            /// The algorithm's options.
            #[serde(default)]
            pub $section: $options,
            $($(#[$more])* #[serde(default)] pub $also: $other,)*
            /// Whether an adapter learns in place of the model.
            #[serde(default)]
            pub lora: crate::config::LoraConfig,
            /// Whether an average of the weights is kept.
            #[serde(default)]
            pub ema: crate::config::EmaConfig,
            /// How weights follow gradients.
            #[serde(default)]
            pub optimizer: crate::trainer::config::OptimizerConfig,
            /// How the learning rate changes.
            #[serde(default)]
            pub schedule: crate::trainer::config::ScheduleConfig,
            /// What the run checks of itself.
            #[serde(default)]
            pub invariants: crate::config::FiniteConfig,
            /// When checkpoints are written.
            #[serde(default)]
            pub checkpoint: crate::config::CheckpointConfig,
            /// What happens when the run is asked to stop.
            #[serde(default)]
            pub stop: crate::config::StopConfig,
            /// What is logged.
            #[serde(default)]
            pub log: crate::config::LogConfig,
            /// Whether it may begin where it will not fit.
            #[serde(default)]
            pub memory: crate::config::MemoryConfig,
        }

        impl $name {
            /// Makes relative paths those of the file's folder.
            fn resolve_paths(&mut self, folder: &std::path::Path) {
                use crate::config::{offline::Trained, sections::resolve};
                resolve(folder, [&mut self.output_dir]);
                Trained::resolve(&mut self.model, folder);
                self.lora.resolve(folder);
                resolve(folder, self.data.train.iter_mut().chain(&mut self.data.eval));
            }
        }

        impl crate::config::OfflineConfig for $name {
            type Options = $options;

            fn options(&self) -> &$options {
                &self.$section
            }

            fn common(&self) -> crate::config::offline::Common<'_> {
                crate::config::offline::Common {
                    shared: crate::config::sections::Shared {
                        output_dir: &self.output_dir,
                        model: &self.model.path,
                        seed: self.seed,
                        threads: self.threads,
                        data: &self.data,
                        learns: (self.model.freeze(), &self.lora, self.ema),
                        optimizer: &self.optimizer,
                        schedule: &self.schedule,
                        checkpoint: &self.checkpoint,
                        stop: &self.stop,
                        log: &self.log,
                    },
                    device: self.device,
                    trained: crate::config::offline::Trained::trained(&self.model),
                    invariants: self.invariants,
                    memory: self.memory,
                }
            }
        }
    };
}
pub(super) use offline_config;
