//! The smallest models that learn, for tests: a table of next-token logits, and a table of values.
//!
//! Exact gradients by hand, plain gradient descent, no libtorch.

use super::{
    Error,
    batch::PackedBatch,
    learner::{
        Entropy, LanguageLearner, LanguageModel, Learner, LogprobOptions, ScoreLearner, ScoreModel,
        Teacher, TokenGradient, TokenLogprobs, TopLogprobs,
    },
    loss::{entropy, log_softmax},
};

/// A table and its gradient.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Table {
    pub(crate) weights: Vec<f64>,
    pub(crate) gradient: Vec<f64>,
    pub(crate) steps: u64,
}

impl Table {
    pub(crate) fn of(weights: Vec<f64>) -> Self {
        Self { gradient: vec![0.0; weights.len()], weights, steps: 0 }
    }
}

impl Learner for Table {
    fn step(&mut self, lr: f64) -> Result<f64, Error> {
        let norm = self.gradient.iter().map(|g| g * g).sum::<f64>().sqrt();
        if !norm.is_finite() {
            self.discard()?;
            return Err(Error::NotFinite(format!("gradient norm is {norm}").into()));
        }
        for (weight, gradient) in self.weights.iter_mut().zip(&mut self.gradient) {
            *weight -= lr * std::mem::take(gradient);
        }
        self.steps += 1;
        Ok(norm)
    }

    fn discard(&mut self) -> Result<(), Error> {
        self.gradient.fill(0.0);
        Ok(())
    }
}

/// Next-token logits by the present token: row `t` of a `vocab x vocab` table.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Bigram {
    pub(crate) table: Table,
    pub(crate) vocab: usize,
}

impl Bigram {
    /// Makes one whose logits differ from each other.
    pub(crate) fn new(vocab: usize) -> Self {
        let logits =
            (0..vocab * vocab).map(|i| ((i * 37 % 23) as f64 / 23.0 - 0.5) * 2.0).collect();
        Self { table: Table::of(logits), vocab }
    }

    fn row(&self, token: u32) -> std::ops::Range<usize> {
        token as usize * self.vocab..(token as usize + 1) * self.vocab
    }
}

impl LanguageModel for Bigram {
    fn logprobs(
        &self,
        batch: &PackedBatch,
        options: &LogprobOptions,
    ) -> Result<TokenLogprobs, Error> {
        let mut out = TokenLogprobs::default();
        let each = batch.candidates_per_row();
        for (n, (&row, target)) in batch.selected.iter().zip(batch.targets()).enumerate() {
            let logits = &self.table.weights[self.row(batch.tokens[row])];
            let all = log_softmax(logits, options.temperature);
            let logprob = all[target as usize];
            out.logprobs.push(logprob as f32);
            if options.entropy != Entropy::Skip {
                out.entropy.push(entropy(logits, options.temperature).0 as f32);
            }
            if options.top {
                out.top.push(all.iter().all(|&other| other <= logprob));
            }
            let candidates = &batch.candidates[n * each..][..each];
            out.candidates.extend(candidates.iter().map(|&id| all[id as usize] as f32));
        }
        Ok(out)
    }
}

impl Teacher for Bigram {
    fn top_logprobs(
        &self,
        batch: &PackedBatch,
        count: usize,
        temperature: f64,
    ) -> Result<TopLogprobs, Error> {
        let mut top = TopLogprobs::default();
        for &row in &batch.selected {
            let all = log_softmax(&self.table.weights[self.row(batch.tokens[row])], temperature);
            let mut ids: Vec<u32> = (0..self.vocab as u32).collect();
            ids.sort_by(|&a, &b| all[b as usize].total_cmp(&all[a as usize]));
            top.ids.extend(&ids[..count]);
            top.logprobs.extend(ids[..count].iter().map(|&id| all[id as usize] as f32));
        }
        Ok(top)
    }
}

impl LanguageLearner for Bigram {
    fn train_logprobs(
        &mut self,
        batch: &PackedBatch,
        options: &LogprobOptions,
        loss: &mut dyn FnMut(&TokenLogprobs) -> TokenGradient,
    ) -> Result<(), Error> {
        let gradients = loss(&self.logprobs(batch, options)?);
        let each = batch.candidates_per_row();
        for (n, (&row, target)) in batch.selected.iter().zip(batch.targets()).enumerate() {
            let range = self.row(batch.tokens[row]);
            let logits = &self.table.weights[range.clone()];
            let all = log_softmax(logits, options.temperature);
            let (_, spread) = entropy(logits, options.temperature);
            let places = n * each..(n + 1) * each;
            let candidates = &batch.candidates[places.clone()];
            let of_candidates = gradients.candidates.get(places).unwrap_or_default();
            for (j, slot) in self.table.gradient[range].iter_mut().enumerate() {
                let onehot = f64::from(j == target as usize);
                let slope = (onehot - all[j].exp()) / options.temperature;
                *slot += f64::from(gradients.logprobs[n]) * slope;
                if let Some(&weight) = gradients.entropy.get(n) {
                    *slot += f64::from(weight) * spread[j];
                }
                for (&id, &weight) in candidates.iter().zip(of_candidates) {
                    let onehot = f64::from(j == id as usize);
                    *slot += f64::from(weight) * (onehot - all[j].exp()) / options.temperature;
                }
            }
        }
        Ok(())
    }
}

impl Learner for Bigram {
    fn step(&mut self, lr: f64) -> Result<f64, Error> {
        self.table.step(lr)
    }

    fn discard(&mut self) -> Result<(), Error> {
        self.table.discard()
    }
}

/// A value for each token.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct TokenValues(pub(crate) Table);

impl TokenValues {
    fn train(&mut self, tokens: &[u32], gradients: &[f32]) {
        for (&token, &gradient) in tokens.iter().zip(gradients) {
            self.0.gradient[token as usize] += f64::from(gradient);
        }
    }

    fn look_up(&self, tokens: &[u32]) -> Vec<f32> {
        tokens.iter().map(|&token| self.0.weights[token as usize] as f32).collect()
    }
}

fn tokens(batch: &PackedBatch, rows: impl Iterator<Item = usize>) -> Vec<u32> {
    rows.map(|row| batch.tokens[row]).collect()
}

impl ScoreModel for TokenValues {
    fn values(&self, batch: &PackedBatch) -> Result<Vec<f32>, Error> {
        Ok(self.look_up(&tokens(batch, batch.selected.iter().copied())))
    }

    fn scores(&self, batch: &PackedBatch) -> Result<Vec<f32>, Error> {
        Ok(self.look_up(&tokens(batch, batch.last_rows())))
    }
}

impl ScoreLearner for TokenValues {
    fn train_values(
        &mut self,
        batch: &PackedBatch,
        loss: &mut dyn FnMut(&[f32]) -> Vec<f32>,
    ) -> Result<(), Error> {
        let tokens = tokens(batch, batch.selected.iter().copied());
        let gradients = loss(&self.look_up(&tokens));
        self.train(&tokens, &gradients);
        Ok(())
    }

    fn train_scores(
        &mut self,
        batch: &PackedBatch,
        loss: &mut dyn FnMut(&[f32]) -> Vec<f32>,
    ) -> Result<(), Error> {
        let tokens = tokens(batch, batch.last_rows());
        let gradients = loss(&self.look_up(&tokens));
        self.train(&tokens, &gradients);
        Ok(())
    }
}

impl Learner for TokenValues {
    fn step(&mut self, lr: f64) -> Result<f64, Error> {
        self.0.step(lr)
    }

    fn discard(&mut self) -> Result<(), Error> {
        self.0.discard()
    }
}

/// A model that rates a sequence by its last token: `[tokens, labels]` numbers in a table.
#[derive(Clone, Debug)]
pub(super) struct TokenRatings {
    pub(super) table: Table,
    pub(super) labels: usize,
}

impl TokenRatings {
    fn places(&self, batch: &PackedBatch) -> Vec<usize> {
        let last = tokens(batch, batch.last_rows()).into_iter();
        let rows = last.map(|token| token as usize * self.labels);
        rows.flat_map(|start| start..start + self.labels).collect()
    }
}

impl ScoreModel for TokenRatings {
    fn values(&self, batch: &PackedBatch) -> Result<Vec<f32>, Error> {
        self.scores(batch)
    }

    fn scores(&self, batch: &PackedBatch) -> Result<Vec<f32>, Error> {
        Ok(self.places(batch).into_iter().map(|place| self.table.weights[place] as f32).collect())
    }
}

impl ScoreLearner for TokenRatings {
    fn train_values(
        &mut self,
        batch: &PackedBatch,
        loss: &mut dyn FnMut(&[f32]) -> Vec<f32>,
    ) -> Result<(), Error> {
        self.train_scores(batch, loss)
    }

    fn train_scores(
        &mut self,
        batch: &PackedBatch,
        loss: &mut dyn FnMut(&[f32]) -> Vec<f32>,
    ) -> Result<(), Error> {
        let gradients = loss(&self.scores(batch)?);
        for (place, gradient) in self.places(batch).into_iter().zip(gradients) {
            self.table.gradient[place] += f64::from(gradient);
        }
        Ok(())
    }
}

impl Learner for TokenRatings {
    fn step(&mut self, lr: f64) -> Result<f64, Error> {
        self.table.step(lr)
    }

    fn discard(&mut self) -> Result<(), Error> {
        self.table.discard()
    }
}
