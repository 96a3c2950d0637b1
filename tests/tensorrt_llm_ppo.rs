//! PPO through TensorRT-LLM's contract: over the double it learns what it learns over the embedded engine, and a refit that
//! leaves a tensor behind stops the run.

#![cfg(all(feature = "libtorch", feature = "tensorrt-llm"))]
#![allow(clippy::unwrap_used, reason = "a test may fail")]

#[path = "support/world.rs"]
#[allow(dead_code, reason = "the tests of whole runs share it")]
mod world;

use std::{fmt::Write, fs};

use rollforge::{
    config::PpoConfig,
    engine::tensorrt_llm::{DoubleBuild, write_double_engine},
    model::Model,
    rollout::Dtype,
    run::{self, Silent, model_directory},
};
use world::{World, column, launch, ppo_of_digits};

const REVERSE: &str = "sampling.max_new_tokens = 2\nppo.kl_coef = 0.0\nppo.entropy_coef = 0.02\noptimizer.lr = 0.003\n\
                       ppo.samples_per_prompt = 4\nppo.mini_batches = 4\nppo.gamma = 0.0\n";

const DOUBLE: &str = "engine.backend = 'tensorrt-llm'\nengine.tensorrt_llm.engine_dir = 'engine'\n\
                      engine.tensorrt_llm.double = true\nengine.canary.threshold = 0.001\n";

/// Makes a model that has learned to answer two digits with any two digits, and the task to reverse them.
fn guesser() -> World {
    let world = World::new("0123456789");
    let write = |name: &str, answer: fn(usize) -> String| {
        let mut rows = String::new();
        for row in 0..100 {
            let (prompt, answer) = (format!("{row:02}"), answer(row));
            let line =
                serde_json::json!({"prompt": prompt, "completion": answer, "answer": answer});
            writeln!(rows, "{line}").unwrap();
        }
        fs::write(world.path(name), rows).unwrap();
    };
    // 37 and 100 share no factor: each answer comes once, and has nothing to do with its prompt.
    write("any.jsonl", |row| format!("{:02}", row * 37 % 100));
    write("reversed.jsonl", |row| format!("{}{}", row % 10, row / 10));
    let sft = "data.train = 'any.jsonl'\ndata.append_eos = false\nsft.epochs = 10\nsft.batch_size = 50\n\
               optimizer.lr = 0.003\n";
    world.sft("guess", "model", sft);
    world
}

/// Writes an engine of the double, of the untrained model: a refit brings the weights.
fn write_engine(world: &World, script: &[&str]) {
    let model = Model::open(&model_directory(&world.path("model"))).unwrap();
    let weights = model.checkpoint.weights(Dtype::F32).unwrap();
    let script = script.iter().map(|line| (*line).to_owned()).collect();
    let build = DoubleBuild { script, ..DoubleBuild::default() };
    write_double_engine(&world.path("engine"), model.spec(), &weights, &build).unwrap();
}

#[test]
fn the_double_learns_to_reverse_two_digits_as_the_embedded_engine_does() {
    let world = guesser();
    write_engine(&world, &[]);
    let learn = |name: &str, engine: &str| {
        let more = format!("{REVERSE}ppo.iterations = 20\n{engine}");
        world.ppo_of_digits(name, "guess", "reversed", &more);
        world.metrics(name)
    };
    let (native, double) = (learn("native", ""), learn("double", DOUBLE));
    for (name, run) in [("native", &native), ("double", &double)] {
        let scores = column(run, "objective/scores");
        let (first, last) = (scores[0], scores[scores.len() - 1]);
        assert!(first < 0.2 && last > 0.8, "{name}: {first} to {last}");
    }
    for metric in ["parity/canary_max_abs_dlogp", "parity/dlogp_max"] {
        let largest = column(&double, metric).into_iter().fold(0.0, f64::max);
        assert!(largest < 1e-3, "{metric}: {largest}");
    }
    assert!(column(&double, "sync/bytes").iter().all(|bytes| *bytes == 0.0));
    assert_eq!(column(&double, "sync/version").last(), Some(&20.0));
}

#[test]
fn a_refit_that_leaves_a_tensor_behind_stops_the_run_and_is_named() {
    let world = guesser();
    write_engine(&world, &["fault commit 0 skip:transformer.layers.1.mlp.proj.weight"]);
    let more = format!("{REVERSE}ppo.iterations = 20\n{DOUBLE}");
    let config = world.config::<PpoConfig>("skips", "guess", &ppo_of_digits("reversed", &more));
    let said = format!("{:#}", run::ppo(&config, launch(&mut Silent)).unwrap_err());
    assert!(said.contains("does not agree with the trainer"), "{said}");
    assert!(said.ends_with("refits do not reach transformer.layers.1.mlp.proj.weight"), "{said}");
}
