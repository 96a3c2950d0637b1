//! The embedded engine over the hashing model: what comes out is what one sequence alone would give.

use proptest::prelude::*;

use super::testing::{
    Driver, Fault, Hashing, VOCAB, expected, native, native_of, params, request, weights,
};
use crate::{
    engine::{Backend, EngineConfig, Error, RefitMode, Request, SamplingParams},
    rollout::{PromptId, StopReason, WeightVersion},
};

const CONTEXT: usize = 48;

fn config(change: impl FnOnce(&mut EngineConfig)) -> EngineConfig {
    let mut config = EngineConfig {
        threads: 1,
        block_size: 4,
        max_batch: 8,
        max_batch_tokens: 16,
        kv_cache_tokens: 256,
        ..EngineConfig::default()
    };
    change(&mut config);
    config
}

/// Runs requests to their end and checks every rollout against the model alone, and that no block is left behind.
fn check(config: &EngineConfig, requests: &[Request]) {
    let mut driver = Driver::new(native(CONTEXT, config));
    for request in requests {
        driver.submit(request);
    }
    driver.finish();
    for request in requests {
        for rollout in expected(request, CONTEXT) {
            let got = &driver.finished[&(request.prompt.id, rollout.sample)];
            assert_eq!(got, &rollout);
        }
    }
    assert_eq!(driver.backend.stats().kv_blocks_used, 0);
}

fn any_sampling() -> impl Strategy<Value = SamplingParams> {
    (0..3u64, 1..24usize, 1..5u32, any::<bool>(), 0..3usize).prop_map(
        |(seed, max_new_tokens, n, raw_logprobs, min)| SamplingParams {
            seed,
            max_new_tokens,
            n,
            raw_logprobs,
            min_new_tokens: min.min(max_new_tokens),
            repetition_penalty: if seed == 1 { 1.3 } else { 1.0 },
            ..SamplingParams::default()
        },
    )
}

fn any_requests() -> impl Strategy<Value = Vec<Request>> {
    let one = (1..24usize, any_sampling());
    prop::collection::vec(one, 1..10).prop_map(|all| {
        let numbered = all.into_iter().enumerate();
        numbered.map(|(id, (len, sampling))| request(id as u64, len, &sampling)).collect()
    })
}

/// Configurations in which 47 positions, the most one of the requests needs, always fit.
fn any_config() -> impl Strategy<Value = EngineConfig> {
    (1..9usize, 0..60usize, 1..9usize, 0..12usize, 1..3usize).prop_map(
        |(block_size, spare, max_batch, more, threads)| EngineConfig {
            threads,
            block_size,
            kv_cache_tokens: 48 + spare,
            max_batch,
            max_batch_tokens: max_batch + more,
            ..EngineConfig::default()
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, ..ProptestConfig::default() })]

    #[test]
    fn any_requests_under_any_limits_give_what_each_gives_alone(
        config in any_config(),
        requests in any_requests(),
    ) {
        check(&config, &requests);
    }

    #[test]
    fn cancelling_at_any_time_frees_blocks_and_leaves_the_others_alone(
        config in any_config(),
        requests in any_requests(),
        steps in prop::collection::vec(0..6usize, 10),
    ) {
        let mut driver = Driver::new(native(CONTEXT, &config));
        let mut cancelled = Vec::new();
        for (request, &steps) in requests.iter().zip(&steps) {
            let id = driver.submit(request);
            for _ in 0..steps {
                driver.poll().unwrap();
            }
            if steps % 2 == 1 {
                driver.cancel(id);
                cancelled.push(request.prompt.id);
            }
        }
        driver.finish();
        for request in requests.iter().filter(|request| !cancelled.contains(&request.prompt.id)) {
            for rollout in expected(request, CONTEXT) {
                prop_assert_eq!(&driver.finished[&(request.prompt.id, rollout.sample)], &rollout);
            }
        }
        prop_assert_eq!(driver.backend.stats().kv_blocks_used, 0);
    }
}

#[test]
fn more_samples_than_places_still_come() {
    let sampling = params(|s| (s.n, s.max_new_tokens) = (20, 12));
    check(&config(|c| c.max_batch = 3), &[request(0, 9, &sampling), request(1, 8, &sampling)]);
}

#[test]
fn samples_share_their_prompts_full_blocks() {
    // 9 tokens in blocks of 4: two full blocks are shared, the third is each sample's own.
    let sampling = params(|s| (s.n, s.min_new_tokens) = (5, 8));
    let mut driver = Driver::new(native(CONTEXT, &config(|_| {})));
    driver.submit(&request(0, 9, &sampling));
    driver.poll().unwrap();
    assert_eq!(driver.backend.stats().kv_blocks_used, 2 + 5);
    driver.finish();
}

#[test]
fn room_that_runs_out_preempts_the_youngest() {
    // Room for 12 blocks of 4; four sequences of 4 + 24 tokens would need 28.
    let sampling = params(|s| (s.max_new_tokens, s.min_new_tokens) = (24, 24));
    let requests: Vec<Request> = (0..4).map(|id| request(id, 4, &sampling)).collect();
    let config = config(|c| c.kv_cache_tokens = 48);
    check(&config, &requests);
    let mut driver = Driver::new(native(CONTEXT, &config));
    for request in &requests {
        driver.submit(request);
    }
    let mut fewest = usize::MAX;
    while driver.finished.is_empty() {
        driver.poll().unwrap();
        fewest = fewest.min(driver.backend.stats().running);
    }
    assert!(fewest < 4, "somebody was preempted");
    assert!(driver.finished.contains_key(&(PromptId(0), 0)), "the oldest ends first");
}

#[test]
fn what_can_never_fit_is_refused_and_the_rest_waits() {
    let small = config(|c| c.kv_cache_tokens = 16);
    let mut engine = native(CONTEXT, &small);
    let long = params(|s| s.max_new_tokens = 14);
    let error = engine.submit(request(0, 4, &long)).unwrap_err();
    assert_eq!(error, Error::KvCacheTooSmall { needed: 5, total: 4 });
    engine.submit(request(0, 4, &params(|s| s.max_new_tokens = 13))).unwrap();
    let error = engine.submit(request(0, CONTEXT, &long)).unwrap_err();
    assert_eq!(error, Error::PromptTooLong { tokens: CONTEXT, context: CONTEXT });
    check(&small, &(0..9).map(|id| request(id, 7, &params(|_| {}))).collect::<Vec<_>>());
}

#[test]
fn copies_of_a_prompt_are_counted_before_they_are_made() {
    let mut engine = native(512, &config(|c| c.kv_cache_tokens = 512));
    let many = params(|s| s.n = 65_536);
    let message = engine.submit(request(0, 300, &many)).unwrap_err().to_string();
    assert!(message.ends_with("n prompts have at most 16777216 tokens, got 65536"), "{message}");
    engine.submit(request(0, 3, &many)).unwrap();
}

#[test]
fn a_completion_ends_where_the_context_does() {
    let sampling = params(|s| (s.max_new_tokens, s.min_new_tokens) = (1000, 1000));
    let mut driver = Driver::new(native(CONTEXT, &config(|_| {})));
    driver.submit(&request(0, 40, &sampling));
    driver.finish();
    let rollout = &driver.finished[&(PromptId(0), 0)];
    assert_eq!((rollout.completion.len(), &rollout.stop), (CONTEXT - 40, &StopReason::Length));
}

#[test]
fn stop_ids_end_a_completion_unless_too_early_or_ignored() {
    let mut driver = Driver::new(native(CONTEXT, &config(|_| {})));
    let every = (0..VOCAB - 1).collect::<Vec<_>>();
    driver.submit(&request(0, 5, &params(|s| s.stop_token_ids = every.clone())));
    let late = params(|s| (s.stop_token_ids, s.min_new_tokens) = (every[..20].to_vec(), 3));
    driver.submit(&request(1, 5, &late));
    driver.submit(&request(
        2,
        5,
        &params(|s| (s.ignore_eos, s.max_new_tokens, s.n) = (true, 40, 8)),
    ));
    driver.finish();
    assert_eq!(driver.finished[&(PromptId(0), 0)].completion.len(), 1);
    let late = &driver.finished[&(PromptId(1), 0)];
    assert!(late.completion[..3].iter().all(|token| (20..VOCAB - 1).contains(token)), "{late:?}");
    let ignoring: Vec<_> =
        (0..8).map(|sample| &driver.finished[&(PromptId(2), sample)].completion).collect();
    assert!(ignoring.iter().all(|completion| completion.len() == 40));
    assert!(ignoring.iter().any(|completion| completion.contains(&(VOCAB - 1))));
}

#[test]
fn a_stop_string_ends_a_completion_and_its_tokens_are_kept() {
    // Ids are bytes: a line feed is token 10.
    let sampling = params(|s| (s.stop, s.max_new_tokens) = (vec!["\n".into()], 40));
    let mut driver = Driver::new(native(CONTEXT, &config(|_| {})));
    driver.submit(&request(3, 5, &SamplingParams { n: 8, ignore_eos: true, ..sampling }));
    driver.finish();
    let stopped: Vec<_> = driver
        .finished
        .values()
        .filter(|rollout| rollout.stop == StopReason::Text("\n".into()))
        .collect();
    assert!(!stopped.is_empty());
    for rollout in driver.finished.values() {
        let first = rollout.completion.iter().position(|&token| token == 10);
        let ends = (rollout.stop.is_end()).then(|| rollout.completion.len() - 1);
        assert_eq!(first, ends, "{rollout:?}");
    }
}

#[test]
fn prompt_logprobs_are_whole_whatever_the_chunks() {
    let sampling = params(|s| (s.max_new_tokens, s.prompt_logprobs, s.n) = (0, true, 1));
    let score = |budget: usize, prompt_len: usize| {
        let config = config(|c| (c.max_batch, c.max_batch_tokens) = (1, budget));
        let mut driver = Driver::new(native(CONTEXT, &config));
        let id = driver.submit(&request(7, prompt_len, &sampling));
        driver.finish();
        let rollout = &driver.finished[&(PromptId(7), 0)];
        assert_eq!((rollout.completion.len(), &rollout.stop), (0, &StopReason::Length));
        driver.prompt_logprobs[&id].clone()
    };
    let whole = score(64, 17);
    assert_eq!(whole.len(), 16);
    assert!(whole.iter().all(|logprob| *logprob < 0.0 && logprob.is_finite()));
    for budget in [1, 2, 5, 16] {
        assert_eq!(score(budget, 17), whole);
    }
    assert_eq!(score(4, 1), [0f32; 0]);
    assert_eq!(score(64, CONTEXT).len(), CONTEXT - 1);
}

#[test]
fn prompt_logprobs_come_once_for_all_samples() {
    let sampling = params(|s| (s.prompt_logprobs, s.n) = (true, 6));
    let mut driver = Driver::new(native(CONTEXT, &config(|c| c.kv_cache_tokens = 48)));
    let id = driver.submit(&request(7, 9, &sampling));
    driver.finish();
    assert_eq!(driver.prompt_logprobs[&id].len(), 8);
}

#[test]
fn decoding_goes_on_while_a_long_prompt_comes_in() {
    let config = config(|c| (c.max_batch, c.max_batch_tokens) = (2, 3));
    let mut driver = Driver::new(native(CONTEXT, &config));
    driver.submit(&request(0, 2, &params(|s| s.min_new_tokens = 8)));
    driver.poll().unwrap();
    driver.submit(&request(1, 40, &params(|_| {})));
    let before = driver.backend.stats();
    driver.poll().unwrap();
    let after = driver.backend.stats();
    assert_eq!(after.generated_tokens - before.generated_tokens, 1);
    assert_eq!(after.prompt_tokens - before.prompt_tokens, 2, "the rest of the budget");
}

#[test]
fn a_held_engine_drains_and_lets_in_nobody() {
    let mut driver = Driver::new(native(CONTEXT, &config(|c| c.max_batch = 2)));
    for id in 0..4 {
        driver.submit(&request(id, 5, &params(|_| {})));
    }
    driver.poll().unwrap();
    driver.backend.hold_admission(true);
    assert!(!driver.backend.is_drained());
    while !driver.backend.is_drained() {
        driver.poll().unwrap();
    }
    assert_eq!(driver.finished.len(), 2);
    assert_eq!(driver.backend.stats().kv_blocks_used, 0);
    driver.backend.hold_admission(false);
    driver.finish();
    assert_eq!(driver.finished.len(), 4);
}

#[test]
fn a_refit_in_flight_computes_again_under_the_new_weights() {
    let sampling = params(|s| (s.n, s.max_new_tokens, s.min_new_tokens) = (3, 20, 20));
    let mut driver = Driver::new(native(CONTEXT, &config(|_| {})));
    driver.submit(&request(0, 6, &sampling));
    for _ in 0..5 {
        driver.poll().unwrap();
    }
    driver.backend.refit(&weights(1), RefitMode::Copy, false).unwrap();
    driver.finish();
    // What is read back must all be of version 1: a restart with the same beginnings gives the same ends.
    for rollout in driver.finished.values() {
        let spans: Vec<u64> = rollout.versions.iter().map(|span| span.version.0).collect();
        assert_eq!(spans, [0, 1]);
        let mut prefix = rollout.prompt.tokens.ids().to_vec();
        let old = rollout.versions[0].tokens as usize;
        prefix.extend(&rollout.completion[..old]);
        let mut fresh = native(CONTEXT, &config(|_| {}));
        fresh.refit(&weights(1), RefitMode::Copy, false).unwrap();
        let mut fresh = Driver::new(fresh);
        let score = params(|s| (s.prompt_logprobs, s.max_new_tokens) = (true, 0));
        let mut scored = request(0, 1, &score);
        scored.prompt.tokens = rollout.sequence().into();
        let id = fresh.submit(&scored);
        fresh.finish();
        let raw = &fresh.prompt_logprobs[&id][prefix.len() - 1..];
        assert_eq!(raw.len(), rollout.completion.len() - old);
        for (at, logprob) in raw.iter().enumerate().skip(1) {
            // The end of text is forbidden throughout, so the two differ by one constant per token, never downwards.
            assert!(rollout.rollout_logprobs[old + at] >= *logprob);
        }
    }
    assert_eq!(driver.backend.stats().version, WeightVersion(1));
}

#[test]
fn a_refused_refit_leaves_the_old_weights_serving() {
    let mut forward = Hashing::new(CONTEXT);
    forward.fault = Fault::Refit;
    let mut driver = Driver::new(native_of(forward, &config(|_| {})));
    let asked = request(0, 6, &params(|s| s.n = 2));
    driver.submit(&asked);
    driver.poll().unwrap();
    driver.backend.refit(&weights(1), RefitMode::Copy, false).unwrap_err();
    driver.finish();
    for rollout in expected(&asked, CONTEXT) {
        assert_eq!(driver.finished[&(PromptId(0), rollout.sample)], rollout);
    }
}

#[test]
fn logits_that_are_no_numbers_are_an_error_by_name_and_the_engine_goes_on() {
    let mut forward = Hashing::new(CONTEXT);
    let asked = request(0, 6, &params(|_| {}));
    let last = asked.prompt.tokens.ids()[5];
    forward.fault = Fault::NanAt(last);
    let mut driver = Driver::new(native_of(forward, &config(|_| {})));
    driver.submit(&asked);
    let error = driver.poll().unwrap_err();
    assert_eq!(
        error.to_string(),
        "the logits for token 6 of prompt 0 (sample 0) are not finite under weights of version 0"
    );
    assert!(!driver.backend.is_busy());
    assert_eq!(driver.backend.stats().kv_blocks_used, 0);
}

#[test]
fn bad_fields_are_refused_by_name() {
    let mut engine = native(CONTEXT, &config(|_| {}));
    let mut refuse = |len: usize, change: fn(&mut SamplingParams)| {
        engine.submit(request(0, len, &params(change))).unwrap_err().to_string()
    };
    assert_eq!(refuse(0, |_| {}), "prompt must be at least one token, got none");
    assert_eq!(
        refuse(1, |s| s.temperature = -1.0),
        "temperature must be at least 0 and finite, got -1"
    );
    assert_eq!(refuse(1, |s| s.top_p = 0.0), "top_p must be above 0, at most 1, got 0");
    assert_eq!(refuse(1, |s| s.min_p = f32::NAN), "min_p must be from 0 to 1, got NaN");
    assert_eq!(refuse(1, |s| s.n = 0), "n must be from 1 to 65536, got 0");
    assert_eq!(
        refuse(1, |s| s.max_new_tokens = 0),
        "max_new_tokens must be at least 1, or 0 with prompt_logprobs, got 0"
    );
    assert_eq!(
        refuse(1, |s| s.min_new_tokens = 9),
        "min_new_tokens must be at most max_new_tokens (8), got 9"
    );
    assert_eq!(
        refuse(1, |s| s.stop_token_ids = vec![VOCAB]),
        "stop_token_ids must be token ids below 24, got 24"
    );
    assert_eq!(
        refuse(1, |s| s.stop = vec![String::new()]),
        "stop must be strings that are not empty, got an empty string"
    );
}

#[test]
fn a_prompt_preempted_in_the_middle_is_scored_from_its_start_again() {
    // 12 blocks of 4. The first sequence grows to 7 of them while the second's prompt, one token a step, holds 7.
    let config = config(|c| (c.kv_cache_tokens, c.max_batch, c.max_batch_tokens) = (48, 2, 2));
    let mut driver = Driver::new(native(CONTEXT, &config));
    driver.submit(&request(0, 4, &params(|s| (s.max_new_tokens, s.min_new_tokens) = (24, 24))));
    for _ in 0..4 {
        driver.poll().unwrap();
    }
    let id = driver.submit(&request(1, 28, &params(|s| s.prompt_logprobs = true)));
    driver.poll().unwrap();
    assert_eq!(driver.backend.stats().running, 2);
    let mut preempted = false;
    while driver.prompt_logprobs.is_empty() {
        driver.poll().unwrap();
        preempted |= driver.backend.stats().waiting > 0;
    }
    assert!(preempted, "the prompt was preempted before it was whole");
    assert_eq!(driver.prompt_logprobs[&id].len(), 27);
}
