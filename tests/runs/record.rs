//! What a run writes down.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use rollforge::{
    config::{
        DistillConfig, DpoConfig, KtoConfig, PpoConfig, RegressionConfig, RewardModelConfig,
        SftConfig,
    },
    run::{
        self, Earlier, Launch, Metrics, Observer, Signal, Silent, Stop,
        record::{EntryKind, Journal, Lane, Ratios, Trace},
    },
};
use serde_json::Value;

use crate::world::{World, column, files, launch, ppo_of_digits};

/// Every metric of `docs/metrics.md`, by section, and whether a line always has it.
fn documented() -> BTreeMap<String, BTreeMap<String, bool>> {
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/metrics.md");
    let text = fs::read_to_string(page).unwrap();
    let mut sections: BTreeMap<String, BTreeMap<String, bool>> = BTreeMap::new();
    let mut section = String::new();
    for line in text.lines() {
        if let Some(title) = line.strip_prefix("## ") {
            section = title.split(',').next().unwrap().to_owned();
        }
        let cells: Vec<&str> = line.split('|').map(str::trim).collect();
        let [_, names, _, _, when, _] = cells[..] else { continue };
        for name in names.split('`').filter(|name| name.contains(|c: char| c.is_alphabetic())) {
            let metrics = sections.entry(section.clone()).or_default();
            metrics.insert(name.to_owned(), when.starts_with("always"));
        }
    }
    sections
}

/// Says whether a metric is a documented one, in which a word in angle brackets stands for any.
fn is_of(metric: &str, documented: &str) -> bool {
    let (words, parts) = (metric.split('/'), documented.split('/'));
    let alike =
        words.clone().zip(parts.clone()).all(|(word, part)| part.starts_with('<') || part == word);
    alike && words.count() == parts.count()
}

/// Checks that a run's lines have what the page says, and nothing else.
fn check_names(section: &str, lines: &[Value]) {
    let documented = &documented()[section];
    let always: BTreeSet<&str> =
        documented.iter().filter(|(_, always)| **always).map(|(name, _)| name.as_str()).collect();
    assert!(!always.is_empty());
    for line in lines {
        let names: BTreeSet<&str> = line.as_object().unwrap().keys().map(String::as_str).collect();
        let missing: Vec<_> = always.difference(&names).collect();
        assert!(missing.is_empty(), "{section}: lines lack {missing:?}");
        let known = |name: &str| {
            name == "step" || documented.keys().any(|documented| is_of(name, documented))
        };
        let unknown: Vec<_> = names.into_iter().filter(|name| !known(name)).collect();
        assert!(unknown.is_empty(), "{section}: docs/metrics.md lacks {unknown:?}");
    }
}

#[test]
fn every_metric_is_documented_and_every_promised_one_is_written() {
    let world = World::new("0123456789");
    world.digits("same", |prompt, _| prompt);
    let more = "ppo.iterations = 2\nppo.mini_batches = 2\nppo.kl_coef = 0.05\n";
    world.ppo_of_digits("ppo", "model", "same", more);
    check_names("PPO", &world.metrics("ppo"));
    let more = "ppo.iterations = 2\nppo.preset = 'grpo'\nppo.samples_per_prompt = 2\n";
    world.ppo_of_digits("grpo", "model", "same", more);
    check_names("PPO", &world.metrics("grpo"));
    let more = "ppo.iterations = 2\nppo.preset = 'online_dpo'\nppo.samples_per_prompt = 2\n";
    world.ppo_of_digits("online", "model", "same", more);
    check_names("PPO", &world.metrics("online"));
    assert!(world.metrics("online").iter().all(|line| line.get("pairs/loss").is_some()));
    let has = |name| world.metrics("grpo").iter().all(|line| line.get(name).is_some());
    assert!(has("frac_reward_zero_std") && !has("loss/value_avg") && !has("timing_s/ref"));
    let more = "data.train = 'same.jsonl'\ndata.eval = ['same.jsonl']\nsft.max_steps = 2\n";
    world.sft("sft", "model", more);
    check_names("SFT", &world.metrics("sft"));
    let pair = "{\"prompt\": \"1\", \"chosen\": \"1\", \"rejected\": \"2\"}\n";
    fs::write(world.path("pairs.jsonl"), pair.repeat(8)).unwrap();
    let more = "data.train = 'pairs.jsonl'\nreward_model.max_steps = 2\n";
    let config = world.config::<RewardModelConfig>("rm", "model", more);
    run::reward_model(&config, launch(&mut Silent)).unwrap();
    check_names("Reward model", &world.metrics("rm"));

    let more = "data.train = 'pairs.jsonl'\ndata.eval = 'pairs.jsonl'\ndpo.max_steps = 2\n";
    let config = world.config::<DpoConfig>("dpo", "model", more);
    run::dpo(&config, launch(&mut Silent)).unwrap();
    check_names("Preference optimisation", &world.metrics("dpo"));

    let labels = "{\"prompt\": \"1\", \"completion\": \"1\", \"label\": true}\n\
                  {\"prompt\": \"2\", \"completion\": \"1\", \"label\": false}\n";
    fs::write(world.path("labels.jsonl"), labels.repeat(4)).unwrap();
    let more = "data.train = 'labels.jsonl'\ndata.eval = 'labels.jsonl'\nkto.max_steps = 2\n";
    let config = world.config::<KtoConfig>("kto", "model", more);
    run::kto(&config, launch(&mut Silent)).unwrap();
    check_names("Kahneman-Tversky optimisation", &world.metrics("kto"));

    let ratings = "{\"prompt\": \"1\", \"completion\": \"1\", \"helpfulness\": 4, \"verbosity\": 1}\n\
                   {\"prompt\": \"2\", \"completion\": \"1\", \"helpfulness\": 0}\n\
                   {\"prompt\": \"2\", \"completion\": \"1\", \"verbosity\": 3}\n";
    fs::write(world.path("ratings.jsonl"), ratings.repeat(4)).unwrap();
    let more =
        "data.train = 'ratings.jsonl'\ndata.eval = 'ratings.jsonl'\nregression.max_steps = 2\n";
    let config = world.config::<RegressionConfig>("regression", "model", more);
    run::regression(&config, launch(&mut Silent)).unwrap();
    check_names("Regression over attributes", &world.metrics("regression"));
    let more = "reward = { kind = 'model', path = 'regression', weights = { helpfulness = 1 } }\n\
                ppo.iterations = 2\nsampling.max_new_tokens = 1\ndata.train = 'same.jsonl'\n";
    let config = world.config::<PpoConfig>("attributes", "model", more);
    run::ppo(&config, launch(&mut Silent)).unwrap();
    check_names("PPO", &world.metrics("attributes"));

    let more = "model.teacher = 'sft'\ndata.train = 'same.jsonl'\ndata.eval = 'same.jsonl'\n\
                distill.max_steps = 2\ndistill.top_k = 5\n";
    let config = world.config::<DistillConfig>("distill", "model", more);
    run::distill(&config, launch(&mut Silent)).unwrap();
    check_names("Knowledge distillation", &world.metrics("distill"));

    for (run, lanes) in [("sft", 3), ("rm", 3), ("dpo", 3), ("kto", 3), ("distill", 3)] {
        let starts = Trace::read(&world.path(run)).unwrap();
        let lanes_seen: BTreeSet<Lane> = starts[0].iter().map(|span| span.lane).collect();
        assert_eq!(lanes_seen.len(), lanes, "{run}: {lanes_seen:?}");
        assert_eq!(event_files(&world, run).len(), 1);
        let entries = Journal::read(&world.path(run)).unwrap();
        let said = entries.iter().any(|entry| entry.text.starts_with("training data: "));
        assert!(said, "{entries:?}");
    }
}

/// Asks a run to stop as soon as it has begun.
struct StopsAtOnce(Stop);

impl Observer for StopsAtOnce {
    fn start(&mut self, _stage: &str, _total: u64) {
        self.0.request(Signal::Terminate);
    }
    fn step(&mut self, _step: u64, _metrics: &Metrics) {}
    fn note(&mut self, _line: &str) {}
    fn finish(&mut self) {}
}

#[test]
fn the_journal_says_what_ended_a_run() {
    let world = World::new("0123456789");
    world.digits("same", |prompt, _| prompt);
    let more = "ppo.iterations = 2\nmismatch.action = 'stop'\nmismatch.dlogp_mean = 1e-12\n";
    let config = world.config::<PpoConfig>("ppo", "model", &ppo_of_digits("same", more));
    let error = run::ppo(&config, launch(&mut Silent)).unwrap_err();
    let entries = Journal::read(&world.path("ppo")).unwrap();
    let last = entries.last().unwrap();
    assert_eq!((last.step, last.kind, &last.text), (1, EntryKind::Error, &format!("{error:#}")));

    let stop = Stop::default();
    let mut observer = StopsAtOnce(stop.clone());
    let more = "data.train = 'same.jsonl'\nsft.batch_size = 25\nsft.max_steps = 3\n";
    let config = world.config::<SftConfig>("sft", "model", more);
    let launch = Launch { earlier: Earlier::Refuse, observer: &mut observer, stop };
    let error = run::sft(&config, launch).unwrap_err();
    let entries = Journal::read(&world.path("sft")).unwrap();
    let last = entries.last().unwrap();
    assert_eq!((last.step, last.kind, &last.text), (1, EntryKind::Stop, &format!("{error:#}")));
}

fn event_files(world: &World, run: &str) -> Vec<String> {
    let names = files(&world.path(run)).into_iter();
    names.filter(|name| name.starts_with("events.out.tfevents.")).collect()
}

#[test]
fn a_run_says_when_it_did_what() {
    let world = World::new("0123456789");
    world.digits("same", |prompt, _| prompt);
    world.ppo_of_digits("run", "model", "same", "ppo.iterations = 2\nppo.kl_coef = 0.05\n");
    let lines = world.metrics("run");
    let starts = Trace::read(&world.path("run")).unwrap();
    assert_eq!(starts.len(), 1);
    for lane in Lane::ALL {
        assert!(starts[0].iter().any(|span| span.lane == lane), "{lane:?} is empty");
    }
    // The trace and the metrics come from the same clock readings.
    for (line, iteration) in lines.iter().zip(1..) {
        for name in ["gen", "reward", "ref", "values", "update_actor", "update_weights"] {
            let spans = starts[0].iter().filter(|s| s.name == name && s.iteration == iteration);
            let traced: f64 = spans.map(|span| (span.end - span.start) as f64 / 1e6).sum();
            let measured = line[format!("timing_s/{name}")].as_f64().unwrap();
            assert!((traced - measured).abs() < 1e-4, "{name}: {traced} s, not {measured} s");
        }
    }
    let parts = ["old_log_prob", "ref", "values", "adv"];
    for line in &lines {
        let seconds = |name: &str| line[format!("timing_s/{name}")].as_f64().unwrap();
        let sum: f64 = parts.iter().map(|part| seconds(part)).sum();
        assert!(sum > 0.0 && sum <= seconds("score"), "{sum} of {}", seconds("score"));
        for name in ["trainer_idle_ratio", "engine_idle_ratio", "overlap_ratio"] {
            let ratio = line[format!("perf/{name}")].as_f64().unwrap();
            assert!((0.0..=1.0).contains(&ratio), "{name}: {ratio}");
        }
    }
    let whole = Ratios::of_run(&starts).unwrap();
    // Generation alone and overlap are parts of the engine's time, waiting is none of the trainer's.
    assert!(whole.overlap <= 1.0 - whole.engine_idle && whole.overlap <= 1.0 - whole.trainer_idle);

    let entries = Journal::read(&world.path("run")).unwrap();
    let said: Vec<_> = entries.iter().map(|entry| (entry.step, entry.kind)).collect();
    let notes = [(0, EntryKind::Note), (0, EntryKind::Note)];
    let ends = [(2, EntryKind::Checkpoint), (2, EntryKind::Stop)];
    assert_eq!(said, [notes, ends].concat(), "{entries:?}");
}

#[test]
fn samples_carry_what_they_were_trained_on() {
    let world = World::new("0123456789");
    world.digits("same", |prompt, _| prompt);
    let more = "ppo.iterations = 2\nppo.kl_coef = 0.05\nlog.samples = 100\nppo.epochs = 2\n\
                queue = { mode = 'one_step_off' }\n";
    world.ppo_of_digits("run", "model", "same", more);
    for (line, iteration) in world.metrics("run").iter().zip(1u64..) {
        let path = world.path("run").join(format!("samples/iteration_{iteration}.jsonl"));
        let text = fs::read_to_string(path).unwrap();
        let rows: Vec<Value> = text.lines().map(|row| serde_json::from_str(row).unwrap()).collect();
        assert_eq!(rows.len(), 100);
        // All of the iteration's completions are there, so their means are the metrics.
        for (key, metric) in [
            ("score", "objective/scores"),
            ("reward", "objective/rlhf_reward"),
            ("kl", "objective/kl"),
            ("tokens", "response_length/mean"),
        ] {
            let mean = column(&rows, key).iter().sum::<f64>() / 100.0;
            let expected = line[metric].as_f64().unwrap();
            assert!((mean - expected).abs() < 1e-5, "{key}: {mean} instead of {expected}");
        }
        let tickets = column(&rows, "ticket");
        assert!(tickets.is_sorted(), "{tickets:?}");
        assert_eq!(tickets[0], (iteration - 1) as f64 * 100.0);
        let tokens: u64 = rows[0]["versions"][0][1].as_u64().unwrap();
        assert_eq!(Some(tokens), rows[0]["tokens"].as_u64());
    }
}

#[test]
fn nothing_is_traced_or_kept_for_tensorboard_where_it_is_switched_off() {
    let world = World::new("0123456789");
    world.digits("same", |prompt, _| prompt);
    let more = "ppo.iterations = 1\nlog = { tensorboard = false, trace = false, samples = 0 }\n";
    world.ppo_of_digits("run", "model", "same", more);
    let names = files(&world.path("run"));
    let recorded = ["trace.json", "samples"].map(String::from);
    assert!(recorded.iter().all(|name| !names.contains(name)), "{names:?}");
    assert_eq!(event_files(&world, "run"), Vec::<String>::new());
    assert_eq!(column(&world.metrics("run"), "perf/overlap_ratio").len(), 1);
}

/// Makes a run of three iterations that died in the third and went on from the second.
fn resumed(world: &World) -> PathBuf {
    let more = "ppo.iterations = 3\ncheckpoint = { every = 2, keep = 0 }\n";
    world.ppo_of_digits("run", "model", "same", more);
    let run = world.path("run");
    fs::remove_dir_all(run.join("checkpoints/step_3")).unwrap();
    fs::write(run.join("LATEST"), "checkpoints/step_2\n").unwrap();
    let config = world.config::<PpoConfig>("run", "model", &ppo_of_digits("same", more));
    run::ppo(&config, Launch { earlier: Earlier::Resume, ..launch(&mut Silent) }).unwrap();
    run
}

#[test]
fn a_resumed_run_goes_on_with_every_file() {
    let world = World::new("0123456789");
    world.digits("same", |prompt, _| prompt);
    let run = resumed(&world);
    assert_eq!(column(&world.metrics("run"), "step"), [1.0, 2.0, 3.0]);
    assert_eq!(files(&run.join("samples")).len(), 3);
    assert_eq!(event_files(&world, "run").len(), 2);
    let starts = Trace::read(&run).unwrap();
    let iterations = |start: usize| -> BTreeSet<u64> {
        starts[start].iter().map(|span| span.iteration).collect()
    };
    assert_eq!((starts.len(), iterations(0), iterations(1)), (2, [1, 2, 3].into(), [3].into()));
    let kinds: Vec<_> = Journal::read(&run).unwrap().iter().map(|entry| entry.kind).collect();
    let (note, saved, stop) = (EntryKind::Note, EntryKind::Checkpoint, EntryKind::Stop);
    let first = vec![note, note, saved, saved, stop];
    let second = vec![note, EntryKind::Resume, note, saved, stop];
    assert_eq!(kinds, [first, second].concat());
}

/// Needs a Python: the one that `ROLLFORGE_TENSORBOARD_PYTHON` names, which `make test-tensorboard` makes. Without one the
/// test says so and passes: `make test` needs no Python.
#[test]
fn tensorboard_reads_every_metric_of_a_run_and_of_a_resumed_one_once() {
    let Some(python) = std::env::var_os("ROLLFORGE_TENSORBOARD_PYTHON") else {
        println!("skipped: no Python with TensorBoard; `make test-tensorboard` makes one");
        return;
    };
    let world = World::new("0123456789");
    world.digits("same", |prompt, _| prompt);
    let more = "data.train = 'same.jsonl'\ndata.eval = ['same.jsonl']\nsft.batch_size = 25\nsft.max_steps = 3\nsft.eval_every = 2\n";
    world.sft("sft", "model", more);
    resumed(&world);
    let checker = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/peers/check_events.py");
    let runs = ["sft", "run"].map(|run| world.path(run));
    let output = Command::new(python).arg(checker).args(runs).output().unwrap();
    print!("{}", String::from_utf8_lossy(&output.stdout));
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}
