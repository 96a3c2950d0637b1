//! From logits to log-probs and entropies, and back, a row of the vocabulary at a time.

use crate::simd::{Element, Op, Set, Simd, chunks, chunks_mut, exp, narrow};

/// What a row says of its target token.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Row {
    pub(super) logprob: f32,
    pub(super) entropy: f32,
    pub(super) is_top: bool,
    /// The logarithm of the soft-max's denominator.
    pub(super) denominator: f32,
}

/// `log p(target)` and the entropy of each row, `p = softmax(logits / temperature)`.
pub(super) struct Measure<'a, E> {
    /// `[rows, vocab]`
    pub(super) logits: &'a [E],
    pub(super) targets: &'a [u32],
    pub(super) temperature: f32,
    pub(super) rows: &'a mut [Row],
}

impl<E: Element> Op for Measure<'_, E> {
    type Output = ();

    #[inline(always)]
    fn run<K: Set>(self, set: K) {
        let vocab = self.logits.len() / self.rows.len().max(1);
        let rows = self.logits.chunks_exact(vocab).zip(self.targets);
        for ((logits, &target), row) in rows.zip(self.rows) {
            *row = measure(set.simd(), logits, target as usize, self.temperature);
        }
    }
}

#[inline(always)]
fn measure<S: Simd, E: Element>(simd: S, logits: &[E], target: usize, temperature: f32) -> Row {
    let whole: &[E::Chunk<S>] = chunks(logits);
    let rest = &logits[whole.len() * S::LANES..];
    let mut peaks = simd.splat(f32::NEG_INFINITY);
    for chunk in whole {
        peaks = simd.max(peaks, E::load(simd, chunk));
    }
    let mut largest = simd.largest(peaks);
    for x in rest {
        largest = largest.max(x.wide());
    }
    // sum e^x and sum x e^x, x being a logit's distance from the largest.
    let (factor, shift) = (simd.splat(1.0 / temperature), simd.splat(-largest / temperature));
    let (mut sums, mut products) = (simd.splat(0.0), simd.splat(0.0));
    for chunk in whole {
        let x = simd.mul_add(E::load(simd, chunk), factor, shift);
        let e = exp(simd, x);
        sums = simd.add(sums, e);
        products = simd.mul_add(x, e, products);
    }
    let (mut sum, mut product) = (simd.sum(sums), simd.sum(products));
    for x in rest {
        let x = (x.wide() - largest) / temperature;
        sum += x.exp();
        product += x * x.exp();
    }
    let logit = logits[target].wide();
    let denominator = largest / temperature + sum.ln();
    Row {
        logprob: (logit - largest) / temperature - sum.ln(),
        entropy: sum.ln() - product / sum,
        is_top: logit == largest && !logits[..target].iter().any(|x| x.wide() == largest),
        denominator,
    }
}

/// The loss's derivatives with respect to what [`Measure`] found.
#[derive(Clone, Copy, Debug)]
pub(super) struct Slope {
    pub(super) logprob: f32,
    pub(super) entropy: f32,
    /// The sum over all candidates.
    pub(super) candidates: f32,
}

impl Slope {
    /// The derivative with respect to the logit over the temperature of a token of log-prob `log_p` that is neither target
    /// nor candidate.
    #[inline(always)]
    pub(super) fn of(&self, log_p: f32, row: &Row) -> f32 {
        let all = self.logprob + self.candidates;
        log_p.exp() * (-all - self.entropy * (log_p + row.entropy))
    }
}

/// The way back through [`Measure`], in place: with `H` the entropy, `D` the sum of the derivatives with respect to the
/// target's log-prob and the candidates',
/// `d_x_v = d_logprob 1[v = target] - D p_v - d_entropy p_v (log p_v + H)` and `d_logits = d_x / temperature`.
/// What candidates have of their own is not in it.
pub(super) struct MeasureBack<'a, E> {
    pub(super) logits: &'a mut [E],
    pub(super) targets: &'a [u32],
    pub(super) temperature: f32,
    pub(super) rows: &'a [Row],
    pub(super) slopes: &'a [Slope],
}

impl<E: Element> Op for MeasureBack<'_, E> {
    type Output = ();

    #[inline(always)]
    fn run<K: Set>(self, set: K) {
        let vocab = self.logits.len() / self.rows.len().max(1);
        let rows = self.rows.iter().zip(self.slopes).zip(self.targets);
        for (logits, ((row, slope), &target)) in self.logits.chunks_exact_mut(vocab).zip(rows) {
            measure_back(set.simd(), logits, target as usize, self.temperature, row, slope);
        }
    }
}

#[inline(always)]
fn measure_back<S: Simd, E: Element>(
    simd: S,
    logits: &mut [E],
    target: usize,
    temperature: f32,
    row: &Row,
    slope: &Slope,
) {
    let at_target = logits[target].wide() / temperature - row.denominator;
    let factor = simd.splat(1.0 / temperature);
    let (shift, entropy) = (simd.splat(-row.denominator), simd.splat(-slope.entropy));
    let all = slope.logprob + slope.candidates;
    let constant = simd.splat(-all - slope.entropy * row.entropy);
    for chunk in chunks_mut::<E, E::Chunk<S>>(logits) {
        let log_p = simd.mul_add(E::load(simd, chunk), factor, shift);
        let p = exp(simd, log_p);
        let d = simd.mul(p, simd.mul_add(entropy, log_p, constant));
        E::store(simd, simd.mul(d, factor), chunk);
    }
    let start = chunks::<E, E::Chunk<S>>(logits).len() * S::LANES;
    for logit in &mut logits[start..] {
        let log_p = logit.wide() / temperature - row.denominator;
        narrow(&[slope.of(log_p, row) / temperature], std::slice::from_mut(logit));
    }
    let d = slope.of(at_target, row) + slope.logprob;
    narrow(&[d / temperature], &mut logits[target..=target]);
}
