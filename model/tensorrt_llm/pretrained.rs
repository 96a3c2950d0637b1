//! The `config.json` of a TensorRT-LLM checkpoint, which an engine repeats as `pretrained_config`.

use serde_json::{Map, Value, json};

use super::{EmbeddingSplit, Layout};
use crate::{
    model::{
        Error, Family, Head, ModelSpec,
        config_json::{
            MOST_LAYERS, MOST_POSITIONS, MOST_VOCABULARY, MOST_WIDTH, dtype_of, scaling_of,
        },
        config_out::{dtype_name, scaling},
        error::Result,
        fields::Fields,
    },
    rollout::Dtype,
};

/// A model as TensorRT-LLM's configuration tells it.
#[derive(Clone, Debug, PartialEq)]
pub struct Pretrained {
    /// The model. TensorRT-LLM leaves the sliding window to the KV cache's settings, so there is none here; and whether
    /// the head is tied is not always said.
    pub spec: ModelSpec,
    /// The layout of its checkpoint.
    pub layout: Layout,
}

/// Reads the fields. Keys that do not matter here may hold anything.
pub(super) fn parse(fields: Fields<'_>) -> Result<Pretrained> {
    let family = family(fields)?;
    refuse_what_changes_the_model(fields)?;
    let required = |key: &str, most| fields.required_size(key, most);
    let (num_heads, hidden) =
        (required("num_attention_heads", MOST_WIDTH)?, required("hidden_size", MOST_WIDTH)?);
    let positions = required("max_position_embeddings", MOST_POSITIONS)?;
    let head_dim = fields.size("head_size", MOST_WIDTH)?.unwrap_or(hidden / num_heads);
    if fields.size("rotary_embedding_dim", MOST_WIDTH)?.is_some_and(|size| size != head_dim) {
        return Err(fields.broken("rotary_embedding_dim", &format!("head_size ({head_dim})")));
    }
    let attention_bias = flag(fields, "attn_bias", family == Family::Qwen2)?;
    let said = fields.text("dtype")?.ok_or_else(|| missing(fields, "dtype"))?;
    let rope_scaling = match fields.object("rotary_scaling")? {
        Some(rope) => scaling_of(rope, positions)?,
        None => None,
    };
    let shared = flag(fields, "share_embedding_table", false)?;
    let spec = ModelSpec {
        family,
        head: Head::LanguageModel,
        labels: Vec::new(),
        hidden_size: hidden,
        intermediate_size: required("intermediate_size", MOST_VOCABULARY)?,
        num_layers: required("num_hidden_layers", MOST_LAYERS)?,
        num_heads,
        num_kv_heads: fields.size("num_key_value_heads", MOST_WIDTH)?.unwrap_or(num_heads),
        head_dim,
        vocab_size: required("vocab_size", MOST_VOCABULARY)?,
        max_positions: positions,
        rms_norm_eps: fields.positive("norm_epsilon")?.unwrap_or(1e-5),
        rope_theta: fields.positive("rotary_base")?.unwrap_or(10_000.0),
        rope_scaling,
        sliding_window: None,
        qkv_bias: attention_bias,
        o_bias: attention_bias && family == Family::Llama,
        mlp_bias: flag(fields, "mlp_bias", false)?,
        qk_norm: family == Family::Qwen3,
        tie_word_embeddings: flag(fields, "tie_word_embeddings", shared)?,
        dtype: dtype_of(fields, "dtype", said)?,
    };
    spec.check().map_err(|problem| problem.in_file(fields.path))?;
    Ok(Pretrained { spec, layout: layout(fields)? })
}

/// Llama and Mistral are one class upstream; the Qwens are another, which asks for `qwen_type`.
fn family(fields: Fields<'_>) -> Result<Family> {
    let name = fields.text("architecture")?.ok_or_else(|| missing(fields, "architecture"))?;
    match name {
        "LlamaForCausalLM" | "LLaMAForCausalLM" => return Ok(Family::Llama),
        "MistralForCausalLM" => return Ok(Family::Mistral),
        "QWenForCausalLM" | "Qwen2ForCausalLM" | "Qwen3ForCausalLM" => {}
        _ => {
            let supported =
                "LlamaForCausalLM, MistralForCausalLM, Qwen2ForCausalLM, Qwen3ForCausalLM";
            return Err(fields.unsupported("architecture", supported));
        }
    }
    match (fields.text("qwen_type")?, name) {
        (Some("qwen2"), _) | (None, "Qwen2ForCausalLM") => Ok(Family::Qwen2),
        (Some("qwen3"), _) | (None, "Qwen3ForCausalLM") => Ok(Family::Qwen3),
        _ => Err(fields.unsupported("qwen_type", "qwen2, qwen3")),
    }
}

/// Keys that would make another model of the same sizes, or weights that are not plain numbers.
fn refuse_what_changes_the_model(fields: Fields<'_>) -> Result<()> {
    if fields.text("hidden_act")?.is_some_and(|name| name != "silu") {
        return Err(fields.unsupported("hidden_act", "silu"));
    }
    let position = fields.text("position_embedding_type")?;
    if position.is_some_and(|name| !name.ends_with("rope_gpt_neox")) {
        return Err(fields.unsupported("position_embedding_type", "rope_gpt_neox"));
    }
    if let Some(quantization) = fields.object("quantization")? {
        for key in ["quant_algo", "kv_cache_quant_algo"] {
            if quantization.get(key).is_some() {
                return Err(quantization.unsupported(key, "null: f32, f16 and bf16 weights"));
            }
        }
    }
    if let Some(moe) = fields.object("moe")?
        && moe.number("num_experts")?.is_some_and(|experts| experts != 0.0)
    {
        return Err(moe.unsupported("num_experts", "0"));
    }
    Ok(())
}

fn layout(fields: Fields<'_>) -> Result<Layout> {
    let nothing = Map::new();
    let empty = Fields { path: fields.path, object: &nothing };
    let mapping = fields.object("mapping")?.unwrap_or(empty);
    for key in ["pp_size", "cp_size"] {
        if mapping.size(key, MOST_WIDTH)?.is_some_and(|size| size != 1) {
            return Err(mapping.unsupported(key, "1: tensor parallelism alone"));
        }
    }
    let embedding = match flag(fields, "use_parallel_embedding", false)? {
        false => EmbeddingSplit::Replicated,
        true => match fields.number("embedding_sharding_dim")? {
            None => EmbeddingSplit::Vocabulary,
            Some(0.0) => EmbeddingSplit::Vocabulary,
            Some(1.0) => EmbeddingSplit::Hidden,
            Some(_) => return Err(fields.broken("embedding_sharding_dim", "0 or 1")),
        },
    };
    let tensor_parallel = mapping.size("tp_size", MOST_WIDTH)?.unwrap_or(1);
    Ok(Layout { embedding, ..Layout::checkpoint(tensor_parallel) })
}

fn flag(fields: Fields<'_>, key: &str, default: bool) -> Result<bool> {
    Ok(fields.flag(key)?.unwrap_or(default))
}

fn missing(fields: Fields<'_>, key: &str) -> Error {
    Error::file(fields.path, format!("{key} is missing"))
}

/// Returns the configuration of a checkpoint whose weights are in `dtype`, as releases 0.19 to 1.2 read it.
pub fn config_json(spec: &ModelSpec, layout: &Layout, dtype: Dtype) -> Value {
    let ranks = layout.tensor_parallel;
    let mut config = json!({
        "architecture": spec.family.architecture(Head::LanguageModel),
        "dtype": dtype_name(dtype),
        "logits_dtype": "float32",
        "vocab_size": spec.vocab_size,
        "max_position_embeddings": spec.max_positions,
        "hidden_size": spec.hidden_size,
        "num_hidden_layers": spec.num_layers,
        "num_attention_heads": spec.num_heads,
        "num_key_value_heads": spec.num_kv_heads,
        "head_size": spec.head_dim,
        "hidden_act": "silu",
        "intermediate_size": spec.intermediate_size,
        "norm_epsilon": spec.rms_norm_eps,
        "position_embedding_type": "rope_gpt_neox",
        "rotary_base": spec.rope_theta,
        "rotary_scaling": rotary_scaling(spec),
        "attn_bias": spec.qkv_bias,
        "mlp_bias": spec.mlp_bias,
        "qk_layernorm": spec.qk_norm,
        "tie_word_embeddings": spec.tie_word_embeddings,
        "use_parallel_embedding": layout.embedding != EmbeddingSplit::Replicated,
        "embedding_sharding_dim": usize::from(layout.embedding == EmbeddingSplit::Hidden),
        "mapping": {"world_size": ranks, "tp_size": ranks, "pp_size": 1, "cp_size": 1},
        "quantization": {"quant_algo": null, "kv_cache_quant_algo": null},
    });
    if matches!(spec.family, Family::Qwen2 | Family::Qwen3) {
        config["qwen_type"] = json!(spec.family.model_type());
        config["seq_length"] = json!(spec.max_positions);
    }
    config
}

/// TensorRT-LLM prefers the old key `type`, and takes a dictionary without one for an error.
fn rotary_scaling(spec: &ModelSpec) -> Value {
    if spec.rope_scaling.is_none() {
        return Value::Null;
    }
    let mut value = scaling(spec);
    value["type"] = value["rope_type"].clone();
    value
}
