//! `rollforge ppo --config`: proximal policy optimisation.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::{
    CheckpointConfig, Config, DeadlinesConfig, EmaConfig, InvariantsConfig, LogConfig, LoraConfig,
    MemoryConfig, MismatchAction, MismatchConfig, QueueConfig, RewardConfig, SamplingConfig,
    StopConfig, Violation,
    sections::{Shared, eval_has_data, model_beside, resolve, within},
};
use crate::{
    data::DataConfig,
    engine::{EngineConfig, Error as EngineError},
    trainer::batch::Normalization,
    trainer::config::{
        Apply, Device, LogprobTemperature, OldLogprobs, OptimizerConfig, PpoOptions,
        ScheduleConfig, ValueInit,
    },
};

/// A run of PPO.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PpoConfig {
    /// Where everything about the run is written.
    pub output_dir: PathBuf,
    /// Key of all random numbers. Default 0.
    #[serde(default)]
    pub seed: u64,
    /// Where the trainer computes. Default `cpu`.
    #[serde(default)]
    pub device: Device,
    /// Number of threads. Trainer and engine (where `engine.threads` does not say) each have all of them if they take turns,
    /// and share them out otherwise: `engine.threads` of them generate (default half), the others train. Default 0: every
    /// core.
    #[serde(default)]
    pub threads: usize,
    /// The policy and its reference.
    pub model: PolicyConfig,
    /// The prompts.
    pub data: DataConfig,
    /// Where rewards come from.
    pub reward: RewardConfig,
    /// The algorithm's options.
    #[serde(default)]
    pub ppo: PpoOptions,
    /// How completions are sampled.
    #[serde(default)]
    pub sampling: SamplingConfig,
    /// How generation and training take turns.
    #[serde(default)]
    pub queue: QueueConfig,
    /// How far engine and trainer may be apart.
    #[serde(default)]
    pub mismatch: MismatchConfig,
    /// How the engine is set up.
    #[serde(default)]
    pub engine: EngineConfig,
    /// Whether an adapter learns in place of the model.
    #[serde(default)]
    pub lora: LoraConfig,
    /// Whether an average of the weights is kept.
    #[serde(default)]
    pub ema: EmaConfig,
    /// How weights follow gradients.
    #[serde(default)]
    pub optimizer: OptimizerConfig,
    /// How the learning rate changes.
    #[serde(default)]
    pub schedule: ScheduleConfig,
    /// What the run checks of itself.
    #[serde(default)]
    pub invariants: InvariantsConfig,
    /// How long who waits for whom.
    #[serde(default)]
    pub deadlines: DeadlinesConfig,
    /// When checkpoints are written.
    #[serde(default)]
    pub checkpoint: CheckpointConfig,
    /// What happens when the run is asked to stop.
    #[serde(default)]
    pub stop: StopConfig,
    /// What is logged.
    #[serde(default)]
    pub log: LogConfig,
    /// Whether it may begin where it will not fit.
    #[serde(default)]
    pub memory: MemoryConfig,
    /// What is to go wrong. No part of what a resolved configuration says.
    #[cfg(feature = "fault-injection")]
    #[serde(default, skip_serializing)]
    pub faults: Vec<super::Fault>,
}

model_beside! {
    /// The `[model]` section of a run with a reference.
    PolicyConfig {
        /// The Hugging Face model directory the policy starts from.
        path,
        /// That of the reference policy. Default: `path`; under `[lora]` that is the policy with its adapter left out, and takes no
        /// memory.
        reference
    }
}

impl PolicyConfig {
    /// Returns the reference's model directory, where it is not the policy's own.
    pub fn other_reference(&self) -> Option<&Path> {
        self.reference.as_deref().filter(|path| *path != self.path)
    }
}

impl Config for PpoConfig {
    fn resolve(&mut self, folder: &Path) {
        resolve(folder, [&mut self.output_dir, &mut self.model.path]);
        self.lora.resolve(folder);
        resolve(folder, self.model.reference.as_mut());
        resolve(folder, self.data.train.iter_mut().chain(&mut self.data.eval));
        self.reward.resolve(folder, self.sampling.max_new_tokens);
        resolve(folder, self.engine.tensorrt_llm.engine_dir.as_mut());
        self.model.reference.get_or_insert_with(|| self.model.path.clone());
        self.ppo = self.ppo.resolved(self.optimizer.lr);
        if self.ppo.loss_normalization() == Normalization::SeqMeanTokenSumNorm {
            self.ppo.loss_length.get_or_insert(self.sampling.max_new_tokens);
        }
        if self.engine.threads == 0 {
            self.engine.threads = match self.queue.overlaps() {
                true => self.threads.div_ceil(2),
                false => self.threads,
            };
        }
        self.queue.max_staleness = Some(self.queue.max_staleness());
        let weighted = self.queue.overlaps() && self.ppo.old_logprobs == OldLogprobs::Recompute;
        let apply = if weighted { Apply::Always } else { Apply::OnMismatch };
        self.ppo.correction.apply.get_or_insert(apply);
        self.invariants.resolve(
            self.ppo.old_logprobs == OldLogprobs::Recompute,
            // An adapter that has learned is no part of the reference.
            self.model.reference.as_ref() == Some(&self.model.path) && self.lora.adapter.is_none(),
        );
        self.deadlines.resolve(self.engine.deadline_seconds);
        let held_out = !self.data.eval.is_empty();
        self.checkpoint.resolve(if held_out { "eval/scores" } else { "objective/scores" });
    }

    fn validate(&self) -> Result<(), Violation> {
        let shared = Shared {
            output_dir: &self.output_dir,
            model: &self.model.path,
            seed: self.seed,
            threads: self.threads,
            data: &self.data,
            learns: (self.model.freeze(), &self.lora, self.ema),
            optimizer: &self.optimizer,
            schedule: &self.schedule,
            checkpoint: &self.checkpoint,
            stop: &self.stop,
            log: &self.log,
        };
        shared.validate()?;
        within("ppo", self.ppo.validate())?;
        eval_has_data("ppo.eval_every", self.ppo.eval_every, &self.data)?;
        self.sampling.validate()?;
        self.engine.validate().map_err(engine_violation)?;
        self.queue.validate(self.engine.refit_in_flight)?;
        self.mismatch.validate()?;
        self.validate_mismatch()?;
        self.invariants.validate()?;
        self.deadlines.validate()?;
        self.validate_threads()?;
        self.validate_reward()?;
        self.validate_sampling()
    }

    fn arithmetic(&self) -> Vec<String> {
        let PpoOptions { prompts_per_iteration, samples_per_prompt, mini_batches, .. } = self.ppo;
        let (rollouts, epochs) = (self.ppo.rollout_batch(), self.ppo.epochs());
        let smallest = rollouts / mini_batches;
        let mini_batch = match rollouts.div_ceil(mini_batches) {
            largest if largest > smallest => format!("{smallest} to {largest}"),
            _ => smallest.to_string(),
        };
        let longest = self.data.max_tokens + self.sampling.max_new_tokens;
        vec![
            format!(
                "rollout batch: {prompts_per_iteration} prompts x {samples_per_prompt} samples = {rollouts} rollouts"
            ),
            format!(
                "optimizer steps: {epochs} epochs x {mini_batches} mini-batches of {mini_batch} rollouts = {} an \
                 iteration, {} in {} iterations",
                self.ppo.steps_per_iteration(),
                self.ppo.optimizer_steps(),
                self.ppo.iterations
            ),
            format!(
                "micro-batch: up to {} tokens, at least {} of the longest rollouts ({} + {} = {longest} tokens)",
                self.ppo.micro_batch_tokens,
                (self.ppo.micro_batch_tokens / longest).max(1),
                self.data.max_tokens,
                self.sampling.max_new_tokens,
            ),
        ]
    }
}

impl PpoConfig {
    /// Says whether the reference is the policy with its adapter left out, rather than a model of its own.
    pub fn is_own_reference(&self) -> bool {
        let reference = self.model.reference.as_ref();
        self.lora.is_on() && reference.is_none_or(|path| *path == self.model.path)
    }

    /// Says why engine and trainer cannot be asked to agree on log-probs, where that is so.
    pub fn not_comparable(&self) -> Option<&'static str> {
        let (ppo, sampling) = (&self.ppo, &self.sampling);
        if ppo.old_logprobs == OldLogprobs::Rollout {
            Some("ppo.old_logprobs is \"rollout\"")
        } else if sampling.cuts_off() {
            Some("sampling has top_k, top_p, min_p, repetition_penalty or min_new_tokens")
        } else if ppo.logprob_temperature == LogprobTemperature::One && sampling.temperature != 1.0
        {
            Some("ppo.logprob_temperature is \"one\" and sampling.temperature is not")
        } else {
            None
        }
    }

    /// Checks that a gate which is to act has something to look at.
    fn validate_mismatch(&self) -> Result<(), Violation> {
        let reason = self.not_comparable().unwrap_or_default();
        Violation::unless(
            reason.is_empty() || self.mismatch.action == MismatchAction::Warn,
            "mismatch.action",
            format!("\"warn\" where {reason}, for nothing can be compared then"),
            format!("{:?}", self.mismatch.action.name()),
        )
    }

    /// Checks that the engine leaves the trainer a thread.
    fn validate_threads(&self) -> Result<(), Violation> {
        let shared_out = self.queue.overlaps() && self.threads > 0;
        Violation::unless(
            !shared_out || self.engine.threads < self.threads.max(2),
            "engine.threads",
            format!(
                "below threads ({}), which it shares out where queue.mode overlaps",
                self.threads
            ),
            self.engine.threads,
        )
    }

    fn validate_reward(&self) -> Result<(), Violation> {
        self.reward.validate(self.sampling.max_new_tokens)?;
        let starts = self.ppo.has_critic() && self.ppo.value_init == ValueInit::RewardModel;
        Violation::unless(
            !starts || self.reward.critic().is_some(),
            "ppo.value_init",
            format!("\"policy\" where {}", self.reward.describe()),
            "\"reward_model\"",
        )
    }

    /// Checks what algorithm and sampling ask of each other.
    fn validate_sampling(&self) -> Result<(), Violation> {
        let (ppo, sampling) = (&self.ppo, &self.sampling);
        Violation::unless(
            sampling.temperature > 0.0,
            "sampling.temperature",
            "above 0, for greedy completions have nothing to be compared with",
            sampling.temperature,
        )?;
        // The engine's log-probs are then those of another distribution than the trainer's.
        Violation::unless(
            ppo.old_logprobs == OldLogprobs::Recompute || !sampling.cuts_off(),
            "ppo.old_logprobs",
            "\"recompute\" where sampling has top_k, top_p, min_p, repetition_penalty or min_new_tokens",
            "\"rollout\"",
        )?;
        let same = ppo.logprob_temperature == LogprobTemperature::Sampling;
        Violation::unless(
            ppo.old_logprobs == OldLogprobs::Recompute || same || sampling.temperature == 1.0,
            "ppo.logprob_temperature",
            "\"sampling\" where ppo.old_logprobs is \"rollout\"",
            "\"one\"",
        )?;
        Violation::unless(
            ppo.missing_eos_penalty == 0.0 || !sampling.ignore_eos,
            "ppo.missing_eos_penalty",
            "0 where sampling.ignore_eos is true",
            ppo.missing_eos_penalty,
        )?;
        Violation::unless(
            !(ppo.mask_unfinished && sampling.ignore_eos),
            "ppo.mask_unfinished",
            "false where sampling.ignore_eos is true",
            true,
        )
    }
}

pub(super) fn engine_violation(error: EngineError) -> Violation {
    match error {
        EngineError::Request { field, rule, got } => {
            Violation::new(format!("engine.{field}"), rule, got)
        }
        other => Violation::new("engine", "usable", other),
    }
}
