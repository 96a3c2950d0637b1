//! The trainer's forward pass and gradients against those of `transformers`, on models of every family.
#![cfg(feature = "libtorch")]
#![allow(clippy::unwrap_used, reason = "a test may fail")]

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use rollforge::{
    model::{Adapter, Checkpoint, Head, read_adapter, write_adapter},
    rollout::{Dtype, WeightVersion, Weights},
    trainer::{
        batch::PackedBatch,
        torch::{Learns, LogprobOptions, Model, ModelOptions, TokenGradient, libtorch},
    },
};
use safetensors::SafeTensors;

const MODELS: [&str; 11] = [
    "llama",
    "llama-linear",
    "llama-score",
    "llama-tied-llama3",
    "mistral",
    "mistral-f16",
    "qwen2",
    "qwen2-score",
    "qwen2-tied",
    "qwen3",
    "qwen3-sharded-bf16",
];

/// Adapters that `peft` has written, and the models they belong to.
const ADAPTERS: [(&str, &str); 3] = [
    ("llama-all-linear", "llama"),
    ("qwen2-q-v-down", "qwen2"),
    ("llama-score-k-o-up", "llama-score"),
];

fn golden() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden")
}

/// What `transformers` computed for a model.
struct Golden {
    checkpoint: Checkpoint,
    /// One sequence, every row selected, the last one included.
    batch: PackedBatch,
    tensors: BTreeMap<String, Vec<f32>>,
}

impl Golden {
    fn open(name: &str) -> Self {
        let dir = golden().join("models").join(name);
        Self::with(Checkpoint::open(&dir).unwrap(), &dir)
    }

    /// A model, and what another folder expects of it.
    fn with(checkpoint: Checkpoint, expected: &Path) -> Self {
        libtorch::set_threads(1).unwrap(); // the tests run side by side
        let bytes = fs::read(expected.join("expected.safetensors")).unwrap();
        let (mut tokens, mut tensors) = (Vec::new(), BTreeMap::new());
        for (name, view) in SafeTensors::deserialize(&bytes).unwrap().tensors() {
            match view.dtype() {
                safetensors::Dtype::F32 => {
                    tensors.insert(name, numbers(view.data(), f32::from_le_bytes));
                }
                _ if name == "tokens" => {
                    let ids = numbers(view.data(), i64::from_le_bytes);
                    tokens = ids.into_iter().map(|id| u32::try_from(id).unwrap()).collect();
                }
                _ => {}
            }
        }
        let selected = (0..tokens.len()).collect();
        let batch =
            PackedBatch { lengths: vec![tokens.len()], tokens, selected, candidates: vec![] };
        Self { checkpoint, batch, tensors }
    }

    fn model(&self, options: ModelOptions) -> Model {
        let weights = self.checkpoint.weights(Dtype::F32).unwrap();
        Model::load(self.checkpoint.spec(), &weights, &options).unwrap()
    }

    /// The logits, or the scores, at every row.
    fn outputs(&self, model: &Model) -> Vec<f32> {
        match model.spec().head {
            Head::LanguageModel => model.logits(&self.batch).unwrap(),
            Head::Score => model.values(&self.batch).unwrap(),
        }
    }

    fn expected(&self, suffix: &str) -> &[f32] {
        let name = match self.checkpoint.spec().head {
            Head::LanguageModel => format!("logits{suffix}"),
            Head::Score => format!("scores{suffix}"),
        };
        &self.tensors[&name]
    }

    /// Runs a training pass of the golden loss; returns the loss and the gradient.
    fn train(&self, options: ModelOptions) -> (f64, Weights) {
        let mut model = self.model(options);
        let mut loss = 0.0;
        match model.spec().head {
            Head::LanguageModel => {
                let mut batch = self.batch.clone();
                batch.selected.pop();
                let scale = 1.0 / batch.selected.len() as f64;
                let mean = |outputs: &rollforge::trainer::torch::TokenLogprobs| {
                    loss = -outputs.logprobs.iter().map(|&x| f64::from(x)).sum::<f64>() * scale;
                    TokenGradient {
                        logprobs: vec![-scale as f32; outputs.logprobs.len()],
                        ..TokenGradient::default()
                    }
                };
                model.train_logprobs(&batch, &LogprobOptions::default(), mean).unwrap();
            }
            Head::Score => {
                let scale = 1.0 / self.batch.selected.len() as f64;
                let half_square = |scores: &[f32]| {
                    loss = scores.iter().map(|&x| f64::from(x).powi(2)).sum::<f64>() * scale / 2.0;
                    scores.iter().map(|&x| x * scale as f32).collect()
                };
                model.train_values(&self.batch, half_square).unwrap();
            }
        }
        (loss, model.gradient().unwrap())
    }
}

fn numbers<const N: usize, T>(bytes: &[u8], read: impl Fn([u8; N]) -> T) -> Vec<T> {
    bytes.chunks_exact(N).map(|chunk| read(chunk.try_into().unwrap())).collect()
}

fn norm(values: impl Iterator<Item = f32>) -> f64 {
    values.map(|value| f64::from(value).powi(2)).sum::<f64>().sqrt()
}

/// The distance of two vectors, relative to the length of the second.
fn distance(got: &[f32], expected: &[f32]) -> f64 {
    assert_eq!(got.len(), expected.len());
    norm(got.iter().zip(expected).map(|(a, b)| a - b)) / norm(expected.iter().copied())
}

#[test]
fn outputs_agree_with_transformers_to_1e_4() {
    for name in MODELS {
        let golden = Golden::open(name);
        let (got, expected) =
            (golden.outputs(&golden.model(ModelOptions::default())), golden.expected(""));
        let largest = expected.iter().fold(0.0f32, |largest, x| largest.max(x.abs()));
        assert_eq!(got.len(), expected.len(), "{name}");
        for (i, (a, b)) in got.iter().zip(expected).enumerate() {
            assert!(
                (a - b).abs() <= 1e-4 * b.abs().max(0.1 * largest),
                "{name}: output {i} is {a}, not {b}"
            );
        }
    }
}

#[test]
fn losses_and_gradients_agree_with_transformers_to_1e_4() {
    for name in MODELS {
        let golden = Golden::open(name);
        for activation_checkpointing in [false, true] {
            let options = ModelOptions { activation_checkpointing, ..ModelOptions::default() };
            let (loss, gradient) = golden.train(options);
            let expected = f64::from(golden.tensors["loss"][0]);
            assert!(
                (loss - expected).abs() < 1e-4 * expected,
                "{name}: loss is {loss}, not {expected}"
            );
            let reading = gradient.lease().read(Duration::from_secs(1)).unwrap();
            for (parameter, tensor) in gradient.iter() {
                let distance =
                    distance(tensor.f32(&reading), &golden.tensors[&format!("grad.{parameter}")]);
                assert!(distance < 1e-4, "{name}: gradient of {parameter} is {distance:e} off");
            }
        }
    }
}

#[test]
fn bf16_is_as_near_to_f32_as_that_of_transformers() {
    for name in MODELS {
        let golden = Golden::open(name);
        let options = ModelOptions { compute: Dtype::Bf16, ..ModelOptions::default() };
        let ours = distance(&golden.outputs(&golden.model(options)), golden.expected(""));
        let theirs = distance(golden.expected("_bf16"), golden.expected(""));
        assert!(
            ours > 0.0 && ours < 1.5 * theirs + 1e-3,
            "{name}: {ours:e}, transformers {theirs:e}"
        );
    }
}

/// As a whole: single parameters whose gradient is what is left of a cancellation (biases of k) are further off, those
/// of `transformers` in bf16 too.
#[test]
fn bf16_gradients_agree_to_a_tenth() {
    for name in MODELS {
        let golden = Golden::open(name);
        let options = ModelOptions { compute: Dtype::Bf16, ..ModelOptions::default() };
        let (_, gradient) = golden.train(options);
        let reading = gradient.lease().read(Duration::from_secs(1)).unwrap();
        let (mut got, mut expected) = (Vec::new(), Vec::new());
        for (parameter, tensor) in gradient.iter() {
            got.extend_from_slice(tensor.f32(&reading));
            expected.extend_from_slice(&golden.tensors[&format!("grad.{parameter}")]);
        }
        let distance = distance(&got, &expected);
        assert!(distance < 0.1, "{name}: the gradient is {distance:e} off");
    }
}

/// The largest difference, relative to the largest number.
fn apart(ours: &[f32], theirs: &[f32]) -> f32 {
    assert_eq!(ours.len(), theirs.len());
    let largest = theirs.iter().fold(0.0, |largest: f32, x| largest.max(x.abs()));
    ours.iter().zip(theirs).fold(0.0, |most: f32, (a, b)| most.max((a - b).abs())) / largest
}

#[test]
fn an_adapter_of_peft_applied_and_merged_computes_what_peft_does() {
    for (name, base) in ADAPTERS {
        let dir = golden().join("adapters").join(name);
        let checkpoint = Checkpoint::open(&golden().join("models").join(base)).unwrap();
        let golden = Golden::with(checkpoint, &dir);
        let spec = golden.checkpoint.spec();
        let weights = golden.checkpoint.weights(Dtype::F32).unwrap();
        let Adapter { lora, tensors } = read_adapter(&dir, spec).unwrap();
        let learns = Learns { adapter: Some((lora, tensors)), ..Learns::default() };
        for autograd in [false, true] {
            let options = ModelOptions { autograd, ..ModelOptions::default() };
            let applied = Model::load_with(spec, &weights, &options, &learns).unwrap();
            let merged = applied.weights(WeightVersion::default(), Dtype::F32).unwrap();
            let merged = Model::load(spec, &merged, &options).unwrap();
            for model in [&applied, &merged] {
                let apart = apart(&golden.outputs(model), golden.expected(""));
                assert!(apart < 1e-5, "{name}: {apart}");
            }
            let without = Model::load(spec, &weights, &options).unwrap();
            let apart = apart(&golden.outputs(&without), golden.expected(""));
            assert!(apart > 1e-2, "{name}: the adapter does something, {apart}");
        }
    }
}

#[test]
fn an_adapter_written_again_reads_back_bit_for_bit() {
    let folder = tempfile::tempdir().unwrap();
    for (name, base) in ADAPTERS {
        let dir = golden().join("adapters").join(name);
        let checkpoint = Checkpoint::open(&golden().join("models").join(base)).unwrap();
        let spec = checkpoint.spec();
        let read = read_adapter(&dir, spec).unwrap();
        let again = folder.path().join(name);
        write_adapter(&again, (&read.lora, spec.head), &read.tensors, Path::new(base)).unwrap();
        let tensors = |dir: &Path| fs::read(dir.join("adapter_model.safetensors")).unwrap();
        let (theirs, ours) = (tensors(&dir), tensors(&again));
        let (theirs, ours) =
            (SafeTensors::deserialize(&theirs).unwrap(), SafeTensors::deserialize(&ours).unwrap());
        assert_eq!(ours.len(), theirs.len());
        for (name, view) in theirs.tensors() {
            let same = ours.tensor(&name).unwrap();
            assert_eq!((same.shape(), same.data()), (view.shape(), view.data()), "{name}");
        }
        let back = read_adapter(&again, spec).unwrap();
        let matrices = |adapter: &Adapter| adapter.lora.matrices().collect::<Vec<_>>();
        assert_eq!(matrices(&back), matrices(&read));
        assert_eq!(back.lora.scale(), read.lora.scale());
    }
}

#[test]
fn an_adapter_that_is_not_of_the_model_is_refused_in_a_line() {
    let folder = tempfile::tempdir().unwrap();
    let dir = golden().join("adapters/llama-all-linear");
    let open = |base: &str| Checkpoint::open(&golden().join("models").join(base)).unwrap();
    let refused = |dir: &Path, base: &str| {
        let said = read_adapter(dir, open(base).spec()).unwrap_err().to_string();
        assert_eq!(said.lines().count(), 1, "{said}");
        said
    };
    let said = refused(&dir, "qwen2");
    assert!(said.contains("adapter_model.safetensors") && said.contains("q_proj.lora_A"), "{said}");
    let config = fs::read_to_string(dir.join("adapter_config.json")).unwrap();
    for (was, is, rule) in [
        ("\"LORA\"", "\"IA3\"", "peft_type must be LORA, got IA3"),
        ("\"use_dora\": false", "\"use_dora\": true", "use_dora must be unset, got true"),
        ("\"r\": 3", "\"r\": 0", "r must be from 1 to 65536, got 0"),
        ("\"bias\": \"none\"", "\"bias\": \"all\"", "bias must be \"none\", got all"),
        (
            "layers.0.mlp.down_proj\"",
            "layers.0.mlp.router\"",
            "target_modules must be names of a layer's matrices",
        ),
        ("{", "[", "is no configuration of an adapter"),
    ] {
        assert!(config.contains(was), "{was}");
        fs::write(folder.path().join("adapter_config.json"), config.replacen(was, is, 1)).unwrap();
        let said = refused(folder.path(), "llama");
        assert!(said.contains("adapter_config.json") && said.contains(rule), "{said}");
    }
}
