//! The program on a run directory, as people start it.

use std::{
    fs,
    path::PathBuf,
    process::{Child, Command, Output, Stdio},
    thread,
    time::{Duration, Instant},
};

use crate::world::World;

/// How long anything may take that a test waits for.
pub(super) const PATIENCE: Duration = Duration::from_secs(120);

/// The program with a configuration of its own.
pub(super) struct Program {
    config: PathBuf,
    /// The run directory.
    pub(super) run: PathBuf,
}

impl Program {
    /// Writes the configuration of a PPO run into a world.
    pub(super) fn new(world: &World, name: &str, more: &str) -> Self {
        let config = world.path(&format!("{name}.toml"));
        let text = format!(
            "output_dir = '{name}'\nseed = 1\nthreads = 1\nmodel.path = 'guess'\noptimizer.lr = 0.01\n{more}"
        );
        fs::write(&config, text).unwrap();
        Self { config, run: world.path(name) }
    }

    /// Returns the command that begins the run, or goes on with it.
    pub(super) fn command(&self) -> Vec<String> {
        let mut words = vec![env!("CARGO_BIN_EXE_rollforge").to_owned(), "ppo".into()];
        words.extend(["--config".into(), self.config.display().to_string()]);
        // Killed before that, it has not begun.
        if self.run.join(".rollforge-run").exists() {
            words.push("--resume".into());
        }
        words
    }

    pub(super) fn start(&self) -> Child {
        let words = self.command();
        let mut command = Command::new(&words[0]);
        command.args(&words[1..]).stdout(Stdio::piped()).stderr(Stdio::piped());
        command.spawn().unwrap()
    }

    /// Runs to the end.
    pub(super) fn finish(&self) {
        let output = output(self.start());
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }

    /// Returns the size of a file of the run directory; 0 if it is not there.
    pub(super) fn size(&self, name: &str) -> u64 {
        fs::metadata(self.run.join(name)).map_or(0, |file| file.len())
    }
}

/// Waits until the program has ended by itself.
pub(super) fn output(mut child: Child) -> Output {
    let ended = wait_for(&mut child, || false);
    assert!(ended, "the condition never holds");
    child.wait_with_output().unwrap()
}

/// Waits until a condition holds, or the program has ended; says whether it has ended.
pub(super) fn wait_for(child: &mut Child, condition: impl Fn() -> bool) -> bool {
    let started = Instant::now();
    loop {
        if child.try_wait().unwrap().is_some() {
            return true;
        }
        if condition() {
            return false;
        }
        if started.elapsed() > PATIENCE {
            child.kill().unwrap();
            panic!("waited {PATIENCE:?} in vain");
        }
        thread::sleep(Duration::from_millis(1));
    }
}
