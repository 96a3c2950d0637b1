//! The whole job through the library: fine-tune, learn a reward, improve the policy. With its negative controls: what
//! must not change does not, and what nobody can learn is not learned.

#![cfg(feature = "libtorch")]
#![allow(clippy::unwrap_used, reason = "a test may fail")]

use std::{
    fmt::Write,
    fs,
    path::{Path, PathBuf},
};

use rollforge::{
    config::{self, Config, PpoConfig, RewardModelConfig, SftConfig},
    model::{Head, Model, NewModelSpec, new_model},
    rollout::Dtype,
    run::{
        self, Launch, Metrics, PpoOutcome, Silent,
        demo::{DemoData, Sizes},
        model_directory,
    },
};
use serde_json::Value;
use tempfile::TempDir;

/// A folder that holds a small model and everything that runs leave.
struct World(TempDir);

impl World {
    /// Makes a model with a tokenizer learned from a text.
    fn new(corpus: &str) -> Self {
        let world = Self(tempfile::tempdir().unwrap());
        let spec = NewModelSpec {
            vocab_size: 280,
            hidden_size: 32,
            intermediate_size: 64,
            num_layers: 2,
            num_heads: 2,
            max_positions: 256,
            ..NewModelSpec::default()
        };
        new_model(&spec, corpus.lines().map(String::from), &world.path("model")).unwrap();
        world
    }

    /// Makes a model of digits that has learned to answer a digit with any digit at all.
    fn of_digits() -> Self {
        let world = Self::new("0123456789");
        world.digits("any", |prompt, row| (prompt + row / 10) % 10);
        world.sft(
            "guess",
            "model",
            "data.train = 'any.jsonl'\ndata.append_eos = false\nsft.epochs = 20\n\
             sft.batch_size = 50\noptimizer.lr = 0.003\n",
        );
        world
    }

    /// Writes a hundred rows, ten of each digit: `prompt` and what `answer` makes of the digit and the row.
    fn digits(&self, name: &str, answer: impl Fn(usize, usize) -> usize) {
        let mut rows = String::new();
        for row in 0..100 {
            let (prompt, answer) = (row % 10, answer(row % 10, row));
            let line = serde_json::json!({
                "prompt": prompt.to_string(), "completion": answer.to_string(), "answer": answer.to_string(),
            });
            writeln!(rows, "{line}").unwrap();
        }
        fs::write(self.path(&format!("{name}.jsonl")), rows).unwrap();
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// Reads a configuration of one thread and a high learning rate, which `more` may override.
    fn config<T: Config>(&self, name: &str, model: &str, more: &str) -> T {
        let text = format!("output_dir = '{name}'\nseed = 1\nmodel.path = '{model}'\n{more}");
        let usual = [("threads", "1"), ("optimizer.lr", "0.01")];
        let overrides: Vec<String> = usual
            .iter()
            .filter(|(key, _)| !more.contains(&format!("{key} =")))
            .map(|(key, value)| format!("{key}={value}"))
            .collect();
        config::parse("test.toml", text, self.0.path(), &overrides).unwrap()
    }

    fn sft(&self, name: &str, model: &str, more: &str) {
        run::sft(&self.config::<SftConfig>(name, model, more), launch(&mut Silent)).unwrap();
    }

    /// Runs PPO on a file of digits, one token an answer, each row once an iteration.
    fn ppo_of_digits(&self, name: &str, from: &str, rows: &str, more: &str) -> PpoOutcome {
        run::ppo(
            &self.config::<PpoConfig>(name, from, &ppo_of_digits(rows, more)),
            launch(&mut Silent),
        )
        .unwrap()
    }

    /// Returns what a run directory's `metrics.jsonl` says, line by line.
    fn metrics(&self, run: &str) -> Vec<Value> {
        let text = fs::read_to_string(self.path(run).join("metrics.jsonl")).unwrap();
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    /// Returns a hash over the weights of the model that a directory stands for.
    fn checksum(&self, name: &str) -> String {
        let model = Model::open(&model_directory(&self.path(name))).unwrap();
        let weights = model.checkpoint.weights(Dtype::F32).unwrap();
        let reading = weights.lease().read(std::time::Duration::from_secs(1)).unwrap();
        weights.checksum(&reading)
    }

    /// Returns the one line with which a PPO run is refused, having made no run directory.
    fn refusal(&self, model: &str, more: &str) -> String {
        let config = self.config::<PpoConfig>("refused", model, more);
        let error = run::ppo(&config, launch(&mut Silent)).unwrap_err();
        let said = format!("{error:#}");
        assert_eq!(said.lines().count(), 1, "{said}");
        assert!(!self.path("refused").exists(), "{said}");
        said
    }
}

fn launch(observer: &mut Silent) -> Launch<'_> {
    Launch { clean: false, observer }
}

fn ppo_of_digits(rows: &str, more: &str) -> String {
    format!(
        "data.train = '{rows}.jsonl'\nreward = {{ kind = 'position_match', column = 'answer' }}\n\
         sampling.max_new_tokens = 1\nsampling.ignore_eos = true\nppo.prompts_per_iteration = 100\n\
         ppo.value_init = 'policy'\n{more}"
    )
}

/// Returns one metric in every line, which all must have.
fn column(lines: &[Value], name: &str) -> Vec<f64> {
    lines
        .iter()
        .map(|line| line[name].as_f64().unwrap_or_else(|| panic!("{name}: {line}")))
        .collect()
}

fn files(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).unwrap();
    let mut names: Vec<_> =
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

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
    let ppo = world.config::<PpoConfig>(
        "ppo",
        "sft",
        "data.train = 'data/prompts.jsonl'\nreward = { kind = 'model', path = 'rm' }\n\
         sampling.max_new_tokens = 8\nppo.prompts_per_iteration = 8\nppo.iterations = 3\nppo.epochs = 1\n\
         checkpoint.every = 1\n",
    );
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
        outcome.iterations[0].get("objective/scores").unwrap()
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
        let outcome = world.ppo_of_digits(name, "guess", "echo", &more);
        let untimed = |metrics: &Metrics| -> Vec<(String, f64)> {
            let all = metrics.iter().map(|(name, value)| (name.to_owned(), value));
            all.filter(|(name, _)| !is_timing(name)).collect()
        };
        (outcome.iterations.iter().map(untimed).collect::<Vec<_>>(), world.checksum(name))
    };
    let one = run("one", 1);
    assert!(one.0[0].len() > 20);
    assert_eq!(one, run("again", 1));
    assert_eq!(one, run("two", 2));
}

/// Says whether a metric measures time, so differs from run to run.
fn is_timing(name: &str) -> bool {
    name.starts_with("timing_s/")
        || ["sync/seconds", "perf/throughput", "perf/generation_tokens_per_s"].contains(&name)
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

    let before = files(world.0.path());
    let occupied = [("guess", "already exists and is not empty"), ("echo.jsonl/run", "echo.jsonl")];
    for (output_dir, rule) in occupied {
        let config = world.config::<PpoConfig>(output_dir, "model", &ppo_of_digits("echo", ""));
        let said = format!("{:#}", run::ppo(&config, launch(&mut Silent)).unwrap_err());
        assert!(said.contains(rule) && said.lines().count() == 1, "{said}");
    }
    assert_eq!(files(world.0.path()), before);
}
