//! What a run of PPO is made of: the models, and the engine over the policy's own weights.

use std::collections::BTreeMap;

use anyhow::Result;

use crate::{
    config::PpoConfig,
    data::PromptSample,
    engine::{BackendKind, Engine, EngineConfig, EngineModel, RefitMode},
    model::Model,
    rollout::{Dtype, WeightVersion, Weights},
    run::{
        faults::Faults,
        models::{self, Learning, Wanted},
        placement::Placement,
    },
    trainer::{
        config::ValueInit,
        learner::LanguageModel,
        ppo::{Ppo, PpoModels, PpoSetup},
        torch::{self, LearningModel, ModelOptions},
    },
};

/// What learns.
pub(super) type Trainer = Ppo<LearningModel, LearningModel>;

/// Returns the most tokens that a prompt and its completion can have.
pub(super) fn longest_rollout(config: &PpoConfig, base: &Model, prompts: &[PromptSample]) -> usize {
    let prompt = prompts.iter().map(|prompt| prompt.tokens.ids().len()).max().unwrap_or_default();
    prompt.saturating_add(config.sampling.max_new_tokens).min(base.spec().max_positions)
}

/// Loads the policy, and reference and critic where they are asked.
pub(super) fn trainer(config: &PpoConfig, base: &Model, longest: usize) -> Result<Trainer> {
    let learning = Learning {
        model: config.model.trained(),
        device: config.device,
        seed: config.seed,
        optimizer: &config.optimizer,
        lora: &config.lora,
        ema: config.ema,
    };
    let policy = learning.learner(base, Wanted::LanguageModel)?;
    // Without a penalty nobody asks the reference; a policy with an adapter is its own.
    let reference = match config.ppo.has_reference() && !config.is_own_reference() {
        true => Some(reference(config, base, longest, &learning.options())?),
        false => None,
    };
    let critic = match (config.ppo.value_init, config.reward.critic()) {
        _ if !config.ppo.has_critic() => None,
        (ValueInit::RewardModel, Some((path, weights))) => {
            Some(learning.critic(&models::open(path)?, weights)?)
        }
        _ => Some(learning.critic(base, &BTreeMap::new())?),
    };
    let setup = PpoSetup {
        options: config.ppo.clone(),
        optimizer: config.optimizer.clone(),
        schedule: config.schedule.clone(),
        temperature: config.sampling.temperature.into(),
        seed: config.seed,
    };
    Ok(Ppo::new(PpoModels { policy, reference, critic }, setup)?)
}

/// Loads what the KL is taken against.
fn reference(
    config: &PpoConfig,
    base: &Model,
    longest: usize,
    options: &ModelOptions,
) -> Result<Box<dyn LanguageModel + Send>> {
    let opened = models::open(config.model.reference.as_ref().unwrap_or(&config.model.path))?;
    models::check_reader(base, &opened, longest)?;
    let frozen = ModelOptions { frozen: true, ..*options };
    Ok(Box::new(models::load(&opened, Wanted::LanguageModel, &frozen)?))
}

/// Starts an engine over the policy's weights: its own memory, or a copy where the policy moves on while the engine
/// generates.
pub(super) fn engine(
    config: &PpoConfig,
    placement: &Placement,
    base: &Model,
    (policy, version): (&torch::Model, WeightVersion),
) -> Result<Engine> {
    let dtype = engine_dtype(config);
    let mut spec = policy.spec().clone();
    spec.dtype = dtype;
    let model = EngineModel {
        spec,
        weights: weights(config, policy, version)?,
        eos: base.generation.eos_token_ids.clone(),
        tokenizer: base.tokenizer.clone(),
    };
    let threads = placement.engine_threads;
    let options = EngineConfig { threads, ..config.engine.clone() };
    let faults = Faults::of(config);
    let engine = placement.beside_trainer(|| Ok(faults.engine(options, model)?))?;
    if refit_mode(config) == RefitMode::Copy {
        engine.blocking().refit(&weights(config, policy, version)?, RefitMode::Copy)?;
    }
    Ok(engine)
}

/// Checks that every weight of policy and critic is finite, so that a checkpoint may hold it.
pub(super) fn check_weights(trainer: &Trainer) -> Result<(), String> {
    let critic = trainer.critic().map(|critic| ("critic", &critic.model));
    let policy = ("policy", &trainer.policy().model);
    std::iter::once(policy).chain(critic).try_for_each(|(name, model)| {
        model.check_finite().map_err(|error| format!("in the {name}: {error}"))
    })
}

/// An alias costs nothing, but an optimizer step under it would change the weights of what is being generated. (An adapter
/// is merged into a copy that the engine then has to itself; the mode is no other for it.)
pub(super) fn refit_mode(config: &PpoConfig) -> RefitMode {
    if config.queue.overlaps() { RefitMode::Copy } else { RefitMode::Alias }
}

/// Returns the policy's weights where the engine reads them: TensorRT-LLM on the trainer's device, the others on the host.
pub(super) fn weights(
    config: &PpoConfig,
    policy: &torch::Model,
    version: WeightVersion,
) -> Result<Weights> {
    let dtype = engine_dtype(config);
    let on_device =
        config.engine.backend == BackendKind::TensorRtLlm && !config.engine.tensorrt_llm.double;
    Ok(match on_device {
        true => policy.device_weights(version, dtype)?,
        false => policy.weights(version, dtype)?,
    })
}

/// The engine computes in the format the trainer computes in, unless told otherwise.
fn engine_dtype(config: &PpoConfig) -> Dtype {
    config.engine.dtype.resolve(config.model.dtype.into())
}
