//! `contract.h` read by bindgen, into OUT_DIR.
//!
//! bindgen loads libclang at run time and panics where there is none. So a child of this build script does it: its
//! environment can name the library that `third_party/fetch_libclang.py` fetched, and its panic becomes a sentence here.

use std::{
    env,
    path::{Path, PathBuf},
    process::Command,
};

const HEADER: &str = "ffi/tensorrt_llm/contract.h";
const FETCHED: &str = "third_party/libclang";
const TASK: &str = "bindings";

/// Says whether this process is the child.
pub(crate) fn is_child() -> bool {
    env::args().nth(1).is_some_and(|task| task == TASK)
}

/// Runs this build script again, with a libclang to load.
pub(crate) fn generate_in_a_child() -> Result<(), String> {
    println!("cargo:rerun-if-changed={HEADER}");
    println!("cargo:rerun-if-env-changed=LIBCLANG_PATH");
    let script =
        env::current_exe().map_err(|error| format!("cannot find the build script: {error}"))?;
    let mut child = Command::new(script);
    child.arg(TASK);
    if env::var_os("LIBCLANG_PATH").is_none() && Path::new(FETCHED).join("fetched").exists() {
        println!("cargo:rerun-if-changed={FETCHED}/fetched");
        child.env("LIBCLANG_PATH", FETCHED);
    }
    let output =
        child.output().map_err(|error| format!("cannot run the build script again: {error}"))?;
    let complaint = String::from_utf8_lossy(&output.stderr);
    if output.status.success() {
        Ok(())
    } else if complaint.contains("libclang") {
        Err("bindgen finds no libclang: run `python3 third_party/fetch_libclang.py`, or set LIBCLANG_PATH to the folder \
             of an installed one"
            .to_string())
    } else {
        Err(format!("bindgen cannot read {HEADER}: {}", complaint.trim().replace('\n', " ")))
    }
}

/// Writes `contract.rs`: structs, constants and the assertions on their layout.
pub(crate) fn generate() {
    let out = PathBuf::from(env::var_os("OUT_DIR").expect("cargo sets OUT_DIR"));
    let bindings = bindgen::Builder::default()
        .header(HEADER)
        .allowlist_type("rf_.*")
        .allowlist_var("RF_.*")
        .layout_tests(true)
        .generate_comments(false)
        .generate()
        .unwrap_or_else(|error| panic!("{error}"));
    bindings.write_to_file(out.join("contract.rs")).expect("OUT_DIR can be written to");
}
