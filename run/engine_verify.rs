//! Whether a TensorRT-LLM engine computes what the embedded engine computes from the same weights.

use std::path::{Path, PathBuf};

use anyhow::{Result, bail, ensure};
use rand::{Rng, SeedableRng};
use serde::Serialize;

use super::{Agreement, model_directory};
use crate::{
    engine::{
        BackendKind, Engine, EngineConfig, EngineDtype, EngineModel, RefitMode, RefitReport,
        Request, SamplingParams, TensorRtLlmConfig, Verdict,
    },
    model::tensorrt_llm::{EngineDir, Wanted},
    rollout::{Dtype, Prompt, PromptId, PromptTokens, Rollout, WeightVersion, Weights},
};

/// What is compared, and how.
#[derive(Clone, Debug)]
pub struct Verification {
    /// The engine directory.
    pub engine_dir: PathBuf,
    /// A model directory, or a run directory: then the policy as it was last saved.
    pub model: PathBuf,
    /// What is continued. Empty: four prompts of random tokens.
    pub prompts: Vec<Vec<u32>>,
    /// Tokens that each prompt is continued by.
    pub tokens: usize,
    /// Largest mean |difference| of log-probabilities (nats) that is agreement.
    pub threshold: f64,
    /// Verify with the contract double.
    pub double: bool,
    /// Threads of the embedded engine. 0 takes every core.
    pub threads: usize,
}

/// One prompt.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Row {
    /// Length of the prompt, in tokens.
    pub prompt_tokens: usize,
    /// Tokens it was continued by.
    pub tokens: usize,
    /// How far the engines are apart.
    #[serde(flatten)]
    pub agreement: Agreement,
}

/// What came of it.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Verified {
    /// A row for each prompt.
    pub rows: Vec<Row>,
    /// Over all tokens.
    #[serde(flatten)]
    pub total: Agreement,
    /// The refit before it.
    pub refit: RefitReport,
    /// What the engine had to say: how the weights got in, that it is a double.
    pub notes: Vec<String>,
    /// Why it is no agreement, with the tensors that refits do not reach, where they were found.
    pub failure: Option<String>,
}

/// Opens the engine, puts the model's weights in, continues prompts greedily, and compares each token's log-probability
/// with the embedded engine's.
///
/// # Errors
/// One line: a directory or prompt that cannot be used, an engine that is not the model's, a refit that failed.
pub fn verify(options: &Verification) -> Result<Verified> {
    let dir = EngineDir::open(&options.engine_dir)?;
    let dtype = engine_dtype(&options.engine_dir)?;
    let native = EngineConfig { dtype, threads: options.threads, ..EngineConfig::default() };
    let model = EngineModel::open(&native, &model_directory(&options.model))?;
    dir.check(&model.spec, &Wanted { refit: true, ..Wanted::default() })?;
    let prompts = prompts(options, &dir, model.spec.vocab_size)?;
    let engine = tensorrt_llm(options, dtype, &model)?;
    // The engine may hold weights already; what is to be trusted is a refit.
    let weights = renumbered(&model.weights, WeightVersion(1));
    let refit = engine.blocking().refit(&weights, RefitMode::Copy)?;
    let rollouts = engine.blocking().generate_all(requests(&prompts, options.tokens))?;
    let (rows, total) =
        compare(&rollouts, &Engine::builder().config(native).model(model).build()?)?;
    let failure = conclude(&engine, options, total, &prompts);
    Ok(Verified { rows, total, refit, notes: engine.take_notes(), failure })
}

/// Returns the number format in which weights must be offered to an engine.
///
/// # Errors
/// One line that names file and key, also for a format that weights are never offered in.
pub(super) fn engine_dtype(engine_dir: &Path) -> Result<EngineDtype> {
    match EngineDir::open(engine_dir)?.pretrained.spec.dtype {
        Dtype::Bf16 => Ok(EngineDtype::Bf16),
        Dtype::F32 => Ok(EngineDtype::F32),
        Dtype::F16 => bail!(
            "{}: pretrained_config.dtype must be float32 or bfloat16, got float16",
            engine_dir.join("config.json").display()
        ),
    }
}

fn prompts(
    options: &Verification,
    dir: &EngineDir,
    vocabulary: usize,
) -> Result<Vec<PromptTokens>> {
    let room = dir.build.max_input_len.min(dir.build.max_seq_len.saturating_sub(options.tokens));
    ensure!(
        room >= 1,
        "--tokens must leave room for a prompt in the engine's max_seq_len ({}), got {}",
        dir.build.max_seq_len,
        options.tokens
    );
    if options.prompts.is_empty() {
        let mut random = rand_chacha::ChaCha8Rng::seed_from_u64(0);
        let id = |random: &mut rand_chacha::ChaCha8Rng| random.random_range(0..vocabulary) as u32;
        let lengths = [1, 7, 16, 33].map(|length| room.min(length));
        return Ok(lengths
            .map(|n| (0..n).map(|_| id(&mut random)).collect::<Vec<_>>().into())
            .into());
    }
    for (number, prompt) in options.prompts.iter().enumerate() {
        let length = prompt.len();
        ensure!(
            (1..=room).contains(&length),
            "prompt {} must have from 1 to {room} tokens, which the engine has room for, got {length}",
            number + 1
        );
    }
    Ok(options.prompts.iter().cloned().map(PromptTokens::from).collect())
}

fn tensorrt_llm(options: &Verification, dtype: EngineDtype, model: &EngineModel) -> Result<Engine> {
    let tensorrt_llm = TensorRtLlmConfig {
        engine_dir: Some(options.engine_dir.clone()),
        double: options.double,
        ..TensorRtLlmConfig::default()
    };
    let config = EngineConfig {
        backend: BackendKind::TensorRtLlm,
        dtype,
        tensorrt_llm,
        ..EngineConfig::default()
    };
    Ok(Engine::builder().config(config).model(model.clone()).build()?)
}

/// Returns the same tensors as another version.
pub(super) fn renumbered(weights: &Weights, version: WeightVersion) -> Weights {
    let tensors = weights.iter().map(|(name, tensor)| (name.to_owned(), tensor.clone())).collect();
    Weights::new(version, weights.lease().clone(), tensors)
}

fn requests(prompts: &[PromptTokens], tokens: usize) -> Vec<Request> {
    let sampling = std::sync::Arc::new(SamplingParams {
        temperature: 0.0,
        max_new_tokens: tokens,
        ignore_eos: true,
        raw_logprobs: true,
        ..SamplingParams::default()
    });
    let request = |(id, tokens): (usize, &PromptTokens)| {
        let prompt = Prompt { id: PromptId(id as u64), tokens: tokens.clone() };
        Request::new(prompt, sampling.clone())
    };
    prompts.iter().enumerate().map(request).collect()
}

fn compare(rollouts: &[Rollout], judge: &Engine) -> Result<(Vec<Row>, Agreement)> {
    let (mut rows, mut ours, mut theirs) = (Vec::new(), Vec::new(), Vec::new());
    for rollout in rollouts {
        let said = rollout.raw_logprobs.as_deref().unwrap_or_default();
        let scores = judge.blocking().score(rollout.sequence())?;
        // The last ones are those of the completion.
        let scores = &scores[scores.len() - rollout.completion.len()..];
        ensure!(
            said.len() == scores.len(),
            "the engine must give a log-prob for each of {} tokens, got {}",
            scores.len(),
            said.len()
        );
        rows.push(Row {
            prompt_tokens: rollout.prompt.tokens.ids().len(),
            tokens: scores.len(),
            agreement: Agreement::between(said, scores),
        });
        theirs.extend_from_slice(said);
        ours.extend_from_slice(scores);
    }
    Ok((rows, Agreement::between(&theirs, &ours)))
}

/// Tells the engine what came of it, and returns what it makes of a disagreement.
fn conclude(
    engine: &Engine,
    options: &Verification,
    total: Agreement,
    prompts: &[PromptTokens],
) -> Option<String> {
    let verdict = match total.is_within(options.threshold) {
        true => Verdict::Agrees,
        false => Verdict::Differs {
            reason: format!(
                "log-probs of {} greedy continuations differ by {:.4} nats on average ({:.4} at most), the threshold is {}",
                prompts.len(),
                total.mean,
                total.max,
                options.threshold
            ),
            prompts: prompts.to_vec(),
            tokens: options.tokens,
        },
    };
    engine.blocking().conclude_refit(verdict).err().map(|error| error.to_string())
}

#[cfg(test)]
#[cfg(feature = "tensorrt-llm")]
mod tests {
    use super::*;
    use crate::{
        engine::tensorrt_llm::{DoubleBuild, write_double_engine},
        model::{Companions, write_model},
    };

    /// Verifies an engine of the double that was built with other weights than the model's.
    fn verified(script: &[&str]) -> Verified {
        let folder = tempfile::tempdir().unwrap();
        let (engine_dir, path) = (folder.path().join("engine"), folder.path().join("model"));
        let (model, built) = (EngineModel::tiny(2), EngineModel::tiny(1));
        write_model(&path, &model.spec, &model.weights, &Companions::default()).unwrap();
        let script = script.iter().map(ToString::to_string).collect();
        let build = DoubleBuild { script, ..DoubleBuild::default() };
        write_double_engine(&engine_dir, &built.spec, &built.weights, &build).unwrap();
        let (prompts, tokens, threshold) = (Vec::new(), 5, 1e-3);
        let options = Verification {
            engine_dir,
            model: path,
            prompts,
            tokens,
            threshold,
            double: true,
            threads: 1,
        };
        verify(&options).unwrap()
    }

    #[test]
    fn an_engine_built_with_other_weights_agrees_after_the_refit() {
        let verified = verified(&[]);
        assert_eq!(verified.failure, None);
        assert_eq!(verified.rows.iter().map(|row| row.tokens).sum::<usize>(), 20);
        assert!(verified.total.max < 1e-3, "{verified:?}");
    }

    #[test]
    fn a_tensor_that_refits_skip_is_named() {
        let name = "transformer.layers.1.attention.dense.weight";
        let verified = verified(&[&format!("fault commit 0 skip:{name}")]);
        let failure = verified.failure.unwrap();
        assert!(failure.contains("the threshold is 0.001"), "{failure}");
        assert!(failure.ends_with(&format!("refits do not reach {name}")), "{failure}");
        assert!(!verified.total.is_within(1e-3));
    }
}
