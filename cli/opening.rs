//! What `generate` and `score` share: opening a model in the embedded engine.

use std::path::PathBuf;

use clap::ValueEnum;

use crate::{
    engine::{Engine, EngineConfig, EngineDtype},
    model::Model,
    run::model_directory,
};

/// Which model, and how it is computed.
#[derive(Debug, clap::Args)]
pub(super) struct OpeningArguments {
    /// A Hugging Face model directory, or a run directory: then its latest checkpoint
    #[arg(value_name = "MODEL")]
    model: PathBuf,
    /// Number format to compute in
    #[arg(long, value_enum, default_value_t = Format::Auto)]
    dtype: Format,
    /// Number of threads; 0 takes every core
    #[arg(long, default_value_t = 0)]
    pub(super) threads: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum Format {
    /// That of the weights
    Auto,
    F32,
    Bf16,
}

impl OpeningArguments {
    /// Opens everything in the directory but the weights.
    pub(super) fn model(&self) -> anyhow::Result<Model> {
        Ok(Model::open(&self.directory())?)
    }

    /// Starts an engine on it.
    pub(super) fn start(&self) -> anyhow::Result<Engine> {
        let config =
            EngineConfig { dtype: self.dtype(), threads: self.threads, ..EngineConfig::default() };
        Ok(Engine::builder().config(config).model_dir(self.directory()).build()?)
    }

    /// Returns the number format to compute in.
    pub(super) fn dtype(&self) -> EngineDtype {
        match self.dtype {
            Format::Auto => EngineDtype::Auto,
            Format::F32 => EngineDtype::F32,
            Format::Bf16 => EngineDtype::Bf16,
        }
    }

    fn directory(&self) -> PathBuf {
        model_directory(&self.model)
    }
}
