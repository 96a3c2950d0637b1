//! The handle and the engine thread, over the hashing model.

use std::time::{Duration, Instant};

use super::*;
use crate::{
    engine::{
        RefitInFlight,
        native::testing::{Fault, Hashing, VOCAB, expected, native_of, params, request, weights},
    },
    rollout::WeightVersion,
};

const CONTEXT: usize = 600;

fn engine_with(fault: Fault, change: impl FnOnce(&mut EngineConfig)) -> Engine {
    // Nobody paces it.
    paced(fault, change).0
}

fn engine() -> Engine {
    engine_with(Fault::None, |_| {})
}

/// An engine whose every step waits for a word, until the sender is dropped.
fn paced(fault: Fault, change: impl FnOnce(&mut EngineConfig)) -> (Engine, Sender<()>) {
    let mut config = EngineConfig { threads: 1, max_batch: 4, ..EngineConfig::default() };
    change(&mut config);
    let (pace, steps) = crossbeam::channel::unbounded();
    let mut forward = Hashing::new(CONTEXT);
    (forward.fault, forward.pace) = (fault, Some(steps));
    let backend = Box::new(native_of(forward, &config));
    (Engine::builder().config(config).backend(backend, None).build().unwrap(), pace)
}

/// Sends off what a future asks of the engine, then lets the engine go and waits for the answer.
fn answer_once_free<T>(asking: impl Future<Output = T>, pace: Sender<()>) -> T {
    runtime().block_on(async {
        let mut asking = Box::pin(asking);
        tokio::select! {
            biased;
            _ = &mut asking => panic!("the engine stands still"),
            () = std::future::ready(()) => {}
        }
        drop(pace);
        asking.await
    })
}

/// A request that takes several hundred steps.
fn long(id: u64) -> Request {
    request(id, 4, &params(|s| (s.max_new_tokens, s.min_new_tokens) = (500, 500)))
}

/// Waits until the engine is as wanted. The limit only keeps a broken engine from hanging the tests.
fn wait_until(engine: &Engine, wanted: impl Fn(&Stats) -> bool) {
    let since = Instant::now();
    while !wanted(&engine.stats()) {
        assert!(since.elapsed() < Duration::from_secs(60), "{:?}", engine.stats());
        std::thread::sleep(Duration::from_millis(1));
    }
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap()
}

#[test]
fn all_faces_give_the_same_rollouts() {
    let engine = engine();
    let asked: Vec<Request> = (0..6).map(|id| request(id, 5, &params(|s| s.n = 2))).collect();
    let wanted: Vec<Rollout> =
        asked.iter().flat_map(|request| expected(request, CONTEXT)).collect();
    assert_eq!(engine.blocking().generate_all(asked.clone()).unwrap(), wanted);
    assert_eq!(engine.blocking().generate(asked[3].clone()).unwrap(), wanted[6..8]);
    let runtime = runtime();
    assert_eq!(runtime.block_on(engine.generate(asked[3].clone())).unwrap(), wanted[6..8]);
    let mut one_by_one: Vec<Rollout> =
        engine.rollouts(asked.clone()).into_blocking().map(Result::unwrap).collect();
    one_by_one.sort_by_key(|rollout| (rollout.prompt.id, rollout.sample));
    assert_eq!(one_by_one, wanted);
}

#[test]
fn a_stream_gives_every_token_and_then_the_rollout() {
    let engine = engine();
    let asked = request(1, 5, &params(|s| (s.prompt_logprobs, s.raw_logprobs) = (true, true)));
    let wanted = expected(&asked, CONTEXT).remove(0);
    let events: Vec<StreamEvent> = runtime().block_on(async {
        let mut stream = engine.stream(asked).await.unwrap();
        let mut events = Vec::new();
        while let Some(event) = stream.next().await {
            events.push(event.unwrap());
        }
        events
    });
    let StreamEvent::PromptLogprobs(scores) = &events[0] else { panic!("{events:?}") };
    assert_eq!(scores.len(), 4);
    let tokens: Vec<u32> = events
        .iter()
        .filter_map(|event| match event {
            StreamEvent::Token(sampled) => Some(sampled.token),
            _ => None,
        })
        .collect();
    assert_eq!(tokens, wanted.completion);
    assert_eq!(events.last(), Some(&StreamEvent::Finished(wanted)));
}

#[test]
fn dropping_a_future_a_stream_or_a_receiver_cancels() {
    let (engine, pace) = paced(Fault::None, |_| {});
    let steps = |count: usize| (0..count).for_each(|_| pace.send(()).unwrap());
    let idle = |stats: &Stats| stats.running + stats.waiting + stats.kv_blocks_used == 0;
    let mut stream = engine.blocking().stream(long(0)).unwrap();
    steps(2);
    stream.next_blocking().unwrap().unwrap();
    drop(stream);
    steps(1);
    wait_until(&engine, idle);
    runtime().block_on(async {
        let generating = engine.generate(long(1));
        tokio::select! {
            biased;
            _ = generating => panic!("500 tokens are not there at the first poll"),
            () = std::future::ready(()) => {}
        }
    });
    let mut rollouts = engine.rollouts((2..40).map(|id| match id {
        2 => request(2, 3, &params(|_| {})),
        _ => long(id),
    }));
    steps(20);
    rollouts.next_blocking().unwrap().unwrap();
    drop(rollouts);
    drop(pace);
    wait_until(&engine, idle);
    assert!(engine.stats().generated_tokens < 30 * 4, "not everything was generated");
}

#[test]
fn a_call_beyond_the_limit_waits_for_its_turn() {
    let engine = engine_with(Fault::None, |c| c.max_calls = 1);
    let first = engine.blocking().stream(long(0)).unwrap();
    runtime().block_on(async {
        let mut second = Box::pin(engine.generate(request(1, 3, &params(|_| {}))));
        tokio::select! {
            biased;
            _ = &mut second => panic!("there was no room"),
            () = std::future::ready(()) => {}
        }
        drop(first);
        assert_eq!(second.await.unwrap().len(), 1);
    });
}

#[test]
fn one_bad_request_leaves_the_others_alone() {
    let engine = engine();
    let asked = [request(0, 3, &params(|_| {})), request(1, 0, &params(|s| s.n = 3)), long(2)];
    let mut rollouts = engine.rollouts(asked);
    let mut errors = Vec::new();
    let mut good = 0;
    while let Some(item) = rollouts.next_blocking() {
        match item {
            Ok(_) => good += 1,
            Err(error) => errors.push(error.to_string()),
        }
    }
    assert_eq!(good, 2);
    assert_eq!(errors, ["prompt 1: prompt must be at least one token, got none"]);
}

#[test]
fn a_refit_waits_for_what_is_in_flight_and_holds_back_the_rest() {
    let (engine, pace) = paced(Fault::None, |_| {});
    let rollouts = engine.rollouts((0..8).map(long));
    (0..3).for_each(|_| pace.send(()).unwrap());
    wait_until(&engine, |stats| stats.running == 4 && stats.generated_tokens > 0);
    let version_1 = weights(1);
    let report = answer_once_free(engine.refit(&version_1, RefitMode::Alias), pace).unwrap();
    assert_eq!(report.version, WeightVersion(1));
    for rollout in rollouts.into_blocking().map(Result::unwrap) {
        let versions: Vec<u64> = rollout.versions.iter().map(|span| span.version.0).collect();
        assert_eq!(versions, [u64::from(rollout.prompt.id.0 >= 4)]);
    }
    assert_eq!(engine.stats().version, WeightVersion(1));
}

#[test]
fn a_refit_by_recomputing_leaves_spans_of_both_versions() {
    let (engine, pace) = paced(Fault::None, |c| c.refit_in_flight = RefitInFlight::Recompute);
    let mut stream = engine.blocking().stream(long(0)).unwrap();
    pace.send(()).unwrap();
    stream.next_blocking().unwrap().unwrap();
    let version_1 = weights(1);
    answer_once_free(engine.refit(&version_1, RefitMode::Copy), pace).unwrap();
    let rollout = loop {
        if let StreamEvent::Finished(rollout) = stream.next_blocking().unwrap().unwrap() {
            break rollout;
        }
    };
    let versions: Vec<u64> = rollout.versions.iter().map(|span| span.version.0).collect();
    assert_eq!(versions, [0, 1]);
    assert_eq!(rollout.versions.iter().map(|span| span.tokens).sum::<u32>(), 500);
}

#[test]
fn a_refused_refit_is_an_error_and_the_engine_serves_on() {
    let engine = engine_with(Fault::Refit, |_| {});
    let error = engine.blocking().refit(&weights(1), RefitMode::Copy).unwrap_err();
    assert!(error.to_string().ends_with("version 0 goes on serving: told to fail"), "{error}");
    let asked = request(0, 3, &params(|_| {}));
    assert_eq!(engine.blocking().generate(asked.clone()).unwrap(), expected(&asked, CONTEXT));
}

/// A prompt of one token that the fault is about, and others without it.
const BAD: u32 = VOCAB - 1;

fn bad_request() -> Request {
    let prompt = Prompt { id: PromptId(9), tokens: vec![BAD].into() };
    Request::new(prompt, params(|_| {}))
}

#[test]
fn a_panic_in_the_backend_reaches_every_caller_and_hangs_nobody() {
    let (engine, pace) = paced(Fault::PanicAt(BAD), |_| {});
    let mut other = engine.blocking().stream(long(0)).unwrap();
    let reason = "the engine has stopped: its backend panicked: token 23 came by";
    let error = answer_once_free(engine.generate(bad_request()), pace).unwrap_err();
    assert_eq!(error.to_string(), reason);
    let last = std::iter::from_fn(|| other.next_blocking()).last().unwrap();
    assert_eq!(last.unwrap_err().to_string(), reason);
    assert!(other.next_blocking().is_none());
    // Also those who come later.
    let later = engine.blocking().generate(bad_request()).unwrap_err();
    assert_eq!(later.to_string(), reason);
    let refit = engine.blocking().refit(&weights(1), RefitMode::Alias).unwrap_err();
    assert_eq!(refit.to_string(), reason);
    let mut rollouts = engine.rollouts([bad_request()]);
    assert_eq!(rollouts.next_blocking().unwrap().unwrap_err().to_string(), reason);
    assert!(rollouts.next_blocking().is_none());
}

#[test]
fn a_failed_step_fails_what_was_in_it_and_the_engine_goes_on() {
    let engine = engine_with(Fault::NanAt(BAD), |_| {});
    let error = engine.blocking().generate(bad_request()).unwrap_err();
    assert!(matches!(error, Error::Logits { prompt: PromptId(9), position: 1, .. }), "{error}");
    let fine = Prompt { id: PromptId(1), tokens: vec![1, 2].into() };
    let sampling = params(|s| (s.min_new_tokens, s.max_new_tokens) = (3, 3));
    assert_eq!(engine.blocking().generate(Request::new(fine, sampling)).unwrap().len(), 1);
}

#[test]
fn a_stuck_engine_is_a_deadline_error_that_says_who_waits_for_what() {
    let engine = engine_with(Fault::HangAt(BAD), |c| c.deadline_seconds = 0.05);
    let blocking = engine.blocking().generate(bad_request()).unwrap_err();
    let waiting = runtime().block_on(engine.score(vec![1, 2])).unwrap_err();
    for (error, who) in [(blocking, "generate waited"), (waiting, "score waited")] {
        let text = error.to_string();
        assert!(text.starts_with(who), "{text}");
        assert!(text.contains("the engine thread has been in step 1 all the while"), "{text}");
    }
}

#[test]
fn the_engine_thread_ends_with_its_last_handle() {
    let engine = engine();
    let pulse = Arc::downgrade(&engine.0.pulse);
    let stream = engine.blocking().stream(long(0)).unwrap();
    drop(engine);
    assert!(pulse.upgrade().is_some(), "the stream holds the engine");
    drop(stream);
    let since = Instant::now();
    while pulse.upgrade().is_some() {
        assert!(since.elapsed() < Duration::from_secs(60), "the thread goes on");
        std::thread::yield_now();
    }
}
