//! Configurations and engine directories, whole and spoiled.

use std::{fs, path::PathBuf};

use serde_json::{Value, json};

use super::*;
use crate::model::RopeScaling;

/// An engine directory that goes away with the value.
struct Home {
    dir: tempfile::TempDir,
    policy: ModelSpec,
}

impl Home {
    fn of(policy: &ModelSpec, layout: &Layout) -> Self {
        let home = Self { dir: tempfile::tempdir().unwrap(), policy: policy.clone() };
        let config = json!({
            "version": "1.2.1",
            "pretrained_config": config_json(policy, layout, policy.dtype),
            "build_config": {
                "max_input_len": 32,
                "max_seq_len": 64,
                "max_batch_size": 8,
                "max_num_tokens": 512,
                "use_refit": true,
                "kv_cache_type": "PAGED",
                "plugin_config": {"use_fused_mlp": true, "gemm_plugin": "auto"},
            },
        });
        fs::write(home.config(), config.to_string()).unwrap();
        for rank in 0..layout.tensor_parallel {
            fs::write(home.dir.path().join(format!("rank{rank}.engine")), "plan").unwrap();
        }
        home
    }

    fn config(&self) -> PathBuf {
        self.dir.path().join("config.json")
    }

    fn edit(&self, pointer: &str, value: Value) {
        let mut config: Value = serde_json::from_slice(&fs::read(self.config()).unwrap()).unwrap();
        let (parent, key) = pointer.rsplit_once('/').unwrap();
        config.pointer_mut(parent).unwrap()[key] = value;
        fs::write(self.config(), config.to_string()).unwrap();
    }

    fn open(&self) -> EngineDir {
        EngineDir::open(self.dir.path()).unwrap()
    }

    /// What is said when the directory is opened and checked.
    fn complaint(&self, wanted: &Wanted) -> String {
        let checked = EngineDir::open(self.dir.path()).and_then(|e| e.check(&self.policy, wanted));
        let message = checked.unwrap_err().to_string();
        assert!(!message.contains('\n'), "{message}");
        message.replace(&self.dir.path().display().to_string(), "DIR")
    }
}

const WANTED: Wanted = Wanted {
    input_len: 32,
    seq_len: 64,
    batch_size: 8,
    dtype: Some(Dtype::F32),
    tensor_parallel: Some(1),
    refit: true,
};

#[test]
fn a_model_survives_its_configuration() {
    let llama3 = RopeScaling::Llama3 {
        factor: 8.0,
        low_freq_factor: 1.0,
        high_freq_factor: 4.0,
        original_max_position_embeddings: 32,
    };
    let scalings = [None, Some(RopeScaling::Linear { factor: 2.0 }), Some(llama3)];
    let splits = [EmbeddingSplit::Replicated, EmbeddingSplit::Vocabulary, EmbeddingSplit::Hidden];
    for (spec, rope_scaling) in families().into_iter().zip(scalings.into_iter().cycle()) {
        for embedding in splits {
            let spec = ModelSpec { rope_scaling: rope_scaling.clone(), ..spec.clone() };
            let layout = Layout { embedding, ..Layout::checkpoint(2) };
            let engine = Home::of(&spec, &layout).open();
            assert_eq!(engine.pretrained, Pretrained { spec: spec.clone(), layout });
            engine.check(&spec, &Wanted { tensor_parallel: None, ..WANTED }).unwrap();
            assert_eq!(engine.engine_bytes, [4, 4]);
        }
    }
}

#[test]
fn the_qwens_are_told_apart_by_type_or_by_name() {
    let home = Home::of(&families()[3], &Layout::checkpoint(1));
    home.edit("/pretrained_config/architecture", json!("QWenForCausalLM"));
    assert_eq!(home.open().pretrained.spec.family, Family::Qwen3);
    home.edit("/pretrained_config/qwen_type", json!("qwen2_moe"));
    assert_eq!(
        home.complaint(&WANTED),
        "DIR/config.json: qwen_type \"qwen2_moe\" is not supported; supported: qwen2, qwen3"
    );
    home.edit("/pretrained_config/qwen_type", Value::Null);
    home.edit("/pretrained_config/architecture", json!("Qwen3ForCausalLM"));
    assert_eq!(home.open().pretrained.spec.family, Family::Qwen3);
}

#[test]
fn an_engine_of_another_model_is_refused_by_key() {
    for (key, value, rule) in [
        ("vocab_size", json!(38), "37, as the policy's, got 38"),
        ("num_hidden_layers", json!(3), "2, as the policy's, got 3"),
        ("num_attention_heads", json!(4), "8, as the policy's, got 4"),
        ("num_key_value_heads", json!(4), "2, as the policy's, got 4"),
        ("intermediate_size", json!(44), "40, as the policy's, got 44"),
        ("hidden_size", json!(48), "24, as the policy's, got 48"),
        ("mlp_bias", json!(false), "true, as the policy's, got false"),
        ("norm_epsilon", json!(1e-6), "0.00001, as the policy's, got 0.000001"),
        ("rotary_base", json!(5e5), "10000, as the policy's, got 500000"),
        (
            "rotary_scaling",
            json!({"type": "linear", "factor": 2.0}),
            "None, as the policy's, got Some(Linear { factor: 2.0 })",
        ),
        ("dtype", json!("bfloat16"), "f32, got bf16"),
    ] {
        let home = Home::of(&llama(), &Layout::checkpoint(1));
        home.edit(&format!("/pretrained_config/{key}"), value);
        let expected = format!("DIR/config.json: pretrained_config.{key} must be {rule}");
        assert_eq!(home.complaint(&WANTED), expected);
    }
}

#[test]
fn an_engine_for_smaller_work_is_refused_by_key() {
    let home = Home::of(&llama(), &Layout::checkpoint(1));
    home.open().check(&llama(), &WANTED).unwrap();
    for (wanted, complaint) in [
        (Wanted { input_len: 33, ..WANTED }, "max_input_len must be at least 33, got 32"),
        (Wanted { seq_len: 65, ..WANTED }, "max_seq_len must be at least 65, got 64"),
        (Wanted { batch_size: 9, ..WANTED }, "max_batch_size must be at least 9, got 8"),
    ] {
        let expected = format!("DIR/config.json: build_config.{complaint}");
        assert_eq!(home.complaint(&wanted), expected);
    }
    let two = Wanted { tensor_parallel: Some(2), ..WANTED };
    let expected = "DIR/config.json: pretrained_config.mapping.tp_size must be 2, got 1";
    assert_eq!(home.complaint(&two), expected);
    home.edit("/build_config/use_refit", json!(false));
    home.open().check(&llama(), &Wanted { refit: false, ..WANTED }).unwrap();
    assert_eq!(
        home.complaint(&WANTED),
        "DIR/config.json: build_config.use_refit must be true, so that the policy's weights can be put in, got false"
    );
}

#[test]
fn engines_we_cannot_compute_are_refused() {
    for (key, value, complaint) in [
        ("hidden_act", json!("gelu"), "hidden_act \"gelu\" is not supported; supported: silu"),
        (
            "architecture",
            json!("GPTForCausalLM"),
            "architecture \"GPTForCausalLM\" is not supported; supported: LlamaForCausalLM, MistralForCausalLM, \
             Qwen2ForCausalLM, Qwen3ForCausalLM",
        ),
        (
            "quantization",
            json!({"quant_algo": "FP8"}),
            "quant_algo \"FP8\" is not supported; supported: null: f32, f16 and bf16 weights",
        ),
        (
            "mapping",
            json!({"tp_size": 1, "pp_size": 2}),
            "pp_size 2 is not supported; supported: 1: tensor parallelism alone",
        ),
        (
            "hidden_size",
            json!(1u64 << 60),
            "hidden_size must be a whole number from 1 to 1048576, got 1152921504606846976",
        ),
        (
            "num_attention_heads",
            json!(0),
            "num_attention_heads must be a whole number from 1 to 1048576, got 0",
        ),
        ("head_size", json!(7), "rotary_embedding_dim must be head_size (7), got 6"),
        ("moe", json!({"num_experts": 8}), "num_experts 8 is not supported; supported: 0"),
        (
            "dtype",
            json!("float8"),
            "dtype \"float8\" is not supported; supported: float32, float16, bfloat16",
        ),
        ("vocab_size", Value::Null, "vocab_size is missing"),
    ] {
        let home = Home::of(&llama(), &Layout::checkpoint(1));
        home.edit("/pretrained_config/rotary_embedding_dim", json!(6));
        home.edit(&format!("/pretrained_config/{key}"), value);
        assert_eq!(home.complaint(&WANTED), format!("DIR/config.json: {complaint}"));
    }
}

#[test]
fn damaged_directories_are_refused_by_file() {
    let home = Home::of(&llama(), &Layout::checkpoint(2));
    let engine = home.dir.path().join("rank1.engine");
    fs::write(&engine, "").unwrap();
    assert_eq!(home.complaint(&WANTED), "DIR/rank1.engine: must be a file that is not empty");
    fs::remove_file(engine).unwrap();
    assert!(home.complaint(&WANTED).starts_with("cannot open DIR/rank1.engine: "));
    fs::write(home.config(), "{}").unwrap();
    assert_eq!(home.complaint(&WANTED), "DIR/config.json: pretrained_config is missing");
    fs::write(home.config(), "{\"pretrained_config").unwrap();
    assert!(home.complaint(&WANTED).starts_with("DIR/config.json: is not JSON: "));
    fs::remove_file(home.config()).unwrap();
    assert_eq!(home.complaint(&WANTED), "DIR/config.json: is missing");
}

#[test]
fn what_an_engine_holds_is_told_by_its_names() {
    let tied = ModelSpec { tie_word_embeddings: true, ..llama() };
    let alone = Layout::checkpoint(1);
    assert!(alone.engine(&tied, true).share_embedding);
    assert!(!alone.engine(&llama(), true).share_embedding);
    assert!(!Layout::checkpoint(2).engine(&tied, true).share_embedding);
    for layout in [alone.engine(&tied, true), alone.engine(&tied, false), alone] {
        let names: Vec<String> =
            tensors(&tied, &layout, 0).unwrap().into_iter().map(|mapped| mapped.name).collect();
        assert_eq!(alone.as_named(names.iter().map(String::as_str)), layout);
    }
}
