//! An engine directory: what was built, read without loading it.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    time::Duration,
};

use serde_json::{Map, Value};

use super::{Error, Layout, Pretrained, error::Result, pretrained};
use crate::{
    ffi::memory::{Lease, Rewritable},
    model::{
        self, ModelSpec,
        config_json::MOST_POSITIONS,
        fields::Fields,
        files,
        shard::{Entry, Shard},
    },
    rollout::{Dtype, WeightTensor, WeightVersion, Weights},
};

const CONFIG: &str = "config.json";
const FIXED: &str = "fixed_weights.safetensors";
const PATIENCE: Duration = Duration::from_secs(60);

/// What an engine was built for (`build_config`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Build {
    /// Longest prompt.
    pub max_input_len: usize,
    /// Longest sequence, prompt and completion together.
    pub max_seq_len: usize,
    /// Most sequences computed together.
    pub max_batch_size: usize,
    /// Most tokens in one engine step.
    pub max_num_tokens: usize,
    /// Most beams.
    pub max_beam_width: usize,
    /// Whether weights can be replaced.
    pub use_refit: bool,
    /// Whether gate and up were fused (`plugin_config.use_fused_mlp`).
    pub use_fused_mlp: bool,
    /// Whether a prompt may start in the middle of the KV cache, as block reuse and chunked prompts need
    /// (`plugin_config.use_paged_context_fmha`).
    pub paged_context: bool,
    /// Tokens in a block of the KV cache (`plugin_config.tokens_per_block`).
    pub tokens_per_block: usize,
}

/// An engine directory whose `config.json` has been read.
#[derive(Clone, Debug, PartialEq)]
pub struct EngineDir {
    /// The directory.
    pub path: PathBuf,
    /// Version of TensorRT-LLM that built it; empty where it is not said.
    pub version: String,
    /// The model, and the layout of the checkpoint it was built from.
    pub pretrained: Pretrained,
    /// What it was built for.
    pub build: Build,
    /// The bytes of each rank's engine file.
    pub engine_bytes: Vec<u64>,
    /// The text of `config.json`, for an executor that is made from a plan in memory.
    pub config_json: String,
}

/// What an engine is needed for. Zero sizes ask for nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Wanted {
    /// Longest prompt.
    pub input_len: usize,
    /// Longest sequence, prompt and completion together.
    pub seq_len: usize,
    /// Most sequences computed together.
    pub batch_size: usize,
    /// The number format; `None` takes any.
    pub dtype: Option<Dtype>,
    /// Number of ranks; `None` takes any.
    pub tensor_parallel: Option<usize>,
    /// Whether weights will be replaced.
    pub refit: bool,
}

impl EngineDir {
    /// Reads `config.json` and looks whether each rank's engine file is there.
    ///
    /// # Errors
    /// One line that names file and key: something is missing, damaged, or of a model this program does not have.
    pub fn open(dir: &Path) -> Result<Self> {
        let path = dir.join(CONFIG);
        let text =
            files::text_if_there(&path)?.ok_or_else(|| model::Error::file(&path, "is missing"))?;
        let object = files::parse_object(&path, &text)?;
        let fields = Fields { path: &path, object: &object };
        let part = |key: &str| -> Result<Fields<'_>> {
            let missing = || model::Error::file(&path, format!("{key} is missing"));
            Ok(fields.object(key)?.ok_or_else(missing)?)
        };
        let pretrained = pretrained::parse(part("pretrained_config")?)?;
        let build = build(part("build_config")?, &pretrained.spec)?;
        let version = fields.text("version")?.unwrap_or_default().to_owned();
        let ranks = 0..pretrained.layout.tensor_parallel;
        let engine_bytes =
            ranks.map(|rank| engine_bytes(&engine_file(dir, rank))).collect::<Result<_>>()?;
        Ok(Self {
            path: dir.to_owned(),
            version,
            pretrained,
            build,
            engine_bytes,
            config_json: text,
        })
    }

    /// Returns the path of a rank's engine file.
    pub fn engine_file(&self, rank: usize) -> PathBuf {
        engine_file(&self.path, rank)
    }

    /// Copies the values of the network's constants that the build left beside the engine (`fixed_weights.safetensors`:
    /// rotary tables and the like), by the engine's names. Empty where there is no such file. Constants that are no floats
    /// are left out: a refit cannot bind them, and they keep their values.
    ///
    /// # Errors
    /// One line that names the file, when it is damaged.
    pub fn fixed_weights(&self) -> Result<Weights> {
        let (lease, path) = (Lease::default(), self.path.join(FIXED));
        let mut tensors = BTreeMap::new();
        if path.exists() {
            let shard = Shard::open(path)?;
            for name in shard.names().into_iter().filter(|name| shard.is_float(name)) {
                let Entry { dtype, shape, range } = shard.entry(&name)?;
                // Not the map itself: nothing in the format aligns its tensors.
                let mut copy = Rewritable::zeroed(range.len(), &lease);
                let writing = lease.write(PATIENCE).expect("nobody else has the lease");
                copy.bytes_mut(&writing).copy_from_slice(&shard.map[range]);
                tensors.insert(name, WeightTensor { dtype, shape, memory: copy.memory().clone() });
            }
        }
        Ok(Weights::new(WeightVersion::default(), lease, tensors))
    }

    /// Returns the layout that an engine built for this policy should have. What it has is told by its names: see
    /// [`Layout::as_named`].
    pub fn layout(&self, policy: &ModelSpec) -> Layout {
        self.pretrained.layout.engine(policy, self.build.use_fused_mlp)
    }

    /// Checks that this is an engine of the policy's model and was built for what is wanted.
    ///
    /// # Errors
    /// Names file, key, what it must be and what it is, of the first that differs.
    pub fn check(&self, policy: &ModelSpec, wanted: &Wanted) -> Result<()> {
        self.check_model(policy)?;
        self.check_build(wanted)?;
        self.layout(policy).check(policy)
    }

    fn check_model(&self, policy: &ModelSpec) -> Result<()> {
        let spec = &self.pretrained.spec;
        let sizes = [
            ("vocab_size", policy.vocab_size, spec.vocab_size),
            ("num_hidden_layers", policy.num_layers, spec.num_layers),
            ("num_attention_heads", policy.num_heads, spec.num_heads),
            ("num_key_value_heads", policy.num_kv_heads, spec.num_kv_heads),
            ("head_size", policy.head_dim, spec.head_dim),
            ("hidden_size", policy.hidden_size, spec.hidden_size),
            ("intermediate_size", policy.intermediate_size, spec.intermediate_size),
        ];
        for (key, policy, engine) in sizes {
            self.same(key, policy, engine)?;
        }
        let flags = [
            ("attn_bias", policy.qkv_bias, spec.qkv_bias),
            ("mlp_bias", policy.mlp_bias, spec.mlp_bias),
            ("qk_layernorm", policy.qk_norm, spec.qk_norm),
        ];
        for (key, policy, engine) in flags {
            self.same(key, policy, engine)?;
        }
        // As f32, which is what is computed with.
        self.same("norm_epsilon", policy.rms_norm_eps as f32, spec.rms_norm_eps as f32)?;
        self.same("rotary_base", policy.rope_theta as f32, spec.rope_theta as f32)?;
        let scaling = |spec: &ModelSpec| format!("{:?}", spec.rope_scaling);
        self.same("rotary_scaling", scaling(policy), scaling(spec))
    }

    fn same<T: PartialEq + ToString>(&self, key: &str, policy: T, engine: T) -> Result<()> {
        if policy == engine {
            return Ok(());
        }
        let rule = format!("{}, as the policy's", policy.to_string());
        Err(self.broken(&format!("pretrained_config.{key}"), rule, engine))
    }

    fn check_build(&self, wanted: &Wanted) -> Result<()> {
        let (spec, build) = (&self.pretrained.spec, &self.build);
        if let Some(dtype) = wanted.dtype.filter(|&dtype| dtype != spec.dtype) {
            return Err(self.broken("pretrained_config.dtype", dtype.to_string(), spec.dtype));
        }
        let ranks = self.pretrained.layout.tensor_parallel;
        if let Some(wanted) = wanted.tensor_parallel.filter(|&wanted| wanted != ranks) {
            return Err(self.broken(
                "pretrained_config.mapping.tp_size",
                wanted.to_string(),
                ranks,
            ));
        }
        let sizes = [
            ("max_input_len", wanted.input_len, build.max_input_len),
            ("max_seq_len", wanted.seq_len, build.max_seq_len),
            ("max_batch_size", wanted.batch_size, build.max_batch_size),
        ];
        for (key, wanted, built) in sizes {
            if built < wanted {
                let rule = format!("at least {wanted}");
                return Err(self.broken(&format!("build_config.{key}"), rule, built));
            }
        }
        if wanted.refit && !build.use_refit {
            let rule = "true, so that the policy's weights can be put in".to_owned();
            return Err(self.broken("build_config.use_refit", rule, false));
        }
        Ok(())
    }

    fn broken(&self, field: &str, rule: String, got: impl ToString) -> Error {
        let (path, field) = (self.path.join(CONFIG), field.to_owned());
        model::Error::Field { path, field, rule, got: got.to_string() }.into()
    }
}

fn build(fields: Fields<'_>, spec: &ModelSpec) -> Result<Build> {
    let nothing = Map::new();
    let plugins = fields.object("plugin_config")?;
    let plugins = plugins.unwrap_or(Fields { path: fields.path, object: &nothing });
    let size = |key: &str| fields.size(key, MOST_POSITIONS);
    let max_seq_len = size("max_seq_len")?.unwrap_or(spec.max_positions);
    Ok(Build {
        max_input_len: size("max_input_len")?.unwrap_or(max_seq_len),
        max_seq_len,
        max_batch_size: fields.required_size("max_batch_size", MOST_POSITIONS)?,
        max_num_tokens: fields.required_size("max_num_tokens", MOST_POSITIONS)?,
        max_beam_width: size("max_beam_width")?.unwrap_or(1),
        use_refit: fields.flag("use_refit")?.unwrap_or(false),
        use_fused_mlp: is_on(plugins, "use_fused_mlp")?.unwrap_or(true),
        paged_context: is_on(plugins, "use_paged_context_fmha")?.unwrap_or(false),
        tokens_per_block: plugins.size("tokens_per_block", MOST_POSITIONS)?.unwrap_or(32),
    })
}

/// Plugin settings have been written as truth values and as words.
fn is_on(fields: Fields<'_>, key: &str) -> Result<Option<bool>> {
    match fields.get(key) {
        None => Ok(None),
        Some(Value::Bool(on)) => Ok(Some(*on)),
        Some(Value::String(word)) if word == "enable" || word == "auto" => Ok(Some(true)),
        Some(Value::String(word)) if word == "disable" => Ok(Some(false)),
        Some(_) => Err(fields.broken(key, "true or false").into()),
    }
}

fn engine_file(dir: &Path, rank: usize) -> PathBuf {
    dir.join(format!("rank{rank}.engine"))
}

fn engine_bytes(path: &Path) -> Result<u64> {
    let found = std::fs::metadata(path).map_err(model::Error::io("open", path))?;
    if !found.is_file() || found.len() == 0 {
        return Err(model::Error::file(path, "must be a file that is not empty").into());
    }
    Ok(found.len())
}
