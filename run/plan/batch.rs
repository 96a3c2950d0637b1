//! How many tokens the largest micro-batch has.

use crate::{
    data::{
        LabeledSample, PairSample, PromptSample, RatedSample, ResponsesSample, SftSample,
        TaughtSample,
    },
    trainer::batch::{micro_batches, pair_micro_batches},
};

/// A micro-batch, as far as memory is concerned.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Batch {
    /// Tokens, without padding.
    pub(super) tokens: u64,
    /// Places of the padded grid that attention works on, on a GPU: sequences x the longest of them.
    pub(super) grid: u64,
    /// Rows that the head computes.
    pub(super) rows: u64,
}

/// A sequence's tokens, and those of them that the head predicts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Length {
    pub(super) tokens: usize,
    pub(super) rows: usize,
}

impl Length {
    pub(in crate::run) fn of_text(sample: &SftSample) -> Self {
        Self::of_mask(&sample.loss_mask)
    }

    pub(in crate::run) fn of_taught(sample: &TaughtSample) -> Self {
        Self::of_mask(&sample.loss_mask)
    }

    pub(in crate::run) fn of_labeled(sample: &LabeledSample) -> Self {
        Self::of_mask(&sample.loss_mask)
    }

    /// Returns that of a completion that is rated: at its last token.
    pub(in crate::run) fn of_rated(sample: &RatedSample) -> Self {
        Self { tokens: sample.tokens.len(), rows: 1 }
    }

    /// Returns that of a prompt's responses, which stay together.
    pub(in crate::run) fn of_responses(sample: &ResponsesSample) -> Self {
        let each = sample.responses.iter().map(|response| Self::of_mask(&response.loss_mask));
        each.fold(Self { tokens: 0, rows: 0 }, |all, one| Self {
            tokens: all.tokens + one.tokens,
            rows: all.rows + one.rows,
        })
    }

    pub(in crate::run) fn of_prompt(sample: &PromptSample) -> Self {
        Self { tokens: sample.tokens.ids().len(), rows: 0 }
    }

    pub(in crate::run) fn of_pair(sample: &PairSample) -> [Self; 2] {
        [&sample.chosen_mask, &sample.rejected_mask].map(|mask| Self::of_mask(mask))
    }

    fn of_mask(mask: &[bool]) -> Self {
        // The first token is predicted from nothing.
        let rows = mask.iter().skip(1).filter(|&&counts| counts).count();
        Self { tokens: mask.len(), rows }
    }

    /// Returns the same of a model that scores: it does so at the last token.
    pub(super) fn scored(self) -> Self {
        Self { rows: 1, ..self }
    }
}

impl Batch {
    /// Packs sequences, given by their lengths.
    pub(super) fn of(sequences: impl IntoIterator<Item = Length>) -> Self {
        let (mut batch, mut count, mut longest) = (Self::default(), 0, 0);
        for Length { tokens, rows } in sequences {
            batch.tokens += tokens as u64;
            batch.rows += rows as u64;
            count += 1;
            longest = longest.max(tokens as u64);
        }
        batch.grid = count * longest;
        batch
    }

    /// Returns the micro-batches into which sequences of these lengths fall.
    pub(super) fn cut(lengths: &[Length], budget: usize) -> Vec<Self> {
        let all: Vec<usize> = (0..lengths.len()).collect();
        let tokens: Vec<usize> = lengths.iter().map(|length| length.tokens).collect();
        let members = micro_batches(&all, &tokens, budget);
        members
            .into_iter()
            .map(|members| Self::of(members.into_iter().map(|i| lengths[i])))
            .collect()
    }

    /// Returns the micro-batches into which pairs fall; the two halves of a pair stay together.
    pub(super) fn cut_pairs(pairs: &[[Length; 2]], budget: usize) -> Vec<Self> {
        let tokens: Vec<[usize; 2]> =
            pairs.iter().map(|pair| pair.map(|half| half.tokens)).collect();
        let members = pair_micro_batches(&tokens, budget).into_iter();
        members.map(|members| Self::of(members.into_iter().flat_map(|i| pairs[i]))).collect()
    }

    /// Returns the most of each.
    #[must_use]
    pub(super) fn or(self, other: Self) -> Self {
        Self {
            tokens: self.tokens.max(other.tokens),
            grid: self.grid.max(other.grid),
            rows: self.rows.max(other.rows),
        }
    }

    /// Says whether attention works on padding too.
    pub(super) fn is_padded(&self) -> bool {
        self.grid != self.tokens
    }
}
