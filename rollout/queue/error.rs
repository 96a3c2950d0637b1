//! What can go wrong in the queue: somebody does not come, or is gone.

use super::{Ticket, WeightVersion};

/// How full the queue is and who has its permits. Read while others work, so numbers may be a moment apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct QueueState {
    /// Items per iteration.
    pub batch: usize,
    /// The staleness bound, in refits.
    pub max_staleness: usize,
    /// The weights, by the trainer's last word.
    pub version: WeightVersion,
    /// Permits issued since the start: the next ticket's number.
    pub issued: u64,
    /// Permits that could be issued now.
    pub may_issue: u64,
    /// Items (and news of dropped permits) that wait for the trainer.
    pub queued: usize,
    /// Permits that came back without an item, since the start.
    pub dropped: u64,
    /// Permits neither pushed with nor dropped: prompts with the engine.
    pub out: u64,
}

/// An error of the queue.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum QueueError {
    /// The trainer waited in vain.
    #[error("trainer waited {seconds:.1} s for rollouts: {arrived} of {} arrived, {}", state.batch, missing(*awaited, state))]
    NoRollouts {
        /// Since the last arrival.
        seconds: f64,
        /// Items of the batch that are here.
        arrived: usize,
        /// The ticket that holds up the others, where order is by ticket.
        awaited: Option<Ticket>,
        /// The queue at that time.
        state: QueueState,
    },
    /// The trainer waited in vain for the engine to be empty, so that it can be refitted.
    #[error(
        "trainer waited {seconds:.1} s for all that was let in to be answered before a refit: {}, {} waiting for the \
         trainer at version {}",
        outstanding(*oldest, state), state.queued, state.version
    )]
    NotSettled {
        /// Since the last arrival.
        seconds: f64,
        /// The first ticket that is not back.
        oldest: Option<Ticket>,
        /// The queue at that time.
        state: QueueState,
    },
    /// The engine's side waited in vain.
    #[error(
        "engine waited {seconds:.1} s for a permit: the trainer is still at version {}, with max_staleness {} and batch {} \
         all {} permits so far are issued, {} of them out and {} waiting for the trainer",
        state.version, state.max_staleness, state.batch, state.issued, state.out, state.queued
    )]
    NoPermit {
        /// Since the call.
        seconds: f64,
        /// The queue at that time.
        state: QueueState,
    },
    /// Nobody is left who could push.
    #[error(
        "the engine's side of the queue is gone: {arrived} of {} rollouts arrived at version {}, no permit is out",
        state.batch, state.version
    )]
    EngineGone {
        /// Items of the batch that are here.
        arrived: usize,
        /// The queue at that time.
        state: QueueState,
    },
    /// Nobody is left who could take.
    #[error(
        "the trainer's side of the queue is gone: it was at version {}, {} rollouts were left waiting",
        state.version, state.queued
    )]
    TrainerGone {
        /// The queue at that time.
        state: QueueState,
    },
}

fn permits(state: &QueueState) -> String {
    format!("{} permits out, {} more could be issued", state.out, state.may_issue)
}

fn outstanding(oldest: Option<Ticket>, state: &QueueState) -> String {
    match oldest {
        None => permits(state),
        Some(ticket) => format!("ticket {ticket} is with the engine, {}", permits(state)),
    }
}

fn missing(awaited: Option<Ticket>, state: &QueueState) -> String {
    let permits = permits(state);
    match awaited {
        None => permits,
        Some(ticket) if ticket.0 < state.issued => {
            format!("next ticket {ticket} is with the engine, {permits}")
        }
        Some(ticket) => format!("next ticket {ticket} was never issued, {permits}"),
    }
}
