//! What stands on top: log-probs of the next token, or a number per row and label; and the way back.

use super::{
    candidates::{Candidates, Slopes, Top},
    compute::{Crew, Format, rows_of_a_part},
    pass::Pass,
    softmax::{Measure, MeasureBack, Row},
    workspace::room,
};
use crate::{
    ffi::torch_matmul::{Matrix, multiply},
    trainer::{
        learner::{Entropy, LogprobOptions, TokenLogprobs, TopLogprobs},
        torch::Result,
    },
};

/// A language model's head over the rows that were wanted.
pub(super) struct LanguageHead<'a, E> {
    pub(super) pass: &'a Pass<'a, E>,
    /// The final norm's output, `[rows, hidden]`.
    pub(super) normed: &'a [E],
    /// The token after each row.
    pub(super) targets: &'a [u32],
    /// Other tokens that are of interest.
    pub(super) candidates: Candidates<'a>,
    pub(super) options: &'a LogprobOptions,
    /// Rows whose logits are held at a time.
    pub(super) step: usize,
}

/// What a head says of its rows.
pub(super) struct Outputs {
    rows: Vec<Row>,
    /// The candidates' log-probs.
    candidates: Vec<f32>,
}

impl<'a, E: Format> LanguageHead<'a, E> {
    /// Computes log-probs; what is left in `logits` belongs to the last rows, which are all if no more than a step.
    pub(super) fn outputs(&self, logits: &mut Vec<E>, crew: &mut Crew) -> Result<Outputs> {
        let mut rows = vec![Row::default(); self.targets.len()];
        let mut candidates = Vec::with_capacity(self.candidates.ids.len());
        let (vocab, temperature) = (self.pass.slots.head.outputs, self.options.temperature as f32);
        for part in self.parts() {
            let logits = self.logits(&part, logits)?;
            let rows = &mut rows[part.rows()];
            self.measure(&part, logits, rows, crew);
            part.candidates.measure(logits, vocab, temperature, rows, &mut candidates);
        }
        Ok(Outputs { rows, candidates })
    }

    /// Finds each row's `count` most probable tokens.
    pub(super) fn top(
        &self,
        count: usize,
        logits: &mut Vec<E>,
        crew: &mut Crew,
    ) -> Result<TopLogprobs> {
        let (vocab, temperature) = (self.pass.slots.head.outputs, self.options.temperature as f32);
        let all = self.targets.len() * count;
        let (mut ids, mut logprobs) = (vec![0; all], vec![0.0; all]);
        for part in self.parts() {
            let logits = &*self.logits(&part, logits)?;
            let mut rows = vec![Row::default(); part.len];
            self.measure(&part, logits, &mut rows, crew);
            let step = rows_of_a_part(vocab);
            let answers = part.start * count..(part.start + part.len) * count;
            let (ids, logprobs) = (&mut ids[answers.clone()], &mut logprobs[answers]);
            let answers = ids.chunks_mut(step * count).zip(logprobs.chunks_mut(step * count));
            let parts = logits.chunks(step * vocab).zip(rows.chunks(step)).zip(answers);
            crew.each(parts.map(|((logits, rows), (ids, logprobs))| Top {
                logits,
                rows,
                temperature,
                ids,
                logprobs,
            }));
        }
        Ok(TopLogprobs { ids, logprobs })
    }

    /// Goes back from the rows, whose outputs are known: writes the derivative with respect to `normed`, and adds that
    /// with respect to the head's weight.
    pub(super) fn back(
        &self,
        (outputs, slopes): (&Outputs, &Slopes),
        logits: &mut Vec<E>,
        d_normed: &mut [E],
        (gradient, scratch): (&mut [f32], &mut Vec<E>),
        crew: &mut Crew,
    ) -> Result<()> {
        let (hidden, vocab) = (self.pass.slots.head.inputs, self.pass.slots.head.outputs);
        let is_held = self.targets.len() <= self.step;
        for part in self.parts() {
            let logits = match is_held {
                true => room(logits, part.len * vocab),
                false => self.logits(&part, logits)?,
            };
            let step = rows_of_a_part(vocab);
            let (of_rows, of_candidates) = (part.rows(), part.candidate_places());
            let (rows, d_rows) = (&outputs.rows[of_rows.clone()], &slopes.rows[of_rows]);
            let temperature = self.options.temperature as f32;
            let parts = rows.chunks(step).zip(d_rows.chunks(step)).zip(part.targets.chunks(step));
            crew.each(logits.chunks_mut(step * vocab).zip(parts).map(
                |(logits, ((rows, slopes), targets))| MeasureBack {
                    logits,
                    targets,
                    temperature,
                    rows,
                    slopes,
                },
            ));
            if let Some(d_candidates) = slopes.candidates.get(of_candidates.clone()) {
                let of_rows = (rows, &outputs.candidates[of_candidates]);
                let aims = (part.targets, temperature);
                part.candidates.back(logits, aims, of_rows, (d_rows, d_candidates));
            }
            let normed = part.of(self.normed, hidden);
            let d_normed = &mut d_normed[part.start * hidden..][..part.len * hidden];
            let head = &self.pass.slots.head;
            self.pass.linear_back(head, (normed, logits), d_normed, (gradient, scratch), crew)?;
        }
        Ok(())
    }

    fn parts(&self) -> impl Iterator<Item = Part<'a>> + use<'a, E> {
        let (step, Candidates { ids, each }) = (self.step, self.candidates);
        let targets = self.targets.chunks(step).enumerate();
        targets.map(move |(n, targets)| {
            let (start, len) = (n * step, targets.len());
            let ids = &ids[start * each..][..len * each];
            Part { start, len, targets, candidates: Candidates { ids, each } }
        })
    }

    pub(super) fn logits<'o>(&self, part: &Part<'_>, out: &'o mut Vec<E>) -> Result<&'o mut [E]> {
        let head = &self.pass.slots.head;
        let weight = Matrix::new(&self.pass.weights[head.weight.clone()], head.inputs);
        let out = room(out, part.len * head.outputs);
        multiply(Matrix::new(part.of(self.normed, head.inputs), head.inputs), weight.t(), out)?;
        Ok(out)
    }

    fn measure(&self, part: &Part<'_>, logits: &[E], rows: &mut [Row], crew: &mut Crew) {
        let vocab = self.pass.slots.head.outputs;
        let step = rows_of_a_part(vocab);
        let temperature = self.options.temperature as f32;
        let parts = logits.chunks(step * vocab).zip(part.targets.chunks(step));
        crew.each(parts.zip(rows.chunks_mut(step)).map(|((logits, targets), rows)| Measure {
            logits,
            targets,
            temperature,
            rows,
        }));
    }

    /// Copies every logit out, in f32.
    pub(super) fn all_logits(&self, logits: &mut Vec<E>) -> Result<Vec<f32>> {
        let mut all = Vec::new();
        for part in self.parts() {
            all.extend(self.logits(&part, logits)?.iter().map(|x| x.wide()));
        }
        Ok(all)
    }
}

/// Rows whose logits are held at a time.
pub(super) struct Part<'a> {
    start: usize,
    len: usize,
    targets: &'a [u32],
    candidates: Candidates<'a>,
}

impl Part<'_> {
    fn rows(&self) -> std::ops::Range<usize> {
        self.start..self.start + self.len
    }

    /// Where its candidates stand among all.
    fn candidate_places(&self) -> std::ops::Range<usize> {
        self.start * self.candidates.each..(self.start + self.len) * self.candidates.each
    }

    fn of<'r, T>(&self, matrix: &'r [T], width: usize) -> &'r [T] {
        &matrix[self.start * width..][..self.len * width]
    }
}

/// Returns rows as the losses take them.
pub(super) fn token_logprobs(outputs: &Outputs, options: &LogprobOptions) -> TokenLogprobs {
    let rows = &outputs.rows;
    let entropy = options.entropy != Entropy::Skip;
    TokenLogprobs {
        logprobs: rows.iter().map(|row| row.logprob).collect(),
        entropy: rows.iter().filter(|_| entropy).map(|row| row.entropy).collect(),
        top: rows.iter().filter(|_| options.top).map(|row| row.is_top).collect(),
        candidates: outputs.candidates.clone(),
    }
}

/// A head with a number per row and label, in f32.
pub(super) struct ScoreHead<'a, E> {
    /// `[labels, hidden]`
    pub(super) weight: &'a [E],
    /// `[rows, hidden]`
    pub(super) normed: &'a [E],
    pub(super) hidden: usize,
}

impl<E: Format> ScoreHead<'_, E> {
    /// Row by row, a number for each label.
    pub(super) fn scores(&self) -> Vec<f32> {
        let score = |row: &[E], weight: &[E]| {
            row.iter().zip(weight).map(|(x, w)| x.wide() * w.wide()).sum::<f32>()
        };
        let rows = self.normed.chunks_exact(self.hidden);
        rows.flat_map(|row| self.labels().map(move |weight| score(row, weight))).collect()
    }

    /// Writes the derivative with respect to `normed`, and adds that with respect to the weight, where it learns.
    pub(super) fn back(&self, slopes: &[f32], d_normed: &mut [E], gradient: Option<&mut [f32]>) {
        let labels = self.weight.len() / self.hidden;
        let slopes = || slopes.chunks_exact(labels);
        for (d_row, slopes) in d_normed.chunks_exact_mut(self.hidden).zip(slopes()) {
            for (i, d_x) in d_row.iter_mut().enumerate() {
                let terms = slopes.iter().zip(self.labels());
                *d_x = E::of(terms.map(|(slope, weight)| slope * weight[i].wide()).sum());
            }
        }
        let Some(gradient) = gradient else { return };
        for (row, slopes) in self.normed.chunks_exact(self.hidden).zip(slopes()) {
            for (slope, gradient) in slopes.iter().zip(gradient.chunks_exact_mut(self.hidden)) {
                for (sum, x) in gradient.iter_mut().zip(row) {
                    *sum += slope * x.wide();
                }
            }
        }
    }

    fn labels(&self) -> impl Iterator<Item = &[E]> {
        self.weight.chunks_exact(self.hidden)
    }
}
