//! An average of the weights as they change.

use tch::Tensor;

use super::{Error, LearningModel, Result, export::copied};
use crate::rollout::{Dtype, Weights};

/// `average = decay average + (1 - decay) weights` after each optimizer step, of what learns, in f32 (Polyak and Juditsky,
/// 1992, with weights that fall off).
#[derive(Debug)]
pub(super) struct Average {
    decay: f64,
    flat: Tensor,
}

impl Average {
    pub(super) fn follow(&mut self, weights: &Tensor) -> Result<()> {
        tch::no_grad(|| {
            let _ = self.flat.f_lerp_(weights, 1.0 - self.decay)?;
            Ok(())
        })
    }
}

fn copy_of(weights: &Tensor) -> Result<Tensor> {
    Ok(weights.f_to_device_(weights.device(), weights.kind(), false, true)?)
}

impl LearningModel {
    /// Keeps an average of the weights from now on. At `decay` 0 there is none.
    ///
    /// # Errors
    /// When `decay` is not from 0 to below 1, or there is no memory left.
    pub fn with_average(mut self, decay: f64) -> Result<Self> {
        if !(0.0..1.0).contains(&decay) {
            return Err(Error::input("decay", "from 0 to below 1", decay));
        }
        if decay > 0.0 {
            let flat = tch::no_grad(|| copy_of(&self.model.parameters.master()?))?;
            self.average = Some(Average { decay, flat });
        }
        Ok(self)
    }

    /// Says whether an average is kept.
    pub fn keeps_average(&self) -> bool {
        self.average.is_some()
    }

    /// Returns the average of what learns, as [`Model::learned`](super::Model::learned) names it, copied; `None` without
    /// one.
    ///
    /// # Errors
    /// When libtorch fails.
    pub fn average(&self) -> Result<Option<Weights>> {
        let copy = |average: &Average| copied(&self.model.parameters.layout, &average.flat);
        self.average.as_ref().map(copy).transpose()
    }

    /// Returns a whole model's weights with the average in place of what learns, adapters merged; `None` without one.
    ///
    /// # Errors
    /// When libtorch fails.
    pub fn averaged_weights(&self, dtype: Dtype) -> Result<Option<Weights>> {
        let weights = |average: &Average| self.model.weights_with(&average.flat, dtype);
        self.average.as_ref().map(weights).transpose()
    }

    /// Goes on from a checkpoint's average.
    ///
    /// # Errors
    /// When a tensor is missing, extra, of another shape or not finite.
    pub fn restore_average(&mut self, average: &Weights) -> Result<()> {
        if let Some(kept) = &mut self.average {
            kept.flat = self.model.parameters.gather(average)?;
        }
        Ok(())
    }
}
