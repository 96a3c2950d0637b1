//! Evaluations: each against what a run says of the same model, or against what its data make it.

use std::fs;

use rollforge::{
    config::{self, EvalConfig, RewardModelConfig},
    run::{
        self, Silent,
        eval::{EvalReport, eval},
    },
};

use crate::world::{World, launch};

const MATCH: &str = "reward = { kind = 'exact_match', column = 'answer' }\nsampling.max_new_tokens = 1\n\
                     sampling.ignore_eos = true\ndata.eval = 'right.jsonl'\n";

fn config(world: &World, model: &str, more: &str) -> EvalConfig {
    let text = format!("threads = 1\nmodel.path = '{model}'\n{more}");
    config::parse("eval.toml", text, world.0.path(), &[]).unwrap_or_else(|error| panic!("{error}"))
}

fn measure(world: &World, model: &str, more: &str) -> EvalReport {
    eval(&config(world, model, more), &mut |_| {}).unwrap_or_else(|error| panic!("{error:#}"))
}

fn refusal(world: &World, model: &str, more: &str) -> String {
    let error = eval(&config(world, model, more), &mut |_| {}).unwrap_err();
    let said = format!("{error:#}");
    assert_eq!(said.lines().count(), 1, "{said}");
    said
}

/// A model that answers any digit, and rows that ask for the same digit.
fn guessing() -> World {
    let world = World::of_digits();
    world.digits("right", |prompt, _| prompt);
    world
}

/// The same, and a model that has learned to repeat the digit.
fn world() -> World {
    let world = guessing();
    world.sft(
        "knows",
        "guess",
        "data.train = 'right.jsonl'\ndata.eval = 'right.jsonl'\ndata.append_eos = false\n\
         sft.epochs = 20\nsft.batch_size = 50\noptimizer.lr = 0.003\n",
    );
    world
}

#[test]
fn perplexity_is_that_of_the_run_and_pair_accuracy_that_of_the_reward_model() {
    let world = world();
    let data = "data.eval = 'right.jsonl'\ndata.append_eos = false\n";
    let report = measure(&world, "knows", &format!("eval.measure = 'perplexity'\n{data}"));
    let last = world.metrics("knows").pop().unwrap();
    let wanted = last["eval/perplexity"].as_f64().unwrap();
    assert!((report.values["perplexity"] - wanted).abs() < 1e-6, "{report:?} {wanted}");
    assert_eq!(report.values["tokens"], 100.0);

    let pair = |digit: usize| {
        let (better, worse) = (digit.max(4), digit.min(3));
        format!(
            "{{\"prompt\": \"{digit}\", \"chosen\": \"{better}\", \"rejected\": \"{worse}\"}}\n"
        )
    };
    fs::write(world.path("pairs.jsonl"), (0..10).map(pair).collect::<String>()).unwrap();
    let rows = "data.train = 'pairs.jsonl'\nreward_model.batch_size = 5\n";
    let config: RewardModelConfig = world.config("rm", "guess", rows);
    let trained = run::reward_model(&config, launch(&mut Silent)).unwrap().evaluation;
    let pairs = "eval.measure = 'pair_accuracy'\ndata.eval = 'pairs.jsonl'\n";
    let report = measure(&world, "rm", pairs);
    let share = report.share.unwrap();
    assert_eq!((share.share, share.trials), (trained.accuracy, 10));
    assert!((report.values["margin"] - trained.margin).abs() < 1e-5, "{report:?}");
    assert!(refusal(&world, "knows", pairs).contains("must have a score head"));
}

#[test]
fn who_knows_answers_right_and_wins() {
    let world = world();
    let accuracy = format!("eval.measure = 'accuracy'\n{MATCH}sampling.temperature = 0\n");
    let knows = measure(&world, "knows", &accuracy).share.unwrap();
    assert_eq!((knows.share, knows.trials), (1.0, 100));
    assert!(knows.low < 0.97 && knows.high == 1.0, "{knows:?}");
    let guesses = format!("eval.measure = 'accuracy'\n{MATCH}eval.samples_per_prompt = 8\n");
    let guesses = measure(&world, "guess", &guesses);
    let share = guesses.share.unwrap();
    assert!(share.low < 0.1 && 0.1 < share.high, "{share:?}");
    assert_eq!((guesses.values["length"], guesses.values["finished"]), (1.0, 0.0));

    let against = |other: &str| {
        format!(
            "eval.measure = 'win_rate'\nmodel.against = '{other}'\n{MATCH}sampling.temperature = 0.5\n"
        )
    };
    let ahead = measure(&world, "knows", &against("guess"));
    let behind = measure(&world, "guess", &against("knows"));
    let (won, lost) = (ahead.share.unwrap().share, behind.share.unwrap().share);
    assert!(won > 0.9 && won + lost == 1.0, "{won} {lost}");
    assert_eq!(ahead.values["reward"], behind.values["reward_against"]);
    // Same weights, same seed: the same completions.
    let itself = measure(&world, "guess", &against("guess"));
    assert_eq!((itself.share.unwrap().share, itself.values["ties"]), (0.5, 1.0));
}

#[test]
fn the_best_of_more_is_better_and_the_best_of_one_is_the_mean() {
    let world = guessing();
    let best = format!("eval.measure = 'best_of_n'\n{MATCH}eval.samples_per_prompt = 12\n");
    let report = measure(&world, "guess", &best);
    let curve = &report.curve;
    assert_eq!(curve.len(), 12);
    assert!((curve[0].best - report.values["reward"]).abs() < 1e-12, "{report:?}");
    for pair in curve.windows(2) {
        assert!(pair[0].best < pair[1].best && pair[0].kl_bound < pair[1].kl_bound, "{pair:?}");
    }
    // A reward of 0 or 1: the best of n is 1 where one of n is right. Guessing, that is about 1 - 0.9^n.
    assert!(curve.iter().all(|point| (point.best - point.pass).abs() < 1e-12));
    let guessed = 1.0 - 0.9f64.powi(12);
    assert!((curve[11].pass - guessed).abs() < 0.15, "{:?}", curve[11]);
    assert_eq!(measure(&world, "guess", &best), report);
}

#[test]
fn evaluations_that_cannot_be_made_are_refused_in_one_line() {
    let world = guessing();
    let accuracy = format!("eval.measure = 'accuracy'\n{MATCH}");
    let other = accuracy.replace("column = 'answer'", "column = 'nothing'");
    assert!(refusal(&world, "guess", &other).contains("lacks the column \"nothing\""));
    assert!(refusal(&world, "nowhere", &accuracy).contains("nowhere/config.json"));
    let stranger = World::new("abab abab abab");
    let against = format!(
        "eval.measure = 'win_rate'\nmodel.against = '{}'\n{MATCH}",
        stranger.path("model").display()
    );
    assert!(refusal(&world, "guess", &against).contains("must have the same tokenizer"));
}
