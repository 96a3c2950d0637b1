//! Every scripted fault of the double, at every point: a named error, no abort.

use std::{
    sync::{
        atomic::{AtomicBool, Ordering},
        mpsc,
    },
    thread,
};

use rollforge::ffi::tensorrt_llm::{Status, double};

use super::*;

const DEADLINE: Duration = Duration::from_secs(60);

/// Point, the call that fails there, and whether it is a plan's or an executor's.
const POINTS: [(&str, &str); 11] = [
    ("create", "open"),
    ("enqueue", "enqueue"),
    ("await", "await_responses"),
    ("cancel", "cancel"),
    ("stats", "stats"),
    ("engine", "weights"),
    ("load", "load"),
    ("serialize", "serialize"),
    ("refit_open", "weights"),
    ("bind", "bind"),
    ("commit", "commit"),
];

/// Makes every call there is once, and lets everything go again; the first failure ends it.
fn whole_life(library: Library, folder: &EngineDir) -> Result<Vec<Response>, Error> {
    let mut executor = open(library, folder)?;
    executor.can_enqueue()?;
    executor.enqueue(&request())?;
    let responses = drain(&mut executor, 1)?;
    let id = executor.enqueue(&Request { max_tokens: 60, ..request() })?;
    executor.cancel(id)?;
    drain(&mut executor, 1)?;
    executor.stats()?;
    executor.weights()?;
    refit(&mut executor, 1)?;
    drop(executor);
    let mut plan = Plan::load(library, &folder.plan())?;
    refit(&mut plan, 2)?;
    let written = plan.serialize()?;
    drop(plan);
    Executor::from_plan(library, &written, engine_dir::CONFIG, &options())?;
    Ok(responses)
}

/// Runs a whole life within the deadline, releasing what hangs.
fn life_with(library: Library, fault: &str) -> Result<Vec<Response>, Error> {
    let folder = EngineDir::with(&[fault]);
    let (sender, receiver) = mpsc::channel();
    let life = thread::spawn(move || sender.send(whole_life(library, &folder)).unwrap());
    let hangs = fault.ends_with("hang");
    let over = AtomicBool::new(false);
    let outcome = thread::scope(|scope| {
        scope.spawn(|| {
            while hangs && !over.load(Ordering::Relaxed) {
                thread::sleep(Duration::from_millis(5));
                double::release_hangs();
            }
        });
        let outcome = receiver.recv_timeout(DEADLINE);
        over.store(true, Ordering::Relaxed);
        outcome
    });
    let outcome = outcome.unwrap_or_else(|_| panic!("{fault} ends in nothing"));
    life.join().unwrap();
    outcome
}

#[test]
fn a_fault_at_any_point_is_an_error_of_that_call() {
    for library in libraries() {
        for (point, call) in POINTS {
            for what in ["throw", "throw_other", "oom", "hang"] {
                let fault = format!("{point} 1 {what}");
                let error = life_with(library, &fault).expect_err(&fault);
                // The stand-in hands no engine to the shim where the double has none to give; TensorRT has no statuses.
                let is_double = library == Library::Double;
                assert!(error.call == call || !is_double, "{fault}: {error:?}");
                assert!(!error.message.is_empty() && !error.message.contains('\n'), "{error:?}");
                if is_double {
                    let status = if what == "oom" { Status::OutOfMemory } else { Status::Internal };
                    assert_eq!(error.status, status, "{fault}: {error:?}");
                }
                if what == "throw" && is_double {
                    assert!(error.message.contains(&format!("{point} throw")), "{error:?}");
                }
            }
        }
    }
}

#[test]
fn a_fault_of_an_iteration_is_an_error_of_its_requests() {
    for library in libraries() {
        for what in ["throw", "throw_other", "oom", "hang"] {
            let fault = format!("step 1 {what}");
            match life_with(library, &fault) {
                Ok(responses) => {
                    let last = responses.last().unwrap();
                    assert!(last.error.as_ref().is_some_and(|error| !error.is_empty()), "{last:?}");
                }
                Err(error) => panic!("{fault}: {error:?}"),
            }
        }
    }
}

#[test]
fn a_fault_of_an_end_is_nobodys() {
    for library in libraries() {
        for what in ["throw", "throw_other", "oom", "hang"] {
            life_with(library, &format!("destroy 1 {what}")).unwrap();
        }
    }
}

#[test]
fn a_request_that_fails_says_why() {
    for library in libraries() {
        let responses = life_with(library, "enqueue 1 error_response").unwrap();
        let [only] = &responses[..] else { panic!("{responses:?}") };
        assert!(only.is_final);
        assert!(only.error.as_ref().is_some_and(|error| !error.is_empty()), "{only:?}");
    }
}

#[test]
fn a_finish_reason_unknown_to_this_build_keeps_its_number() {
    for library in libraries() {
        let mut executor = open(library, &EngineDir::with(&["await 0 unknown_finish"])).unwrap();
        executor.enqueue(&request()).unwrap();
        let mut responses = Vec::new();
        while responses.last().is_none_or(|last: &Response| !last.is_sequence_final) {
            let some = executor.await_responses(Duration::from_secs(10)).unwrap();
            assert!(!some.is_empty(), "{responses:?}");
            responses.extend(some);
        }
        let odd = |response: &Response| matches!(response.finish, FinishReason::Other(_));
        assert!(responses.iter().any(odd), "{responses:?}");
    }
}

#[test]
fn odd_ids_and_deliveries_come_through_as_they_are() {
    for library in libraries() {
        let mut executor = open(library, &EngineDir::with(&["enqueue 2 duplicate_id"])).unwrap();
        let first = executor.enqueue(&request()).unwrap();
        assert_eq!(executor.enqueue(&request()).unwrap(), first);
        drain(&mut executor, 2).unwrap();

        let mut executor = open(library, &EngineDir::with(&["await 1 unknown_id"])).unwrap();
        let id = executor.enqueue(&request()).unwrap();
        let responses = drain(&mut executor, 2).unwrap();
        assert!(responses.iter().any(|response| response.request != id), "{responses:?}");

        let mut executor = open(library, &EngineDir::with(&["await 0 double_delivery"])).unwrap();
        executor.enqueue(&request()).unwrap();
        let mut finals = 0;
        while finals < 2 {
            let responses = executor.await_responses(Duration::from_secs(10)).unwrap();
            assert!(!responses.is_empty());
            finals += responses.iter().filter(|response| response.is_final).count();
        }
    }
}

#[test]
fn only_the_leader_may_enqueue() {
    for library in libraries() {
        let mut executor = open(library, &EngineDir::with(&["create 1 non_leader"])).unwrap();
        assert!(!executor.can_enqueue().unwrap());
        let error = executor.enqueue(&request()).unwrap_err();
        let expected = ("enqueue", Status::InvalidState);
        assert_eq!((error.call, error.status), expected, "{error:?}");
    }
}

#[test]
fn a_refit_that_fails_half_way_is_partial_and_the_next_is_refused() {
    for library in libraries() {
        let mut executor = open(library, &EngineDir::with(&["commit 1 fail_at:3"])).unwrap();
        let error = refit(&mut executor, 1).unwrap_err();
        assert_eq!((error.call, error.status), ("commit", Status::RefitPartial), "{error:?}");
        assert!(refit(&mut executor, 1).is_err());
    }
}

#[test]
fn a_tensor_skipped_without_a_word_is_only_seen_in_the_answers() {
    for library in libraries() {
        let answer = |fault: &[&str]| {
            let mut executor = open(library, &EngineDir::with(fault)).unwrap();
            refit(&mut executor, 1).unwrap();
            completion(&mut executor, &request()).unwrap()
        };
        let skipped = answer(&["commit 1 skip:transformer.layers.0.mlp.proj.weight"]);
        assert_ne!(skipped, answer(&[]));
    }
}
