//! The border to TensorRT-LLM: its header read by bindgen, its C++ compiled, and the real library linked where there is one.

mod abi;
mod bindings;
mod compile;
mod discovery;
mod environment;
mod pieces;
mod versions;

use std::{env, path::PathBuf, process::Command};

use discovery::{Found, Installation};
use environment::{Environment, VARIABLES};

/// Builds everything that the feature `tensorrt-llm` needs; ends the build with one sentence where a piece is missing.
///
/// Sets `cfg(trtllm_linked)` where the real library is linked, and not the stand-in.
pub(crate) fn build() {
    println!("cargo:rerun-if-changed=build");
    if bindings::is_child() {
        return bindings::generate();
    }
    if let Err(sentence) = steps() {
        println!("cargo::error={sentence}");
        std::process::exit(1);
    }
}

fn steps() -> Result<(), String> {
    bindings::generate_in_a_child()?;
    let installation = match discovery::search(&of_this_machine())? {
        Found::Everything(installation) => Some(installation),
        Found::Nothing => None,
        Found::Unusable(sentence) => {
            println!("cargo:warning=TensorRT-LLM is not linked: {sentence}");
            None
        }
    };
    compile::all(installation.as_deref())?;
    if let Some(installation) = installation {
        link(&installation);
    }
    Ok(())
}

fn of_this_machine() -> Environment {
    for name in VARIABLES {
        println!("cargo:rerun-if-env-changed={name}");
    }
    let set = |name: &str| env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    Environment {
        variables: VARIABLES
            .iter()
            .filter_map(|&name| Some((name.to_string(), set(name)?)))
            .collect(),
        root: PathBuf::from("/"),
        package: python_package(),
    }
}

/// Returns the folder of the Python package `tensorrt_llm`, found without importing it, which is slow and prints.
fn python_package() -> Option<PathBuf> {
    println!("cargo:rerun-if-env-changed=VIRTUAL_ENV");
    const SCRIPT: &str = "from importlib.util import find_spec\n\
                          print(*find_spec('tensorrt_llm').submodule_search_locations, sep='\\n')";
    let output = Command::new("python3").args(["-c", SCRIPT]).output().ok()?;
    let text = String::from_utf8(output.stdout).ok().filter(|_| output.status.success())?;
    text.lines().next().map(PathBuf::from)
}

/// Links the real libraries, and lets the program find them at run time.
///
/// The shim's own objects come first, being part of the crate: its `createInferRuntime_INTERNAL` must win over that of
/// libnvinfer.
fn link(installation: &Installation) {
    println!("cargo:rustc-cfg=trtllm_linked");
    if let Some(warning) = &installation.warning {
        println!("cargo:warning={warning}");
    }
    for folder in &installation.libraries {
        println!("cargo:rustc-link-search=native={}", folder.display());
        println!("cargo:rustc-link-arg=-Wl,-rpath,{}", folder.display());
    }
    for library in ["nvinfer_plugin_tensorrt_llm", "tensorrt_llm", "cudart"] {
        println!("cargo:rustc-link-lib=dylib={library}");
    }
    println!("cargo:rustc-link-lib=dylib:+verbatim={}", pieces::NVINFER);
}
