//! Dynamic sampling: prompts that teach nothing give way to others within the iteration.

use rollforge::{
    config::PpoConfig,
    run::{self, Earlier, Launch, Silent},
};

use super::resume::stopped;
use crate::world::{World, column, launch};

const ITERATIONS: usize = 4;
const BATCH: f64 = 6.0;

/// A model of noise whose one-token answers are right about every other time.
fn text(more: &str) -> String {
    format!(
        "data.train = 'echo.jsonl'\nreward = {{ kind = 'regex', pattern = '^[[:ascii:]]' }}\n\
         sampling.max_new_tokens = 1\nsampling.ignore_eos = true\nppo.preset = 'grpo'\noptimizer.lr = 0.0001\n\
         ppo.prompts_per_iteration = {BATCH}\nppo.samples_per_prompt = 2\nppo.filter_groups = true\n\
         ppo.iterations = {ITERATIONS}\n{more}"
    )
}

fn world() -> World {
    let world = World::new("0123456789");
    world.digits("echo", |prompt, _| prompt);
    world
}

fn ppo(world: &World, name: &str, more: &str) {
    let config = world.config::<PpoConfig>(name, "model", &text(more));
    run::ppo(&config, launch(&mut Silent)).unwrap();
}

#[test]
fn an_iteration_draws_until_all_its_prompts_teach_something() {
    let world = world();
    for mode in ["sync", "one_step_off", "async"] {
        let more = format!("ppo.max_refills = 50\nthreads = 2\nqueue.mode = '{mode}'\n");
        ppo(&world, mode, &more);
        let lines = world.metrics(mode);
        assert_eq!(column(&lines, "learning_fraction"), [1.0; ITERATIONS], "{mode}");
        assert_eq!(column(&lines, "frac_reward_zero_std"), [0.0; ITERATIONS], "{mode}");
        assert_eq!(column(&lines, "objective/scores"), [0.5; ITERATIONS], "{mode}");
        let refused = column(&lines, "queue/refused");
        assert!(refused.iter().sum::<f64>() > BATCH, "{mode}: {refused:?}");
        let staleness = if mode == "sync" { 0.0 } else { 1.0 };
        let lags = column(&lines, "queue/lag_max");
        assert!(lags.iter().all(|&lag| lag <= staleness), "{mode}: {lags:?}");
        // By ticket, runs repeat.
        let again = format!("{mode}_again");
        ppo(&world, &again, &more);
        assert_eq!(world.learned(mode), world.learned(&again), "{mode}");
        assert_eq!(world.checksum(mode), world.checksum(&again), "{mode}");
    }
}

#[test]
fn where_nothing_teaches_an_iteration_gives_up_after_so_many_refills() {
    let world = world();
    let never = text("ppo.max_refills = 3\n").replace("[:ascii:]", "☃");
    let config = world.config::<PpoConfig>("never", "model", &never);
    run::ppo(&config, launch(&mut Silent)).unwrap();
    let lines = world.metrics("never");
    assert_eq!(column(&lines, "queue/refused"), [3.0 * BATCH; ITERATIONS]);
    assert_eq!(column(&lines, "learning_fraction"), [0.0; ITERATIONS]);
    ppo(&world, "without", "");
    assert!(world.metrics("without").iter().all(|line| line.get("queue/refused").is_none()));
}

#[test]
fn a_run_that_refuses_prompts_goes_on_from_its_checkpoint() {
    let world = world();
    // Enough that the wish to stop, which another thread makes, comes before the end.
    let text =
        text("ppo.max_refills = 50\n").replace("ppo.iterations = 4\n", "ppo.iterations = 20\n");
    let config = |name| world.config::<PpoConfig>(name, "model", &text);
    run::ppo(&config("whole"), launch(&mut Silent)).unwrap();
    let config = config("halves");
    stopped(1, |launch| run::ppo(&config, launch));
    let mut silent = Silent;
    let resume = Launch { earlier: Earlier::Resume, ..launch(&mut silent) };
    run::ppo(&config, resume).unwrap();
    assert_eq!(world.checksum("halves"), world.checksum("whole"));
    assert_eq!(world.learned("halves"), world.learned("whole"));
}
