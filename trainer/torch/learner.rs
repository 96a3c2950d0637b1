//! A model and its optimizer, as the algorithms want them.

use super::{AdamW, Model, ema::Average};
use crate::trainer::{
    Error,
    batch::PackedBatch,
    config::OptimizerConfig,
    learner::{
        LanguageLearner, LanguageModel, Learner, LogprobOptions, ScoreLearner, ScoreModel, Teacher,
        TokenGradient, TokenLogprobs, TopLogprobs,
    },
};

impl From<super::Error> for Error {
    fn from(error: super::Error) -> Self {
        Self::Model(Box::new(error))
    }
}

/// A model that learns by AdamW.
#[derive(Debug)]
pub struct LearningModel {
    /// The model.
    pub model: Model,
    /// Its optimizer.
    pub optimizer: AdamW,
    pub(super) average: Option<Average>,
}

impl LearningModel {
    /// Gives a model an optimizer with no step done.
    ///
    /// # Errors
    /// When an option is out of range, the model is frozen, or there is no memory left.
    pub fn new(model: Model, options: &OptimizerConfig) -> Result<Self, super::Error> {
        let optimizer = AdamW::new(&model, options)?;
        Ok(Self { model, optimizer, average: None })
    }

    /// Trains one micro-batch; a failure leaves no part of a gradient behind.
    fn train(
        &mut self,
        pass: impl FnOnce(&mut Model) -> Result<(), super::Error>,
    ) -> Result<(), Error> {
        pass(&mut self.model).or_else(|error| {
            self.model.clear_gradient()?;
            Err(error.into())
        })
    }
}

impl Learner for LearningModel {
    fn step(&mut self, lr: f64) -> Result<f64, Error> {
        match self.optimizer.step(&mut self.model, lr) {
            Ok(report) => {
                if let Some(average) = &mut self.average {
                    average.follow(&self.model.parameters.master()?)?;
                }
                Ok(report.grad_norm)
            }
            Err(error) => {
                self.model.clear_gradient()?;
                Err(match error {
                    super::Error::NotFinite { .. } | super::Error::GradientNorm { .. } => {
                        Error::NotFinite(Box::new(error))
                    }
                    other => other.into(),
                })
            }
        }
    }

    fn discard(&mut self) -> Result<(), Error> {
        Ok(self.model.clear_gradient()?)
    }
}

impl LanguageModel for Model {
    fn logprobs(
        &self,
        batch: &PackedBatch,
        options: &LogprobOptions,
    ) -> Result<TokenLogprobs, Error> {
        Ok(Self::logprobs(self, batch, options)?)
    }
}

impl Teacher for Model {
    fn top_logprobs(
        &self,
        batch: &PackedBatch,
        count: usize,
        temperature: f64,
    ) -> Result<TopLogprobs, Error> {
        Ok(Self::top_logprobs(self, batch, count, temperature)?)
    }
}

impl LanguageModel for LearningModel {
    fn logprobs(
        &self,
        batch: &PackedBatch,
        options: &LogprobOptions,
    ) -> Result<TokenLogprobs, Error> {
        Ok(self.model.logprobs(batch, options)?)
    }
}

/// A model whose adapter is left out.
struct Bare<'a>(&'a Model);

impl LanguageModel for Bare<'_> {
    fn logprobs(
        &self,
        batch: &PackedBatch,
        options: &LogprobOptions,
    ) -> Result<TokenLogprobs, Error> {
        let outputs = self.0.bare_logprobs(batch, options)?;
        outputs.ok_or_else(|| Error::input("the reference", "a model with an adapter", "another"))
    }
}

impl LanguageLearner for LearningModel {
    fn bare(&self) -> Option<Box<dyn LanguageModel + '_>> {
        self.model.lora().map(|_| Box::new(Bare(&self.model)) as _)
    }

    fn train_logprobs(
        &mut self,
        batch: &PackedBatch,
        options: &LogprobOptions,
        loss: &mut dyn FnMut(&TokenLogprobs) -> TokenGradient,
    ) -> Result<(), Error> {
        self.train(|model| model.train_logprobs(batch, options, loss))
    }
}

impl ScoreModel for Model {
    fn values(&self, batch: &PackedBatch) -> Result<Vec<f32>, Error> {
        Ok(Self::values(self, batch)?)
    }

    fn scores(&self, batch: &PackedBatch) -> Result<Vec<f32>, Error> {
        Ok(Self::scores(self, batch)?)
    }
}

impl ScoreModel for LearningModel {
    fn values(&self, batch: &PackedBatch) -> Result<Vec<f32>, Error> {
        Ok(self.model.values(batch)?)
    }

    fn scores(&self, batch: &PackedBatch) -> Result<Vec<f32>, Error> {
        Ok(self.model.scores(batch)?)
    }
}

impl ScoreLearner for LearningModel {
    fn train_values(
        &mut self,
        batch: &PackedBatch,
        loss: &mut dyn FnMut(&[f32]) -> Vec<f32>,
    ) -> Result<(), Error> {
        self.train(|model| model.train_values(batch, loss))
    }

    fn train_scores(
        &mut self,
        batch: &PackedBatch,
        loss: &mut dyn FnMut(&[f32]) -> Vec<f32>,
    ) -> Result<(), Error> {
        self.train(|model| model.train_scores(batch, loss))
    }
}
