//! An engine of each kind over the same model.

#[cfg(feature = "tensorrt-llm")]
use rollforge::engine::tensorrt_llm::{DoubleBuild, write_double_engine};
use rollforge::{
    engine::{Engine, EngineConfig, EngineModel, Error, Request, SamplingParams},
    rollout::{Prompt, PromptId, Rollout, WeightVersion, Weights},
};

/// A backend of this build.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// The embedded engine.
    Native,
    /// TensorRT-LLM's backend over the contract double.
    #[cfg(feature = "tensorrt-llm")]
    Double,
    /// TensorRT-LLM's backend over the shim, over a stand-in.
    #[cfg(all(feature = "tensorrt-llm", not(trtllm_linked)))]
    StandIn,
}

/// An engine, and the directory it was made of.
pub struct World {
    pub engine: Engine,
    _dir: tempfile::TempDir,
}

impl Kind {
    /// Starts an engine over the model.
    pub fn open(self, model: &EngineModel, change: impl FnOnce(&mut EngineConfig)) -> World {
        self.try_open(model, &[], change).unwrap()
    }

    /// Starts an engine; `plan` are further lines of the double's plan.
    pub fn try_open(
        self,
        model: &EngineModel,
        plan: &[&str],
        change: impl FnOnce(&mut EngineConfig),
    ) -> Result<World, Error> {
        let dir = tempfile::tempdir().unwrap();
        let mut config = EngineConfig {
            threads: 1,
            max_batch: 4,
            deadline_seconds: 30.0,
            ..EngineConfig::default()
        };
        change(&mut config);
        let engine = match self {
            Self::Native => {
                assert!(plan.is_empty(), "the embedded engine has no plan");
                Engine::builder().config(config).model(model.clone()).build()?
            }
            #[cfg(feature = "tensorrt-llm")]
            Self::Double => {
                self.prepare(dir.path(), model, plan, &mut config);
                Engine::builder().config(config).model(model.clone()).build()?
            }
            #[cfg(all(feature = "tensorrt-llm", not(trtllm_linked)))]
            Self::StandIn => {
                use rollforge::{engine::tensorrt_llm::TensorRtLlm, ffi::tensorrt_llm::Library};
                self.prepare(dir.path(), model, plan, &mut config);
                let backend = TensorRtLlm::open_with(Library::TensorRtLlm, &config, model.clone())?;
                let tokenizer = model.tokenizer.clone();
                Engine::builder().config(config).backend(Box::new(backend), tokenizer).build()?
            }
        };
        Ok(World { engine, _dir: dir })
    }

    #[cfg(feature = "tensorrt-llm")]
    fn prepare(
        self,
        dir: &std::path::Path,
        model: &EngineModel,
        plan: &[&str],
        config: &mut EngineConfig,
    ) {
        let script: Vec<String> = plan.iter().map(ToString::to_string).collect();
        let refittable = !script.contains(&"refittable 0".to_owned());
        let script = if refittable { script } else { Vec::new() };
        write_engine(dir, model, &DoubleBuild { script, refittable, ..DoubleBuild::default() });
        config.backend = rollforge::engine::BackendKind::TensorRtLlm;
        config.tensorrt_llm.engine_dir = Some(dir.to_owned());
        config.tensorrt_llm.double = self == Self::Double;
    }
}

/// Writes an engine of the double that holds other weights than the model's, so that opening it must put them in. Gate and
/// up are tensors of their own.
#[cfg(feature = "tensorrt-llm")]
pub fn write_engine(dir: &std::path::Path, model: &EngineModel, build: &DoubleBuild) {
    let built_with = EngineModel::tiny(99);
    let weights = if build.refittable { &built_with.weights } else { &model.weights };
    let build = DoubleBuild { fused_mlp: false, max_batch_size: 8, ..build.clone() };
    write_double_engine(dir, &model.spec, weights, &build).unwrap();
}

impl World {
    /// Generates, in the order of prompts and samples.
    pub fn rollouts(&self, requests: Vec<Request>) -> Vec<Rollout> {
        let mut rollouts = self.engine.blocking().generate_all(requests).unwrap();
        rollouts.sort_by_key(|rollout| (rollout.prompt.id, rollout.sample));
        rollouts
    }

    /// Generates from one request.
    pub fn one(&self, request: Request) -> Rollout {
        self.engine.blocking().generate(request).unwrap().remove(0)
    }
}

/// Prompts of different lengths, all asked the same.
pub fn requests(count: u64, sampling: &SamplingParams) -> Vec<Request> {
    let prompt = |id: u64| {
        let tokens: Vec<u32> =
            (0..3 + id % 29).map(|at| ((id + 1) * (at + 3) % 251) as u32).collect();
        Prompt { id: PromptId(id), tokens: tokens.into() }
    };
    (0..count).map(|id| Request::new(prompt(id), sampling.clone())).collect()
}

/// Sampling that differs from a short sample at temperature 1 by `change`.
pub fn sampling(change: impl FnOnce(&mut SamplingParams)) -> SamplingParams {
    let mut sampling = SamplingParams { max_new_tokens: 12, seed: 3, ..SamplingParams::default() };
    change(&mut sampling);
    sampling
}

/// Greedy, with the model's own log-probs.
pub fn greedy() -> SamplingParams {
    sampling(|s| (s.temperature, s.raw_logprobs, s.ignore_eos) = (0.0, true, true))
}

/// The same weights under another version.
pub fn version(weights: &Weights, version: u64) -> Weights {
    let tensors = weights.iter().map(|(name, tensor)| (name.to_owned(), tensor.clone())).collect();
    Weights::new(WeightVersion(version), weights.lease().clone(), tensors)
}

/// Checks that both say the same: tokens alike, log-probs to a thousandth.
pub fn assert_alike(got: &[Rollout], wanted: &[Rollout]) {
    assert_eq!(got.len(), wanted.len());
    for (got, wanted) in got.iter().zip(wanted) {
        assert_eq!(got.completion, wanted.completion, "prompt {}", got.prompt.id.0);
        assert_eq!(got.stop, wanted.stop);
        let (got, wanted) = (got.raw_logprobs.as_ref(), wanted.raw_logprobs.as_ref());
        for (got, wanted) in got.unwrap().iter().zip(wanted.unwrap()) {
            assert!((got - wanted).abs() < 1e-3, "{got} is not {wanted}");
        }
    }
}
