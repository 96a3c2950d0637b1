//! SIGKILL at any moment, and a disk that takes no more.

use std::{
    fs,
    path::Path,
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use rand_chacha::{
    ChaCha8Rng,
    rand_core::{RngCore, SeedableRng},
};
use serde_json::Value;

use super::{
    child::{Program, output, wait_for},
    ppo_text,
};
use crate::world::{World, files};

const ITERATIONS: usize = 5;

/// Returns what a run of so many iterations that writes a checkpoint after each of them is configured by.
fn text(mode: &str) -> String {
    let more = format!("checkpoint.every = 1\nqueue.mode = '{mode}'\n");
    ppo_text(ITERATIONS, &more).replace("checkpoint.keep = 0\n", "checkpoint.keep = 2\n")
}

/// Returns the hash of every file of the last checkpoint but the queue, in which answers lie as they came.
fn hashes(run: &Path) -> Value {
    let path = run.join(format!("checkpoints/step_{ITERATIONS}/manifest.json"));
    let mut manifest: Value = serde_json::from_str(&fs::read_to_string(path).unwrap()).unwrap();
    let mut files = manifest["files"].take();
    assert!(files.as_object_mut().unwrap().remove("trainer/queue.jsonl").is_some());
    files
}

/// When a program is killed.
#[derive(Debug)]
enum Moment {
    /// So long after its start.
    Start(Duration),
    /// So long after it began to write a checkpoint.
    Checkpoint(Duration),
    /// So long after it recorded an iteration.
    Record(Duration),
}

impl Moment {
    fn draw(rng: &mut ChaCha8Rng, whole: Duration) -> Self {
        let mut below = |most: Duration| {
            Duration::from_micros(u64::from(rng.next_u32()) % (most.as_micros() as u64).max(1))
        };
        let (early, soon) = (below(whole), below(Duration::from_millis(60)));
        match rng.next_u32() % 3 {
            0 => Self::Start(early),
            1 => Self::Checkpoint(soon),
            _ => Self::Record(soon),
        }
    }

    /// Kills the program at this moment; says whether it had not ended before.
    fn kill(&self, program: &Program, child: &mut Child) -> bool {
        let (started, recorded) = (Instant::now(), program.size("metrics.jsonl"));
        let (ended, after) = match self {
            Self::Start(after) => (wait_for(child, || started.elapsed() >= *after), None),
            Self::Checkpoint(after) => (wait_for(child, || is_writing(&program.run)), Some(after)),
            Self::Record(after) => {
                (wait_for(child, || program.size("metrics.jsonl") > recorded), Some(after))
            }
        };
        if ended {
            return false;
        }
        if let Some(after) = after {
            // No condition to wait for: any moment will do.
            thread::sleep(*after);
        }
        child.kill().unwrap();
        child.wait().unwrap().code().is_none()
    }
}

fn is_writing(run: &Path) -> bool {
    let entries = fs::read_dir(run.join("checkpoints")).into_iter().flatten().flatten();
    let mut names = entries;
    names.any(|entry| entry.file_name().to_string_lossy().ends_with(".unfinished"))
}

/// Kills a run so many times, begins it again whenever it was done before, and compares each end with the whole run's.
fn kill_again_and_again(world: &World, mode: &str, kills: usize) {
    let whole = Program::new(world, &format!("{mode}_whole"), &text(mode));
    let started = Instant::now();
    whole.finish();
    let (took, expected) = (started.elapsed(), hashes(&whole.run));
    let metrics = world.learned(&format!("{mode}_whole"));
    assert_eq!(metrics.len(), ITERATIONS);

    let name = format!("{mode}_killed");
    let killed = Program::new(world, &name, &text(mode));
    let mut rng = ChaCha8Rng::seed_from_u64(kills as u64);
    let mut left = kills;
    loop {
        let mut child = killed.start();
        if left > 0 {
            let moment = Moment::draw(&mut rng, took);
            if moment.kill(&killed, &mut child) {
                left -= 1;
                continue;
            }
        }
        let output = output(child);
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        assert_eq!(hashes(&killed.run), expected, "{mode}, {left} kills left");
        assert_eq!(world.learned(&name), metrics, "{mode}, {left} kills left");
        let names = [ITERATIONS - 1, ITERATIONS].map(|step| format!("step_{step}"));
        assert_eq!(files(&killed.run.join("checkpoints")), names);
        if left == 0 {
            return;
        }
        fs::remove_dir_all(&killed.run).unwrap();
    }
}

#[test]
fn a_run_that_is_killed_at_any_moment_ends_as_if_it_had_never_been() {
    // `make test-full` asks for fifty.
    let kills = std::env::var("ROLLFORGE_KILLS").map_or(5, |kills| kills.parse().unwrap());
    let world = World::of_digits();
    world.digits("echo", |prompt, _| prompt);
    kill_again_and_again(&world, "sync", kills / 2);
    kill_again_and_again(&world, "async", kills - kills / 2);
}

#[cfg(target_os = "linux")]
#[test]
fn a_disk_that_takes_no_more_ends_a_run_by_name_and_costs_nothing_that_was_whole() {
    let world = World::of_digits();
    world.digits("echo", |prompt, _| prompt);
    let whole = Program::new(&world, "whole", &text("sync"));
    whole.finish();
    let program = Program::new(&world, "full", &text("sync"));
    let mut child = program.start();
    assert!(!wait_for(&mut child, || program.run.join("LATEST").exists()));
    child.kill().unwrap();
    child.wait().unwrap();
    let latest = fs::read_to_string(program.run.join("LATEST")).unwrap();

    // No file may grow beyond 50 or 100 KiB, as shells count, and writing more is an error: the weights have 118 KiB.
    let limited = "ulimit -f 100 && trap '' XFSZ && exec \"$@\"";
    let mut shell = Command::new("sh");
    shell.args(["-c", limited, "sh"]).args(program.command());
    let limited = output(shell.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap());
    let said = String::from_utf8(limited.stderr).unwrap();
    assert_eq!(limited.status.code(), Some(1), "{said}");
    let error = said.lines().last().unwrap();
    assert!(
        error.starts_with("error: cannot write ") && error.contains("File too large"),
        "{said}"
    );
    assert!(error.contains(".safetensors"), "{said}");
    assert_eq!(fs::read_to_string(program.run.join("LATEST")).unwrap(), latest);
    assert!(!is_writing(&program.run));

    program.finish();
    assert_eq!(hashes(&program.run), hashes(&whole.run));
    assert_eq!(world.learned("full"), world.learned("whole"));
}
