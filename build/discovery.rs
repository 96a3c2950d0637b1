//! Finds TensorRT-LLM, with the TensorRT and the CUDA that it needs.

use std::{
    fs,
    path::{Path, PathBuf},
};

use super::{abi, environment::Environment, pieces::Piece, versions};

/// Everything that the shim is compiled against and linked to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Installation {
    /// Folders of headers: TensorRT-LLM, TensorRT, CUDA.
    pub(crate) includes: [PathBuf; 3],
    /// Folders of libraries, in the same order.
    pub(crate) libraries: [PathBuf; 3],
    /// Whether TensorRT-LLM was compiled with the new `std::string`.
    pub(crate) cxx11_abi: bool,
    /// A sentence on a version that works but is not supported.
    pub(crate) warning: Option<String>,
}

/// What a search came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Found {
    /// All there is to link TensorRT-LLM.
    Everything(Box<Installation>),
    /// No TensorRT-LLM.
    Nothing,
    /// A TensorRT-LLM that nobody asked for and that cannot be linked, and why.
    Unusable(String),
}

/// Looks for TensorRT-LLM.
///
/// # Errors
/// A sentence that names the missing piece and what to set, when a variable asks for TensorRT-LLM.
pub(crate) fn search(environment: &Environment) -> Result<Found, String> {
    let libraries = Piece::trtllm_libraries(environment).locate();
    let headers = Piece::trtllm_headers(environment).locate();
    let asked = environment.asks_for_trtllm();
    if !asked && headers.is_err() && libraries.is_err() {
        return Ok(Found::Nothing);
    }
    let found = libraries.and_then(|libraries| installation(environment, libraries, headers?));
    match found {
        Ok(installation) => Ok(Found::Everything(Box::new(installation))),
        Err(sentence) if asked => Err(sentence),
        Err(sentence) => Ok(Found::Unusable(sentence)),
    }
}

fn installation(
    environment: &Environment,
    libraries: PathBuf,
    headers: PathBuf,
) -> Result<Installation, String> {
    let warning = judge_trtllm(&headers)?;
    let tensorrt_headers = Piece::tensorrt_headers(environment).locate()?;
    judge_tensorrt(&tensorrt_headers)?;
    let tensorrt = Piece::tensorrt_library(environment).locate()?;
    let cuda_headers = Piece::cuda_headers(environment).locate()?;
    let cuda = Piece::cuda_library(environment).locate()?;
    let library = libraries.join("libtensorrt_llm.so");
    let cxx11_abi = abi::is_cxx11(&library).map_err(|error| unreadable(&library, &error))?;
    Ok(Installation {
        includes: [headers, tensorrt_headers, cuda_headers],
        libraries: [libraries, tensorrt, cuda],
        cxx11_abi,
        warning,
    })
}

/// Judges the version of TensorRT-LLM's headers; a warning for one that works but is not supported.
fn judge_trtllm(headers: &Path) -> Result<Option<String>, String> {
    let path = headers.join("tensorrt_llm/executor/version.h");
    let text = fs::read_to_string(&path).map_err(|error| unreadable(&path, &error))?;
    let version = versions::of_trtllm(&text)
        .ok_or_else(|| format!("{} states no kTensorRtLlmVersion", path.display()))?;
    let warning = versions::judge_trtllm(version)?;
    let executor = path.with_file_name("executor.h");
    if executor.is_file() {
        Ok(warning)
    } else {
        Err(format!("the headers of TensorRT-LLM {version} lack {}", executor.display()))
    }
}

fn judge_tensorrt(headers: &Path) -> Result<(), String> {
    let path = headers.join("NvInferVersion.h");
    let text = fs::read_to_string(&path).map_err(|error| unreadable(&path, &error))?;
    let version = versions::of_tensorrt(&text)
        .ok_or_else(|| format!("{} states no version of TensorRT", path.display()))?;
    versions::judge_tensorrt(version)
}

fn unreadable(path: &Path, error: &std::io::Error) -> String {
    format!("cannot read {}: {error}", path.display())
}
