//! AdamW over flat buffers, in one pass over memory.

use half::bf16;

use super::{
    compute::{self, PART},
    workspace::Workspace,
};
use crate::{
    ffi::torch::HostBuffers,
    simd::{Op, Set, dot, narrow},
    trainer::torch::Result,
};

/// Means of gradients and of their squares.
#[derive(Clone, Debug)]
pub(in crate::trainer::torch) struct Moments {
    pub(in crate::trainer::torch) exp_avg: Vec<f32>,
    pub(in crate::trainer::torch) exp_avg_sq: Vec<f32>,
}

/// One step's constants.
#[derive(Clone, Copy, Debug)]
pub(in crate::trainer::torch) struct Step {
    pub(in crate::trainer::torch) betas: [f64; 2],
    pub(in crate::trainer::torch) eps: f64,
    pub(in crate::trainer::torch) lr: f64,
    pub(in crate::trainer::torch) weight_decay: f64,
    /// Counted from one.
    pub(in crate::trainer::torch) number: u64,
    /// Elements subject to weight decay: the first so many.
    pub(in crate::trainer::torch) decayed: usize,
    /// What the gradient is multiplied by first.
    pub(in crate::trainer::torch) clip: f64,
}

/// Returns the Euclidean norm; infinite where a square is, in f32.
pub(in crate::trainer::torch) fn norm(gradient: &[f32]) -> Result<f64> {
    let mut squares = vec![0.0; gradient.len().div_ceil(PART)];
    compute::with(|crew, _: &mut Workspace<f32>| {
        let parts = gradient.chunks(PART).zip(&mut squares);
        crew.each(parts.map(|(part, square)| Square { part, square }));
        Ok(())
    })?;
    Ok(squares.iter().sum::<f64>().sqrt())
}

struct Square<'a> {
    part: &'a [f32],
    square: &'a mut f64,
}

impl Op for Square<'_> {
    type Output = ();

    #[inline(always)]
    fn run<K: Set>(self, set: K) {
        *self.square = dot(set.simd(), self.part, self.part).into();
    }
}

impl Step {
    /// Moves weights and moments, and sets the gradient to zero.
    pub(in crate::trainer::torch) fn take(
        &self,
        weights: HostBuffers<'_>,
        gradient: &mut [f32],
        moments: &mut Moments,
    ) -> Result<()> {
        let correction = |beta: f64| 1.0 - beta.powf(self.number as f64);
        let [first, second] = self.betas;
        let constants = Constants {
            first: (1.0 - first) as f32,
            second: (1.0 - second) as f32,
            clip: self.clip as f32,
            rate: (self.lr / correction(first)) as f32,
            root: (1.0 / correction(second).sqrt()) as f32,
            eps: self.eps as f32,
            keep: (1.0 - self.lr * self.weight_decay) as f32,
        };
        let mut all = Update {
            constants,
            master: weights.master,
            copy: weights.copy.unwrap_or_default(),
            gradient,
            exp_avg: &mut moments.exp_avg,
            exp_avg_sq: &mut moments.exp_avg_sq,
        };
        let mut parts = Vec::new();
        let mut start = 0;
        while !all.gradient.is_empty() {
            // Weight decay ends between two parts.
            let end = if start < self.decayed { self.decayed } else { usize::MAX };
            let len = PART.min(end - start).min(all.gradient.len());
            let (mut part, rest) = all.split(len);
            if start >= self.decayed {
                part.constants.keep = 1.0;
            }
            parts.push(part);
            (start, all) = (start + len, rest);
        }
        compute::with(|crew, _: &mut Workspace<f32>| {
            crew.each(parts.into_iter());
            Ok(())
        })
    }
}

#[derive(Clone, Copy)]
struct Constants {
    /// What the new gradient weighs in each mean.
    first: f32,
    second: f32,
    clip: f32,
    /// The learning rate, corrected for the first mean's bias.
    rate: f32,
    /// Corrects the root of the second mean for its bias.
    root: f32,
    eps: f32,
    /// What weight decay leaves of a weight.
    keep: f32,
}

/// Some elements of every buffer.
struct Update<'a> {
    constants: Constants,
    master: &'a mut [f32],
    /// The weights as passes read them, where that is not `master`.
    copy: &'a mut [bf16],
    gradient: &'a mut [f32],
    exp_avg: &'a mut [f32],
    exp_avg_sq: &'a mut [f32],
}

impl Update<'_> {
    /// Splits the first elements off.
    fn split(self, len: usize) -> (Self, Self) {
        let (master, other_master) = self.master.split_at_mut(len);
        let (copy, other_copy) = self.copy.split_at_mut(len.min(self.copy.len()));
        let (gradient, other_gradient) = self.gradient.split_at_mut(len);
        let (exp_avg, other_avg) = self.exp_avg.split_at_mut(len);
        let (exp_avg_sq, other_sq) = self.exp_avg_sq.split_at_mut(len);
        let constants = self.constants;
        let rest = Self {
            constants,
            master: other_master,
            copy: other_copy,
            gradient: other_gradient,
            exp_avg: other_avg,
            exp_avg_sq: other_sq,
        };
        (Self { constants, master, copy, gradient, exp_avg, exp_avg_sq }, rest)
    }
}

impl Op for Update<'_> {
    type Output = ();

    #[inline(always)]
    fn run<K: Set>(self, _: K) {
        let Constants { first, second, clip, rate, root, eps, keep } = self.constants;
        let moments = self.exp_avg.iter_mut().zip(self.exp_avg_sq);
        let elements = self.master.iter_mut().zip(self.gradient).zip(moments);
        for ((weight, gradient), (mean, square)) in elements {
            let g = *gradient * clip;
            *gradient = 0.0;
            *mean += first * (g - *mean);
            *square += second * (g * g - *square);
            if rate != 0.0 {
                // Else -0.0 would become 0.0.
                *weight = *weight * keep - rate * *mean / (square.sqrt() * root + eps);
            }
        }
        narrow(&self.master[..self.copy.len()], self.copy);
    }
}
