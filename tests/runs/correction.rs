//! What an engine that does not compute what the trainer computes does to a run, and what is done about it.

use rollforge::{
    config::PpoConfig,
    run::{self, Earlier, Launch, Metrics, MismatchError, Observer, PpoOutcome, Stop},
};

use crate::world::{World, column, ppo_of_digits};

/// Keeps what a run says, but for what it says of its data.
#[derive(Default)]
struct Notes(Vec<String>);

impl Observer for Notes {
    fn start(&mut self, _stage: &str, _total: u64) {}
    fn step(&mut self, _step: u64, _metrics: &Metrics) {}
    fn finish(&mut self) {}

    fn note(&mut self, line: &str) {
        self.0.extend((!line.starts_with("training data")).then(|| line.into()));
    }
}

/// Runs a few iterations of an untrained model's long answers. Returns what came of it and what it said.
fn run(world: &World, name: &str, more: &str) -> (anyhow::Result<PpoOutcome>, Vec<String>) {
    let more = format!("sampling.max_new_tokens = 8\nppo.iterations = 3\nppo.epochs = 1\n{more}");
    let config = world.config::<PpoConfig>(name, "model", &ppo_of_digits("same", &more));
    let mut notes = Notes::default();
    let launch = Launch { earlier: Earlier::Refuse, observer: &mut notes, stop: Stop::default() };
    let outcome = run::ppo(&config, launch);
    (outcome, notes.0)
}

fn world() -> World {
    let world = World::new("0123456789");
    world.digits("same", |prompt, _| prompt);
    world
}

/// What f32 keeps, and bf16 does not.
const NARROW: &str = "mismatch.dlogp_mean = 0.00001\n";

#[test]
fn an_engine_that_computes_what_the_trainer_computes_trips_nothing() {
    let world = world();
    let (outcome, notes) = run(&world, "f32", &format!("mismatch.action = 'stop'\n{NARROW}"));
    outcome.unwrap();
    assert_eq!(notes, Vec::<String>::new());
    let lines = world.metrics("f32");
    assert_eq!(column(&lines, "parity/breaches"), [0.0; 3]);
    assert_eq!(column(&lines, "correction/active"), [0.0; 3]);
    assert_eq!(column(&lines, "parity/share"), [1.0; 3]);
    assert!(column(&lines, "parity/ess").iter().all(|&ess| ess > 0.999_999));
    assert!(lines.iter().all(|line| line.get("staleness/ess").is_none()));
}

#[test]
fn an_engine_in_bf16_shows_and_is_warned_of_corrected_or_stopped() {
    let world = world();
    let bf16 =
        |name: &str, more: &str| run(&world, name, &format!("engine.dtype = 'bf16'\n{more}"));

    let (outcome, notes) = bf16("wide", "");
    outcome.unwrap();
    assert_eq!(notes, Vec::<String>::new(), "bf16 is within the default thresholds");

    let (outcome, notes) = bf16("warned", NARROW);
    outcome.unwrap();
    assert_eq!(notes.len(), 1, "said once: {notes:?}");
    assert!(notes[0].starts_with("iteration 1: parity/dlogp_mean is 0.0"), "{notes:?}");
    assert!(notes[0].ends_with("mismatch.dlogp_mean allows 0.00001 at most"), "{notes:?}");
    let warned = world.metrics("warned");
    assert_eq!(column(&warned, "parity/breaches"), [1.0; 3]);
    assert_eq!(column(&warned, "correction/active"), [0.0; 3]);
    assert_eq!(world.checksum("warned"), world.checksum("wide"), "a warning changes nothing");

    let (outcome, notes) = bf16("corrected", &format!("mismatch.action = 'correct'\n{NARROW}"));
    outcome.unwrap();
    assert!(notes[0].ends_with("; importance weights act"), "{notes:?}");
    let corrected = world.metrics("corrected");
    assert_eq!(column(&corrected, "correction/active"), [1.0; 3]);
    assert!(column(&corrected, "correction/ess").iter().all(|ess| (0.9..1.0).contains(ess)));
    assert!(column(&corrected, "correction/weight_max").iter().all(|&most| most > 1.0));
    assert_ne!(world.checksum("corrected"), world.checksum("warned"));

    let (outcome, _) = bf16("stopped", &format!("mismatch.action = 'stop'\n{NARROW}"));
    let error = outcome.unwrap_err();
    let named: &MismatchError = error.downcast_ref().expect("a named error");
    assert_eq!((named.iteration, named.breaches.len()), (1, 1));
    assert_eq!(named.breaches[0].metric, "parity/dlogp_mean");
    assert_eq!(format!("{error:#}").lines().count(), 1);
}

#[test]
fn samples_of_older_weights_are_weighted_and_are_no_mismatch() {
    let world = world();
    let narrow = "mismatch.action = 'stop'\nmismatch.dlogp_mean = 0.00001\nthreads = 2\n";
    let (outcome, _) = run(&world, "stale", &format!("queue.mode = 'one_step_off'\n{narrow}"));
    outcome.unwrap();
    let lines = world.metrics("stale");
    assert_eq!(column(&lines, "correction/active"), [1.0; 3]);
    // The first batch is answered by the weights that learn, every later one by those before.
    assert_eq!(lines[0]["parity/share"], 1.0);
    assert_eq!(lines[0]["correction/weight_max"].as_f64().unwrap().round(), 1.0);
    for line in &lines[1..] {
        assert!(line.get("parity/share").is_none() && line["staleness/share"] == 1.0, "{line}");
        assert!(line["staleness/dlogp_mean"].as_f64().unwrap() > 1e-3, "{line}");
        assert!(line["correction/ess"].as_f64().unwrap() < 1.0, "{line}");
        assert!(line["correction/weight_max"].as_f64().unwrap() <= 2.0, "{line}");
    }
    let resolved = std::fs::read_to_string(world.path("stale").join("config.resolved.toml"));
    assert!(resolved.unwrap().contains("apply = \"always\""));
}

#[test]
fn a_run_that_stops_on_stale_samples_leaves_what_is_whole() {
    let world = world();
    let stop = "queue.mode = 'one_step_off'\nmismatch.action = 'stop'\nmismatch.ess = 0.99999\nthreads = 2\n";
    let error = run(&world, "spent", stop).0.unwrap_err();
    let named: &MismatchError = error.downcast_ref().expect("a named error");
    // The first batch is of the weights that learn.
    assert_eq!((named.iteration, named.breaches[0].metric), (2, "staleness/ess"));
    assert!(world.path("spent/checkpoints/step_1/policy").is_dir());
    assert!(!world.path("spent/checkpoints/step_2").exists());
}

#[test]
fn a_gate_with_nothing_to_look_at_says_so() {
    let world = world();
    let (outcome, notes) = run(&world, "cut", &format!("sampling.top_k = 5\n{NARROW}"));
    outcome.unwrap();
    let reason = "sampling has top_k, top_p, min_p, repetition_penalty or min_new_tokens";
    assert_eq!(notes, [format!("[mismatch] gates nothing: {reason}")]);
    let lines = world.metrics("cut");
    assert!(lines.iter().all(|line| line.get("parity/breaches").is_none()));
}
