//! The trainer's end: one batch per iteration.

use std::{
    collections::{BTreeSet, VecDeque},
    sync::{Arc, atomic::Ordering},
    time::{Duration, Instant},
};

use super::{
    QueueError, QueueSnapshot, QueueState, Shared, Slot, Ticket, WeightVersion,
    order::Arrivals,
    sync::{Backoff, Parker},
};

/// How often a wait asks whether it is to go on.
const TICK: Duration = Duration::from_millis(100);

/// Takes batches. There is one per queue; when it is dropped, issuing and pushing fail.
pub struct Consumer<T> {
    shared: Arc<Shared<T>>,
    parker: Parker,
    arrivals: Arrivals<T>,
    /// What the batch under way has so far.
    batch: Vec<(Ticket, T)>,
    /// How many it is to have: fewer than a whole one after some were refused.
    wanted: usize,
    /// Batches taken and closed.
    iteration: u64,
    taken: bool,
    /// Permits that came back without an item.
    dropped: u64,
    /// Items that were taken and refused.
    refused: u64,
    back: Back,
    /// The next ticket at the end of each of the last `max_staleness` iterations.
    ends: VecDeque<Ticket>,
}

impl<T> Consumer<T> {
    pub(super) fn restore(
        shared: Arc<Shared<T>>,
        parker: Parker,
        snapshot: QueueSnapshot<T>,
    ) -> Self {
        let consumer = Self {
            parker,
            batch: Vec::with_capacity(shared.options.batch),
            wanted: shared.options.batch,
            iteration: snapshot.iteration,
            taken: false,
            dropped: snapshot.dropped,
            refused: snapshot.refused,
            back: Back::of(&snapshot),
            ends: snapshot.ends.iter().copied().collect(),
            arrivals: Arrivals::restore(&shared.options, snapshot),
            shared,
        };
        consumer.report();
        consumer.open();
        consumer
    }

    /// Waits for this iteration's batch, or for what takes the place of those refused, without spinning.
    ///
    /// # Errors
    /// When nothing arrives until the deadline, or every issuer and permit is gone before the batch is full. What has
    /// arrived stays; the call can be repeated.
    ///
    /// # Panics
    /// If this iteration's batch has been taken already.
    pub fn take(&mut self) -> Result<Vec<T>, QueueError> {
        self.wait_for(Self::try_take, Self::no_rollouts)
    }

    /// Waits as [`Consumer::take`] does for as long as `go_on` says so; it is asked every tenth of a second.
    ///
    /// # Errors
    /// As [`Consumer::take`].
    ///
    /// # Panics
    /// If this iteration's batch has been taken already.
    pub fn take_while(&mut self, go_on: impl Fn() -> bool) -> Result<Option<Vec<T>>, QueueError> {
        let attempt = |consumer: &mut Self| match go_on() {
            true => consumer.try_take().map(Some),
            false => Some(None),
        };
        self.wait_for(attempt, Self::no_rollouts)
    }

    fn no_rollouts(&self, seconds: f64) -> QueueError {
        QueueError::NoRollouts {
            seconds,
            arrived: self.batch.len(),
            awaited: self.arrivals.awaited(),
            state: self.state(),
        }
    }

    /// Waits until everything that was let in has been answered: no permit is out, and none can be issued. A refit then
    /// meets no prompt in flight, whatever the engine's pace.
    ///
    /// # Errors
    /// When nothing arrives until the deadline, or every issuer is gone before all is issued. The call can be repeated.
    pub fn settle(&mut self) -> Result<(), QueueError> {
        let settled = |consumer: &mut Self| consumer.is_settled().then_some(());
        self.wait_for(settled, |consumer, seconds| QueueError::NotSettled {
            seconds,
            oldest: consumer.back.oldest_out(consumer.issued()),
            state: consumer.state(),
        })
    }

    /// Returns this iteration's batch if it is complete. Never waits.
    ///
    /// # Panics
    /// If this iteration's batch has been taken already.
    pub fn try_take(&mut self) -> Option<Vec<T>> {
        assert!(!self.taken, "one batch per iteration: `advance` comes between two");
        self.collect();
        let lacking = self.wanted - self.batch.len();
        for lacking in (1..=lacking).rev() {
            let Some(item) = self.arrivals.next(lacking) else { break };
            self.batch.push(item);
        }
        self.open();
        self.taken = self.batch.len() == self.wanted;
        self.taken.then(|| self.batch.drain(..).map(|(_, item)| item).collect())
    }

    /// Refuses so many of the items taken last: as many others are let in, and are to be taken in this iteration. None of
    /// them is staler than those were allowed to be, for the engine has the same weights.
    ///
    /// # Panics
    /// If no batch was taken in this iteration, or not so many items.
    pub fn refuse(&mut self, refused: usize) {
        assert!(self.taken && refused <= self.wanted, "only what was taken can be refused");
        if refused == 0 {
            return;
        }
        self.refused += refused as u64;
        self.wanted = refused;
        self.taken = false;
        self.open();
    }

    /// Ends the iteration and lets in the next batch of prompts. Call it when the engine already serves `version`.
    ///
    /// # Panics
    /// If no batch was taken in this iteration, or there was more than one refit in it: staleness would go unbounded.
    pub fn advance(&mut self, version: WeightVersion) {
        self.close(version);
        self.open();
    }

    /// Ends the iteration as [`Consumer::advance`] does, and lets nobody in yet: that is [`Consumer::open`]. In between,
    /// [`Consumer::snapshot`] finds the queue at rest.
    ///
    /// # Panics
    /// As [`Consumer::advance`].
    pub fn close(&mut self, version: WeightVersion) {
        assert!(self.taken, "an iteration takes its batch before it ends");
        let refits = version.0.checked_sub(self.version().0);
        assert!(
            matches!(refits, Some(0 | 1)),
            "an iteration has one refit at most, got {} to {version}",
            self.version()
        );
        self.taken = false;
        self.wanted = self.shared.options.batch;
        self.iteration += 1;
        self.shared.version.store(version.0, Ordering::Relaxed);
        // A read-modify-write that Releases: any ticket from here on is issued after it, and so after the refit.
        let issued = self.shared.next.fetch_add(0, Ordering::Release);
        self.arrivals.end_iteration(issued);
        self.ends.push_back(Ticket(issued));
        if self.ends.len() > self.shared.options.max_staleness {
            self.ends.pop_front();
        }
    }

    /// Lets in what may be answered in this iteration: (max_staleness + iteration + 1) * batch prompts since the start,
    /// dropped permits and refused items not counted.
    pub fn open(&self) {
        let options = &self.shared.options;
        let taken = self.iteration * options.batch as u64;
        let limit = options.capacity() as u64 + taken + self.dropped + self.refused;
        // Only this thread writes it, so it may look at its own last value.
        if self.shared.limit.load(Ordering::Relaxed) < limit {
            // Release pairs with the Acquire in `Shared::admit`.
            self.shared.limit.store(limit, Ordering::Release);
            self.shared.admission.notify_waiters();
        }
    }

    /// Returns what it takes to go on later as if nothing had happened, see [`super::restore`].
    ///
    /// # Panics
    /// If a batch is taken or refused in part, and its iteration has not ended.
    pub fn snapshot(&mut self) -> QueueSnapshot<T>
    where
        T: Clone,
    {
        let refilled = self.wanted < self.shared.options.batch;
        assert!(!self.taken && !refilled, "a snapshot is made between two iterations");
        self.collect();
        let next = self.issued();
        let waiting = self.arrivals.iter().map(|(ticket, item)| (ticket, item.clone()));
        QueueSnapshot {
            iteration: self.iteration,
            version: self.version(),
            next,
            dropped: self.dropped,
            refused: self.refused,
            ends: self.ends.iter().copied().collect(),
            out: self.back.out(next).collect(),
            answered: self.batch.iter().cloned().chain(waiting).collect(),
        }
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

    /// Returns the next ticket. Relaxed: whatever has been collected was issued before, as its slot shows.
    fn issued(&self) -> Ticket {
        Ticket(self.shared.next.load(Ordering::Relaxed))
    }

    /// Empties the slots, so that they are free before the limit grows.
    fn collect(&mut self) {
        while let Some(Slot { ticket, item }) = self.shared.slots.pop() {
            self.back.add(ticket);
            self.dropped += u64::from(item.is_none());
            self.arrivals.add(ticket, item);
        }
        self.report();
    }

    /// Leaves its counters where [`Shared::state`] finds them.
    fn report(&self) {
        self.shared.report.collected.store(self.back.count, Ordering::Relaxed);
        self.shared.report.dropped.store(self.dropped, Ordering::Relaxed);
    }

    fn is_settled(&mut self) -> bool {
        self.collect();
        self.open();
        // Nobody else raises the limit: once all below it are back, nothing moves.
        self.back.count == self.shared.limit.load(Ordering::Relaxed)
    }

    /// Waits until an attempt succeeds; `late` makes the error of a wait without an arrival.
    fn wait_for<R>(
        &mut self,
        mut attempt: impl FnMut(&mut Self) -> Option<R>,
        late: impl Fn(&Self, f64) -> QueueError,
    ) -> Result<R, QueueError> {
        let (mut progress, backoff) = (Instant::now(), Backoff::new());
        let mut listening = false;
        loop {
            // Looked at before the slots: what the last producer pushed is there by then.
            let alone = self.shared.producers_gone.load(Ordering::Acquire);
            let before = self.back.count;
            if let Some(done) = attempt(self) {
                if listening {
                    self.shared.bell.ignore();
                }
                return Ok(done);
            }
            if alone {
                let arrived = self.batch.len();
                return Err(QueueError::EngineGone { arrived, state: self.state() });
            }
            if self.back.count > before {
                progress = Instant::now();
                backoff.reset();
            }
            // A moment's wait is over before a sleep would have begun.
            if !backoff.is_completed() {
                backoff.snooze();
                continue;
            }
            if !listening {
                self.shared.bell.listen();
                listening = true;
                continue;
            }
            let waited = progress.elapsed();
            match self.shared.options.deadline.checked_sub(waited).filter(|left| !left.is_zero()) {
                // Sleeps until something arrives, or it is time to ask again.
                Some(left) => self.parker.park_timeout(left.min(TICK)),
                None => return Err(late(self, waited.as_secs_f64())),
            }
        }
    }
}

impl<T> Drop for Consumer<T> {
    fn drop(&mut self) {
        // Nothing is published through this flag; who misses it pushes into a queue that nobody reads.
        self.shared.consumer_gone.store(true, Ordering::Relaxed);
        self.shared.admission.notify_waiters();
    }
}

/// Which tickets have come back, with an item or without.
struct Back {
    /// How many.
    count: u64,
    /// All below it have.
    all_below: u64,
    /// And these.
    beyond: BTreeSet<u64>,
}

impl Back {
    fn of<T>(snapshot: &QueueSnapshot<T>) -> Self {
        let all_below = snapshot.out.first().unwrap_or(&snapshot.next).0;
        let mut beyond: BTreeSet<u64> = (all_below..snapshot.next.0).collect();
        for ticket in &snapshot.out {
            beyond.remove(&ticket.0);
        }
        Self { count: snapshot.next.0 - snapshot.out.len() as u64, all_below, beyond }
    }

    fn add(&mut self, ticket: Ticket) {
        self.count += 1;
        if ticket.0 > self.all_below {
            self.beyond.insert(ticket.0);
            return;
        }
        self.all_below += 1;
        while self.beyond.remove(&self.all_below) {
            self.all_below += 1;
        }
    }

    /// Returns the tickets below `next` that have not, in order.
    fn out(&self, next: Ticket) -> impl Iterator<Item = Ticket> + '_ {
        let missing = |ticket: &u64| !self.beyond.contains(ticket);
        (self.all_below..next.0).filter(missing).map(Ticket)
    }

    fn oldest_out(&self, next: Ticket) -> Option<Ticket> {
        self.out(next).next()
    }
}
