//! Low-rank adapters (Hu et al., 2021): what they are beside a model, and their directories as PEFT has them.
//!
//! ```text
//! y = x W^T + scale (x A^T) B^T        A: [rank, inputs], B: [outputs, rank]        scale = alpha / rank
//! ```

use std::{collections::BTreeMap, fs, path::Path};

use rand_chacha::{
    ChaCha8Rng,
    rand_core::{RngCore, SeedableRng},
};
use serde::{Deserialize, Serialize};

use super::{Error, Head, ModelSpec, error::Result, read_tensors, write_tensors};
use crate::{
    ffi::memory::{Lease, Memory},
    rollout::{Dtype, TensorSpec, WeightTensor, WeightVersion, Weights},
};

const CONFIG: &str = "adapter_config.json";
const TENSORS: &str = "adapter_model.safetensors";
/// What PEFT puts before the names of a model's tensors.
const PREFIX: &str = "base_model.model.";
/// A configuration is a page; a larger file is none.
const MOST_BYTES: u64 = 1 << 20;

/// A matrix of each layer that an adapter may stand beside.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LoraTarget {
    /// Queries.
    QProj,
    /// Keys.
    KProj,
    /// Values.
    VProj,
    /// Attention's output.
    OProj,
    /// The gate of the feed-forward part.
    GateProj,
    /// What it gates.
    UpProj,
    /// The feed-forward part's output.
    DownProj,
    /// Each of them.
    #[serde(rename = "all-linear")]
    AllLinear,
}

impl LoraTarget {
    /// Each one that is a matrix, in the order of a layer.
    pub const MATRICES: [Self; 7] = [
        Self::QProj,
        Self::KProj,
        Self::VProj,
        Self::OProj,
        Self::GateProj,
        Self::UpProj,
        Self::DownProj,
    ];

    /// Returns its name in PEFT and in a checkpoint.
    pub fn name(self) -> &'static str {
        match self {
            Self::QProj => "q_proj",
            Self::KProj => "k_proj",
            Self::VProj => "v_proj",
            Self::OProj => "o_proj",
            Self::GateProj => "gate_proj",
            Self::UpProj => "up_proj",
            Self::DownProj => "down_proj",
            Self::AllLinear => "all-linear",
        }
    }

    fn named(name: &str) -> Option<Self> {
        Self::MATRICES.into_iter().chain([Self::AllLinear]).find(|target| target.name() == name)
    }
}

/// What adapters stand beside a model's matrices.
#[derive(Clone, Debug, PartialEq)]
pub struct Lora {
    /// Rows of A, at least 1.
    pub rank: usize,
    /// The scale is this over the rank.
    pub alpha: f64,
    /// Share of the numbers that go into A that are left out in training.
    pub dropout: f64,
    /// Divide by the rank's root instead, so that the scale of a step does not fall with it (Kalajdzievski, 2023).
    pub rslora: bool,
    /// Beside which matrices.
    pub targets: Vec<LoraTarget>,
}

impl Lora {
    /// Returns what `(x A^T) B^T` is multiplied by.
    pub fn scale(&self) -> f64 {
        let rank = self.rank as f64;
        self.alpha / if self.rslora { rank.sqrt() } else { rank }
    }

    /// Returns the matrices that have an adapter, in the order of a layer.
    pub fn matrices(&self) -> impl Iterator<Item = LoraTarget> {
        let all = self.targets.contains(&LoraTarget::AllLinear);
        LoraTarget::MATRICES.into_iter().filter(move |target| all || self.targets.contains(target))
    }

    /// Says whether a model's tensor, given by name, has an adapter.
    pub fn adapts(&self, name: &str) -> bool {
        self.matrices().any(|target| name.ends_with(&format!(".{}.weight", target.name())))
    }

    /// Returns the adapter's own tensors, as a checkpoint would name them: A and B of each matrix.
    pub fn tensors(&self, spec: &ModelSpec) -> Vec<TensorSpec> {
        let adapted = spec.tensors().into_iter().filter(|tensor| self.adapts(&tensor.name));
        let pair = |tensor: TensorSpec| {
            let (outputs, inputs) = (tensor.shape[0], tensor.shape[1]);
            [("lora_A", vec![self.rank, inputs]), ("lora_B", vec![outputs, self.rank])]
                .map(|(part, shape)| TensorSpec { name: lora_name(&tensor.name, part), shape })
        };
        adapted.flat_map(pair).collect()
    }

    /// Draws an adapter that changes nothing yet: A uniform in ±1/√inputs, which is PyTorch's Kaiming initialisation as
    /// PEFT uses it, and B zero. The same seed gives the same adapter, tensor by tensor.
    pub fn random(&self, spec: &ModelSpec, seed: u64) -> Weights {
        let lease = Lease::default();
        let fill = |tensor: TensorSpec| {
            let length = tensor.shape.iter().product();
            let numbers = match tensor.name.ends_with("lora_A.weight") {
                true => {
                    uniform((&tensor.name, seed), length, 1.0 / (tensor.shape[1] as f64).sqrt())
                }
                false => vec![0.0; length],
            };
            let memory = Memory::from_vec(numbers, &lease);
            (tensor.name, WeightTensor { dtype: Dtype::F32, shape: tensor.shape, memory })
        };
        let tensors: BTreeMap<_, _> = self.tensors(spec).into_iter().map(fill).collect();
        Weights::new(WeightVersion::default(), lease.clone(), tensors)
    }
}

/// Returns what A (`lora_A`) or B (`lora_B`) of a tensor is called.
pub fn lora_name(tensor: &str, part: &str) -> String {
    format!("{}.{part}.weight", tensor.strip_suffix(".weight").unwrap_or(tensor))
}

/// Draws from -bound to bound with a generator of the tensor's own.
fn uniform((name, seed): (&str, u64), length: usize, bound: f64) -> Vec<f32> {
    let key = blake3::hash(format!("{seed} {name}").as_bytes());
    let mut random = ChaCha8Rng::from_seed(*key.as_bytes());
    let unit = |bits: u32| f64::from(bits >> 8) / f64::from(1 << 24);
    (0..length).map(|_| ((2.0 * unit(random.next_u32()) - 1.0) * bound) as f32).collect()
}

/// What of `adapter_config.json` is read and written; PEFT fills in the rest.
#[derive(Debug, Serialize, Deserialize)]
struct ConfigFile {
    peft_type: String,
    #[serde(default)]
    task_type: Option<String>,
    #[serde(default)]
    base_model_name_or_path: Option<String>,
    r: usize,
    lora_alpha: f64,
    #[serde(default)]
    lora_dropout: f64,
    #[serde(default)]
    use_rslora: bool,
    target_modules: serde_json::Value,
    #[serde(default)]
    modules_to_save: Option<Vec<String>>,
    #[serde(default)]
    bias: Option<String>,
    #[serde(default)]
    fan_in_fan_out: bool,
    #[serde(default)]
    inference_mode: bool,
    /// What this file has besides, by name.
    #[serde(flatten)]
    others: BTreeMap<String, serde_json::Value>,
}

/// Kinds of adapters that compute something else, and matrices of ranks of their own.
const UNREADABLE: [&str; 15] = [
    "arrow_config",
    "kasa_config",
    "monteclora_config",
    "target_parameters",
    "use_bdlora",
    "velora_config",
    "use_dora",
    "use_qalora",
    "rank_pattern",
    "alpha_pattern",
    "layers_to_transform",
    "layer_replication",
    "lora_bias",
    "exclude_modules",
    "trainable_token_indices",
];

/// An adapter from a directory.
#[derive(Clone, Debug)]
pub struct Adapter {
    /// What it stands beside.
    pub lora: Lora,
    /// Its tensors as [`Lora::tensors`] names them, and the score head where that is the adapter's own.
    pub tensors: Weights,
}

/// Reads a directory that PEFT has written, as an adapter of a model of this shape.
///
/// # Errors
/// One line that names the file: it cannot be read, is an adapter of another kind, or does not fit the model.
pub fn read_adapter(dir: &Path, spec: &ModelSpec) -> Result<Adapter> {
    let path = dir.join(CONFIG);
    let wrong = |what: String| Error::file(&path, what);
    let size =
        fs::metadata(&path).map_err(|error| wrong(format!("cannot be read: {error}")))?.len();
    if size > MOST_BYTES {
        return Err(wrong(format!("must have at most {MOST_BYTES} bytes, got {size}")));
    }
    let text =
        fs::read_to_string(&path).map_err(|error| wrong(format!("cannot be read: {error}")))?;
    let config: ConfigFile = serde_json::from_str(&text)
        .map_err(|error| wrong(format!("is no configuration of an adapter: {error}")))?;
    let lora = config.lora().map_err(wrong)?;
    let path = dir.join(TENSORS);
    let tensors = read_tensors(&path)?;
    let named: BTreeMap<String, WeightTensor> = tensors
        .iter()
        .map(|(name, tensor)| {
            (name.strip_prefix(PREFIX).unwrap_or(name).to_owned(), tensor.clone())
        })
        .collect();
    let head = named.contains_key(Head::SCORE) && spec.head == Head::Score;
    let tensors = Weights::new(WeightVersion::default(), tensors.lease().clone(), named);
    let mut expected = lora.tensors(spec);
    if head {
        let shape = vec![spec.num_labels(), spec.hidden_size];
        expected.push(TensorSpec { name: Head::SCORE.into(), shape });
    }
    let covered = tensors.check_coverage(&expected);
    covered.map_err(|reason| Error::Coverage { path: path.clone(), reason })?;
    Ok(Adapter { lora, tensors })
}

impl ConfigFile {
    fn lora(&self) -> std::result::Result<Lora, String> {
        let must = |key: &str, rule: &str, got: &dyn std::fmt::Display| {
            Err(format!("{key} must be {rule}, got {got}"))
        };
        if self.peft_type != "LORA" {
            return must("peft_type", "LORA", &self.peft_type);
        }
        if !(1..=1 << 16).contains(&self.r) {
            return must("r", "from 1 to 65536", &self.r);
        }
        if !(self.lora_alpha.is_finite() && self.lora_alpha > 0.0) {
            return must("lora_alpha", "above 0", &self.lora_alpha);
        }
        if !(0.0..1.0).contains(&self.lora_dropout) {
            return must("lora_dropout", "from 0 to below 1", &self.lora_dropout);
        }
        if let Some(bias) = self.bias.as_deref().filter(|bias| *bias != "none") {
            return must("bias", "\"none\"", &bias);
        }
        if self.fan_in_fan_out {
            return must("fan_in_fan_out", "false", &true);
        }
        let saved = self.modules_to_save.as_deref().unwrap_or_default();
        if let Some(other) =
            saved.iter().find(|name| !matches!(name.as_str(), "score" | "classifier"))
        {
            return must("modules_to_save", "the score head or nothing", other);
        }
        let set = |value: &serde_json::Value| match value {
            serde_json::Value::Null | serde_json::Value::Bool(false) => false,
            serde_json::Value::Object(map) => !map.is_empty(),
            serde_json::Value::Array(list) => !list.is_empty(),
            _ => true,
        };
        let unreadable = UNREADABLE
            .into_iter()
            .find_map(|key| Some((key, self.others.get(key)?)).filter(|(_, value)| set(value)));
        if let Some((key, value)) = unreadable {
            return must(key, "unset", value);
        }
        Ok(Lora {
            rank: self.r,
            alpha: self.lora_alpha,
            dropout: self.lora_dropout,
            rslora: self.use_rslora,
            targets: self.targets()?,
        })
    }

    fn targets(&self) -> std::result::Result<Vec<LoraTarget>, String> {
        let names: Vec<&str> = match &self.target_modules {
            serde_json::Value::String(name) => vec![name],
            serde_json::Value::Array(names) => {
                names.iter().filter_map(|name| name.as_str()).collect()
            }
            _ => Vec::new(),
        };
        let known = |name: &str| {
            // PEFT takes the end of a module's path for its name.
            let end = name.rsplit('.').next().unwrap_or(name);
            let rule = "names of a layer's matrices (q_proj ... down_proj) or all-linear";
            LoraTarget::named(end)
                .ok_or_else(|| format!("target_modules must be {rule}, got {name:?}"))
        };
        match names.is_empty() {
            true => Err("target_modules must name a matrix, got none".into()),
            false => names.into_iter().map(known).collect(),
        }
    }
}

/// Writes an adapter as a directory that PEFT reads. `base` is the model it belongs to; tensors are those of
/// [`Adapter::tensors`].
///
/// # Errors
/// When it cannot be written.
pub fn write_adapter(
    dir: &Path,
    (lora, head): (&Lora, Head),
    tensors: &Weights,
    base: &Path,
) -> Result<()> {
    let failed = |error: std::io::Error| Error::file(dir, format!("cannot be written: {error}"));
    fs::create_dir_all(dir).map_err(failed)?;
    let saves_head = tensors.get(Head::SCORE).is_some();
    let config = ConfigFile {
        peft_type: "LORA".into(),
        task_type: Some(if head == Head::Score { "SEQ_CLS" } else { "CAUSAL_LM" }.into()),
        base_model_name_or_path: Some(base.display().to_string()),
        r: lora.rank,
        lora_alpha: lora.alpha,
        lora_dropout: lora.dropout,
        use_rslora: lora.rslora,
        target_modules: lora.matrices().map(LoraTarget::name).collect(),
        modules_to_save: saves_head.then(|| vec!["score".into()]),
        bias: Some("none".into()),
        fan_in_fan_out: false,
        inference_mode: true,
        others: BTreeMap::new(),
    };
    let text = serde_json::to_string_pretty(&config).unwrap_or_default();
    fs::write(dir.join(CONFIG), text).map_err(failed)?;
    let named = tensors.iter().map(|(name, tensor)| (format!("{PREFIX}{name}"), tensor.clone()));
    let named = Weights::new(tensors.version(), tensors.lease().clone(), named.collect());
    write_tensors(&dir.join(TENSORS), &named)
}
