//! What goes into an executor and what comes out.

use super::{bridge, contract};

/// One prompt and how to answer it. Field for field `rf_request` of `contract.h`.
#[derive(Clone, Debug, PartialEq)]
pub struct Request {
    /// Token ids to continue.
    pub prompt: Vec<i32>,
    /// Longest completion.
    pub max_tokens: i32,
    /// Whether tokens come one by one.
    pub streaming: bool,
    /// How many sequences.
    pub num_return_sequences: i32,
    /// Whether log-probabilities come with the tokens.
    pub return_log_probs: bool,
    /// Key of the random numbers.
    pub seed: u64,
    /// Divides the logits; above 0.
    pub temperature: f32,
    /// 0 keeps all; 1 is greedy.
    pub top_k: i32,
    /// 1 keeps all.
    pub top_p: f32,
    /// 0 keeps all.
    pub min_p: f32,
    /// 1 is off.
    pub repetition_penalty: f32,
    /// No end id before this many tokens.
    pub min_tokens: i32,
    /// Ends a sequence and is left out of the output; `None` for none.
    pub end_id: Option<i32>,
    /// Fills where there is no token.
    pub pad_id: i32,
    /// Token sequences that end a sequence and are part of the output.
    pub stop_words: Vec<Vec<i32>>,
    /// KV blocks are shared among requests of equal salt only; 0 is no salt.
    pub cache_salt: u64,
    /// Milliseconds after which the request ends; 0 is unbounded.
    pub allotted_ms: i64,
}

/// Why a sequence ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FinishReason {
    /// It goes on.
    NotFinished,
    /// At the end id.
    EndId,
    /// At a stop word.
    StopWords,
    /// At `max_tokens`.
    Length,
    /// Its time was up.
    TimedOut,
    /// It was cancelled.
    Cancelled,
    /// For a reason this build does not know.
    Other(i32),
}

/// Something that happened to a request.
#[derive(Clone, Debug, PartialEq)]
pub struct Response {
    /// The request.
    pub request: u64,
    /// Which of its sequences.
    pub sequence: i32,
    /// New tokens when streaming; the whole completion otherwise. Never the prompt.
    pub tokens: Vec<i32>,
    /// One per token, of the temperature-scaled distribution (nats). Empty where not asked for. (TensorRT-LLM may send more
    /// than there are tokens; the last ones count, and only these are here.)
    pub log_probs: Vec<f32>,
    /// Why the sequence ended, if it did.
    pub finish: FinishReason,
    /// Whether the sequence is over.
    pub is_sequence_final: bool,
    /// Whether the request is over.
    pub is_final: bool,
    /// Why the request failed, if it did.
    pub error: Option<String>,
}

impl Request {
    /// Returns the contract's form of it, whose pointers are those of the prompt and of the arguments: the stop words one
    /// after the other, and the length of each.
    pub(super) fn for_contract(
        &self,
        stop_words: &[i32],
        stop_word_lens: &[u64],
    ) -> contract::rf_request {
        contract::rf_request {
            prompt: self.prompt.as_ptr(),
            prompt_len: self.prompt.len() as u64,
            max_tokens: self.max_tokens,
            streaming: self.streaming.into(),
            num_return_sequences: self.num_return_sequences,
            return_log_probs: self.return_log_probs.into(),
            seed: self.seed,
            temperature: self.temperature,
            top_k: self.top_k,
            top_p: self.top_p,
            min_p: self.min_p,
            repetition_penalty: self.repetition_penalty,
            min_tokens: self.min_tokens,
            end_id: self.end_id.unwrap_or(-1),
            pad_id: self.pad_id,
            stop_words: stop_words.as_ptr(),
            stop_word_lens: stop_word_lens.as_ptr(),
            stop_words_len: stop_word_lens.len() as u64,
            cache_salt: self.cache_salt,
            allotted_ms: self.allotted_ms,
        }
    }
}

impl From<i32> for FinishReason {
    fn from(reason: i32) -> Self {
        match u32::try_from(reason) {
            Ok(contract::RF_NOT_FINISHED) => Self::NotFinished,
            Ok(contract::RF_END_ID) => Self::EndId,
            Ok(contract::RF_STOP_WORDS) => Self::StopWords,
            Ok(contract::RF_LENGTH) => Self::Length,
            Ok(contract::RF_TIMED_OUT) => Self::TimedOut,
            Ok(contract::RF_CANCELLED) => Self::Cancelled,
            _ => Self::Other(reason),
        }
    }
}

impl From<bridge::Response> for Response {
    fn from(mut it: bridge::Response) -> Self {
        let surplus = it.log_probs.len().saturating_sub(it.tokens.len());
        it.log_probs.drain(..surplus);
        Self {
            request: it.request_id,
            sequence: it.sequence_index,
            tokens: it.tokens,
            log_probs: it.log_probs,
            finish: it.finish_reason.into(),
            is_sequence_final: it.is_sequence_final,
            is_final: it.is_final,
            error: it.failed.then_some(it.error),
        }
    }
}
