//! What of a queue outlives the process.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use super::{QueueOptions, Ticket, WeightVersion};

/// A queue between two iterations, as plain data: [`super::restore`] makes a queue of it that goes on as if nothing had
/// happened.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct QueueSnapshot<T> {
    /// Iterations that are over, each with its batch.
    pub iteration: u64,
    /// The weights after the last of them.
    pub version: WeightVersion,
    /// The first ticket that was never issued.
    pub next: Ticket,
    /// Permits that came back without an item, since the first.
    pub dropped: u64,
    /// Items that were taken and refused, since the first.
    #[serde(default)]
    pub refused: u64,
    /// What `next` was at the end of each of the last iterations, as many as `max_staleness` at most, the latest last.
    pub ends: Vec<Ticket>,
    /// Tickets that are out, in order: their prompts wait for an answer. A restored queue issues them first.
    pub out: Vec<Ticket>,
    /// What has been answered and not taken, in the order in which it came.
    pub answered: Vec<(Ticket, T)>,
}

/// The snapshot of a queue that nobody has used.
impl<T> Default for QueueSnapshot<T> {
    fn default() -> Self {
        Self {
            iteration: 0,
            version: WeightVersion(0),
            next: Ticket(0),
            dropped: 0,
            refused: 0,
            ends: Vec::new(),
            out: Vec::new(),
            answered: Vec::new(),
        }
    }
}

/// A snapshot that no queue with these options can have left: it is damaged, or of a run with others.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("queue snapshot: {field} must be {rule}, got {got}")]
pub struct SnapshotError {
    /// Which of its fields.
    pub field: &'static str,
    /// What holds of every queue with these options.
    pub rule: String,
    /// What was found.
    pub got: String,
}

/// Tickets after the oldest open one: far more than any run has, and no burden on the memory.
const MOST_TICKETS: u64 = 1 << 20;

impl<T> QueueSnapshot<T> {
    /// Returns the oldest ticket that is out or waits to be taken; the next one where there is none.
    pub(super) fn oldest(&self) -> Ticket {
        self.open().min().unwrap_or(self.next)
    }

    /// Returns the tickets that are out or wait to be taken.
    pub(super) fn open(&self) -> impl Iterator<Item = Ticket> + '_ {
        self.out.iter().copied().chain(self.answered.iter().map(|(ticket, _)| *ticket))
    }

    /// Checks that a queue with these options may have left it.
    pub(super) fn check(&self, options: &QueueOptions) -> Result<(), SnapshotError> {
        let Self { next, ends, .. } = self;
        rule(next.0 < 1 << 62, "next", "below 2^62", next)?;
        rule(self.version.0 < 1 << 62, "version", "below 2^62", self.version)?;
        let open = self.check_open()?;
        let span = next.0 - self.oldest().0;
        let few = format!("within {MOST_TICKETS} tickets of next ({next})");
        rule(span <= MOST_TICKETS, "the oldest of out and answered", few, self.oldest())?;
        let taken = u128::from(self.iteration) * options.batch as u128;
        let gone = u128::from(self.dropped) + u128::from(self.refused);
        let issued = taken + gone + open.len() as u128;
        let sum = format!(
            "{issued}: {} batches of {}, {} dropped, {} refused, {} out and {} answered",
            self.iteration,
            options.batch,
            self.dropped,
            self.refused,
            self.out.len(),
            self.answered.len()
        );
        rule(u128::from(next.0) == issued, "next", sum, next)?;
        let most = options.max_staleness;
        let staleness = format!("at most max_staleness ({most}) tickets");
        rule(ends.len() <= most, "ends", staleness, ends.len())?;
        let sorted = ends.is_sorted() && ends.last().is_none_or(|end| end <= next);
        rule(sorted, "ends", format!("in order, up to next ({next})"), list(ends))?;
        self.check_due(options, &open)
    }

    /// Checks that no ticket is open twice, or was never issued.
    fn check_open(&self) -> Result<BTreeSet<Ticket>, SnapshotError> {
        let below = format!("different tickets below next ({})", self.next);
        let mut open = BTreeSet::new();
        for ticket in self.open() {
            let new = ticket < self.next && open.insert(ticket);
            rule(new, "out and answered", &*below, ticket)?;
        }
        rule(self.out.is_sorted(), "out", "in order", list(&self.out))?;
        Ok(open)
    }

    /// Checks that everything open can still be taken before it is too stale.
    fn check_due(
        &self,
        options: &QueueOptions,
        open: &BTreeSet<Ticket>,
    ) -> Result<(), SnapshotError> {
        let batches = options.max_staleness + 1 - self.ends.len()..;
        let due = self.ends.iter().chain([&self.next]).zip(batches);
        for (end, batches) in due {
            let (open, room) = (open.range(..end).count(), batches * options.batch);
            let rule_text = format!("at most {room} below ticket {end}");
            rule(open <= room, "out and answered", rule_text, open)?;
        }
        Ok(())
    }
}

fn rule(
    kept: bool,
    field: &'static str,
    rule: impl Into<String>,
    got: impl ToString,
) -> Result<(), SnapshotError> {
    if kept {
        return Ok(());
    }
    Err(SnapshotError { field, rule: rule.into(), got: got.to_string() })
}

fn list(tickets: &[Ticket]) -> String {
    let shown = tickets.iter().take(8).map(ToString::to_string).collect::<Vec<_>>().join(", ");
    if tickets.len() > 8 { format!("{shown}, ...") } else { shown }
}
