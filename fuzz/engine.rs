//! Requests to the embedded engine.

use std::cell::RefCell;

use rollforge::{
    engine::{Backend, EngineConfig, EngineModel, Request, SamplingParams, open},
    rollout::{Prompt, PromptId, PromptTokens},
};

use super::refused;

/// Enough for every prompt to be computed and a few tokens to be drawn.
const POLLS: usize = 6;

/// How to sample as a line of JSON; then the token ids of the prompt, two bytes each.
pub fn generation_request(data: &[u8]) {
    let (sampling, prompt) =
        data.split_at(data.iter().position(|&byte| byte == b'\n').unwrap_or(data.len()));
    let Ok(sampling) = serde_json::from_slice::<SamplingParams>(sampling) else { return };
    let ids = prompt.iter().skip(1).copied().collect::<Vec<u8>>();
    let ids: Vec<u32> = ids
        .chunks(2)
        .map(|pair| pair.iter().rev().fold(0, |id, &byte| id << 8 | u32::from(byte)))
        .collect();
    let prompt = Prompt { id: PromptId(0), tokens: PromptTokens::from(ids) };
    thread_local! {
        static ENGINE: RefCell<Box<dyn Backend>> = RefCell::new(engine());
    }
    ENGINE.with_borrow_mut(|engine| answer(engine.as_mut(), Request::new(prompt, sampling)));
}

fn engine() -> Box<dyn Backend> {
    let config =
        EngineConfig { threads: 1, max_batch: 4, kv_cache_tokens: 512, ..EngineConfig::default() };
    open(&config, EngineModel::tiny(0)).expect("a tiny model opens")
}

fn answer(engine: &mut dyn Backend, request: Request) {
    let id = match engine.submit(request) {
        Err(error) => return refused(error),
        Ok(id) => id,
    };
    let mut events = Vec::new();
    for _ in 0..POLLS {
        engine.poll(&mut events).map_or_else(refused, drop);
    }
    engine.cancel(id);
    assert!(!engine.is_busy(), "nothing is left of a request that was cancelled");
}
