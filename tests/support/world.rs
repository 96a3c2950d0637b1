//! A folder with a small model and everything that runs leave, for tests of whole runs.

use std::{
    fmt::Write,
    fs,
    path::{Path, PathBuf},
};

use rollforge::{
    config::{self, Config, PpoConfig, SftConfig},
    model::{Model, NewModelSpec, new_model},
    rollout::Dtype,
    run::{self, Earlier, Launch, PpoOutcome, Silent, Stop, model_directory},
};
use serde_json::Value;
use tempfile::TempDir;

/// A folder that holds a small model and everything that runs leave.
pub(crate) struct World(pub(crate) TempDir);

impl World {
    /// Makes a model with a tokenizer learned from a text.
    pub(crate) fn new(corpus: &str) -> Self {
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
    pub(crate) fn of_digits() -> Self {
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
    pub(crate) fn digits(&self, name: &str, answer: impl Fn(usize, usize) -> usize) {
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

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// Reads a configuration of one thread and a high learning rate, which `more` may override.
    pub(crate) fn config<T: Config>(&self, name: &str, model: &str, more: &str) -> T {
        let text = format!("output_dir = '{name}'\nseed = 1\nmodel.path = '{model}'\n{more}");
        let usual = [("threads", "1"), ("optimizer.lr", "0.01")];
        let overrides: Vec<String> = usual
            .iter()
            .filter(|(key, _)| !more.contains(&format!("{key} =")))
            .map(|(key, value)| format!("{key}={value}"))
            .collect();
        config::parse("test.toml", text, self.0.path(), &overrides).unwrap()
    }

    pub(crate) fn sft(&self, name: &str, model: &str, more: &str) {
        run::sft(&self.config::<SftConfig>(name, model, more), launch(&mut Silent)).unwrap();
    }

    /// Runs PPO on a file of digits, one token an answer, each row once an iteration.
    pub(crate) fn ppo_of_digits(
        &self,
        name: &str,
        from: &str,
        rows: &str,
        more: &str,
    ) -> PpoOutcome {
        run::ppo(
            &self.config::<PpoConfig>(name, from, &ppo_of_digits(rows, more)),
            launch(&mut Silent),
        )
        .unwrap()
    }

    /// Returns what a run directory's `metrics.jsonl` says, line by line.
    pub(crate) fn metrics(&self, run: &str) -> Vec<Value> {
        let text = fs::read_to_string(self.path(run).join("metrics.jsonl")).unwrap();
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    /// Returns the lines of a run's `metrics.jsonl` without what depends on the clock or the machine.
    pub(crate) fn learned(&self, run: &str) -> Vec<Value> {
        let mut lines = self.metrics(run);
        for line in &mut lines {
            line.as_object_mut().unwrap().retain(|name, _| !is_measured(name));
        }
        lines
    }

    /// Returns a hash over the weights of the model that a directory stands for.
    pub(crate) fn checksum(&self, name: &str) -> String {
        let model = Model::open(&model_directory(&self.path(name))).unwrap();
        let weights = model.checkpoint.weights(Dtype::F32).unwrap();
        let reading = weights.lease().read(std::time::Duration::from_secs(1)).unwrap();
        weights.checksum(&reading)
    }

    /// Returns the one line with which a PPO run is refused, having made no run directory.
    pub(crate) fn refusal(&self, model: &str, more: &str) -> String {
        let config = self.config::<PpoConfig>("refused", model, more);
        let error = run::ppo(&config, launch(&mut Silent)).unwrap_err();
        let said = format!("{error:#}");
        assert_eq!(said.lines().count(), 1, "{said}");
        assert!(!self.path("refused").exists(), "{said}");
        said
    }
}

pub(crate) fn launch(observer: &mut Silent) -> Launch<'_> {
    Launch { earlier: Earlier::Refuse, observer, stop: Stop::default() }
}

pub(crate) fn ppo_of_digits(rows: &str, more: &str) -> String {
    let tokens = if more.contains("max_new_tokens") { "" } else { "sampling.max_new_tokens = 1\n" };
    format!(
        "data.train = '{rows}.jsonl'\nreward = {{ kind = 'position_match', column = 'answer' }}\n\
         sampling.ignore_eos = true\nppo.prompts_per_iteration = 100\n\
         ppo.value_init = 'policy'\n{tokens}{more}"
    )
}

/// Says whether a metric differs from run to run: how long something took, how much there was of it at the time.
fn is_measured(name: &str) -> bool {
    ["timing_s/", "perf/", "mem/", "queue/"].iter().any(|group| name.starts_with(group))
        || ["sync/seconds", "eps"].contains(&name)
}

/// Returns one metric in every line, which all must have.
pub(crate) fn column(lines: &[Value], name: &str) -> Vec<f64> {
    lines
        .iter()
        .map(|line| line[name].as_f64().unwrap_or_else(|| panic!("{name}: {line}")))
        .collect()
}

pub(crate) fn files(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).unwrap();
    let mut names: Vec<_> =
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}
