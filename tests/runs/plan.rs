//! What a run takes in memory, foretold.

use std::{fs, path::Path, process::Command};

use rollforge::{
    config::SftConfig,
    model::{NewModelSpec, new_model},
    run,
};
use serde_json::Value;

use crate::world::{World, column, launch, ppo_of_digits};

#[test]
fn a_run_that_cannot_fit_is_refused_before_it_is_loaded() {
    let world = World::new("0123456789");
    world.digits("rows", |prompt, _| prompt);
    let said = world.refusal("model", &ppo_of_digits("rows", "memory.limit = '1MiB'\n"));
    assert!(said.starts_with("memory: the run needs "), "{said}");
    assert!(said.contains("and may use 1.00 MiB; even with "), "{said}");
    // The process alone takes more, whatever is set; so the largest step of each option is named.
    assert!(said.contains("model.activation_checkpointing = true"), "{said}");
}

#[test]
fn a_run_may_be_begun_with_a_warning() {
    let world = World::new("0123456789");
    world.digits("rows", |prompt, _| prompt);
    let more = "data.train = 'rows.jsonl'\nsft.max_steps = 1\nmemory.limit = '1MiB'\nmemory.check = 'warn'\n";
    run::sft(&world.config::<SftConfig>("run", "model", more), launch(&mut rollforge::run::Silent))
        .unwrap();
    let plan = json(&world.path("run/plan.json"));
    assert_eq!(plan["stage"], "sft");
    let journal = fs::read_to_string(world.path("run/journal.jsonl")).unwrap();
    let warned =
        |line: &str| line.contains("\"warning\"") && line.contains("memory: the run needs");
    assert!(journal.lines().any(warned), "{journal}");
    let metrics = world.metrics("run");
    let predicted = column(&metrics, "mem/predicted")[0];
    assert_eq!(predicted, predicted_peak(&plan));
    assert!(column(&metrics, "mem/peak")[0] > 0.0);
}

/// The whole program on a model of five million weights: most of what it takes then is not the model, so this shows no
/// more than that no term is missing or counted twice. `ci/memory_plan.py` measures.
#[test]
fn what_is_predicted_is_about_what_a_process_takes() {
    let world = World::new("0123456789");
    world.digits("rows", |prompt, _| prompt);
    let spec = NewModelSpec {
        tokenizer: Some(world.path("model")),
        vocab_size: 1024,
        hidden_size: 320,
        intermediate_size: 1024,
        num_layers: 4,
        num_heads: 5,
        ..NewModelSpec::default()
    };
    new_model(&spec, std::iter::empty(), &world.path("larger")).unwrap();
    let config = "output_dir = 'run'\nmodel.path = 'larger'\nthreads = 1\ndata.train = 'rows.jsonl'\n\
                  sft.batch_size = 10\nsft.max_steps = 2\n";
    fs::write(world.path("sft.toml"), config).unwrap();
    let done = rollforge(&["sft", "--quiet", "--config", path(&world.path("sft.toml"))]);
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    let metrics = world.metrics("run");
    let (predicted, peak) = (column(&metrics, "mem/predicted"), column(&metrics, "mem/peak"));
    let ratio = predicted[1] / peak[1];
    assert!((0.7..1.4).contains(&ratio), "predicted {predicted:?}, measured {peak:?}");
}

#[test]
fn the_command_says_whether_it_fits_and_what_to_change() {
    let world = World::new("0123456789");
    world.digits("rows", |prompt, _| prompt);
    let text =
        "output_dir = 'run'\nmodel.path = 'model'\ndata.train = 'rows.jsonl'\nsft.epochs = 1\n";
    fs::write(world.path("sft.toml"), text).unwrap();
    let config = world.path("sft.toml");
    let plan = |more: &[&str]| rollforge(&[&["plan", path(&config)], more].concat());

    let done = plan(&["--device-memory", "1MiB", "--device-memory", "64GiB"]);
    let shown = String::from_utf8(done.stdout).unwrap();
    assert!(done.status.success() && shown.contains("update"), "{shown}");
    assert!(shown.contains("1.00 MiB: does not fit\n  does not even with "), "{shown}");
    assert!(shown.contains("64.00 GiB: fits\n"), "{shown}");

    let done = plan(&["--json", "--device-memory", "64GiB"]);
    let report: Value = serde_json::from_slice(&done.stdout).unwrap();
    assert_eq!((&report["stage"], &report["sizes"][0]["fits"]), (&"sft".into(), &true.into()));
    assert_eq!(report["peak"].as_f64().unwrap(), predicted_peak(&report));
    assert_eq!(report["notes"], Value::Array(vec![]), "the data was read");

    // The shape is enough: neither weights nor data need to be there.
    fs::remove_file(world.path("model/model.safetensors")).unwrap();
    fs::remove_file(world.path("rows.jsonl")).unwrap();
    let done = plan(&[]);
    let shown = String::from_utf8(done.stdout).unwrap();
    assert!(shown.contains("note: every sample is taken to be as long as it may be"), "{shown}");

    let refused = |done: std::process::Output| {
        assert!(!done.status.success());
        String::from_utf8(done.stderr).unwrap()
    };
    let said = refused(plan(&["--device-memory", "lots"]));
    assert!(said.contains("must be a size such as 16GiB, got \"lots\""), "{said}");
    fs::remove_file(world.path("model/config.json")).unwrap();
    let said = refused(plan(&[]));
    assert!(said.lines().count() == 1 && said.contains("config.json"), "{said}");
    fs::write(&config, "output_dir = 'run'\n").unwrap();
    assert!(refused(plan(&[])).contains("name it with --stage"));
}

/// Returns the largest sum over a phase's parts.
fn predicted_peak(plan: &Value) -> f64 {
    let phases = plan["phases"].as_array().unwrap().iter();
    let total = |phase: &Value| {
        phase["host"].as_object().unwrap().values().map(|bytes| bytes.as_f64().unwrap()).sum()
    };
    phases.map(total).fold(0.0, f64::max)
}

fn rollforge(arguments: &[&str]) -> std::process::Output {
    Command::new(env!("CARGO_BIN_EXE_rollforge")).args(arguments).output().unwrap()
}

fn path(path: &Path) -> &str {
    path.to_str().unwrap()
}

fn json(path: &Path) -> Value {
    serde_json::from_str(&fs::read_to_string(path).unwrap()).unwrap()
}
