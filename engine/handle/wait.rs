//! Waiting for the engine thread, but not for ever.

use std::{
    future::Future,
    pin::pin,
    sync::Arc,
    task::{Context, Poll, Wake, Waker},
    thread::Thread,
    time::{Duration, Instant},
};

use crate::engine::{Error, worker::Pulse};

/// How long to wait for what, and how to tell a busy engine from a stuck one.
pub(super) struct Patience<'a> {
    /// Signs of life.
    pub(super) pulse: &'a Pulse,
    /// Longest wait without one.
    pub(super) deadline: Duration,
    /// Who waits.
    pub(super) waiter: &'a str,
    /// For what.
    pub(super) awaited: &'a str,
}

impl Patience<'_> {
    /// Waits on a tokio runtime with its timer enabled.
    pub(super) async fn wait<F: Future>(&self, future: F) -> Result<F::Output, Error> {
        let (mut future, since) = (pin!(future), Instant::now());
        loop {
            let beats = self.pulse.beats();
            if let Ok(output) = tokio::time::timeout(self.deadline, future.as_mut()).await {
                return Ok(output);
            }
            self.check(beats, since)?;
        }
    }

    /// Waits on this thread; needs no runtime.
    pub(super) fn block<F: Future>(&self, future: F) -> Result<F::Output, Error> {
        let (mut future, since) = (pin!(future), Instant::now());
        let waker = Waker::from(Arc::new(Unpark(std::thread::current())));
        let mut context = Context::from_waker(&waker);
        let (mut beats, mut heard) = (self.pulse.beats(), Instant::now());
        loop {
            if let Poll::Ready(output) = future.as_mut().poll(&mut context) {
                return Ok(output);
            }
            match self.deadline.checked_sub(heard.elapsed()) {
                // May return early, or for another's sake: then the loop comes round.
                Some(left) => std::thread::park_timeout(left),
                None => {
                    self.check(beats, since)?;
                    (beats, heard) = (self.pulse.beats(), Instant::now());
                }
            }
        }
    }

    /// Gives up if the engine has not moved since it had made `beats`.
    fn check(&self, beats: u64, since: Instant) -> Result<(), Error> {
        if self.pulse.beats() != beats {
            return Ok(());
        }
        let stats = self.pulse.stats();
        Err(Error::Deadline {
            waiter: self.waiter.to_owned(),
            awaited: self.awaited.to_owned(),
            seconds: since.elapsed().as_secs_f64(),
            state: format!(
                "the engine thread has been in step {} all the while, with {} sequences running and {} waiting",
                stats.engine_steps + 1,
                stats.running,
                stats.waiting
            ),
        })
    }
}

struct Unpark(Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

#[cfg(test)]
mod tests {
    use std::{cell::Cell, future::poll_fn};

    use super::*;
    use crate::engine::Stats;

    /// A future that is ready when looked at for the fifth time, each look being a sign of life if `alive`.
    fn fifth_look(pulse: &Pulse, alive: bool) -> impl Future<Output = u32> + '_ {
        let looks = Cell::new(0);
        poll_fn(move |_| {
            looks.set(looks.get() + 1);
            if alive {
                pulse.beat(Stats::default(), Vec::new());
            }
            if looks.get() == 5 { Poll::Ready(5) } else { Poll::Pending }
        })
    }

    #[test]
    fn a_busy_engine_is_waited_for_and_a_stuck_one_is_not() {
        let pulse = Pulse::default();
        let deadline = Duration::from_millis(1);
        let patience = Patience { pulse: &pulse, deadline, waiter: "a test", awaited: "an end" };
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        assert_eq!(patience.block(fifth_look(&pulse, true)), Ok(5));
        assert_eq!(runtime.block_on(patience.wait(fifth_look(&pulse, true))), Ok(5));
        for error in [
            patience.block(fifth_look(&pulse, false)).unwrap_err(),
            runtime.block_on(patience.wait(fifth_look(&pulse, false))).unwrap_err(),
        ] {
            assert!(error.to_string().starts_with("a test waited "), "{error}");
        }
    }
}
