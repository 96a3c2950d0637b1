//! What can go wrong in the engine.

use crate::rollout::{CoverageError, PromptId, WeightVersion};

/// An error of the engine.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum Error {
    /// A request's field breaks a rule.
    #[error("{field} must be {rule}, got {got}")]
    Request {
        /// The field.
        field: &'static str,
        /// What it must be.
        rule: String,
        /// What it was.
        got: String,
    },
    /// The prompt leaves no room for a token.
    #[error("prompt of {tokens} tokens does not fit the model's context of {context}")]
    PromptTooLong {
        /// Its length.
        tokens: usize,
        /// The longest sequence of the model, or of this engine.
        context: usize,
    },
    /// The request alone needs more KV blocks than there are.
    #[error(
        "request needs {needed} KV blocks, the cache has {total}; raise kv_cache_tokens or ask for fewer new tokens"
    )]
    KvCacheTooSmall {
        /// Blocks needed at the end of the request.
        needed: usize,
        /// Blocks there are.
        total: usize,
    },
    /// New weights are not those of the model.
    #[error("refit to version {version} refused, version {serving} goes on serving: {source}")]
    Coverage {
        /// The version offered.
        version: WeightVersion,
        /// The version in place.
        serving: WeightVersion,
        /// Which names.
        #[source]
        source: CoverageError,
    },
    /// A refit failed before its commit.
    #[error(
        "refit to version {version} failed at {tensor}, version {serving} goes on serving: {reason}"
    )]
    Refit {
        /// The version offered.
        version: WeightVersion,
        /// The version in place.
        serving: WeightVersion,
        /// The tensor it stopped at.
        tensor: String,
        /// What was wrong with it.
        reason: String,
    },
    /// After a refit the engine's log-probabilities are not the trainer's.
    #[error(
        "the engine under weights of version {version} does not agree with the trainer: {reason}{}",
        stale_sentence(stale)
    )]
    Canary {
        /// The weights.
        version: WeightVersion,
        /// By how much.
        reason: String,
        /// Tensors that refits do not reach, as the engine names them, where that was found out.
        stale: Vec<String>,
    },
    /// The trainer wrote to aliased weights and did not refit.
    #[error(
        "the weights of version {version} were written to since they were aliased; refit before generating"
    )]
    WeightsMoved {
        /// The version that is no more.
        version: WeightVersion,
    },
    /// The model computed something that is no probability.
    #[error("the logits for token {position} of prompt {} (sample {sample}) are not finite under weights of version {version}", prompt.0)]
    Logits {
        /// The prompt.
        prompt: PromptId,
        /// Which of its samples.
        sample: u32,
        /// Which token of the sequence, prompt included, from 0.
        position: usize,
        /// The weights.
        version: WeightVersion,
    },
    /// One of several requests failed.
    #[error("prompt {}: {source}", prompt.0)]
    Prompt {
        /// Its prompt.
        prompt: PromptId,
        /// What went wrong with it.
        #[source]
        source: Box<Self>,
    },
    /// A feature that this build lacks.
    #[error("backend `{backend}` needs a build with `--features {feature}`")]
    Unavailable {
        /// The backend asked for.
        backend: &'static str,
        /// The cargo feature that brings it.
        feature: &'static str,
    },
    /// The library that generates refused a call or failed in it.
    #[error("{library}: {call}: {reason}")]
    Library {
        /// Which library.
        library: String,
        /// Which call.
        call: String,
        /// What it said.
        reason: String,
    },
    /// Somebody did not come in time.
    #[error("{waiter} waited {seconds:.1} s for {awaited}; {state}")]
    Deadline {
        /// Who waits.
        waiter: String,
        /// For whom or what.
        awaited: String,
        /// How long it waited.
        seconds: f64,
        /// What else is known.
        state: String,
    },
    /// The engine thread has ended.
    #[error("the engine has stopped: {0}")]
    Stopped(String),
    /// A model directory cannot be opened, or its weights cannot be used.
    #[error("{0}")]
    Model(String),
}

fn stale_sentence(stale: &[String]) -> String {
    match stale {
        [] => String::new(),
        names => format!("; refits do not reach {}", names.join(", ")),
    }
}
