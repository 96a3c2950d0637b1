//! We and our peers by turns, so that a machine that changes its mind does so to everybody.

use anyhow::Result;

use super::{
    Peer, Report, Row, Subject,
    peer::{Answer, Arguments},
    report::PeerRows,
    row::merge,
    subject::OnDisk,
};
use crate::rollout::Dtype;

/// How often, and with whom.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Turns {
    /// How often each thing is measured in a turn, after a first time that does not count.
    pub repeats: usize,
    /// How many turns each has.
    pub rounds: usize,
    /// With whom.
    pub peers: Vec<Peer>,
}

impl Turns {
    /// Checks the numbers, and that each peer can be started.
    ///
    /// # Errors
    /// One line.
    pub(super) fn check(&self) -> Result<()> {
        at_least("--repeats", 1, [self.repeats])?;
        at_least("--rounds", 1, [self.rounds])?;
        self.peers.iter().try_for_each(Peer::check)
    }

    /// Returns the model as a directory, where somebody beside us is to read it.
    ///
    /// # Errors
    /// When it cannot be written.
    pub(super) fn on_disk(&self, model: &Subject, dtype: Dtype) -> Result<Option<OnDisk>> {
        let compared = !self.peers.is_empty();
        compared.then(|| model.on_disk(dtype)).transpose()
    }

    /// Lets each peer and then us measure, round after round, and compares what came of it. Returns each peer's last
    /// answer.
    ///
    /// # Errors
    /// Those of `ours`, and of the peers.
    pub(super) fn take(
        &self,
        report: &mut Report,
        arguments: &Arguments,
        progress: &mut dyn FnMut(&str),
        mut ours: impl FnMut(&mut dyn FnMut(&str)) -> Result<Vec<Row>>,
    ) -> Result<Vec<Answer>> {
        let mut answers: Vec<Answer> = Vec::new();
        for round in 0..self.rounds {
            // First the peers: one that is not installed says so before we have measured anything.
            for (index, peer) in self.peers.iter().enumerate() {
                progress(&format!("peer {}", peer.name));
                let mut answer = peer.measure(&report.bench, arguments.as_slice(), progress)?;
                if round == 0 {
                    report.peers.push(peer_rows(peer, &mut answer));
                    let note = answer.note.take().filter(|note| !note.is_empty());
                    report.notes.extend(note.map(|note| format!("{}: {note}", peer.name)));
                    answers.push(answer);
                } else {
                    merge(&mut report.peers[index].rows, answer.rows);
                }
            }
            merge(&mut report.rows, ours(progress)?);
        }
        report.compare();
        Ok(answers)
    }
}

fn peer_rows(peer: &Peer, answer: &mut Answer) -> PeerRows {
    PeerRows {
        name: peer.name.clone(),
        versions: std::mem::take(&mut answer.versions),
        rows: std::mem::take(&mut answer.rows),
        agreement: None,
    }
}

/// Checks numbers of an argument.
///
/// # Errors
/// Names the argument, the rule and the number.
pub(super) fn at_least(
    name: &str,
    least: usize,
    numbers: impl IntoIterator<Item = usize>,
) -> Result<()> {
    match numbers.into_iter().find(|&number| number < least) {
        Some(number) => anyhow::bail!("{name} must be at least {least}, got {number}"),
        None => Ok(()),
    }
}

/// Does something once that does not count, and then so often.
///
/// # Errors
/// Those of `once`.
pub(super) fn repeated(repeats: usize, mut once: impl FnMut() -> Result<f64>) -> Result<Vec<f64>> {
    once()?;
    (0..repeats).map(|_| once()).collect()
}

#[cfg(test)]
mod tests {
    use std::{fs, time::Duration};

    use super::*;
    use crate::run::bench::{Unit, report};

    #[test]
    fn everybody_has_as_many_turns_one_after_the_other() {
        let folder = tempfile::tempdir().unwrap();
        let log = folder.path().join("log");
        let script = format!(
            "echo peer >> {log}; echo '{{\"results\":[{{\"name\":\"x_s\",\"unit\":\"s\",\"values\":[4]}}],\"note\":\"n\"}}'",
            log = log.display()
        );
        fs::write(folder.path().join("run.sh"), script).unwrap();
        let peer = Peer {
            name: "hf".into(),
            folder: folder.path().into(),
            deadline: Duration::from_secs(60),
        };
        let turns = Turns { repeats: 1, rounds: 2, peers: vec![peer] };
        turns.check().unwrap();
        let mut report = Report { rows: vec![], peers: vec![], ..report::tests::example() };
        let arguments = Arguments::new(folder.path());
        let answers = turns
            .take(&mut report, &arguments, &mut |_| (), |_| {
                let before = fs::read_to_string(&log).unwrap_or_default();
                fs::write(&log, before + "we\n").unwrap();
                Ok(vec![Row::new("x", Unit::Seconds, vec![2.0], None)?])
            })
            .unwrap();
        assert_eq!(fs::read_to_string(&log).unwrap(), "peer\nwe\npeer\nwe\n");
        assert_eq!(answers.len(), 1);
        assert_eq!(report.rows[0].values, vec![2.0, 2.0].try_into().unwrap());
        assert_eq!(report.peers[0].rows[0].values, vec![4.0, 4.0].try_into().unwrap());
        assert_eq!(report.ratios[0].times_better, 2.0);
        assert_eq!(report.notes.last().unwrap(), "hf: n");
    }

    #[test]
    fn the_first_time_does_not_count() {
        let mut count = 0.0;
        let mut next = || {
            count += 1.0;
            Ok(count)
        };
        assert_eq!(repeated(2, &mut next).unwrap(), [2.0, 3.0]);
        let error = at_least("--batch", 1, [4, 0]).unwrap_err().to_string();
        assert_eq!(error, "--batch must be at least 1, got 0");
    }
}
