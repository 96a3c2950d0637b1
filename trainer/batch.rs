//! From an iteration's sequences to optimizer steps to forward passes: batch, mini-batch, micro-batch.
//!
//! The composition is drawn once per iteration, from a seed. Later epochs change the *order* of the mini-batches and
//! nothing else, and old log-probs, reference log-probs and values are computed over exactly the micro-batches that are
//! trained on. libtorch's matrix products are not batch-invariant: the same sequence among other neighbours can
//! differ in the last bits. With one composition for everything, the ratio is *exactly* 1 whenever the weights have not
//! moved, and the KL to an identical reference is *exactly* 0.
//!
//! Gradients do not depend on how sequences fall into micro-batches: what each token weighs comes from the whole
//! optimizer step, by [`Normalization::weights`].

use std::ops::Range;

use rand::{SeedableRng, seq::SliceRandom};
use rand_chacha::ChaCha8Rng;
use serde::{Deserialize, Serialize};

/// Sequences packed for one forward pass, with the rows whose next token matters.
///
/// Everything per token that a loss sees (log-probs, values, advantages, ...) is a flat vector with one entry per
/// selected row, in the order of [`PackedBatch::selected`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PackedBatch {
    /// Token ids of all sequences, one after the other.
    pub tokens: Vec<u32>,
    /// Length of each sequence; they add up to `tokens.len()`.
    pub lengths: Vec<usize>,
    /// Indices into `tokens` of the rows that predict a token of interest: row `i` predicts `tokens[i + 1]`, which
    /// belongs to the same sequence. Ascending.
    pub selected: Vec<usize>,
    /// Tokens whose log-probs are wanted beside that of the next one: as many for each selected row, one row after the
    /// other, none of them twice in a row. Usually empty.
    pub candidates: Vec<u32>,
}

impl PackedBatch {
    /// Appends a sequence; `mask[t]` says whether token `t` is of interest. The first token never is.
    ///
    /// # Panics
    /// If the sequence is empty or the mask has another length.
    pub fn push(&mut self, tokens: &[u32], mask: &[bool]) {
        assert!(!tokens.is_empty(), "a sequence has at least one token");
        assert_eq!(tokens.len(), mask.len(), "one mask entry per token");
        let start = self.tokens.len();
        self.selected.extend((1..tokens.len()).filter(|&t| mask[t]).map(|t| start + t - 1));
        self.tokens.extend_from_slice(tokens);
        self.lengths.push(tokens.len());
    }

    /// Packs sequences with their masks.
    ///
    /// # Panics
    /// As [`PackedBatch::push`].
    pub fn pack<'a>(sequences: impl IntoIterator<Item = (&'a [u32], &'a [bool])>) -> Self {
        let mut batch = Self::default();
        for (tokens, mask) in sequences {
            batch.push(tokens, mask);
        }
        batch
    }

    /// Returns each token's position within its sequence.
    pub fn positions(&self) -> impl Iterator<Item = usize> + '_ {
        self.lengths.iter().flat_map(|&length| 0..length)
    }

    /// Returns the token that each selected row predicts.
    pub fn targets(&self) -> impl Iterator<Item = u32> + '_ {
        self.selected.iter().map(|&row| self.tokens[row + 1])
    }

    /// Returns how many candidates each selected row has.
    pub fn candidates_per_row(&self) -> usize {
        self.candidates.len() / self.selected.len().max(1)
    }

    /// Returns the row of each sequence's last token.
    pub fn last_rows(&self) -> impl Iterator<Item = usize> + '_ {
        self.lengths.iter().scan(0, |end, &length| {
            *end += length;
            Some(*end - 1)
        })
    }

    /// Returns how many selected rows each sequence has, in their order.
    pub fn selected_lengths(&self) -> Vec<usize> {
        let mut rows = self.selected.iter().peekable();
        self.last_rows()
            .map(|last| std::iter::from_fn(|| rows.next_if(|&&row| row <= last)).count())
            .collect()
    }
}

/// What a token weighs in a loss. All sums are over one optimizer step.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Normalization {
    /// `1 / tokens`: every token counts alike (DAPO; verl's and TRL's usual one).
    #[default]
    TokenMean,
    /// `1 / (sequences x the sequence's tokens)`: every sequence counts alike (the original GRPO).
    SeqMeanTokenMean,
    /// `1 / sequences`: a mean of sums, so long sequences count more (sequence-level REINFORCE).
    SeqMeanTokenSum,
    /// `1 / (sequences x L)`, where the constant `L` is the longest completion that may be sampled (Dr.GRPO). Here without it:
    /// whoever knows `L` divides by it.
    SeqMeanTokenSumNorm,
}

impl Normalization {
    /// Returns what a token of each sequence weighs, given the number of loss tokens of every sequence of the optimizer
    /// step. Sequences without loss tokens do not count.
    pub fn weights(self, loss_tokens: &[usize]) -> Vec<f32> {
        let tokens: usize = loss_tokens.iter().sum();
        let sequences = loss_tokens.iter().filter(|&&n| n > 0).count();
        let weight = |n: usize| match self {
            _ if n == 0 => 0.0,
            Self::TokenMean => 1.0 / tokens as f64,
            Self::SeqMeanTokenMean => 1.0 / (sequences as f64 * n as f64),
            Self::SeqMeanTokenSum | Self::SeqMeanTokenSumNorm => 1.0 / sequences as f64,
        };
        loss_tokens.iter().map(|&n| weight(n) as f32).collect()
    }
}

/// A sequence, and which of its tokens are of interest.
#[derive(Clone, Copy, Debug)]
pub struct MaskedSequence<'a> {
    /// Token ids; at least one.
    pub tokens: &'a [u32],
    /// One entry per token; the first never counts.
    pub mask: &'a [bool],
}

/// Part of a mini-batch that is computed in one forward pass.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MicroBatch {
    /// Indices of its sequences, in the order they are packed.
    pub sequences: Vec<usize>,
    /// The sequences.
    pub packed: PackedBatch,
    /// Where its selected rows stand among those of the whole [`Plan`].
    pub rows: Range<usize>,
}

impl MicroBatch {
    /// Returns each sequence's index and where its selected rows stand among those of the whole plan.
    pub fn sequence_rows(&self) -> Vec<(usize, Range<usize>)> {
        let ends =
            self.packed.selected_lengths().into_iter().scan(self.rows.start, |end, length| {
                let start = *end;
                *end += length;
                Some(start..*end)
            });
        self.sequences.iter().copied().zip(ends).collect()
    }
}

/// How an iteration's sequences fall into mini-batches and micro-batches: drawn once, used for everything.
///
/// What is known of each loss token of the iteration is one flat vector, in the order of mini-batches, micro-batches,
/// sequences and tokens; micro-batches and sequences are ranges of it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// The optimizer steps of an epoch.
    pub mini_batches: Vec<Vec<MicroBatch>>,
}

impl Plan {
    /// Deals sequences into so many mini-batches by a seeded shuffle, and cuts those by a token budget.
    pub fn draw(
        sequences: &[MaskedSequence<'_>],
        parts: usize,
        token_budget: usize,
        seed: u64,
    ) -> Self {
        Self::new(sequences, &mini_batches(sequences.len(), parts, seed), token_budget)
    }

    /// Takes the mini-batches as they are, and cuts them by a token budget.
    pub fn new(
        sequences: &[MaskedSequence<'_>],
        mini_batches: &[Vec<usize>],
        token_budget: usize,
    ) -> Self {
        let lengths: Vec<usize> = sequences.iter().map(|sequence| sequence.tokens.len()).collect();
        let cut = |mini_batch: &Vec<usize>| micro_batches(mini_batch, &lengths, token_budget);
        Self::assemble(sequences, mini_batches.iter().map(cut).collect())
    }

    /// Takes sequences for pairs, the first and the second, the third and the fourth, ..., which make one mini-batch, and
    /// cuts that by a token budget. The two halves of a pair stay together.
    pub fn of_pairs(sequences: &[MaskedSequence<'_>], token_budget: usize) -> Self {
        let lengths: Vec<usize> = sequences.iter().map(|sequence| sequence.tokens.len()).collect();
        let pairs = pair_micro_batches(lengths.as_chunks().0, token_budget).into_iter();
        let halves = |pairs: Vec<usize>| pairs.into_iter().flat_map(|i| [2 * i, 2 * i + 1]);
        Self::assemble(sequences, vec![pairs.map(|pairs| halves(pairs).collect()).collect()])
    }

    /// Takes mini-batches and micro-batches as they are.
    pub fn assemble(sequences: &[MaskedSequence<'_>], mini_batches: Vec<Vec<Vec<usize>>>) -> Self {
        let mut end = 0;
        let mut pack = |members: Vec<usize>| {
            let masked = members.iter().map(|&i| (sequences[i].tokens, sequences[i].mask));
            let packed = PackedBatch::pack(masked);
            let start = end;
            end += packed.selected.len();
            MicroBatch { sequences: members, packed, rows: start..end }
        };
        let mini_batches = mini_batches
            .into_iter()
            .map(|micro_batches| micro_batches.into_iter().map(&mut pack).collect());
        Self { mini_batches: mini_batches.collect() }
    }

    /// Returns every micro-batch, in the order of the flat vectors.
    pub fn micro_batches(&self) -> impl Iterator<Item = &MicroBatch> {
        self.mini_batches.iter().flatten()
    }

    /// Returns every sequence's index and rows, in the order of the flat vectors.
    pub fn sequence_rows(&self) -> Vec<(usize, Range<usize>)> {
        self.micro_batches().flat_map(MicroBatch::sequence_rows).collect()
    }

    /// Returns the number of loss tokens.
    pub fn tokens(&self) -> usize {
        self.micro_batches().last().map_or(0, |micro_batch| micro_batch.rows.end)
    }

    /// Returns what each loss token weighs; those of sequences that are not `counted` weigh nothing.
    pub fn weights(
        &self,
        normalization: Normalization,
        counted: impl Fn(usize) -> bool,
    ) -> Vec<f32> {
        let mut weights = vec![0.0; self.tokens()];
        for mini_batch in &self.mini_batches {
            let rows: Vec<_> = mini_batch.iter().flat_map(MicroBatch::sequence_rows).collect();
            let tokens: Vec<usize> =
                rows.iter().map(|(i, rows)| if counted(*i) { rows.len() } else { 0 }).collect();
            for ((_, rows), weight) in rows.into_iter().zip(normalization.weights(&tokens)) {
                weights[rows].fill(weight);
            }
        }
        weights
    }
}

/// Deals `count` sequences into `parts` mini-batches by a seeded shuffle. Sizes differ by one at most.
pub fn mini_batches(count: usize, parts: usize, seed: u64) -> Vec<Vec<usize>> {
    let mut order: Vec<usize> = (0..count).collect();
    order.shuffle(&mut ChaCha8Rng::seed_from_u64(seed));
    let parts = parts.clamp(1, count.max(1));
    (0..parts)
        .map(|part| order[count * part / parts..count * (part + 1) / parts].to_vec())
        .collect()
}

/// Returns the order in which an epoch takes `count` mini-batches. The first epoch takes them as they are.
pub fn epoch_order(count: usize, epoch: usize, seed: u64) -> Vec<usize> {
    let mut order: Vec<usize> = (0..count).collect();
    if epoch > 0 {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        rng.set_stream(epoch as u64);
        order.shuffle(&mut rng);
    }
    order
}

/// Cuts a mini-batch into micro-batches of at most `token_budget` tokens; a longer sequence goes alone.
///
/// `lengths[i]` is the length of sequence `i`. Sequences of similar length go together, the longest first, which keeps
/// the attention's padding small and shows at once whether the memory suffices.
pub fn micro_batches(
    mini_batch: &[usize],
    lengths: &[usize],
    token_budget: usize,
) -> Vec<Vec<usize>> {
    let mut sorted = mini_batch.to_vec();
    sorted.sort_by_key(|&i| std::cmp::Reverse(lengths[i]));
    let mut batches: Vec<Vec<usize>> = Vec::new();
    let mut room = 0;
    for i in sorted {
        if lengths[i] > room || batches.is_empty() {
            batches.push(Vec::new());
            room = token_budget.max(lengths[i]);
        }
        room -= lengths[i];
        batches.last_mut().expect("one was pushed").push(i);
    }
    batches
}

/// Cuts pairs of sequences of these lengths into micro-batches, as [`micro_batches`] cuts sequences. Returns indices of
/// pairs.
pub fn pair_micro_batches(lengths: &[[usize; 2]], token_budget: usize) -> Vec<Vec<usize>> {
    let all: Vec<usize> = (0..lengths.len()).collect();
    let lengths: Vec<usize> = lengths.iter().map(|[a, b]| a + b).collect();
    micro_batches(&all, &lengths, token_budget)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_selected_row_predicts_the_token_after_it() {
        let mut batch = PackedBatch::default();
        batch.push(&[10, 11, 12, 13], &[false, false, true, true]);
        batch.push(&[20, 21], &[false, false]);
        batch.push(&[30, 31], &[true, true]);
        assert_eq!(batch.selected, [1, 2, 6]);
        assert_eq!(batch.targets().collect::<Vec<_>>(), [12, 13, 31]);
        assert_eq!(batch.positions().collect::<Vec<_>>(), [0, 1, 2, 3, 0, 1, 0, 1]);
        assert_eq!(batch.last_rows().collect::<Vec<_>>(), [3, 5, 7]);
        assert_eq!(batch.selected_lengths(), [2, 0, 1]);
    }

    #[test]
    fn a_plans_rows_cover_every_loss_token_once() {
        let tokens = [1, 2, 3, 4, 5];
        let masks = [false, true, false, true, true];
        let sequences: Vec<MaskedSequence<'_>> = [5, 3, 4, 2, 5]
            .map(|n| MaskedSequence { tokens: &tokens[..n], mask: &masks[..n] })
            .into();
        let plan = Plan::draw(&sequences, 2, 8, 3);
        assert_eq!(plan.mini_batches.len(), 2);
        assert_eq!(plan.tokens(), 3 + 1 + 2 + 1 + 3);
        let rows = plan.sequence_rows();
        assert_eq!(rows.iter().map(|(_, rows)| rows.len()).sum::<usize>(), plan.tokens());
        assert!(rows.windows(2).all(|pair| pair[0].1.end == pair[1].1.start));
        for (i, rows) in &rows {
            assert_eq!(
                rows.len(),
                masks[..sequences[*i].tokens.len()].iter().filter(|&&m| m).count()
            );
        }
        // Weights of an optimizer step add up to 1; sequence 0 does not count.
        let weights = plan.weights(Normalization::TokenMean, |i| i != 0);
        for mini_batch in &plan.mini_batches {
            let sum: f32 =
                mini_batch.iter().map(|m| weights[m.rows.clone()].iter().sum::<f32>()).sum();
            assert!((sum - 1.0).abs() < 1e-6);
        }
        let (_, first) = rows.iter().find(|(i, _)| *i == 0).unwrap();
        assert!(weights[first.clone()].iter().all(|&weight| weight == 0.0));
    }

    #[test]
    fn weights_agree_with_the_table() {
        let tokens = [1, 0, 3];
        assert_eq!(Normalization::TokenMean.weights(&tokens), [0.25, 0.0, 0.25]);
        assert_eq!(Normalization::SeqMeanTokenMean.weights(&tokens), [0.5, 0.0, 1.0 / 6.0]);
        assert_eq!(Normalization::SeqMeanTokenSum.weights(&tokens), [0.5, 0.0, 0.5]);
        assert_eq!(Normalization::TokenMean.weights(&[0, 0]), [0.0, 0.0]);
    }

    #[test]
    fn mini_batches_hold_every_sequence_once_and_repeat_by_seed() {
        let dealt = mini_batches(10, 3, 7);
        assert_eq!(dealt.iter().map(Vec::len).collect::<Vec<_>>(), [3, 3, 4]);
        let mut all = dealt.concat();
        all.sort_unstable();
        assert_eq!(all, (0..10).collect::<Vec<_>>());
        assert_eq!(dealt, mini_batches(10, 3, 7));
        assert_ne!(dealt, mini_batches(10, 3, 8));
        assert_eq!(mini_batches(2, 5, 7).len(), 2);
        assert_eq!(mini_batches(0, 5, 7), [Vec::<usize>::new()]);
    }

    #[test]
    fn an_epoch_changes_the_order_alone() {
        assert_eq!(epoch_order(5, 0, 1), [0, 1, 2, 3, 4]);
        let later: Vec<Vec<usize>> = (1..4).map(|epoch| epoch_order(8, epoch, 1)).collect();
        assert!(later[0] != later[1] && later[1] != later[2]);
        for mut order in later {
            order.sort_unstable();
            assert_eq!(order, (0..8).collect::<Vec<_>>());
        }
    }

    #[test]
    fn micro_batches_stay_within_the_budget_and_lose_nothing() {
        let lengths = [5, 20, 3, 9, 9, 2, 8];
        let batches = micro_batches(&[0, 1, 2, 3, 4, 6], &lengths, 18);
        assert_eq!(batches, [vec![1], vec![3, 4], vec![6, 0, 2]]);
        assert_eq!(micro_batches(&[], &lengths, 18), Vec::<Vec<usize>>::new());
        assert_eq!(micro_batches(&[5, 2], &lengths, 1), [vec![2], vec![5]]);
    }
}
