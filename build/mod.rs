//! The border to TensorRT-LLM: its header read by bindgen, its C++ compiled, and the real library linked where there is one.

mod bindings;
mod compile;

/// Builds everything that the feature `tensorrt-llm` needs; ends the build with one sentence where a piece is missing.
pub(crate) fn build() {
    println!("cargo:rerun-if-changed=build");
    println!("cargo:rustc-check-cfg=cfg(trtllm_linked)");
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
    compile::all()
}
