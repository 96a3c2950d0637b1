//! The capture of an engine that another library loads for itself: `ffi/tensorrt_llm/shim/capture.cc`, linked in each form
//! that a program may have it in.
//!
//! The sources are compiled here, by `$CXX` or `c++`, against our declarations; with TENSORRT_INCLUDE_DIR and
//! CUDA_INCLUDE_DIR set, against the real headers (TensorRT 10.7 to 10.16).

#![cfg(feature = "tensorrt-llm")]
#![allow(clippy::unwrap_used, reason = "a test may fail")]

#[path = "support/cpp.rs"]
mod cpp;

use std::{process::Command, sync::OnceLock};

use cpp::Workshop;

const RPATH: &str = "-Wl,-rpath,$ORIGIN";

/// What the driver prints where the capture works. The engine of a blob has the address 0x10, that of a stream 0x20, that of
/// a second kind of stream 0x30; four runtimes are made in all, one of them on another thread.
const CAPTURED: &str = "linked: yes\n\
                        libnvinfer's destructor\n\
                        libnvinfer's destructor\n\
                        inner: 0x10 0x20 0x30\n\
                        libnvinfer's destructor\n\
                        outer, after a load elsewhere:\n\
                        libnvinfer's destructor\n\
                        outer: 0x10 0x20 0x30\n\
                        libnvinfer's destructor\n";

/// Returns the folder with everything but the programs, made once.
fn workshop() -> &'static Workshop {
    static MADE: OnceLock<Workshop> = OnceLock::new();
    MADE.get_or_init(|| {
        let shop = Workshop::real_where_named("trtllm_1_2");
        shop.objects(&[
            "tests/capture/nvinfer.cc",
            "tests/capture/client.cc",
            "tests/capture/drive.cc",
            "tests/capture/main.cc",
            "ffi/tensorrt_llm/shim/capture.cc",
        ]);
        shop.link(&["-shared", "nvinfer.o", "-o", "libnvinfer.so"]);
        shop.link(&["-shared", "client.o", "-L.", "-lnvinfer", RPATH, "-o", "libclient.so"]);
        shop.link(&["-shared", "capture.o", "drive.o", "-ldl", "-o", "libcapture.so"]);
        shop.run(Command::new("ar").args(["rcs", "libcapture_static.a", "capture.o", "drive.o"]));
        shop
    })
}

#[test]
fn a_shared_library_before_libnvinfer_captures() {
    let shop = workshop();
    shop.link(&["main.o", "-L.", "-lcapture", "-lclient", RPATH, "-o", "shared"]);
    assert_eq!(shop.output_of("shared"), CAPTURED);
}

#[test]
fn a_static_archive_captures() {
    let shop = workshop();
    shop.link(&["main.o", "libcapture_static.a", "-L.", "-lclient", "-ldl", RPATH, "-o", "static"]);
    assert_eq!(shop.output_of("static"), CAPTURED);
}

#[test]
fn a_static_archive_in_a_rust_program_captures() {
    let shop = workshop();
    let rustc = std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    let mut command = Command::new(rustc);
    command.args([
        "--edition=2024",
        "-L",
        "native=.",
        "-l",
        "static=capture_static",
        "-l",
        "client",
    ]);
    command.args(["-l", "dylib=stdc++", "-C", "link-arg=-Wl,-rpath,$ORIGIN", "-o", "rust"]);
    shop.run(command.arg(cpp::root().join("tests/capture/driver.rs")));
    assert_eq!(shop.output_of("rust"), CAPTURED);
}

#[test]
fn behind_libnvinfer_nothing_is_captured_and_it_says_so() {
    let shop = workshop();
    let order = ["-Wl,--no-as-needed", "-lnvinfer", "-lcapture", "-lclient"];
    shop.link(&[&["main.o", "-L."], &order[..], &[RPATH, "-o", "behind"]].concat());
    let output = shop.output_of("behind");
    assert!(output.starts_with("linked: no\n"), "{output}");
    assert!(output.contains("\ninner:\n"), "{output}");
}
