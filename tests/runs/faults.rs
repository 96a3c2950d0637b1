//! Stalls, panics and rewards that are none: each ends in a named error.

use rollforge::{
    config::{PpoConfig, SftConfig},
    run::{
        self, Silent,
        record::{EntryKind, Journal},
    },
};

use crate::world::{World, column, launch, ppo_of_digits};

/// Runs PPO into its error, which must be one line.
fn failure(world: &World, name: &str, more: &str) -> String {
    let config = world.config::<PpoConfig>(name, "guess", &ppo_of_digits("echo", more));
    let said = format!("{:#}", run::ppo(&config, launch(&mut Silent)).unwrap_err());
    assert_eq!(said.lines().count(), 1, "{said}");
    said
}

fn world() -> World {
    let world = World::of_digits();
    world.digits("echo", |prompt, _| prompt);
    world
}

/// Returns names and texts of a run's warnings.
fn warnings(world: &World, name: &str) -> Vec<(String, String)> {
    let entries = Journal::read(&world.path(name)).unwrap();
    let warnings = entries.into_iter().filter(|entry| entry.kind == EntryKind::Warning);
    warnings.filter_map(|entry| Some((entry.name?, entry.text))).collect()
}

#[test]
fn every_invariant_holds_in_a_usual_run_and_says_so() {
    let world = world();
    for (run, mode) in [
        ("in_turns", ""),
        (
            "by_arrival",
            "queue.mode = 'async'\nqueue.order = 'arrival'\nppo.samples_per_prompt = 2\n",
        ),
    ] {
        let more = format!("ppo.iterations = 3\nppo.mini_batches = 2\nppo.epochs = 1\n{mode}");
        world.ppo_of_digits(run, "guess", "echo", &more);
        let lines = world.metrics(run);
        for name in ["ledger", "rewards", "masks", "ratio", "finite"] {
            assert_eq!(column(&lines, &format!("invariant/{name}")), [0.0; 3], "{run} {name}");
        }
        let kl: Vec<_> = lines.iter().map(|line| line["invariant/kl"].as_f64()).collect();
        assert_eq!(kl, [Some(0.0), None, None], "{run}: after an optimizer step it may move");
        // How far stale samples are from the policy depends on who was faster.
        let broken = warnings(&world, run).into_iter().filter(|(name, _)| name != "mismatch");
        assert_eq!(broken.collect::<Vec<_>>(), []);
    }
}

#[test]
fn a_policy_that_is_not_its_reference_breaks_the_kl_invariant() {
    let world = world();
    let other = "ppo.iterations = 1\nmodel.reference = 'model'\n";
    world.ppo_of_digits("unasked", "guess", "echo", other);
    assert!(world.metrics("unasked")[0].get("invariant/kl").is_none());
    let said = failure(&world, "stopped", &format!("{other}invariants.kl = 'stop'\n"));
    assert!(said.contains("invariant kl is broken at step 1: the KL from the reference"), "{said}");
    assert!(!world.path("stopped/LATEST").exists(), "nothing was learned");
    world.ppo_of_digits("warned", "guess", "echo", &format!("{other}invariants.kl = 'warn'\n"));
    assert_eq!(column(&world.metrics("warned"), "invariant/kl"), [1.0]);
    assert_eq!(warnings(&world, "warned")[0].0, "kl");
}

#[test]
fn a_ratio_from_the_engines_numbers_is_looked_at_where_asked_for() {
    let world = world();
    let rollout = "ppo.iterations = 1\nppo.old_logprobs = 'rollout'\n";
    world.ppo_of_digits("unasked", "guess", "echo", rollout);
    assert!(world.metrics("unasked")[0].get("invariant/ratio").is_none());
    let warned = format!("{rollout}invariants.ratio = 'warn'\n");
    world.ppo_of_digits("warned", "guess", "echo", &warned);
    assert_eq!(column(&world.metrics("warned"), "invariant/ratio"), [1.0]);
    let wide = format!("{rollout}invariants.ratio = 'stop'\ninvariants.ratio_tolerance = 0.001\n");
    world.ppo_of_digits("within", "guess", "echo", &wide);
    assert_eq!(column(&world.metrics("within"), "invariant/ratio"), [0.0]);
}

#[test]
fn a_reward_out_of_range_stops_the_run_or_is_written_down() {
    let world = world();
    let range = "ppo.iterations = 2\ninvariants.reward_max = 0.5\n";
    let said = failure(&world, "stopped", range);
    let expected = "invariant rewards is broken at step 1: the reward of ";
    assert!(said.starts_with(expected) && said.contains("echo.jsonl:"), "{said}");
    assert!(said.ends_with("must be from -inf to 0.5, got 1"), "{said}");
    world.ppo_of_digits(
        "warned",
        "guess",
        "echo",
        &format!("{range}invariants.rewards = 'warn'\n"),
    );
    assert_eq!(column(&world.metrics("warned"), "invariant/rewards"), [1.0, 1.0]);
}

#[test]
fn an_sft_run_whose_weights_grow_beyond_all_bounds_stops() {
    let world = World::new("0123456789");
    world.digits("any", |prompt, row| (prompt + row / 10) % 10);
    let stopped = |name: &str, lr: &str| {
        let more = format!(
            "data.train = 'any.jsonl'\nsft.batch_size = 10\noptimizer.weight_decay = 0\noptimizer.lr = {lr}\n"
        );
        let config = world.config::<SftConfig>(name, "model", &more);
        let said = format!("{:#}", run::sft(&config, launch(&mut Silent)).unwrap_err());
        let entries = Journal::read(&world.path(name)).unwrap();
        let last = entries.last().unwrap();
        assert_eq!((last.name.as_deref(), &last.text), (Some("finite"), &said));
        said
    };
    // The forward pass overflows from the second step on: no weight moves any more.
    let said = stopped("skipped", "1e15");
    assert!(said.starts_with("invariant finite is broken at step 4: loss and gradient"), "{said}");
    assert!(said.ends_with("got 1 skipped, 3 in a row"), "{said}");
    assert_eq!(column(&world.metrics("skipped"), "optimizer/skipped"), [0.0, 1.0, 1.0, 1.0]);
    let latest = std::fs::read_to_string(world.path("skipped/LATEST")).unwrap();
    assert_eq!(latest.trim(), "checkpoints/step_4");
    // The weights do.
    let said = stopped("grown", "3e38");
    assert!(said.contains(": every weight must be finite, got weight of"), "{said}");
    assert!(!world.path("grown/LATEST").exists(), "no checkpoint gets such a weight");
}

#[cfg(feature = "fault-injection")]
mod injected {
    use std::{
        process::{Command, Stdio},
        time::{Duration, Instant},
    };

    use rollforge::{
        config::to_toml,
        run::{Earlier, Launch},
    };

    use super::*;

    /// Three iterations, of which the first is saved.
    const RUN: &str = "ppo.iterations = 3\ncheckpoint.every = 10\n";

    /// Goes on with a run that failed, under the configuration without what made it fail.
    fn resume(world: &World, name: &str, more: &str) {
        let config = world.config::<PpoConfig>(name, "guess", &ppo_of_digits("echo", more));
        run::ppo(&config, Launch { earlier: Earlier::Resume, ..launch(&mut Silent) }).unwrap();
    }

    /// Runs into a fault in the second iteration, which must leave the first as a checkpoint; goes on, and must end like a
    /// run without the fault. Returns the error.
    fn survives(world: &World, fault: &str, more: &str) -> String {
        let name = format!("{}_{}", fault.replace([':', '@'], "_"), more.len());
        let more = format!("{RUN}{more}");
        let said = failure(world, &name, &format!("{more}faults = ['{fault}']\n"));
        let latest = std::fs::read_to_string(world.path(&name).join("LATEST")).unwrap();
        assert_eq!(latest.trim(), "checkpoints/step_1", "{said}");
        let entries = Journal::read(&world.path(&name)).unwrap();
        assert!(entries.iter().any(|entry| said.ends_with(&entry.text)), "{said}: {entries:?}");
        resume(world, &name, &more);
        let undisturbed = format!("undisturbed_{}", more.len());
        if !world.path(&undisturbed).exists() {
            world.ppo_of_digits(&undisturbed, "guess", "echo", &more);
        }
        assert_eq!(world.checksum(&name), world.checksum(&undisturbed), "{fault}");
        said
    }

    #[test]
    fn a_reward_source_that_fails_panics_hangs_or_returns_no_number_is_named() {
        let world = world();
        let said = survives(&world, "reward:error@2", "");
        assert_eq!(said, "the reward source failed in iteration 2: told to fail");
        let said = survives(&world, "reward:panic@2", "");
        assert_eq!(said, "the reward source panicked in iteration 2: told to panic");
        let said = survives(&world, "reward:nan@2", "");
        assert!(said.contains("invariant rewards is broken at step 2: the reward of "), "{said}");
        assert!(said.ends_with("(prompt 199, sample 0) must be finite, got NaN"), "{said}");
        let said = survives(&world, "reward:hang@2", "deadlines.reward_seconds = 2.0\n");
        assert!(said.contains("s for the reward source to score 100 completions"), "{said}");
        assert!(said.contains("queue: ") && said.contains("KV blocks used"), "{said}");
    }

    #[test]
    fn an_engine_that_stalls_or_panics_is_named() {
        let world = world();
        let said = survives(&world, "engine:panic@2", "");
        assert!(
            said.ends_with("the engine has stopped: its backend panicked: told to panic"),
            "{said}"
        );
        // The trainer waits longer than the engine's caller, however slow the machine.
        let patience = "engine.deadline_seconds = 3.0\ndeadlines.rollouts_seconds = 60.0\n";
        let said = survives(&world, "engine:stall@2", patience);
        assert!(said.contains("generation ended; queue: "), "{said}");
        assert!(said.contains("the engine thread has been in step"), "{said}");
    }

    #[test]
    fn what_an_iteration_that_failed_had_begun_is_not_in_the_checkpoint() {
        let world = world();
        // The scale of scores has seen those of the second iteration by then.
        survives(&world, "trainer:error@2", "ppo.score_normalization = 'running'\n");
        // The queue has lost the batch of the second iteration, and holds answers for the third.
        survives(&world, "reward:error@2", "queue.mode = 'one_step_off'\n");
    }

    #[test]
    fn an_answer_that_comes_twice_is_not_trained_on() {
        let said = survives(&world(), "queue:twice@2", "");
        assert_eq!(
            said,
            "invariant ledger is broken at step 2: prompt 100 must be trained on once, got it a second time"
        );
    }

    #[test]
    fn a_trainer_that_panics_leaves_the_checkpoint_before_it() {
        let world = world();
        let more = "ppo.iterations = 3\ncheckpoint.every = 1\n";
        let said = failure(&world, "panicked", &format!("{more}faults = ['trainer:panic@2']\n"));
        assert!(
            said.starts_with(
                "the trainer thread panicked: told to panic; the trainer has been at the update"
            ),
            "{said}"
        );
        let entries = Journal::read(&world.path("panicked")).unwrap();
        assert_eq!(entries.last().unwrap().text, said);
        resume(&world, "panicked", more);
        world.ppo_of_digits("undisturbed", "guess", "echo", more);
        assert_eq!(world.checksum("panicked"), world.checksum("undisturbed"));
    }

    #[test]
    fn a_trainer_that_takes_nothing_out_of_a_full_queue_is_left_behind() {
        let more = "ppo.iterations = 3\nqueue.mode = 'async'\ndeadlines.trainer_seconds = 4.0\n\
                    faults = ['queue:full@2']\n";
        let said = failure(&world(), "full", more);
        let expected = "the run waited 4.0 s for a sign of life of the trainer";
        assert!(said.starts_with(expected) && said.contains("at records of iteration 1"), "{said}");
        assert!(said.contains("; queue: ") && said.contains("; engine: "), "{said}");
    }

    #[test]
    fn a_program_whose_trainer_or_engine_hangs_ends_by_itself() {
        let world = world();
        for (fault, expected) in [
            ("trainer:hang@2", "at the update of iteration 2 for"),
            ("engine:stall@2", "the engine thread has been in step"),
        ] {
            let name = fault.replace([':', '@'], "_");
            let more = "ppo.iterations = 3\ncheckpoint.every = 1\n\
                        deadlines.trainer_seconds = 4.0\nengine.deadline_seconds = 4.0\n";
            let config = world.config::<PpoConfig>(&name, "guess", &ppo_of_digits("echo", more));
            let said = program(&world, &config, fault);
            assert!(said.contains(expected), "{said}");
            let latest = std::fs::read_to_string(world.path(&name).join("LATEST")).unwrap();
            assert_eq!(latest.trim(), "checkpoints/step_1");
        }
    }

    /// Runs the program into a fault. It must end with status 1; returns what it says last.
    fn program(world: &World, config: &PpoConfig, fault: &str) -> String {
        let file = world.path("program.toml");
        std::fs::write(&file, to_toml(config)).unwrap();
        let mut program = Command::new(env!("CARGO_BIN_EXE_rollforge"));
        program.args(["ppo", "--quiet", "--set", &format!("faults=['{fault}']"), "--config"]);
        let mut program = program.arg(file).stderr(Stdio::piped()).spawn().unwrap();
        // The limit only keeps a program that never ends from hanging the tests.
        let since = Instant::now();
        while program.try_wait().unwrap().is_none() {
            if since.elapsed() > Duration::from_secs(120) {
                program.kill().unwrap();
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        let output = program.wait_with_output().unwrap();
        let said = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(1), "{said}");
        said.lines().last().unwrap_or_default().to_owned()
    }

    #[test]
    fn mini_batches_that_are_not_finite_are_skipped_and_counted_and_end_the_run_after_some() {
        let world = world();
        let more = "ppo.iterations = 2\nppo.epochs = 1\nppo.mini_batches = 2\n";
        let skipping =
            format!("{more}invariants.max_skipped_steps = 3\nfaults = ['gradient:nan@1']\n");
        world.ppo_of_digits("skipping", "guess", "echo", &skipping);
        let lines = world.metrics("skipping");
        assert_eq!(column(&lines, "optimizer/skipped"), [4.0, 0.0]);
        assert_eq!(column(&lines, "invariant/finite"), [1.0, 0.0]);
        assert_eq!(column(&lines, "optimizer_steps"), [0.0, 2.0]);
        let said = failure(&world, "stopped", &skipping.replace("= 3\n", "= 2\n"));
        assert!(said.ends_with("got 4 skipped, 2 in a row"), "{said}");
        assert_eq!(world.metrics("stopped").len(), 1, "the iteration that was over is on record");
    }

    #[test]
    fn a_checkpoint_that_cannot_be_written_leaves_the_one_before_it() {
        let world = world();
        let more = "ppo.iterations = 3\ncheckpoint.every = 1\n";
        let said = failure(&world, "full", &format!("{more}faults = ['checkpoint:error@2']\n"));
        assert_eq!(said, "told to fail");
        resume(&world, "full", more);
        world.ppo_of_digits("undisturbed", "guess", "echo", more);
        assert_eq!(world.checksum("full"), world.checksum("undisturbed"));
    }
}
