//! The trainer's end: one batch per iteration.

use std::{
    sync::{Arc, atomic::Ordering},
    time::{Duration, Instant},
};

use crossbeam::sync::Parker;

use super::{QueueError, QueueState, Shared, Slot, WeightVersion, order::Arrivals};

/// Takes batches. There is one per queue; when it is dropped, issuing and pushing fail.
pub struct Consumer<T> {
    shared: Arc<Shared<T>>,
    parker: Parker,
    arrivals: Arrivals<T>,
    /// What the batch under way has so far.
    batch: Vec<T>,
    /// Batches taken and closed by `advance`.
    iteration: u64,
    taken: bool,
    /// Permits that came back without an item.
    dropped: u64,
    /// Slots emptied, so tickets that have come back.
    collected: u64,
}

impl<T> Consumer<T> {
    pub(super) fn new(shared: Arc<Shared<T>>, parker: Parker) -> Self {
        let options = shared.options;
        Self {
            shared,
            parker,
            arrivals: Arrivals::new(&options),
            batch: Vec::with_capacity(options.batch),
            iteration: 0,
            taken: false,
            dropped: 0,
            collected: 0,
        }
    }

    /// Waits for this iteration's batch, without spinning.
    ///
    /// # Errors
    /// When nothing arrives until the deadline, or every issuer and permit is gone before the batch is full. What has
    /// arrived stays; the call can be repeated.
    ///
    /// # Panics
    /// If this iteration's batch has been taken already.
    pub fn take(&mut self) -> Result<Vec<T>, QueueError> {
        let mut progress = Instant::now();
        loop {
            // Looked at before the slots: what the last producer pushed is there by then.
            let alone = self.shared.producers.load(Ordering::Acquire) == 0;
            let before = self.collected;
            if let Some(batch) = self.try_take() {
                return Ok(batch);
            }
            if alone {
                return Err(QueueError::EngineGone {
                    arrived: self.batch.len(),
                    state: self.state(),
                });
            }
            if self.collected > before {
                progress = Instant::now();
            }
            self.wait(progress)?;
        }
    }

    /// Returns this iteration's batch if it is complete. Never waits.
    ///
    /// # Panics
    /// If this iteration's batch has been taken already.
    pub fn try_take(&mut self) -> Option<Vec<T>> {
        assert!(!self.taken, "one batch per iteration: `advance` comes between two");
        self.collect();
        let lacking = self.shared.options.batch - self.batch.len();
        for lacking in (1..=lacking).rev() {
            let Some(item) = self.arrivals.next(lacking) else { break };
            self.batch.push(item);
        }
        self.publish();
        self.taken = self.batch.len() == self.shared.options.batch;
        self.taken.then(|| {
            std::mem::replace(&mut self.batch, Vec::with_capacity(self.shared.options.batch))
        })
    }

    /// Ends the iteration and lets in the next batch of prompts. Call it when the engine already serves `version`.
    ///
    /// # Panics
    /// If no batch was taken in this iteration, or there was more than one refit in it: staleness would go unbounded.
    pub fn advance(&mut self, version: WeightVersion) {
        assert!(self.taken, "an iteration takes its batch before it ends");
        let refits = version.0.checked_sub(self.version().0);
        assert!(
            matches!(refits, Some(0 | 1)),
            "an iteration has one refit at most, got {} to {version}",
            self.version()
        );
        self.taken = false;
        self.iteration += 1;
        self.shared.version.store(version.0, Ordering::Relaxed);
        // A read-modify-write that Releases: any ticket from here on is issued after it, and so after the refit.
        let issued = self.shared.next.fetch_add(0, Ordering::AcqRel);
        self.arrivals.end_iteration(issued);
        self.publish();
    }

    /// Returns the version last given to [`Consumer::advance`].
    pub fn version(&self) -> WeightVersion {
        // Only this thread writes it.
        WeightVersion(self.shared.version.load(Ordering::Relaxed))
    }

    /// Returns how full the queue is and who has its permits.
    pub fn state(&self) -> QueueState {
        let mut state = self.shared.state();
        state.queued += self.arrivals.len() + self.batch.len();
        state
    }

    /// Empties the slots, so that they are free before the limit grows.
    fn collect(&mut self) {
        while let Some(Slot { ticket, item }) = self.shared.slots.pop() {
            self.collected += 1;
            self.dropped += u64::from(item.is_none());
            self.arrivals.add(ticket, item);
        }
    }

    /// Raises the limit: (max_staleness + iteration + 1) * batch, dropped permits not counted.
    fn publish(&self) {
        let options = &self.shared.options;
        let capacity = options.first.0 + options.capacity() as u64;
        let limit = capacity + self.iteration * self.shared.options.batch as u64 + self.dropped;
        self.shared.collected.store(self.collected, Ordering::Relaxed);
        // Only this thread writes it, so it may look at its own last value.
        if self.shared.limit.load(Ordering::Relaxed) < limit {
            // Release pairs with the Acquire in `Shared::admit`.
            self.shared.limit.store(limit, Ordering::Release);
            self.shared.admission.notify_waiters();
        }
    }

    /// Sleeps until something arrives.
    fn wait(&self, progress: Instant) -> Result<(), QueueError> {
        let deadline = self.shared.options.deadline;
        let left = deadline.saturating_sub(progress.elapsed());
        if left > Duration::ZERO {
            self.parker.park_timeout(left);
            return Ok(());
        }
        Err(QueueError::NoRollouts {
            seconds: progress.elapsed().as_secs_f64(),
            arrived: self.batch.len(),
            awaited: self.arrivals.awaited(),
            state: self.state(),
        })
    }
}

impl<T> Drop for Consumer<T> {
    fn drop(&mut self) {
        // Nothing is published through this flag; who misses it pushes into a queue that nobody reads.
        self.shared.consumer_gone.store(true, Ordering::Relaxed);
        self.shared.admission.notify_waiters();
    }
}
