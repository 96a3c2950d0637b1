//! Whether the engine, after a refit, computes what the trainer computes.

use anyhow::Result;

use super::{Agreement, Metrics};
use crate::{
    data::PromptSample,
    engine::{CanaryConfig, Engine, EngineConfig, Request, SamplingParams, Verdict},
    rollout::{Prompt, PromptId, PromptTokens, Rollout},
    trainer::{
        batch::PackedBatch,
        learner::{LanguageModel, LogprobOptions},
    },
};

/// A few prompts that are continued greedily after each refit.
///
/// The engine's log-probabilities of these continuations must be the trainer's. Stale tensors, swapped layouts and KV
/// blocks of other weights all show here, whatever the way the weights took.
pub(super) struct Canary {
    prompts: Vec<PromptTokens>,
    config: CanaryConfig,
}

impl Canary {
    /// Takes the first prompts of the data: the same ones in every iteration, and in every run of the same data.
    pub(super) fn new(engine: &EngineConfig, prompts: &[PromptSample]) -> Self {
        let count = engine.canary.resolve_prompts(engine.backend);
        let prompts = prompts.iter().take(count).map(|prompt| prompt.tokens.clone()).collect();
        Self { prompts, config: engine.canary.clone() }
    }

    /// Compares engine and policy, which must hold the same weights, and tells the engine what came of it.
    ///
    /// # Errors
    /// When they differ by more than the threshold, naming the tensors at fault where the engine can find them.
    pub(super) fn check(&self, engine: &Engine, policy: &impl LanguageModel) -> Result<Metrics> {
        if self.prompts.is_empty() {
            return Ok(Metrics::default());
        }
        let rollouts = engine.blocking().generate_all(self.requests())?;
        let agreement = compare(&rollouts, policy)?;
        engine.blocking().conclude_refit(self.judge(agreement))?;
        Ok(Metrics::new()
            .with("parity/canary_mean_abs_dlogp", agreement.mean)
            .with("parity/canary_max_abs_dlogp", agreement.max))
    }

    fn judge(&self, agreement: Agreement) -> Verdict {
        if agreement.is_within(self.config.threshold) {
            return Verdict::Agrees;
        }
        let Agreement { mean, max } = agreement;
        Verdict::Differs {
            reason: format!(
                "log-probs of {} greedy continuations differ by {mean:.4} nats on average ({max:.4} at most), canary.threshold is {}",
                self.prompts.len(),
                self.config.threshold
            ),
            prompts: self.prompts.clone(),
            tokens: self.config.tokens,
        }
    }

    fn requests(&self) -> Vec<Request> {
        let sampling = std::sync::Arc::new(SamplingParams {
            temperature: 0.0,
            max_new_tokens: self.config.tokens,
            raw_logprobs: true,
            ..SamplingParams::default()
        });
        let request = |(id, tokens): (usize, &PromptTokens)| {
            let prompt = Prompt { id: PromptId(id as u64), tokens: tokens.clone() };
            Request::new(prompt, sampling.clone())
        };
        self.prompts.iter().enumerate().map(request).collect()
    }
}

/// Compares the engine's log-probs of greedy rollouts with a model's.
fn compare(rollouts: &[Rollout], policy: &impl LanguageModel) -> Result<Agreement> {
    let mut batch = PackedBatch::default();
    for rollout in rollouts {
        let sequence = rollout.sequence();
        let prompt = sequence.len() - rollout.completion.len();
        let mask: Vec<bool> = (0..sequence.len()).map(|t| t >= prompt).collect();
        batch.push(&sequence, &mask);
    }
    let trainer = policy.logprobs(&batch, &LogprobOptions::default())?.logprobs;
    let engine = rollouts.iter().flat_map(|rollout| rollout.raw_logprobs.iter().flatten());
    Ok(Agreement::between(engine, &trainer))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        engine::EngineModel,
        trainer::torch::{Model, ModelOptions},
    };

    fn canary(threshold: f64) -> Canary {
        let prompts = [vec![65u32, 66, 67], vec![72, 105]].map(PromptTokens::from).to_vec();
        Canary { prompts, config: CanaryConfig { threshold, ..CanaryConfig::default() } }
    }

    fn engine(model: EngineModel) -> Engine {
        Engine::builder().model(model).build().unwrap()
    }

    fn policy(model: &EngineModel) -> Model {
        Model::load(&model.spec, &model.weights, &ModelOptions::default()).unwrap()
    }

    #[test]
    fn an_engine_with_the_policys_weights_agrees_to_1e_4() {
        let model = EngineModel::tiny(3);
        let metrics = canary(1e-4).check(&engine(model.clone()), &policy(&model)).unwrap();
        assert!(metrics.get("parity/canary_max_abs_dlogp").unwrap() < 1e-4);
    }

    #[test]
    fn an_engine_with_other_weights_stops_the_run() {
        let stale = engine(EngineModel::tiny(3));
        let error = canary(1e-2).check(&stale, &policy(&EngineModel::tiny(4))).unwrap_err();
        let text = error.to_string();
        assert!(text.contains("does not agree with the trainer: log-probs of 2 greedy"), "{text}");
        assert!(text.ends_with("canary.threshold is 0.01"), "{text}");
    }

    #[test]
    fn a_difference_that_is_no_number_is_no_agreement() {
        let nan = Agreement { mean: f64::NAN, max: f64::NAN };
        assert!(matches!(canary(1.0).judge(nan), Verdict::Differs { .. }));
    }
}
