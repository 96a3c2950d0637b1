//! The trainer's signs of life, for those who wait for it.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use parking_lot::Mutex;

use super::whereabouts;
use crate::{engine::Engine, rollout::QueueState};

/// What the trainer does, and since when. Clones show the same trainer.
#[derive(Clone)]
pub(super) struct Heartbeat(Arc<Mutex<Beat>>);

struct Beat {
    doing: String,
    since: Instant,
    /// It waits for somebody, by a deadline that is not the trainer's.
    waits: bool,
    queue: Option<QueueState>,
    engine: Option<Engine>,
}

impl Heartbeat {
    /// Starts with what the trainer does first.
    pub(super) fn new(doing: &str) -> Self {
        let (doing, since) = (doing.to_owned(), Instant::now());
        Self(Arc::new(Mutex::new(Beat { doing, since, waits: false, queue: None, engine: None })))
    }

    /// Lets the scheduler's state be told with the trainer's.
    pub(super) fn watch(&self, engine: &Engine) {
        self.0.lock().engine = Some(engine.clone());
    }

    /// Notes that the trainer has begun to compute or to write: `update of iteration 3`.
    pub(super) fn works(&self, doing: String, queue: QueueState) {
        self.note(doing, false, queue);
    }

    /// Notes that it has begun to wait for somebody, which has a deadline of its own.
    pub(super) fn waits(&self, doing: String, queue: QueueState) {
        self.note(doing, true, queue);
    }

    fn note(&self, doing: String, waits: bool, queue: QueueState) {
        let mut beat = self.0.lock();
        (beat.doing, beat.since, beat.waits, beat.queue) =
            (doing, Instant::now(), waits, Some(queue));
    }

    /// Returns how much is left of the time that one phase of the trainer's work may take; zero when it is over.
    pub(super) fn left(&self, deadline: Duration) -> Duration {
        let beat = self.0.lock();
        if beat.waits { deadline } else { deadline.saturating_sub(beat.since.elapsed()) }
    }

    /// Says what the trainer has been doing for how long, and where everybody was when it began.
    pub(super) fn describe(&self) -> String {
        let beat = self.0.lock();
        let (doing, seconds) = (&beat.doing, beat.since.elapsed().as_secs_f64());
        let engine = beat.engine.as_ref().map(Engine::stats);
        let others = whereabouts::describe(beat.queue.as_ref(), engine.as_ref());
        format!("the trainer has been at {doing} for {seconds:.1} s{others}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rollout::{QueueOptions, queue};

    #[test]
    fn work_has_a_deadline_and_waiting_has_its_own() {
        let (_issuer, consumer) = queue::<()>(QueueOptions { batch: 2, ..QueueOptions::default() });
        let heart = Heartbeat::new("opening the models");
        assert!(
            heart.describe().starts_with("the trainer has been at opening the models for 0.0 s")
        );
        let deadline = Duration::from_nanos(1);
        heart.works("update of iteration 3".into(), consumer.state());
        std::thread::sleep(Duration::from_millis(1));
        assert_eq!(heart.left(deadline), Duration::ZERO);
        assert!(heart.left(Duration::from_secs(3600)) > Duration::ZERO);
        heart.waits("taking the batch of iteration 4".into(), consumer.state());
        assert_eq!(heart.left(deadline), deadline);
        let said = heart.describe();
        assert!(
            said.contains("taking the batch of iteration 4") && said.contains("queue: "),
            "{said}"
        );
    }
}
