//! Log-probs of tokens other than the next one, the way back from them, and which are the most probable.

use super::softmax::{Row, Slope};
use crate::{
    simd::{Element, Op, Set, narrow},
    trainer::learner::TokenGradient,
};

/// Some tokens of each row.
#[derive(Clone, Copy, Debug)]
pub(super) struct Candidates<'a> {
    /// `[rows, each]`
    pub(super) ids: &'a [u32],
    pub(super) each: usize,
}

impl Candidates<'_> {
    /// Looks up the log-probs `[rows, each]` of rows that were measured, in their logits `[rows, vocab]`.
    pub(super) fn measure<E: Element>(
        self,
        logits: &[E],
        vocab: usize,
        temperature: f32,
        rows: &[Row],
        out: &mut Vec<f32>,
    ) {
        if self.each == 0 {
            return;
        }
        let ids = self.ids.chunks_exact(self.each);
        for ((logits, row), ids) in logits.chunks_exact(vocab).zip(rows).zip(ids) {
            let of = |&id: &u32| logits[id as usize].wide() / temperature - row.denominator;
            out.extend(ids.iter().map(of));
        }
    }

    /// Writes the candidates' derivatives into those of the logits, which [`MeasureBack`](super::softmax::MeasureBack) has
    /// left `[rows, vocab]`. Each is written once, from f32, so that nothing is rounded twice.
    pub(super) fn back<E: Element>(
        self,
        logits: &mut [E],
        (targets, temperature): (&[u32], f32),
        (rows, logprobs): (&[Row], &[f32]),
        (slopes, d_logprobs): (&[Slope], &[f32]),
    ) {
        if self.each == 0 || d_logprobs.is_empty() {
            return;
        }
        let vocab = logits.len() / rows.len().max(1);
        let each = self.each;
        let candidates = self.ids.chunks_exact(each).zip(logprobs.chunks_exact(each));
        let candidates = candidates.zip(d_logprobs.chunks_exact(each));
        let rows = rows.iter().zip(slopes).zip(targets).zip(candidates);
        for (logits, (((row, slope), &target), ((ids, log_ps), ds))) in
            logits.chunks_exact_mut(vocab).zip(rows)
        {
            for ((&id, &log_p), d) in ids.iter().zip(log_ps).zip(ds) {
                let own = if id == target { d + slope.logprob } else { *d };
                let d = (slope.of(log_p, row) + own) / temperature;
                narrow(&[d], std::slice::from_mut(&mut logits[id as usize]));
            }
        }
    }
}

/// A loss's derivatives as the way back takes them.
pub(super) struct Slopes {
    pub(super) rows: Vec<Slope>,
    /// `[rows, each]`; empty where the loss does not depend on candidates.
    pub(super) candidates: Vec<f32>,
}

impl Slopes {
    pub(super) fn new(gradient: TokenGradient, each: usize) -> Self {
        let TokenGradient { logprobs, entropy, candidates } = gradient;
        let sums = candidates.chunks(each.max(1)).map(|row| row.iter().sum());
        let rest = || std::iter::repeat(0.0);
        let of_rows = logprobs.into_iter().zip(entropy.into_iter().chain(rest()));
        let rows = of_rows.zip(sums.chain(rest()));
        let slope = |((logprob, entropy), candidates)| Slope { logprob, entropy, candidates };
        Self { rows: rows.map(slope).collect(), candidates }
    }
}

/// The most probable tokens of each row that was measured, the most probable first; of equals the one with the smaller id.
pub(super) struct Top<'a, E> {
    /// `[rows, vocab]`
    pub(super) logits: &'a [E],
    pub(super) rows: &'a [Row],
    pub(super) temperature: f32,
    /// `[rows, count]`, as is `logprobs`.
    pub(super) ids: &'a mut [u32],
    pub(super) logprobs: &'a mut [f32],
}

impl<E: Element> Op for Top<'_, E> {
    type Output = ();

    #[inline(always)]
    fn run<K: Set>(self, _: K) {
        let rows = self.rows.len().max(1);
        let (vocab, count) = (self.logits.len() / rows, self.ids.len() / rows);
        let answers = self.ids.chunks_exact_mut(count).zip(self.logprobs.chunks_exact_mut(count));
        let mut found = Vec::with_capacity(2 * count);
        for ((logits, row), (ids, logprobs)) in
            self.logits.chunks_exact(vocab).zip(self.rows).zip(answers)
        {
            most_probable(logits, count, &mut found);
            for ((id, logprob), &(logit, token)) in ids.iter_mut().zip(logprobs).zip(&found) {
                (*id, *logprob) = (token, logit / self.temperature - row.denominator);
            }
        }
    }
}

/// Finds the `count` largest in one go: whatever is above the smallest of those so far is kept, until there are twice as
/// many.
fn most_probable<E: Element>(logits: &[E], count: usize, found: &mut Vec<(f32, u32)>) {
    found.clear();
    let mut least = f32::NEG_INFINITY;
    let descending = |a: &(f32, u32), b: &(f32, u32)| b.0.total_cmp(&a.0).then(a.1.cmp(&b.1));
    for (token, logit) in logits.iter().enumerate() {
        let logit = logit.wide();
        // What equals the least comes after it, so that it has the larger id. A logit that is not a number is kept, for
        // whoever looks at the loss.
        if logit <= least && found.len() >= count {
            continue;
        }
        found.push((logit, token as u32));
        if found.len() == 2 * count {
            found.select_nth_unstable_by(count - 1, descending);
            found.truncate(count);
            least = found[count - 1].0;
        }
    }
    found.sort_unstable_by(descending);
    found.truncate(count);
}
