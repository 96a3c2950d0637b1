//! The engine's end: permits, and what is pushed with them.

use std::time::Instant;

use super::{Producers, QueueError, QueueState, Ticket, sync::CountedArc};

/// Issues permits. Clones issue from the same queue; when the last one and every permit are gone, the consumer's wait
/// ends with an error.
pub struct Issuer<T>(CountedArc<Producers<T>>);

impl<T> Issuer<T> {
    pub(super) fn new(producers: CountedArc<Producers<T>>) -> Self {
        Self(producers)
    }

    /// Returns a permit, or `None` when what it makes could be consumed too late. Never waits.
    ///
    /// # Errors
    /// When the consumer is gone.
    pub fn try_issue(&self) -> Result<Option<Permit<T>>, QueueError> {
        if self.0.is_closed() {
            return Err(QueueError::TrainerGone { state: self.0.state() });
        }
        let permit = |ticket| Permit { producers: self.0.clone(), ticket, pushed: false };
        Ok(self.0.admit().map(permit))
    }

    /// Waits for a permit. Needs a tokio runtime with time enabled.
    ///
    /// # Errors
    /// When the consumer is gone, or the deadline passes.
    ///
    /// # Cancel safety
    /// Dropping the future issues nothing.
    pub async fn issue(&self) -> Result<Permit<T>, QueueError> {
        let started = Instant::now();
        match tokio::time::timeout(self.0.options.deadline, self.admitted()).await {
            Ok(permit) => permit,
            Err(_) => Err(QueueError::NoPermit {
                seconds: started.elapsed().as_secs_f64(),
                state: self.0.state(),
            }),
        }
    }

    /// Returns how full the queue is and who has its permits.
    pub fn state(&self) -> QueueState {
        self.0.state()
    }

    /// Waits for a permit, however long it takes.
    pub(super) async fn admitted(&self) -> Result<Permit<T>, QueueError> {
        loop {
            // Listen first, look second: a limit raised in between is not missed.
            let mut raised = std::pin::pin!(self.0.admission.notified());
            raised.as_mut().enable();
            if let Some(permit) = self.try_issue()? {
                return Ok(permit);
            }
            raised.await;
        }
    }
}

impl<T> Clone for Issuer<T> {
    fn clone(&self) -> Self {
        Self::new(self.0.clone())
    }
}

/// The right to have one prompt answered, and a slot for the answer.
///
/// Dropped without a push (the request failed or was cancelled), it is given back: its ticket is skipped, and another
/// permit can be issued once the consumer has noticed.
#[must_use = "a permit dropped is given back"]
pub struct Permit<T> {
    producers: CountedArc<Producers<T>>,
    ticket: Ticket,
    pushed: bool,
}

impl<T> Permit<T> {
    /// Returns the place in the order of issue.
    pub fn ticket(&self) -> Ticket {
        self.ticket
    }

    /// Moves the item into the queue. Never waits: the slot is reserved.
    ///
    /// # Errors
    /// When the consumer is gone; the item is lost.
    pub fn push(mut self, item: T) -> Result<(), QueueError> {
        self.pushed = true;
        if self.producers.is_closed() {
            return Err(QueueError::TrainerGone { state: self.producers.state() });
        }
        self.producers.fill(self.ticket, Some(item));
        Ok(())
    }
}

impl<T> Drop for Permit<T> {
    fn drop(&mut self) {
        if !self.pushed {
            self.producers.fill(self.ticket, None);
        }
    }
}
