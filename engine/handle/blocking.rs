//! The embedded API for callers without an async runtime.

use super::{Engine, Rollouts, TokenStream};
use crate::{
    engine::{Error, RefitMode, RefitReport, Request, SamplingParams, Verdict},
    rollout::{PromptTokens, Rollout, Weights},
};

/// An [`Engine`] whose methods wait on the calling thread. They also work inside a runtime, whose thread they block.
///
/// ```
/// use rollforge::engine::{Engine, EngineModel, Request, SamplingParams};
///
/// let engine = Engine::builder().model(EngineModel::tiny(0)).build()?;
/// let sampling = SamplingParams { max_new_tokens: 4, ..SamplingParams::default() };
/// let request = Request::new(engine.encode("hello")?, sampling);
/// let first = engine.blocking().generate(request.clone())?;
/// assert_eq!(first, engine.blocking().generate(request)?);
/// # Ok::<(), rollforge::engine::Error>(())
/// ```
#[derive(Clone, Copy)]
pub struct Blocking<'a>(&'a Engine);

impl<'a> Blocking<'a> {
    pub(super) fn new(engine: &'a Engine) -> Self {
        Self(engine)
    }

    /// Does what [`Engine::generate`] does.
    ///
    /// # Errors
    /// As [`Engine::generate`].
    pub fn generate(self, request: Request) -> Result<Vec<Rollout>, Error> {
        self.0.patience("generate", "its rollouts").block(self.0.samples(request))?
    }

    /// Generates from many requests; the rollouts come in the requests' order, each request's samples in theirs.
    ///
    /// # Errors
    /// As [`Engine::generate`]: the first that occurs; the other requests are then cancelled.
    pub fn generate_all(self, requests: Vec<Request>) -> Result<Vec<Rollout>, Error> {
        let mut receiver = self.rollouts(requests);
        let mut rollouts = Vec::with_capacity(receiver.left());
        while let Some(item) = receiver.next_indexed() {
            rollouts.push(item?);
        }
        rollouts.sort_by_key(|(request, rollout)| (*request, rollout.sample));
        Ok(rollouts.into_iter().map(|(_, rollout)| rollout).collect())
    }

    /// Does what [`Engine::generate_text`] does.
    ///
    /// # Errors
    /// As [`Engine::generate_text`].
    pub fn generate_text(
        self,
        prompt: &str,
        sampling: SamplingParams,
    ) -> Result<Vec<String>, Error> {
        let rollouts = self.generate(Request::new(self.0.encode(prompt)?, sampling))?;
        rollouts.iter().map(|rollout| self.0.text(rollout)).collect()
    }

    /// Does what [`Engine::stream`] does; read it by [`TokenStream::next_blocking`].
    ///
    /// # Errors
    /// As [`Engine::stream`].
    pub fn stream(self, request: Request) -> Result<TokenStream, Error> {
        self.0.patience("stream", "its turn").block(self.0.call(request))?.map(TokenStream::new)
    }

    /// Does what [`Engine::rollouts`] does; read it by [`Rollouts::next_blocking`].
    pub fn rollouts(self, requests: impl IntoIterator<Item = Request>) -> Rollouts {
        self.0.rollouts(requests)
    }

    /// Does what [`Engine::score`] does.
    ///
    /// # Errors
    /// As [`Engine::score`].
    pub fn score(self, tokens: impl Into<PromptTokens>) -> Result<Vec<f32>, Error> {
        let scores = self.0.prompt_logprobs(tokens.into());
        self.0.patience("score", "its log-probs").block(scores)?
    }

    /// Does what [`Engine::refit`] does.
    ///
    /// # Errors
    /// As [`Engine::refit`].
    pub fn refit(self, weights: &Weights, mode: RefitMode) -> Result<RefitReport, Error> {
        self.0.patience("refit", "its commit").block(self.0.commit(weights, mode, false))?
    }

    /// Does what [`Engine::refit_with_checksum`] does.
    ///
    /// # Errors
    /// As [`Engine::refit_with_checksum`].
    pub fn refit_with_checksum(
        self,
        weights: &Weights,
        mode: RefitMode,
    ) -> Result<RefitReport, Error> {
        self.0.patience("refit", "its commit").block(self.0.commit(weights, mode, true))?
    }

    /// Does what [`Engine::conclude_refit`] does.
    ///
    /// # Errors
    /// As [`Engine::conclude_refit`].
    pub fn conclude_refit(self, verdict: Verdict) -> Result<(), Error> {
        self.0.patience("conclude_refit", "an answer").block(self.0.conclude(verdict))?
    }
}
