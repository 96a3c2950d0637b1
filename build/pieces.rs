//! The pieces of an installation, and where each usually lies.

use std::path::{Path, PathBuf};

use super::environment::Environment;

/// Files that lie in one of several folders.
pub(crate) struct Piece {
    what: &'static str,
    variable: &'static str,
    files: &'static [&'static str],
    /// Where the variable leads; nothing else is searched then.
    named: Vec<PathBuf>,
    usual: Vec<PathBuf>,
}

impl Piece {
    /// Returns the first folder that holds every file.
    ///
    /// # Errors
    /// A sentence that says what to set.
    pub(crate) fn locate(&self) -> Result<PathBuf, String> {
        let Self { what, variable, files, named, usual } = self;
        let holds = |folder: &&PathBuf| files.iter().all(|file| folder.join(file).is_file());
        let folders = if named.is_empty() { usual } else { named };
        if let Some(found) = folders.iter().find(holds) {
            return Ok(found.clone());
        }
        let searched: Vec<_> = folders.iter().map(|folder| folder.display().to_string()).collect();
        let (files, searched) = (files.join(", "), searched.join(", "));
        if named.is_empty() {
            Err(format!(
                "no {what}: set {variable} to the folder that holds {files} (searched: {searched})"
            ))
        } else {
            Err(format!("no {what}: {variable} leads to {searched}, which must hold {files}"))
        }
    }

    pub(crate) fn trtllm_headers(environment: &Environment) -> Self {
        let mut usual = below(environment.variable("TRTLLM_ROOT"), &["include", "cpp/include"]);
        usual.extend(environment.usual(["app/tensorrt_llm/include"]));
        usual.extend(below(environment.package.as_deref(), &["include"]));
        Self {
            what: "C++ headers of TensorRT-LLM (its wheels have none; a checkout of the same version has them in cpp/include)",
            variable: "TRTLLM_INCLUDE_DIR",
            files: &["tensorrt_llm/executor/version.h"],
            named: below(environment.variable("TRTLLM_INCLUDE_DIR"), &[""]),
            usual,
        }
    }

    pub(crate) fn trtllm_libraries(environment: &Environment) -> Self {
        let folders = ["lib", "libs", "tensorrt_llm/libs"];
        let mut usual = below(environment.variable("TRTLLM_ROOT"), &folders);
        usual.extend(environment.usual(["app/tensorrt_llm/lib"]));
        usual.extend(below(environment.package.as_deref(), &["libs"]));
        Self {
            what: "libraries of TensorRT-LLM",
            variable: "TRTLLM_LIB_DIR",
            files: &["libtensorrt_llm.so", "libnvinfer_plugin_tensorrt_llm.so"],
            named: below(environment.variable("TRTLLM_LIB_DIR"), &[""]),
            usual,
        }
    }

    pub(crate) fn tensorrt_headers(environment: &Environment) -> Self {
        Self {
            what: "headers of TensorRT",
            variable: "TENSORRT_INCLUDE_DIR",
            files: &["NvInferVersion.h", "NvInferRuntime.h", "NvInferImpl.h"],
            named: below(environment.variable("TENSORRT_INCLUDE_DIR"), &[""]),
            usual: environment.usual([
                "usr/local/tensorrt/include",
                "usr/include/x86_64-linux-gnu",
                "usr/include/aarch64-linux-gnu",
                "usr/include",
            ]),
        }
    }

    /// The library by its number: only development packages have one without.
    pub(crate) fn tensorrt_library(environment: &Environment) -> Self {
        let mut usual = environment.usual([
            "usr/local/tensorrt/lib",
            "usr/lib/x86_64-linux-gnu",
            "usr/lib/aarch64-linux-gnu",
        ]);
        let packages = environment.package.as_deref().and_then(Path::parent);
        usual.extend(below(packages, &["tensorrt_libs"]));
        Self {
            what: "library of TensorRT",
            variable: "TENSORRT_LIB_DIR",
            files: &[NVINFER],
            named: below(environment.variable("TENSORRT_LIB_DIR"), &[""]),
            usual,
        }
    }

    pub(crate) fn cuda_headers(environment: &Environment) -> Self {
        Self::cuda(environment, &["include"], &["cuda_runtime_api.h"])
    }

    pub(crate) fn cuda_library(environment: &Environment) -> Self {
        Self::cuda(environment, &["lib64", "lib"], &["libcudart.so"])
    }

    fn cuda(environment: &Environment, folders: &[&str], files: &'static [&'static str]) -> Self {
        Self {
            what: "CUDA toolkit",
            variable: "CUDA_HOME",
            files,
            named: below(environment.variable("CUDA_HOME"), folders),
            usual: below(Some(&environment.root.join("usr/local/cuda")), folders),
        }
    }
}

/// TensorRT's library.
pub(crate) const NVINFER: &str = "libnvinfer.so.10";

fn below(root: Option<&Path>, folders: &[&str]) -> Vec<PathBuf> {
    root.map(|root| folders.iter().map(|folder| root.join(folder)).collect()).unwrap_or_default()
}
