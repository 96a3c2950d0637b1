//! Puts rollouts together from the events of a backend.

use super::{Error, Event, Request};
use crate::rollout::{Rollout, StopReason, VersionSpan, WeightVersion};

/// One sampled token of a request.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct SampledToken {
    /// Which of the request's n samples.
    pub sample: u32,
    /// The token id.
    pub token: u32,
    /// Under the distribution it was sampled from (nats).
    pub logprob: f32,
    /// Under the unmodified distribution, where asked for.
    pub raw_logprob: Option<f32>,
    /// The weights it was sampled under.
    pub version: WeightVersion,
}

/// What a caller hears of a request.
#[derive(Clone, Debug, PartialEq)]
pub enum StreamEvent {
    /// Raw log-probabilities of prompt tokens 1.., where asked for. Comes before the first token.
    PromptLogprobs(Vec<f32>),
    /// A token was sampled.
    Token(SampledToken),
    /// A sample has ended: all of it once more.
    Finished(Rollout),
}

/// The samples of one request, as far as they have come.
#[derive(Debug)]
pub(super) struct Assembly {
    /// One per sample; `None` once handed out.
    rollouts: Vec<Option<Rollout>>,
    unfinished: usize,
}

impl Assembly {
    /// Begins with empty completions.
    pub(super) fn new(request: &Request) -> Self {
        let raw_logprobs = request.sampling.raw_logprobs.then(Vec::new);
        let begin = |sample| Rollout {
            prompt: request.prompt.clone(),
            sample,
            completion: Vec::new(),
            rollout_logprobs: Vec::new(),
            raw_logprobs: raw_logprobs.clone(),
            stop: StopReason::Cancelled,
            versions: Vec::new(),
        };
        let rollouts: Vec<_> = (0..request.sampling.n).map(|sample| Some(begin(sample))).collect();
        Self { unfinished: rollouts.len(), rollouts }
    }

    /// Says whether every sample has ended.
    pub(super) fn is_complete(&self) -> bool {
        self.unfinished == 0
    }

    /// Takes in an event of this request and returns what its caller hears; `None` for a sample that has ended before.
    pub(super) fn take(&mut self, event: Event) -> Option<Result<StreamEvent, Error>> {
        let heard = match event {
            Event::PromptLogprobs { logprobs, .. } => StreamEvent::PromptLogprobs(logprobs),
            Event::Token { sample, token, logprob, raw_logprob, version, .. } => {
                let rollout = self.rollouts.get_mut(sample as usize)?.as_mut()?;
                let token = SampledToken { sample, token, logprob, raw_logprob, version };
                append(rollout, token);
                StreamEvent::Token(token)
            }
            Event::Finished { sample, stop, .. } => {
                let mut rollout = self.rollouts.get_mut(sample as usize)?.take()?;
                rollout.stop = stop;
                self.unfinished -= 1;
                StreamEvent::Finished(rollout)
            }
            Event::Failed { error, .. } => return Some(Err(error)),
        };
        Some(Ok(heard))
    }
}

fn append(rollout: &mut Rollout, sampled: SampledToken) {
    rollout.completion.push(sampled.token);
    rollout.rollout_logprobs.push(sampled.logprob);
    if let Some(raw_logprobs) = &mut rollout.raw_logprobs {
        // A backend that was asked for it reports it with every token; NaN shows one that does not.
        raw_logprobs.push(sampled.raw_logprob.unwrap_or(f32::NAN));
    }
    match rollout.versions.last_mut() {
        Some(span) if span.version == sampled.version => span.tokens += 1,
        _ => rollout.versions.push(VersionSpan { version: sampled.version, tokens: 1 }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        engine::{RequestId, SamplingParams},
        rollout::{Prompt, PromptId},
    };

    const ID: RequestId = RequestId(0);

    fn token(sample: u32, token: u32, version: u64) -> Event {
        let version = WeightVersion(version);
        Event::Token { id: ID, sample, token, logprob: -1.0, raw_logprob: None, version }
    }

    #[test]
    fn samples_are_kept_apart_and_version_spans_run_on() {
        let prompt = Prompt { id: PromptId(5), tokens: vec![1].into() };
        let sampling = SamplingParams { n: 2, ..SamplingParams::default() };
        let mut assembly = Assembly::new(&Request::new(prompt, sampling));
        for event in [token(0, 10, 0), token(1, 20, 0), token(0, 11, 1), token(0, 12, 1)] {
            assembly.take(event).unwrap().unwrap();
        }
        let finished = Event::Finished { id: ID, sample: 0, stop: StopReason::Length };
        let Some(Ok(StreamEvent::Finished(rollout))) = assembly.take(finished.clone()) else {
            panic!()
        };
        assert_eq!(rollout.completion, [10, 11, 12]);
        let spans: Vec<_> = rollout.versions.iter().map(|s| (s.version.0, s.tokens)).collect();
        assert_eq!(spans, [(0, 1), (1, 2)]);
        assert_eq!(rollout.oldest_version(), WeightVersion(0));
        assert_eq!(assembly.take(finished), None);
        assert!(!assembly.is_complete());
    }
}
