//! What the build script looks at to find TensorRT-LLM.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

/// Variables that name a folder.
pub(crate) const VARIABLES: [&str; 6] = [
    "TRTLLM_ROOT",
    "TRTLLM_INCLUDE_DIR",
    "TRTLLM_LIB_DIR",
    "TENSORRT_INCLUDE_DIR",
    "TENSORRT_LIB_DIR",
    "CUDA_HOME",
];

/// Where to look.
#[derive(Clone, Debug, Default)]
pub(crate) struct Environment {
    /// Those of [`VARIABLES`] that are set.
    pub(crate) variables: BTreeMap<String, PathBuf>,
    /// The root of the file system; a folder in tests.
    pub(crate) root: PathBuf,
    /// The folder of the Python package `tensorrt_llm`, where one is installed.
    pub(crate) package: Option<PathBuf>,
}

impl Environment {
    /// Returns what a variable names.
    pub(crate) fn variable(&self, name: &str) -> Option<&Path> {
        self.variables.get(name).map(PathBuf::as_path)
    }

    /// Says whether TensorRT-LLM was asked for by name: then a missing piece ends the build.
    pub(crate) fn asks_for_trtllm(&self) -> bool {
        self.variables.keys().any(|name| name.starts_with("TRTLLM_"))
    }

    /// Returns folders from the root.
    pub(crate) fn usual<const N: usize>(&self, folders: [&str; N]) -> Vec<PathBuf> {
        folders.iter().map(|folder| self.root.join(folder)).collect()
    }
}
