//! A folder in which a test compiles and links C++.

#![allow(dead_code, unreachable_pub, reason = "each test crate uses its part")]

use std::{
    env,
    ffi::OsString,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use tempfile::TempDir;

/// Returns the root of the package.
pub fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn ours() -> PathBuf {
    root().join("ffi/tensorrt_llm")
}

/// A temporary folder, and the declarations to compile against.
pub struct Workshop {
    folder: TempDir,
    includes: Vec<OsString>,
}

impl Workshop {
    /// Makes an empty folder, to compile against our declarations: `profile` are those of TensorRT-LLM.
    pub fn declared(profile: &str) -> Self {
        let folders = [profile, "tensorrt", "cuda"];
        Self::new(folders.map(|folder| ours().join("declarations").join(folder)))
    }

    /// Makes an empty folder, to compile against the real headers where TENSORRT_INCLUDE_DIR and CUDA_INCLUDE_DIR name them.
    pub fn real_where_named(profile: &str) -> Self {
        let named = |name: &str| env::var_os(name).filter(|set| !set.is_empty()).map(PathBuf::from);
        match (named("TENSORRT_INCLUDE_DIR"), named("CUDA_INCLUDE_DIR")) {
            (Some(tensorrt), Some(cuda)) => Self::new([tensorrt, cuda]),
            _ => Self::declared(profile),
        }
    }

    fn new<const N: usize>(folders: [PathBuf; N]) -> Self {
        let mut includes = vec!["-I".into(), ours().into()];
        for folder in folders {
            includes.extend(["-isystem".into(), folder.into()]);
        }
        Self { folder: tempfile::tempdir().unwrap(), includes }
    }

    /// Compiles sources, named from the package's root, side by side; returns the objects' names: `a/b.cc` becomes `b.o`.
    pub fn objects(&self, sources: &[&str]) -> Vec<String> {
        let compilers: Vec<_> =
            sources.iter().map(|source| self.compiler(source).spawn().unwrap()).collect();
        for (compiler, source) in compilers.into_iter().zip(sources) {
            let output = compiler.wait_with_output().unwrap();
            assert!(
                output.status.success(),
                "{source}:\n{}",
                String::from_utf8_lossy(&output.stderr)
            );
        }
        sources.iter().map(|source| object_of(source)).collect()
    }

    fn compiler(&self, source: &str) -> Command {
        let mut command = cxx();
        command.current_dir(self.folder.path()).stderr(Stdio::piped());
        command.args([
            "-std=c++17",
            "-fPIC",
            "-Wall",
            "-Wextra",
            "-Wno-deprecated-declarations",
            "-Werror",
        ]);
        command.args(&self.includes).arg("-c").arg(root().join(source));
        command.arg("-o").arg(object_of(source));
        command
    }

    /// Links, in the folder.
    pub fn link(&self, arguments: &[&str]) {
        self.run(cxx().args(arguments).arg("-pthread"));
    }

    /// Runs a command in the folder, which must succeed.
    pub fn run(&self, command: &mut Command) -> String {
        let output = command.current_dir(self.folder.path()).output().unwrap();
        assert!(
            output.status.success(),
            "{command:?}:\n{}",
            String::from_utf8_lossy(&output.stderr)
        );
        String::from_utf8(output.stdout).unwrap()
    }

    /// Returns what a program of the folder prints.
    pub fn output_of(&self, program: &str) -> String {
        self.run(&mut Command::new(self.path(program)))
    }

    /// Returns where a file of the folder lies.
    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }
}

fn object_of(source: &str) -> String {
    let stem = Path::new(source).file_stem().unwrap();
    format!("{}.o", stem.to_str().unwrap())
}

fn cxx() -> Command {
    Command::new(env::var_os("CXX").unwrap_or_else(|| "c++".into()))
}
