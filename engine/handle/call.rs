//! One call: its events, and its cancellation.

use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};

use super::{Engine, Permit};
use crate::engine::{Error, Request, StreamEvent, worker::Command, worker::Ticket};

/// A request in the engine. Dropping it cancels it.
pub(super) struct Call {
    engine: Engine,
    ticket: Ticket,
    events: UnboundedReceiver<Result<StreamEvent, Error>>,
    /// Samples that have not ended.
    left: u32,
    _permit: Permit,
}

impl Call {
    /// Sends a request off.
    pub(super) fn start(engine: &Engine, request: Request, permit: Permit) -> Self {
        let (sender, events) = unbounded_channel();
        let (ticket, left) = (engine.next_ticket(), request.sampling.n.max(1));
        // The receiver is gone when the call was dropped: a cancellation is on its way.
        let sink = Box::new(move |event| drop(sender.send(event)));
        engine.send(Command::Submit(ticket, request, sink));
        Self { engine: engine.clone(), ticket, events, left, _permit: permit }
    }

    /// Waits for the next event; `None` after the last one, or an error.
    pub(super) async fn next(&mut self) -> Option<Result<StreamEvent, Error>> {
        if self.left == 0 {
            return None;
        }
        let event = self.events.recv().await;
        let event = event.unwrap_or_else(|| Err(self.engine.0.pulse.stopped()));
        match &event {
            Ok(StreamEvent::Finished(_)) => self.left -= 1,
            Ok(_) => {}
            Err(_) => self.left = 0,
        }
        Some(event)
    }
}

impl Drop for Call {
    fn drop(&mut self) {
        if self.left > 0 {
            self.engine.send(Command::Cancel(self.ticket));
        }
    }
}

/// The tokens of a request, as they are sampled.
///
/// # Drop
/// Cancels the request.
pub struct TokenStream(Call);

impl TokenStream {
    pub(super) fn new(call: Call) -> Self {
        Self(call)
    }

    /// Waits for the next event: each token as it comes, each sample as it ends. `None` after the last one, or an error.
    ///
    /// # Errors
    /// As [`Engine::generate`], as an item.
    ///
    /// # Cancel safety
    /// Dropping the future loses no event.
    pub async fn next(&mut self) -> Option<Result<StreamEvent, Error>> {
        let engine = self.0.engine.clone();
        engine.patience("stream", "its next token").wait(self.0.next()).await.unwrap_or_else(
            |late| {
                self.0.left = 0;
                engine.send(Command::Cancel(self.0.ticket));
                Some(Err(late))
            },
        )
    }

    /// Does what [`TokenStream::next`] does, without an async runtime.
    ///
    /// # Errors
    /// As [`TokenStream::next`].
    pub fn next_blocking(&mut self) -> Option<Result<StreamEvent, Error>> {
        let engine = self.0.engine.clone();
        engine.patience("stream", "its next token").block(self.0.next()).unwrap_or_else(|late| {
            self.0.left = 0;
            engine.send(Command::Cancel(self.0.ticket));
            Some(Err(late))
        })
    }
}
