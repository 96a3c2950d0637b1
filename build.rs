//! Tells the linker where libtorch lies and the crate which compiler it has, and builds the border to TensorRT-LLM.

#[cfg(feature = "tensorrt-llm")]
#[path = "build/mod.rs"]
mod tensorrt_llm;

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    // Known in every build, also where the feature that may set it is off.
    println!("cargo:rustc-check-cfg=cfg(trtllm_linked)");
    rpath();
    compiler();
    #[cfg(feature = "tensorrt-llm")]
    tensorrt_llm::build();
}

/// Measurements say which compiler made what they measured.
fn compiler() {
    let rustc = std::env::var_os("RUSTC").unwrap_or("rustc".into());
    let said = std::process::Command::new(rustc).arg("--version").output();
    let version = said.map(|output| String::from_utf8_lossy(&output.stdout).trim().to_owned());
    println!("cargo:rustc-env=ROLLFORGE_RUSTC={}", version.unwrap_or_default());
}

/// torch-sys sets an rpath for itself only, and `rustc-link-arg` does not travel to dependents: pass it on.
fn rpath() {
    println!("cargo:rerun-if-env-changed=DEP_TCH_LIBTORCH_LIB");
    if let Some(dir) = std::env::var_os("DEP_TCH_LIBTORCH_LIB") {
        println!("cargo:rustc-link-arg=-Wl,-rpath,{}", dir.to_string_lossy());
    }
}
