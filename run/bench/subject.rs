//! The model that something is measured with.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use tempfile::TempDir;

use super::Shape;
use crate::{
    engine::{EngineConfig, EngineDtype, EngineModel},
    rollout::Dtype,
    run::model_directory,
};

/// Which model.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Subject {
    /// A model directory, or a run directory.
    Directory(PathBuf),
    /// A made-up one.
    Shape(Shape),
}

impl Subject {
    /// Returns what it is called in a report.
    pub(super) fn name(&self) -> String {
        match self {
            Self::Directory(path) => path.display().to_string(),
            Self::Shape(shape) => shape.name().into(),
        }
    }

    /// Returns it as a directory, which is in a temporary folder where the model is made up.
    ///
    /// # Errors
    /// When there is none, or it cannot be written.
    pub(super) fn on_disk(&self, dtype: Dtype) -> Result<OnDisk> {
        match self {
            Self::Directory(path) => {
                Ok(OnDisk { path: std::path::absolute(model_directory(path))?, _folder: None })
            }
            Self::Shape(shape) => {
                let folder = tempfile::tempdir().context("cannot make a temporary folder")?;
                Ok(OnDisk { path: shape.write(dtype, folder.path())?, _folder: Some(folder) })
            }
        }
    }

    /// Opens it, or makes it up in memory.
    ///
    /// # Errors
    /// One line: what is missing, or cannot be used.
    pub(super) fn open(&self, dtype: Dtype) -> Result<EngineModel> {
        match self {
            Self::Directory(path) => open(&model_directory(path), dtype),
            Self::Shape(shape) => Ok(shape.model(dtype)),
        }
    }
}

/// A model directory, gone with this if it was made up.
pub(super) struct OnDisk {
    path: PathBuf,
    _folder: Option<TempDir>,
}

impl OnDisk {
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Opens it.
    ///
    /// # Errors
    /// One line: what is missing, or cannot be used.
    pub(super) fn open(&self, dtype: Dtype) -> Result<EngineModel> {
        open(&self.path, dtype)
    }
}

fn open(path: &Path, dtype: Dtype) -> Result<EngineModel> {
    let config = EngineConfig { dtype: engine_dtype(dtype), ..EngineConfig::default() };
    Ok(EngineModel::open(&config, path)?)
}

/// Returns the format as the engine's configuration has it.
pub(super) fn engine_dtype(dtype: Dtype) -> EngineDtype {
    if dtype == Dtype::F32 { EngineDtype::F32 } else { EngineDtype::Bf16 }
}

/// Returns the prompt of a row, as the peers have it, too.
pub(super) fn prompt(row: usize, length: usize, vocabulary: usize) -> Vec<u32> {
    (0..length).map(|i| ((row * 31 + i * 7) % vocabulary) as u32).collect()
}
