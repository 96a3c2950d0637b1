//! `generation_config.json`: which tokens end a text, and how the model's makers sample from it.

use std::path::Path;

use serde_json::{Map, Value, json};

use super::{error::Result, fields::Fields, files};

/// Special token ids and sampling defaults of a model. `None` and empty mean "not said".
#[derive(Clone, Debug, Default, PartialEq)]
pub struct GenerationConfig {
    /// Ids that end a text: none, one or several.
    pub eos_token_ids: Vec<u32>,
    /// Id that starts a text.
    pub bos_token_id: Option<u32>,
    /// Id that fills up batches.
    pub pad_token_id: Option<u32>,
    /// Whether to sample at all; transformers decodes greedily unless told.
    pub do_sample: Option<bool>,
    /// Divides the logits.
    pub temperature: Option<f64>,
    /// Keeps the k most likely tokens; 0 keeps all.
    pub top_k: Option<usize>,
    /// Keeps the most likely tokens up to this probability.
    pub top_p: Option<f64>,
    /// Keeps tokens at least this share as likely as the most likely one.
    pub min_p: Option<f64>,
    /// Weakens tokens already seen.
    pub repetition_penalty: Option<f64>,
    /// Longest completion, in tokens.
    pub max_new_tokens: Option<usize>,
}

impl GenerationConfig {
    /// Reads `generation_config.json` of a model directory; ids it does not name are those of `config.json`.
    ///
    /// # Errors
    /// When a file cannot be read or a value has the wrong type.
    pub fn open(dir: &Path) -> Result<Self> {
        let path = dir.join("config.json");
        let config = files::object(&path)?;
        let fallback = Self::parse(Fields { path: &path, object: &config })?.ids_only();
        let path = dir.join("generation_config.json");
        let Some(object) = files::object_if_there(&path)? else { return Ok(fallback) };
        Ok(Self::parse(Fields { path: &path, object: &object })?.or_ids_of(fallback))
    }

    fn parse(fields: Fields<'_>) -> Result<Self> {
        let top_k = fields.get("top_k").filter(|k| **k != json!(0)).is_some();
        Ok(Self {
            eos_token_ids: fields.tokens("eos_token_id")?,
            bos_token_id: fields.token("bos_token_id")?,
            pad_token_id: fields.token("pad_token_id")?,
            do_sample: fields.flag("do_sample")?,
            temperature: fields.number("temperature")?,
            top_k: if top_k { fields.size("top_k", u32::MAX as usize)? } else { None },
            top_p: fields.number("top_p")?,
            min_p: fields.number("min_p")?,
            repetition_penalty: fields.number("repetition_penalty")?,
            max_new_tokens: fields.size("max_new_tokens", u32::MAX as usize)?,
        })
    }

    // `config.json` of old models also holds sampling values, which transformers ignores: so do we.
    fn ids_only(self) -> Self {
        Self {
            eos_token_ids: self.eos_token_ids,
            bos_token_id: self.bos_token_id,
            pad_token_id: self.pad_token_id,
            ..Self::default()
        }
    }

    fn or_ids_of(mut self, other: Self) -> Self {
        if self.eos_token_ids.is_empty() {
            self.eos_token_ids = other.eos_token_ids;
        }
        self.bos_token_id = self.bos_token_id.or(other.bos_token_id);
        self.pad_token_id = self.pad_token_id.or(other.pad_token_id);
        self
    }

    /// Returns the special ids as the keys of `config.json` and `generation_config.json`.
    pub(super) fn id_entries(&self) -> Map<String, Value> {
        let mut entries = Map::new();
        if let Some(id) = self.bos_token_id {
            entries.insert("bos_token_id".into(), json!(id));
        }
        match self.eos_token_ids.as_slice() {
            [] => {}
            [id] => drop(entries.insert("eos_token_id".into(), json!(id))),
            ids => drop(entries.insert("eos_token_id".into(), json!(ids))),
        }
        if let Some(id) = self.pad_token_id {
            entries.insert("pad_token_id".into(), json!(id));
        }
        entries
    }

    /// Returns the contents of `generation_config.json`.
    pub(super) fn to_json(&self) -> Value {
        let mut object = self.id_entries();
        let mut put = |key: &str, value: Option<Value>| {
            if let Some(value) = value {
                object.insert(key.into(), value);
            }
        };
        put("do_sample", self.do_sample.map(Value::from));
        put("temperature", self.temperature.map(Value::from));
        put("top_k", self.top_k.map(Value::from));
        put("top_p", self.top_p.map(Value::from));
        put("min_p", self.min_p.map(Value::from));
        put("repetition_penalty", self.repetition_penalty.map(Value::from));
        put("max_new_tokens", self.max_new_tokens.map(Value::from));
        Value::Object(object)
    }
}
