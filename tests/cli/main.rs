//! The program as people start it: what it prints, how it refuses, and that nothing half-made stays.

#![allow(clippy::unwrap_used, reason = "a test may fail")]

mod bench;
mod data;
mod engine;
#[cfg(feature = "libtorch")]
mod eval;
mod recipes;

use std::{
    fs,
    io::Write,
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
};

use serde_json::Value;
use tempfile::TempDir;

const SPEC: &str = "vocab_size = 300\nhidden_size = 16\nintermediate_size = 32\nnum_layers = 1\nnum_heads = 2\n\
                    max_positions = 32\n";

fn rollforge(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_rollforge")).args(arguments).output().unwrap()
}

/// Returns what a successful call printed.
fn answer(arguments: &[&str]) -> String {
    let output = rollforge(arguments);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// Returns the one line with which a call is refused.
fn refusal(arguments: &[&str]) -> String {
    let output = rollforge(arguments);
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(output.stdout.is_empty());
    let lines: Vec<&str> = said.lines().collect();
    assert_eq!(lines.len(), 1, "{said}");
    lines[0].strip_prefix("error: ").expect("errors say so").to_owned()
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// A folder with a small model of random weights in `model`.
struct World {
    folder: TempDir,
}

impl World {
    fn new() -> Self {
        let world = Self { folder: tempfile::tempdir().unwrap() };
        let (spec, corpus) =
            (world.file("model.toml", SPEC), world.file("corpus.txt", "the lid is good\n"));
        answer(&[
            "new-model",
            text(&spec),
            "--text",
            text(&corpus),
            "--output",
            text(&world.path("model")),
        ]);
        world
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn file(&self, name: &str, content: &str) -> PathBuf {
        fs::write(self.path(name), content).unwrap();
        self.path(name)
    }

    fn names(&self) -> Vec<String> {
        let entries = fs::read_dir(self.folder.path()).unwrap();
        let mut names: Vec<_> =
            entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }
}

#[test]
fn completions_as_json_say_everything_and_repeat_exactly() {
    let world = World::new();
    let model = world.path("model");
    let ask = || {
        answer(&[
            "generate",
            text(&model),
            "-p",
            "the lid",
            "-p",
            "is",
            "-n",
            "2",
            "-m",
            "5",
            "--json",
        ])
    };
    let printed = ask();
    assert_eq!(printed, ask());
    let lines: Vec<Value> =
        printed.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let names: Vec<_> = lines.iter().map(|line| (&line["prompt_id"], &line["sample"])).collect();
    assert_eq!(names.len(), 4);
    assert!(names[1].0 == 0 && names[1].1 == 1 && names[2].0 == 1);
    for line in &lines {
        let tokens = line["token_ids"].as_array().unwrap().len();
        assert!((1..=5).contains(&tokens));
        assert_eq!(line["logprobs"].as_array().unwrap().len(), tokens);
        assert_eq!(line["weight_version"], 0);
        assert!(line["text"].is_string() && !line["stop_reason"].is_null());
    }
}

#[test]
fn every_line_of_the_standard_input_is_a_prompt() {
    let world = World::new();
    let mut child = Command::new(env!("CARGO_BIN_EXE_rollforge"))
        .args(["generate", text(&world.path("model")), "-m", "3", "--json"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(b"the\nlid\n").unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success());
    assert_eq!(String::from_utf8(output.stdout).unwrap().lines().count(), 2);
}

#[test]
fn a_prompt_file_may_be_json_lines_or_text() {
    let world = World::new();
    let model = world.path("model");
    let rows =
        world.file("prompts.jsonl", "{\"prompt\": \"the lid\"}\n{\"prompt\": \"is good\"}\n");
    let lines = world.file("prompts.txt", "the lid\nis good\n");
    let ask =
        |file: &Path| answer(&["generate", text(&model), "-i", text(file), "-m", "3", "--json"]);
    assert_eq!(ask(&rows), ask(&lines));
}

#[test]
#[cfg(feature = "libtorch")]
fn engine_and_trainer_give_the_same_scores() {
    let world = World::new();
    let model = world.path("model");
    let scores = |by: &str| {
        let printed =
            answer(&["score", text(&model), "--text", "the lid is good", "--by", by, "--json"]);
        let line: Value = serde_json::from_str(&printed).unwrap();
        line["logprobs"].as_array().unwrap().iter().map(|x| x.as_f64().unwrap()).collect::<Vec<_>>()
    };
    let (engine, trainer) = (scores("engine"), scores("trainer"));
    assert!(!engine.is_empty() && engine.len() == trainer.len());
    for (one, other) in engine.iter().zip(&trainer) {
        assert!((one - other).abs() < 1e-4, "{engine:?} {trainer:?}");
    }
}

#[test]
#[cfg(not(feature = "libtorch"))]
fn scores_by_the_trainer_need_the_trainer() {
    let world = World::new();
    let said =
        refusal(&["score", text(&world.path("model")), "--text", "the lid", "--by", "trainer"]);
    assert_eq!(said, "--by trainer needs a build with the feature `libtorch`");
}

#[test]
fn texts_that_cannot_be_scored_are_refused() {
    let world = World::new();
    let model = world.path("model");
    assert!(refusal(&["score", text(&model)]).contains("--text, --token-ids or --input"));
    let said = refusal(&["score", text(&model), "--token-ids", "1,300"]);
    assert!(said.starts_with("token ids must be below") && said.ends_with("got 300"), "{said}");
    assert!(refusal(&["score", text(&model), "--token-ids", "1"]).contains("at least 2 tokens"));
}

#[test]
fn models_that_cannot_be_used_are_named() {
    let world = World::new();
    let nowhere = world.path("nowhere");
    let said = refusal(&["generate", text(&nowhere), "-p", "x"]);
    assert!(said.contains("nowhere/config.json"), "{said}");

    let weights = world.path("model/model.safetensors");
    let whole = fs::read(&weights).unwrap();
    fs::write(&weights, &whole[..whole.len() / 2]).unwrap();
    let said = refusal(&["generate", text(&world.path("model")), "-p", "x"]);
    assert!(said.contains("model.safetensors"), "{said}");
    fs::write(&weights, &whole).unwrap();

    let (spec, corpus, other) =
        (world.path("model.toml"), world.path("corpus.txt"), world.path("other"));
    let larger = "extra_special_tokens=['<a>', '<b>']";
    answer(&[
        "new-model",
        text(&spec),
        "--text",
        text(&corpus),
        "--output",
        text(&other),
        "--set",
        larger,
    ]);
    fs::copy(other.join("tokenizer.json"), world.path("model/tokenizer.json")).unwrap();
    let said = refusal(&["generate", text(&world.path("model")), "-p", "x"]);
    assert!(said.contains("another model's"), "{said}");
}

#[test]
fn a_prompt_beyond_the_context_is_refused() {
    let world = World::new();
    let long = "lid ".repeat(60);
    let said = refusal(&["generate", text(&world.path("model")), "-p", &long]);
    assert!(said.contains("does not fit the model's context of 32"), "{said}");
    assert!(
        refusal(&["generate", text(&world.path("model")), "-p", "x", "--chat"]).contains("--chat")
    );
}

#[test]
fn prompt_files_that_cannot_be_used_are_named_with_the_line() {
    let world = World::new();
    let model = world.path("model");
    let broken = world.file("broken.jsonl", "{\"prompt\": \"x\"}\n{\"prompt\": \n");
    assert!(refusal(&["generate", text(&model), "-i", text(&broken)]).contains("broken.jsonl:2"));
    let column = world.file("column.jsonl", "{\"question\": \"x\"}\n");
    let said = refusal(&["generate", text(&model), "-i", text(&column)]);
    assert!(said.contains("column.jsonl") && said.contains("question"), "{said}");
}

#[test]
fn a_new_model_replaces_nothing_and_leaves_nothing_half_made() {
    let world = World::new();
    let before = world.names();
    let (spec, corpus) = (world.path("model.toml"), world.path("corpus.txt"));
    let make = |output: &str, more: &[&str]| {
        let output = world.path(output);
        let mut arguments = vec!["new-model", text(&spec), "--output", text(&output)];
        arguments.extend_from_slice(more);
        refusal(&arguments)
    };
    let words = ["--text", text(&corpus)];
    assert!(make("model", &words).contains("exists already"));
    assert!(make("other", &[]).contains("--text"));
    assert!(make("other", &[&words[..], &["--set", "num_heads=3"]].concat()).contains("num_heads"));
    let said = make("other", &[&words[..], &["--set", "hiden_size=3"]].concat());
    assert!(said.contains("did you mean \"hidden_size\"?"), "{said}");
    assert!(make("other", &["--text", "/nowhere/x.txt"]).contains("/nowhere/x.txt"));
    assert!(make("corpus.txt/other", &words).contains("corpus.txt"));
    assert_eq!(world.names(), before);
}

#[test]
fn configurations_are_checked_and_shown() {
    let world = World::new();
    let good = "output_dir = \"run\"\n[model]\npath = \"model\"\n[data]\ntrain = \"rows.jsonl\"\n";
    let config = world.file("sft.toml", good);
    assert!(answer(&["config", "check", "sft", text(&config)]).ends_with("ok\n"));
    let shown = answer(&["config", "show", "sft", text(&config), "--set", "sft.batch_size=3"]);
    assert!(shown.contains("batch_size = 3") && shown.contains("max_grad_norm = 1.0"), "{shown}");
    let again = world.file("again.toml", &shown);
    assert_eq!(answer(&["config", "show", "sft", text(&again)]), shown);

    let bad = world.file("bad.toml", &format!("{good}[sft]\nbatch_sise = 2\n"));
    let said = refusal(&["config", "check", "sft", text(&bad)]);
    assert!(
        said.contains("bad.toml:7:1") && said.contains("did you mean \"batch_size\"?"),
        "{said}"
    );
    let said = refusal(&["config", "check", "sft", text(&config), "--set", "sft.epochs=0"]);
    assert!(said.contains("sft.epochs=0") && said.contains("at least 1"), "{said}");
    assert!(refusal(&["config", "check", "ppo", text(&config)]).contains("reward"));
    assert!(refusal(&["config", "check", "sft", "/nowhere.toml"]).contains("/nowhere.toml"));
}

/// Writes rows and a configuration of a short run over them.
#[cfg(feature = "libtorch")]
fn short_run(world: &World) -> PathBuf {
    world
        .file("rows.jsonl", &"{\"prompt\": \"the lid\", \"completion\": \" is good\"}\n".repeat(4));
    world.file(
        "sft.toml",
        "output_dir = \"run\"\n[model]\npath = \"model\"\n[data]\ntrain = \"rows.jsonl\"\n\
         [sft]\nbatch_size = 2\n[optimizer]\nlr = 0.01\n",
    )
}

#[test]
#[cfg(feature = "libtorch")]
fn a_run_leaves_its_directory_from_which_to_generate() {
    let world = World::new();
    let config = short_run(&world);
    let printed = answer(&["sft", "-c", text(&config), "--quiet", "--threads", "1"]);
    assert!(printed.contains("checkpoints/step_2/policy"), "{printed}");
    let run = world.path("run");
    let metrics = fs::read_to_string(run.join("metrics.jsonl")).unwrap();
    assert_eq!(metrics.lines().count(), 2);
    assert!(run.join("config.resolved.toml").is_file());
    answer(&["generate", text(&run), "-p", "the lid", "-m", "2"]);

    let said = refusal(&["sft", "-c", text(&config)]);
    assert!(said.contains("already exists and is not empty"), "{said}");
    assert_eq!(fs::read_to_string(run.join("metrics.jsonl")).unwrap(), metrics);
    answer(&["sft", "-c", text(&config), "--quiet", "--clean", "--set", "sft.max_steps=1"]);
    assert_eq!(fs::read_to_string(run.join("metrics.jsonl")).unwrap().lines().count(), 1);
}

#[test]
#[cfg(feature = "libtorch")]
fn a_run_that_cannot_start_leaves_nothing() {
    let world = World::new();
    let config = short_run(&world);
    fs::create_dir(world.path("theirs")).unwrap();
    world.file("theirs/thesis.tex", "years of work");
    world.file("broken.jsonl", "{\"prompt\": 3\n");
    world.file("pairs.jsonl", "{\"chosen\": \"a\", \"rejected\": \"b\"}\n");
    let before = world.names();
    let start = |more: &[&str]| {
        let mut arguments = vec!["sft", "--quiet", "-c", text(&config)];
        arguments.extend_from_slice(more);
        refusal(&arguments)
    };
    assert!(start(&["--set", "model.path=nowhere"]).contains("nowhere/config.json"));
    assert!(start(&["--set", "data.train=broken.jsonl"]).contains("broken.jsonl:1"));
    assert!(start(&["--set", "data.train=pairs.jsonl"]).contains("pairs.jsonl"));
    assert!(start(&["--set", "data.train=nowhere.jsonl"]).contains("nowhere.jsonl"));
    assert!(start(&["--set", "device=cuda:0"]).contains("cuda:0"));
    assert!(start(&["--set", "sft.batchsize=1"]).contains("did you mean \"batch_size\"?"));
    let theirs = world.path("theirs");
    assert!(start(&["--output-dir", text(&theirs)]).contains("not empty"));
    assert!(start(&["--output-dir", text(&theirs), "--clean"]).contains("not a run directory"));
    assert!(start(&["--output-dir", text(&config.join("run"))]).contains("sft.toml/run"));
    let demo = refusal(&["demo", "--output-dir", text(&theirs)]);
    assert!(demo.contains("not a run directory"), "{demo}");
    answer(&["sft", "-c", text(&config), "--dry-run"]);
    assert_eq!(world.names(), before);
    assert_eq!(fs::read_dir(theirs).unwrap().count(), 1);
}

#[test]
#[cfg(not(feature = "libtorch"))]
fn training_needs_the_trainer() {
    let world = World::new();
    let config = world
        .file("sft.toml", "output_dir = 'run'\n[model]\npath = 'm'\n[data]\ntrain = 'x.jsonl'\n");
    let said = refusal(&["sft", "-c", text(&config)]);
    assert_eq!(said, "rollforge sft needs a build with the feature `libtorch`");
    assert!(refusal(&["demo"]).contains("needs a build with the feature `libtorch`"));
}

#[test]
fn every_example_is_a_valid_configuration() {
    let examples = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples");
    for (kind, name) in [
        ("sft", "demo/sft"),
        ("rm", "demo/rm"),
        ("ppo", "demo/ppo"),
        ("dpo", "demo/dpo"),
        ("ppo", "reverse"),
        ("sft", "reverse_sft"),
        ("dpo", "reverse_dpo"),
        ("ppo", "reverse_sparse"),
    ] {
        answer(&["config", "check", kind, text(&examples.join(name).with_extension("toml"))]);
    }
}

#[test]
fn the_demos_data_is_the_same_each_time() {
    let world = World::new();
    for folder in ["one", "two"] {
        let printed = answer(&["demo", "--seed", "3", "--data-only", text(&world.path(folder))]);
        assert_eq!(printed.lines().count(), 7);
    }
    for entry in fs::read_dir(world.path("one")).unwrap() {
        let path = entry.unwrap().path();
        let other = world.path("two").join(path.file_name().unwrap());
        assert_eq!(fs::read(&path).unwrap(), fs::read(other).unwrap(), "{}", path.display());
    }
    let said = refusal(&["demo", "--data-only", text(&world.path("corpus.txt/data"))]);
    assert!(said.contains("corpus.txt/data"), "{said}");
}

#[test]
fn the_doctor_names_what_is_there_and_what_is_not() {
    let findings: Value = serde_json::from_str(&answer(&["doctor", "--json"])).unwrap();
    let names: Vec<_> =
        findings.as_array().unwrap().iter().map(|finding| &finding["what"]).collect();
    let table = answer(&["doctor"]);
    for what in [
        "processor",
        "threads",
        "memory",
        "libtorch",
        "GPU",
        "TensorRT-LLM backend",
        "libtensorrt_llm.so",
        "TensorRT-LLM headers",
        "TensorRT",
        "TensorRT headers",
        "CUDA",
        "NCCL",
        "MPI",
        "Python with TensorRT-LLM",
        "engine cache",
    ] {
        assert!(names.iter().any(|name| *name == what), "{what}");
        assert!(table.contains(what), "{what}");
    }
}

#[test]
fn arguments_that_cannot_be_understood_end_with_status_2() {
    for arguments in [&["traim"][..], &["generate"], &["score", "m", "--by", "luck"], &[]] {
        assert_eq!(rollforge(arguments).status.code(), Some(2), "{arguments:?}");
    }
}
