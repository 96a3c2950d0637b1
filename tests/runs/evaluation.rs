//! Held-out prompts during PPO, and runs that end early because nothing gets better.

use std::fs;

use rollforge::{
    config::{self, EvalConfig, PpoConfig, SftConfig},
    run::{self, Earlier, Launch, Silent, eval::eval},
};

use super::resume::stopped;
use crate::world::{World, column, files, launch, ppo_of_digits};

fn world() -> World {
    let world = World::of_digits();
    world.digits("right", |prompt, _| prompt);
    world
}

fn resume(observer: &mut Silent) -> Launch<'_> {
    Launch { earlier: Earlier::Resume, ..launch(observer) }
}

/// The text of a short run, with held-out prompts or without.
fn text(more: &str) -> String {
    let text = ppo_of_digits("right", &format!("ppo.iterations = 5\nppo.epochs = 2\n{more}"));
    text.replace("prompts_per_iteration = 100", "prompts_per_iteration = 20")
}

fn ppo(world: &World, name: &str, more: &str) {
    run::ppo(&world.config::<PpoConfig>(name, "guess", &text(more)), launch(&mut Silent)).unwrap();
}

const EVAL: &str = "data.eval = 'right.jsonl'\nppo.eval_every = 2\n";

#[test]
fn the_policy_is_measured_when_that_is_due_and_as_eval_measures_it() {
    let world = world();
    for mode in ["sync", "one_step_off", "async"] {
        let queue = format!("threads = 2\nqueue.mode = '{mode}'\n");
        let (with, without) = (mode.to_owned(), format!("{mode}_without"));
        ppo(&world, &with, &format!("{queue}{EVAL}"));
        ppo(&world, &without, &queue);
        // Who is looked at learns the same.
        assert_eq!(world.checksum(&with), world.checksum(&without), "{mode}");
        let lines = world.metrics(&with);
        let due = |line: &serde_json::Value| line.get("eval/scores").is_some();
        assert_eq!(lines.iter().map(due).collect::<Vec<_>>(), [false, true, false, true, true]);
        assert!(world.metrics(&without).iter().all(|line| !due(line)));
        let measure = format!(
            "threads = 1\nmodel.path = '{mode}'\ndata.eval = 'right.jsonl'\neval.measure = 'accuracy'\n\
             reward = {{ kind = 'position_match', column = 'answer' }}\nsampling.max_new_tokens = 1\n\
             sampling.ignore_eos = true\nsampling.temperature = 0.0\n"
        );
        let measure: EvalConfig = config::parse("eval.toml", measure, world.0.path(), &[]).unwrap();
        let report = eval(&measure, &mut |_| {}).unwrap();
        let last = &lines[4..];
        assert!((column(last, "eval/scores")[0] - report.values["reward"]).abs() < 1e-9);
        assert_eq!(column(last, "eval/response_length"), [report.values["length"]]);
        assert_eq!(column(last, "eval/ended"), [report.values["finished"]]);
    }
}

#[test]
fn the_best_policy_is_the_one_that_is_best_on_what_is_held_out() {
    let world = world();
    let more = "data.eval = 'right.jsonl'\ncheckpoint.every = 1\ncheckpoint.keep = 1\ncheckpoint.keep_best = 1\n";
    ppo(&world, "run", more);
    // Without a schedule of its own: each checkpoint needs it.
    let scores = column(&world.metrics("run"), "eval/scores");
    let best = (0..scores.len()).rev().max_by(|a, b| scores[*a].total_cmp(&scores[*b])).unwrap();
    let mut expected = vec![format!("step_{}", best + 1), "step_5".into()];
    expected.sort();
    expected.dedup();
    assert_eq!(files(&world.path("run/checkpoints")), expected, "{scores:?}");
}

#[test]
fn a_run_that_gets_no_better_ends_early_and_so_it_does_when_it_is_resumed() {
    let world = world();
    // What is learned is unlearned again: the rate is too high.
    let more = "data.train = 'right.jsonl'\ndata.eval = 'right.jsonl'\nsft.batch_size = 50\nsft.epochs = 20\n\
                optimizer.lr = 0.3\ncheckpoint.every = 1\ncheckpoint.keep = 1\ncheckpoint.keep_best = 1\n\
                checkpoint.patience = 3\n";
    world.sft("whole", "model", more);
    let losses = column(&world.metrics("whole"), "eval/loss");
    assert!(losses.len() < 40, "{losses:?}");
    let best = (0..losses.len()).min_by(|a, b| losses[*a].total_cmp(&losses[*b])).unwrap();
    assert_eq!(losses.len(), best + 1 + 3, "{losses:?}");
    let journal = fs::read_to_string(world.path("whole/journal.jsonl")).unwrap();
    let said = journal.lines().last().unwrap();
    assert!(said.contains("\"stop\"") && said.contains("(checkpoint.patience = 3)"), "{said}");
    assert!(said.contains(&format!("checkpoints/step_{}", best + 1)), "{said}");

    let config = world.config::<SftConfig>("halves", "model", more);
    stopped(best as u64 + 1, |launch| run::sft(&config, launch));
    run::sft(&config, resume(&mut Silent)).unwrap();
    assert_eq!(world.learned("halves"), world.learned("whole"));
    let again = run::sft(&config, resume(&mut Silent)).unwrap();
    assert_eq!(world.learned("halves"), world.learned("whole"), "nothing was left to do");
    assert!(again.policy.ends_with(format!("step_{}/policy", losses.len())));
}

#[test]
fn ppo_ends_early_by_what_is_held_out() {
    let world = world();
    let more = "data.eval = 'right.jsonl'\noptimizer.lr = 1e-12\ncheckpoint.every = 1\ncheckpoint.keep_best = 1\n\
                checkpoint.patience = 2\n";
    ppo(&world, "run", more);
    // No step is better than the first, for nothing is learned.
    assert_eq!(world.metrics("run").len(), 3);
}

#[test]
fn what_cannot_be_measured_is_refused_by_name() {
    let world = world();
    fs::write(world.path("no_answer.jsonl"), "{\"prompt\": \"1\"}\n").unwrap();
    let said = world.refusal("guess", &text("data.eval = 'no_answer.jsonl'\n"));
    assert!(said.contains("no_answer.jsonl:1") && said.contains("answer"), "{said}");
    let parse = |more: &str| {
        let text = format!("output_dir = 'x'\nmodel.path = 'guess'\n{}", text(more));
        config::parse::<PpoConfig>("ppo.toml", text, world.0.path(), &[]).unwrap_err().to_string()
    };
    for (more, wanted) in [
        ("ppo.eval_every = 2\n", "ppo.eval_every must be 0 where data.eval names no file, got 2"),
        (
            "checkpoint.patience = 2\ncheckpoint.every = 1\n",
            "checkpoint.patience must be 0 unless checkpoint.every and checkpoint.keep_best are at least 1, got 2",
        ),
        (
            "ppo.eval_temperature = -1.0\n",
            "ppo.eval_temperature must be a number from 0 up, got -1",
        ),
    ] {
        let said = parse(more);
        assert!(said.contains(wanted), "{said}");
    }
}
