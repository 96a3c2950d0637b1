//! The policy's loss: a surrogate of the advantage, KL and entropy.

use super::{Trajectories, stats::PolicyTally};
use crate::trainer::{
    batch::MicroBatch,
    config::{KlPlace, PolicyLossKind, PpoOptions},
    kl::KlEstimator,
    learner::{TokenGradient, TokenLogprobs},
    loss::{
        RatioClip, cispo, clipped_surrogate, negative_log_likelihood, ratio, sequence_log_ratios,
    },
};

/// The policy's loss of a token, with the options that shape it.
pub(super) struct PolicyLoss {
    kind: PolicyLossKind,
    clip: RatioClip,
    kl: Option<(KlEstimator, f64)>,
    entropy_coef: f64,
}

impl PolicyLoss {
    pub(super) fn new(options: &PpoOptions, kl_coef: f64) -> Self {
        let in_loss = options.kl_in() == KlPlace::Loss && kl_coef > 0.0;
        Self {
            kind: options.policy_loss(),
            clip: RatioClip {
                low: options.clip_range(),
                high: options.clip_range_high(),
                dual: options.dual_clip,
                max_log_ratio: options.max_log_ratio,
            },
            kl: in_loss.then_some((options.kl_estimator(), kl_coef)),
            entropy_coef: options.entropy_coef,
        }
    }

    /// Returns the loss's derivatives with respect to a micro-batch's log-probs and entropies.
    ///
    /// ```text
    /// loss_t = weight_t (w_t surrogate_t + kl_coef kl_t - entropy_coef H_t)    the KL only where it is in the loss
    /// ```
    pub(super) fn gradients(
        &self,
        out: &TokenLogprobs,
        micro_batch: &MicroBatch,
        trajectories: &Trajectories,
        tally: &mut PolicyTally,
    ) -> TokenGradient {
        let old = &trajectories.old_logprobs[micro_batch.rows.clone()];
        let pairs = out.logprobs.iter().zip(old);
        let own: Vec<f64> = pairs.map(|(&lp, &old)| f64::from(lp) - f64::from(old)).collect();
        let log_ratios = match self.kind {
            // A completion is never cut: its tokens are all in this micro-batch.
            PolicyLossKind::Gspo => {
                sequence_log_ratios(&own, micro_batch.packed.selected_lengths())
            }
            _ => own.clone(),
        };
        let mut gradients = TokenGradient::default();
        for (n, t) in micro_batch.rows.clone().enumerate() {
            let logprob = f64::from(out.logprobs[n]);
            let weight = f64::from(trajectories.policy_weights[t]);
            let advantage = trajectories.advantages[t].into();
            let importance = trajectories.importance_weights[t].into();
            let mut term = match self.kind {
                PolicyLossKind::Ppo | PolicyLossKind::Gspo => {
                    clipped_surrogate(log_ratios[n], 0.0, advantage, &self.clip)
                }
                PolicyLossKind::Cispo => {
                    cispo(logprob, logprob - log_ratios[n], advantage, &self.clip)
                }
                PolicyLossKind::Reinforce => negative_log_likelihood(logprob).times(advantage),
            }
            .times(importance);
            let surrogate = term.loss;
            if let Some((estimator, coef)) = self.kl {
                let reference = trajectories.ref_logprobs[t].into();
                term.loss += coef * estimator.value(logprob, reference);
                term.gradient += coef * estimator.gradient(logprob, reference);
            }
            let entropy = f64::from(out.entropy[n]);
            term.loss -= self.entropy_coef * entropy;
            gradients.logprobs.push((term.gradient * weight) as f32);
            if self.entropy_coef > 0.0 {
                gradients.entropy.push((-self.entropy_coef * weight) as f32);
            }
            if weight > 0.0 {
                let ratio = ratio(log_ratios[n], 0.0, self.clip.max_log_ratio);
                tally.token(&term, weight, (surrogate, own[n], ratio, entropy));
            }
        }
        gradients
    }
}
