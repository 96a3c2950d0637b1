//! Options of knowledge distillation.

use serde::{Deserialize, Serialize};

use super::{OptionError, at_least_one, ensure, not_negative, positive};
use crate::trainer::batch::Normalization;

/// How far apart teacher and student are taken to be.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Divergence {
    /// `KL(teacher || student)`: the student covers all that the teacher would say.
    #[default]
    Forward,
    /// `KL(student || teacher)`: the student says only what the teacher would say.
    Backward,
    /// The generalised Jensen-Shannon divergence between the two.
    Js,
}

/// Options of knowledge distillation.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct DistillOptions {
    /// Passes over the data. Default 1.
    pub epochs: usize,
    /// Ends the run after so many optimizer steps. Default 0: when the epochs are over.
    pub max_steps: u64,
    /// Sequences of one optimizer step. Default 128.
    pub batch_size: usize,
    /// Tokens of one forward pass; a longer sequence goes alone. Affects memory and speed, not the result. Default 8192.
    pub micro_batch_tokens: usize,
    /// Fill each forward pass with whatever sequences fit best, as in supervised fine-tuning. Default true.
    pub packing: bool,
    /// What a token weighs in the loss. Default `token-mean`.
    pub loss_normalization: Normalization,
    /// How far apart teacher and student are taken to be. Default `forward`.
    pub kl: Divergence,
    /// What the teacher weighs in the mixture of `js`: near 0 it is the forward KL times `js_beta`, near 1 the backward KL times
    /// `1 - js_beta`. Default 0.5, where it is symmetric.
    pub js_beta: f64,
    /// The teacher's most probable tokens that are compared; at most the vocabulary. Each takes 8 bytes for each completion
    /// token. Default 100.
    pub top_k: usize,
    /// Compare distributions over those tokens alone. Otherwise all other tokens together are one more outcome. Default true.
    pub renormalize: bool,
    /// Logits of both are divided by it first. Default 1.
    pub temperature: f64,
    /// Weight of the divergence. Default 1.
    pub kd_weight: f64,
    /// Weight of the negative log-likelihood of the data's own tokens. Default 0.
    pub sft_weight: f64,
    /// Judge the held-out sequences every so many optimizer steps. Default 0: at the end only.
    pub eval_every: u64,
}

impl Default for DistillOptions {
    fn default() -> Self {
        Self {
            epochs: 1,
            max_steps: 0,
            batch_size: 128,
            micro_batch_tokens: 8192,
            packing: true,
            loss_normalization: Normalization::TokenMean,
            kl: Divergence::Forward,
            js_beta: 0.5,
            top_k: 100,
            renormalize: true,
            temperature: 1.0,
            kd_weight: 1.0,
            sft_weight: 0.0,
            eval_every: 0,
        }
    }
}

impl DistillOptions {
    /// Checks every range.
    ///
    /// # Errors
    /// Names the first option out of its range.
    pub fn validate(&self) -> Result<(), OptionError> {
        at_least_one("epochs", self.epochs)?;
        at_least_one("batch_size", self.batch_size)?;
        at_least_one("micro_batch_tokens", self.micro_batch_tokens)?;
        ensure(
            self.loss_normalization != Normalization::SeqMeanTokenSumNorm,
            "loss_normalization",
            "one without a constant",
            "seq-mean-token-sum-norm",
        )?;
        let within = self.js_beta > 0.0 && self.js_beta < 1.0;
        ensure(within, "js_beta", "between 0 and 1", self.js_beta)?;
        at_least_one("top_k", self.top_k)?;
        positive("temperature", self.temperature)?;
        positive("kd_weight", self.kd_weight)?;
        not_negative("sft_weight", self.sft_weight)
    }
}
