//! What the algorithms ask of a model: numbers per token or sequence, and a way back into its weights.
//!
//! A loss reaches the weights only through log-probs, entropies, values or scores. So training one micro-batch is: the
//! model computes these numbers, the algorithm answers with the loss's derivative with respect to each of them (the
//! mathematics is in [`super::loss`], without a tensor in sight), and the model carries the derivatives into its
//! gradient. Gradients add up over micro-batches until [`Learner::step`].

use super::{Error, batch::PackedBatch};

/// How a token's log-prob is computed, and what besides.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct LogprobOptions {
    /// Logits are divided by it first; above 0. The same for policy, old policy and reference.
    pub temperature: f64,
    /// What to do about entropies.
    pub entropy: Entropy,
    /// Say of each token whether it is the most probable one.
    pub top: bool,
}

/// What to do about the entropy of the distributions that tokens come from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Entropy {
    /// Leave it out.
    #[default]
    Skip,
    /// Compute it, for the record.
    Measure,
    /// Compute it so that the loss may depend on it.
    Train,
}

impl LogprobOptions {
    /// Asks for log-probs alone.
    pub fn at(temperature: f64) -> Self {
        Self { temperature, entropy: Entropy::Skip, top: false }
    }
}

impl Default for LogprobOptions {
    /// Asks for the model's own log-probs alone.
    fn default() -> Self {
        Self::at(1.0)
    }
}

/// What a language model says of each selected row's next token, in the order of [`PackedBatch::selected`].
#[derive(Clone, Debug, Default, PartialEq)]
pub struct TokenLogprobs {
    /// Its log-probability (nats).
    pub logprobs: Vec<f32>,
    /// The entropy of the distribution it comes from (nats); empty unless asked for.
    pub entropy: Vec<f32>,
    /// Whether it is the most probable token; empty unless asked for.
    pub top: Vec<bool>,
    /// The log-probability of each of [`PackedBatch::candidates`] (nats), in their order.
    pub candidates: Vec<f32>,
}

/// A loss's derivatives with respect to [`TokenLogprobs`].
#[derive(Clone, Debug, Default, PartialEq)]
pub struct TokenGradient {
    /// With respect to each log-prob.
    pub logprobs: Vec<f32>,
    /// With respect to each entropy; empty where the loss does not depend on them.
    pub entropy: Vec<f32>,
    /// With respect to each candidate's log-prob; empty where the loss does not depend on them.
    pub candidates: Vec<f32>,
}

/// The most probable tokens of each selected row, the most probable first; of equals the one with the smaller id.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct TopLogprobs {
    /// Their ids, as many for each row, one row after the other.
    pub ids: Vec<u32>,
    /// Their log-probabilities (nats), of the whole vocabulary.
    pub logprobs: Vec<f32>,
}

/// Gradients that have been added up, on their way into the weights.
pub trait Learner {
    /// Clips the gradient by its global norm, moves the weights, and clears the gradient. Returns the norm before
    /// clipping.
    ///
    /// # Errors
    /// [`Error::NotFinite`] when the gradient is not; it is gone, and nothing has moved. Also when somebody holds on to
    /// the weights.
    fn step(&mut self, lr: f64) -> Result<f64, Error>;

    /// Throws away the gradient that has been added up.
    ///
    /// # Errors
    /// When the model cannot compute.
    fn discard(&mut self) -> Result<(), Error>;

    /// Does what [`Learner::step`] does where loss and gradient are finite. Where they are not, the step is skipped: the
    /// gradient is gone, nothing has moved, and there is no norm.
    ///
    /// # Errors
    /// As [`Learner::step`], but for gradients that are not finite.
    fn step_if_finite(&mut self, loss: f64, lr: f64) -> Result<Option<f64>, Error> {
        if !loss.is_finite() {
            self.discard()?;
            return Ok(None);
        }
        match self.step(lr) {
            Err(Error::NotFinite(_)) => Ok(None),
            stepped => stepped.map(Some),
        }
    }
}

/// A model of the next token.
pub trait LanguageModel {
    /// Computes the selected rows' log-probs, without a trace for gradients.
    ///
    /// # Errors
    /// When the model cannot compute: most often, there is no memory left.
    fn logprobs(
        &self,
        batch: &PackedBatch,
        options: &LogprobOptions,
    ) -> Result<TokenLogprobs, Error>;
}

/// A model of the next token that others learn from.
pub trait Teacher {
    /// Computes each selected row's `count` most probable next tokens. Rows need no next token.
    ///
    /// # Errors
    /// When the vocabulary has no `count` tokens, or `count` is 0; otherwise as [`LanguageModel::logprobs`].
    fn top_logprobs(
        &self,
        batch: &PackedBatch,
        count: usize,
        temperature: f64,
    ) -> Result<TopLogprobs, Error>;
}

/// A model of the next token that learns.
pub trait LanguageLearner: LanguageModel + Learner {
    /// Returns the model as it is without the adapter that learns beside it, where that is how it learns: its own
    /// reference, which takes no memory.
    fn bare(&self) -> Option<Box<dyn LanguageModel + '_>> {
        None
    }

    /// Computes the same numbers as [`LanguageModel::logprobs`], bit for bit, asks `loss` for the derivatives, and adds
    /// them to the gradient.
    ///
    /// # Errors
    /// As [`LanguageModel::logprobs`].
    fn train_logprobs(
        &mut self,
        batch: &PackedBatch,
        options: &LogprobOptions,
        loss: &mut dyn FnMut(&TokenLogprobs) -> TokenGradient,
    ) -> Result<(), Error>;
}

/// A model with one number per token, a critic or a reward model; or with one for each of several labels: what is said of
/// "the number" below is then said of as many, label by label, row after row.
pub trait ScoreModel {
    /// Computes the number at each selected row: what a critic expects before the next token.
    ///
    /// # Errors
    /// When the model cannot compute.
    fn values(&self, batch: &PackedBatch) -> Result<Vec<f32>, Error>;

    /// Computes the number at each sequence's last token: what a reward model thinks of the whole.
    ///
    /// # Errors
    /// When the model cannot compute.
    fn scores(&self, batch: &PackedBatch) -> Result<Vec<f32>, Error>;
}

/// A model with one number per token that learns.
pub trait ScoreLearner: ScoreModel + Learner {
    /// Computes [`ScoreModel::values`], asks `loss` for the derivatives, and adds them to the gradient.
    ///
    /// # Errors
    /// When the model cannot compute.
    fn train_values(
        &mut self,
        batch: &PackedBatch,
        loss: &mut dyn FnMut(&[f32]) -> Vec<f32>,
    ) -> Result<(), Error>;

    /// Computes [`ScoreModel::scores`], asks `loss` for the derivatives, and adds them to the gradient.
    ///
    /// # Errors
    /// When the model cannot compute.
    fn train_scores(
        &mut self,
        batch: &PackedBatch,
        loss: &mut dyn FnMut(&[f32]) -> Vec<f32>,
    ) -> Result<(), Error>;
}
