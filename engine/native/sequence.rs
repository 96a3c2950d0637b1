//! One sample of one request: waiting, in the running batch, or gone.

use std::sync::Arc;

use super::BlockId;
use crate::{
    engine::{Request, RequestId, text::StopWatch},
    rollout::StopReason,
};

/// Names one sample of one request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct SequenceId {
    /// The request.
    pub(super) request: RequestId,
    /// Which of its n samples, from 0.
    pub(super) sample: u32,
}

/// A prompt and what has been sampled after it.
#[derive(Debug)]
pub(super) struct Sequence {
    /// Its name.
    pub(super) id: SequenceId,
    /// What was asked.
    pub(super) request: Arc<Request>,
    /// Prompt, then completion.
    pub(super) tokens: Vec<u32>,
    /// Ids that end it: the model's and the request's.
    pub(super) stop_ids: Arc<[u32]>,
    /// Longest it may become: prompt and `max_new_tokens`, within the context.
    pub(super) max_len: usize,
    /// How many of its tokens, from the first, have their KV in `blocks`.
    pub(super) computed: usize,
    /// Its block table. While `awaits_prompt`, only the blocks that are not shared.
    pub(super) blocks: Vec<BlockId>,
    /// It will share the prompt's blocks with a sample that is computing them.
    pub(super) awaits_prompt: bool,
    /// It has been in the running batch, so a refit by draining waits for it.
    pub(super) started: bool,
    /// Raw log-probs of prompt tokens 1.., as far as computed; `None` where not asked for.
    pub(super) prompt_logprobs: Option<Vec<f32>>,
    /// Watches for stop strings, where there are any: set by who has the tokenizer.
    pub(super) stop_watch: Option<StopWatch>,
}

impl Sequence {
    /// Makes a waiting sequence. The first sample of a request reports its prompt's log-probs, where asked for.
    pub(super) fn new(
        id: SequenceId,
        request: Arc<Request>,
        stop_ids: Arc<[u32]>,
        max_len: usize,
    ) -> Self {
        let sampling = &request.sampling;
        Self {
            id,
            tokens: request.prompt.tokens.ids().to_vec(),
            stop_ids,
            max_len,
            computed: 0,
            blocks: Vec::new(),
            awaits_prompt: false,
            started: false,
            prompt_logprobs: (sampling.prompt_logprobs && id.sample == 0).then(Vec::new),
            stop_watch: None,
            request,
        }
    }

    /// Returns the length of the prompt.
    pub(super) fn prompt_len(&self) -> usize {
        self.request.prompt.tokens.ids().len()
    }

    /// Returns the sampled tokens.
    pub(super) fn completion(&self) -> &[u32] {
        &self.tokens[self.prompt_len()..]
    }

    /// Returns how many tokens lack their KV.
    pub(super) fn remaining(&self) -> usize {
        self.tokens.len() - self.computed
    }

    /// Says whether the next step may compute a part of it.
    pub(super) fn is_ready(&self) -> bool {
        !self.awaits_prompt
    }

    /// Returns the ids that must not be drawn next: those that would end it too early.
    pub(super) fn forbidden(&self) -> &[u32] {
        let early = self.completion().len() < self.request.sampling.min_new_tokens;
        if early { &self.stop_ids } else { &[] }
    }

    /// Appends a sampled token and says whether, and why, that ends the sequence.
    pub(super) fn push(&mut self, token: u32) -> Option<StopReason> {
        self.tokens.push(token);
        let sampling = &self.request.sampling;
        let text = self.stop_watch.as_mut().and_then(|watch| watch.push(token, &sampling.stop));
        if self.stop_ids.contains(&token) {
            Some(StopReason::Token(token))
        } else if let Some(stop) = text
            && self.completion().len() > sampling.min_new_tokens
        {
            Some(StopReason::Text(stop.to_owned()))
        } else {
            (self.tokens.len() >= self.max_len).then_some(StopReason::Length)
        }
    }
}
