//! A [`ModelSpec`] into the `config.json` that transformers reads, 4.43 and later as well as 5.

use serde_json::{Map, Value, json};

use super::{Family, GenerationConfig, Head, ModelSpec, RopeScaling};
use crate::rollout::Dtype;

/// Returns the `config.json` of a model whose weights are in `dtype`.
pub(super) fn to_json(spec: &ModelSpec, dtype: Dtype, ids: &GenerationConfig) -> Value {
    let mut config = json!({
        "architectures": [spec.family.architecture(spec.head)],
        "model_type": spec.family.model_type(),
        "hidden_size": spec.hidden_size,
        "intermediate_size": spec.intermediate_size,
        "num_hidden_layers": spec.num_layers,
        "num_attention_heads": spec.num_heads,
        "num_key_value_heads": spec.num_kv_heads,
        "head_dim": spec.head_dim,
        "vocab_size": spec.vocab_size,
        "max_position_embeddings": spec.max_positions,
        "hidden_act": "silu",
        "rms_norm_eps": spec.rms_norm_eps,
        "attention_dropout": 0.0,
        "initializer_range": 0.02,
        "tie_word_embeddings": spec.tie_word_embeddings,
        "use_cache": true,
        "dtype": dtype_name(dtype),
        "torch_dtype": dtype_name(dtype),
    });
    let mut put = |key: &str, value: Value| config[key] = value;
    put_rope(spec, &mut put);
    put_family(spec, &mut put);
    if spec.head == Head::Score {
        let names = spec.label_names();
        let numbered = || names.iter().enumerate();
        let by_number: Map<String, Value> =
            numbered().map(|(n, name)| (n.to_string(), json!(name))).collect();
        let by_name: Map<String, Value> =
            numbered().map(|(n, name)| (name.clone(), json!(n))).collect();
        put("num_labels", json!(names.len()));
        put("id2label", by_number.into());
        put("label2id", by_name.into());
        // Else transformers takes several labels for classes.
        put("problem_type", json!("regression"));
    }
    // Absent ids must not become the class's defaults (1 and 2 for Llama), hence null.
    for key in ["bos_token_id", "eos_token_id", "pad_token_id"] {
        put(key, ids.id_entries().remove(key).unwrap_or(Value::Null));
    }
    config
}

fn put_rope(spec: &ModelSpec, put: &mut impl FnMut(&str, Value)) {
    let scaling = scaling(spec);
    put("rope_theta", json!(spec.rope_theta));
    put("rope_scaling", spec.rope_scaling.as_ref().map_or(Value::Null, |_| scaling.clone()));
    let mut parameters = scaling;
    parameters["rope_theta"] = json!(spec.rope_theta);
    put("rope_parameters", parameters);
}

/// Returns how the rotary frequencies are stretched, as an object.
pub(super) fn scaling(spec: &ModelSpec) -> Value {
    match &spec.rope_scaling {
        None => json!({"rope_type": "default"}),
        Some(RopeScaling::Linear { factor }) => json!({"rope_type": "linear", "factor": factor}),
        Some(RopeScaling::Llama3 {
            factor,
            low_freq_factor,
            high_freq_factor,
            original_max_position_embeddings,
        }) => json!({
            "rope_type": "llama3",
            "factor": factor,
            "low_freq_factor": low_freq_factor,
            "high_freq_factor": high_freq_factor,
            "original_max_position_embeddings": original_max_position_embeddings,
        }),
    }
}

fn put_family(spec: &ModelSpec, put: &mut impl FnMut(&str, Value)) {
    match spec.family {
        Family::Llama => {
            put("attention_bias", json!(spec.qkv_bias));
            put("mlp_bias", json!(spec.mlp_bias));
        }
        Family::Mistral => put("sliding_window", json!(spec.sliding_window)),
        Family::Qwen2 | Family::Qwen3 => {
            let windowed = spec.sliding_window.is_some();
            put("use_sliding_window", json!(windowed));
            put("sliding_window", json!(spec.sliding_window));
            put("max_window_layers", json!(if windowed { 0 } else { spec.num_layers }));
            if spec.family == Family::Qwen3 {
                put("attention_bias", json!(spec.qkv_bias));
            }
        }
    }
}

/// Returns torch's name of a number format.
pub(super) fn dtype_name(dtype: Dtype) -> &'static str {
    match dtype {
        Dtype::F32 => "float32",
        Dtype::F16 => "float16",
        Dtype::Bf16 => "bfloat16",
    }
}
