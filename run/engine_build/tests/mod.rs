//! The build script under the plain Python, with a small stand-in for the package `tensorrt_llm`.

mod script;
mod whole;

use std::{ffi::OsString, fs, path::PathBuf, process::Command, time::Duration};

use serde_json::Value;

use super::{BuildCall, Python};

/// A folder with a stand-in for TensorRT-LLM, and a Python that finds it.
struct Stand {
    folder: tempfile::TempDir,
}

/// A package that records what it is asked for. It has what the script uses, named and shaped as in the releases; its
/// engines are JSON.
const PACKAGE: [(&str, &str); 5] = [
    (
        "tensorrt_llm/__init__.py",
        "from .version import __version__\nprint('TensorRT-LLM says hello')\n",
    ),
    ("tensorrt_llm/version.py", "__version__ = '1.2.1'\n"),
    ("tensorrt_llm/logger.py", "class logger:\n    trt_logger = None\n"),
    ("tensorrt_llm/builder.py", include_str!("stand_in/builder.py")),
    ("tensorrt_llm/models.py", include_str!("stand_in/models.py")),
];

impl Stand {
    fn new() -> Self {
        let stand = Self { folder: tempfile::tempdir().unwrap() };
        fs::create_dir(stand.path("tensorrt_llm")).unwrap();
        for (file, text) in PACKAGE {
            fs::write(stand.path(file), text).unwrap();
        }
        fs::write(stand.path("tensorrt.py"), include_str!("stand_in/tensorrt.py")).unwrap();
        let python =
            format!("#!/bin/sh\nPYTHONPATH='{}' exec python3 \"$@\"\n", stand.path("").display());
        stand.program("python", &python);
        fs::create_dir(stand.path("checkpoint")).unwrap();
        // Python finds what lies beside its script: the stand-in must not.
        fs::create_dir(stand.path("work")).unwrap();
        stand.checkpoint("LlamaForCausalLM", 2);
        stand
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn program(&self, name: &str, text: &str) {
        // Written by a child: while another test's child, forked meanwhile, still holds our handle, the system calls a
        // program busy.
        let write = r#"printf %s "$1" > "$0" && chmod 755 "$0""#;
        let path = self.path(name);
        let status = Command::new("sh").args(["-c", write]).arg(path).arg(text).status();
        assert!(status.unwrap().success());
    }

    fn checkpoint(&self, architecture: &str, ranks: usize) {
        let config = format!(
            "{{\"architecture\": \"{architecture}\", \"mapping\": {{\"world_size\": {ranks}}}}}"
        );
        fs::write(self.path("checkpoint/config.json"), config).unwrap();
        let header = br#"{"transformer.ln_f.weight": {"dtype": "BF16", "shape": [4], "data_offsets": [0, 8]}}"#;
        for rank in 0..ranks {
            let mut file = (header.len() as u64).to_le_bytes().to_vec();
            file.extend_from_slice(header);
            file.extend_from_slice(&[0; 8]);
            fs::write(self.path(&format!("checkpoint/rank{rank}.safetensors")), file).unwrap();
        }
    }

    fn python(&self) -> Python {
        Python(self.path("python"))
    }

    /// Builds, and returns what failed and what was said.
    fn build(&self, python: &Python, more: &[&str]) -> (anyhow::Result<()>, String) {
        let (checkpoint, output) = (self.path("checkpoint"), self.path("engine"));
        let sizes = "--max-batch-size 3 --max-input-len 20 --max-seq-len 30 --max-num-tokens 40";
        let mut arguments: Vec<OsString> =
            vec!["--checkpoint".into(), checkpoint.into(), "--output".into(), output.into()];
        arguments.extend(sizes.split(' ').chain(more.iter().copied()).map(OsString::from));
        let (folder, log) = (self.path("work"), self.path("build.log"));
        let call =
            BuildCall { arguments, folder: &folder, log: &log, deadline: Duration::from_secs(60) };
        let mut said = String::new();
        let built = python.build(&call, &mut |line| said = format!("{said}{line}\n"));
        assert_eq!(fs::read_to_string(&log).unwrap_or_default(), said);
        (built, said)
    }

    fn json(&self, name: &str) -> Value {
        serde_json::from_str(&fs::read_to_string(self.path(name)).unwrap()).unwrap()
    }
}
