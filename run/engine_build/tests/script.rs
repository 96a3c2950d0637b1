//! The build script by itself.

use std::{ffi::OsString, fs, path::Path, process::Command, time::Duration};

use super::Stand;
use crate::run::engine_build::{BuildCall, Python, toolchain};

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
    let given = ["OMPI_COMM_WORLD_SIZE", "SLURM_NTASKS", "PMIX_RANK", "PATH", "HOME"];
    let cleared = toolchain::cleared(given.map(OsString::from));
    assert_eq!(cleared, ["OMPI_COMM_WORLD_SIZE", "SLURM_NTASKS", "PMIX_RANK"]);
}

#[test]
fn the_script_compiles_under_every_warning() {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("run/engine_build/build_engine.py");
    let compile = "import sys; compile(open(sys.argv[1]).read(), sys.argv[1], 'exec')";
    let output =
        Command::new("python3").args(["-W", "error", "-c", compile]).arg(&file).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}
