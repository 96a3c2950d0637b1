//! The wish to stop: made by a signal or by a caller, heard by the loops.

use std::{
    fmt,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

/// Who wants a run to stop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Signal {
    /// SIGINT: Ctrl-C.
    Interrupt,
    /// SIGTERM: what schedulers send before they kill.
    Terminate,
}

impl Signal {
    /// Returns the exit status of a program that ended at this signal: 128 and the signal's number.
    pub fn exit_status(self) -> u8 {
        match self {
            Self::Interrupt => 130,
            Self::Terminate => 143,
        }
    }
}

impl fmt::Display for Signal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Interrupt => "SIGINT",
            Self::Terminate => "SIGTERM",
        })
    }
}

/// A wish to stop. Clones are the same wish; the default is one that nobody has made yet.
///
/// A loop that hears of it ends with the step under way, leaves a checkpoint, and returns [`Stopped`].
#[derive(Clone, Debug, Default)]
pub struct Stop(Arc<Mutex<Wish>>);

#[derive(Debug, Default)]
struct Wish {
    by: Option<Signal>,
    deadline: Option<Duration>,
}

impl Stop {
    /// Makes the wish. The first one counts.
    pub fn request(&self, by: Signal) {
        self.with(|wish| wish.by = wish.by.or(Some(by)));
    }

    /// Returns who made the wish, if anybody has.
    pub fn requested(&self) -> Option<Signal> {
        self.with(|wish| wish.by)
    }

    /// Says how long the step under way may go on once the wish is made.
    pub fn allow(&self, deadline: Duration) {
        self.with(|wish| wish.deadline = Some(deadline));
    }

    /// Returns how long the step under way may go on. Before a run says so, a minute.
    pub fn deadline(&self) -> Duration {
        self.with(|wish| wish.deadline).unwrap_or(Duration::from_secs(60))
    }

    fn with<T>(&self, ask: impl FnOnce(&mut Wish) -> T) -> T {
        // Nothing in here panics between two writes.
        ask(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// The error of a run that was asked to stop, and did. It says how to go on.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("stopped by {by} {place}")]
pub struct Stopped {
    /// Who asked.
    pub by: Signal,
    /// Where the run stood, and how it goes on.
    pub place: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_wish_counts_and_every_clone_hears_it() {
        let stop = Stop::default();
        let heard = stop.clone();
        assert_eq!(heard.requested(), None);
        stop.request(Signal::Terminate);
        stop.request(Signal::Interrupt);
        assert_eq!(heard.requested(), Some(Signal::Terminate));
    }
}
