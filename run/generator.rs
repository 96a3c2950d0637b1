//! The engine's side of a run: prompts in, answered prompts into the queue, for as long as the trainer lets them in.

#[cfg(test)]
mod tests;

use std::{sync::Arc, time::Duration};

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};
use tokio::task::JoinSet;

use super::{heartbeat::Heartbeat, scorer::Finished, whereabouts};
use crate::{
    data::{Cursor, CursorError, Order, PromptSample},
    engine::{Engine, Request, SamplingParams},
    rollout::{Issuer, Permit, Prompt, PromptId, QueueError, Rollout, Ticket},
};

/// A prompt with all its samples.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Answered {
    /// Its place in the order of issue.
    pub(super) ticket: Ticket,
    /// Which of the run's prompts.
    pub(super) prompt: usize,
    /// Its samples, in order.
    pub(super) rollouts: Vec<Rollout>,
}

/// Sends prompts to the engine and answers to the queue.
pub(super) struct Generator<'a> {
    pub(super) engine: Engine,
    pub(super) issuer: Issuer<Arc<Answered>>,
    /// The trainer's.
    pub(super) heartbeat: Heartbeat,
    /// How long the trainer may go without a sign of life.
    pub(super) patience: Duration,
    pub(super) prompts: &'a [PromptSample],
    /// Which prompt belongs to which ticket: the order's first to ticket 0, and so on.
    pub(super) order: Order,
    pub(super) sampling: Arc<SamplingParams>,
    /// Who scores answers while others are generated.
    pub(super) finished: Finished,
}

impl Generator<'_> {
    /// Works until the consumer of the queue is gone. How far it runs ahead is up to the queue's permits.
    ///
    /// # Errors
    /// When the engine cannot answer, or the trainer lets nothing in until the deadline.
    pub(super) fn run(mut self) -> Result<()> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build()?;
        runtime.block_on(async {
            let mut answers = JoinSet::new();
            loop {
                tokio::select! {
                    permit = self.issuer.issue() => match permit {
                        Ok(permit) => drop(answers.spawn(self.answer(permit)?)),
                        Err(QueueError::TrainerGone { .. }) => return Ok(()),
                        // A trainer that lives may take its time: an update, a checkpoint.
                        Err(QueueError::NoPermit { .. }) if !self.heartbeat.left(self.patience).is_zero() => {}
                        Err(error) => return Err(self.explained(error)),
                    },
                    Some(answer) = answers.join_next() => match answer.context("a generation task ended")? {
                        Err(error) if is_over(&error) => return Ok(()),
                        done => done.map_err(|error| self.explained(error))?,
                    },
                }
            }
        })
    }

    /// Answers the prompt of a ticket, on the way into the queue.
    fn answer(
        &mut self,
        permit: Permit<Arc<Answered>>,
    ) -> Result<impl Future<Output = Result<()>> + use<>, CursorError> {
        let ticket = permit.ticket();
        let prompt = self.prompt_of(ticket)?;
        let (engine, finished) = (self.engine.clone(), self.finished.clone());
        let request = Request {
            // The ticket makes each visit of a prompt another one: it is part of the sampling key.
            prompt: Prompt { id: PromptId(ticket.0), tokens: self.prompts[prompt].tokens.clone() },
            sampling: self.sampling.clone(),
        };
        Ok(async move {
            let rollouts = engine.generate(request).await?;
            let answered = Arc::new(Answered { ticket, prompt, rollouts });
            finished.tell(&answered);
            Ok(permit.push(answered)?)
        })
    }

    /// Says with an error where everybody was.
    fn explained(&self, error: impl Into<anyhow::Error>) -> anyhow::Error {
        let others = whereabouts::describe(Some(&self.issuer.state()), Some(&self.engine.stats()));
        error.into().context(format!("generation ended{others}"))
    }

    fn prompt_of(&mut self, ticket: Ticket) -> Result<usize, CursorError> {
        let place = Cursor::after(ticket.0, self.prompts.len());
        // Tickets come one after the other, but for those that a restored queue issues again.
        if self.order.cursor() != place {
            self.order.seek(place)?;
        }
        Ok(self.order.next().expect("the order of prompts has no end"))
    }
}

/// Says whether an error only means that the trainer has all it wants.
fn is_over(error: &anyhow::Error) -> bool {
    matches!(error.downcast_ref(), Some(QueueError::TrainerGone { .. }))
}
