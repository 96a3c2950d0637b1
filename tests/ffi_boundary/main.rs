//! The border to TensorRT-LLM, crossed through its public Rust face: over the contract double, and over the real shim, which
//! runs on a stand-in here. `ci/asan.sh` runs all of it under sanitizers.
#![cfg(feature = "tensorrt-llm")]
#![allow(clippy::unwrap_used, missing_docs, unreachable_pub, reason = "a test may fail")]

mod arguments;
mod engine_dir;
mod faults;
mod lifetimes;

use std::time::Duration;

use engine_dir::{EngineDir, TENSORS, values};
use rollforge::ffi::{
    memory::{Lease, Memory, Reading},
    tensorrt_llm::{
        Bindable, Capabilities, DataType, Error, Executor, ExecutorOptions, FinishReason, Library,
        Plan, Request, Response,
    },
};

/// The implementations that run without a GPU. (Linked to TensorRT-LLM, the shim cannot load the double's engines.)
fn libraries() -> Vec<Library> {
    let shim = (!cfg!(trtllm_linked)).then_some(Library::TensorRtLlm);
    [Library::Double].into_iter().chain(shim).collect()
}

fn options() -> ExecutorOptions {
    ExecutorOptions { iteration_stats: 10, capture_engine: true, ..ExecutorOptions::default() }
}

fn open(library: Library, folder: &EngineDir) -> Result<Executor, Error> {
    Executor::open(library, folder.path(), &options())
}

fn request() -> Request {
    Request {
        prompt: vec![1, 2, 3],
        max_tokens: 4,
        streaming: true,
        num_return_sequences: 1,
        return_log_probs: true,
        seed: 7,
        temperature: 1.0,
        top_k: 0,
        top_p: 1.0,
        min_p: 0.0,
        repetition_penalty: 1.0,
        min_tokens: 0,
        end_id: None,
        pad_id: 0,
        stop_words: Vec::new(),
        cache_salt: 0,
        allotted_ms: 0,
    }
}

/// Awaits everything up to the last response to `expected` requests, or ten empty seconds.
fn drain(executor: &mut Executor, expected: usize) -> Result<Vec<Response>, Error> {
    let mut all: Vec<Response> = Vec::new();
    while all.iter().filter(|response| response.is_final).count() < expected {
        let some = executor.await_responses(Duration::from_secs(10))?;
        assert!(!some.is_empty(), "no response in ten seconds, so far {all:?}");
        all.extend(some);
    }
    Ok(all)
}

/// Returns the tokens of one request and their log-probabilities.
fn completion(executor: &mut Executor, request: &Request) -> Result<(Vec<i32>, Vec<f32>), Error> {
    executor.enqueue(request)?;
    let responses = drain(executor, 1)?;
    let tokens = responses.iter().flat_map(|response| response.tokens.clone()).collect();
    Ok((tokens, responses.iter().flat_map(|response| response.log_probs.clone()).collect()))
}

/// New values for every tensor, and the permission to read them.
fn new_values(version: u32) -> (Vec<(&'static str, Memory)>, Reading) {
    let lease = Lease::default();
    let all =
        TENSORS.map(|(name, count)| (name, Memory::from_vec(values(name, count, version), &lease)));
    (all.to_vec(), lease.read(Duration::ZERO).unwrap())
}

fn refit(engine: &mut impl Bindable, version: u32) -> Result<(), Error> {
    let (all, reading) = new_values(version);
    for (name, memory) in &all {
        engine.bind(name, DataType::F32, memory)?;
    }
    engine.commit(&[&reading])
}

#[test]
fn a_library_that_is_not_tensorrt_llm_says_so() {
    for library in libraries() {
        let description = library.describe().unwrap();
        assert!(description.is_double);
        let name = &description.name;
        assert!(name.contains("double") || name.contains("stand-in"), "{name}");
        assert_eq!(description.refusal, None);
        assert!(description.capabilities.contains(Capabilities::REFIT_IN_PLACE));
    }
}

#[test]
fn tokens_come_one_by_one_with_a_log_probability_each() {
    for library in libraries() {
        let mut executor = open(library, &EngineDir::with(&[])).unwrap();
        assert_eq!(executor.capabilities(), library.describe().unwrap().capabilities);
        assert!(executor.can_enqueue().unwrap());
        let id = executor.enqueue(&request()).unwrap();
        let responses = drain(&mut executor, 1).unwrap();
        for response in &responses {
            assert_eq!((response.request, &response.error), (id, &None));
            assert_eq!(response.log_probs.len(), response.tokens.len());
            assert!(response.log_probs.iter().all(|&log_prob| log_prob < 0.0));
        }
        assert_eq!(responses.iter().map(|response| response.tokens.len()).sum::<usize>(), 4);
        assert_eq!(responses.last().unwrap().finish, FinishReason::Length);
        let stats = executor.stats().unwrap().unwrap();
        assert!(stats.starts_with('{'), "{stats}");
    }
}

#[test]
fn a_wait_in_vain_is_an_empty_list() {
    for library in libraries() {
        let mut executor = open(library, &EngineDir::with(&[])).unwrap();
        assert_eq!(executor.await_responses(Duration::from_micros(1)).unwrap(), []);
        assert_eq!(executor.stats().unwrap(), None);
    }
}

#[test]
fn a_cancelled_request_still_ends() {
    for library in libraries() {
        let mut executor = open(library, &EngineDir::with(&[])).unwrap();
        let id = executor.enqueue(&Request { max_tokens: 60, ..request() }).unwrap();
        executor.cancel(id).unwrap();
        executor.cancel(id + 100).unwrap();
        let responses = drain(&mut executor, 1).unwrap();
        let last = responses.last().unwrap();
        assert!(matches!(last.finish, FinishReason::Cancelled | FinishReason::Length), "{last:?}");
    }
}

#[test]
fn weights_put_in_are_those_that_generate_and_that_are_written() {
    for library in libraries() {
        let folder = EngineDir::with(&[]);
        let mut executor = open(library, &folder).unwrap();
        let before = completion(&mut executor, &request()).unwrap();
        let names = executor.weights().unwrap();
        assert_eq!(names.len(), TENSORS.len());
        for (weight, (name, count)) in names.iter().zip(TENSORS) {
            assert_eq!((&*weight.name, weight.dtype, weight.count), (name, DataType::F32, count));
        }
        refit(&mut executor, 1).unwrap();
        let after = completion(&mut executor, &request()).unwrap();
        assert_ne!(before, after);

        let mut plan = Plan::load(library, &folder.plan()).unwrap();
        refit(&mut plan, 1).unwrap();
        let written = plan.serialize().unwrap();
        drop(plan);
        let mut rebuilt =
            Executor::from_plan(library, &written, engine_dir::CONFIG, &options()).unwrap();
        assert_eq!(completion(&mut rebuilt, &request()).unwrap(), after);
    }
}
