//! The user's Python with TensorRT-LLM, which alone can build engines.

use std::{
    ffi::OsString,
    fs::{self, File},
    io::{self, BufRead, BufReader, Write},
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    sync::mpsc::{self, RecvTimeoutError},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};

/// What runs in that Python.
pub const SCRIPT: &str = include_str!("build_engine.py");

/// Longest a Python may take to say what it has.
const PROBE_DEADLINE: Duration = Duration::from_secs(60);

/// What a failing script's last words start with.
const LAST_WORDS: &str = "rollforge: ";

/// What a Python has.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Toolchain {
    /// Its own version.
    pub python: String,
    /// TensorRT-LLM's version, if it has TensorRT-LLM.
    pub tensorrt_llm: Option<String>,
    /// Where TensorRT-LLM lies.
    #[serde(skip_serializing)]
    pub location: Option<PathBuf>,
    /// TensorRT's version, if it has TensorRT.
    pub tensorrt: Option<String>,
}

/// A Python interpreter.
#[derive(Clone, Debug)]
pub struct Python(pub PathBuf);

impl Default for Python {
    /// Takes the Python that a shell would.
    fn default() -> Self {
        Self("python3".into())
    }
}

impl Python {
    /// Asks what it has, without importing TensorRT-LLM.
    ///
    /// # Errors
    /// When it cannot be started, or does not answer.
    pub fn probe(&self) -> Result<Toolchain> {
        let mut command = self.command();
        // Through the standard input nothing has to be written, and nothing can be left behind.
        command.args(["-", "probe"]);
        let mut said = String::new();
        let status = run(command, SCRIPT, PROBE_DEADLINE, &mut |line| said = line.to_owned())
            .with_context(|| format!("cannot ask {} for TensorRT-LLM", self.0.display()))?;
        match serde_json::from_str(&said) {
            Ok(toolchain) if status.success() => Ok(toolchain),
            _ => bail!(
                "{} cannot say whether it has TensorRT-LLM ({status}): {said}",
                self.0.display()
            ),
        }
    }

    /// Runs the build script in `folder`, which becomes its working directory, and writes all it says to `log`.
    ///
    /// # Errors
    /// When it cannot be started, does not end before the deadline, or fails: in its own words, with the log's name.
    pub fn build(&self, call: &BuildCall<'_>, on_line: &mut dyn FnMut(&str)) -> Result<()> {
        let script = call.folder.join("build_engine.py");
        fs::write(&script, SCRIPT).with_context(|| format!("cannot write {}", script.display()))?;
        let log = || format!("cannot write {}", call.log.display());
        let mut file = File::create(call.log).with_context(log)?;
        let mut command = self.command();
        command.arg(&script).arg("build").args(&call.arguments).current_dir(call.folder);
        let (mut last, mut written) = (String::new(), Ok(()));
        let status = run(command, "", call.deadline, &mut |line| {
            if written.is_ok() {
                written = writeln!(file, "{line}");
            }
            if !line.trim().is_empty() {
                last = line.to_owned();
            }
            on_line(line);
        });
        written.with_context(log)?;
        let status = status.with_context(|| format!("cannot build with {}", self.0.display()))?;
        if status.success() {
            return Ok(());
        }
        let reason =
            last.strip_prefix(LAST_WORDS).map_or_else(|| status.to_string(), str::to_owned);
        bail!("the engine build failed: {reason} (all of it: {})", call.log.display())
    }

    fn command(&self) -> Command {
        let mut command = Command::new(&self.0);
        command.env("PYTHONUNBUFFERED", "1");
        for name in cleared(std::env::vars_os().map(|(name, _)| name)) {
            command.env_remove(name);
        }
        command
    }
}

/// Picks the variables that a build must not see. It is one process of its own: what a job launcher says about its ranks
/// makes MPI wait for them.
pub(super) fn cleared(names: impl IntoIterator<Item = OsString>) -> Vec<OsString> {
    let launcher = |name: &OsString| {
        let name = name.to_string_lossy();
        ["PMI", "OMPI_", "SLURM_"].iter().any(|prefix| name.starts_with(prefix))
    };
    names.into_iter().filter(launcher).collect()
}

/// One run of the build script.
#[derive(Debug)]
pub struct BuildCall<'a> {
    /// Arguments after `build`.
    pub arguments: Vec<OsString>,
    /// Where the script is written and runs.
    pub folder: &'a Path,
    /// The file for all that it says.
    pub log: &'a Path,
    /// Longest it may take.
    pub deadline: Duration,
}

/// Runs a command and hands on each line of both its outputs.
fn run(
    mut command: Command,
    input: &str,
    deadline: Duration,
    on_line: &mut dyn FnMut(&str),
) -> Result<ExitStatus> {
    let started = Instant::now();
    let (reader, writer) = io::pipe()?;
    command.stdin(Stdio::piped()).stdout(writer.try_clone()?).stderr(writer);
    let mut child = command.spawn()?;
    // The command holds this end's copies: the pipe ends with the child only when they are gone.
    drop(command);
    // The child may end without reading; then its own words say why.
    child.stdin.take().map(|mut stdin| stdin.write_all(input.as_bytes()));
    let (sender, lines) = mpsc::channel();
    std::thread::spawn(move || {
        for line in BufReader::new(reader).split(b'\n').map_while(Result::ok) {
            if sender.send(String::from_utf8_lossy(&line).trim_end().to_owned()).is_err() {
                return;
            }
        }
    });
    loop {
        match lines.recv_timeout(Duration::from_millis(100)) {
            Ok(line) => on_line(&line),
            Err(RecvTimeoutError::Disconnected) => break,
            // What the child has started may hold the pipe open for longer than it lives.
            Err(RecvTimeoutError::Timeout) if child.try_wait()?.is_some() => break,
            Err(RecvTimeoutError::Timeout) => {}
        }
        if started.elapsed() > deadline {
            return Err(end(&mut child, deadline));
        }
    }
    lines.try_iter().for_each(|line| on_line(&line));
    wait(&mut child, started, deadline)
}

/// Waits for a child that has closed its outputs.
fn wait(child: &mut Child, started: Instant, deadline: Duration) -> Result<ExitStatus> {
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(status);
        }
        if started.elapsed() > deadline {
            return Err(end(child, deadline));
        }
        std::thread::sleep(Duration::from_millis(10));
    }
}

fn end(child: &mut Child, deadline: Duration) -> anyhow::Error {
    // It may have ended by itself just now.
    child.kill().ok();
    child.wait().ok();
    anyhow::anyhow!("it was stopped after {} s", deadline.as_secs())
}
