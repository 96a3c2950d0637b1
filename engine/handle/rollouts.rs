//! Many requests at once, their rollouts one by one.

use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};

use super::Engine;
use crate::{
    engine::{
        Error, Request, StreamEvent,
        worker::{Command, Sink, Ticket},
    },
    rollout::Rollout,
};

/// Receives rollouts in the order in which they end.
///
/// # Drop
/// Cancels what has not ended.
pub struct Rollouts {
    engine: Engine,
    tickets: Vec<Ticket>,
    rollouts: UnboundedReceiver<Item>,
    /// Rollouts still to come.
    left: usize,
}

/// Which request, and its rollout; or how many of its rollouts are lost, and why.
type Item = Result<(usize, Rollout), (u32, Error)>;

impl Rollouts {
    /// Sends the requests off.
    pub(super) fn start(engine: &Engine, requests: impl IntoIterator<Item = Request>) -> Self {
        let (sender, rollouts) = unbounded_channel();
        let (mut tickets, mut left) = (Vec::new(), 0);
        for (index, request) in requests.into_iter().enumerate() {
            let ticket = engine.next_ticket();
            let (sender, prompt, n) = (sender.clone(), request.prompt.id, request.sampling.n);
            let mut unfinished = n;
            let sink: Sink = Box::new(move |event| {
                let item = match event {
                    Ok(StreamEvent::Finished(rollout)) => {
                        unfinished -= 1;
                        Ok((index, rollout))
                    }
                    Ok(_) => return,
                    Err(error) => {
                        Err((unfinished, Error::Prompt { prompt, source: Box::new(error) }))
                    }
                };
                // The receiver is gone when it was dropped: a cancellation is on its way.
                drop(sender.send(item));
            });
            engine.send(Command::Submit(ticket, request, sink));
            tickets.push(ticket);
            left += n as usize;
        }
        Self { engine: engine.clone(), tickets, rollouts, left }
    }

    /// Returns how many rollouts are still to come.
    pub fn left(&self) -> usize {
        self.left
    }

    /// Waits for the next rollout; `None` after the last.
    ///
    /// # Errors
    /// As an item: [`Error::Prompt`] for a request that failed, which the others outlive; [`Error::Stopped`] or
    /// [`Error::Deadline`], after which none comes.
    ///
    /// # Cancel safety
    /// Dropping the future loses no rollout.
    pub async fn next(&mut self) -> Option<Result<Rollout, Error>> {
        let engine = self.engine.clone();
        let item = engine.patience("rollouts", "the next rollout").wait(self.receive()).await;
        let item = item.unwrap_or_else(|late| self.give_up(late))?;
        Some(item.map(|(_, rollout)| rollout))
    }

    /// Does what [`Rollouts::next`] does, without an async runtime.
    ///
    /// # Errors
    /// As [`Rollouts::next`].
    pub fn next_blocking(&mut self) -> Option<Result<Rollout, Error>> {
        Some(self.next_indexed()?.map(|(_, rollout)| rollout))
    }

    /// Returns an iterator that waits on this thread, without an async runtime.
    pub fn into_blocking(mut self) -> impl Iterator<Item = Result<Rollout, Error>> {
        std::iter::from_fn(move || self.next_blocking())
    }

    /// Waits on this thread for the next rollout and which request it answers, counted from 0.
    pub(super) fn next_indexed(&mut self) -> Option<Result<(usize, Rollout), Error>> {
        let engine = self.engine.clone();
        let item = engine.patience("rollouts", "the next rollout").block(self.receive());
        item.unwrap_or_else(|late| self.give_up(late))
    }

    async fn receive(&mut self) -> Option<Result<(usize, Rollout), Error>> {
        if self.left == 0 {
            return None;
        }
        match self.rollouts.recv().await {
            Some(Ok(indexed)) => {
                self.left -= 1;
                Some(Ok(indexed))
            }
            Some(Err((lost, error))) => {
                self.left -= lost as usize;
                Some(Err(error))
            }
            None => self.give_up(self.engine.0.pulse.stopped()),
        }
    }

    fn give_up<T>(&mut self, error: Error) -> Option<Result<T, Error>> {
        self.cancel();
        Some(Err(error))
    }

    fn cancel(&mut self) {
        self.left = 0;
        for ticket in self.tickets.drain(..) {
            // Those that have ended are unknown by now, and ignored.
            self.engine.send(Command::Cancel(ticket));
        }
    }
}

impl Drop for Rollouts {
    fn drop(&mut self) {
        if self.left > 0 {
            self.cancel();
        }
    }
}
