//! What a user would pick instead, run on the same model, lengths and cores by the scripts in `benches/peers/`.

use std::{
    ffi::OsString,
    io::{BufRead, BufReader, Read},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};
use serde::Deserialize;
use serde_json::{Map, Value};

use super::Row;

/// How often a peer is looked at while it works.
const LOOK: Duration = Duration::from_millis(50);

/// Whom to compare with, and how to start it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Peer {
    /// Its name: `hf`, `llamacpp`, `trl` or `torch`.
    pub name: String,
    /// The folder of the scripts.
    pub folder: PathBuf,
    /// How long it may take, each time.
    pub deadline: Duration,
}

/// What a peer answers: the last line of its output.
#[derive(Clone, Debug, Deserialize)]
pub(super) struct Answer {
    #[serde(default)]
    pub(super) versions: Map<String, Value>,
    #[serde(rename = "results")]
    pub(super) rows: Vec<Row>,
    /// The greedy continuation of each prompt.
    #[serde(default)]
    pub(super) greedy: Option<Vec<Vec<u32>>>,
    #[serde(default)]
    pub(super) note: Option<String>,
}

impl Peer {
    /// Checks that there is something to start.
    ///
    /// # Errors
    /// Says where the script should be.
    pub(super) fn check(&self) -> Result<()> {
        let script = self.script();
        ensure!(
            script.is_file(),
            "--peer {}: {} is missing; name the repository's folder benches/peers with --peers-folder",
            self.name,
            script.display()
        );
        Ok(())
    }

    /// Measures `what` with these arguments, and waits for the answer. `progress` hears what it says meanwhile.
    ///
    /// # Errors
    /// The last thing it said, when it fails; and when it takes too long, and has then been ended.
    pub(super) fn measure(
        &self,
        what: &str,
        arguments: &[OsString],
        progress: &mut dyn FnMut(&str),
    ) -> Result<Answer> {
        let mut child = Command::new("bash")
            .arg(self.script())
            .arg(&self.name)
            .arg(what)
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .with_context(|| format!("cannot start {}", self.script().display()))?;
        let answer = child.stdout.take().map(|stdout| thread::spawn(|| text(stdout)));
        let (said, hear) = crossbeam::channel::unbounded();
        let stderr = child.stderr.take();
        let listener = thread::spawn(move || {
            for line in BufReader::new(stderr?).lines() {
                said.send(line.ok()?).ok()?;
            }
            Some(())
        });
        let started = Instant::now();
        let mut last = String::new();
        let mut tell = || {
            for line in hear.try_iter().filter(|line| !line.trim().is_empty()) {
                progress(&format!("{}: {line}", self.name));
                last = line;
            }
        };
        let status = loop {
            tell();
            if let Some(status) = child.try_wait()? {
                break status;
            }
            if started.elapsed() > self.deadline {
                end(&mut child);
                let seconds = self.deadline.as_secs();
                bail!("peer {} did not answer to `{what}` within {seconds} s", self.name);
            }
            thread::sleep(LOOK);
        };
        listener.join().ok();
        tell();
        let answer = answer.and_then(|thread| thread.join().ok()).unwrap_or_default();
        if !status.success() {
            bail!("peer {} failed at `{what}` ({status}): {last}", self.name);
        }
        parse(&answer).with_context(|| format!("peer {} answered to `{what}`", self.name))
    }

    fn script(&self) -> PathBuf {
        self.folder.join("run.sh")
    }
}

fn text(mut stream: impl Read) -> String {
    let mut bytes = Vec::new();
    // What came before an error is as good an answer as any: it does not parse.
    stream.read_to_end(&mut bytes).ok();
    String::from_utf8_lossy(&bytes).into_owned()
}

fn end(child: &mut Child) {
    child.kill().ok();
    child.wait().ok();
}

fn parse(output: &str) -> Result<Answer> {
    let line = output.lines().rev().find(|line| !line.trim().is_empty());
    let line = line.context("nothing")?;
    serde_json::from_str(line).context("what is no result")
}

/// Arguments as a peer's script takes them.
#[derive(Default)]
pub(super) struct Arguments(Vec<OsString>);

impl Arguments {
    /// Those of nobody.
    pub(super) fn none() -> Self {
        Self::default()
    }

    pub(super) fn new(model: &Path) -> Self {
        Self(vec!["--model".into(), model.into()])
    }

    pub(super) fn with(mut self, name: &str, value: impl ToString) -> Self {
        self.0.extend([name.into(), value.to_string().into()]);
        self
    }

    pub(super) fn as_slice(&self) -> &[OsString] {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    /// A peer whose script is this.
    fn peer(folder: &Path, script: &str, deadline: Duration) -> Peer {
        fs::write(folder.join("run.sh"), script).unwrap();
        Peer { name: "hf".into(), folder: folder.into(), deadline }
    }

    const MINUTE: Duration = Duration::from_secs(60);

    #[test]
    fn a_peer_answers_on_its_last_line() {
        let folder = tempfile::tempdir().unwrap();
        let script = r#"echo loading >&2; echo chatter
            echo '{"peer":"hf","versions":{"torch":"2"},"results":[{"name":"x_s","unit":"s","values":['$3$4']}],"greedy":[[1,2]],"note":"n"}'"#;
        let mut said = Vec::new();
        let answer = peer(folder.path(), script, MINUTE)
            .measure("engine", &["1".into(), "2".into()], &mut |line| said.push(line.to_owned()))
            .unwrap();
        assert_eq!(answer.rows[0].values.median(), 12.0);
        assert_eq!(
            (answer.greedy, answer.versions["torch"].clone()),
            (Some(vec![vec![1, 2]]), "2".into())
        );
        assert_eq!((said, answer.note.as_deref()), (vec!["hf: loading".to_owned()], Some("n")));
    }

    #[test]
    fn a_peer_that_fails_is_quoted() {
        let folder = tempfile::tempdir().unwrap();
        let say = |script: &str, deadline| {
            let peer = peer(folder.path(), script, deadline);
            format!("{:#}", peer.measure("engine", &[], &mut |_| ()).unwrap_err())
        };
        let said =
            say("echo first >&2; echo 'no venv: benches/peers/setup.sh' >&2; exit 2", MINUTE);
        assert!(
            said.contains("hf failed at `engine`")
                && said.ends_with("no venv: benches/peers/setup.sh"),
            "{said}"
        );
        assert!(say("echo hello", MINUTE).contains("answered to `engine`: what is no result"));
        assert!(say("true", MINUTE).contains("answered to `engine`: nothing"));
        assert!(
            say("exec sleep 60", Duration::ZERO).contains("did not answer to `engine` within 0 s")
        );
        let missing = Peer { folder: folder.path().join("no"), ..peer(folder.path(), "", MINUTE) };
        assert!(missing.check().unwrap_err().to_string().contains("run.sh is missing"));
    }
}
