//! The embedded API: a cloneable handle to the engine thread.

mod blocking;
mod builder;
mod call;
mod rollouts;
#[cfg(test)]
mod tests;
mod wait;

use std::{
    ops::Range,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use crossbeam::channel::Sender;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};

pub use blocking::Blocking;
pub use builder::EngineBuilder;
pub use call::TokenStream;
pub use rollouts::Rollouts;

use self::{call::Call, wait::Patience};
use super::{
    Backend, EngineConfig, Error, RefitMode, RefitReport, Request, SamplingParams, Stats,
    StreamEvent, Verdict, text,
    worker::{Command, Conclusion, Pulse, Refit, Ticket, Worker},
};
use crate::{
    model::Tokenizer,
    rollout::{Prompt, PromptId, PromptTokens, Rollout, Weights},
};

/// A handle to an engine. Clones are handles to the same one.
///
/// Its async methods need a tokio runtime with the timer enabled; [`Engine::blocking`] has the same without one.
///
/// # Drop
/// The engine thread ends, after the step it is in, when the last handle, stream and receiver is gone.
#[derive(Clone)]
pub struct Engine(Arc<Shared>);

/// What the handles of one engine share.
struct Shared {
    commands: Sender<Command>,
    pulse: Arc<Pulse>,
    tokenizer: Option<Tokenizer>,
    deadline: Duration,
    /// A permit for each call in the engine.
    calls: Arc<Semaphore>,
    next: AtomicU64,
}

impl Engine {
    /// Starts to set up an engine.
    ///
    /// ```
    /// use rollforge::engine::{Engine, EngineConfig, EngineModel};
    ///
    /// let config = EngineConfig { threads: 1, ..EngineConfig::default() };
    /// let engine = Engine::builder().config(config).model(EngineModel::tiny(0)).build()?;
    /// assert_eq!(engine.stats().running, 0);
    /// # Ok::<(), rollforge::engine::Error>(())
    /// ```
    pub fn builder() -> EngineBuilder {
        EngineBuilder::default()
    }

    fn start(
        backend: Box<dyn Backend>,
        tokenizer: Option<Tokenizer>,
        config: &EngineConfig,
    ) -> Result<Self, Error> {
        let (commands, inbox) = crossbeam::channel::unbounded();
        let pulse = Arc::new(Pulse::default());
        let worker = Worker::new(backend, inbox, pulse.clone(), config);
        std::thread::Builder::new()
            .name("engine".into())
            .spawn(move || worker.run())
            .map_err(|error| Error::Stopped(format!("its thread cannot start: {error}")))?;
        Ok(Self(Arc::new(Shared {
            commands,
            pulse,
            tokenizer,
            deadline: config.deadline(),
            calls: Arc::new(Semaphore::new(config.max_calls)),
            next: AtomicU64::new(0),
        })))
    }

    /// Returns the same engine for callers without an async runtime.
    pub fn blocking(&self) -> Blocking<'_> {
        Blocking::new(self)
    }

    /// Generates the n samples of a request.
    ///
    /// Waits for its turn while `max_calls` others are in the engine.
    ///
    /// ```
    /// use rollforge::engine::{Engine, EngineModel, Request, SamplingParams};
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), rollforge::engine::Error> {
    /// let engine = Engine::builder().model(EngineModel::tiny(0)).build()?;
    /// let sampling = SamplingParams { max_new_tokens: 4, n: 3, ..SamplingParams::default() };
    /// let rollouts = engine.generate(Request::new(engine.encode("hello")?, sampling)).await?;
    /// assert_eq!(rollouts.len(), 3);
    /// assert_eq!(rollouts[0].completion.len(), rollouts[0].rollout_logprobs.len());
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// A request that breaks a rule or can never fit, [`Error::Deadline`] when the engine does not move,
    /// [`Error::Stopped`] when it has ended.
    ///
    /// # Cancel safety
    /// Dropping the future cancels the request; tokens already sampled are discarded.
    pub async fn generate(&self, request: Request) -> Result<Vec<Rollout>, Error> {
        self.patience("generate", "its rollouts").wait(self.samples(request)).await?
    }

    /// Starts a request and returns its tokens as they are sampled.
    ///
    /// ```
    /// use rollforge::engine::{Engine, EngineModel, Request, SamplingParams, StreamEvent};
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), rollforge::engine::Error> {
    /// let engine = Engine::builder().model(EngineModel::tiny(0)).build()?;
    /// let sampling = SamplingParams { max_new_tokens: 4, ignore_eos: true, ..SamplingParams::default() };
    /// let mut stream = engine.stream(Request::new(engine.encode("hello")?, sampling)).await?;
    /// let mut tokens = Vec::new();
    /// while let Some(event) = stream.next().await {
    ///     if let StreamEvent::Token(sampled) = event? {
    ///         tokens.push(sampled.token);
    ///     }
    /// }
    /// assert_eq!(tokens.len(), 4);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// As [`Engine::generate`]; those of the request itself come as the stream's first item.
    ///
    /// # Cancel safety
    /// Dropping the future or the stream cancels the request.
    pub async fn stream(&self, request: Request) -> Result<TokenStream, Error> {
        self.patience("stream", "its turn").wait(self.call(request)).await?.map(TokenStream::new)
    }

    /// Generates from many requests and returns a receiver of their rollouts, each as soon as it ends.
    ///
    /// Returns at once: all requests are in the engine's line, however many. An error of one of them is an item of its
    /// own ([`Error::Prompt`]) and does not touch the others.
    ///
    /// ```
    /// use rollforge::{
    ///     engine::{Engine, EngineModel, Request, SamplingParams},
    ///     rollout::{Prompt, PromptId},
    /// };
    ///
    /// let engine = Engine::builder().model(EngineModel::tiny(0)).build()?;
    /// let sampling = std::sync::Arc::new(SamplingParams { max_new_tokens: 4, ..SamplingParams::default() });
    /// let prompt = |id| Prompt { id: PromptId(id), tokens: vec![65, 66, 67].into() };
    /// let rollouts = engine.rollouts((0..4).map(|id| Request::new(prompt(id), sampling.clone())));
    /// assert_eq!(rollouts.into_blocking().filter(Result::is_ok).count(), 4);
    /// # Ok::<(), rollforge::engine::Error>(())
    /// ```
    pub fn rollouts(&self, requests: impl IntoIterator<Item = Request>) -> Rollouts {
        Rollouts::start(self, requests)
    }

    /// Generates from a text and returns the samples' texts, cut before a stop string that ended them.
    ///
    /// # Errors
    /// As [`Engine::generate`]; also when the engine has no tokenizer.
    ///
    /// # Cancel safety
    /// As [`Engine::generate`].
    pub async fn generate_text(
        &self,
        prompt: &str,
        sampling: SamplingParams,
    ) -> Result<Vec<String>, Error> {
        let rollouts = self.generate(Request::new(self.encode(prompt)?, sampling)).await?;
        rollouts.iter().map(|rollout| self.text(rollout)).collect()
    }

    /// Returns the raw log-probability of each token but the first, given those before it (nats).
    ///
    /// ```
    /// use rollforge::engine::{Engine, EngineModel};
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), rollforge::engine::Error> {
    /// let engine = Engine::builder().model(EngineModel::tiny(0)).build()?;
    /// let logprobs = engine.score(vec![72, 105, 33]).await?;
    /// assert_eq!(logprobs.len(), 2);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// As [`Engine::generate`].
    ///
    /// # Cancel safety
    /// Dropping the future cancels the request.
    pub async fn score(&self, tokens: impl Into<PromptTokens>) -> Result<Vec<f32>, Error> {
        let scores = self.prompt_logprobs(tokens.into());
        self.patience("score", "its log-probs").wait(scores).await?
    }

    /// Puts new weights in place, between two tokens; what is in flight then is as `refit_in_flight` says.
    ///
    /// ```
    /// use rollforge::engine::{Engine, EngineModel, RefitMode};
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), rollforge::engine::Error> {
    /// let engine = Engine::builder().model(EngineModel::tiny(0)).build()?;
    /// let report = engine.refit(&EngineModel::tiny(1).weights, RefitMode::Alias).await?;
    /// assert_eq!(report.bytes, 0);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// Before the commit, the old version serving on: weights that do not cover the model, or of another dtype for an
    /// alias, or requests in flight that did not end within the deadline. [`Error::Stopped`] when the engine has ended.
    ///
    /// # Cancel safety
    /// Not cancelled by dropping the future: the refit may still take place.
    pub async fn refit(&self, weights: &Weights, mode: RefitMode) -> Result<RefitReport, Error> {
        self.patience("refit", "its commit").wait(self.commit(weights, mode, false)).await?
    }

    /// Does what [`Engine::refit`] does, and reports the checksum of the weights then serving.
    ///
    /// # Errors
    /// As [`Engine::refit`].
    ///
    /// # Cancel safety
    /// As [`Engine::refit`].
    pub async fn refit_with_checksum(
        &self,
        weights: &Weights,
        mode: RefitMode,
    ) -> Result<RefitReport, Error> {
        self.patience("refit", "its commit").wait(self.commit(weights, mode, true)).await?
    }

    /// Says what came of comparing the engine with the trainer after a refit, which ends its verification.
    ///
    /// # Errors
    /// [`Error::Canary`] when they differ, naming the tensors at fault where the backend can find them; the engine is
    /// then not to be trusted.
    ///
    /// # Cancel safety
    /// Not cancelled by dropping the future.
    pub async fn conclude_refit(&self, verdict: Verdict) -> Result<(), Error> {
        self.patience("conclude_refit", "an answer").wait(self.conclude(verdict)).await?
    }

    /// Takes what the engine said since this was last asked, a line each: which way weights get in, that it is a double.
    pub fn take_notes(&self) -> Vec<String> {
        self.0.pulse.take_notes()
    }

    /// Takes when the engine was at work since this was last asked: stretches from the first request to the last answer,
    /// the one under way cut off at this moment. The latest 1024 are kept for a caller who does not ask.
    pub fn take_busy(&self) -> Vec<Range<Instant>> {
        self.0.pulse.take_busy()
    }

    /// Returns how busy the engine was after its latest step. Never waits.
    pub fn stats(&self) -> Stats {
        self.0.pulse.stats()
    }

    /// Returns the tokenizer, if there is one.
    pub fn tokenizer(&self) -> Option<&Tokenizer> {
        self.0.tokenizer.as_ref()
    }

    /// Turns a text into a prompt (number 0), with the special tokens that the tokenizer puts around every text.
    ///
    /// # Errors
    /// When the engine has no tokenizer, or the text has no tokens under it.
    pub fn encode(&self, text: &str) -> Result<Prompt, Error> {
        let ids = self.expect_tokenizer()?.encode(text, true);
        let ids = ids.map_err(|error| Error::Model(error.to_string()))?;
        Ok(Prompt { id: PromptId::default(), tokens: ids.into() })
    }

    /// Returns a completion's text, without special tokens, cut before the stop string that ended it, if any.
    ///
    /// # Errors
    /// When the engine has no tokenizer.
    pub fn text(&self, rollout: &Rollout) -> Result<String, Error> {
        let tokenizer = self.expect_tokenizer()?;
        Ok(text::completion_text(&rollout.completion, &rollout.stop, tokenizer))
    }

    fn expect_tokenizer(&self) -> Result<&Tokenizer, Error> {
        let missing = || Error::Model("the engine has no tokenizer: give it token ids".into());
        self.0.tokenizer.as_ref().ok_or_else(missing)
    }

    fn patience<'a>(&'a self, waiter: &'a str, awaited: &'a str) -> Patience<'a> {
        Patience { pulse: &self.0.pulse, deadline: self.0.deadline, waiter, awaited }
    }

    /// Waits for a turn, then sends the request off.
    async fn call(&self, request: Request) -> Result<Call, Error> {
        let permit = self.0.calls.clone().acquire_owned().await;
        Ok(Call::start(self, request, permit.expect("the semaphore is never closed")))
    }

    async fn samples(&self, request: Request) -> Result<Vec<Rollout>, Error> {
        let mut call = self.call(request).await?;
        let mut rollouts = Vec::new();
        while let Some(event) = call.next().await {
            if let StreamEvent::Finished(rollout) = event? {
                rollouts.push(rollout);
            }
        }
        rollouts.sort_by_key(|rollout| rollout.sample);
        Ok(rollouts)
    }

    async fn prompt_logprobs(&self, tokens: PromptTokens) -> Result<Vec<f32>, Error> {
        let sampling = SamplingParams {
            max_new_tokens: 0,
            prompt_logprobs: true,
            ..SamplingParams::default()
        };
        let prompt = Prompt { id: PromptId::default(), tokens };
        let mut call = self.call(Request::new(prompt, sampling)).await?;
        let mut logprobs = Vec::new();
        while let Some(event) = call.next().await {
            if let StreamEvent::PromptLogprobs(scores) = event? {
                logprobs = scores;
            }
        }
        Ok(logprobs)
    }

    async fn commit(
        &self,
        weights: &Weights,
        mode: RefitMode,
        checksum: bool,
    ) -> Result<RefitReport, Error> {
        let (answer, report) = oneshot::channel();
        // Nobody listens any more: the refit took place all the same.
        let reply = Box::new(|result| drop(answer.send(result)));
        self.send(Command::Refit(Refit { weights: weights.clone(), mode, checksum, reply }));
        report.await.unwrap_or_else(|_| Err(self.0.pulse.stopped()))
    }

    async fn conclude(&self, verdict: Verdict) -> Result<(), Error> {
        let (answer, done) = oneshot::channel();
        let reply = Box::new(|result| drop(answer.send(result)));
        self.send(Command::Conclude(Conclusion { verdict, reply }));
        done.await.unwrap_or_else(|_| Err(self.0.pulse.stopped()))
    }

    /// Sends a command. When the thread has ended the command is dropped, and with it the channel that its sender waits
    /// on, who then asks the pulse for the reason.
    fn send(&self, command: Command) {
        drop(self.0.commands.send(command));
    }

    fn next_ticket(&self) -> Ticket {
        // Relaxed: only that no two calls get the same number matters.
        self.0.next.fetch_add(1, Ordering::Relaxed)
    }
}

/// Room for one call in the engine, given back on drop.
type Permit = OwnedSemaphorePermit;
