//! Preference optimisation from completions that are each good or bad.

use std::fs;

use rollforge::{
    config::KtoConfig,
    run::{self, Earlier, Launch, Silent, Stop},
};

use crate::{
    resume::stopped,
    world::{World, column, launch},
};

/// Writes completions of which those that repeat their prompt are good; or, where labels are to say nothing, each once as a good
/// one and once as a bad one.
fn write_labels(world: &World, name: &str, say_nothing: bool) {
    let mut rows = String::new();
    for (prompt, offset) in (0..10).flat_map(|prompt| (0..8).map(move |o| (prompt, o))) {
        // As many good ones as bad ones.
        let completion = if offset % 2 == 0 { prompt } else { (prompt + offset) % 10 };
        let labels = match (say_nothing, completion == prompt) {
            (true, _) => ["true", "false"].as_slice(),
            (false, true) => &["true"],
            (false, false) => &["\"rejected\""],
        };
        for label in labels {
            rows += &format!(
                "{{\"prompt\": \"{prompt}\", \"completion\": \"{completion}\", \"label\": {label}}}\n"
            );
        }
    }
    fs::write(world.path(name), rows).unwrap();
}

/// A model that answers any digit, and completions to learn from.
fn world() -> World {
    let world = World::of_digits();
    write_labels(&world, "labels.jsonl", false);
    write_labels(&world, "nothing.jsonl", true);
    world
}

fn config(world: &World, name: &str, more: &str) -> KtoConfig {
    let data = if more.contains("data.train") { "" } else { "data.train = 'labels.jsonl'\n" };
    let text = format!("{data}data.eval = 'labels.jsonl'\ndata.append_eos = false\n{more}");
    world.config(name, "guess", &text)
}

fn refusal(world: &World, more: &str) -> String {
    let error = run::kto(&config(world, "refused", more), launch(&mut Silent)).unwrap_err();
    assert!(!world.path("refused").exists());
    let said = format!("{error:#}");
    assert_eq!(said.lines().count(), 1, "{said}");
    said
}

#[test]
fn a_policy_learns_which_completions_are_good_and_labels_that_say_nothing_teach_nothing() {
    let world = world();
    let more = "kto.epochs = 25\nkto.batch_size = 80\noptimizer.lr = 0.01\n";
    let learned = run::kto(&config(&world, "kto", more), launch(&mut Silent)).unwrap();
    let stats = learned.evaluation.unwrap();
    assert!(stats.margin().unwrap() > 0.15, "{stats:?}");
    let lines = world.metrics("kto");
    assert_eq!((column(&lines, "kl")[0], column(&lines, "loss")[0]), (0.0, 0.5));

    let more = format!("{more}data.train = 'nothing.jsonl'\n");
    let control = run::kto(&config(&world, "control", &more), launch(&mut Silent)).unwrap();
    let stats = control.evaluation.unwrap();
    assert!(stats.margin().unwrap().abs() < 0.1, "{stats:?}");
}

#[test]
fn a_run_that_was_asked_to_stop_goes_on_with_the_reference_it_began_with() {
    let world = world();
    let more =
        "kto.epochs = 2\nkto.batch_size = 16\nschedule.kind = 'linear'\nkto.eval_every = 3\n";
    run::kto(&config(&world, "whole", more), launch(&mut Silent)).unwrap();
    let halves = config(&world, "halves", more);
    stopped(3, |launch| run::kto(&halves, launch));
    let mut observer = Silent;
    let resumed =
        Launch { earlier: Earlier::Resume, observer: &mut observer, stop: Stop::default() };
    run::kto(&halves, resumed).unwrap();
    assert_eq!(world.checksum("halves"), world.checksum("whole"));
    assert_eq!(world.learned("halves"), world.learned("whole"));
}

#[test]
fn a_reference_that_is_another_model_is_what_the_policy_is_compared_with() {
    let world = world();
    let more = "model.reference = 'model'\nkto.max_steps = 2\n";
    run::kto(&config(&world, "other", more), launch(&mut Silent)).unwrap();
    assert!(column(&world.metrics("other"), "rewards/chosen")[0].abs() > 0.01);
    let plan = fs::read_to_string(world.path("other/plan.json")).unwrap();
    assert!(plan.contains("load reference"), "{plan}");
}

#[test]
fn with_an_adapter_the_reference_is_the_policy_without_it() {
    let world = world();
    let more = "lora.rank = 2\nkto.batch_size = 80\nkto.epochs = 3\n";
    run::kto(&config(&world, "adapter", more), launch(&mut Silent)).unwrap();
    let lines = world.metrics("adapter");
    assert_eq!((column(&lines, "kl")[0], column(&lines, "loss")[0]), (0.0, 0.5));
    assert!(column(&lines, "rewards/chosen")[2] != 0.0, "the adapter moves");
    assert!(world.path("adapter/checkpoints/step_3/adapter/adapter_config.json").is_file());
}

#[test]
fn rows_and_files_that_cannot_be_used_are_named() {
    let world = world();
    let bad = |rows: &str| {
        fs::write(world.path("bad.jsonl"), rows).unwrap();
        refusal(&world, "data.train = 'bad.jsonl'\n")
    };
    let said = bad("{\"prompt\": \"1\", \"completion\": \"1\"}\n");
    assert!(said.contains("bad.jsonl") && said.contains("\"label\""), "{said}");
    let said = bad("{\"prompt\": \"1\", \"completion\": \"1\", \"label\": \"good\"}\n");
    assert!(
        said.contains("column \"label\" must be true, false, \"chosen\" or \"rejected\""),
        "{said}"
    );
    let said = bad("{\"prompt\": \"1\", \"completion\": \"1\", \"label\": true}\n");
    assert!(said.contains("bad.jsonl: must have at least 2 completions"), "{said}");
}
