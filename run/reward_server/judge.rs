//! The reward model behind the server.

use anyhow::Result;

use super::RewardServerOptions;
use crate::{
    model::Tokenizer,
    run::{
        models,
        reward::{
            FrozenModel, Judging,
            protocol::{Asked, Question, Scores, fingerprint},
        },
    },
    trainer::{reward::Reward, torch::ModelOptions},
};

/// A model that judges what it is sent.
pub(super) struct Judge {
    model: FrozenModel,
    tokenizer: Option<Tokenizer>,
    fingerprint: Option<String>,
    name: String,
    context: usize,
    vocabulary: usize,
    threads: usize,
}

/// Why a request is not answered.
pub(super) enum Refused {
    /// The request is to blame.
    Request(String),
    /// The model is.
    Model(String),
}

impl Judge {
    /// Loads a model.
    ///
    /// # Errors
    /// When it cannot be used, or is no reward model.
    pub(super) fn open(options: &RewardServerOptions) -> Result<Self> {
        models::use_threads(options.threads)?;
        let asked = models::options(options.device, options.dtype, false);
        let frozen = ModelOptions { frozen: true, ..asked };
        let RewardServerOptions { standardize, weights, .. } = options;
        let judging = Judging { standardize: *standardize, weights: weights.clone() };
        let (model, opened) = FrozenModel::open(&options.model, &judging, &frozen)?;
        let json = opened.tokenizer.as_ref().map(Tokenizer::to_json).transpose()?;
        Ok(Self {
            model,
            name: opened.checkpoint.dir().display().to_string(),
            context: opened.spec().max_positions,
            vocabulary: opened.spec().vocab_size,
            fingerprint: json.as_deref().map(fingerprint),
            tokenizer: opened.tokenizer.clone(),
            threads: options.threads,
        })
    }

    /// Judges completions, each in a pass of its own: what one earns then does not depend on those it comes with.
    pub(super) fn answer(&self, question: &Question) -> Result<Scores, Refused> {
        // This thread may be another than last time.
        models::use_threads(self.threads).map_err(failed)?;
        let scores = question.completions.iter().enumerate().map(|(i, asked)| {
            let sequence = self.sequence(question, asked);
            let sequence =
                sequence.map_err(|why| Refused::Request(format!("completion {i}: {why}")))?;
            let scores = self.model.score(&[&sequence], sequence.len()).map_err(failed)?;
            Ok(scores.into_iter().map(Reward::Score))
        });
        let scores = scores.collect::<Result<Vec<_>, Refused>>()?;
        Ok(Scores { scores: scores.into_iter().flatten().collect() })
    }

    /// Returns the tokens to judge: those of the request where they are this model's, or else those of its text.
    fn sequence(&self, question: &Question, asked: &Asked) -> Result<Vec<u32>, String> {
        let tokens = [&asked.prompt_token_ids[..], &asked.completion_token_ids].concat();
        let tokens = match tokens.is_empty() {
            true => self.encoded(asked)?,
            false if self.knows(question) => tokens,
            false => {
                return Err(format!(
                    "its tokens are of another tokenizer than that of {}; send its text alone",
                    self.name
                ));
            }
        };
        let (length, context) = (tokens.len(), self.context);
        if !(1..=context).contains(&length) {
            return Err(format!("must have from 1 to {context} tokens, got {length}"));
        }
        match tokens.iter().find(|&&token| token as usize >= self.vocabulary) {
            Some(token) => Err(format!("token ids must be below {}, got {token}", self.vocabulary)),
            None => Ok(tokens),
        }
    }

    fn knows(&self, question: &Question) -> bool {
        // A model without a tokenizer has no text to read either.
        self.fingerprint.is_none() || question.tokenizer == self.fingerprint
    }

    fn encoded(&self, asked: &Asked) -> Result<Vec<u32>, String> {
        let Some(tokenizer) = &self.tokenizer else {
            return Err(format!("{} has no tokenizer; send token ids", self.name));
        };
        let text = format!("{}{}", asked.prompt, asked.completion);
        tokenizer.encode(&text, true).map_err(|error| error.to_string())
    }
}

fn failed(error: impl std::fmt::Display) -> Refused {
    Refused::Model(format!("{error:#}"))
}
