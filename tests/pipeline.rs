//! The whole job through the library: fine-tune, learn a reward, improve the policy. With its negative controls: what
//! must not change does not, and what nobody can learn is not learned.

#![cfg(feature = "libtorch")]
#![allow(clippy::unwrap_used, reason = "a test may fail")]

#[path = "support/world.rs"]
mod world;

use std::fs;

use rollforge::{
    config::{PpoConfig, RewardModelConfig},
    model::{Head, Model, NewModelSpec, new_model},
    run::{
        self, Earlier, Launch, Silent,
        demo::{DemoData, Sizes},
        model_directory,
    },
};
use serde_json::Value;
use world::{World, column, files, launch, ppo_of_digits};

#[test]
fn fine_tuning_a_reward_model_and_ppo_leave_whole_run_directories() {
    let data = DemoData::new(1, Sizes { reviews: 32, pairs: 16, prompts: 12, held_out: 4 });
    let world = World::new(&data.texts().collect::<Vec<_>>().join("\n"));
    data.write(&world.path("data")).unwrap();
    world.sft("sft", "model", "data.train = 'data/sft.jsonl'\nsft.batch_size = 8\n");
    let reward = world.config::<RewardModelConfig>(
        "rm",
        "sft",
        "data.train = 'data/pairs.jsonl'\ndata.eval = 'data/pairs_eval.jsonl'\nreward_model.batch_size = 8\n",
    );
    run::reward_model(&reward, launch(&mut Silent)).unwrap();
    let more = "data.train = 'data/prompts.jsonl'\nreward = { kind = 'model', path = 'rm' }\n\
         sampling.max_new_tokens = 8\nppo.prompts_per_iteration = 8\nppo.iterations = 3\nppo.epochs = 1\n\
         checkpoint.every = 1\n";
    let ppo = world.config::<PpoConfig>("ppo", "sft", more);
    let outcome = run::ppo(&ppo, launch(&mut Silent)).unwrap();

    for (name, steps) in [("sft", 4), ("rm", 2), ("ppo", 3)] {
        let run = world.path(name);
        assert_eq!(
            column(&world.metrics(name), "step"),
            (1..=steps).map(f64::from).collect::<Vec<_>>()
        );
        let latest = fs::read_to_string(run.join("LATEST")).unwrap();
        assert_eq!(latest.trim(), format!("checkpoints/step_{steps}"));
        let resolved = fs::read_to_string(run.join("config.resolved.toml")).unwrap();
        assert!(resolved.contains("max_grad_norm = 1.0"), "{resolved}");
    }
    assert_eq!(files(&world.path("ppo/checkpoints")), ["step_2", "step_3"]);
    assert_eq!(
        files(&world.path("ppo/samples")),
        [1, 2, 3].map(|n| format!("iteration_{n}.jsonl"))
    );
    let head = |path: &str| Model::open(&world.path(path)).unwrap().spec().head;
    assert_eq!(head("sft/checkpoints/step_4/policy"), Head::LanguageModel);
    assert_eq!(head("rm/checkpoints/step_2/reward_model"), Head::Score);
    assert_eq!(head("ppo/checkpoints/step_3/policy"), Head::LanguageModel);
    assert_eq!(head("ppo/checkpoints/step_3/value"), Head::Score);
    assert_eq!(outcome.policy, world.path("ppo/checkpoints/step_3/policy"));
    assert_ne!(world.checksum("ppo"), world.checksum("sft"));

    let lines = world.metrics("ppo");
    for name in [
        "objective/scores",
        "objective/entropy",
        "policy/approxkl_avg",
        "loss/policy_avg",
        "loss/value_avg",
        "response_length/mean",
        "parity/dlogp_max",
        "sync/seconds",
        "perf/throughput",
        "timing_s/gen",
        "timing_s/update",
        "timing_s/update_weights",
        "timing_s/step",
        "lr",
        "episode",
    ] {
        assert!(column(&lines, name).iter().all(|number| number.is_finite()), "{name}");
    }
    // The engine reads the trainer's own memory, and one step of one mini-batch starts where the rollouts were made.
    assert_eq!(column(&lines, "sync/bytes"), [0.0; 3]);
    assert_eq!(column(&lines, "sync/version"), [1.0, 2.0, 3.0]);
    assert_eq!(column(&lines, "val/ratio"), [1.0; 3]);
    let kl = column(&lines, "objective/kl");
    assert!(kl[0] == 0.0 && kl[1] != 0.0 && kl[2] != 0.0, "{kl:?}");

    check_standardized(&world, more, column(&lines, "objective/scores")[0]);
}

/// Checks that standardized scores of the same rollouts are what their raw ones come to, whether the reward model goes by
/// its run's name or by its own.
fn check_standardized(world: &World, more: &str, raw: f64) {
    let folder = world.path("rm/checkpoints/step_2/reward_model");
    let scale = fs::read_to_string(folder.join("reward_standardization.json")).unwrap();
    let scale: Value = serde_json::from_str(&scale).unwrap();
    let expected = (raw - scale["mean"].as_f64().unwrap()) / scale["std"].as_f64().unwrap();
    for (name, path) in [("by_run", "rm"), ("by_model", "rm/checkpoints/step_2/reward_model")] {
        let more = more
            .replace("path = 'rm'", &format!("path = '{path}', standardize = true"))
            .replace("iterations = 3", "iterations = 1");
        run::ppo(&world.config::<PpoConfig>(name, "sft", &more), launch(&mut Silent)).unwrap();
        let score = column(&world.metrics(name), "objective/scores")[0];
        assert!((score - expected).abs() < 1e-5, "{score} instead of {expected}");
    }
}

#[test]
fn a_learning_rate_of_zero_changes_nothing_bit_for_bit() {
    let world = World::of_digits();
    world.digits("echo", |prompt, _| prompt);
    let still = "optimizer.lr = 0.0\nppo.critic_lr = 0.0\nppo.iterations = 3\nppo.epochs = 3\nppo.mini_batches = 4\n";
    world.ppo_of_digits("still", "guess", "echo", still);
    assert_eq!(world.checksum("still"), world.checksum("guess"));
    let lines = world.metrics("still");
    assert_eq!(column(&lines, "optimizer_steps"), [12.0; 3]);
    assert_eq!(column(&lines, "objective/kl"), [0.0; 3]);
    assert_eq!(column(&lines, "val/ratio"), [1.0; 3]);
    assert_eq!(column(&lines, "val/ratio_var"), [0.0; 3]);
    // It did have something to learn from.
    assert!(column(&lines, "policy/grad_norm").iter().all(|norm| *norm > 0.0));
}

#[test]
fn rewards_that_belong_to_other_samples_teach_nothing() {
    let world = World::of_digits();
    world.digits("echo", |prompt, _| prompt);
    // The same answers as often, each with every prompt alike.
    world.digits("shuffled", |_, row| row / 10);
    // The score under the true rewards, of a run that only looks.
    let score = |policy: &str| {
        let look = "optimizer.lr = 0.0\nppo.critic_lr = 0.0\nppo.iterations = 1\nppo.samples_per_prompt = 8\n";
        let outcome = world.ppo_of_digits(&format!("look_at_{policy}"), policy, "echo", look);
        outcome.last.unwrap().get("objective/scores").unwrap()
    };
    let learn = "ppo.iterations = 20\nppo.kl_coef = 0.0\nppo.entropy_coef = 0.02\noptimizer.lr = 0.002\n\
                 ppo.samples_per_prompt = 4\nppo.mini_batches = 2\n";
    world.ppo_of_digits("true", "guess", "echo", learn);
    world.ppo_of_digits("permuted", "guess", "shuffled", learn);
    let (before, learned, permuted) = (score("guess"), score("true"), score("permuted"));
    assert!((0.05..0.15).contains(&before), "{before}");
    assert!(learned > 0.8, "{before} to {learned}");
    assert!(permuted < 0.2, "{before} to {permuted}");
}

#[test]
fn the_same_seed_gives_the_same_run_whatever_the_engines_threads() {
    let world = World::of_digits();
    world.digits("echo", |prompt, _| prompt);
    let run = |name: &str, threads: usize| {
        let more =
            format!("ppo.iterations = 3\nppo.mini_batches = 2\nengine.threads = {threads}\n");
        world.ppo_of_digits(name, "guess", "echo", &more);
        (world.learned(name), world.checksum(name))
    };
    let one = run("one", 1);
    assert!(one.0[0].as_object().unwrap().len() > 20);
    assert_eq!(one, run("again", 1));
    assert_eq!(one, run("two", 2));
}

#[test]
fn a_resumed_run_ends_as_one_that_was_never_stopped_bit_for_bit() {
    let world = World::of_digits();
    world.digits("echo", |prompt, _| prompt);
    let more = "ppo.iterations = 4\nppo.mini_batches = 2\nppo.samples_per_prompt = 2\nppo.prompts_per_iteration = 30\n\
                ppo.kl_coef = 0.05\nppo.kl_target = 1.0\nschedule.kind = 'linear'\ncheckpoint.every = 2\ncheckpoint.keep = 0\n";
    let text = ppo_of_digits("echo", more).replace("ppo.prompts_per_iteration = 100\n", "");
    let config = world.config::<PpoConfig>("run", "guess", &text);
    run::ppo(&config, launch(&mut Silent)).unwrap();
    let (whole, metrics) = (world.checksum("run"), world.learned("run"));

    fs::remove_dir_all(world.path("run/checkpoints/step_4")).unwrap();
    fs::write(world.path("run/LATEST"), "checkpoints/step_2\n").unwrap();
    assert_ne!(world.checksum("run"), whole);
    let resume = || run::ppo(&config, Launch { earlier: Earlier::Resume, ..launch(&mut Silent) });
    resume().unwrap();
    assert_eq!(world.checksum("run"), whole);
    assert_eq!(world.learned("run"), metrics);

    let state = world.path("run/checkpoints/step_4/trainer/value.exp_avg.safetensors");
    let mut bytes = fs::read(&state).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    fs::write(&state, bytes).unwrap();
    let said = format!("{:#}", resume().unwrap_err());
    assert!(said.contains("value.exp_avg.safetensors is damaged"), "{said}");
    assert_eq!(world.learned("run"), metrics);
}

#[test]
fn a_run_that_cannot_be_is_refused_before_its_directory_is_made() {
    let world = World::of_digits();
    world.digits("echo", |prompt, _| prompt);
    let pair = "{\"prompt\": \"1=\", \"chosen\": \"1\", \"rejected\": \"2\"}\n";
    fs::write(world.path("pairs.jsonl"), pair).unwrap();
    let pairs = "data.train = 'pairs.jsonl'\n";
    let reward = world.config::<RewardModelConfig>("rm", "guess", pairs);
    run::reward_model(&reward, launch(&mut Silent)).unwrap();

    let by_model = |path: &str| {
        format!("data.train = 'echo.jsonl'\nreward = {{ kind = 'model', path = '{path}' }}\n")
    };
    let said = world.refusal("guess", &by_model("model"));
    assert!(said.contains("a reward model must have a score head"), "{said}");
    let said = world.refusal("rm", &by_model("rm"));
    assert!(said.contains("must be a language model, this one has a score head"), "{said}");
    let said = world.refusal("guess", &by_model("nowhere"));
    assert!(said.contains("nowhere/config.json"), "{said}");
    let said = world.refusal("guess", &ppo_of_digits("echo", "").replace("'answer'", "'answr'"));
    assert!(said.contains("echo.jsonl:1") && said.contains("lacks the column \"answr\""), "{said}");

    let short = NewModelSpec {
        tokenizer: Some(world.path("model")),
        hidden_size: 32,
        intermediate_size: 64,
        num_layers: 1,
        num_heads: 2,
        max_positions: 2,
        ..NewModelSpec::default()
    };
    new_model(&short, std::iter::empty(), &world.path("short")).unwrap();
    let with_reference = "model.reference = 'short'\nsampling.max_new_tokens = 2\n";
    let more = ppo_of_digits("echo", "").replace("sampling.max_new_tokens = 1\n", with_reference);
    let said = world.refusal("guess", &more);
    assert!(said.contains("short: its context must hold the longest rollout"), "{said}");
    let long = serde_json::json!({ "prompt": "7".repeat(300), "answer": "7" });
    fs::write(world.path("long.jsonl"), long.to_string()).unwrap();
    let said = world.refusal("guess", &ppo_of_digits("long", ""));
    assert!(said.contains("longer than 255 tokens") && said.contains("long.jsonl:1"), "{said}");

    let before = files(world.0.path());
    let policy = model_directory(&world.path("guess"));
    let more = ppo_of_digits("echo", "");
    let config = world.config::<PpoConfig>("guess", policy.to_str().unwrap(), &more);
    let mut observer = Silent;
    let clean = Launch { earlier: Earlier::Delete, ..launch(&mut observer) };
    let said = format!("{:#}", run::ppo(&config, clean).unwrap_err());
    assert!(said.contains("which --clean deletes") && policy.is_dir(), "{said}");
    let occupied = [("guess", "already exists and is not empty"), ("echo.jsonl/run", "echo.jsonl")];
    for (output_dir, rule) in occupied {
        let config = world.config::<PpoConfig>(output_dir, "model", &ppo_of_digits("echo", ""));
        let said = format!("{:#}", run::ppo(&config, launch(&mut Silent)).unwrap_err());
        assert!(said.contains(rule) && said.lines().count() == 1, "{said}");
    }
    assert_eq!(files(world.0.path()), before);
}
