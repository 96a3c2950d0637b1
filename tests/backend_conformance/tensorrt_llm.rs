//! What only the TensorRT-LLM backend does.

use rollforge::{
    engine::{
        BackendKind, Engine, EngineConfig, EngineModel, RefitMode, RefitTier, SamplingParams,
        tensorrt_llm::DoubleBuild,
    },
    rollout::Dtype,
};

use crate::world::{Kind, assert_alike, greedy, requests, sampling, version, write_engine};

/// The backend, over the double and over the stand-in.
const KINDS: &[Kind] = &[
    Kind::Double,
    #[cfg(not(trtllm_linked))]
    Kind::StandIn,
];

#[test]
fn a_refit_changes_every_seed() {
    let model = EngineModel::tiny(1);
    let asked = || requests(4, &sampling(|_| {}));
    for kind in KINDS {
        let world = kind.open(&model, |_| {});
        let before = world.rollouts(asked());
        world.engine.blocking().refit(&version(&model.weights, 1), RefitMode::Alias).unwrap();
        let after = world.rollouts(asked());
        assert!(before.iter().zip(&after).all(|(a, b)| a.completion != b.completion));
    }
}

#[test]
fn an_engine_in_another_number_format_is_converted_to() {
    let (old, new) = (EngineModel::tiny(1), EngineModel::tiny(2));
    let wanted = Kind::Native.open(&new, |c| c.dtype = rollforge::engine::EngineDtype::Bf16);
    let wanted = wanted.rollouts(requests(4, &greedy()));
    let dir = tempfile::tempdir().unwrap();
    write_engine(dir.path(), &old, &DoubleBuild { dtype: Dtype::Bf16, ..DoubleBuild::default() });
    let mut config = config(dir.path());
    config.tensorrt_llm.double = true;
    let engine = Engine::builder().config(config).model(old).build().unwrap();
    let report = engine.blocking().refit(&version(&new.weights, 1), RefitMode::Alias).unwrap();
    // Nothing could be read where it lay.
    assert_eq!(report.bytes, new.weights.bytes() / 2);
    let got = engine.blocking().generate_all(requests(4, &greedy())).unwrap();
    for (got, wanted) in got.iter().zip(&wanted) {
        let (got, wanted) = (got.raw_logprobs.as_ref(), wanted.raw_logprobs.as_ref());
        assert!((got.unwrap()[0] - wanted.unwrap()[0]).abs() < 0.1);
    }
}

#[test]
fn only_what_must_be_is_copied() {
    let model = EngineModel::tiny(1);
    for kind in KINDS {
        let world = kind.open(&model, |_| {});
        let bytes = |mode, number| {
            let weights = version(&model.weights, number);
            world.engine.blocking().refit(&weights, mode).unwrap().bytes
        };
        // q, k and v lie apart in this model; the rest is read where it lies.
        let qkv = (32 + 16 + 16) * 32 * 4 * 2;
        assert_eq!(bytes(RefitMode::Alias, 1), qkv);
        assert_eq!(bytes(RefitMode::Copy, 2), model.weights.bytes());
    }
}

#[test]
fn constants_that_the_build_left_beside_the_engine_are_put_in_too() {
    let model = EngineModel::tiny(1);
    let wanted = Kind::Native.open(&model, |_| {}).rollouts(requests(4, &greedy()));
    let got = |frequencies: Vec<f32>| {
        let dir = tempfile::tempdir().unwrap();
        write_engine(dir.path(), &model, &DoubleBuild::default());
        let bytes: Vec<u8> = frequencies.iter().flat_map(|f| f.to_le_bytes()).collect();
        let dtype = safetensors::Dtype::F32;
        let tensor = safetensors::tensor::TensorView::new(dtype, vec![frequencies.len()], &bytes);
        // Also one that no refit can bind: it is passed over.
        let whole = safetensors::tensor::TensorView::new(safetensors::Dtype::I64, vec![1], &[0; 8]);
        let tensors = [("rotary_inv_freq", tensor.unwrap()), ("position_ids", whole.unwrap())];
        let file = dir.path().join("fixed_weights.safetensors");
        safetensors::serialize_to_file(tensors, None, &file).unwrap();
        let mut config = config(dir.path());
        config.tensorrt_llm.double = true;
        let engine = Engine::builder().config(config).model(model.clone()).build().unwrap();
        assert!(!engine.take_notes().join("\n").contains("constants of the network"));
        engine.blocking().generate_all(requests(4, &greedy())).unwrap()
    };
    assert_alike(&got(model.spec.rope_frequencies()), &wanted);
    // Without rotation no position differs from another.
    let still = got(vec![0.0; model.spec.head_dim / 2]);
    assert_ne!(still[0].raw_logprobs, wanted[0].raw_logprobs);
}

#[test]
fn a_rebuilt_engine_computes_with_the_new_weights() {
    let (old, new) = (EngineModel::tiny(1), EngineModel::tiny(2));
    let wanted = Kind::Native.open(&new, |_| {}).rollouts(requests(4, &greedy()));
    for kind in KINDS {
        let world = kind.open(&old, |c| c.tensorrt_llm.refit = RefitTier::Rebuild);
        let notes = world.engine.take_notes().join("\n");
        assert!(notes.contains("refits rebuild the engine from its plan"), "{notes}");
        world.engine.blocking().refit(&version(&new.weights, 1), RefitMode::Alias).unwrap();
        assert_alike(&world.rollouts(requests(4, &greedy())), &wanted);
    }
}

#[test]
fn an_engine_that_cannot_be_refitted_in_place_is_rebuilt() {
    let (old, new) = (EngineModel::tiny(1), EngineModel::tiny(2));
    let wanted = Kind::Native.open(&new, |_| {}).rollouts(requests(4, &greedy()));
    let world = Kind::Double.try_open(&old, &["lacks refit_in_place"], |_| {}).unwrap();
    let notes = world.engine.take_notes().join("\n");
    assert!(notes.contains("cannot be refitted in place"), "{notes}");
    world.engine.blocking().refit(&version(&new.weights, 1), RefitMode::Alias).unwrap();
    assert_alike(&world.rollouts(requests(4, &greedy())), &wanted);
}

#[test]
fn an_engine_without_use_refit_serves_what_it_was_built_with() {
    let model = EngineModel::tiny(1);
    let wanted = Kind::Native.open(&model, |_| {}).rollouts(requests(4, &greedy()));
    let world = Kind::Double.try_open(&model, &["refittable 0"], |_| {}).unwrap();
    assert!(world.engine.take_notes().join("\n").contains("built without use_refit"));
    assert_alike(&world.rollouts(requests(4, &greedy())), &wanted);
    let refit = world.engine.blocking().refit(&version(&model.weights, 1), RefitMode::Alias);
    assert!(refit.unwrap_err().to_string().contains("built without use_refit"));
    assert_alike(&world.rollouts(requests(4, &greedy())), &wanted);
}

#[test]
fn shared_blocks_are_kept_from_other_versions() {
    let (old, new) = (EngineModel::tiny(1), EngineModel::tiny(2));
    let wanted = Kind::Native.open(&new, |_| {}).rollouts(requests(29, &greedy()));
    for kind in KINDS {
        let world = kind.open(&old, |c| c.tensorrt_llm.block_reuse = true);
        world.rollouts(requests(29, &greedy()));
        world.engine.blocking().refit(&version(&new.weights, 1), RefitMode::Alias).unwrap();
        assert_alike(&world.rollouts(requests(29, &greedy())), &wanted);
    }
}

#[test]
fn prompts_are_not_scored() {
    for kind in KINDS {
        let world = kind.open(&EngineModel::tiny(1), |_| {});
        let error = world.engine.blocking().score(vec![1, 2, 3]).unwrap_err();
        assert!(error.to_string().starts_with("prompt_logprobs must be false"), "{error}");
    }
}

#[test]
fn log_probs_of_a_tempered_distribution_are_its_own() {
    let model = EngineModel::tiny(1);
    let tempered: SamplingParams = sampling(|s| (s.temperature, s.max_new_tokens) = (0.5, 1));
    let world = Kind::Double.open(&model, |_| {});
    let got = world.rollouts(requests(4, &tempered));
    let native = Kind::Native.open(&model, |_| {});
    for rollout in got {
        let prompt = rollout.prompt.tokens.ids();
        let score = |token: u32| {
            let sequence = [prompt, &[token]].concat();
            *native.engine.blocking().score(sequence).unwrap().last().unwrap()
        };
        let all: Vec<f64> = (0..257).map(|token| f64::from(score(token)) / 0.5).collect();
        let sum: f64 = all.iter().map(|score| score.exp()).sum();
        let wanted = all[rollout.completion[0] as usize] - sum.ln();
        assert!((f64::from(rollout.rollout_logprobs[0]) - wanted).abs() < 1e-3);
    }
}

fn config(dir: &std::path::Path) -> EngineConfig {
    let mut config =
        EngineConfig { backend: BackendKind::TensorRtLlm, max_batch: 4, ..EngineConfig::default() };
    config.tensorrt_llm.engine_dir = Some(dir.to_owned());
    config
}

#[test]
fn the_double_is_never_chosen_silently_and_says_what_it_is() {
    let dir = tempfile::tempdir().unwrap();
    let model = EngineModel::tiny(1);
    write_engine(dir.path(), &model, &DoubleBuild::default());
    let silent = Engine::builder().config(config(dir.path())).model(model.clone()).build();
    if !cfg!(trtllm_linked) {
        let error = silent.err().unwrap().to_string();
        assert!(error.starts_with("TensorRT-LLM is not linked into this build"), "{error}");
    }
    let mut config = config(dir.path());
    config.tensorrt_llm.double = true;
    let engine = Engine::builder().config(config).model(model).build().unwrap();
    let notes = engine.take_notes();
    assert!(
        notes[0].contains("double") && notes[0].contains("in place of TensorRT-LLM"),
        "{notes:?}"
    );
}

#[test]
fn an_engine_of_another_model_is_refused_before_it_is_loaded() {
    let dir = tempfile::tempdir().unwrap();
    let model = EngineModel::tiny(1);
    write_engine(dir.path(), &model, &DoubleBuild::default());
    let refused = |change: &dyn Fn(&mut EngineModel, &mut EngineConfig)| {
        let (mut model, mut config) = (model.clone(), config(dir.path()));
        config.tensorrt_llm.double = true;
        change(&mut model, &mut config);
        let error = Engine::builder().config(config).model(model).build().err().unwrap();
        let text = error.to_string();
        assert!(!text.contains('\n'), "{text}");
        text
    };
    let layers = refused(&|model, _| model.spec.num_layers = 3);
    assert!(
        layers.contains("pretrained_config.num_hidden_layers must be 3, as the policy's, got 2")
    );
    let dtype = refused(&|_, config| config.dtype = rollforge::engine::EngineDtype::Bf16);
    assert!(dtype.contains("pretrained_config.dtype"), "{dtype}");
    let none = refused(&|_, config| config.tensorrt_llm.engine_dir = None);
    assert!(
        none.starts_with("tensorrt_llm.engine_dir must be the directory of an engine"),
        "{none}"
    );
    let gone = refused(&|_, config| config.tensorrt_llm.engine_dir = Some("no/such/engine".into()));
    assert!(gone.contains("no/such/engine"), "{gone}");
    std::fs::write(dir.path().join("rank0.engine"), "rollforge-double-plan 1\nnonsense 3\n")
        .unwrap();
    let damaged = refused(&|_, _| {});
    assert!(damaged.contains("rank0.engine") && damaged.contains("line 2"), "{damaged}");
}

#[test]
fn an_engine_with_other_tensors_is_refused_and_all_are_named() {
    let model = EngineModel::tiny(1);
    // The directory and the plan do not say the same.
    let dir = tempfile::tempdir().unwrap();
    write_engine(dir.path(), &model, &DoubleBuild::default());
    let config_path = dir.path().join("config.json");
    let text = std::fs::read_to_string(&config_path).unwrap();
    std::fs::write(&config_path, text.replace("\"dtype\": \"float32\"", "\"dtype\": \"bfloat16\""))
        .unwrap();
    let mut config = config(dir.path());
    config.tensorrt_llm.double = true;
    let error = Engine::builder().config(config).model(model).build().err().unwrap();
    let text = error.to_string();
    assert!(
        text.starts_with("the list of tensors: the engine's tensors are not the policy's"),
        "{text}"
    );
    assert!(text.contains("transformer.vocab_embedding.weight must be Bf16, got F32"), "{text}");
}
