//! How long new weights take into an engine.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use serde::Serialize;

use super::{Measurements, Shape};
use crate::{
    engine::{
        BackendKind, Engine, EngineConfig, EngineModel, RefitMode, RefitReport, TensorRtLlmConfig,
    },
    rollout::{Dtype, WeightVersion},
    run::{
        engine_verify::{engine_dtype, renumbered},
        machine, model_directory,
    },
};

/// What is measured.
#[derive(Clone, Debug)]
pub struct RefitBench {
    /// Which engine takes the weights.
    pub backend: BackendKind,
    /// The model directory, or a run directory. None: a made-up Llama of 60 million weights, with the embedded engine
    /// only.
    pub model: Option<PathBuf>,
    /// The engine directory, with TensorRT-LLM. None: the double's, made for the occasion.
    pub engine_dir: Option<PathBuf>,
    /// Measure the contract double.
    pub double: bool,
    /// How the weights get in.
    pub mode: RefitMode,
    /// How often, after the first time.
    pub repeats: usize,
}

/// What came of it.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct RefitTimes {
    /// Which engine.
    pub backend: BackendKind,
    /// How the weights get in.
    pub mode: RefitMode,
    /// What the engine had to say: how the weights get in, that it is a double.
    pub notes: Vec<String>,
    /// Where it was measured.
    pub machine: String,
    /// Number of tensors.
    pub tensors: usize,
    /// Bytes of all weights.
    pub weight_bytes: usize,
    /// Bytes that each refit copied.
    pub copied_bytes: usize,
    /// Seconds of the first refit, which checks every tensor and binds it.
    pub first_seconds: f64,
    /// Seconds of each refit after that.
    pub seconds: Measurements,
}

impl RefitTimes {
    /// Returns the rate at which weights get in at the median, in GB/s. None where no byte moves: an alias has no rate.
    pub fn gigabytes_per_second(&self) -> Option<f64> {
        let moves = self.backend != BackendKind::Native || self.copied_bytes > 0;
        moves.then(|| self.weight_bytes as f64 / 1e9 / self.seconds.median().max(1e-9))
    }
}

/// Measures.
///
/// # Errors
/// One line: what is missing, or cannot be used.
pub fn refit(options: &RefitBench) -> Result<RefitTimes> {
    ensure!(options.repeats >= 1, "--repeats must be at least 1, got 0");
    let folder = tempfile::tempdir().context("cannot make a temporary folder")?;
    let (model, engine) = match options.backend {
        BackendKind::Native => native(options)?,
        BackendKind::TensorRtLlm => tensorrt_llm(options, folder.path())?,
    };
    let once = |version: usize| -> Result<RefitReport> {
        let weights = renumbered(&model.weights, WeightVersion(version as u64));
        Ok(engine.blocking().refit(&weights, options.mode)?)
    };
    let first = once(1)?;
    let reports: Vec<RefitReport> =
        (0..options.repeats).map(|number| once(number + 2)).collect::<Result<_>>()?;
    let seconds: Vec<f64> = reports.iter().map(|report| report.seconds).collect();
    Ok(RefitTimes {
        backend: options.backend,
        mode: options.mode,
        notes: engine.take_notes(),
        machine: machine::summary(),
        tensors: first.tensors,
        weight_bytes: model.weights.bytes(),
        copied_bytes: reports[0].bytes,
        first_seconds: first.seconds,
        seconds: seconds.into(),
    })
}

fn native(options: &RefitBench) -> Result<(EngineModel, Engine)> {
    ensure!(
        options.engine_dir.is_none() && !options.double,
        "--engine and --double go with --backend tensorrt-llm"
    );
    let config = EngineConfig::default();
    let model = match &options.model {
        Some(path) => EngineModel::open(&config, &model_directory(path))?,
        None => Shape::Llama60M.model(Dtype::F32),
    };
    let engine = Engine::builder().config(config).model(model.clone()).build()?;
    Ok((model, engine))
}

fn tensorrt_llm(options: &RefitBench, scratch: &Path) -> Result<(EngineModel, Engine)> {
    let path = options.model.as_deref();
    let path = path.context("--backend tensorrt-llm needs --model")?;
    let engine_dir = match (&options.engine_dir, options.double) {
        (Some(folder), _) => folder.clone(),
        (None, true) => double(path, &scratch.join("engine"))?,
        (None, false) => anyhow::bail!("--backend tensorrt-llm needs --engine"),
    };
    let dtype = engine_dtype(&engine_dir)?;
    let tensorrt_llm = TensorRtLlmConfig {
        engine_dir: Some(engine_dir),
        double: options.double,
        ..TensorRtLlmConfig::default()
    };
    let backend = BackendKind::TensorRtLlm;
    let config = EngineConfig { backend, dtype, tensorrt_llm, ..EngineConfig::default() };
    let model = EngineModel::open(&config, &model_directory(path))?;
    let engine = Engine::builder().config(config).model(model.clone()).build()?;
    Ok((model, engine))
}

/// Writes an engine of the contract double.
#[cfg(feature = "tensorrt-llm")]
fn double(model: &Path, out: &Path) -> Result<PathBuf> {
    use crate::run::engine_build::{EngineBuild, Product, Sizes, build};
    let request = EngineBuild {
        model: model.to_owned(),
        out: out.to_owned(),
        dtype: crate::rollout::Dtype::Bf16,
        tensor_parallel: 1,
        fused_mlp: false,
        sizes: Sizes::default(),
        product: Product::Double,
    };
    Ok(build(&request, &mut |_| ())?.path)
}

#[cfg(not(feature = "tensorrt-llm"))]
fn double(_: &Path, _: &Path) -> Result<PathBuf> {
    anyhow::bail!("--double needs a build with the feature `tensorrt-llm`")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn times(seconds: &[f64]) -> RefitTimes {
        RefitTimes {
            backend: BackendKind::Native,
            mode: RefitMode::Copy,
            notes: Vec::new(),
            machine: String::new(),
            tensors: 1,
            weight_bytes: 4_000_000_000,
            copied_bytes: 4_000_000_000,
            first_seconds: 9.0,
            seconds: seconds.to_vec().into(),
        }
    }

    #[test]
    fn an_alias_has_no_rate() {
        let copied = times(&[2.0]);
        assert_eq!(copied.gigabytes_per_second(), Some(2.0));
        assert_eq!(RefitTimes { copied_bytes: 0, ..copied }.gigabytes_per_second(), None);
    }
}
