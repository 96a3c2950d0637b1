//! How long new weights take into an engine.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context, Result, ensure};

use super::{Report, Row, Shape, Subject, Unit, turns::at_least};
use crate::{
    engine::{
        BackendKind, Engine, EngineConfig, EngineModel, RefitMode, RefitReport, TensorRtLlmConfig,
    },
    rollout::{Dtype, WeightVersion},
    run::{
        engine_verify::{engine_dtype, renumbered},
        model_directory,
    },
};

/// How long to wait for somebody who reads the weights: nobody does.
const PATIENCE: Duration = Duration::from_secs(1);

/// What is measured.
#[derive(Clone, Debug)]
pub struct RefitBench {
    /// Which engine takes the weights.
    pub backend: BackendKind,
    /// The model; made up with the embedded engine only. None: a Llama of 60 million weights.
    pub model: Option<Subject>,
    /// The engine directory, with TensorRT-LLM. None: the double's, made for the occasion.
    pub engine_dir: Option<PathBuf>,
    /// Measure the contract double.
    pub double: bool,
    /// How the weights get in, each to be measured. Empty: by alias and by copy with the embedded engine, else the one
    /// way there is.
    pub modes: Vec<RefitMode>,
    /// Threads. 0 takes every core.
    pub threads: usize,
    /// How often each, after a first time, which checks every tensor and binds it.
    pub repeats: usize,
}

/// Measures; `progress` hears what comes next.
///
/// # Errors
/// One line: what is missing, or cannot be used.
pub fn refit(options: &RefitBench, progress: &mut dyn FnMut(&str)) -> Result<Report> {
    at_least("--repeats", 1, [options.repeats])?;
    let folder = tempfile::tempdir().context("cannot make a temporary folder")?;
    let native = options.backend == BackendKind::Native;
    ensure!(
        !native || (options.engine_dir.is_none() && !options.double),
        "--engine and --double go with --backend tensorrt-llm"
    );
    let (config, model) =
        if native { embedded(options)? } else { tensorrt_llm(options, folder.path())? };
    let mut report = Report::begin("refit", options.threads, progress)?;
    let config = EngineConfig { threads: report.limits.threads, ..config };
    let engine = Engine::builder().config(config).model(model.clone()).build()?;
    report.set("backend", if native { "native" } else { "tensorrt-llm" });
    report.set("double", options.double);
    let name = options.model.as_ref().map_or("60M".into(), Subject::name);
    report.set("model", name);
    report.set("weight_bytes", model.weights.bytes());
    report.set("tensors", model.weights.iter().count());
    let modes = match &*options.modes {
        [] if native => &[RefitMode::Alias, RefitMode::Copy][..],
        [] => &[RefitMode::Alias],
        modes => modes,
    };
    let mut version = 0;
    for Way { name, mode, found_finite } in modes.iter().flat_map(|&mode| ways(mode, native)) {
        let mut once = || -> Result<RefitReport> {
            version += 1;
            // As in a run, where an optimizer step comes before.
            let written = model.weights.lease().write(PATIENCE);
            drop(written.context("somebody goes on reading the weights")?);
            let weights = renumbered(&model.weights, WeightVersion(version));
            let weights = if found_finite { weights.found_finite() } else { weights };
            Ok(engine.blocking().refit(&weights, mode)?)
        };
        progress(&format!("refit by {name}"));
        let first = once()?;
        let later: Vec<RefitReport> =
            (0..options.repeats).map(|_| once()).collect::<Result<_>>()?;
        report.set(&format!("{name}_copied_bytes"), later[0].bytes);
        report.set(&format!("{name}_first_us"), 1e6 * first.seconds);
        let seconds: Vec<f64> = later.iter().map(|refit| refit.seconds).collect();
        // An alias has no rate: no byte moves. Into a GPU all do.
        let limit = native.then_some(report.limits.copy_gb_per_s);
        let moved = if native { later[0].bytes } else { model.weights.bytes() };
        report.rows.extend(rows(name, &seconds, moved, limit)?);
    }
    report.notes.extend(engine.take_notes());
    if options.double {
        report.notes.push("the contract double: no measure of a GPU".into());
    }
    Ok(report)
}

/// A way for weights to get in.
struct Way {
    name: &'static str,
    mode: RefitMode,
    /// Whether the engine is told that every number is finite, as a run's trainer says once it has looked.
    found_finite: bool,
}

/// Returns how a mode is measured: an alias in both ways with the embedded engine.
fn ways(mode: RefitMode, native: bool) -> Vec<Way> {
    let way = |name, found_finite| Way { name, mode, found_finite };
    match mode {
        RefitMode::Alias if native => vec![way("alias", true), way("alias_checked", false)],
        RefitMode::Alias => vec![way("alias", false)],
        RefitMode::Copy => vec![way("copy", false)],
    }
}

/// Returns the times, and where bytes moved their rate, of which `limit` is the most.
fn rows(mode: &str, seconds: &[f64], moved: usize, limit: Option<f64>) -> Result<Vec<Row>> {
    let stem = format!("refit_{mode}");
    let times = seconds.iter().map(|seconds| 1e6 * seconds).collect();
    let mut rows = vec![Row::new(&stem, Unit::Microseconds, times, None)?];
    if moved > 0 {
        let rate = |seconds: &f64| moved as f64 / 1e9 / seconds.max(1e-9);
        let rates = seconds.iter().map(rate).collect();
        rows.push(Row::new(&stem, Unit::GigabytesPerSecond, rates, limit)?);
    }
    Ok(rows)
}

fn embedded(options: &RefitBench) -> Result<(EngineConfig, EngineModel)> {
    let config = EngineConfig::default();
    let model = match &options.model {
        Some(Subject::Directory(path)) => EngineModel::open(&config, &model_directory(path))?,
        Some(Subject::Shape(shape)) => shape.model(Dtype::F32),
        None => Shape::Llama60M.model(Dtype::F32),
    };
    Ok((config, model))
}

fn tensorrt_llm(options: &RefitBench, scratch: &Path) -> Result<(EngineConfig, EngineModel)> {
    let path = match &options.model {
        Some(Subject::Directory(path)) => Some(path.as_path()),
        Some(Subject::Shape(_)) | None => None,
    };
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
    Ok((config, model))
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

    #[test]
    fn an_alias_has_no_rate() {
        let copied = rows("copy", &[2.0], 4_000_000_000, Some(8.0)).unwrap();
        assert_eq!(copied[0].values.median(), 2e6);
        assert_eq!((copied[1].values.median(), copied[1].share()), (2.0, Some(0.25)));
        assert_eq!(rows("alias", &[2.0], 0, Some(8.0)).unwrap().len(), 1);
    }
}
