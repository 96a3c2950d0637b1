//! A running engine.

use std::{fmt, path::Path, time::Duration};

use cxx::UniquePtr;

use super::{
    Bindable, Capabilities, DataType, Error, Library, Request, Response, WeightInfo, bridge,
    contract::rf_executor_config, refit,
};
use crate::ffi::memory::{Memory, Reading};

/// A clock plus more than this may overflow on the other side.
const LONGEST_WAIT: Duration = Duration::from_secs(24 * 60 * 60);

/// How an executor is set up. Zero means "the engine's own" for sizes.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ExecutorOptions {
    /// Most sequences computed together.
    pub max_batch_size: i32,
    /// Most tokens in one engine step.
    pub max_num_tokens: i32,
    /// Positions of the KV cache; 0 leaves it to `kv_free_fraction`.
    pub kv_max_tokens: i64,
    /// Share of the free device memory; 0 means 0.9.
    pub kv_free_fraction: f32,
    /// Whether requests share KV blocks of equal prefixes.
    pub block_reuse: bool,
    /// Whether long prompts are computed in chunks.
    pub chunked_context: bool,
    /// How many iterations' statistics are kept.
    pub iteration_stats: i32,
    /// Most requests that wait; 0 is unbounded.
    pub max_queue_size: i32,
    /// CUDA device of each participant.
    pub device_ids: Vec<i32>,
    /// MPI ranks that take part.
    pub participant_ids: Vec<i32>,
    /// Whether to keep hold of the TensorRT engine, for a refit in place.
    pub capture_engine: bool,
}

/// A running engine: loads in `open`, generates on threads of its own, ends on drop.
///
/// One thread at a time uses it, any thread: it is `Send` and not `Sync`.
pub struct Executor {
    // Before what is bound: the refitter goes first.
    inner: UniquePtr<bridge::Executor>,
    bound: refit::Bound,
    capabilities: Capabilities,
}

impl Executor {
    /// Loads an engine directory and starts it.
    ///
    /// # Errors
    /// The other side's sentence: a missing or damaged file, too little memory, versions that do not go together.
    pub fn open(
        library: Library,
        engine_dir: &Path,
        options: &ExecutorOptions,
    ) -> Result<Self, Error> {
        let dir = engine_dir.to_str().ok_or_else(|| Error::path("open", engine_dir))?;
        let config = options.for_contract();
        // SAFETY: the configuration's pointers are those of the options' vectors, borrowed beyond the call.
        let opened = unsafe { bridge::open_executor(library.is_double(), dir, &config) };
        Self::opened(library, opened)
    }

    /// The same from a serialised plan and the text of the engine directory's config.json.
    ///
    /// # Errors
    /// As [`Executor::open`].
    pub fn from_plan(
        library: Library,
        plan: &[u8],
        config_json: &str,
        options: &ExecutorOptions,
    ) -> Result<Self, Error> {
        let config = options.for_contract();
        let is_double = library.is_double();
        // SAFETY: as in `open`.
        let opened =
            unsafe { bridge::open_executor_from_plan(is_double, plan, config_json, &config) };
        Self::opened(library, opened)
    }

    fn opened(
        library: Library,
        opened: Result<UniquePtr<bridge::Executor>, cxx::Exception>,
    ) -> Result<Self, Error> {
        let inner = opened.map_err(|thrown| Error::thrown("open", &thrown))?;
        let capabilities = library.describe()?.capabilities;
        Ok(Self { inner, bound: refit::Bound::default(), capabilities })
    }

    /// Returns what the library can do.
    pub fn capabilities(&self) -> Capabilities {
        self.capabilities
    }

    /// Says whether this rank may enqueue: the leader alone.
    ///
    /// # Errors
    /// The other side's sentence.
    pub fn can_enqueue(&mut self) -> Result<bool, Error> {
        let can = self.inner.pin_mut().can_enqueue();
        can.map_err(|thrown| Error::thrown("can_enqueue", &thrown))
    }

    /// Takes a request in and returns its id.
    ///
    /// # Errors
    /// The other side's sentence: a request that breaks a rule, a full queue, a rank that is not the leader.
    pub fn enqueue(&mut self, request: &Request) -> Result<u64, Error> {
        let stop_words = request.stop_words.concat();
        let stop_word_lens: Vec<_> =
            request.stop_words.iter().map(|word| word.len() as u64).collect();
        let plain = request.for_contract(&stop_words, &stop_word_lens);
        // SAFETY: the request's pointers are those of three vectors, all alive until the call returns.
        let id = unsafe { self.inner.pin_mut().enqueue(&plain) };
        id.map_err(|thrown| Error::thrown("enqueue", &thrown))
    }

    /// Waits for responses to any request, at most so long (and at most a day); none in time is an empty list.
    ///
    /// # Errors
    /// The other side's sentence.
    pub fn await_responses(&mut self, timeout: Duration) -> Result<Vec<Response>, Error> {
        // Rounded up, so that a short wait is no busy one.
        let ms = timeout.min(LONGEST_WAIT).as_micros().div_ceil(1000);
        let responses = self.inner.pin_mut().await_responses(ms as i64);
        let responses = responses.map_err(|thrown| Error::thrown("await_responses", &thrown))?;
        Ok(responses.into_iter().map(Response::from).collect())
    }

    /// Asks for an early end of a request; its final response still comes. Unknown ids are ignored.
    ///
    /// # Errors
    /// The other side's sentence.
    pub fn cancel(&mut self, request: u64) -> Result<(), Error> {
        let cancelled = self.inner.pin_mut().cancel(request);
        cancelled.map_err(|thrown| Error::thrown("cancel", &thrown))
    }

    /// Returns the newest iteration's statistics as TensorRT-LLM's JSON, if there are any.
    ///
    /// # Errors
    /// The other side's sentence.
    pub fn stats(&mut self) -> Result<Option<String>, Error> {
        let json = self.inner.pin_mut().stats();
        let json = json.map_err(|thrown| Error::thrown("stats", &thrown))?;
        let json = String::from_utf8_lossy(json.bytes());
        Ok((!json.is_empty()).then(|| json.into_owned()))
    }
}

impl fmt::Debug for Executor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Executor")
            .field("bound", &self.bound)
            .field("capabilities", &self.capabilities)
            .finish_non_exhaustive()
    }
}

impl ExecutorOptions {
    /// Returns the contract's form of it, whose pointers are ours.
    fn for_contract(&self) -> rf_executor_config {
        rf_executor_config {
            max_batch_size: self.max_batch_size,
            max_num_tokens: self.max_num_tokens,
            kv_max_tokens: self.kv_max_tokens,
            kv_free_fraction: self.kv_free_fraction,
            block_reuse: self.block_reuse.into(),
            chunked_context: self.chunked_context.into(),
            iteration_stats: self.iteration_stats,
            max_queue_size: self.max_queue_size,
            device_ids: self.device_ids.as_ptr(),
            device_ids_len: self.device_ids.len() as u64,
            participant_ids: self.participant_ids.as_ptr(),
            participant_ids_len: self.participant_ids.len() as u64,
            capture_engine: self.capture_engine.into(),
        }
    }
}

impl Bindable for Executor {
    fn weights(&mut self) -> Result<Vec<WeightInfo>, Error> {
        let refit = self.inner.pin_mut().refit();
        refit::weights(refit.map_err(|thrown| Error::thrown("weights", &thrown))?)
    }

    fn bind(&mut self, name: &str, dtype: DataType, values: &Memory) -> Result<(), Error> {
        let refit = self.inner.pin_mut().refit();
        let refit = refit.map_err(|thrown| Error::thrown("bind", &thrown))?;
        self.bound.bind(refit, name, dtype, values)
    }

    fn commit(&mut self, readings: &[&Reading]) -> Result<(), Error> {
        let refit = self.inner.pin_mut().refit();
        let refit = refit.map_err(|thrown| Error::thrown("commit", &thrown))?;
        self.bound.commit(refit, readings)
    }
}
