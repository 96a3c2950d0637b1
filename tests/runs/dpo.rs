//! Preference optimisation without rollouts.

use std::{f64::consts::LN_2, fs};

use rollforge::{
    config::DpoConfig,
    model::{NewModelSpec, new_model},
    run::{self, Earlier, Launch, Silent, Stop},
};

use crate::{
    resume::stopped,
    world::{World, column, launch},
};

/// Writes pairs in which a digit is asked for itself, once for each of the other digits that `offsets` leads to; `flipped`
/// says which of them are labelled the wrong way round.
fn write_pairs(
    world: &World,
    name: &str,
    offsets: std::ops::RangeInclusive<usize>,
    flipped: fn(usize) -> bool,
) {
    let mut rows = String::new();
    for (prompt, offset) in (0..10).flat_map(|prompt| offsets.clone().map(move |o| (prompt, o))) {
        let (right, other) = (prompt, (prompt + offset) % 10);
        let (chosen, rejected) = if flipped(offset) { (other, right) } else { (right, other) };
        rows += &format!(
            "{{\"prompt\": \"{prompt}\", \"chosen\": \"{chosen}\", \"rejected\": \"{rejected}\", \"chosen_reward\": 2}}\n"
        );
    }
    fs::write(world.path(name), rows).unwrap();
}

/// A model that answers any digit, pairs to learn from, and pairs with other digits to measure on.
fn world() -> World {
    let world = World::of_digits();
    write_pairs(&world, "pairs.jsonl", 1..=7, |_| false);
    write_pairs(&world, "flipped.jsonl", 1..=8, |offset| offset % 2 == 0);
    write_pairs(&world, "eval.jsonl", 8..=9, |_| false);
    world
}

fn config(world: &World, name: &str, more: &str) -> DpoConfig {
    let data = if more.contains("data.train") { "" } else { "data.train = 'pairs.jsonl'\n" };
    let text = format!(
        "{data}data.eval = 'eval.jsonl'\ndata.append_eos = false\ndpo.batch_size = 16\n{more}"
    );
    world.config(name, "guess", &text)
}

fn refusal(world: &World, more: &str) -> String {
    let error = run::dpo(&config(world, "refused", more), launch(&mut Silent)).unwrap_err();
    assert!(!world.path("refused").exists());
    let said = format!("{error:#}");
    assert_eq!(said.lines().count(), 1, "{said}");
    said
}

#[test]
fn a_policy_learns_which_answer_is_better_and_wrong_labels_teach_nothing() {
    let world = world();
    let more = "dpo.epochs = 6\noptimizer.lr = 0.003\n";
    let learned = run::dpo(&config(&world, "dpo", more), launch(&mut Silent)).unwrap();
    let stats = learned.evaluation.unwrap();
    assert!(stats.accuracy > 0.9 && stats.chosen - stats.rejected > 0.1, "{stats:?}");

    let more = format!("{more}data.train = 'flipped.jsonl'\n");
    let control = run::dpo(&config(&world, "control", &more), launch(&mut Silent)).unwrap();
    let stats = control.evaluation.unwrap();
    assert!(stats.accuracy < 0.8 && (stats.chosen - stats.rejected).abs() < 0.1, "{stats:?}");
}

/// Pairs of many lengths, so that the same sequence among others is not the same in its last bits.
fn write_long_pairs(world: &World) {
    let digits = |row: usize, count: usize| -> String {
        (0..count).map(|i| char::from(b'0' + ((row * 7 + i * i * 3 + i) % 10) as u8)).collect()
    };
    let row = |row: usize| {
        let (prompt, chosen) = (digits(row, 1 + row * 5 % 37), digits(row + 1, 1 + row * 3 % 23));
        let rejected = digits(row + 2, 2 + row * 11 % 29);
        format!(
            "{{\"prompt\": \"{prompt}\", \"chosen\": \"{chosen}\", \"rejected\": \"{rejected}\"}}\n"
        )
    };
    fs::write(world.path("long.jsonl"), (0..60).map(row).collect::<String>()).unwrap();
}

#[test]
fn the_first_loss_of_a_run_is_exactly_ln_2_in_whatever_micro_batches() {
    let world = World::new("0123456789");
    write_long_pairs(&world);
    // Wide enough for libtorch to sum in another order in another batch.
    let spec = NewModelSpec {
        tokenizer: Some(world.path("model")),
        vocab_size: 280,
        hidden_size: 320,
        intermediate_size: 1024,
        num_layers: 2,
        num_heads: 5,
        ..NewModelSpec::default()
    };
    new_model(&spec, std::iter::empty(), &world.path("wide")).unwrap();
    for (name, more) in [
        ("whole", ""),
        ("cut", "dpo.micro_batch_tokens = 150\n"),
        ("bf16", "dpo.micro_batch_tokens = 150\nmodel.dtype = 'bf16'\n"),
    ] {
        let more =
            format!("data.train = 'long.jsonl'\ndpo.batch_size = 16\ndpo.max_steps = 2\n{more}");
        let config = world.config::<DpoConfig>(name, "wide", &more);
        run::dpo(&config, launch(&mut Silent)).unwrap();
        let lines = world.metrics(name);
        assert!((column(&lines, "loss")[0] - LN_2).abs() < 1e-15, "{name}");
        assert_eq!((column(&lines, "kl")[0], column(&lines, "rewards/chosen")[0]), (0.0, 0.0));
        assert!(column(&lines, "kl")[1..].iter().all(|&kl| kl > 0.0), "{name}");
    }
}

#[test]
fn a_reference_that_is_another_model_is_what_the_policy_is_compared_with() {
    let world = world();
    let more = "model.reference = 'model'\ndpo.max_steps = 2\n";
    run::dpo(&config(&world, "other", more), launch(&mut Silent)).unwrap();
    assert!(column(&world.metrics("other"), "kl")[0] > 0.1);
    let plan = fs::read_to_string(world.path("other/plan.json")).unwrap();
    assert!(plan.contains("load reference"), "{plan}");

    let said = refusal(&world, "model.reference = 'nowhere'\n");
    assert!(said.contains("nowhere"), "{said}");
}

#[test]
fn a_loss_without_a_reference_reads_none() {
    let world = world();
    for loss in ["orpo", "simpo"] {
        let more = format!("dpo.loss = '{loss}'\ndpo.max_steps = 2\ndpo.beta = 1.0\n");
        run::dpo(&config(&world, loss, &more), launch(&mut Silent)).unwrap();
        assert!(world.metrics(loss)[0].get("kl").is_none());
        let plan = fs::read_to_string(world.path(loss).join("plan.json")).unwrap();
        assert!(!plan.contains("reference"), "{plan}");
    }
}

#[test]
fn a_run_that_was_asked_to_stop_goes_on_with_the_reference_it_began_with() {
    let world = world();
    let more = "dpo.epochs = 2\nschedule.kind = 'linear'\ndpo.eval_every = 3\n";
    run::dpo(&config(&world, "whole", more), launch(&mut Silent)).unwrap();
    let halves = config(&world, "halves", more);
    stopped(3, |launch| run::dpo(&halves, launch));
    let mut observer = Silent;
    let resumed =
        Launch { earlier: Earlier::Resume, observer: &mut observer, stop: Stop::default() };
    run::dpo(&halves, resumed).unwrap();
    assert_eq!(world.checksum("halves"), world.checksum("whole"));
    assert_eq!(world.learned("halves"), world.learned("whole"));
}

#[test]
fn rows_that_cannot_be_used_are_named_as_those_of_a_reward_model_are() {
    let world = world();
    fs::write(world.path("bad.jsonl"), "{\"prompt\": \"1\", \"chosen\": \"1\"}\n").unwrap();
    let said = refusal(&world, "data.train = 'bad.jsonl'\n");
    assert!(said.contains("bad.jsonl") && said.contains("\"rejected\""), "{said}");
    let row = "{\"prompt\": \"1\", \"chosen\": \"1\", \"rejected\": \"2\", \"chosen_reward\": \"much\"}\n";
    fs::write(world.path("bad.jsonl"), row).unwrap();
    let said = refusal(&world, "data.train = 'bad.jsonl'\n");
    assert!(said.contains("column \"chosen_reward\" must be a finite number"), "{said}");
}
