//! The essentials, on real hardware: what no double can prove.

use std::path::PathBuf;

use rollforge::engine::{
    BackendKind, Engine, EngineConfig, EngineModel, RefitMode, Request, SamplingParams,
};

use crate::world::{greedy, version};

fn path(variable: &str) -> PathBuf {
    let said = std::env::var_os(variable);
    said.unwrap_or_else(|| panic!("set {variable} (see docs/tensorrt-llm.md)")).into()
}

fn asked(engine: &Engine, sampling: &SamplingParams) -> Vec<Request> {
    ["The capital of France is", "1, 2, 3, 4,", "def add(a, b):"]
        .into_iter()
        .map(|text| Request::new(engine.encode(text).unwrap(), sampling.clone()))
        .collect()
}

#[test]
#[ignore = "needs TensorRT-LLM and an engine: set ROLLFORGE_ENGINE_DIR and ROLLFORGE_MODEL_DIR"]
fn a_real_engine_generates_streams_and_refits() {
    let mut config = EngineConfig { backend: BackendKind::TensorRtLlm, ..EngineConfig::default() };
    config.tensorrt_llm.engine_dir = Some(path("ROLLFORGE_ENGINE_DIR"));
    let model = EngineModel::open(&config, &path("ROLLFORGE_MODEL_DIR")).unwrap();
    let engine = Engine::builder().config(config).model(model.clone()).build().unwrap();

    let before = engine.blocking().generate_all(asked(&engine, &greedy())).unwrap();
    for rollout in &before {
        assert_eq!(rollout.completion.len(), 12);
        let logprobs = rollout.raw_logprobs.as_ref().unwrap();
        assert!(logprobs.iter().all(|logprob| logprob.is_finite() && *logprob <= 1e-3));
        // Of the whole distribution: over the most likely token alone each would be 0.
        assert!(logprobs.iter().any(|logprob| *logprob < -1e-3));
    }

    let sampled = SamplingParams { n: 4, max_new_tokens: 16, ..SamplingParams::default() };
    let rollouts = engine.blocking().generate_all(asked(&engine, &sampled)).unwrap();
    assert_eq!(rollouts.len(), 12);
    let mut different: Vec<_> = rollouts[..4].iter().map(|rollout| &rollout.completion).collect();
    different.sort();
    different.dedup();
    assert!(different.len() > 1, "the samples of a prompt are all the same");

    // A stop id is part of the output.
    let last = before[0].completion[3];
    let stopping = SamplingParams { stop_token_ids: vec![last], ..greedy() };
    let stopped = engine.blocking().generate(asked(&engine, &stopping).remove(0)).unwrap();
    assert_eq!(stopped[0].completion.last(), Some(&last));

    // The same weights, refitted: the same answers. Each mode twice, as bound memory is used again.
    for number in 1..5 {
        let mode = if number % 2 == 0 { RefitMode::Copy } else { RefitMode::Alias };
        let report = engine.blocking().refit(&version(&model.weights, number), mode).unwrap();
        assert_eq!(report.version.0, number);
        let after = engine.blocking().generate_all(asked(&engine, &greedy())).unwrap();
        for (after, before) in after.iter().zip(&before) {
            assert_eq!(after.completion, before.completion);
        }
    }
}
