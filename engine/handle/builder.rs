//! Sets up an engine.

use std::path::{Path, PathBuf};

use super::Engine;
use crate::{
    engine::{Backend, BackendKind, EngineConfig, EngineModel, Error, open},
    model::Tokenizer,
};

/// Sets up an [`Engine`]: what it generates with, and how.
#[derive(Default)]
pub struct EngineBuilder {
    config: EngineConfig,
    source: Source,
}

#[derive(Default)]
enum Source {
    #[default]
    None,
    Directory(PathBuf),
    Model(Box<EngineModel>),
    Backend(Box<dyn Backend>, Option<Tokenizer>),
}

impl EngineBuilder {
    /// Takes other settings than the defaults.
    #[must_use]
    pub fn config(self, config: EngineConfig) -> Self {
        Self { config, ..self }
    }

    /// Generates with the model in a Hugging Face directory.
    #[must_use]
    pub fn model_dir(self, dir: impl AsRef<Path>) -> Self {
        Self { source: Source::Directory(dir.as_ref().to_owned()), ..self }
    }

    /// Generates with a model in memory.
    #[must_use]
    pub fn model(self, model: EngineModel) -> Self {
        Self { source: Source::Model(Box::new(model)), ..self }
    }

    /// Generates with a backend of one's own.
    #[must_use]
    pub fn backend(self, backend: Box<dyn Backend>, tokenizer: Option<Tokenizer>) -> Self {
        Self { source: Source::Backend(backend, tokenizer), ..self }
    }

    /// Opens the model and starts the engine thread.
    ///
    /// # Errors
    /// One line: a setting that breaks a rule, a model that cannot be used, a backend that this build lacks.
    pub fn build(self) -> Result<Engine, Error> {
        let Self { config, source } = self;
        config.validate()?;
        let lacking = config.backend == BackendKind::TensorRtLlm && !cfg!(feature = "tensorrt-llm");
        if matches!(source, Source::Directory(_)) && lacking {
            // Before a large model is read in vain.
            return Err(Error::Unavailable { backend: "tensorrt-llm", feature: "tensorrt-llm" });
        }
        let model = match source {
            Source::None => return Err(Error::Model("the engine has no model: name one".into())),
            Source::Backend(backend, tokenizer) => {
                return Engine::start(backend, tokenizer, &config);
            }
            Source::Model(model) => *model,
            Source::Directory(dir) => EngineModel::open(&config, &dir)?,
        };
        let tokenizer = model.tokenizer.clone();
        Engine::start(open(&config, model)?, tokenizer, &config)
    }
}
