//! How long a whole iteration of PPO takes, and what it is made of. Without a critic it is called one of GRPO, and is
//! compared with the peers' GRPO.

use std::{
    fmt::Write,
    fs,
    path::{Path, PathBuf},
    time::Instant,
};

use anyhow::{Context, Result, ensure};

use super::{Limits, Report, Row, Subject, Turns, Unit, peer::Arguments, turns::at_least};
use crate::{
    config::{self, PpoConfig},
    model::{Companions, Model, ModelSpec, with_score_head, write_model},
    rollout::Dtype,
    run::{Earlier, Launch, Metrics, Observer, Stop, ppo as run},
    trainer::config::PpoOptions,
};

/// The phases of an iteration, and the metrics that add up to each.
const PHASES: [(&str, &[&str]); 4] = [
    ("generate", &["timing_s/gen"]),
    ("score", &["timing_s/reward", "timing_s/score"]),
    ("update", &["timing_s/update"]),
    ("refit", &["timing_s/settle", "timing_s/update_weights", "timing_s/canary"]),
];

/// What is measured.
#[derive(Clone, Debug)]
pub struct PpoBench {
    /// The policy; reward model and critic have its shape.
    pub model: Subject,
    /// The number format to compute with; what learns is kept in f32.
    pub dtype: Dtype,
    /// Prompts of an iteration.
    pub prompts: usize,
    /// Tokens of each prompt.
    pub prompt: usize,
    /// Tokens of each completion.
    pub new: usize,
    /// Passes over an iteration's rollouts.
    pub epochs: usize,
    /// Further settings of the run: `queue.mode=async`.
    pub overrides: Vec<String>,
    /// Threads. 0 takes every core.
    pub threads: usize,
    /// How often, and with whom.
    pub turns: Turns,
}

/// Measures; `progress` hears what comes next.
///
/// # Errors
/// One line: what is missing, or cannot be used.
pub fn ppo(options: &PpoBench, progress: &mut dyn FnMut(&str)) -> Result<Report> {
    options.check()?;
    let disk = options.model.on_disk(options.dtype)?;
    let opened = Model::open(disk.path())?;
    let spec = opened.spec().clone();
    let room = options.prompt + options.new;
    ensure!(
        room <= spec.max_positions,
        "the model has {} positions, and {room} are asked for",
        spec.max_positions
    );
    let folder = tempfile::tempdir().context("cannot make a temporary folder")?;
    let reward = folder.path().join("reward");
    let (scored, weights) =
        with_score_head(&spec, &opened.checkpoint.weights(spec.dtype)?, &[], 0)?;
    write_model(&reward, &scored, &weights, &Companions::of(disk.path())?)?;
    let data = folder.path().join("prompts.jsonl");
    fs::write(&data, options.rows())?;

    let mut report = Report::begin("ppo", options.threads, progress)?;
    report.set("model", options.model.name());
    report.set("parameters", spec.parameters());
    report.set("dtype", options.dtype.to_string());
    for (name, number) in [
        ("prompts", options.prompts),
        ("prompt", options.prompt),
        ("new", options.new),
        ("epochs", options.epochs),
    ] {
        report.set(name, number);
    }
    report.set("overrides", options.overrides.clone());
    let arguments = Arguments::new(disk.path())
        .with("--dtype", options.dtype)
        .with("--prompts", options.prompts)
        .with("--prompt", options.prompt)
        .with("--new", options.new)
        .with("--epochs", options.epochs)
        .with("--threads", report.limits.threads)
        .with("--repeats", options.turns.repeats);
    let limits = report.limits.clone();
    let (threads, mut notes) = (limits.threads, Vec::new());
    options.turns.take(&mut report, &arguments, progress, |progress| {
        let files =
            Files { model: disk.path(), reward: &reward, data: &data, folder: folder.path() };
        let config = options.config(&files, threads)?;
        progress("whole iterations");
        let mut clock = Clock::default();
        let launch =
            Launch { earlier: Earlier::Delete, observer: &mut clock, stop: Stop::default() };
        run(&config, launch)?;
        let least = options.least_seconds(&limits, &spec, &config.ppo);
        let name = if config.ppo.has_critic() { "ppo" } else { "grpo" };
        notes.append(&mut clock.notes);
        clock.rows(name, least)
    })?;
    notes.dedup();
    report.notes.append(&mut notes);
    Ok(report)
}

/// What a run reads, and where it writes.
struct Files<'a> {
    model: &'a Path,
    reward: &'a Path,
    data: &'a Path,
    folder: &'a Path,
}

impl PpoBench {
    fn check(&self) -> Result<()> {
        self.turns.check()?;
        for (name, number) in [
            ("--prompts", self.prompts),
            ("--prompt", self.prompt),
            ("--new", self.new),
            ("--epochs", self.epochs),
        ] {
            at_least(name, 1, [number])?;
        }
        Ok(())
    }

    /// Returns a row of text for each prompt, longer in tokens than it may be, whichever the tokenizer is: a run cuts it.
    fn rows(&self) -> String {
        let mut rows = String::new();
        for row in 0..self.prompts {
            let digit = |i: usize| char::from(b'0' + ((row * 7 + i * i * 3 + i) % 10) as u8);
            let text: String = (0..8 * self.prompt).map(digit).collect();
            // A string has no place to fail to write to.
            writeln!(rows, "{}", serde_json::json!({ "prompt": text })).unwrap_or_default();
        }
        rows
    }

    /// Returns a run's configuration: TRL's defaults.
    fn config(&self, files: &Files<'_>, threads: usize) -> Result<PpoConfig> {
        let quoted = |path: PathBuf| toml::Value::from(path.display().to_string()).to_string();
        let mut settings = vec![
            format!("output_dir={}", quoted(files.folder.join("run"))),
            format!("model.path={}", quoted(files.model.into())),
            format!("reward={{kind='model', path={}}}", quoted(files.reward.into())),
            format!("data.train={}", quoted(files.data.into())),
            format!("threads={threads}"),
            format!("model.dtype='{}'", self.dtype),
            format!("data.max_tokens={}", self.prompt),
            "data.over_long='truncate'".into(),
            format!("ppo.prompts_per_iteration={}", self.prompts),
            format!("ppo.iterations={}", self.turns.repeats + 1),
            format!("ppo.epochs={}", self.epochs),
            format!("sampling.max_new_tokens={}", self.new),
            "sampling.ignore_eos=true".into(),
            "sampling.temperature=0.7".into(),
            "optimizer.lr=3e-6".into(),
        ];
        settings.extend(self.overrides.iter().cloned());
        Ok(config::parse("bench ppo", String::new(), files.folder, &settings)?)
    }

    /// Returns the shortest time of an iteration: what must be multiplied, at the machine's peak, one thing after the
    /// other.
    fn least_seconds(&self, limits: &Limits, spec: &ModelSpec, ppo: &PpoOptions) -> f64 {
        let (dtype, rows) = (self.dtype, ppo.rollout_batch());
        let critics = f64::from(u8::from(ppo.has_critic()));
        let references = f64::from(u8::from(ppo.has_reference()));
        let (tokens, logits) = (rows * (self.prompt + self.new), rows * self.new);
        let forward = |tokens, logits| limits.forward_seconds(spec, dtype, tokens, logits);
        let back = |logits| limits.training_seconds(spec, dtype, tokens, logits);
        let generate =
            forward(rows * self.prompt, rows) + (self.new - 1) as f64 * forward(rows, rows);
        // Reference, reward model and critic.
        let score = references * forward(tokens, logits) + (1.0 + critics) * forward(tokens, 0);
        generate + score + ppo.epochs() as f64 * (back(logits) + critics * back(0))
    }
}

/// Notes when each iteration ended, its metrics, and what the run has to say.
#[derive(Default)]
struct Clock {
    ends: Vec<Instant>,
    metrics: Vec<Metrics>,
    notes: Vec<String>,
}

impl Observer for Clock {
    fn start(&mut self, _stage: &str, _total: u64) {}

    fn step(&mut self, _step: u64, metrics: &Metrics) {
        self.ends.push(Instant::now());
        self.metrics.push(metrics.clone());
    }

    fn note(&mut self, line: &str) {
        self.notes.push(line.to_owned());
    }

    fn finish(&mut self) {}
}

impl Clock {
    /// Returns whole iterations and their phases, but for the first, which does not count.
    fn rows(self, name: &str, least: f64) -> Result<Vec<Row>> {
        let whole: Vec<f64> =
            self.ends.windows(2).map(|ends| (ends[1] - ends[0]).as_secs_f64()).collect();
        let later = self.metrics.get(1..).unwrap_or_default();
        let mut other = whole.clone();
        let mut rows =
            vec![Row::new(&format!("{name}_iteration"), Unit::Seconds, whole, Some(least))?];
        for (phase, names) in PHASES {
            let sum = |metrics: &Metrics| names.iter().filter_map(|name| metrics.get(name)).sum();
            let values: Vec<f64> = later.iter().map(sum).collect();
            other.iter_mut().zip(&values).for_each(|(other, value)| *other -= value);
            rows.push(Row::new(&format!("{name}_{phase}"), Unit::Seconds, values, None)?);
        }
        rows.push(Row::new(&format!("{name}_other"), Unit::Seconds, other, None)?);
        Ok(rows)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::{run::bench::Shape, trainer::config::AdvantageEstimator};

    fn options() -> PpoBench {
        PpoBench {
            model: Subject::Shape(Shape::Llama5M),
            dtype: Dtype::F32,
            prompts: 2,
            prompt: 4,
            new: 3,
            epochs: 1,
            overrides: Vec::new(),
            threads: 1,
            turns: Turns { repeats: 2, rounds: 1, peers: Vec::new() },
        }
    }

    #[test]
    fn an_iteration_is_the_sum_of_its_phases() {
        let start = Instant::now();
        let metrics =
            |update| Metrics::new().with("timing_s/gen", 1.0).with("timing_s/update", update);
        let clock = Clock {
            ends: [5, 15, 26].map(|second| start + Duration::from_secs(second)).into(),
            metrics: vec![metrics(90.0), metrics(6.0), metrics(7.0)],
            notes: Vec::new(),
        };
        let rows = clock.rows("ppo", 5.0).unwrap();
        let found: Vec<_> =
            rows.iter().map(|row| (row.name.as_str(), row.values.median())).collect();
        let wanted = [
            ("ppo_iteration_s", 10.5),
            ("ppo_generate_s", 1.0),
            ("ppo_score_s", 0.0),
            ("ppo_update_s", 6.5),
            ("ppo_refit_s", 0.0),
            ("ppo_other_s", 3.0),
        ];
        assert_eq!(found, wanted);
        assert_eq!(rows[0].share(), Some(5.0 / 10.5));
    }

    #[test]
    fn a_second_epoch_costs_another_pass_of_policy_and_critic() {
        let limits = crate::run::bench::report::tests::example().limits;
        let spec = Shape::Llama5M.model(Dtype::F32).spec;
        let of = |ppo: PpoOptions| options().least_seconds(&limits, &spec, &ppo);
        let common = PpoOptions { prompts_per_iteration: 2, ..PpoOptions::default() };
        let least = |epochs| of(PpoOptions { epochs: Some(epochs), ..common.clone() });
        let (body, head) = ((spec.parameters() - 4096 * 256) as f64, (4096 * 256) as f64);
        let pass = 6.0 * (2.0 * body * 14.0 + head * 6.0) / 1e11;
        assert!(((least(2) - least(1)) / pass - 1.0).abs() < 1e-9);
        assert!(least(1) > pass);
        let alone = |epochs| {
            let advantage = Some(AdvantageEstimator::Grpo);
            of(PpoOptions { epochs: Some(epochs), advantage, ..common.clone() })
        };
        let pass = 6.0 * (body * 14.0 + head * 6.0) / 1e11;
        assert!(((alone(2) - alone(1)) / pass - 1.0).abs() < 1e-9);
    }

    #[test]
    fn every_prompt_is_cut_to_its_length() {
        let rows = options().rows();
        assert_eq!(rows.lines().count(), 2);
        let files = Files {
            model: Path::new("/m"),
            reward: Path::new("/r"),
            data: Path::new("/d"),
            folder: Path::new("/f"),
        };
        let config = options().config(&files, 1).unwrap();
        assert_eq!((config.data.max_tokens, config.ppo.iterations), (4, 3));
        assert_eq!(config.output_dir, Path::new("/f/run"));
        let set = PpoBench { overrides: vec!["ppo.epoch=2".into()], ..options() };
        let error = set.config(&files, 1).unwrap_err().to_string();
        assert!(error.contains("epoch") && !error.contains('\n'), "{error}");
    }
}
