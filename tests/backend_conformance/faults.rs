//! The library misbehaves, by script: every time the outcome is an error that says so, in time, or no harm at all.

use rollforge::{
    engine::{EngineModel, Error, RefitMode, StreamEvent, Verdict},
    rollout::WeightVersion,
};

use crate::world::{Kind, World, assert_alike, greedy, requests, sampling, version};

/// The backend, over the double and over the stand-in.
const KINDS: &[Kind] = &[
    Kind::Double,
    #[cfg(not(trtllm_linked))]
    Kind::StandIn,
];

/// Long enough for a transformer of two layers, and not for a test's reader.
const DEADLINE: f64 = 3.0;

fn open(kind: Kind, fault: &str) -> Result<World, Error> {
    let deadline = if fault.ends_with("hang") { DEADLINE } else { 60.0 };
    let fault = format!("fault {fault}");
    kind.try_open(&EngineModel::tiny(1), &[&fault], |c| c.deadline_seconds = deadline)
}

fn generate(world: &World) -> Result<Vec<rollforge::rollout::Rollout>, Error> {
    world.engine.blocking().generate_all(requests(3, &greedy()))
}

fn one(world: &World, prompt: usize) -> Result<Vec<rollforge::rollout::Rollout>, Error> {
    world.engine.blocking().generate(requests(3, &greedy())[prompt].clone())
}

fn refit(world: &World, number: u64) -> Result<(), Error> {
    let weights = version(&EngineModel::tiny(2).weights, number);
    world.engine.blocking().refit(&weights, RefitMode::Alias).map(drop)
}

#[test]
fn responses_that_come_twice_or_for_nobody_do_no_harm() {
    let wanted = Kind::Native.open(&EngineModel::tiny(1), |_| {}).rollouts(requests(3, &greedy()));
    for &kind in KINDS {
        for fault in ["await 0 double_delivery", "await 0 unknown_id"] {
            let world = open(kind, fault).unwrap();
            assert_alike(&generate(&world).unwrap(), &wanted);
            assert_alike(&generate(&world).unwrap(), &wanted);
            refit(&world, 1).unwrap();
            let notes = world.engine.take_notes().join("\n");
            assert_eq!(notes.matches("passed over").count(), 1, "{fault}: {notes}");
        }
    }
}

#[test]
fn a_request_that_fails_fails_alone() {
    for &kind in KINDS {
        for (fault, words) in [
            ("enqueue 2 error_response", "scripted fault: enqueue error_response"),
            ("enqueue 2 throw", "scripted fault: enqueue throw"),
            ("enqueue 2 throw_other", ": enqueue: "),
            ("enqueue 2 oom", ": enqueue: "),
        ] {
            let world = open(kind, fault).unwrap();
            let (mut fine, mut failed) = (0, Vec::new());
            for rollout in world.engine.rollouts(requests(3, &greedy())).into_blocking() {
                match rollout {
                    Ok(_) => fine += 1,
                    Err(error) => failed.push(error.to_string()),
                }
            }
            assert_eq!((fine, failed.len()), (2, 1), "{fault}: {failed:?}");
            assert!(failed[0].contains(words), "{fault}: {failed:?}");
            generate(&world).unwrap();
        }
    }
}

#[test]
fn an_unknown_finish_reason_is_an_error_that_names_it() {
    for &kind in KINDS {
        let world = open(kind, "await 1 unknown_finish").unwrap();
        let error = one(&world, 0).unwrap_err().to_string();
        assert!(error.ends_with("finish reason 99 is not known"), "{error}");
        one(&world, 0).unwrap();
    }
}

#[test]
fn two_requests_of_one_id_are_both_lost_and_nothing_else() {
    let world = open(Kind::Double, "enqueue 3 duplicate_id").unwrap();
    let mut lost = 0;
    for rollout in world.engine.rollouts(requests(3, &greedy())).into_blocking() {
        if let Err(error) = rollout {
            assert!(error.to_string().contains("two requests got the id 2"), "{error}");
            lost += 1;
        }
    }
    assert_eq!(lost, 2);
    generate(&world).unwrap();
    refit(&world, 1).unwrap();
}

#[test]
fn a_poll_that_fails_loses_its_requests_and_the_next_go_on() {
    for &kind in KINDS {
        for (fault, words) in [
            ("await 1 throw", "scripted fault: await throw"),
            ("await 1 oom", "await_responses: "),
            ("step 3 throw", "scripted fault: step throw"),
            ("step 3 throw_other", ": response: "),
        ] {
            let world = open(kind, fault).unwrap();
            let error = one(&world, 2).unwrap_err().to_string();
            assert!(error.contains(words), "{fault}: {error}");
            one(&world, 2).unwrap();
            refit(&world, 1).unwrap();
            one(&world, 2).unwrap();
        }
    }
}

#[test]
fn an_engine_that_does_not_start_says_why() {
    for &kind in KINDS {
        for (fault, words) in [
            ("create 1 throw", "scripted fault: create throw"),
            ("create 1 throw_other", ": open: "),
            ("create 1 oom", ": open: "),
            ("create 1 non_leader", "this rank is not the leader"),
            ("engine 1 throw", "scripted fault: engine throw"),
            ("refit_open 1 throw", "the list of tensors"),
            ("bind 1 throw", "scripted fault: bind throw"),
            ("commit 1 throw", "scripted fault: commit throw"),
        ] {
            match open(kind, fault) {
                Err(error) => assert!(error.to_string().contains(words), "{fault}: {error}"),
                // What there is a way around is gone around, and said.
                Ok(world) => {
                    let notes = world.engine.take_notes().join("\n");
                    let around = ["the engine was rebuilt", "cannot be refitted in place"];
                    assert!(around.iter().any(|way| notes.contains(way)), "{fault}: {notes}");
                    generate(&world).unwrap();
                }
            }
        }
    }
}

#[test]
fn a_partial_refit_is_recovered_from_by_a_rebuild() {
    let wanted = Kind::Native.open(&EngineModel::tiny(2), |_| {}).rollouts(requests(3, &greedy()));
    for &kind in KINDS {
        let world = open(kind, "commit 2 fail_at:5").unwrap();
        generate(&world).unwrap();
        refit(&world, 1).unwrap();
        let notes = world.engine.take_notes().join("\n");
        assert!(notes.contains("failed half way"), "{notes}");
        assert!(notes.contains("the engine was rebuilt from its plan"), "{notes}");
        assert_alike(&world.rollouts(requests(3, &greedy())), &wanted);
        assert_eq!(world.engine.stats().version, WeightVersion(1));
        refit(&world, 2).unwrap();
        assert_alike(&world.rollouts(requests(3, &greedy())), &wanted);
    }
}

#[test]
fn a_partial_refit_without_a_way_back_forbids_to_generate_until_a_refit_succeeds() {
    for &kind in KINDS {
        for way_back in [
            "fault load 1 throw",
            "fault serialize 1 oom",
            "fault create 2 throw",
            "fault commit 3 fail_at:1",
        ] {
            let plan = ["fault commit 2 fail_at:5", way_back];
            let world = kind.try_open(&EngineModel::tiny(1), &plan, |_| {}).unwrap();
            let error = refit(&world, 1).unwrap_err().to_string();
            assert!(error.contains("the refit to version 1 failed half way"), "{error}");
            assert!(error.contains("then the rebuild"), "{error}");
            let error = generate(&world).unwrap_err().to_string();
            assert!(error.contains("not before a refit succeeds"), "{error}");
            refit(&world, 2).unwrap();
            let wanted = Kind::Native.open(&EngineModel::tiny(2), |_| {});
            assert_alike(&generate(&world).unwrap(), &wanted.rollouts(requests(3, &greedy())));
        }
    }
}

#[test]
fn a_tensor_that_refits_skip_is_named() {
    for &kind in KINDS {
        for name in [
            "transformer.layers.1.mlp.gate.weight",
            "transformer.layers.0.attention.qkv.weight",
            "transformer.ln_f.weight",
            "lm_head.weight",
        ] {
            let world = open(kind, &format!("commit 0 skip:{name}")).unwrap();
            refit(&world, 1).unwrap();
            let prompts: Vec<_> =
                requests(3, &greedy()).into_iter().map(|request| request.prompt.tokens).collect();
            let verdict = Verdict::Differs { reason: "it differs".into(), prompts, tokens: 6 };
            let error = world.engine.blocking().conclude_refit(verdict).unwrap_err();
            let Error::Canary { stale, .. } = &error else { panic!("{error}") };
            assert_eq!(stale, &[name]);
            let error = generate(&world).unwrap_err().to_string();
            assert!(error.contains("does not agree with the trainer"), "{error}");
        }
    }
}

#[test]
fn stale_blocks_show_where_the_salt_is_ignored() {
    let plan = ["fault enqueue 0 stale_kv"];
    let world = Kind::Double
        .try_open(&EngineModel::tiny(1), &plan, |c| c.tensorrt_llm.block_reuse = true)
        .unwrap();
    let asked = || requests(29, &greedy());
    world.rollouts(asked());
    refit(&world, 1).unwrap();
    let got = world.rollouts(asked());
    let wanted = Kind::Native.open(&EngineModel::tiny(2), |_| {}).rollouts(asked());
    let differs = |(got, wanted): (&rollforge::rollout::Rollout, &rollforge::rollout::Rollout)| {
        got.completion != wanted.completion
    };
    assert!(got.iter().zip(&wanted).any(differs));
}

/// Asserts that a deadline was missed, and whose.
fn assert_late(error: &Error, awaited: &str) {
    let Error::Deadline { awaited: got, seconds, .. } = error else { panic!("{error}") };
    assert!(got.contains(awaited), "{got} is not {awaited}");
    assert!(*seconds <= DEADLINE, "{seconds}");
}

#[test]
fn a_start_that_hangs_ends_with_the_deadline() {
    for &kind in KINDS {
        for (fault, awaited) in [
            ("create 1 hang", "the start of an executor"),
            ("refit_open 1 hang", "a list of tensors"),
            ("bind 1 hang", "a bind"),
            ("commit 1 hang", "a commit"),
            ("stats 1 hang", "no such wait"),
        ] {
            match open(kind, fault) {
                Err(error) => assert_late(&error, awaited),
                Ok(_) => assert_eq!(awaited, "no such wait", "{kind:?} {fault}"),
            }
        }
    }
}

#[test]
fn a_request_that_hangs_ends_with_the_deadline() {
    for &kind in KINDS {
        for (fault, awaited) in [
            ("enqueue 1 hang", "an enqueue"),
            ("await 1 hang", "a wait for responses"),
            ("step 1 hang", "responses of TensorRT-LLM"),
        ] {
            let world = open(kind, fault).unwrap();
            assert_late(&one(&world, 0).unwrap_err(), awaited);
            // And the next request is told at once.
            assert!(one(&world, 0).is_err());
        }
    }
}

#[test]
fn a_cancel_that_hangs_ends_with_the_deadline() {
    for &kind in KINDS {
        let world = open(kind, "cancel 1 hang").unwrap();
        let endless = sampling(|s| (s.max_new_tokens, s.ignore_eos) = (200, true));
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        let error = runtime.block_on(async {
            // A request that is done before its drop is seen is not cancelled; the next one is.
            for _ in 0..100 {
                let asked = requests(3, &endless)[0].clone();
                let mut stream = world.engine.stream(asked).await.unwrap();
                assert!(matches!(stream.next().await, Some(Ok(StreamEvent::Token(_)))));
                drop(stream);
                if let Err(error) = world.engine.generate(requests(3, &greedy())[1].clone()).await {
                    return error;
                }
            }
            panic!("no request was cancelled");
        });
        assert_late(&error, "a cancel");
    }
}

#[test]
fn a_refit_that_hangs_ends_with_the_deadline() {
    for &kind in KINDS {
        for (fault, awaited) in [
            ("bind 30 hang", "a bind"),
            ("commit 2 hang", "a commit"),
            ("stats 1 hang", "a look at the statistics"),
        ] {
            let world = open(kind, fault).unwrap();
            let late = match one(&world, 0) {
                Ok(_) => refit(&world, 1).unwrap_err(),
                Err(error) => error,
            };
            assert_late(&late, awaited);
            assert!(one(&world, 0).is_err());
        }
    }
}

#[test]
fn an_end_that_hangs_is_not_waited_for() {
    for &kind in KINDS {
        let started = std::time::Instant::now();
        let world = open(kind, "destroy 1 hang").unwrap();
        one(&world, 0).unwrap();
        drop(world);
        // The engine thread ends by itself; the handle does not even wait for that.
        assert!(started.elapsed().as_secs_f64() < 60.0);
    }
}
