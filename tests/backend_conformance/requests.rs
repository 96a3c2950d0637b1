//! Requests in, rollouts out.

use rollforge::{
    engine::{EngineModel, Error, Request, SamplingParams, StreamEvent},
    rollout::{Prompt, PromptId, StopReason, WeightVersion},
};

use crate::world::{Kind, assert_alike, greedy, requests, sampling};

for_each_backend!(
    greedy_is_the_models_own_choice,
    log_probs_are_those_of_the_model,
    the_same_seed_gives_the_same_rollouts,
    samples_of_a_prompt_differ,
    a_stop_id_is_the_last_token,
    several_stop_ids_all_stop,
    a_stop_string_ends_its_sample_alone,
    no_stop_id_comes_before_min_new_tokens_or_they_are_refused,
    a_completion_ends_with_the_context,
    a_prompt_beyond_the_context_is_refused,
    a_bad_field_is_named,
    tokens_come_in_order,
    a_dropped_stream_is_cancelled,
    more_requests_than_fit_all_come_through,
    rollouts_carry_the_version,
);

fn greedy_is_the_models_own_choice(kind: Kind) {
    let model = EngineModel::tiny(1);
    let world = kind.open(&model, |_| {});
    let got = world.rollouts(requests(6, &greedy()));
    assert_alike(&got, &Kind::Native.open(&model, |_| {}).rollouts(requests(6, &greedy())));
    assert!(
        got.iter().flat_map(|rollout| &rollout.rollout_logprobs).all(|&logprob| logprob == 0.0)
    );
    assert_eq!(world.rollouts(requests(6, &greedy())), got);
}

fn log_probs_are_those_of_the_model(kind: Kind) {
    let model = EngineModel::tiny(1);
    let world = kind.open(&model, |_| {});
    let native = Kind::Native.open(&model, |_| {});
    for rollout in world.rollouts(requests(6, &sampling(|s| (s.n, s.raw_logprobs) = (2, true)))) {
        let scores = native.engine.blocking().score(rollout.sequence()).unwrap();
        let own = &scores[rollout.prompt.tokens.ids().len() - 1..];
        for (got, wanted) in rollout.rollout_logprobs.iter().zip(own) {
            assert!((got - wanted).abs() < 1e-3, "{got} is not {wanted}");
        }
        assert_eq!(rollout.raw_logprobs.as_ref(), Some(&rollout.rollout_logprobs));
    }
}

fn the_same_seed_gives_the_same_rollouts(kind: Kind) {
    let model = EngineModel::tiny(1);
    let asked = |seed| requests(8, &sampling(|s| (s.n, s.seed, s.top_k) = (3, seed, 40)));
    let world = kind.open(&model, |_| {});
    let got = world.rollouts(asked(1));
    assert_eq!(world.rollouts(asked(1)), got);
    assert_ne!(world.rollouts(asked(2)), got);
    // Whatever the batch, and however the samples are cut into requests.
    let narrow = kind.open(&model, |config| config.max_batch = 1);
    let tokens = |rollouts: Vec<rollforge::rollout::Rollout>| -> Vec<Vec<u32>> {
        rollouts.into_iter().map(|rollout| rollout.completion).collect()
    };
    assert_eq!(tokens(narrow.rollouts(asked(1))), tokens(got));
}

fn samples_of_a_prompt_differ(kind: Kind) {
    let world = kind.open(&EngineModel::tiny(1), |_| {});
    let got = world.rollouts(requests(1, &sampling(|s| s.n = 7)));
    assert_eq!(got.iter().map(|rollout| rollout.sample).collect::<Vec<_>>(), [0, 1, 2, 3, 4, 5, 6]);
    let mut completions: Vec<_> = got.into_iter().map(|rollout| rollout.completion).collect();
    completions.sort();
    completions.dedup();
    assert_eq!(completions.len(), 7);
}

fn a_stop_id_is_the_last_token(kind: Kind) {
    let world = kind.open(&EngineModel::tiny(1), |_| {});
    let whole = world.one(requests(3, &greedy())[2].clone());
    let (at, stop) = first_new(&whole.completion, 2);
    let stopping = SamplingParams { stop_token_ids: vec![stop], ..greedy() };
    let stopped = world.one(requests(3, &stopping)[2].clone());
    assert_eq!(stopped.stop, StopReason::Token(stop));
    assert_eq!(stopped.completion, whole.completion[..=at]);
    assert_eq!(stopped.rollout_logprobs.len(), stopped.completion.len());
}

fn several_stop_ids_all_stop(kind: Kind) {
    let mut model = EngineModel::tiny(1);
    let free = kind.open(&model, |_| {}).one(requests(3, &greedy())[2].clone());
    let (at, stop) = first_new(&free.completion, 3);
    // The model's own, of which it may have several, and one of the request's.
    model.eos = vec![256, stop];
    let sampling = SamplingParams { stop_token_ids: vec![255], ignore_eos: false, ..greedy() };
    let stopped = kind.open(&model, |_| {}).one(requests(3, &sampling)[2].clone());
    assert_eq!(stopped.stop, StopReason::Token(stop));
    assert_eq!(stopped.completion, free.completion[..=at]);
}

/// Returns the first token from `from` on that has not come before, and its place.
fn first_new(tokens: &[u32], from: usize) -> (usize, u32) {
    let new = |&at: &usize| !tokens[..at].contains(&tokens[at]);
    let at = (from..tokens.len()).find(new).expect("a dozen tokens hold a new one");
    (at, tokens[at])
}

fn a_stop_string_ends_its_sample_alone(kind: Kind) {
    let world = kind.open(&EngineModel::tiny(3), |_| {});
    let asked = sampling(|s| (s.max_new_tokens, s.ignore_eos, s.n) = (40, true, 4));
    let whole = world.rollouts(requests(1, &asked));
    let texts: Vec<String> =
        whole.iter().map(|rollout| world.engine.text(rollout).unwrap()).collect();
    let stop =
        texts[0].chars().skip(5).find(char::is_ascii_alphanumeric).expect("forty bytes hold one");
    let stopping = SamplingParams { stop: vec![stop.to_string()], ..asked };
    for (text, rollout) in texts.iter().zip(world.rollouts(requests(1, &stopping))) {
        let (wanted, reason) = match text.split_once(stop) {
            Some((before, _)) => (before, StopReason::Text(stop.to_string())),
            None => (text.as_str(), StopReason::Length),
        };
        assert_eq!(rollout.stop, reason);
        assert_eq!(world.engine.text(&rollout).unwrap(), wanted);
    }
}

fn no_stop_id_comes_before_min_new_tokens_or_they_are_refused(kind: Kind) {
    let mut model = EngineModel::tiny(1);
    let free = kind.open(&model, |_| {}).one(requests(3, &greedy())[2].clone());
    let (at, stop) = first_new(&free.completion, 1);
    model.eos = vec![stop];
    let held = sampling(|s| (s.temperature, s.min_new_tokens) = (0.0, at + 3));
    let (world, request) = (kind.open(&model, |_| {}), requests(3, &held)[2].clone());
    if kind != Kind::Native {
        let refusal = world.engine.blocking().generate(request).unwrap_err().to_string();
        assert!(refusal.contains("min_new_tokens must be 0 with TensorRT-LLM"), "{refusal}");
        return;
    }
    let rollout = world.one(request);
    assert!(rollout.completion.len() >= at + 3);
    assert!(!rollout.completion[..at + 3].contains(&stop));
}

fn a_completion_ends_with_the_context(kind: Kind) {
    let mut model = EngineModel::tiny(1);
    model.spec.max_positions = 40;
    let world = kind.open(&model, |_| {});
    let long = SamplingParams { max_new_tokens: 1000, ..greedy() };
    let prompt = Prompt { id: PromptId(0), tokens: vec![7; 33].into() };
    let rollout = world.one(Request::new(prompt, long));
    assert_eq!((rollout.completion.len(), rollout.stop), (7, StopReason::Length));
}

fn a_prompt_beyond_the_context_is_refused(kind: Kind) {
    let world = kind.open(&EngineModel::tiny(1), |_| {});
    let prompt = Prompt { id: PromptId(0), tokens: vec![7; 256].into() };
    let error = world.engine.blocking().generate(Request::new(prompt, greedy())).unwrap_err();
    assert!(matches!(error, Error::PromptTooLong { tokens: 256, .. }), "{error}");
    world.one(requests(1, &greedy()).remove(0));
}

fn a_bad_field_is_named(kind: Kind) {
    let world = kind.open(&EngineModel::tiny(1), |_| {});
    let refused = |sampling: SamplingParams| {
        let request = requests(1, &sampling).remove(0);
        world.engine.blocking().generate(request).unwrap_err().to_string()
    };
    let below = "must be token ids below 257, got 300";
    assert_eq!(
        refused(sampling(|s| s.stop_token_ids = vec![300])),
        format!("stop_token_ids {below}")
    );
    assert_eq!(
        refused(sampling(|s| s.temperature = -1.0)),
        "temperature must be at least 0 and finite, got -1"
    );
    let prompt = Prompt { id: PromptId(0), tokens: vec![300].into() };
    let error = world.engine.blocking().generate(Request::new(prompt, greedy())).unwrap_err();
    assert_eq!(error.to_string(), format!("prompt {below}"));
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap()
}

fn tokens_come_in_order(kind: Kind) {
    let world = kind.open(&EngineModel::tiny(1), |_| {});
    let asked = requests(1, &sampling(|s| s.n = 3)).remove(0);
    let mut heard = vec![Vec::new(); 3];
    let mut finished = 0;
    runtime().block_on(async {
        let mut stream = world.engine.stream(asked).await.unwrap();
        while let Some(event) = stream.next().await {
            match event.unwrap() {
                StreamEvent::Token(sampled) => heard[sampled.sample as usize].push(sampled.token),
                StreamEvent::Finished(rollout) => {
                    assert_eq!(rollout.completion, heard[rollout.sample as usize]);
                    finished += 1;
                }
                StreamEvent::PromptLogprobs(_) => panic!("nobody asked for them"),
            }
        }
    });
    assert_eq!(finished, 3);
}

fn a_dropped_stream_is_cancelled(kind: Kind) {
    let world = kind.open(&EngineModel::tiny(1), |config| config.max_batch = 1);
    let endless = sampling(|s| (s.max_new_tokens, s.ignore_eos) = (200, true));
    runtime().block_on(async {
        let mut stream = world.engine.stream(requests(1, &endless).remove(0)).await.unwrap();
        assert!(matches!(stream.next().await, Some(Ok(StreamEvent::Token(_)))));
        drop(stream);
        // Waits in the line, and is taken out of it.
        let mut second = world.engine.stream(requests(1, &endless).remove(0)).await.unwrap();
        second.next().await.unwrap().unwrap();
    });
    let short = world.one(requests(2, &greedy())[1].clone());
    assert_eq!(short.completion.len(), 12);
    assert_eq!(world.engine.stats().waiting, 0);
}

fn more_requests_than_fit_all_come_through(kind: Kind) {
    let world = kind.open(&EngineModel::tiny(1), |config| config.max_batch = 2);
    let got = world.rollouts(requests(40, &greedy()));
    assert_eq!(got.len(), 40);
    let roomy = kind.open(&EngineModel::tiny(1), |config| config.max_batch = 8);
    assert_alike(&roomy.rollouts(requests(40, &greedy())), &got);
}

fn rollouts_carry_the_version(kind: Kind) {
    let mut model = EngineModel::tiny(1);
    model.weights = crate::world::version(&model.weights, 5);
    let world = kind.open(&model, |_| {});
    let rollout = world.one(requests(1, &greedy()).remove(0));
    assert_eq!(rollout.versions.len(), 1);
    assert_eq!(rollout.versions[0].version, WeightVersion(5));
    assert_eq!(rollout.versions[0].tokens, 12);
    assert_eq!(world.engine.stats().version, WeightVersion(5));
}
