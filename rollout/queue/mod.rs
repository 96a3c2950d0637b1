//! The queue from engine to trainer: bounded, lock-free, and never staler than agreed.
//!
//! Staleness is bounded by admission, not by throwing rollouts away afterwards. Before a prompt goes to the engine, its
//! issuer gets a [`Permit`], and there are never more of them than
//!
//! ```text
//! issued <= (max_staleness + iteration + 1) * batch        (AReaL, arXiv 2505.24298, on staleness-aware training)
//! ```
//!
//! dropped permits and refused items not counted. The trainer takes one batch per iteration (and others in place of what
//! it refuses) and refits at most once in each, so whatever was issued in iteration `i` is consumed by iteration `i +
//! max_staleness`, at most `max_staleness` refits later. A permit is also the reservation of a slot: pushing never waits
//! and never fails for want of room.
//!
//! ```
//! use rollforge::rollout::{Order, QueueOptions, queue};
//!
//! let options = QueueOptions { batch: 2, order: Order::Ticket, ..QueueOptions::default() };
//! let (issuer, mut consumer) = queue(options);
//! let first = issuer.try_issue()?.expect("two permits at the start");
//! let second = issuer.try_issue()?.expect("two permits at the start");
//! assert!(issuer.try_issue()?.is_none(), "a third would be stale");
//!
//! second.push("b")?;
//! first.push("a")?;
//! assert_eq!(consumer.take()?, ["a", "b"]);
//! consumer.advance(consumer.version().next()); // after the refit
//! assert!(issuer.try_issue()?.is_some());
//! # Ok::<(), rollforge::rollout::QueueError>(())
//! ```
//!
//! What travels is up to the caller: a rollout, or all rollouts of one prompt.

mod bell;
mod consumer;
mod error;
mod issuer;
#[cfg(test)]
#[cfg(rollforge_loom)]
mod models;
mod order;
#[cfg(test)]
#[cfg(not(rollforge_loom))]
mod schedules;
mod snapshot;
mod sync;
#[cfg(test)]
#[cfg(not(rollforge_loom))]
mod tests;

use std::{
    fmt,
    ops::Deref,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use serde::{Deserialize, Serialize};

use super::WeightVersion;
use bell::Bell;
pub use consumer::Consumer;
pub use error::{QueueError, QueueState};
pub use issuer::{Issuer, Permit};
pub use snapshot::{QueueSnapshot, SnapshotError};
use sync::{ArrayQueue, AtomicBool, AtomicU64, CountedArc, Notify, Padded};

/// The place of a permit in the order of issue, from 0. Dropped permits leave gaps.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
pub struct Ticket(pub u64);

impl fmt::Display for Ticket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// In which order the trainer takes what the engine made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Order {
    /// As the prompts were issued: runs repeat exactly, and a batch waits for its slowest completion.
    #[default]
    Ticket,
    /// As they come: a slow completion is overtaken for as long as that cannot make it too stale.
    Arrival,
}

/// How a queue is to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct QueueOptions {
    /// Items the trainer takes per iteration.
    pub batch: usize,
    /// By how many refits the weights may have moved on between issue and consumption. 0 is synchronous.
    pub max_staleness: usize,
    /// In which order items are taken.
    pub order: Order,
    /// How long a wait may go on without progress.
    pub deadline: Duration,
}

impl Default for QueueOptions {
    fn default() -> Self {
        Self {
            batch: 1,
            max_staleness: 0,
            order: Order::Ticket,
            deadline: Duration::from_secs(600),
        }
    }
}

impl QueueOptions {
    /// Returns how many items can be on their way at once, from permit to consumption.
    pub fn capacity(&self) -> usize {
        (self.max_staleness + 1) * self.batch
    }
}

/// Makes a queue: one end issues permits and pushes, the other takes.
///
/// # Panics
/// If the batch is empty.
pub fn queue<T>(options: QueueOptions) -> (Issuer<T>, Consumer<T>) {
    restore(options, QueueSnapshot::default()).expect("nobody has used it")
}

/// Makes a queue that goes on where a snapshot was made. Tickets that were out then are issued again, before others.
///
/// # Errors
/// When no queue with these options can have left the snapshot.
///
/// # Panics
/// If the batch is empty.
pub fn restore<T>(
    options: QueueOptions,
    snapshot: QueueSnapshot<T>,
) -> Result<(Issuer<T>, Consumer<T>), SnapshotError> {
    assert!(options.batch > 0, "a batch has at least one item");
    snapshot.check(&options)?;
    let (bell, parker) = Bell::new();
    let again = (!snapshot.out.is_empty()).then(|| ArrayQueue::new(snapshot.out.len()));
    for &ticket in &snapshot.out {
        let again = again.as_ref().expect("there is one where there are tickets for it");
        again.push(ticket).expect("it has room for all of them");
    }
    let shared = Arc::new(Shared {
        options,
        slots: ArrayQueue::new(options.capacity()),
        again,
        next: Padded::new(AtomicU64::new(snapshot.next.0)),
        limit: Padded::new(AtomicU64::new(snapshot.next.0)),
        report: Padded::new(Report::default()),
        version: AtomicU64::new(snapshot.version.0),
        producers_gone: AtomicBool::new(false),
        consumer_gone: AtomicBool::new(false),
        admission: Notify::new(),
        bell,
    });
    let issuer = Issuer::new(CountedArc::new(Producers(shared.clone())));
    Ok((issuer, Consumer::restore(shared, parker, snapshot)))
}

/// What a permit leaves in its slot: an item, or nothing when it was dropped.
struct Slot<T> {
    ticket: Ticket,
    item: Option<T>,
}

/// What both ends see. What one thread writes often is padded, so that the other's looks at its neighbours stay cheap.
struct Shared<T> {
    options: QueueOptions,
    /// As many slots as permits can be out, so a permit always finds one free.
    slots: ArrayQueue<Slot<T>>,
    /// Tickets that a snapshot found out, if any: they are issued before `next`.
    again: Option<ArrayQueue<Ticket>>,
    /// The next ticket; only grows.
    next: Padded<AtomicU64>,
    /// Tickets below it may be issued; only grows, and only the consumer writes it.
    limit: Padded<AtomicU64>,
    report: Padded<Report>,
    /// The version of the weights, by the consumer's word. For reports.
    version: AtomicU64,
    /// Every issuer and permit is.
    producers_gone: AtomicBool,
    consumer_gone: AtomicBool,
    /// Wakes issuers when the limit grows or the consumer goes.
    admission: Notify,
    /// Wakes the consumer when a slot fills or the last producer goes.
    bell: Bell,
}

/// What the consumer leaves for reports.
#[derive(Default)]
struct Report {
    /// Tickets whose slots it has emptied.
    collected: AtomicU64,
    /// Those of them that had no item.
    dropped: AtomicU64,
}

/// The engine's side as a whole: every issuer and permit holds it.
struct Producers<T>(Arc<Shared<T>>);

impl<T> Deref for Producers<T> {
    type Target = Shared<T>;

    fn deref(&self) -> &Shared<T> {
        &self.0
    }
}

impl<T> Drop for Producers<T> {
    /// The last one has gone, and has seen what all others did. Release pairs with the consumer's Acquire: who sees them
    /// gone also sees every slot filled before.
    fn drop(&mut self) {
        self.producers_gone.store(true, Ordering::Release);
        self.bell.ring();
    }
}

impl<T> Shared<T> {
    /// Returns a ticket, if one may be issued.
    fn admit(&self) -> Option<Ticket> {
        if let Some(ticket) = self.again.as_ref().and_then(ArrayQueue::pop) {
            return Some(ticket);
        }
        // Acquire pairs with the Release in `Consumer::open`: who sees the limit of an iteration submits its prompt
        // after the refit that ended the iteration before.
        let limit = self.limit.load(Ordering::Acquire);
        // An old limit only admits less. Acquire pairs with `Consumer::close`, which reads the next ticket by a
        // read-modify-write: a ticket it did not count is issued after the refit it follows.
        self.next
            .try_update(Ordering::Acquire, Ordering::Relaxed, |next| {
                (next < limit).then_some(next + 1)
            })
            .ok()
            .map(Ticket)
    }

    fn fill(&self, ticket: Ticket, item: Option<T>) {
        let free = self.slots.push(Slot { ticket, item }).is_ok();
        assert!(free, "a permit reserves its slot");
        self.bell.ring();
    }

    fn is_closed(&self) -> bool {
        // Nothing is published through this flag.
        self.consumer_gone.load(Ordering::Relaxed)
    }

    /// Looks at the counters, each by itself: a report, not a snapshot. Hence Relaxed.
    fn state(&self) -> QueueState {
        let again = self.again.as_ref().map_or(0, ArrayQueue::len) as u64;
        let queued = self.slots.len();
        let collected = self.report.collected.load(Ordering::Relaxed);
        let issued = self.next.load(Ordering::Relaxed);
        QueueState {
            batch: self.options.batch,
            max_staleness: self.options.max_staleness,
            version: WeightVersion(self.version.load(Ordering::Relaxed)),
            issued,
            may_issue: self.limit.load(Ordering::Relaxed).saturating_sub(issued) + again,
            queued,
            dropped: self.report.dropped.load(Ordering::Relaxed),
            out: issued.saturating_sub(collected + queued as u64 + again),
        }
    }
}
