//! The double against the embedded engine: another implementation of the same transformers, over other layouts.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use super::*;
use crate::{
    engine::{
        self, Engine, EngineConfig, EngineDtype, EngineModel, SamplingParams,
        native::cpu::testing::{random_weights, spec},
        tensorrt_llm::staging::data_type,
    },
    ffi::{
        memory::Memory,
        tensorrt_llm::{
            Bindable, Executor, ExecutorOptions, FinishReason, Library, Plan as Loaded, Request,
            Response,
        },
    },
    model::{Family, tensorrt_llm::Mapped},
    rollout::{Prompt, PromptId},
};

const TOKENS: usize = 12;

/// Different lengths, within and beyond a block and a sliding window.
fn prompts() -> Vec<Vec<u32>> {
    let of =
        |seed: u32, length: u32| (0..length).map(|i| (seed * 31 + i * i * 7 + i) % 101).collect();
    vec![of(1, 1), of(2, 5), of(3, 17), of(4, 40)]
}

/// Every family, and the options that none of them comes with by itself.
fn specs() -> Vec<ModelSpec> {
    let families = [Family::Llama, Family::Mistral, Family::Qwen2, Family::Qwen3];
    let mut specs: Vec<_> = families.into_iter().map(spec).collect();
    specs.push(ModelSpec { tie_word_embeddings: true, ..spec(Family::Llama) });
    specs.push(ModelSpec { tie_word_embeddings: false, ..spec(Family::Qwen3) });
    specs.push(ModelSpec { qkv_bias: true, o_bias: true, mlp_bias: true, ..spec(Family::Llama) });
    specs.push(ModelSpec { num_kv_heads: 6, ..spec(Family::Qwen2) });
    specs.push(ModelSpec { num_kv_heads: 1, ..spec(Family::Llama) });
    specs
}

/// An engine of the double, in a directory that goes with it.
struct Double {
    dir: tempfile::TempDir,
    executor: Executor,
}

fn options() -> ExecutorOptions {
    ExecutorOptions { chunked_context: true, capture_engine: true, ..ExecutorOptions::default() }
}

impl Double {
    fn new(spec: &ModelSpec, weights: &Weights, build: &DoubleBuild) -> Self {
        Self::with(spec, weights, build, &options())
    }

    fn with(
        spec: &ModelSpec,
        weights: &Weights,
        build: &DoubleBuild,
        options: &ExecutorOptions,
    ) -> Self {
        let dir = tempfile::tempdir().unwrap();
        write_double_engine(dir.path(), spec, weights, build).unwrap();
        let executor = Executor::open(Library::Double, dir.path(), options).unwrap();
        Self { dir, executor }
    }

    /// Returns each request's responses, by id.
    fn answer(&mut self, requests: &[Request]) -> Vec<Vec<Response>> {
        let ids: Vec<_> = requests.iter().map(|one| self.executor.enqueue(one).unwrap()).collect();
        let mut answers: BTreeMap<u64, Vec<Response>> = BTreeMap::new();
        let mut left = ids.len();
        while left > 0 {
            let responses = self.executor.await_responses(Duration::from_secs(20)).unwrap();
            assert!(!responses.is_empty(), "no response within 20 s");
            left -= responses.iter().filter(|response| response.is_final).count();
            for response in responses {
                assert_eq!(response.error, None);
                answers.entry(response.request).or_default().push(response);
            }
        }
        ids.iter().map(|id| answers.remove(id).unwrap()).collect()
    }

    fn greedy(&mut self) -> Vec<(Vec<u32>, Vec<f32>)> {
        let requests: Vec<_> = prompts().iter().map(|prompt| request(prompt)).collect();
        let answers = self.answer(&requests);
        answers.into_iter().map(|mut responses| tokens(responses.remove(0))).collect()
    }
}

fn tokens(response: Response) -> (Vec<u32>, Vec<f32>) {
    let tokens = response.tokens.iter().map(|token| token.cast_unsigned()).collect();
    (tokens, response.log_probs)
}

fn request(prompt: &[u32]) -> Request {
    Request {
        prompt: prompt.iter().map(|token| token.cast_signed()).collect(),
        max_tokens: TOKENS as i32,
        streaming: false,
        num_return_sequences: 1,
        return_log_probs: true,
        seed: 0,
        temperature: 1.0,
        top_k: 1,
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

/// What the embedded engine generates greedily, computing in f32.
fn embedded(spec: &ModelSpec, weights: &Weights) -> Vec<(Vec<u32>, Vec<f32>)> {
    let model = EngineModel {
        spec: spec.clone(),
        weights: weights.clone(),
        eos: Vec::new(),
        tokenizer: None,
    };
    let config = EngineConfig { dtype: EngineDtype::F32, threads: 1, ..EngineConfig::default() };
    let engine = Engine::builder().config(config).model(model).build().unwrap();
    let sampling = Arc::new(SamplingParams {
        temperature: 0.0,
        max_new_tokens: TOKENS,
        raw_logprobs: true,
        ..SamplingParams::default()
    });
    let one = |(id, tokens): (usize, Vec<u32>)| {
        let prompt = Prompt { id: PromptId(id as u64), tokens: tokens.into() };
        let request = engine::Request::new(prompt, sampling.clone());
        let rollout = engine.blocking().generate(request).unwrap().remove(0);
        (rollout.completion, rollout.raw_logprobs.unwrap())
    };
    prompts().into_iter().enumerate().map(one).collect()
}

fn assert_close(double: &[(Vec<u32>, Vec<f32>)], embedded: &[(Vec<u32>, Vec<f32>)], what: &str) {
    for ((tokens, log_probs), (expected, expected_log_probs)) in double.iter().zip(embedded) {
        assert_eq!(tokens, expected, "{what}");
        for (got, expected) in log_probs.iter().zip(expected_log_probs) {
            assert!((got - expected).abs() < 1e-4, "{what}: {got} instead of {expected}");
        }
    }
}

fn furthest(double: &[(Vec<u32>, Vec<f32>)], other: &[(Vec<u32>, Vec<f32>)]) -> f32 {
    let pairs = double.iter().zip(other);
    let gaps = pairs.flat_map(|(a, b)| a.1.iter().zip(&b.1).map(|(a, b)| (a - b).abs()));
    gaps.fold(0.0, f32::max)
}

#[test]
fn the_double_generates_what_the_embedded_engine_generates() {
    for (seed, spec) in specs().iter().enumerate() {
        let weights = random_weights(spec, seed as u64);
        let expected = embedded(spec, &weights);
        for fused_mlp in [false, true] {
            let build = DoubleBuild { fused_mlp, max_num_tokens: 23, ..DoubleBuild::default() };
            let double = Double::new(spec, &weights, &build).greedy();
            assert_close(&double, &expected, &format!("{spec:?}, fused {fused_mlp}"));
        }
    }
}

#[test]
fn weights_in_half_precision_are_computed_with_as_they_are() {
    for dtype in [Dtype::Bf16, Dtype::F16] {
        let spec = ModelSpec { dtype, ..spec(Family::Qwen2) };
        let weights = random_weights(&spec, 5);
        let build = DoubleBuild { dtype, ..DoubleBuild::default() };
        let double = Double::new(&spec, &weights, &build).greedy();
        assert_close(&double, &embedded(&spec, &weights), &dtype.to_string());
    }
}

/// New values of every tensor but the rotary table, bound by name.
fn bind(target: &mut impl Bindable, spec: &ModelSpec, weights: &Weights) {
    let names = target.weights().unwrap();
    let layout = Layout::checkpoint(1).as_named(names.iter().map(|info| info.name.as_str()));
    let laid_out = shard(spec, &layout, 0, weights, Dtype::F32).unwrap();
    for Mapped { name, .. } in tensors(spec, &layout, 0).unwrap() {
        let memory: &Memory = &laid_out.get(&name).unwrap().memory;
        target.bind(&name, data_type(Dtype::F32), memory).unwrap();
    }
    target.commit(&[&laid_out.lease().read(PATIENCE).unwrap()]).unwrap();
}

#[test]
fn a_refit_in_place_and_a_rebuild_compute_what_a_fresh_engine_computes() {
    let spec = spec(Family::Qwen3);
    let (first, second) = (random_weights(&spec, 1), random_weights(&spec, 2));
    let build = DoubleBuild::default();
    let mut double = Double::new(&spec, &first, &build);
    let expected = Double::new(&spec, &second, &build).greedy();
    assert_ne!(double.greedy(), expected);
    bind(&mut double.executor, &spec, &second);
    assert_eq!(double.greedy(), expected);

    let mut plan = Loaded::load(Library::Double, &double.dir.path().join("rank0.engine")).unwrap();
    bind(&mut plan, &spec, &second);
    let bytes = plan.serialize().unwrap();
    let executor = Executor::from_plan(Library::Double, &bytes, "{}", &options()).unwrap();
    assert_eq!(Double { executor, ..double }.greedy(), expected);
}

#[test]
fn reused_blocks_are_stale_after_a_refit_unless_they_are_salted() {
    let spec = spec(Family::Llama);
    let (first, second) = (random_weights(&spec, 1), random_weights(&spec, 2));
    let build = DoubleBuild { tokens_per_block: 4, ..DoubleBuild::default() };
    let reuse = ExecutorOptions { block_reuse: true, ..options() };
    let mut double = Double::with(&spec, &first, &build, &reuse);
    let fresh = double.greedy();
    assert_eq!(double.greedy(), fresh, "a block found again holds what was computed");
    assert!(double.executor.stats().unwrap().unwrap().contains("\"cacheHitRate\":0."));

    bind(&mut double.executor, &spec, &second);
    let expected = Double::new(&spec, &second, &build).greedy();
    assert!(furthest(&double.greedy(), &expected) > 0.1);
    let salted: Vec<_> =
        prompts().iter().map(|prompt| Request { cache_salt: 2, ..request(prompt) }).collect();
    let answers: Vec<_> =
        double.answer(&salted).into_iter().map(|mut one| tokens(one.remove(0))).collect();
    assert_eq!(answers, expected);
}

#[test]
fn streamed_tokens_and_several_sequences_are_the_same_in_any_batch() {
    let spec = spec(Family::Mistral);
    let weights = random_weights(&spec, 3);
    let mut double = Double::new(&spec, &weights, &DoubleBuild::default());
    let base = Request { top_k: 0, num_return_sequences: 3, seed: 9, ..request(&prompts()[1]) };
    let streamed = Request { streaming: true, ..base.clone() };
    let alone = double.answer(std::slice::from_ref(&base)).remove(0);
    let together = double.answer(&[streamed, request(&prompts()[3]), base]);
    for response in &alone {
        assert_eq!(response.finish, FinishReason::Length);
        let parts = || together[0].iter().filter(|part| part.sequence == response.sequence);
        let joined: Vec<_> = parts().flat_map(|part| part.tokens.iter().copied()).collect();
        assert_eq!(joined, response.tokens);
        assert!(parts().all(|part| part.tokens.len() == 1 && part.log_probs.len() == 1));
        let again = together[2].iter().find(|one| one.sequence == response.sequence).unwrap();
        assert_eq!((&again.tokens, &again.log_probs), (&response.tokens, &response.log_probs));
    }
    assert_ne!(alone[0].tokens, alone[1].tokens);
}

/// How often each token was drawn as the first, and its log-probability.
fn draws(change: impl FnOnce(&mut Request)) -> BTreeMap<i32, (usize, f32)> {
    const DRAWS: i32 = 4000;
    let spec = spec(Family::Qwen2);
    let mut double = Double::new(&spec, &random_weights(&spec, 4), &DoubleBuild::default());
    let mut asked =
        Request { max_tokens: 1, num_return_sequences: DRAWS, top_k: 0, ..request(&prompts()[1]) };
    change(&mut asked);
    let mut seen = BTreeMap::new();
    for response in double.answer(&[asked]).remove(0) {
        let of_token = seen.entry(response.tokens[0]).or_insert((0, response.log_probs[0]));
        assert_eq!(of_token.1, response.log_probs[0]);
        of_token.0 += 1;
    }
    assert_eq!(seen.values().map(|(count, _)| count).sum::<usize>(), DRAWS as usize);
    seen
}

/// Checks counts against a distribution: the log-probs, once more normalised over what was not cut off.
fn assert_drawn_from(seen: &BTreeMap<i32, (usize, f32)>, kept: f32) {
    let total: usize = seen.values().map(|(count, _)| count).sum();
    for (token, &(count, log_prob)) in seen {
        let expected = log_prob.exp() / kept * total as f32;
        assert!(
            (count as f32 - expected).abs() < 5.0 * expected.sqrt() + 1.0,
            "token {token}: {count} instead of {expected}"
        );
    }
}

#[test]
fn tokens_are_drawn_as_often_as_their_probability_says() {
    let all = draws(|_| {});
    assert_drawn_from(&all, 1.0);
    let hot = draws(|request| request.temperature = 2.0);
    assert_drawn_from(&hot, 1.0);
    assert!(hot.len() > all.len());

    let mut sorted: Vec<f32> = all.values().map(|(_, log_prob)| log_prob.exp()).collect();
    sorted.sort_by(|a, b| b.total_cmp(a));
    let cut = draws(|request| request.top_k = 3);
    assert_eq!(cut.len(), 3);
    assert_drawn_from(&cut, sorted[..3].iter().sum());

    let inside = sorted[0] + sorted[1] + 0.5 * sorted[2];
    let nucleus = draws(|request| request.top_p = inside);
    assert_eq!(nucleus.len(), 3);
    assert_drawn_from(&nucleus, sorted[..3].iter().sum());

    let share = 0.5 * (sorted[1] + sorted[2]) / sorted[0];
    let likely = draws(|request| request.min_p = share);
    assert_eq!(likely.len(), 2);
    assert_drawn_from(&likely, sorted[..2].iter().sum());

    // TensorRT-LLM's rule: greedy where neither is set.
    assert_eq!(draws(|request| request.top_p = 0.0).len(), 1);
}

#[test]
fn penalties_and_ends_shape_the_completion() {
    let spec = spec(Family::Llama);
    let mut double = Double::new(&spec, &random_weights(&spec, 6), &DoubleBuild::default());
    let plain = request(&prompts()[2]);
    let mut one = |request: Request| double.answer(&[request]).remove(0).remove(0);
    let free = one(plain.clone());
    let fourth = free.tokens[3];
    let ended = one(Request { end_id: Some(fourth), ..plain.clone() });
    let until = free.tokens.iter().position(|&token| token == fourth).unwrap();
    assert_eq!((ended.finish, &ended.tokens[..]), (FinishReason::EndId, &free.tokens[..until]));
    let held = one(Request { end_id: Some(fourth), min_tokens: TOKENS as i32, ..plain.clone() });
    assert!(held.finish == FinishReason::Length && !held.tokens.contains(&fourth));
    let word = free.tokens[4..6].to_vec();
    let stopped = one(Request { stop_words: vec![vec![-1, 3], word.clone()], ..plain.clone() });
    assert_eq!(stopped.finish, FinishReason::StopWords);
    assert!(stopped.tokens.ends_with(&word));
    let fresh = one(Request { repetition_penalty: 1e6, ..plain });
    let mut distinct = fresh.tokens.clone();
    distinct.sort_unstable();
    distinct.dedup();
    assert_eq!(distinct.len(), fresh.tokens.len());
}

#[test]
fn a_damaged_plan_is_refused_in_one_line_that_names_file_and_place() {
    let spec = spec(Family::Llama);
    let dir = tempfile::tempdir().unwrap();
    let weights = random_weights(&spec, 7);
    write_double_engine(dir.path(), &spec, &weights, &DoubleBuild::default()).unwrap();
    let file = dir.path().join("rank0.engine");
    let whole = std::fs::read(&file).unwrap();
    let refused = |bytes: &[u8]| {
        std::fs::write(&file, bytes).unwrap();
        let error =
            Executor::open(Library::Double, dir.path(), &options()).unwrap_err().to_string();
        assert!(error.contains("rank0.engine: line ") && !error.contains('\n'), "{error}");
        error
    };
    let changed = |from: &str, to: &str| {
        let header = whole.windows(5).position(|window| window == b"data\n").unwrap() + 5;
        let text = String::from_utf8(whole[..header].to_vec()).unwrap();
        assert!(text.contains(from), "{from}");
        [text.replace(from, to).as_bytes(), &whole[header..]].concat()
    };
    refused(&whole[..whole.len() - ALIGNMENT]);
    refused(&whole[..300]);
    assert!(refused(&changed("num_heads 6", "num_heads 0")).contains("num_heads must be"));
    assert!(refused(&changed("num_kv_heads 2", "num_kv_heads 4")).contains("must divide"));
    assert!(refused(&changed("vocab_size 101\n", "")).contains("vocab_size must be given"));
    assert!(refused(&changed("ln_f.weight f32 36", "ln_f.weight f32 37")).contains("36 elements"));
    assert!(refused(&changed("layers.1.mlp.proj", "layers.2.mlp.proj")).contains("mlp.proj"));
    assert!(refused(&changed(" f32 36 ", " f32 99999999999 ")).contains("whole number"));
    assert!(refused(&changed("refittable 1", "fault here 1 throw")).contains("fault point"));
}

#[test]
fn an_engine_directory_is_one_that_the_reader_of_tensorrt_llms_takes() {
    let spec = spec(Family::Qwen3);
    let dir = tempfile::tempdir().unwrap();
    let build = DoubleBuild { dtype: Dtype::Bf16, max_seq_len: 96, ..DoubleBuild::default() };
    write_double_engine(dir.path(), &spec, &random_weights(&spec, 8), &build).unwrap();
    let read = crate::model::tensorrt_llm::EngineDir::open(dir.path()).unwrap();
    let wanted = crate::model::tensorrt_llm::Wanted {
        seq_len: 96,
        dtype: Some(Dtype::Bf16),
        refit: true,
        ..Default::default()
    };
    read.check(&spec, &wanted).unwrap();
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 2, "nothing temporary is left");
}

#[test]
fn a_tensor_beyond_the_data_is_refused_by_name() {
    let dir = tempfile::tempdir().unwrap();
    let spec = spec(Family::Llama);
    write_double_engine(dir.path(), &spec, &random_weights(&spec, 7), &DoubleBuild::default())
        .unwrap();
    let path = dir.path().join("rank0.engine");
    let mut plan = std::fs::read(&path).unwrap();
    let line = b"tensor transformer.ln_f.weight f32 ";
    let start = plan.windows(line.len()).position(|bytes| bytes == line).unwrap();
    let end = start + plan[start..].iter().position(|&byte| byte == b'\n').unwrap();
    let offset = start + plan[start..end].iter().rposition(|&byte| byte == b' ').unwrap() + 1;
    // As long as it was, so that nothing else moves.
    plan[offset..end].fill(b'8');
    std::fs::write(&path, plan).unwrap();
    let error = Executor::open(Library::Double, dir.path(), &options()).unwrap_err().to_string();
    assert!(error.contains("transformer.ln_f.weight"), "{error}");
}
