//! From a model directory to an engine directory, and the second time from the cache.

use std::{fs, path::Path, time::Duration};

use super::Stand;
use crate::{
    engine::EngineModel,
    model::{Companions, ModelSpec, tensorrt_llm::EngineDir, write_model},
    rollout::Dtype,
    run::engine_build::{Built, Cache, EngineBuild, Limits, Product, Sizes, build},
};

/// Writes a small model and returns what to ask for.
fn request(stand: &Stand) -> EngineBuild {
    let model = EngineModel::tiny(1);
    let folder = stand.path("model");
    write_model(&folder, &model.spec, &model.weights, &Companions::default()).unwrap();
    EngineBuild {
        model: folder,
        out: stand.path("out/engine"),
        dtype: Dtype::Bf16,
        tensor_parallel: 2,
        fused_mlp: true,
        sizes: Sizes { max_batch: Some(4), ..Sizes::default() },
        product: Product::Engine {
            python: stand.python(),
            cache: Some(Cache::new(stand.path("cache"), Duration::ZERO)),
            deadline: Duration::from_secs(60),
        },
    }
}

fn run(request: &EngineBuild) -> anyhow::Result<Built> {
    build(request, &mut |_| ())
}

fn names(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let mut names: Vec<String> =
        entries.map(|entry| entry.file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

#[test]
fn a_model_becomes_an_engine_that_fits_it() {
    let stand = Stand::new();
    let request = request(&stand);
    let built = run(&request).unwrap();
    assert_eq!(built, Built { path: request.out.clone(), cached: None });
    assert_eq!(
        names(&request.out),
        [
            "build.log",
            "config.json",
            "fixed_weights.safetensors",
            "rank0.engine",
            "rank1.engine",
            "recipe.json"
        ]
    );
    assert_eq!(names(&stand.path("out")), ["engine"], "the checkpoint and the log are gone");
    let engine = EngineDir::open(&request.out).unwrap();
    assert_eq!(
        (engine.pretrained.spec.dtype, engine.pretrained.layout.tensor_parallel),
        (Dtype::Bf16, 2)
    );
    assert_eq!((engine.build.max_batch_size, engine.build.max_seq_len), (4, 256));
    assert!(engine.build.use_refit && engine.build.use_fused_mlp);
}

#[test]
fn the_second_build_of_the_same_shape_comes_from_the_cache() {
    let stand = Stand::new();
    let mut request = request(&stand);
    run(&request).unwrap();
    // Weights are no part of what is built: another policy of the same shape takes the same engine.
    fs::remove_dir_all(&request.model).unwrap();
    let other = EngineModel::tiny(2);
    write_model(&request.model, &other.spec, &other.weights, &Companions::default()).unwrap();
    fs::write(stand.path("explode"), "").unwrap();
    request.out = stand.path("again");
    let again = run(&request).unwrap();
    assert!(again.cached.is_some());
    assert_eq!(names(&request.out), names(&stand.path("out/engine")));

    request.out = stand.path("larger");
    request.sizes.max_batch = Some(5);
    assert!(run(&request).unwrap_err().to_string().contains("out of memory at layer 3"));
    assert!(!request.out.exists());
    assert_eq!(Cache::new(stand.path("cache"), Duration::ZERO).keys().len(), 1);
}

#[test]
fn without_a_cache_nothing_is_kept() {
    let stand = Stand::new();
    let mut request = request(&stand);
    if let Product::Engine { cache, .. } = &mut request.product {
        *cache = None;
    }
    run(&request).unwrap();
    assert!(!stand.path("cache").exists());
}

#[test]
fn a_build_that_fails_leaves_its_log_alone() {
    let stand = Stand::new();
    let request = request(&stand);
    fs::write(stand.path("explode"), "").unwrap();
    let error = run(&request).unwrap_err().to_string();
    let log = stand.path("out/engine.build.log");
    assert!(error.ends_with(&format!("(all of it: {})", log.display())), "{error}");
    assert_eq!(names(&stand.path("out")), ["engine.build.log"]);
    fs::remove_file(stand.path("explode")).unwrap();
    run(&request).unwrap();
    assert_eq!(names(&stand.path("out")), ["engine"]);
}

#[test]
fn what_cannot_be_built_is_refused_before_anything_is_written() {
    let stand = Stand::new();
    let good = request(&stand);
    let refused = |request: EngineBuild| {
        let error = run(&request).unwrap_err().to_string();
        assert_eq!(error.lines().count(), 1);
        error
    };
    let said = refused(EngineBuild { tensor_parallel: 3, ..good.clone() });
    assert!(said.contains("tensor_parallel must be a divisor"), "{said}");
    let sizes = Sizes { max_seq: Some(257), ..Sizes::default() };
    let said = refused(EngineBuild { sizes, ..good.clone() });
    assert_eq!(said, "--max-seq must be from 2 to 256 (the model's context), got 257");
    let said = refused(EngineBuild { model: stand.path("nowhere"), ..good.clone() });
    assert!(said.contains("nowhere/config.json"), "{said}");
    assert!(!stand.path("out").exists());

    let mut plain = good.clone();
    if let Product::Engine { python, .. } = &mut plain.product {
        *python = super::Python::default();
    }
    assert!(refused(plain).contains("has no module tensorrt_llm"));
    fs::create_dir_all(&good.out).unwrap();
    fs::write(good.out.join("thesis.tex"), "years of work").unwrap();
    assert!(refused(good.clone()).contains("exists already"));
    assert_eq!(names(&good.out), ["thesis.tex"]);
}

#[test]
fn a_checkpoint_alone_needs_no_python() {
    let stand = Stand::new();
    let request = EngineBuild { product: Product::Checkpoint, ..request(&stand) };
    run(&request).unwrap();
    assert_eq!(names(&request.out), ["config.json", "rank0.safetensors", "rank1.safetensors"]);
}

#[test]
fn sizes_that_are_not_given_follow_from_the_model() {
    let spec = ModelSpec { max_positions: 2048, ..EngineModel::tiny(0).spec };
    let limits = Limits::new(&Sizes::default(), &spec).unwrap();
    let expected = Limits { max_batch: 64, max_input: 2048, max_seq: 2048, max_num_tokens: 8192 };
    assert_eq!(limits, expected);
    let said = |sizes: Sizes| Limits::new(&sizes, &spec).unwrap_err().to_string();
    let sizes = Sizes { max_input: Some(100), max_seq: Some(99), ..Sizes::default() };
    assert_eq!(said(sizes), "--max-input must be from 1 to 99 (--max-seq), got 100");
    let sizes = Sizes { max_batch: Some(8), max_num_tokens: Some(7), ..Sizes::default() };
    assert_eq!(said(sizes), "--max-num-tokens must be from 8 to 16777216, got 7");
    let sizes = Sizes { max_batch: Some(0), ..Sizes::default() };
    assert_eq!(said(sizes), "--max-batch must be from 1 to 65536, got 0");
}
