//! Synchronous, one step off, asynchronous: what overlaps, and that runs repeat.

use std::ops::RangeInclusive;

use rollforge::{
    config::PpoConfig,
    run::{self, Silent},
};
use serde_json::Value;

use crate::world::{World, column, launch};

/// A model of noise, and prompts of one digit each.
fn world() -> World {
    let world = World::new("0123456789");
    world.digits("echo", |prompt, _| prompt);
    world
}

const ITERATIONS: usize = 5;
const BATCH: f64 = 6.0;

/// Runs it, and returns everything that it says of its learning, and its weights.
fn ppo(world: &World, name: &str, more: &str) -> (Vec<Value>, String) {
    let config = format!(
        "data.train = 'echo.jsonl'\nreward = {{ kind = 'position_match', column = 'answer' }}\n\
         sampling.max_new_tokens = 5\nsampling.ignore_eos = true\nppo.value_init = 'policy'\n\
         ppo.prompts_per_iteration = {BATCH}\nppo.samples_per_prompt = 2\nppo.mini_batches = 2\n\
         ppo.epochs = 1\nppo.iterations = {ITERATIONS}\n{more}"
    );
    run::ppo(&world.config::<PpoConfig>(name, "model", &config), launch(&mut Silent)).unwrap();
    (world.learned(name), world.checksum(name))
}

fn lags(world: &World, name: &str) -> [Vec<f64>; 2] {
    let metrics = world.metrics(name);
    ["queue/lag_mean", "queue/lag_max"].map(|metric| column(&metrics, metric))
}

#[test]
fn by_ticket_every_mode_repeats_bit_for_bit_and_lags_by_its_staleness() {
    let world = world();
    for (mode, expected, depth) in [
        ("mode = 'sync'", [0.0, 0.0, 0.0, 0.0, 0.0], 0.0),
        ("mode = 'one_step_off'", [0.0, 1.0, 1.0, 1.0, 1.0], BATCH),
        ("mode = 'async', max_staleness = 3", [0.0, 1.0, 2.0, 3.0, 3.0], 3.0 * BATCH),
    ] {
        let name = mode.replace(['\'', ' '], "");
        // The trainer has one thread both times. One sequence after the other takes another time than all at once.
        let (threads, others) = if depth == 0.0 { (1, 1) } else { (2, 3) };
        let at_once = format!("threads = {threads}\nengine.threads = 1\nqueue = {{ {mode} }}\n");
        let one_by_one = format!(
            "threads = {others}\nengine.threads = 2\nengine.max_batch = 1\nqueue = {{ {mode} }}\n"
        );
        let again = format!("{name}_again");
        let first = ppo(&world, &name, &at_once);
        let second = ppo(&world, &again, &one_by_one);
        assert_eq!(first, second, "{mode}");
        // All tokens of a batch are equally old: the mean is the maximum.
        assert_eq!(lags(&world, &name), [expected, expected], "{mode}");
        let metrics = world.metrics(&name);
        assert_eq!(column(&metrics, "queue/depth"), [depth; ITERATIONS], "{mode}");
        assert_eq!(column(&metrics, "queue/dropped"), [0.0; ITERATIONS], "{mode}");
        assert_eq!(column(&metrics, "parity/first_ratio_error"), [0.0; ITERATIONS], "{mode}");
    }
}

#[test]
fn one_step_off_is_async_by_ticket_with_a_staleness_of_1() {
    let world = world();
    let run = |name: &str, mode: &str| {
        let more = format!("threads = 2\nqueue.mode = '{mode}'\n");
        ppo(&world, name, &more)
    };
    assert_eq!(run("one_step_off", "one_step_off"), run("async", "async"));
}

#[test]
fn by_arrival_no_token_is_staler_than_allowed_whatever_a_refit_meets() {
    let world = world();
    let untrained = world.checksum("model");
    for (in_flight, staleness) in [("drain", 1), ("recompute", 1), ("keep", 3)] {
        // A token of a prompt takes a step: the engine is at work at the refits.
        let more = format!(
            "threads = 2\nqueue = {{ mode = 'async', order = 'arrival', max_staleness = {staleness} }}\n\
             engine = {{ threads = 1, refit_in_flight = '{in_flight}', max_batch = 1, max_batch_tokens = 1 }}\n"
        );
        ppo(&world, in_flight, &more);
        let allowed: RangeInclusive<f64> = 0.0..=f64::from(staleness);
        for lags in lags(&world, in_flight) {
            assert!(lags.iter().all(|lag| allowed.contains(lag)), "{in_flight}: {lags:?}");
            assert_eq!(lags[0], 0.0, "the first batch is on-policy");
        }
        let metrics = world.metrics(in_flight);
        assert_eq!(column(&metrics, "sync/version"), [1.0, 2.0, 3.0, 4.0, 5.0]);
        assert!(column(&metrics, "loss/policy_avg").iter().all(|loss| loss.is_finite()));
        assert_ne!(world.checksum(in_flight), untrained);
    }
}

#[test]
fn one_step_off_takes_all_of_a_batch_from_one_version_by_arrival_too() {
    let world = world();
    let more = "threads = 2\nqueue = { mode = 'one_step_off', order = 'arrival' }\n";
    ppo(&world, "arrival", more);
    let expected = [0.0, 1.0, 1.0, 1.0, 1.0];
    assert_eq!(lags(&world, "arrival"), [expected, expected]);
}
