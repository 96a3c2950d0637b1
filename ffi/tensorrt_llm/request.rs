//! What goes into an executor and what comes out.

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
    /// Ends a sequence and is part of the output; `None` for none.
    pub end_id: Option<i32>,
    /// Fills where there is no token.
    pub pad_id: i32,
    /// Token sequences that end a sequence.
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
