//! `config.json` into a [`ModelSpec`]: as transformers 4 writes it (`rope_theta`, `rope_scaling`, `torch_dtype`) and as 5
//! does (`rope_parameters`, `dtype`). Absent keys have the defaults of the transformers class.

use std::{collections::BTreeSet, path::Path};

use serde_json::{Map, Value};

use super::{Error, Family, Head, ModelSpec, RopeScaling, error::Result, fields::Fields, files};
use crate::rollout::Dtype;

// Bounds on sizes: far above every real model, and low enough that no product of two overflows.
pub(super) const MOST_WIDTH: usize = 1 << 20;
pub(super) const MOST_LAYERS: usize = 1 << 12;
pub(super) const MOST_VOCABULARY: usize = 1 << 26;
pub(super) const MOST_POSITIONS: usize = 1 << 30;
const MOST_LABELS: usize = 1 << 10;

/// What `config.json` says of a model.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Config {
    pub(super) spec: ModelSpec,
    /// Whether the number format was said; else it is that of the tensors.
    pub(super) says_dtype: bool,
}

/// Reads `config.json` of a model directory.
pub(super) fn open(dir: &Path) -> Result<Config> {
    let path = dir.join("config.json");
    let object = files::object(&path)?;
    parse(Fields { path: &path, object: &object })
}

/// Reads the fields of a `config.json`.
pub(super) fn parse(fields: Fields<'_>) -> Result<Config> {
    let family = family(fields)?;
    refuse_what_changes_the_model(fields)?;
    let num_heads = fields.required_size("num_attention_heads", MOST_WIDTH)?;
    let hidden_size = fields.required_size("hidden_size", MOST_WIDTH)?;
    let num_layers = fields.required_size("num_hidden_layers", MOST_LAYERS)?;
    let max_positions = fields
        .size("max_position_embeddings", MOST_POSITIONS)?
        .unwrap_or(family.default_positions());
    let attention_bias = fields.flag("attention_bias")?.unwrap_or(false);
    let dtype = dtype(fields)?;
    let (rope_theta, rope_scaling) = rope(fields, max_positions)?;
    let head = head(fields, family)?;
    let spec = ModelSpec {
        family,
        head,
        labels: labels(fields, head)?,
        hidden_size,
        intermediate_size: fields.required_size("intermediate_size", MOST_VOCABULARY)?,
        num_layers,
        num_heads,
        num_kv_heads: kv_heads(fields, family, num_heads)?,
        head_dim: head_dim(fields, family, hidden_size, num_heads)?,
        vocab_size: fields.required_size("vocab_size", MOST_VOCABULARY)?,
        max_positions,
        rms_norm_eps: fields.positive("rms_norm_eps")?.unwrap_or(1e-6),
        rope_theta,
        rope_scaling,
        sliding_window: sliding_window(fields, family, num_layers)?,
        qkv_bias: match family {
            Family::Llama | Family::Qwen3 => attention_bias,
            Family::Mistral => false,
            Family::Qwen2 => true,
        },
        o_bias: matches!(family, Family::Llama | Family::Qwen3) && attention_bias,
        mlp_bias: family == Family::Llama && fields.flag("mlp_bias")?.unwrap_or(false),
        qk_norm: family == Family::Qwen3,
        tie_word_embeddings: fields.flag("tie_word_embeddings")?.unwrap_or(false),
        dtype: dtype.unwrap_or(Dtype::F32),
    };
    spec.check().map_err(|problem| problem.in_file(fields.path))?;
    Ok(Config { spec, says_dtype: dtype.is_some() })
}

impl ModelSpec {
    /// Reads a model's shape from the `config.json` of its directory. Nothing else needs to be there; a number format
    /// that the file does not name is taken to be f32.
    ///
    /// # Errors
    /// One line that names the file: it cannot be read, or describes a model of an unsupported kind.
    pub fn open(dir: &Path) -> Result<Self> {
        Ok(open(dir)?.spec)
    }
}

impl Family {
    const ALL: [Self; 4] = [Self::Llama, Self::Mistral, Self::Qwen2, Self::Qwen3];

    /// Returns the `model_type` of `config.json`.
    pub fn model_type(self) -> &'static str {
        match self {
            Self::Llama => "llama",
            Self::Mistral => "mistral",
            Self::Qwen2 => "qwen2",
            Self::Qwen3 => "qwen3",
        }
    }

    /// Returns the transformers class of this family under a head.
    pub fn architecture(self, head: Head) -> String {
        let prefix = match self {
            Self::Llama => "Llama",
            Self::Mistral => "Mistral",
            Self::Qwen2 => "Qwen2",
            Self::Qwen3 => "Qwen3",
        };
        let suffix = match head {
            Head::LanguageModel => "ForCausalLM",
            Head::Score => "ForSequenceClassification",
        };
        format!("{prefix}{suffix}")
    }

    fn default_positions(self) -> usize {
        match self {
            Self::Llama => 2048,
            Self::Mistral => 4096 * 32,
            Self::Qwen2 | Self::Qwen3 => 32768,
        }
    }
}

fn family(fields: Fields<'_>) -> Result<Family> {
    let name = fields
        .text("model_type")?
        .ok_or_else(|| Error::file(fields.path, "model_type is missing"))?;
    let known = Family::ALL.into_iter().find(|family| family.model_type() == name);
    known.ok_or_else(|| fields.unsupported("model_type", "llama, mistral, qwen2, qwen3"))
}

/// The class in `architectures` says what stands on top; without one it is a language model.
fn head(fields: Fields<'_>, family: Family) -> Result<Head> {
    let supported = [Head::LanguageModel, Head::Score];
    let head = match fields.list("architectures")?.map(Vec::as_slice) {
        None | Some([]) => Head::LanguageModel,
        Some(names) => {
            let is_named = |head: &Head| {
                names.len() == 1 && names[0].as_str() == Some(&family.architecture(*head))
            };
            supported.into_iter().find(is_named).ok_or_else(|| {
                let list = supported.map(|head| family.architecture(head)).join(", ");
                fields.unsupported("architectures", &list)
            })?
        }
    };
    Ok(head)
}

/// The names of a score head's numbers: those of `id2label`, or else transformers' own for so many.
fn labels(fields: Fields<'_>, head: Head) -> Result<Vec<String>> {
    if head == Head::LanguageModel {
        return Ok(Vec::new());
    }
    let Some(named) = fields.object("id2label")? else {
        // Two is the default of transformers.
        let number = fields.size("num_labels", MOST_LABELS)?.unwrap_or(2);
        let names = (0..number).map(|label| format!("LABEL_{label}"));
        return Ok(if number == 1 { Vec::new() } else { names.collect() });
    };
    let number = named.object.len();
    let rule =
        format!("names for 0 to the number of labels less 1, no two alike, at most {MOST_LABELS}");
    if !(1..=MOST_LABELS).contains(&number) {
        return Err(fields.broken("id2label", &rule));
    }
    let name = |label: usize| named.object.get(&label.to_string()).and_then(Value::as_str);
    let names: Option<Vec<String>> =
        (0..number).map(|label| name(label).map(str::to_owned)).collect();
    let distinct = |names: &Vec<String>| names.iter().collect::<BTreeSet<_>>().len() == number;
    let names = names.filter(distinct).ok_or_else(|| fields.broken("id2label", &rule))?;
    Ok(if names == [Head::UNNAMED] { Vec::new() } else { names })
}

/// Keys that would make another model of the same sizes, which we would compute wrongly.
fn refuse_what_changes_the_model(fields: Fields<'_>) -> Result<()> {
    if fields.text("hidden_act")?.is_some_and(|name| name != "silu") {
        return Err(fields.unsupported("hidden_act", "silu"));
    }
    if fields.get("quantization_config").is_some() {
        return Err(fields.unsupported("quantization_config", "f32, f16 and bf16 weights"));
    }
    if fields.number("partial_rotary_factor")?.is_some_and(|share| share != 1.0) {
        return Err(fields.unsupported("partial_rotary_factor", "1"));
    }
    Ok(())
}

fn kv_heads(fields: Fields<'_>, family: Family, num_heads: usize) -> Result<usize> {
    let absent = !fields.object.contains_key("num_key_value_heads");
    let default = match family {
        Family::Mistral if absent => 8,
        Family::Qwen2 | Family::Qwen3 if absent => 32,
        _ => num_heads,
    };
    Ok(fields.size("num_key_value_heads", MOST_WIDTH)?.unwrap_or(default))
}

fn head_dim(fields: Fields<'_>, family: Family, hidden: usize, heads: usize) -> Result<usize> {
    match fields.size("head_dim", MOST_WIDTH)? {
        Some(size) => Ok(size),
        None if family == Family::Qwen3 => Ok(128),
        None if hidden.is_multiple_of(heads) => Ok(hidden / heads),
        None => Err(fields.broken("num_attention_heads", "a divisor of hidden_size")),
    }
}

fn dtype(fields: Fields<'_>) -> Result<Option<Dtype>> {
    for key in ["dtype", "torch_dtype"] {
        match fields.text(key)? {
            None => {}
            Some("auto") => return Ok(None),
            Some(name) => return dtype_of(fields, key, name).map(Some),
        }
    }
    Ok(None)
}

/// Reads a number format by torch's name for it.
pub(super) fn dtype_of(fields: Fields<'_>, key: &str, name: &str) -> Result<Dtype> {
    match name.trim_start_matches("torch.") {
        "float32" => Ok(Dtype::F32),
        "float16" => Ok(Dtype::F16),
        "bfloat16" => Ok(Dtype::Bf16),
        _ => Err(fields.unsupported(key, "float32, float16, bfloat16")),
    }
}

/// transformers lets a `rope_scaling` that is not null win over `rope_parameters`.
fn rope(fields: Fields<'_>, max_positions: usize) -> Result<(f64, Option<RopeScaling>)> {
    let nothing = Map::new();
    let empty = Fields { path: fields.path, object: &nothing };
    let scaling = fields.object("rope_scaling")?.filter(|scaling| !scaling.object.is_empty());
    let rope = scaling.or(fields.object("rope_parameters")?).unwrap_or(empty);
    let theta = match rope.positive("rope_theta")? {
        Some(theta) => theta,
        None => fields.positive("rope_theta")?.unwrap_or(10_000.0),
    };
    if rope.number("partial_rotary_factor")?.is_some_and(|share| share != 1.0) {
        return Err(rope.unsupported("partial_rotary_factor", "1"));
    }
    Ok((theta, scaling_of(rope, max_positions)?))
}

/// Reads how rotary frequencies are stretched; without a kind, not at all.
pub(super) fn scaling_of(rope: Fields<'_>, max_positions: usize) -> Result<Option<RopeScaling>> {
    // Before 4.43 the key was `type`.
    let key = if rope.get("rope_type").is_some() { "rope_type" } else { "type" };
    let required = |name: &str| {
        rope.positive(name)?
            .ok_or_else(|| Error::file(rope.path, format!("{name} of the rope scaling is missing")))
    };
    match rope.text(key)? {
        None | Some("default") => Ok(None),
        Some("linear") => Ok(Some(RopeScaling::Linear { factor: required("factor")? })),
        Some("llama3") => Ok(Some(RopeScaling::Llama3 {
            factor: required("factor")?,
            low_freq_factor: required("low_freq_factor")?,
            high_freq_factor: required("high_freq_factor")?,
            original_max_position_embeddings: rope
                .size("original_max_position_embeddings", MOST_POSITIONS)?
                .unwrap_or(max_positions),
        })),
        Some(_) => Err(rope.unsupported(key, "default, linear, llama3")),
    }
}

/// Mistral windows every layer. Qwen windows those from `max_window_layers` on, when told to: we can all or none.
fn sliding_window(fields: Fields<'_>, family: Family, layers: usize) -> Result<Option<usize>> {
    let window = if fields.object.contains_key("sliding_window") {
        fields.size("sliding_window", MOST_POSITIONS)?
    } else {
        Some(4096)
    };
    match family {
        Family::Llama => Ok(None),
        Family::Mistral => Ok(window),
        Family::Qwen2 | Family::Qwen3 => {
            let used = fields.flag("use_sliding_window")?.unwrap_or(false);
            let windowed = windowed_layers(fields, layers, used && window.is_some())?;
            match windowed {
                0 => Ok(None),
                all if all == layers && used => Ok(window),
                _ => Err(fields.unsupported(
                    if fields.get("layer_types").is_some() {
                        "layer_types"
                    } else {
                        "use_sliding_window"
                    },
                    "a sliding window on all layers or on none",
                )),
            }
        }
    }
}

fn windowed_layers(fields: Fields<'_>, layers: usize, used: bool) -> Result<usize> {
    if let Some(kinds) = fields.list("layer_types")? {
        let count = |name: &str| kinds.iter().filter(|kind| kind.as_str() == Some(name)).count();
        let (windowed, full) = (count("sliding_attention"), count("full_attention"));
        if windowed + full != layers || kinds.len() != layers {
            let rule = format!("{layers} of \"full_attention\" or \"sliding_attention\"");
            return Err(fields.broken("layer_types", &rule));
        }
        return Ok(windowed);
    }
    let first = match fields.get("max_window_layers") {
        Some(value) if value.as_u64() == Some(0) => 0,
        _ => fields.size("max_window_layers", usize::MAX)?.unwrap_or(28),
    };
    Ok(if used { layers.saturating_sub(first) } else { 0 })
}
