//! SteerLM 2.0 (Wang et al., 2024, HelpSteer2, section 4.2 and appendix): a policy conditioned on attributes learns from several
//! responses to each prompt, as a reward model that knows the attributes would choose among them.
//!
//! ```text
//! for each optimizer step, for each prompt x with attributes a and responses y_1 ... y_n
//!     w    = softmax_i(log P(a | x, y_i) + log P(y_i | x) - log Q'(y_i | a, x))
//!     b    = softmax_i(log Q(y_i | a, x) - log Q'(y_i | a, x))          a constant to the gradient
//!     loss = sum_i (w_i - b_i) nll_i / mean tokens of a response        mean over prompts
//!     policy Q follows the gradient
//! ```
//!
//! `Q'` sampled the responses, `P(y | x)` is a policy without attributes, `P(a | x, y)` a reward model: the data say what they
//! said. The gradient is that of `KL(w || b)` by importance sampling; it ends when the policy would choose as they would.

use super::{
    Error,
    batch::{MaskedSequence, MicroBatch, Plan, micro_batches},
    config::{OptionError, SteerLm2Options},
    learner::{Entropy, LanguageLearner, LogprobOptions, TokenGradient},
    loss::log_softmax,
    offline::{Findings, Objective, OfflineTrainer, Pass},
};

/// A policy that learns from groups of responses.
pub type SteerLm2<L> = OfflineTrainer<L, SteerLm2Options>;

/// A response with its prompt, and what was thought of it before. All log-probs are sums over its tokens (nats).
#[derive(Clone, Copy, Debug)]
pub struct SteerResponse<'a> {
    /// Prompt, attributes and response; the mask is that of the response.
    pub sequence: MaskedSequence<'a>,
    /// `log P(a | x, y)`: how probable a reward model finds the attributes.
    pub log_attributes: f64,
    /// `log P(y | x)`: how probable a policy finds the response that does not know them.
    pub log_prior: f64,
    /// `log Q'(y | a, x)`: how probable the policy found it that sampled it.
    pub log_proposal: f64,
}

/// How groups of responses were judged. All are means over groups.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct SteerLm2Stats {
    /// The loss. It says little by itself: 0 is where the policy chooses as it should.
    pub loss: f64,
    /// `KL(w || b)` (nats): how far the policy's choice is from the one it is to make.
    pub distance: f64,
    /// Negative log-likelihood of a token of the response with the largest `w`.
    pub nll: f64,
}

/// Metrics have the names that NeMo-Aligner uses.
impl Findings for SteerLm2Stats {
    fn loss(&self) -> f64 {
        self.loss
    }

    fn metrics(&self) -> Vec<(&'static str, f64)> {
        vec![("loss", self.loss), ("distance", self.distance), ("nll_loss", self.nll)]
    }

    fn eval_metrics(&self) -> Vec<(&'static str, f64)> {
        vec![
            ("eval/loss", self.loss),
            ("eval/distance", self.distance),
            ("eval/nll_loss", self.nll),
        ]
    }
}

impl<L: LanguageLearner> Objective<L> for SteerLm2Options {
    type Sample<'a> = &'a [SteerResponse<'a>];
    type Findings = SteerLm2Stats;

    fn validate(&self) -> Result<(), OptionError> {
        self.validate()
    }

    fn pass(
        &self,
        mut pass: Pass<'_, L>,
        groups: &[&[SteerResponse<'_>]],
    ) -> Result<SteerLm2Stats, Error> {
        if groups.is_empty() || groups.iter().any(|group| group.is_empty()) {
            return Err(Error::input("groups of responses", "at least 1, none of them empty", 0));
        }
        let mut judged = Judged { groups, total: SteerLm2Stats::default() };
        let (plan, members) = plan(groups, self.micro_batch_tokens);
        for (micro_batch, members) in plan.micro_batches().zip(members) {
            pass.logprobs(&micro_batch.packed, &LOGPROBS, &mut |out| {
                let logprobs = judged.take(&members, micro_batch, &out.logprobs);
                TokenGradient { logprobs, ..TokenGradient::default() }
            })?;
        }
        Ok(judged.mean())
    }
}

/// Log-probs of the model itself.
const LOGPROBS: LogprobOptions =
    LogprobOptions { temperature: 1.0, entropy: Entropy::Skip, top: false };

/// Cuts groups into micro-batches; the responses of a group stay together. Returns also which groups each of them has.
fn plan(groups: &[&[SteerResponse<'_>]], token_budget: usize) -> (Plan, Vec<Vec<usize>>) {
    let mut sequences = Vec::new();
    let mut places = Vec::new();
    for group in groups {
        let start = sequences.len();
        sequences.extend(group.iter().map(|response| response.sequence));
        places.push(start..sequences.len());
    }
    let tokens = |group: &&[SteerResponse<'_>]| {
        group.iter().map(|response| response.sequence.tokens.len()).sum()
    };
    let lengths: Vec<usize> = groups.iter().map(tokens).collect();
    let all: Vec<usize> = (0..groups.len()).collect();
    let members = micro_batches(&all, &lengths, token_budget);
    let of_groups = |groups: &Vec<usize>| groups.iter().flat_map(|&i| places[i].clone()).collect();
    (Plan::assemble(&sequences, vec![members.iter().map(of_groups).collect()]), members)
}

/// Returns `softmax(scores)`.
fn softmax(scores: &[f64]) -> Vec<f64> {
    log_softmax(scores, 1.0).into_iter().map(f64::exp).collect()
}

/// Groups of one optimizer step or evaluation, and what has been found of them so far.
struct Judged<'a> {
    groups: &'a [&'a [SteerResponse<'a>]],
    /// Sums over groups.
    total: SteerLm2Stats,
}

impl Judged<'_> {
    /// Takes in a micro-batch's log-probs, and returns the loss's derivative with respect to each.
    fn take(&mut self, members: &[usize], micro_batch: &MicroBatch, logprobs: &[f32]) -> Vec<f32> {
        let mut lengths = micro_batch.packed.selected_lengths().into_iter();
        let mut rest = logprobs;
        let mut gradients = Vec::with_capacity(logprobs.len());
        for &member in members {
            let group = self.groups[member];
            let tokens: Vec<usize> = lengths.by_ref().take(group.len()).collect();
            let sums: Vec<f64> = tokens
                .iter()
                .map(|&length| {
                    let own = rest.split_off(..length).unwrap_or_default();
                    own.iter().map(|&logprob| f64::from(logprob)).sum()
                })
                .collect();
            let slopes = self.judge(group, &sums, &tokens);
            for (slope, length) in slopes.into_iter().zip(tokens) {
                let slope = (slope / self.groups.len() as f64) as f32;
                gradients.resize(gradients.len() + length, slope);
            }
        }
        gradients
    }

    /// Returns the derivative of a group's loss with respect to each response's log-prob.
    fn judge(&mut self, group: &[SteerResponse<'_>], sums: &[f64], tokens: &[usize]) -> Vec<f64> {
        let target: Vec<f64> =
            group.iter().map(|one| one.log_attributes + one.log_prior - one.log_proposal).collect();
        let own: Vec<f64> =
            group.iter().zip(sums).map(|(one, sum)| sum - one.log_proposal).collect();
        let (w, b) = (softmax(&target), softmax(&own));
        let mean_tokens = tokens.iter().sum::<usize>() as f64 / group.len() as f64;
        let per_token = 1.0 / mean_tokens.max(1.0);
        let (log_w, log_b) = (log_softmax(&target, 1.0), log_softmax(&own, 1.0));
        let slopes: Vec<f64> = w.iter().zip(&b).map(|(w, b)| -(w - b) * per_token).collect();
        let total = &mut self.total;
        total.loss += slopes.iter().zip(sums).map(|(slope, sum)| slope * sum).sum::<f64>();
        total.distance += (0..w.len()).map(|i| w[i] * (log_w[i] - log_b[i])).sum::<f64>();
        let best = (0..w.len()).max_by(|&i, &j| w[i].total_cmp(&w[j])).unwrap_or_default();
        total.nll -= sums[best] / tokens[best].max(1) as f64;
        slopes
    }

    fn mean(&self) -> SteerLm2Stats {
        let (total, of) = (&self.total, self.groups.len() as f64);
        SteerLm2Stats { loss: total.loss / of, distance: total.distance / of, nll: total.nll / of }
    }
}

#[cfg(test)]
mod tests;
