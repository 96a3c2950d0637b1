//! The C++ of the border, compiled with warnings as errors.

use std::{
    fs,
    path::{Path, PathBuf},
};

const ROOT: &str = "ffi/tensorrt_llm";

/// Our own declarations of what the shim uses, where TensorRT-LLM is not installed.
const DECLARATIONS: [&str; 3] =
    ["declarations/trtllm_1_2", "declarations/tensorrt", "declarations/cuda"];

/// Compiles the bridge, the shim and the double; without TensorRT-LLM also the stand-in that the shim runs on.
pub(crate) fn all() -> Result<(), String> {
    let mut bridge = cxx_build::bridge(format!("{ROOT}/bridge.rs"));
    bridge.file(format!("{ROOT}/bridge.cc"));
    for input in ["bridge.rs", "bridge.h", "bridge.cc", "contract.h"] {
        println!("cargo:rerun-if-changed={ROOT}/{input}");
    }
    let shim = sources("shim")?;
    if shim.is_empty() {
        bridge.define("rf_trtllm_api", "rf_double_api");
    }
    strict(&mut bridge).compile("rollforge_bridge");

    let mut engine = cc::Build::new();
    for folder in DECLARATIONS {
        watch(folder);
        engine.include(Path::new(ROOT).join(folder));
    }
    archive(engine, "rollforge_shim", [shim, sources("stand_in")?].concat());
    // The double computes a transformer: quick also where the rest is not optimised.
    let mut double = cc::Build::new();
    double.opt_level(2);
    archive(double, "rollforge_double", sources("double")?);
    Ok(())
}

fn archive(mut build: cc::Build, name: &str, files: Vec<PathBuf>) {
    if !files.is_empty() {
        strict(build.cpp(true).include(ROOT).files(files)).compile(name);
    }
}

/// Sets the language and the warnings.
fn strict(build: &mut cc::Build) -> &mut cc::Build {
    build.std("c++17").flag("-Wall").flag("-Wextra").warnings_into_errors(true)
}

/// Returns the C++ files of a folder, in order.
fn sources(folder: &str) -> Result<Vec<PathBuf>, String> {
    if !watch(folder) {
        return Ok(Vec::new());
    }
    let folder = Path::new(ROOT).join(folder);
    let entries = fs::read_dir(&folder).and_then(|entries| entries.collect::<Result<Vec<_>, _>>());
    let entries = entries.map_err(|error| format!("cannot read {}: {error}", folder.display()))?;
    let mut files: Vec<_> = entries.into_iter().map(|entry| entry.path()).collect();
    files.retain(|file| file.extension().is_some_and(|extension| extension == "cc"));
    files.sort();
    Ok(files)
}

/// Runs the build script again when something in the folder changes; says whether it is there.
fn watch(folder: &str) -> bool {
    let folder = Path::new(ROOT).join(folder);
    let is_there = folder.exists();
    if is_there {
        println!("cargo:rerun-if-changed={}", folder.display());
    }
    is_there
}
