//! The C++ of the border, compiled with warnings as errors.

use std::{
    env, fs,
    path::{Path, PathBuf},
};

use super::discovery::Installation;

const ROOT: &str = "ffi/tensorrt_llm";

/// Our own declarations of what the shim uses, where TensorRT-LLM is not installed.
const DECLARATIONS: [&str; 3] =
    ["declarations/trtllm_1_2", "declarations/tensorrt", "declarations/cuda"];

/// Compiles the bridge, the shim and the double; without TensorRT-LLM also the stand-in that the shim runs on.
pub(crate) fn all(installation: Option<&Installation>) -> Result<(), String> {
    let mut bridge = cxx_build::bridge(format!("{ROOT}/bridge.rs"));
    bridge.file(format!("{ROOT}/bridge.cc"));
    for input in ["bridge.rs", "bridge.h", "bridge.cc", "contract.h"] {
        println!("cargo:rerun-if-changed={ROOT}/{input}");
    }
    let shim = sources("shim")?;
    strict(&mut bridge).compile("rollforge_bridge");

    match installation {
        Some(installation) => archive(against(installation), "rollforge_shim", shim),
        None => archive(alone(), "rollforge_shim", [shim, sources("stand_in")?].concat()),
    }
    // The double computes a transformer: quick also where the rest is not optimised.
    let mut double = cc::Build::new();
    double.opt_level(2);
    archive(double, "rollforge_double", sources("double")?);
    link_sanitizers()
}

/// The shim against TensorRT-LLM's headers, whose warnings are not ours.
fn against(installation: &Installation) -> cc::Build {
    let mut build = cc::Build::new();
    for folder in &installation.includes {
        build.flag("-isystem").flag(folder);
    }
    let abi = if installation.cxx11_abi { "1" } else { "0" };
    build.define("_GLIBCXX_USE_CXX11_ABI", abi);
    // What TensorRT-LLM's own programs are compiled with (its examples/cpp/executor/CMakeLists.txt).
    for name in ["ENABLE_BF16", "ENABLE_FP8", "OMPI_SKIP_MPICXX"] {
        build.define(name, None);
    }
    build.define("ENABLE_MULTI_DEVICE", "1");
    build
}

/// The shim and the stand-in against our own declarations.
fn alone() -> cc::Build {
    let mut build = cc::Build::new();
    for folder in DECLARATIONS {
        watch(folder);
        build.include(Path::new(ROOT).join(folder));
    }
    build
}

fn archive(mut build: cc::Build, name: &str, files: Vec<PathBuf>) {
    if !files.is_empty() {
        strict(build.cpp(true).include(ROOT).files(files)).compile(name);
    }
}

/// Sets the language, the warnings and the sanitizers.
fn strict(build: &mut cc::Build) -> &mut cc::Build {
    build.std("c++17").flag("-Wall").flag("-Wextra").warnings_into_errors(true);
    if let Some(sanitizers) = sanitizers() {
        build.flag(format!("-fsanitize={sanitizers}"));
        build.flag("-fno-sanitize-recover=all").force_frame_pointer(true).debug(true);
    }
    build
}

/// Returns what `ROLLFORGE_SANITIZE` asks for, such as "address,undefined": see `ci/asan.sh`.
fn sanitizers() -> Option<String> {
    env::var("ROLLFORGE_SANITIZE").ok().filter(|value| !value.is_empty())
}

/// Links the sanitizers' runtime by name: rustc keeps the compiler from adding it.
fn link_sanitizers() -> Result<(), String> {
    println!("cargo:rerun-if-env-changed=ROLLFORGE_SANITIZE");
    let Some(sanitizers) = sanitizers() else { return Ok(()) };
    println!("cargo:rustc-link-arg=-Wl,--no-as-needed");
    for sanitizer in sanitizers.split(',') {
        let runtime = match sanitizer {
            "address" => "asan",
            "undefined" => "ubsan",
            _ => {
                return Err(format!(
                    "ROLLFORGE_SANITIZE must name address, undefined or both, got {sanitizer}"
                ));
            }
        };
        println!("cargo:rustc-link-arg=-l{runtime}");
    }
    Ok(())
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
