//! Knowledge distillation: a student learns to say what a teacher would say, on the texts of a data set.
//!
//! ```text
//! once
//!     t    = the teacher's K most probable tokens after each token, and their log-probs
//! for each optimizer step
//!     s    = the student's log-probs of the same K tokens                      both at one temperature
//!     kd   = divergence of s from t                                            forward or backward KL, or Jensen-Shannon
//!     loss = sum over the loss tokens of weight (kd_weight kd + sft_weight nll)
//!     student follows the gradient
//! ```
//!
//! With a temperature other than 1 the likelihood of the data's own tokens is still the model's own, which takes a pass of its own.

mod divergence;
#[cfg(test)]
mod tests;

use super::{
    Error,
    batch::{MaskedSequence, Normalization, Plan},
    config::{DistillOptions, OptionError},
    learner::{
        LanguageLearner, LogprobOptions, Teacher, TokenGradient, TokenLogprobs, TopLogprobs,
    },
    loss::negative_log_likelihood,
    offline::{Findings, Objective, OfflineTrainer, Pass},
    sft,
};
pub use divergence::{Comparison, TAIL_FLOOR};

/// A student in knowledge distillation.
pub type Distill<L> = OfflineTrainer<L, DistillOptions>;

/// A teacher's answers to one sequence.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Answers {
    /// For each loss token its most probable ones, as many each, and their log-probs (nats) at the temperature of the run.
    pub top: TopLogprobs,
    /// Whether those are log-probs of the whole vocabulary; otherwise they are known but for a constant in each row.
    pub is_whole: bool,
}

/// A sequence with what a teacher says of it.
#[derive(Clone, Copy, Debug)]
pub struct TaughtSequence<'a> {
    /// Its tokens.
    pub sequence: MaskedSequence<'a>,
    /// The teacher's answers at its loss tokens.
    pub answers: &'a Answers,
}

/// How near a student is to its teacher.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct DistillStats {
    /// The loss that is minimised.
    pub loss: f64,
    /// The divergence of a loss token (nats); in an optimizer step normalised as the options say.
    pub kd_loss: f64,
    /// The negative log-likelihood of the data's own tokens (nats), likewise; `None` where it is not measured: at a temperature
    /// other than 1, unless it is a part of the loss.
    pub sft_loss: Option<f64>,
    /// The teacher's mass within the tokens that are compared, on average; `None` where it cannot be told.
    pub teacher_mass: Option<f64>,
    /// Share of loss tokens where, of the tokens compared, both think the same one most probable.
    pub top_agreement: f64,
    /// Loss tokens.
    pub tokens: usize,
}

/// Losses have the names that NeMo uses.
impl Findings for DistillStats {
    fn loss(&self) -> f64 {
        self.loss
    }

    fn metrics(&self) -> Vec<(&'static str, f64)> {
        let known = [("sft_loss", self.sft_loss), ("teacher_mass", self.teacher_mass)];
        let mut metrics = vec![("loss", self.loss), ("kd_loss", self.kd_loss)];
        metrics.extend(known.into_iter().filter_map(|(name, value)| Some((name, value?))));
        metrics.push(("top_agreement", self.top_agreement));
        metrics.push(("num_tokens", self.tokens as f64));
        metrics
    }

    fn eval_metrics(&self) -> Vec<(&'static str, f64)> {
        let known = [("eval/sft_loss", self.sft_loss), ("eval/teacher_mass", self.teacher_mass)];
        let mut metrics = vec![("eval/loss", self.loss), ("eval/kd_loss", self.kd_loss)];
        metrics.extend(known.into_iter().filter_map(|(name, value)| Some((name, value?))));
        metrics.push(("eval/top_agreement", self.top_agreement));
        metrics.push(("eval/num_tokens", self.tokens as f64));
        metrics
    }
}

impl<L: LanguageLearner> Objective<L> for DistillOptions {
    type Sample<'a> = TaughtSequence<'a>;
    type Findings = DistillStats;

    fn validate(&self) -> Result<(), OptionError> {
        self.validate()
    }

    /// In an evaluation every token counts alike, whatever the options say.
    fn pass(
        &self,
        mut pass: Pass<'_, L>,
        samples: &[TaughtSequence<'_>],
    ) -> Result<DistillStats, Error> {
        let sequences: Vec<_> = samples.iter().map(|sample| sample.sequence).collect();
        let mut plan = self.plan(&sequences, pass.trains());
        let normalization =
            if pass.trains() { self.loss_normalization } else { Normalization::TokenMean };
        let (weights, tokens) = (plan.weights(normalization, |_| true), plan.tokens());
        if tokens == 0 {
            return Err(Error::input("the sequences' loss tokens", "at least 1", 0));
        }
        self.check(samples)?;
        let mut tally = Tally::default();
        for micro_batch in plan.mini_batches.iter_mut().flatten() {
            let weights = &weights[micro_batch.rows.clone()];
            let tops = || micro_batch.sequences.iter().map(|&i| &samples[i].answers.top);
            let teacher: Vec<f32> = tops().flat_map(|top| &top.logprobs).copied().collect();
            micro_batch.packed.candidates = tops().flat_map(|top| &top.ids).copied().collect();
            let packed = &mut micro_batch.packed;
            pass.logprobs(packed, &LogprobOptions::at(self.temperature), &mut |out| {
                self.compare(out, &teacher, weights, &mut tally)
            })?;
            if self.temperature != 1.0 && self.sft_weight > 0.0 {
                packed.candidates.clear();
                pass.logprobs(packed, &LogprobOptions::default(), &mut |out| TokenGradient {
                    logprobs: self.likelihood(out, weights, &mut tally),
                    ..TokenGradient::default()
                })?;
            }
        }
        let measured = self.temperature == 1.0 || self.sft_weight > 0.0;
        let is_whole = samples.iter().all(|sample| sample.answers.is_whole);
        Ok(DistillStats {
            loss: self.kd_weight * tally.kd_loss + self.sft_weight * tally.sft_loss,
            kd_loss: tally.kd_loss,
            sft_loss: measured.then_some(tally.sft_loss),
            teacher_mass: is_whole.then_some(tally.mass / tokens as f64),
            top_agreement: tally.agreed as f64 / tokens as f64,
            tokens,
        })
    }
}

/// What was seen of all rows so far.
#[derive(Default)]
struct Tally {
    kd_loss: f64,
    sft_loss: f64,
    mass: f64,
    agreed: usize,
}

impl DistillOptions {
    /// Asks a teacher about the sequences of one optimizer step or of an evaluation, over the micro-batches that the student goes
    /// through: the same weights have the same numbers there.
    ///
    /// # Errors
    /// When the teacher cannot compute, or has not so many tokens.
    pub fn ask(
        &self,
        teacher: &impl Teacher,
        sequences: &[MaskedSequence<'_>],
        trains: bool,
    ) -> Result<Vec<Answers>, Error> {
        let mut answers = vec![Answers::default(); sequences.len()];
        for micro_batch in self.plan(sequences, trains).micro_batches() {
            let top = teacher.top_logprobs(&micro_batch.packed, self.top_k, self.temperature)?;
            for (i, rows) in micro_batch.sequence_rows() {
                let start = micro_batch.rows.start;
                let range = (rows.start - start) * self.top_k..(rows.end - start) * self.top_k;
                let (ids, logprobs) = (top.ids[range.clone()].into(), top.logprobs[range].into());
                answers[i] = Answers { top: TopLogprobs { ids, logprobs }, is_whole: true };
            }
        }
        Ok(answers)
    }

    fn plan(&self, sequences: &[MaskedSequence<'_>], trains: bool) -> Plan {
        sft::plan(sequences, self.packing && trains, self.micro_batch_tokens)
    }

    /// Checks that there is an answer to each loss token, and of all the same length.
    fn check(&self, samples: &[TaughtSequence<'_>]) -> Result<(), Error> {
        for TaughtSequence { sequence, answers } in samples {
            let tokens = sequence.mask.iter().skip(1).filter(|&&counts| counts).count();
            let TopLogprobs { ids, logprobs } = &answers.top;
            if ids.len() != tokens * self.top_k || logprobs.len() != ids.len() {
                let rule = "top_k for each loss token";
                return Err(Error::input("a teacher's answers", rule, ids.len()));
            }
            if !answers.is_whole && !self.renormalize {
                let rule = "log-probs of the whole vocabulary without renormalize";
                return Err(Error::input("a teacher's answers", rule, "others"));
            }
        }
        Ok(())
    }

    /// Compares a micro-batch's rows with the teacher's answers.
    fn compare(
        &self,
        out: &TokenLogprobs,
        teacher: &[f32],
        weights: &[f32],
        tally: &mut Tally,
    ) -> TokenGradient {
        let Self { kl, js_beta, renormalize, .. } = *self;
        let comparison = Comparison { kl, js_beta, renormalize };
        let wide = |numbers: &[f32]| numbers.iter().copied().map(f64::from).collect::<Vec<_>>();
        let rows = teacher.chunks_exact(self.top_k).zip(out.candidates.chunks_exact(self.top_k));
        let mut candidates = Vec::with_capacity(out.candidates.len());
        for ((teacher, student), &weight) in rows.zip(weights) {
            let (teacher, student) = (wide(teacher), wide(student));
            let (loss, slopes) = comparison.of(&teacher, &student);
            tally.kd_loss += loss * f64::from(weight);
            tally.mass += teacher.iter().map(|logprob| logprob.exp()).sum::<f64>();
            tally.agreed += usize::from(most_probable(&teacher) == most_probable(&student));
            let factor = self.kd_weight * f64::from(weight);
            candidates.extend(slopes.into_iter().map(|slope| (slope * factor) as f32));
        }
        let logprobs = match self.temperature == 1.0 {
            true => self.likelihood(out, weights, tally),
            false => vec![0.0; out.logprobs.len()],
        };
        TokenGradient { logprobs, candidates, ..TokenGradient::default() }
    }

    /// Takes the data's own tokens, and returns the derivatives with respect to their log-probs.
    fn likelihood(&self, out: &TokenLogprobs, weights: &[f32], tally: &mut Tally) -> Vec<f32> {
        let pairs = out.logprobs.iter().zip(weights);
        let term = |(&logprob, &weight): (&f32, &f32)| {
            let term = negative_log_likelihood(logprob.into()).times(weight.into());
            tally.sft_loss += term.loss;
            (term.gradient * self.sft_weight) as f32
        };
        pairs.map(term).collect()
    }
}

fn most_probable(logprobs: &[f64]) -> Option<usize> {
    let places = 0..logprobs.len();
    places.reduce(|best, k| if logprobs[k] > logprobs[best] { k } else { best })
}
