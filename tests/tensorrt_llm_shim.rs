//! Parts of the shim over TensorRT-LLM that need no engine: versions, exceptions, and members that only some headers have.
//! Compiled here, by `$CXX` or `c++`.

#![cfg(feature = "tensorrt-llm")]
#![allow(clippy::unwrap_used, reason = "a test may fail")]

#[path = "support/cpp.rs"]
mod cpp;

use cpp::Workshop;

const SHIM: &str = "ffi/tensorrt_llm/shim";

/// Compiles `program` with files of the shim and returns what it prints.
fn output(program: &str, profile: &str, files: &[&str]) -> String {
    let shop = Workshop::declared(profile);
    let main = format!("tests/shim/{program}.cc");
    let sources: Vec<_> = files.iter().map(|file| format!("{SHIM}/{file}.cc")).collect();
    let mut all: Vec<_> = sources.iter().map(String::as_str).collect();
    if program == "old_profile" {
        all.push("ffi/tensorrt_llm/stand_in/executor.cc");
        all.push("ffi/tensorrt_llm/stand_in/nvinfer.cc");
    }
    let objects = shop.objects(&[&[main.as_str()], &all[..]].concat());
    let mut arguments: Vec<_> = objects.iter().map(String::as_str).collect();
    arguments.extend(["-ldl", "-o", "program"]);
    shop.link(&arguments);
    shop.output_of("program")
}

#[test]
fn versions_outside_the_range_are_refused_with_what_to_install() {
    let lines = output("versions", "trtllm_1_2", &["version"]);
    let lines: Vec<_> = lines.lines().collect();
    assert_eq!(lines[0], "|", "1.2.1");
    for (line, words) in lines[1..].iter().zip([
        "TensorRT-LLM 0.18.2 is too old: ",
        "TensorRT-LLM 1.3.0 has no engine Executor any more: ",
        "|TensorRT-LLM 1.3.0rc15 is a release candidate",
        "against the headers of TensorRT-LLM 1.2.1 but runs with the library 1.2.0",
        "TensorRT-LLM \"nightly\" is no version",
        "|",
        "against the headers of TensorRT 10.14.1 but runs with the library 10.13.3",
    ]) {
        assert!(line.contains(words), "{line}");
    }
    assert!(lines[2].contains("legacy/tensorrt-backend-removal.md"), "{}", lines[2]);
    assert!(lines[2].contains("install TensorRT-LLM 1.2.1"), "{}", lines[2]);
    assert_eq!(lines[6], "|", "another patch of TensorRT is no harm");
}

#[test]
fn every_exception_becomes_a_status_and_one_line() {
    let lines = output("exceptions", "trtllm_1_2", &["guard"]);
    assert_eq!(
        lines,
        "6 a rule of ours\n\
         4 out of host memory\n\
         4 [TensorRT-LLM][ERROR] CUDA runtime error in cudaMalloc(): out of memory\n\
         1 top_p\n\
         7 the first line\n\
         7 something was thrown that is no std::exception\n\
         1023 characters\n\
         0 |\n"
    );
}

#[test]
fn what_old_headers_lack_is_refused_and_not_left_out() {
    let files = ["guard", "version", "request", "capture"];
    let lines = output("old_profile", "trtllm_0_19", &files);
    let refusal = "3 this version of TensorRT-LLM has no cache_salt";
    assert_eq!(lines, format!("cache salt: 0\nsequences: 1\n0\n{refusal}\n"));
}
