//! Who outlives whom.

use std::{fs, sync::Arc, thread};

use memmap2::Mmap;

use super::*;

/// New values for one tensor in a memory map, whose owners can be counted.
fn mapped(folder: &EngineDir, (name, count): (&str, usize), lease: &Lease) -> (Arc<Mmap>, Memory) {
    let file = folder.path().join("values");
    let bytes: Vec<u8> =
        values(name, count, 1).iter().flat_map(|value| value.to_le_bytes()).collect();
    fs::write(&file, bytes).unwrap();
    let map = Memory::map_file(&file).unwrap();
    let memory = Memory::from_map(map.clone(), 0..4 * count, lease);
    (map, memory)
}

/// Binds, lets go of the memory, binds anew, and ends: the first memory must live to the second, the second to the end.
fn bound_memory_is_kept(mut engine: impl Bindable, folder: &EngineDir) {
    let lease = Lease::default();
    let reading = lease.read(Duration::ZERO).unwrap();
    let tensor = TENSORS[3];
    let (first, memory) = mapped(folder, tensor, &lease);
    engine.bind(tensor.0, DataType::F32, &memory).unwrap();
    drop(memory);
    assert_eq!(Arc::strong_count(&first), 2, "a refit may still read it");
    engine.commit(&[&reading]).unwrap();
    engine.commit(&[&reading]).unwrap();
    let (second, memory) = mapped(folder, tensor, &lease);
    assert!(engine.bind(tensor.0, DataType::F16, &memory).is_err());
    assert_eq!((Arc::strong_count(&first), Arc::strong_count(&second)), (2, 2));
    engine.bind(tensor.0, DataType::F32, &memory).unwrap();
    drop(memory);
    assert_eq!((Arc::strong_count(&first), Arc::strong_count(&second)), (1, 2));
    engine.commit(&[&reading]).unwrap();
    drop(engine);
    assert_eq!(Arc::strong_count(&second), 1);
}

#[test]
fn bound_memory_lives_until_bound_anew_or_until_the_engine_ends() {
    for library in libraries() {
        let folder = EngineDir::with(&[]);
        bound_memory_is_kept(open(library, &folder).unwrap(), &folder);
        bound_memory_is_kept(Plan::load(library, &folder.plan()).unwrap(), &folder);
    }
}

#[test]
fn memory_is_kept_after_a_failure_that_may_have_taken_it() {
    let folder = EngineDir::with(&["bind 1 throw"]);
    let mut executor = open(Library::Double, &folder).unwrap();
    let lease = Lease::default();
    let (map, memory) = mapped(&folder, TENSORS[3], &lease);
    executor.bind(TENSORS[3].0, DataType::F32, &memory).unwrap_err();
    drop(memory);
    assert_eq!(Arc::strong_count(&map), 2);
    drop(executor);
    assert_eq!(Arc::strong_count(&map), 1);
}

#[test]
fn an_executor_ends_with_requests_in_flight_and_weights_bound() {
    for library in libraries() {
        let folder = EngineDir::with(&[]);
        let mut executor = open(library, &folder).unwrap();
        let (all, _reading) = new_values(1);
        executor.bind(all[1].0, DataType::F32, &all[1].1).unwrap();
        for _ in 0..8 {
            executor.enqueue(&Request { max_tokens: 50, ..request() }).unwrap();
        }
        drop(all);
        drop(executor);
    }
}

#[test]
fn engines_opened_twice_are_two() {
    for library in libraries() {
        let folder = EngineDir::with(&[]);
        let (mut one, mut other) =
            (open(library, &folder).unwrap(), open(library, &folder).unwrap());
        let before = completion(&mut one, &request()).unwrap();
        refit(&mut one, 1).unwrap();
        assert_eq!(completion(&mut other, &request()).unwrap(), before);
        drop(one);
        assert_eq!(completion(&mut other, &request()).unwrap(), before);
    }
}

#[test]
fn an_executor_moves_between_threads() {
    for library in libraries() {
        let folder = EngineDir::with(&[]);
        let mut executor = thread::spawn(move || open(library, &folder).unwrap()).join().unwrap();
        executor.enqueue(&request()).unwrap();
        let mut executor = thread::spawn(move || {
            drain(&mut executor, 1).unwrap();
            executor.weights().unwrap();
            executor
        })
        .join()
        .unwrap();
        refit(&mut executor, 1).unwrap();
        thread::spawn(move || drop(executor)).join().unwrap();
    }
}

#[test]
fn a_failure_belongs_to_the_thread_that_had_it() {
    for library in libraries() {
        let folder = EngineDir::with(&[]);
        thread::scope(|scope| {
            for name in ["first", "second", "third"] {
                scope.spawn(move || {
                    for _ in 0..50 {
                        let missing = std::path::PathBuf::from(format!("/no/such/{name}"));
                        let error = Executor::open(library, &missing, &options()).unwrap_err();
                        assert!(error.message.contains(name), "{error}");
                    }
                });
            }
        });
        assert!(open(library, &folder).is_ok());
    }
}
