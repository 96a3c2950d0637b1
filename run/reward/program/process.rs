//! A process that is talked to in lines.

use std::{
    collections::VecDeque,
    io::{BufRead, BufReader, Read, Write},
    os::unix::process::CommandExt,
    process::{Child, Command, Stdio},
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, anyhow, ensure};
use crossbeam::channel::{Receiver, RecvTimeoutError, Sender, bounded, unbounded};
use parking_lot::Mutex;
use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, kill_process_group, waitid};

use super::ProgramOptions;

/// Lines of standard error that an error tells, and bytes of one.
const LAST_WORDS: (usize, usize) = (4, 400);
/// The longest line that is read; what is longer is cut.
const LONGEST_LINE: u64 = 16 << 20;
/// Answers that may wait.
const WAITING: usize = 1024;
/// How long a program may take to end when it is asked to.
const GRACE: Duration = Duration::from_secs(1);
/// How often that is looked at.
const TICK: Duration = Duration::from_millis(5);

/// The program has died, or does not answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub(super) struct Gone(String);

/// Where a program's process stands, so that others can end it.
#[derive(Default)]
pub(super) struct Slot(Mutex<State>);

#[derive(Default)]
struct State {
    closed: bool,
    child: Option<Child>,
}

impl Slot {
    /// Ends the process, and starts no other.
    pub(super) fn close(&self) {
        let mut state = self.0.lock();
        state.closed = true;
        state.child.take().into_iter().for_each(end);
    }

    fn fill(&self, start: impl FnOnce() -> Result<Child>) -> Result<Pipes> {
        let mut state = self.0.lock();
        ensure!(!state.closed, "the run is over");
        let mut child = start()?;
        let pipes = (child.stdin.take(), child.stdout.take(), child.stderr.take());
        state.child = Some(child);
        let (Some(stdin), Some(stdout), Some(stderr)) = pipes else {
            return Err(anyhow!("it has no standard input and output"));
        };
        Ok((Box::new(stdin), Box::new(stdout), Box::new(stderr)))
    }

    fn take(&self) -> Option<Child> {
        self.0.lock().child.take()
    }
}

type Pipes = (Box<dyn Write + Send>, Box<dyn Read + Send>, Box<dyn Read + Send>);

/// A living process. Its pipes have threads, for no write and no read may take longer than the deadline.
///
/// # Drop
/// Ends it, and waits for it: no zombie is left.
pub(super) struct Process {
    slot: Arc<Slot>,
    deadline: Duration,
    input: Sender<String>,
    output: Receiver<String>,
    last_words: Arc<Mutex<VecDeque<String>>>,
    heard: Option<thread::JoinHandle<()>>,
}

impl Process {
    /// Starts the program in a process group of its own, so that what it starts ends with it.
    ///
    /// # Errors
    /// When it cannot be started.
    pub(super) fn start(options: &ProgramOptions, slot: &Arc<Slot>) -> Result<Self> {
        let (stdin, stdout, stderr) = slot.fill(|| spawn(options))?;
        let (input, questions) = unbounded::<String>();
        let (answers, output) = bounded(WAITING);
        let last_words = Arc::new(Mutex::new(VecDeque::new()));
        let spawn = |name: &str| thread::Builder::new().name(format!("program {name}"));
        let mut stdin = stdin;
        spawn("stdin").spawn(move || {
            let write =
                |line: String| stdin.write_all(line.as_bytes()).and_then(|()| stdin.flush());
            // Ends with the program, whose end is seen at its output.
            questions.into_iter().map(write).all(|written| written.is_ok());
        })?;
        spawn("stdout").spawn(move || {
            lines(stdout).all(|line| answers.send(line).is_ok());
        })?;
        let words = last_words.clone();
        let heard = spawn("stderr").spawn(move || {
            for mut line in lines(stderr).filter(|line| !line.trim().is_empty()) {
                line.truncate(line.floor_char_boundary(LAST_WORDS.1));
                let mut words = words.lock();
                words.push_back(line);
                if words.len() > LAST_WORDS.0 {
                    words.pop_front();
                }
            }
        })?;
        let (slot, deadline, heard) = (slot.clone(), options.deadline, Some(heard));
        Ok(Self { slot, deadline, input, output, last_words, heard })
    }

    /// Hands it a line. Never waits.
    pub(super) fn write(&self, line: String) {
        // Fails where it has died: then nothing can be read either.
        drop(self.input.send(line));
    }

    /// Waits for a line that is not empty.
    ///
    /// # Errors
    /// [`Gone`].
    pub(super) fn read(&mut self) -> Result<String, Gone> {
        let since = Instant::now();
        loop {
            let left = self.deadline.saturating_sub(since.elapsed());
            match self.output.recv_timeout(left) {
                Ok(line) if line.trim().is_empty() => {}
                Ok(line) => return Ok(line),
                Err(RecvTimeoutError::Timeout) => {
                    let seconds = self.deadline.as_secs_f64();
                    return Err(Gone(format!(
                        "no answer within {seconds:.1} s (deadline_seconds)"
                    )));
                }
                Err(RecvTimeoutError::Disconnected) => return Err(Gone(self.died())),
            }
        }
    }

    fn died(&self) -> String {
        let Some(mut child) = self.slot.take() else { return "it was ended".to_owned() };
        if !has_ended(&child, GRACE) {
            end(child);
            return "it closed its standard output".to_owned();
        }
        // While nobody has waited for it, its group's number is its own: what it started and left behind ends here.
        kill(&child, Signal::KILL);
        match child.wait() {
            Ok(status) => format!("it died ({status})"),
            Err(_) => "it died".to_owned(),
        }
    }

    /// Ends it, and returns what it said last.
    pub(super) fn end(mut self) -> String {
        self.slot.take().into_iter().for_each(end);
        // Its end of the pipe is closed by now, unless somebody else has it.
        let since = Instant::now();
        while self.heard.as_ref().is_some_and(|heard| !heard.is_finished())
            && since.elapsed() < GRACE
        {
            thread::sleep(TICK);
        }
        self.heard = None;
        let words = self.last_words.lock();
        words.iter().map(|line| line.trim()).collect::<Vec<_>>().join(" | ")
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.slot.take().into_iter().for_each(end);
    }
}

fn spawn(options: &ProgramOptions) -> Result<Child> {
    let ProgramOptions { command, directory, .. } = options;
    let (program, arguments) = command.split_first().context("reward.command is empty")?;
    // A path is one of the folder it runs in, as its arguments are; a name is looked for where programs are.
    let path = match program.contains('/') {
        true => directory.join(program),
        false => program.into(),
    };
    let mut command = Command::new(path);
    command.args(arguments).current_dir(directory).process_group(0);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command.spawn().with_context(|| format!("program {program:?} cannot be started"))
}

/// Asks a process and all of its group to end, makes them, and waits for it.
fn end(mut child: Child) {
    kill(&child, Signal::TERM);
    has_ended(&child, GRACE);
    kill(&child, Signal::KILL);
    child.wait().ok();
}

fn kill(child: &Child, signal: Signal) {
    if let Some(group) = pid(child) {
        kill_process_group(group, signal).ok();
    }
}

/// Waits for a process to end, without taking its status away.
fn has_ended(child: &Child, most: Duration) -> bool {
    let Some(pid) = pid(child) else { return true };
    let look = WaitIdOptions::EXITED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT;
    let since = Instant::now();
    loop {
        if !matches!(waitid(WaitId::Pid(pid), look), Ok(None)) {
            return true;
        }
        if since.elapsed() >= most {
            return false;
        }
        thread::sleep(TICK);
    }
}

fn pid(child: &Child) -> Option<Pid> {
    i32::try_from(child.id()).ok().and_then(Pid::from_raw)
}

/// Returns the lines of a pipe until it ends.
fn lines(pipe: impl Read) -> impl Iterator<Item = String> {
    let mut pipe = BufReader::new(pipe);
    std::iter::from_fn(move || {
        let mut line = Vec::new();
        let read = pipe.by_ref().take(LONGEST_LINE).read_until(b'\n', &mut line);
        (read.ok()? > 0).then(|| String::from_utf8_lossy(&line).trim_end().to_owned())
    })
}
