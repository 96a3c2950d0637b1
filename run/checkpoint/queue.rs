//! The queue in a checkpoint: `trainer/queue.jsonl`, its counters in the first line, then an answered prompt a line.

use std::{
    fs::File,
    io::{self, BufRead, BufReader, BufWriter, Read, Write},
    path::Path,
};

use anyhow::{Context, Result};
use serde::{Serialize, de::DeserializeOwned};

use super::Checkpoint;
use crate::rollout::{QueueSnapshot, Ticket};

const NAME: &str = "trainer/queue.jsonl";
/// The longest line: a prompt with all its samples, some forty bytes a token.
const LONGEST: u64 = 1 << 30;

/// Writes a queue into a checkpoint that is being made, beside its trainer's state.
///
/// # Errors
/// When the file cannot be written.
pub(crate) fn save_queue<T: Serialize + Clone>(
    checkpoint: &Path,
    queue: &QueueSnapshot<T>,
) -> Result<()> {
    let path = checkpoint.join(NAME);
    let write = || -> io::Result<()> {
        let mut file = BufWriter::new(File::create(&path)?);
        let counters = QueueSnapshot::<T> {
            iteration: queue.iteration,
            version: queue.version,
            next: queue.next,
            dropped: queue.dropped,
            refused: queue.refused,
            ends: queue.ends.clone(),
            out: queue.out.clone(),
            answered: Vec::new(),
        };
        write_line(&mut file, &counters)?;
        queue.answered.iter().try_for_each(|answered| write_line(&mut file, answered))?;
        file.flush()
    };
    write().with_context(|| format!("cannot write {}", path.display()))
}

fn write_line(file: &mut impl Write, value: &impl Serialize) -> io::Result<()> {
    serde_json::to_writer(&mut *file, value)?;
    file.write_all(b"\n")
}

/// Reads the queue of a checkpoint.
///
/// # Errors
/// One line that names the file and the line, where it holds something else.
pub(crate) fn restore_queue<T: DeserializeOwned>(
    checkpoint: &Checkpoint,
) -> Result<QueueSnapshot<T>> {
    read_queue(&checkpoint.file(NAME)?)
}

/// Reads a `queue.jsonl`.
///
/// # Errors
/// One line that names the file and the line, where it holds something else.
pub fn read_queue<T: DeserializeOwned>(path: &Path) -> Result<QueueSnapshot<T>> {
    let file = File::open(path).with_context(|| format!("cannot read {}", path.display()))?;
    let mut lines = Lines { file: BufReader::new(file), number: 0 };
    let counters = lines.next::<QueueSnapshot<T>>().with_context(|| lines.place(path))?;
    let mut queue = counters.with_context(|| format!("{} is empty", path.display()))?;
    while let Some(answered) = lines.next::<(Ticket, T)>().with_context(|| lines.place(path))? {
        queue.answered.push(answered);
    }
    Ok(queue)
}

/// Values, one a line.
struct Lines<R> {
    file: R,
    /// Of the line read last, from 1.
    number: usize,
}

impl<R: BufRead> Lines<R> {
    fn next<V: DeserializeOwned>(&mut self) -> io::Result<Option<V>> {
        self.number += 1;
        let mut line = String::new();
        (&mut self.file).take(LONGEST).read_line(&mut line)?;
        if line.is_empty() {
            return Ok(None);
        }
        // One line, whatever the names in it.
        let value = serde_json::from_str(&line)
            .map_err(|error| io::Error::other(error.to_string().replace('\n', " ")))?;
        Ok(Some(value))
    }

    fn place(&self, path: &Path) -> String {
        format!("{}:{}", path.display(), self.number)
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::{rollout::WeightVersion, run::checkpoint::Checkpoints};

    fn checkpoint(lines: Option<&str>) -> (tempfile::TempDir, Checkpoint) {
        let run = tempfile::tempdir().unwrap();
        let checkpoints = Checkpoints::of(run.path());
        let fill = |folder: &Path| {
            fs::create_dir(folder.join("trainer"))?;
            match lines {
                Some(lines) => Ok(fs::write(folder.join(NAME), lines)?),
                None => save_queue(folder, &queue()),
            }
        };
        checkpoints.write((1, None), fill).unwrap();
        let checkpoint = checkpoints.open(None).unwrap().unwrap();
        (run, checkpoint)
    }

    fn queue() -> QueueSnapshot<Vec<f32>> {
        QueueSnapshot {
            iteration: 3,
            version: WeightVersion(2),
            next: Ticket(9),
            dropped: 1,
            refused: 2,
            ends: vec![Ticket(8)],
            out: vec![Ticket(8)],
            answered: vec![(Ticket(7), vec![0.1, -1e-30]), (Ticket(6), vec![])],
        }
    }

    #[test]
    fn a_queue_reads_back_bit_for_bit() {
        let (_run, checkpoint) = checkpoint(None);
        assert_eq!(restore_queue::<Vec<f32>>(&checkpoint).unwrap(), queue());
    }

    #[test]
    fn what_is_no_queue_is_refused_with_its_line() {
        let (_run, good) = checkpoint(None);
        let counters = fs::read_to_string(good.file(NAME).unwrap()).unwrap();
        let counters = counters.lines().next().unwrap().to_owned();
        for (lines, words) in [
            (String::new(), "queue.jsonl is empty"),
            ("{}\n".to_owned(), "queue.jsonl:1: missing field `iteration`"),
            (format!("{counters}\n[7, [0.5"), "queue.jsonl:2: EOF while parsing"),
            ("{\"a\\nb\": 0}\n".to_owned(), "queue.jsonl:1: unknown field `a b`"),
        ] {
            let (_run, checkpoint) = checkpoint(Some(&lines));
            let error = restore_queue::<Vec<f32>>(&checkpoint).unwrap_err();
            let said = format!("{error:#}");
            assert!(said.contains(words), "{said}");
        }
    }
}
