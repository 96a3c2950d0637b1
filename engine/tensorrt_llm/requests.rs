//! Which requests wait, which are in the executor, and what its responses mean to them.
//!
//! Responses are believed as little as can be: one that comes twice, for an id that nobody knows, or after the end, is
//! passed over; one that cannot be (a token beyond the vocabulary, a log-prob that is no number) fails its request.

#[cfg(test)]
mod tests;

use std::{
    collections::{HashMap, VecDeque},
    sync::Arc,
};

use super::asked::Asked;
use crate::{
    engine::{Error, Event, RequestId, text::StopWatch},
    ffi::tensorrt_llm::{Capabilities, FinishReason, Response},
    model::Tokenizer,
    rollout::{StopReason, WeightVersion},
};

/// Samples that one request of the executor answers.
#[derive(Clone, Debug)]
pub(super) struct Job {
    /// Our request.
    pub(super) id: RequestId,
    /// What it asks.
    pub(super) asked: Arc<Asked>,
    /// Its first sample.
    pub(super) first: u32,
    /// How many.
    pub(super) count: u32,
}

/// A job in the executor.
#[derive(Debug)]
struct Flight {
    job: Job,
    samples: Vec<Sample>,
    /// Nobody wants to hear of it any more: its end is awaited all the same.
    cancelled: bool,
}

/// One sequence, as far as it has come.
#[derive(Debug, Default)]
struct Sample {
    tokens: usize,
    watch: Option<StopWatch>,
    ended: bool,
}

/// What a table needs to know of the engine around it.
pub(super) struct Surroundings {
    /// Most sequences in the executor.
    pub(super) capacity: usize,
    /// Token ids from this one on are padding.
    pub(super) vocab_size: usize,
    /// What the library can do.
    pub(super) capabilities: Capabilities,
    /// Reads completions for stop strings.
    pub(super) tokenizer: Option<Tokenizer>,
    /// What the library is called in errors.
    pub(super) library: String,
}

/// Requests that wait, and requests in the executor.
pub(super) struct Table {
    around: Surroundings,
    waiting: VecDeque<Job>,
    flights: HashMap<u64, Flight>,
    /// Requests whose flights are to end early.
    cancels: Vec<u64>,
    /// Responses that belonged to nothing.
    strays: u64,
}

impl Table {
    /// Begins empty.
    pub(super) fn new(around: Surroundings) -> Self {
        Self {
            around,
            waiting: VecDeque::new(),
            flights: HashMap::new(),
            cancels: Vec::new(),
            strays: 0,
        }
    }

    /// Queues a request, cut into as many jobs as it takes.
    pub(super) fn push(&mut self, id: RequestId, asked: Asked) {
        let room = u32::try_from(self.around.capacity).unwrap_or(u32::MAX);
        let together = asked.together(self.around.capabilities, room);
        let (n, asked) = (asked.sampling().n, Arc::new(asked));
        for first in (0..n).step_by(together as usize) {
            let count = together.min(n - first);
            self.waiting.push_back(Job { id, asked: asked.clone(), first, count });
        }
    }

    /// Returns the next job, if the executor has room for it.
    pub(super) fn admit(&mut self, admitted: usize) -> Option<Job> {
        let count = self.waiting.front()?.count as usize;
        let fits = self.in_executor() + admitted + count <= self.around.capacity;
        fits.then(|| self.waiting.pop_front()).flatten()
    }

    /// Takes note that the executor has a job. One that got the id of another is lost, and the other too: nobody can tell
    /// their tokens apart.
    pub(super) fn enqueued(&mut self, engine_id: u64, job: Job, events: &mut Vec<Event>) {
        let watched =
            self.around.tokenizer.as_ref().filter(|_| !job.asked.sampling().stop.is_empty());
        let sample = || Sample { watch: watched.map(StopWatch::new), ..Sample::default() };
        let samples = (0..job.count).map(|_| sample()).collect();
        let id = job.id;
        let flight = Flight { job, samples, cancelled: false };
        let Some(twin) = self.flights.insert(engine_id, flight) else { return };
        let reason = format!("two requests got the id {engine_id}");
        for lost in [twin.job.id, id] {
            self.fail(lost, self.error("enqueue", reason.clone()), events);
        }
    }

    /// Forgets a request.
    pub(super) fn cancel(&mut self, id: RequestId) {
        self.waiting.retain(|job| job.id != id);
        for (&engine_id, flight) in &mut self.flights {
            if flight.job.id == id && !flight.cancelled {
                flight.cancelled = true;
                self.cancels.push(engine_id);
            }
        }
    }

    /// Forgets every request; those in the executor are still waited for.
    pub(super) fn clear(&mut self) {
        self.waiting.clear();
        for (&engine_id, flight) in &mut self.flights {
            if !std::mem::replace(&mut flight.cancelled, true) {
                self.cancels.push(engine_id);
            }
        }
    }

    /// Forgets what is in the executor, which is no more.
    pub(super) fn abandon(&mut self) {
        self.clear();
        self.flights.clear();
        self.cancels.clear();
    }

    /// Reports a request as failed, and forgets it.
    pub(super) fn fail(&mut self, id: RequestId, error: Error, events: &mut Vec<Event>) {
        self.cancel(id);
        events.push(Event::Failed { id, error });
    }

    /// Takes the ids of requests that are to end early.
    pub(super) fn take_cancels(&mut self) -> Vec<u64> {
        std::mem::take(&mut self.cancels)
    }

    /// Returns how many sequences are in the executor.
    pub(super) fn in_executor(&self) -> usize {
        self.flights.values().map(|flight| flight.job.count as usize).sum()
    }

    /// Returns how many sequences wait.
    pub(super) fn waiting(&self) -> usize {
        self.waiting.iter().map(|job| job.count as usize).sum()
    }

    /// Returns how many requests the executor has.
    pub(super) fn flights(&self) -> usize {
        self.flights.len()
    }

    /// Returns how many responses belonged to nothing.
    pub(super) fn strays(&self) -> u64 {
        self.strays
    }

    /// Takes in a response, and says whether it belonged to anything.
    pub(super) fn take(
        &mut self,
        response: &Response,
        version: WeightVersion,
        events: &mut Vec<Event>,
    ) -> bool {
        let Some(flight) = self.flights.get_mut(&response.request) else {
            self.strays += 1;
            return false;
        };
        let id = flight.job.id;
        if !flight.cancelled {
            let heard = Heard { response, version, vocab_size: self.around.vocab_size };
            match flight.take(&heard, events) {
                // Stop strings are ours: the executor knows nothing of them and would go on.
                Ok(true) if !response.is_final && !flight.job.asked.sampling().stop.is_empty() => {
                    flight.cancelled = true;
                    self.cancels.push(response.request);
                }
                Ok(_) => {}
                Err((call, reason)) => {
                    let error = self.error(call, reason);
                    self.fail(id, error, events);
                }
            }
        }
        if response.is_final || response.error.is_some() {
            self.flights.remove(&response.request);
            self.cancels.retain(|&cancel| cancel != response.request);
        }
        true
    }

    fn error(&self, call: &str, reason: String) -> Error {
        Error::Library { library: self.around.library.clone(), call: call.to_owned(), reason }
    }
}

/// A response and what it is read with.
struct Heard<'a> {
    response: &'a Response,
    version: WeightVersion,
    vocab_size: usize,
}

/// The call at fault, and what it did.
type Fault = (&'static str, String);

impl Flight {
    /// Reports what a response says. `true` when every sample has ended, whatever the executor thinks.
    fn take(&mut self, heard: &Heard<'_>, events: &mut Vec<Event>) -> Result<bool, Fault> {
        let response = heard.response;
        if let Some(error) = &response.error {
            return Err(("response", error.clone()));
        }
        if let FinishReason::Other(reason) = response.finish {
            return Err(("response", format!("finish reason {reason} is not known")));
        }
        let index = usize::try_from(response.sequence).unwrap_or(usize::MAX);
        if index >= self.samples.len() {
            return Err(("response", format!("sequence {} was not asked for", response.sequence)));
        }
        let before = self.samples[index].tokens;
        self.tokens(index, heard, events)?;
        let over = response.is_sequence_final || response.is_final;
        if over && !self.samples[index].ended {
            return Err(("response", unexplained(response.finish, before + response.tokens.len())));
        }
        let ended = self.samples.iter().all(|sample| sample.ended);
        if response.is_final && !ended {
            return Err(("response", "the request ended before all of its sequences".into()));
        }
        Ok(ended)
    }

    fn tokens(
        &mut self,
        index: usize,
        heard: &Heard<'_>,
        events: &mut Vec<Event>,
    ) -> Result<(), Fault> {
        let Response { tokens, log_probs, .. } = heard.response;
        if self.samples[index].ended || tokens.is_empty() {
            return Ok(());
        }
        if tokens.len() != log_probs.len() {
            let (tokens, scores) = (tokens.len(), log_probs.len());
            return Err(("response", format!("{tokens} tokens came with {scores} log-probs")));
        }
        for (&token, &logprob) in tokens.iter().zip(log_probs) {
            let known = u32::try_from(token).ok().filter(|&id| (id as usize) < heard.vocab_size);
            let Some(token) = known else {
                let reason =
                    format!("token id {token} lies beyond the vocabulary of {}", heard.vocab_size);
                return Err(("response", reason));
            };
            if !logprob.is_finite() {
                return Err(("response", format!("the log-prob of token id {token} is {logprob}")));
            }
            self.token(index, (token, logprob, heard.version), events);
            if self.samples[index].ended {
                break;
            }
        }
        Ok(())
    }

    fn token(
        &mut self,
        index: usize,
        (token, engine_logprob, version): (u32, f32, WeightVersion),
        events: &mut Vec<Event>,
    ) {
        let (asked, id) = (&self.job.asked, self.job.id);
        let sampling = asked.sampling();
        let sample = self.job.first + index as u32;
        // A greedy token has no alternative; what the executor reports is the model's own distribution.
        let logprob = if asked.is_greedy() { 0.0 } else { engine_logprob };
        let raw_logprob = sampling.raw_logprobs.then_some(engine_logprob);
        events.push(Event::Token { id, sample, token, logprob, raw_logprob, version });
        let state = &mut self.samples[index];
        state.tokens += 1;
        let text = state.watch.as_mut().and_then(|watch| watch.push(token, &sampling.stop));
        let stop = if asked.stop_ids.contains(&token) {
            Some(StopReason::Token(token))
        } else if let Some(stop) = text
            && state.tokens > sampling.min_new_tokens
        {
            Some(StopReason::Text(stop.to_owned()))
        } else {
            (state.tokens >= asked.max_tokens).then_some(StopReason::Length)
        };
        if let Some(stop) = stop {
            state.ended = true;
            events.push(Event::Finished { id, sample, stop });
        }
    }
}

/// Says what is wrong with a sequence that ended without a reason of ours.
fn unexplained(finish: FinishReason, tokens: usize) -> String {
    match finish {
        FinishReason::EndId => {
            format!("a sequence of {tokens} tokens ended at the end id without it")
        }
        FinishReason::StopWords => format!("a sequence of {tokens} tokens ended at no stop id"),
        FinishReason::Length => format!("a sequence ended after {tokens} tokens, too early"),
        FinishReason::Cancelled => "a sequence was cancelled by somebody else".into(),
        FinishReason::TimedOut => "a sequence ran out of time, though it had no limit".into(),
        FinishReason::NotFinished | FinishReason::Other(_) => {
            format!("a sequence of {tokens} tokens ended for no reason")
        }
    }
}
