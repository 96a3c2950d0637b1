//! Runs that stop and go on: they end as if they had never stopped, bit for bit.

mod child;
mod kills;
mod signals;

use std::{
    fs,
    path::{Path, PathBuf},
};

use rollforge::{
    config::{PpoConfig, RewardModelConfig, SftConfig},
    run::{
        self, CheckpointError, Earlier, Launch, Metrics, Observer, Signal, Silent, Stop, Stopped,
    },
};

use crate::world::{World, launch, ppo_of_digits};

/// A short run of PPO in which everything that a checkpoint keeps counts.
pub(super) const PPO: &str = "ppo.mini_batches = 2\nppo.samples_per_prompt = 2\nppo.kl_coef = 0.05\nppo.kl_target = 1.0\n\
     ppo.whiten_rewards = true\ncheckpoint.keep = 0\n";

pub(super) fn ppo_text(iterations: usize, more: &str) -> String {
    let text = ppo_of_digits("echo", &format!("ppo.iterations = {iterations}\n{PPO}{more}"));
    text.replace("ppo.prompts_per_iteration = 100\n", "ppo.prompts_per_iteration = 30\n")
}

/// Asks the run to stop when so many steps are over.
struct StopsAt {
    step: u64,
    stop: Stop,
    notes: Vec<String>,
}

impl Observer for StopsAt {
    fn start(&mut self, _stage: &str, _total: u64) {}

    fn step(&mut self, step: u64, _metrics: &Metrics) {
        if step == self.step {
            self.stop.request(Signal::Terminate);
        }
    }

    fn note(&mut self, line: &str) {
        self.notes.push(line.to_owned());
    }

    fn finish(&mut self) {}
}

/// Runs until so many steps are over, and returns how the run says that it stopped.
pub(super) fn stopped<T: std::fmt::Debug>(
    step: u64,
    run: impl FnOnce(Launch<'_>) -> anyhow::Result<T>,
) -> Stopped {
    let stop = Stop::default();
    let mut observer = StopsAt { step, stop: stop.clone(), notes: Vec::new() };
    let launch = Launch { earlier: Earlier::Refuse, observer: &mut observer, stop };
    run(launch).unwrap_err().downcast().unwrap()
}

fn resume(observer: &mut Silent) -> Launch<'_> {
    Launch { earlier: Earlier::Resume, ..launch(observer) }
}

#[test]
fn sft_that_was_asked_to_stop_leaves_a_checkpoint_and_goes_on_from_it() {
    let world = World::of_digits();
    world.digits("echo", |prompt, _| prompt);
    let more = "data.train = 'echo.jsonl'\ndata.eval = 'echo.jsonl'\nsft.batch_size = 30\nsft.epochs = 3\n\
                schedule.kind = 'linear'\nsft.eval_every = 4\n";
    world.sft("whole", "model", more);
    let config = world.config::<SftConfig>("halves", "model", more);
    let said = stopped(5, |launch| run::sft(&config, launch));
    assert_eq!(said.by, Signal::Terminate);
    // The wish came when the fifth step was over, so it is the sixth that ends with a checkpoint.
    let path = world.path("halves/checkpoints/step_6");
    assert_eq!(said.place, format!("after step 6 of 12; --resume goes on from {}", path.display()));
    assert_ne!(world.checksum("halves"), world.checksum("whole"));
    run::sft(&config, resume(&mut Silent)).unwrap();
    assert_eq!(world.checksum("halves"), world.checksum("whole"));
    assert_eq!(world.learned("halves"), world.learned("whole"));

    let mut observer = StopsAt { step: 0, stop: Stop::default(), notes: Vec::new() };
    let again = Launch { earlier: Earlier::Resume, observer: &mut observer, stop: Stop::default() };
    let outcome = run::sft(&config, again).unwrap();
    assert_eq!(outcome.policy, world.path("halves/checkpoints/step_12/policy"));
    let said = observer.notes.last().unwrap();
    assert!(said.starts_with("nothing to do: the run ended with step 12 of 12"), "{said}");
}

#[test]
fn a_reward_model_that_was_asked_to_stop_goes_on_from_its_checkpoint() {
    let world = World::of_digits();
    let pairs: String = (0..20).fold(String::new(), |rows, row| {
        let (prompt, other) = (row % 10, (row + 1 + row / 10) % 10);
        rows + &format!(
            "{{\"prompt\": \"{prompt}\", \"chosen\": \"{prompt}\", \"rejected\": \"{other}\"}}\n"
        )
    });
    fs::write(world.path("pairs.jsonl"), pairs).unwrap();
    let more = "data.train = 'pairs.jsonl'\nreward_model.batch_size = 6\nreward_model.epochs = 2\n";
    let config = |name| world.config::<RewardModelConfig>(name, "guess", more);
    run::reward_model(&config("whole"), launch(&mut Silent)).unwrap();
    stopped(3, |launch| run::reward_model(&config("halves"), launch));
    let outcome = run::reward_model(&config("halves"), resume(&mut Silent)).unwrap();
    assert_eq!(world.checksum("halves"), world.checksum("whole"));
    let again = run::reward_model(&config("halves"), resume(&mut Silent)).unwrap();
    assert_eq!(again.evaluation, outcome.evaluation);
}

#[test]
fn ppo_that_was_asked_to_stop_goes_on_from_its_checkpoint() {
    let world = World::of_digits();
    world.digits("echo", |prompt, _| prompt);
    let text = ppo_text(12, "schedule.kind = 'linear'\n");
    let config = |name| world.config::<PpoConfig>(name, "guess", &text);
    run::ppo(&config("whole"), launch(&mut Silent)).unwrap();
    let said = stopped(2, |launch| run::ppo(&config("halves"), launch));
    // The observer hears of a step on another thread, while the trainer is at the next.
    let step: u64 = said.place.split(' ').nth(2).unwrap().parse().unwrap();
    assert!((2..12).contains(&step), "{said}");
    assert_eq!(world.metrics("halves").len() as u64, step);
    run::ppo(&config("halves"), resume(&mut Silent)).unwrap();
    assert_eq!(world.checksum("halves"), world.checksum("whole"));
    assert_eq!(world.learned("halves"), world.learned("whole"));
}

#[test]
fn a_run_without_a_critic_goes_on_from_a_checkpoint_without_one() {
    let world = World::of_digits();
    world.digits("echo", |prompt, _| prompt);
    let text = ppo_text(6, "").replace("whiten_rewards = true", "preset = 'grpo'");
    let config = |name| world.config::<PpoConfig>(name, "guess", &text);
    run::ppo(&config("whole"), launch(&mut Silent)).unwrap();
    let said = stopped(2, |launch| run::ppo(&config("halves"), launch));
    let step: u64 = said.place.split(' ').nth(2).unwrap().parse().unwrap();
    let checkpoint = world.path(&format!("halves/checkpoints/step_{step}"));
    assert!(checkpoint.join("policy").is_dir() && !checkpoint.join("value").exists());
    run::ppo(&config("halves"), resume(&mut Silent)).unwrap();
    assert_eq!(world.learned("halves"), world.learned("whole"));
}

#[test]
fn a_run_that_was_asked_to_stop_before_it_began_leaves_nothing() {
    let world = World::new("0123456789");
    world.digits("any", |prompt, _| prompt);
    let config = world.config::<SftConfig>("run", "model", "data.train = 'any.jsonl'\n");
    let stop = Stop::default();
    stop.request(Signal::Interrupt);
    let error = run::sft(&config, Launch { stop, ..launch(&mut Silent) }).unwrap_err();
    assert_eq!(error.to_string(), "stopped by SIGINT before sft began; nothing was written");
    assert!(!world.path("run").exists());
}

#[test]
fn a_run_goes_on_to_more_iterations_than_it_began_with_bit_for_bit() {
    let world = World::of_digits();
    world.digits("echo", |prompt, _| prompt);
    for mode in ["sync", "one_step_off", "async"] {
        let more = format!("queue.mode = '{mode}'\n");
        let config = |name: &str, iterations| {
            world.config::<PpoConfig>(name, "guess", &ppo_text(iterations, &more))
        };
        let (whole, halves) = (format!("{mode}_whole"), format!("{mode}_halves"));
        run::ppo(&config(&whole, 4), launch(&mut Silent)).unwrap();
        run::ppo(&config(&halves, 2), launch(&mut Silent)).unwrap();
        run::ppo(&config(&halves, 4), resume(&mut Silent)).unwrap();
        assert_eq!(world.checksum(&halves), world.checksum(&whole), "{mode}");
        assert_eq!(world.learned(&halves), world.learned(&whole), "{mode}");
    }
}

/// Returns every file of a folder and of those in it.
fn all_files(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    entries.flat_map(|path| if path.is_dir() { all_files(&path) } else { vec![path] }).collect()
}

#[test]
fn a_flipped_bit_in_any_file_of_a_checkpoint_is_refused_by_name_and_the_one_before_it_offered() {
    let world = World::of_digits();
    world.digits("echo", |prompt, _| prompt);
    let text = ppo_text(2, "checkpoint.every = 1\nqueue.mode = 'async'\n");
    let config = world.config::<PpoConfig>("run", "guess", &text);
    run::ppo(&config, launch(&mut Silent)).unwrap();
    let longer = world.config::<PpoConfig>(
        "run",
        "guess",
        &text.replace("iterations = 2", "iterations = 3"),
    );
    let files = all_files(&world.path("run/checkpoints/step_2"));
    assert!(files.len() >= 12, "{files:?}");
    for path in files {
        let whole = fs::read(&path).unwrap();
        let mut bytes = whole.clone();
        bytes[whole.len() / 2] ^= 1;
        fs::write(&path, bytes).unwrap();
        let error = run::ppo(&longer, resume(&mut Silent)).unwrap_err();
        let said = format!("{error:#}");
        assert!(said.starts_with(&format!("{} is damaged: ", path.display())), "{said}");
        assert!(said.ends_with("go on from there with --resume=1"), "{said}");
        assert!(matches!(error.downcast(), Ok(CheckpointError::Damaged { whole: Some(1), .. })));
        fs::write(&path, whole).unwrap();
    }
    let mut observer = Silent;
    let from = Launch { earlier: Earlier::ResumeFrom(1), ..launch(&mut observer) };
    run::ppo(&config, from).unwrap();
    run::ppo(&longer, resume(&mut Silent)).unwrap();
}

#[test]
fn the_best_checkpoints_stay_beside_the_latest() {
    let world = World::of_digits();
    world.digits("echo", |prompt, _| prompt);
    // What is learned is unlearned again: the rate is too high.
    let more = "data.train = 'echo.jsonl'\ndata.eval = 'echo.jsonl'\nsft.batch_size = 50\nsft.epochs = 4\n\
                optimizer.lr = 0.3\ncheckpoint.every = 1\ncheckpoint.keep = 1\ncheckpoint.keep_best = 2\n";
    world.sft("run", "model", more);
    let losses: Vec<f64> =
        world.metrics("run").iter().map(|line| line["eval/loss"].as_f64().unwrap()).collect();
    let mut order: Vec<usize> = (0..losses.len()).collect();
    order.sort_by(|a, b| losses[*a].total_cmp(&losses[*b]));
    let mut expected: Vec<String> =
        order[..2].iter().chain([&(losses.len() - 1)]).map(|i| format!("step_{}", i + 1)).collect();
    expected.sort();
    expected.dedup();
    assert_eq!(crate::world::files(&world.path("run/checkpoints")), expected, "{losses:?}");
}
