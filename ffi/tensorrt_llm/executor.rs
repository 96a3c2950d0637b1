//! A running engine.

use std::{path::Path, time::Duration};

use super::{Bindable, Capabilities, DataType, Error, Library, Request, Response, WeightInfo};
use crate::ffi::memory::{Memory, Reading};

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
#[derive(Debug)]
pub struct Executor;

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
        todo!()
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
        todo!()
    }

    /// Returns what the library can do.
    pub fn capabilities(&self) -> Capabilities {
        todo!()
    }

    /// Says whether this rank may enqueue: the leader alone.
    ///
    /// # Errors
    /// The other side's sentence.
    pub fn can_enqueue(&mut self) -> Result<bool, Error> {
        todo!()
    }

    /// Takes a request in and returns its id.
    ///
    /// # Errors
    /// The other side's sentence: a request that breaks a rule, a full queue, a rank that is not the leader.
    pub fn enqueue(&mut self, request: &Request) -> Result<u64, Error> {
        todo!()
    }

    /// Waits for responses to any request, at most so long; none in time is an empty list.
    ///
    /// # Errors
    /// The other side's sentence.
    pub fn await_responses(&mut self, timeout: Duration) -> Result<Vec<Response>, Error> {
        todo!()
    }

    /// Asks for an early end of a request; its final response still comes. Unknown ids are ignored.
    ///
    /// # Errors
    /// The other side's sentence.
    pub fn cancel(&mut self, request: u64) -> Result<(), Error> {
        todo!()
    }

    /// Returns the newest iteration's statistics as TensorRT-LLM's JSON, if there are any.
    ///
    /// # Errors
    /// The other side's sentence.
    pub fn stats(&mut self) -> Result<Option<String>, Error> {
        todo!()
    }
}

impl Bindable for Executor {
    fn weights(&mut self) -> Result<Vec<WeightInfo>, Error> {
        todo!()
    }

    fn bind(&mut self, name: &str, dtype: DataType, values: &Memory) -> Result<(), Error> {
        todo!()
    }

    fn commit(&mut self, readings: &[&Reading]) -> Result<(), Error> {
        todo!()
    }
}
