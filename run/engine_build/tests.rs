//! The build script under the plain Python, with a small stand-in for the package `tensorrt_llm`.

use std::{
    ffi::OsString,
    fs,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

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

#[test]
fn a_probe_says_what_a_python_has_without_importing_it() {
    let stand = Stand::new();
    let found = stand.python().probe().unwrap();
    assert_eq!(found.tensorrt_llm.as_deref(), Some("1.2.1"));
    assert_eq!(found.location.as_deref(), Some(stand.path("tensorrt_llm").as_path()));
    assert_eq!(Python::default().probe().unwrap().tensorrt_llm, None);
}

#[test]
fn a_program_that_is_no_python_is_named() {
    let stand = Stand::new();
    let error = format!("{:#}", Python("/nowhere/python".into()).probe().unwrap_err());
    assert!(error.contains("/nowhere/python"), "{error}");
    stand.program("mute", "#!/bin/sh\nexit 3\n");
    let error = Python(stand.path("mute")).probe().unwrap_err().to_string();
    assert!(
        error.contains("mute cannot say whether it has TensorRT-LLM (exit status: 3)"),
        "{error}"
    );
}

#[test]
fn every_rank_is_built_with_refit_and_the_sizes_asked_for() {
    let stand = Stand::new();
    let (built, said) = stand.build(&stand.python(), &["--fused-mlp"]);
    built.unwrap();
    assert!(said.contains("TensorRT-LLM says hello"), "{said}");
    assert!(said.contains("rank 1: 4 refittable tensors, 2 of them fixed"), "{said}");
    for rank in 0..2 {
        let asked = &stand.json(&format!("engine/rank{rank}.engine"))["asked"];
        assert_eq!(asked["use_refit"], true);
        assert_eq!(asked["rank"], rank);
        for (name, value) in [
            ("max_batch_size", 3),
            ("max_input_len", 20),
            ("max_seq_len", 30),
            ("max_num_tokens", 40),
        ] {
            assert_eq!(asked[name], value, "{name}");
        }
        let plugins = &asked["plugin_config"];
        assert_eq!(
            (&plugins["use_fused_mlp"], &plugins["paged_kv_cache"]),
            (&true.into(), &true.into())
        );
        assert_eq!(
            asked["input_timing_cache"].is_null(),
            rank == 0,
            "the first rank's is used by the others"
        );
    }
    assert!(!stand.path("engine/timing.cache").exists());
    stand.build(&stand.python(), &[]).0.unwrap();
    assert_eq!(stand.json("engine/rank0.engine")["asked"]["plugin_config"]["use_fused_mlp"], false);
}

#[test]
fn what_no_checkpoint_has_is_written_beside_the_engine() {
    let stand = Stand::new();
    stand.build(&stand.python(), &[]).0.unwrap();
    let bytes = fs::read(stand.path("engine/fixed_weights.safetensors")).unwrap();
    let fixed = safetensors::SafeTensors::deserialize(&bytes).unwrap();
    let mut names = fixed.names();
    names.sort();
    assert_eq!(
        names,
        ["embed_positions", "rotary_inv_freq"],
        "ln_f is initialised too, but the checkpoint has it"
    );
    let table = fixed.tensor("rotary_inv_freq").unwrap();
    assert_eq!((table.dtype(), table.shape()), (safetensors::Dtype::F32, &[1, 2][..]));
    assert_eq!(table.data(), [1.0f32.to_le_bytes(), 0.5f32.to_le_bytes()].concat());
    assert_eq!(fixed.tensor("embed_positions").unwrap().dtype(), safetensors::Dtype::BF16);
}

#[test]
fn a_failing_build_ends_in_one_line_that_names_the_log() {
    let stand = Stand::new();
    let failure = |python: &Python| {
        let error = stand.build(python, &[]).0.unwrap_err().to_string();
        let log = stand.path("build.log").display().to_string();
        assert!(error.ends_with(&format!(" (all of it: {log})")), "{error}");
        assert_eq!(error.lines().count(), 1);
        error
    };
    let said = failure(&Python::default());
    assert!(said.contains("has no module tensorrt_llm: install tensorrt-llm 1.2.1"), "{said}");
    stand.checkpoint("MambaForCausalLM", 1);
    assert!(
        failure(&stand.python()).contains("1.2.1 does not know the architecture MambaForCausalLM")
    );
    stand.checkpoint("LlamaForCausalLM", 1);

    fs::write(stand.path("plain"), "").unwrap();
    assert!(failure(&stand.python()).contains("cannot be refitted although"));
    fs::remove_file(stand.path("plain")).unwrap();
    fs::write(stand.path("explode"), "").unwrap();
    assert!(failure(&stand.python()).contains("RuntimeError: out of memory at layer 3"));
    assert!(fs::read_to_string(stand.path("build.log")).unwrap().contains("Traceback"));
    fs::remove_file(stand.path("tensorrt_llm/builder.py")).unwrap();
    let said = failure(&stand.python());
    assert!(said.contains("builds no engines") && said.contains("removed in 1.3"), "{said}");
    stand.program("killed", "#!/bin/sh\nkill -9 $$\n");
    assert!(failure(&Python(stand.path("killed"))).contains("signal: 9"));
}

#[test]
fn a_build_that_hangs_is_stopped_at_its_deadline() {
    let stand = Stand::new();
    stand.program("hang", "#!/bin/sh\necho started\nexec sleep 600\n");
    let (folder, log) = (stand.path("work"), stand.path("build.log"));
    let call =
        BuildCall { arguments: vec![], folder: &folder, log: &log, deadline: Duration::ZERO };
    let error = Python(stand.path("hang")).build(&call, &mut |_| ()).unwrap_err();
    assert!(format!("{error:#}").contains("was stopped after 0 s"), "{error:#}");
}

#[test]
fn a_job_launchers_variables_do_not_reach_the_build() {
    let stand = Stand::new();
    stand.program("show", "#!/bin/sh\nenv\n");
    let python = Python(stand.path("show"));
    let said = stand.build(&python, &[]).1;
    assert!(said.contains("PYTHONUNBUFFERED=1"));
    assert!(
        !said.lines().any(|line| line.starts_with("OMPI_") || line.starts_with("SLURM_")),
        "{said}"
    );
}

#[test]
fn the_script_compiles_under_every_warning() {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("run/engine_build/build_engine.py");
    let compile = "import sys; compile(open(sys.argv[1]).read(), sys.argv[1], 'exec')";
    let output =
        Command::new("python3").args(["-W", "error", "-c", compile]).arg(&file).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}
