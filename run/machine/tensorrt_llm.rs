//! The pieces that generation with TensorRT-LLM needs, and where each was looked for.

use std::{
    env,
    path::{Path, PathBuf},
};

use super::Finding;
use crate::run::engine_build::{Cache, Python};

/// Looks at every piece, from this build's own to the user's Python.
pub(super) fn examine() -> Vec<Finding> {
    let mut findings = vec![feature()];
    findings.extend(implementations());
    findings.extend(PIECES.iter().map(Piece::find));
    findings.push(python());
    findings.push(engines());
    findings
}

#[cfg(feature = "tensorrt-llm")]
fn feature() -> Finding {
    Finding::present("TensorRT-LLM backend", "this build has the feature `tensorrt-llm`")
}

#[cfg(not(feature = "tensorrt-llm"))]
fn feature() -> Finding {
    Finding::absent(
        "TensorRT-LLM backend",
        "this build lacks the feature `tensorrt-llm`",
        "not needed, the embedded engine generates; else: cargo build --features tensorrt-llm",
    )
}

#[cfg(not(feature = "tensorrt-llm"))]
fn implementations() -> Vec<Finding> {
    Vec::new()
}

/// What this build was linked to.
#[cfg(feature = "tensorrt-llm")]
fn implementations() -> Vec<Finding> {
    use crate::ffi::tensorrt_llm::Library;
    vec![
        implementation("TensorRT-LLM as linked", Library::TensorRtLlm),
        implementation("contract double", Library::Double),
    ]
}

#[cfg(feature = "tensorrt-llm")]
fn implementation(what: &'static str, library: crate::ffi::tensorrt_llm::Library) -> Finding {
    use crate::ffi::tensorrt_llm::Library;
    let it = match library.describe() {
        Ok(description) => description,
        Err(error) => {
            let advice = "build Rollforge again, against what is installed here";
            return Finding::absent(what, error.to_string(), advice);
        }
    };
    let mut found = format!("{} {}", it.name, it.trtllm);
    if it.trtllm_headers != it.trtllm {
        found += &format!(" (headers of {})", it.trtllm_headers);
    }
    if !it.tensorrt.is_empty() {
        found += &format!(", TensorRT {} (headers of {})", it.tensorrt, it.tensorrt_headers);
    }
    found += &format!(": {}", it.capabilities.names().join(", "));
    if let Some(refusal) = it.refusal {
        return Finding::absent(what, found, &refusal);
    }
    let stand_in = library == Library::TensorRtLlm && it.is_double;
    let advice = match it.warning {
        Some(warning) => warning,
        None if stand_in => {
            "for tests only: install TensorRT-LLM, set TRTLLM_ROOT, and build Rollforge again"
                .into()
        }
        None => String::new(),
    };
    Finding { advice, ..Finding { present: !stand_in, ..Finding::present(what, found) } }
}

/// A file that building or running needs.
struct Piece {
    what: &'static str,
    /// Any of these will do.
    names: &'static [&'static str],
    /// Environment variables that name a folder, each with where under it the file may lie.
    variables: &'static [(&'static str, &'static [&'static str])],
    /// Where images and packages put it.
    folders: &'static [&'static str],
    /// Whether the dynamic linker's own folders count.
    library: bool,
    advice: &'static str,
}

const PIECES: [Piece; 7] = [
    Piece {
        what: "libtensorrt_llm.so",
        names: &["libtensorrt_llm.so"],
        variables: &[("TRTLLM_LIB_DIR", &[""]), ("TRTLLM_ROOT", &["lib", "libs", ""])],
        folders: &["/app/tensorrt_llm/lib"],
        library: true,
        advice: "install tensorrt-llm 1.2.1, or use NVIDIA's tensorrt-llm/release image; set TRTLLM_ROOT",
    },
    Piece {
        what: "TensorRT-LLM headers",
        names: &["tensorrt_llm/executor/executor.h"],
        variables: &[("TRTLLM_INCLUDE_DIR", &[""]), ("TRTLLM_ROOT", &["include", "cpp/include"])],
        folders: &["/app/tensorrt_llm/include"],
        library: false,
        advice: "the wheel has none: take cpp/include of the same tag, and set TRTLLM_INCLUDE_DIR",
    },
    Piece {
        what: "TensorRT",
        names: &["libnvinfer.so.10"],
        variables: &[("TENSORRT_LIB_DIR", &[""]), ("TENSORRT_ROOT", &["lib"])],
        folders: &["/usr/local/tensorrt/lib"],
        library: true,
        advice: "TensorRT 10 comes with TensorRT-LLM; add its folder to LD_LIBRARY_PATH",
    },
    Piece {
        what: "TensorRT headers",
        names: &["NvInferRuntime.h"],
        variables: &[("TENSORRT_INCLUDE_DIR", &[""]), ("TENSORRT_ROOT", &["include"])],
        folders: &[
            "/usr/local/tensorrt/include",
            "/usr/include/x86_64-linux-gnu",
            "/usr/include/aarch64-linux-gnu",
        ],
        library: false,
        advice: "take include/ of NVIDIA/TensorRT at the library's version, and set TENSORRT_INCLUDE_DIR",
    },
    Piece {
        what: "CUDA",
        names: &["libcudart.so.13", "libcudart.so.12", "libcudart.so"],
        variables: &[("CUDA_HOME", &["lib64", "lib", "targets/x86_64-linux/lib"])],
        folders: &["/usr/local/cuda/lib64"],
        library: true,
        advice: "install CUDA 13 for TensorRT-LLM 1.1 and later, 12.9 for 0.20 to 1.0; set CUDA_HOME",
    },
    Piece {
        what: "NCCL",
        names: &["libnccl.so.2"],
        variables: &[],
        folders: &[],
        library: true,
        advice: "needed by several GPUs: one libnccl for libtorch and TensorRT-LLM, on LD_LIBRARY_PATH",
    },
    Piece {
        what: "MPI",
        names: &["libmpi.so.40", "libmpi.so.12", "libmpi.so"],
        variables: &[("MPI_HOME", &["lib"])],
        folders: &["/opt/hpcx/ompi/lib", "/usr/local/mpi/lib"],
        library: true,
        advice: "install Open MPI: TensorRT-LLM loads libmpi even for one GPU",
    },
];

/// Where the dynamic linker looks without being told.
const SYSTEM: [&str; 6] = [
    "/usr/lib/x86_64-linux-gnu",
    "/usr/lib/aarch64-linux-gnu",
    "/lib64",
    "/usr/lib64",
    "/usr/local/lib",
    "/usr/lib",
];

impl Piece {
    fn find(&self) -> Finding {
        let places = self.places();
        let files =
            places.iter().flat_map(|folder| self.names.iter().map(move |name| folder.join(name)));
        match files.into_iter().find(|file| file.is_file()) {
            Some(file) => Finding::present(self.what, file.display().to_string()),
            None => Finding::absent(self.what, self.missing(), self.advice),
        }
    }

    fn places(&self) -> Vec<PathBuf> {
        let named = self.variables.iter().filter_map(|(name, under)| {
            let root = PathBuf::from(env::var_os(name)?);
            Some(under.iter().map(move |folder| root.join(folder)).collect::<Vec<_>>())
        });
        let mut places: Vec<PathBuf> = named.flatten().collect();
        places.extend(self.folders.iter().map(PathBuf::from));
        if self.library {
            let paths = env::var_os("LD_LIBRARY_PATH").unwrap_or_default();
            places.extend(env::split_paths(&paths));
            places.extend(SYSTEM.iter().map(PathBuf::from));
        }
        places
    }

    /// Says where it was looked for.
    fn missing(&self) -> String {
        let mut places: Vec<&str> = self.variables.iter().map(|(name, _)| *name).collect();
        if self.library {
            places.push("LD_LIBRARY_PATH");
            places.push("the system's folders");
        }
        places.extend(self.folders);
        format!("no {} in {}", self.names[0], places.join(", "))
    }
}

fn python() -> Finding {
    let what = "Python with TensorRT-LLM";
    let advice = "only `rollforge engine build` needs it: pip install tensorrt-llm==1.2.1, name it with --python";
    let toolchain = match Python::default().probe() {
        Ok(toolchain) => toolchain,
        Err(error) => return Finding::absent(what, format!("{error:#}"), advice),
    };
    match (toolchain.tensorrt_llm, toolchain.location) {
        (Some(version), Some(folder)) => {
            let tensorrt = toolchain.tensorrt.unwrap_or_else(|| "no package".into());
            let found = format!("{version} in {}, TensorRT: {tensorrt}", folder.display());
            Finding::present(what, found)
        }
        _ => {
            let found = format!("python3 ({}) has no module tensorrt_llm", toolchain.python);
            Finding::absent(what, found, advice)
        }
    }
}

fn engines() -> Finding {
    let what = "engine cache";
    let folder = match Cache::default_folder() {
        Ok(folder) => folder,
        Err(error) => return Finding::absent(what, error.to_string(), ""),
    };
    let cached = Cache::new(folder.clone(), std::time::Duration::ZERO).keys();
    let bytes: u64 = cached.iter().map(|key| size(&folder.join(key))).sum();
    let found = format!("{}: {} engines, {} MiB", folder.display(), cached.len(), bytes >> 20);
    if cached.is_empty() {
        return Finding::absent(what, found, "`rollforge engine build` fills it");
    }
    Finding::present(what, found)
}

/// Returns the bytes of the files in a folder.
fn size(folder: &Path) -> u64 {
    let entries = folder.read_dir().into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.metadata().ok()).map(|metadata| metadata.len()).sum()
}
