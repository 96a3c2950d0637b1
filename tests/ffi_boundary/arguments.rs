//! What breaks a rule is refused in a sentence, on either side of the border.

use std::path::Path;

use super::*;

fn refused<T: std::fmt::Debug>(result: Result<T, Error>, call: &str) -> String {
    let error = result.unwrap_err();
    assert_eq!(error.call, call, "{error:?}");
    assert!(!error.message.is_empty() && !error.message.contains('\n'), "{error:?}");
    error.message
}

#[test]
fn engines_that_are_not_there_or_not_whole_are_refused() {
    for library in libraries() {
        let folder = EngineDir::with(&[]);
        refused(Executor::open(library, Path::new("/no/such/folder"), &options()), "open");
        refused(Executor::open(library, Path::new("a\0b"), &options()), "open");
        refused(Executor::from_plan(library, b"", engine_dir::CONFIG, &options()), "open");
        refused(Executor::from_plan(library, b"garbage\n", engine_dir::CONFIG, &options()), "open");
        let whole = engine_dir::plan(&[]);
        for length in (0..whole.len()).step_by(97) {
            let cut =
                Executor::from_plan(library, &whole[..length], engine_dir::CONFIG, &options());
            refused(cut, "open");
        }
        refused(Executor::from_plan(library, &whole, "not json", &options()), "open");
        refused(Plan::load(library, &folder.path().join("rank1.engine")), "load");
        refused(Plan::load(library, &folder.path().join("config.json")), "load");
    }
}

#[cfg(unix)]
#[test]
fn a_path_that_is_no_text_is_refused() {
    use std::{ffi::OsStr, os::unix::ffi::OsStrExt};
    let path = Path::new(OsStr::from_bytes(b"/tmp/\xff"));
    for library in libraries() {
        assert!(refused(Executor::open(library, path, &options()), "open").contains("UTF-8"));
        assert!(refused(Plan::load(library, path), "load").contains("UTF-8"));
    }
}

#[test]
fn requests_that_break_a_rule_are_refused_and_the_next_is_served() {
    for library in libraries() {
        let mut executor = open(library, &EngineDir::with(&[])).unwrap();
        let broken = [
            Request { prompt: Vec::new(), ..request() },
            Request { max_tokens: 0, ..request() },
            Request { max_tokens: i32::MIN, ..request() },
            Request { num_return_sequences: 0, ..request() },
            Request { temperature: f32::NAN, ..request() },
            Request { top_p: 2.0, ..request() },
            Request { top_k: -1, ..request() },
        ];
        for request in broken {
            refused(executor.enqueue(&request), "enqueue");
        }
        // Against the engine's own sizes: refused at once, or as the answer.
        let too_much = [
            Request { prompt: vec![1; 500], ..request() },
            Request { prompt: vec![-1], ..request() },
            Request { prompt: vec![i32::MAX], ..request() },
        ];
        for request in too_much {
            if executor.enqueue(&request).is_ok() {
                let responses = drain(&mut executor, 1).unwrap();
                assert!(responses.iter().all(|response| response.error.is_some()), "{responses:?}");
            }
        }
        assert_eq!(completion(&mut executor, &request()).unwrap().0.len(), 4);
    }
}

#[test]
fn stop_words_of_several_lengths_cross_the_border() {
    for library in libraries() {
        let mut executor = open(library, &EngineDir::with(&[])).unwrap();
        let greedy = Request { top_k: 1, max_tokens: 8, ..request() };
        let (tokens, _) = completion(&mut executor, &greedy).unwrap();
        let words = vec![vec![15, 15, 15, 15, 15], tokens[1..3].to_vec()];
        let (stopped, _) =
            completion(&mut executor, &Request { stop_words: words, ..greedy }).unwrap();
        assert!(stopped.len() <= 3 && tokens.starts_with(&stopped), "{tokens:?} {stopped:?}");
    }
}

#[test]
fn wrong_names_formats_and_lengths_are_refused_and_change_nothing() {
    for library in libraries() {
        let mut executor = open(library, &EngineDir::with(&[])).unwrap();
        let before = completion(&mut executor, &request()).unwrap();
        let lease = Lease::default();
        let memory = |values: usize| Memory::from_vec(vec![0.5f32; values], &lease);
        let name = "transformer.ln_f.weight";
        refused(executor.bind("no.such.tensor", DataType::F32, &memory(8)), "bind");
        refused(executor.bind("a\0b", DataType::F32, &memory(8)), "bind");
        refused(executor.bind(name, DataType::F16, &memory(4)), "bind");
        refused(executor.bind(name, DataType::Other(77), &memory(8)), "bind");
        refused(executor.bind(name, DataType::F32, &memory(7)), "bind");
        refused(executor.bind(name, DataType::F32, &memory(0)), "bind");
        let odd = Memory::from_vec(vec![0u8; 33], &lease);
        assert!(refused(executor.bind(name, DataType::F32, &odd), "bind").contains("33 bytes"));
        assert_eq!(completion(&mut executor, &request()).unwrap(), before);
    }
}

#[test]
fn a_refit_in_place_needs_a_captured_engine() {
    for library in libraries() {
        let folder = EngineDir::with(&[]);
        let options = ExecutorOptions { capture_engine: false, ..options() };
        let mut executor = Executor::open(library, folder.path(), &options).unwrap();
        assert!(refused(executor.weights(), "weights").contains("capture_engine"));
    }
}

#[test]
#[should_panic(expected = "is bound to memory whose lease is not among the readings")]
fn a_commit_without_the_reading_of_a_bound_memory_panics() {
    let mut plan = Plan::load(Library::Double, &EngineDir::with(&[]).plan()).unwrap();
    let (all, _reading) = new_values(1);
    plan.bind(all[0].0, DataType::F32, &all[0].1).unwrap();
    let other = Lease::default().read(Duration::ZERO).unwrap();
    let _ = plan.commit(&[&other]);
}
