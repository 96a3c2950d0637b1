//! The embedded API over the CPU transformer, as a user of the crate sees it.

#![expect(clippy::unwrap_used, reason = "a test's helper fails by panicking")]

use rollforge::{
    engine::{
        BackendKind, Engine, EngineConfig, EngineModel, Error, RefitMode, Request, SamplingParams,
    },
    model::{Companions, Init, ModelSpec, random_weights, write_model},
    rollout::{Prompt, PromptId, Rollout, StopReason, WeightVersion, Weights},
};

fn engine(model: EngineModel, change: impl FnOnce(&mut EngineConfig)) -> Engine {
    let mut config = EngineConfig { threads: 1, ..EngineConfig::default() };
    change(&mut config);
    Engine::builder().config(config).model(model).build().unwrap()
}

/// A vocabulary so large that sampling is shared out over threads.
fn wide_model() -> EngineModel {
    let tiny = EngineModel::tiny(0);
    let spec = ModelSpec { vocab_size: 12_007, num_layers: 1, ..tiny.spec };
    let weights = random_weights(&spec, Init { std: 0.3, seed: 5 });
    EngineModel { spec, weights, eos: vec![7], tokenizer: None }
}

fn requests(count: u64, sampling: &SamplingParams) -> Vec<Request> {
    let prompt = |id: u64| {
        let tokens: Vec<u32> =
            (0..3 + id % 29).map(|at| ((id + 1) * (at + 3) % 251) as u32).collect();
        Prompt { id: PromptId(id), tokens: tokens.into() }
    };
    (0..count).map(|id| Request::new(prompt(id), sampling.clone())).collect()
}

fn sampling(change: impl FnOnce(&mut SamplingParams)) -> SamplingParams {
    let mut sampling = SamplingParams { max_new_tokens: 12, seed: 3, ..SamplingParams::default() };
    change(&mut sampling);
    sampling
}

fn sorted(mut rollouts: Vec<Rollout>) -> Vec<Rollout> {
    rollouts.sort_by_key(|rollout| (rollout.prompt.id, rollout.sample));
    rollouts
}

#[test]
fn rollouts_do_not_depend_on_threads_batches_blocks_or_arrival() {
    let asked = requests(12, &sampling(|s| (s.n, s.raw_logprobs, s.top_p) = (2, true, 0.9)));
    let plain =
        engine(wide_model(), |c| c.max_batch = 1).blocking().generate_all(asked.clone()).unwrap();
    let runs: [fn(&mut EngineConfig); 4] = [
        |c| c.threads = 1,
        |c| c.threads = 2,
        |c| (c.threads, c.block_size, c.max_batch) = (4, 5, 17),
        |c| (c.threads, c.max_batch, c.max_batch_tokens, c.kv_cache_tokens) = (2, 9, 9, 192),
    ];
    for (run, change) in runs.into_iter().enumerate() {
        let mut shuffled = asked.clone();
        shuffled.rotate_left(run * 5 % 12);
        shuffled.swap(1, 8);
        let got = engine(wide_model(), change).blocking().generate_all(shuffled).unwrap();
        assert!(sorted(got) == plain, "run {run} differs");
    }
}

#[test]
fn scoring_gives_the_bits_that_sampling_gave() {
    let engine = engine(EngineModel::tiny(1), |c| c.max_batch_tokens = 64);
    let asked = requests(8, &sampling(|s| (s.raw_logprobs, s.temperature) = (true, 0.7)));
    for rollout in engine.blocking().generate_all(asked).unwrap() {
        let scores = engine.blocking().score(rollout.sequence()).unwrap();
        let prompt_len = rollout.prompt.tokens.ids().len();
        assert_eq!(scores[prompt_len - 1..], rollout.raw_logprobs.unwrap());
    }
}

#[test]
fn greedy_follows_the_most_likely_token() {
    let engine = engine(EngineModel::tiny(1), |_| {});
    let greedy = sampling(|s| (s.temperature, s.raw_logprobs) = (0.0, true));
    let one = engine.blocking().generate(requests(3, &greedy)[2].clone()).unwrap().remove(0);
    // No other token does better at its place.
    for (at, logprob) in one.raw_logprobs.as_ref().unwrap().iter().enumerate() {
        let mut other = one.sequence()[..one.prompt.tokens.ids().len() + at].to_vec();
        for token in [0, 50, 100, 150, 200, 250] {
            other.push(token);
            assert!(engine.blocking().score(other.clone()).unwrap().last().unwrap() <= logprob);
            other.pop();
        }
    }
}

#[test]
fn a_refitted_engine_is_one_that_had_these_weights_from_the_start() {
    let asked = requests(6, &sampling(|s| s.n = 2));
    let (old, new) = (EngineModel::tiny(1), EngineModel::tiny(2));
    let version_1 = Weights::new(
        WeightVersion(1),
        new.weights.lease().clone(),
        new.weights.iter().map(|(name, tensor)| (name.to_owned(), tensor.clone())).collect(),
    );
    let fresh = engine(EngineModel { weights: version_1.clone(), ..new }, |_| {});
    let wanted = fresh.blocking().generate_all(asked.clone()).unwrap();
    for mode in [RefitMode::Alias, RefitMode::Copy] {
        let engine = engine(old.clone(), |_| {});
        let before = engine.blocking().generate_all(asked.clone()).unwrap();
        assert_ne!(before, wanted);
        let report = engine.blocking().refit_with_checksum(&version_1, mode).unwrap();
        let copied = if mode == RefitMode::Alias { 0 } else { version_1.bytes() };
        assert_eq!((report.version, report.bytes), (WeightVersion(1), copied));
        let reading = version_1.lease().read(std::time::Duration::from_secs(9)).unwrap();
        assert_eq!(report.checksum, Some(version_1.checksum(&reading)));
        assert_eq!(engine.blocking().generate_all(asked.clone()).unwrap(), wanted);
    }
}

#[test]
fn aliased_weights_that_were_written_to_are_not_generated_from() {
    let model = EngineModel::tiny(1);
    let weights = model.weights.clone();
    let engine = engine(model, |_| {});
    let asked = requests(1, &sampling(|_| {})).remove(0);
    engine.blocking().refit(&weights, RefitMode::Alias).unwrap();
    drop(weights.lease().write(std::time::Duration::from_secs(9)).unwrap());
    let error = engine.blocking().generate(asked.clone()).unwrap_err();
    assert_eq!(error, Error::WeightsMoved { version: WeightVersion(0) });
    engine.blocking().refit(&weights, RefitMode::Alias).unwrap();
    engine.blocking().generate(asked).unwrap();
}

#[test]
fn text_ends_before_its_stop_string() {
    let engine = engine(EngineModel::tiny(3), |_| {});
    let free = sampling(|s| (s.max_new_tokens, s.ignore_eos) = (40, true));
    let request = Request::new(engine.encode("abc").unwrap(), free.clone());
    let whole = engine.blocking().generate(request).unwrap().remove(0);
    let text = engine.text(&whole).unwrap();
    let (at, stop) = text
        .char_indices()
        .skip(5)
        .find(|(at, letter)| letter.is_ascii() && text.find(*letter) == Some(*at))
        .expect("forty random bytes hold a new letter");
    let stopping = SamplingParams { stop: vec![stop.to_string()], ..free };
    let request = Request::new(engine.encode("abc").unwrap(), stopping.clone());
    let stopped = engine.blocking().generate(request).unwrap().remove(0);
    assert_eq!(stopped.stop, StopReason::Text(stop.to_string()));
    assert_eq!(stopped.completion[..], whole.completion[..stopped.completion.len()]);
    assert_eq!(engine.blocking().generate_text("abc", stopping).unwrap(), [&text[..at]]);
}

#[test]
fn a_model_directory_is_all_it_takes() {
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path().join("model");
    let EngineModel { spec, weights, .. } = EngineModel::tiny(4);
    write_model(&dir, &spec, &weights, &Companions::default()).unwrap();
    let opened = Engine::builder().model_dir(&dir).build().unwrap();
    let asked = requests(2, &sampling(|s| s.ignore_eos = true));
    let in_memory = engine(EngineModel::tiny(4), |_| {});
    assert_eq!(
        opened.blocking().generate_all(asked.clone()).unwrap(),
        in_memory.blocking().generate_all(asked).unwrap()
    );
    let error = opened.encode("text").unwrap_err();
    assert_eq!(error.to_string(), "the engine has no tokenizer: give it token ids");
}

#[test]
fn what_cannot_be_opened_is_an_error_of_one_line() {
    let message = |builder: rollforge::engine::EngineBuilder| {
        let text = builder.build().err().unwrap().to_string();
        assert!(!text.contains('\n'), "{text}");
        text
    };
    assert!(message(Engine::builder().model_dir("no/such/model")).contains("no/such/model"));
    assert_eq!(message(Engine::builder()), "the engine has no model: name one");
    let mut config = EngineConfig { backend: BackendKind::TensorRtLlm, ..EngineConfig::default() };
    config.tensorrt_llm.engine_dir = Some("no/such/engine".into());
    let said = message(Engine::builder().config(config).model(EngineModel::tiny(0)));
    let wanted = match (cfg!(feature = "tensorrt-llm"), cfg!(trtllm_linked)) {
        (false, _) => "backend `tensorrt-llm` needs a build with `--features tensorrt-llm`",
        (true, false) => "TensorRT-LLM is not linked into this build",
        (true, true) => "no/such/engine/config.json",
    };
    assert!(said.starts_with(wanted), "{said}");
    let config = EngineConfig { max_batch: 0, ..EngineConfig::default() };
    assert_eq!(
        message(Engine::builder().config(config).model(EngineModel::tiny(0))),
        "max_batch must be at least 1, got 0"
    );
}
