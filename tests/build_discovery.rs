//! How the build script finds TensorRT-LLM: against trees of empty files.
#![allow(clippy::unwrap_used, reason = "a test may fail")]

use std::{
    fs,
    path::{Path, PathBuf},
};

use discovery::{Found, Installation};
use environment::Environment;
use tempfile::TempDir;

#[path = "../build/abi.rs"]
mod abi;
#[path = "../build/discovery.rs"]
mod discovery;
#[path = "../build/environment.rs"]
mod environment;
#[path = "../build/pieces.rs"]
mod pieces;
#[path = "../build/versions.rs"]
mod versions;

/// A file system with what an image of TensorRT-LLM has.
struct Machine(TempDir);

impl Machine {
    fn bare() -> Self {
        Self(TempDir::new().unwrap())
    }

    fn complete() -> Self {
        let machine = Self::bare();
        machine.trtllm_headers("app/tensorrt_llm/include", "1.2.1");
        machine.trtllm_libraries("app/tensorrt_llm/lib");
        machine.file("usr/local/tensorrt/include/NvInferRuntime.h", "");
        machine.file("usr/local/tensorrt/include/NvInferImpl.h", "");
        machine.tensorrt_version(
            "#define TRT_MAJOR_ENTERPRISE 10\n#define TRT_MINOR_ENTERPRISE 14\n\
             #define NV_TENSORRT_MAJOR TRT_MAJOR_ENTERPRISE //!< major\n\
             #define NV_TENSORRT_MINOR TRT_MINOR_ENTERPRISE //!< minor\n",
        );
        machine.file("usr/lib/x86_64-linux-gnu/libnvinfer.so.10", "");
        machine.file("usr/local/cuda/include/cuda_runtime_api.h", "");
        machine.file("usr/local/cuda/lib64/libcudart.so", "");
        machine
    }

    fn file(&self, path: &str, text: &str) {
        let path = self.path(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    fn path(&self, path: &str) -> PathBuf {
        self.0.path().join(path)
    }

    fn remove(&self, path: &str) -> &Self {
        fs::remove_file(self.path(path)).unwrap();
        self
    }

    fn trtllm_headers(&self, folder: &str, version: &str) {
        let line = format!("static auto constexpr kTensorRtLlmVersion = \"{version}\";\n");
        self.file(&format!("{folder}/tensorrt_llm/executor/version.h"), &line);
        self.file(&format!("{folder}/tensorrt_llm/executor/executor.h"), "");
    }

    fn trtllm_libraries(&self, folder: &str) {
        self.file(&format!("{folder}/libtensorrt_llm.so"), "\0_ZNSt7__cxx1112basic_string\0");
        self.file(&format!("{folder}/libnvinfer_plugin_tensorrt_llm.so"), "");
    }

    fn tensorrt_version(&self, text: &str) {
        self.file("usr/local/tensorrt/include/NvInferVersion.h", text);
    }

    fn environment(&self, variables: &[(&str, &str)]) -> Environment {
        let variables =
            variables.iter().map(|&(name, folder)| (name.to_string(), self.path(folder)));
        Environment {
            variables: variables.collect(),
            root: self.0.path().to_path_buf(),
            package: None,
        }
    }

    fn search(&self, variables: &[(&str, &str)]) -> Result<Found, String> {
        assert!(variables.iter().all(|(name, _)| environment::VARIABLES.contains(name)));
        discovery::search(&self.environment(variables))
    }

    fn installed(&self, variables: &[(&str, &str)]) -> Installation {
        match self.search(variables) {
            Ok(Found::Everything(installation)) => *installation,
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn an_empty_machine_has_nothing_and_that_is_no_error() {
    assert_eq!(Machine::bare().search(&[]), Ok(Found::Nothing));
    assert_eq!(Machine::bare().search(&[("CUDA_HOME", "cuda")]), Ok(Found::Nothing));
}

#[test]
fn an_image_of_tensorrt_llm_is_found_without_a_word() {
    let machine = Machine::complete();
    let found = machine.installed(&[]);
    assert_eq!(
        found.includes,
        ["app/tensorrt_llm/include", "usr/local/tensorrt/include", "usr/local/cuda/include"]
            .map(|folder| machine.path(folder))
    );
    assert_eq!(
        found.libraries,
        ["app/tensorrt_llm/lib", "usr/lib/x86_64-linux-gnu", "usr/local/cuda/lib64"]
            .map(|folder| machine.path(folder))
    );
    assert!(found.cxx11_abi);
    assert_eq!(found.warning, None);
}

#[test]
fn a_wheel_with_headers_from_a_checkout_is_found() {
    let machine = Machine::complete();
    fs::remove_dir_all(machine.path("app")).unwrap();
    machine.trtllm_headers("src/cpp/include", "0.19.0");
    machine.trtllm_libraries("site/tensorrt_llm/libs");
    machine.file("site/tensorrt_libs/libnvinfer.so.10", "");
    machine.remove("usr/lib/x86_64-linux-gnu/libnvinfer.so.10");
    machine.file("site/tensorrt_llm/libs/libtensorrt_llm.so", "std::string of old");
    let mut environment = machine.environment(&[("TRTLLM_ROOT", "src")]);
    environment.package = Some(machine.path("site/tensorrt_llm"));
    let Ok(Found::Everything(found)) = discovery::search(&environment) else { panic!() };
    assert_eq!(found.includes[0], machine.path("src/cpp/include"));
    assert_eq!(found.libraries[0], machine.path("site/tensorrt_llm/libs"));
    assert_eq!(found.libraries[1], machine.path("site/tensorrt_libs"));
    assert!(!found.cxx11_abi);
}

#[test]
fn a_variable_wins_over_the_usual_place() {
    let machine = Machine::complete();
    machine.trtllm_headers("own/include", "1.0.0");
    let found = machine.installed(&[("TRTLLM_INCLUDE_DIR", "own/include")]);
    assert_eq!(found.includes[0], machine.path("own/include"));
}

#[test]
fn each_missing_piece_is_named_with_what_to_set() {
    let cases = [
        ("app/tensorrt_llm/include/tensorrt_llm/executor/version.h", "TRTLLM_INCLUDE_DIR"),
        ("app/tensorrt_llm/lib/libnvinfer_plugin_tensorrt_llm.so", "TRTLLM_LIB_DIR"),
        ("usr/local/tensorrt/include/NvInferImpl.h", "TENSORRT_INCLUDE_DIR"),
        ("usr/lib/x86_64-linux-gnu/libnvinfer.so.10", "TENSORRT_LIB_DIR"),
        ("usr/local/cuda/include/cuda_runtime_api.h", "CUDA_HOME"),
        ("usr/local/cuda/lib64/libcudart.so", "CUDA_HOME"),
    ];
    for (file, variable) in cases {
        let machine = Machine::complete();
        let name = Path::new(file).file_name().unwrap().to_str().unwrap();
        let sentence =
            machine.remove(file).search(&[("TRTLLM_ROOT", "app/tensorrt_llm")]).unwrap_err();
        assert!(sentence.contains(name), "{sentence}");
        assert!(sentence.contains(&format!("set {variable}")), "{sentence}");
        assert!(!sentence.contains('\n'), "{sentence}");
        let unasked = machine.search(&[]).unwrap();
        assert!(matches!(unasked, Found::Unusable(_)), "nobody asked, so it is no error");
    }
}

#[test]
fn a_variable_that_leads_nowhere_is_named() {
    let sentence = Machine::complete().search(&[("TRTLLM_LIB_DIR", "nowhere")]).unwrap_err();
    assert!(sentence.contains("TRTLLM_LIB_DIR leads to"), "{sentence}");
    assert!(sentence.contains("libtensorrt_llm.so"), "{sentence}");
}

#[test]
fn versions_outside_of_what_works_are_refused_and_candidates_warned_about() {
    let cases = [
        ("0.18.2", Err("too old")),
        ("0.19.0", Ok(false)),
        ("1.0.0.post1", Ok(false)),
        ("1.2.0rc5", Ok(true)),
        ("1.2.1", Ok(false)),
        ("1.2.2", Err("no version that Rollforge knows")),
        ("1.3.0rc1", Ok(true)),
        ("1.3.0rc21", Ok(true)),
        ("1.3.0rc22", Err("tensorrt-backend-removal.md")),
        ("1.3.0", Err("tensorrt-backend-removal.md")),
        ("1.4.0rc1", Err("tensorrt-backend-removal.md")),
        ("one", Err("no version that Rollforge knows")),
    ];
    for (version, expected) in cases {
        let machine = Machine::complete();
        machine.trtllm_headers("app/tensorrt_llm/include", version);
        match (machine.search(&[("TRTLLM_ROOT", "app/tensorrt_llm")]), expected) {
            (Ok(Found::Everything(found)), Ok(warned)) => {
                assert_eq!(found.warning.is_some(), warned, "{version}");
            }
            (Err(sentence), Err(part)) => assert!(sentence.contains(part), "{sentence}"),
            (other, _) => panic!("{version}: {other:?}"),
        }
    }
}

#[test]
fn headers_without_the_executor_are_refused() {
    let machine = Machine::complete();
    machine.remove("app/tensorrt_llm/include/tensorrt_llm/executor/executor.h");
    let sentence = machine.search(&[("TRTLLM_ROOT", "app/tensorrt_llm")]).unwrap_err();
    assert!(sentence.contains("executor.h"), "{sentence}");
}

#[test]
fn only_tensorrt_10_up_to_16_is_taken() {
    for (major, minor, fine) in [(10, 0, true), (10, 16, true), (10, 17, false), (11, 0, false)] {
        let machine = Machine::complete();
        machine.tensorrt_version(&format!(
            "#define NV_TENSORRT_MAJOR {major}\n#define NV_TENSORRT_MINOR {minor} //!< minor\n"
        ));
        let found = machine.search(&[("TRTLLM_ROOT", "app/tensorrt_llm")]);
        assert_eq!(found.is_ok(), fine, "{major}.{minor}: {found:?}");
    }
    let machine = Machine::complete();
    machine.tensorrt_version("#define NV_TENSORRT_MAJOR ELSEWHERE\n");
    let sentence = machine.search(&[("TRTLLM_ROOT", "app/tensorrt_llm")]).unwrap_err();
    assert!(sentence.contains("states no version"), "{sentence}");
}

#[test]
fn a_name_that_lies_across_two_pieces_of_a_library_is_seen() {
    let machine = Machine::bare();
    let mut library = vec![b'.'; (1 << 20) - 3];
    library.extend(b"__cxx11");
    fs::write(machine.path("lib.so"), &library).unwrap();
    assert!(abi::is_cxx11(&machine.path("lib.so")).unwrap());
    library.pop();
    fs::write(machine.path("lib.so"), &library).unwrap();
    assert!(!abi::is_cxx11(&machine.path("lib.so")).unwrap());
}
