//! The engine's forward pass against what transformers computed (`tests/golden/README.md`).

#![allow(clippy::unwrap_used, reason = "a test may fail")]

use std::{
    fs,
    path::{Path, PathBuf},
};

use rollforge::{
    engine::native::{
        BlockId, Forward, LogitsWanted, SequenceStep,
        cpu::{Cpu, CpuOptions, KernelChoice},
    },
    model::{Checkpoint, Head},
    rollout::Dtype,
};
use safetensors::SafeTensors;

const BLOCK_SIZE: usize = 4;

/// What transformers computed with one model.
struct Golden {
    name: String,
    checkpoint: Checkpoint,
    expected: Vec<u8>,
}

impl Golden {
    /// Returns every language model there is.
    fn all() -> Vec<Self> {
        let models = Path::new("tests/golden/models");
        let mut dirs: Vec<PathBuf> =
            fs::read_dir(models).unwrap().map(|entry| entry.unwrap().path()).collect();
        dirs.sort();
        let open = |dir: &PathBuf| Self {
            name: dir.file_name().unwrap().to_string_lossy().into_owned(),
            checkpoint: Checkpoint::open(dir).unwrap(),
            expected: fs::read(dir.join("expected.safetensors")).unwrap(),
        };
        let models: Vec<_> = dirs
            .iter()
            .map(open)
            .filter(|golden| golden.checkpoint.spec().head == Head::LanguageModel)
            .collect();
        assert!(models.len() >= 9, "language models among the golden files");
        models
    }

    fn floats(&self, name: &str) -> Vec<f32> {
        let file = SafeTensors::deserialize(&self.expected).unwrap();
        let bytes = file.tensor(name).unwrap().data().to_vec();
        bytes.as_chunks().0.iter().map(|x| f32::from_le_bytes(*x)).collect()
    }

    fn ids(&self, name: &str) -> Vec<u32> {
        let file = SafeTensors::deserialize(&self.expected).unwrap();
        let bytes = file.tensor(name).unwrap().data().to_vec();
        let id = |x: &[u8; 8]| u32::try_from(i64::from_le_bytes(*x)).unwrap();
        bytes.as_chunks().0.iter().map(id).collect()
    }

    fn engine(&self, dtype: Dtype, kernels: KernelChoice) -> Engine {
        let weights = self.checkpoint.weights(dtype).unwrap();
        let options =
            CpuOptions { threads: 2, kernels, dtype: Some(dtype), ..CpuOptions::default() };
        let spec = self.checkpoint.spec().clone();
        let mut cpu = Cpu::new(spec, &weights, options).unwrap();
        cpu.allocate_kv(64, BLOCK_SIZE).unwrap();
        Engine(cpu)
    }
}

struct Engine(Cpu);

impl Engine {
    fn step(&mut self, tokens: &[u32], start: usize, wanted: LogitsWanted) -> Vec<f32> {
        let count = (start + tokens.len()).div_ceil(BLOCK_SIZE) as u32;
        // Scattered: 5 has no factor in common with 64.
        let blocks: Vec<_> = (0..count).map(|block| BlockId(block * 5 % 64)).collect();
        let step = SequenceStep { tokens, start, blocks: &blocks, logits: wanted };
        let mut logits = Vec::new();
        self.0.step(&[step], &mut logits).unwrap();
        logits
    }

    fn prefill(&mut self, tokens: &[u32]) -> Vec<f32> {
        self.step(tokens, 0, LogitsWanted::All)
    }

    fn decode(&mut self, tokens: &[u32]) -> Vec<f32> {
        let step =
            |(position, token): (usize, &u32)| self.step(&[*token], position, LogitsWanted::Last);
        tokens.iter().enumerate().flat_map(step).collect()
    }
}

/// Returns the largest difference, relative to the largest number.
fn difference(got: &[f32], expected: &[f32]) -> f32 {
    assert_eq!(got.len(), expected.len());
    let largest = expected.iter().fold(0.0f32, |largest, x| largest.max(x.abs()));
    let differences = got.iter().zip(expected).map(|(got, expected)| (got - expected).abs());
    let worst = differences.fold(0.0, |worst, x| if x > worst || x.is_nan() { x } else { worst });
    worst / largest
}

#[test]
fn prefill_and_decode_agree_with_transformers_to_1e_5_in_f32() {
    for golden in Golden::all() {
        let (tokens, expected) = (golden.ids("tokens"), golden.floats("logits"));
        for kernels in [KernelChoice::Portable, KernelChoice::Auto] {
            let mut engine = golden.engine(Dtype::F32, kernels);
            for got in [engine.prefill(&tokens), engine.decode(&tokens)] {
                let off = difference(&got, &expected);
                assert!(off < 1e-5, "{} {kernels:?}: off by {off:e}", golden.name);
            }
        }
    }
}

/// Both round, and not at the same places; so ours must be as near to the f32 logits as theirs is, and half as much
/// again for luck.
#[test]
fn bf16_is_as_near_to_f32_as_transformers_bf16_is() {
    for golden in Golden::all() {
        let tokens = golden.ids("tokens");
        let (exact, theirs) = (golden.floats("logits"), golden.floats("logits_bf16"));
        let allowed = 1.5 * difference(&theirs, &exact);
        for kernels in [KernelChoice::Portable, KernelChoice::Auto] {
            let mut engine = golden.engine(Dtype::Bf16, kernels);
            let got = engine.prefill(&tokens);
            let off = difference(&got, &exact);
            assert!(off < allowed, "{} {kernels:?}: off by {off:e}, not {allowed:e}", golden.name);
            assert_eq!(got, engine.decode(&tokens), "{}: prefill and decode", golden.name);
        }
    }
}

#[test]
fn greedy_continuations_are_those_of_transformers() {
    for golden in Golden::all() {
        let mut engine = golden.engine(Dtype::F32, KernelChoice::Auto);
        let mut tokens = golden.ids("greedy_prompt");
        let prompt = tokens.len();
        let mut logits = engine.step(&tokens, 0, LogitsWanted::Last);
        let expected = golden.ids("greedy_tokens");
        for _ in &expected {
            let best = (0..logits.len()).max_by(|&a, &b| logits[a].total_cmp(&logits[b])).unwrap();
            logits = engine.step(&[best as u32], tokens.len(), LogitsWanted::Last);
            tokens.push(best as u32);
        }
        assert_eq!(tokens[prompt..], expected, "{}", golden.name);
    }
}
