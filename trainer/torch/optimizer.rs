//! AdamW over flat buffers.

use tch::Tensor;

use super::{
    Error, Model, Result,
    cpu::{Moments, Step, norm},
    export::{copied, copied_numbers},
    head::to_host,
    parameters::{FlatGradient, Parameters},
};
use crate::{rollout::Weights, trainer::config::OptimizerConfig};

/// What a step did.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct StepReport {
    /// Euclidean norm of the whole gradient, before clipping.
    pub grad_norm: f64,
    /// Steps so far, this one included.
    pub steps: u64,
}

/// What a checkpoint keeps of an optimizer.
#[derive(Clone, Debug)]
pub struct AdamWState {
    /// Steps so far.
    pub steps: u64,
    /// The mean of gradients of each parameter that learns, under its name, in f32.
    pub exp_avg: Weights,
    /// The mean of squared gradients, likewise.
    pub exp_avg_sq: Weights,
}

/// AdamW (Loshchilov and Hutter, 2019) with bias correction, in f32 on the master weights.
///
/// ```text
/// m = b1 m + (1 - b1) g      v = b2 v + (1 - b2) g^2
/// w = w - lr decay w - lr (m / (1 - b1^t)) / (sqrt(v / (1 - b2^t)) + eps)
/// ```
#[derive(Debug)]
pub struct AdamW {
    options: OptimizerConfig,
    steps: u64,
    moments: State,
}

/// Means of gradients and of their squares, where the gradient is.
#[derive(Debug)]
enum State {
    Own(Moments),
    Autograd { exp_avg: Tensor, exp_avg_sq: Tensor },
}

impl AdamW {
    /// Starts with no step done, for this model. The learning rate comes with each step, not from the options.
    ///
    /// # Errors
    /// When an option is out of range, or there is no memory left.
    pub fn new(model: &Model, options: &OptimizerConfig) -> Result<Self> {
        options.validate()?;
        let zeros = || model.parameters.master()?.f_zeros_like().map_err(Error::from);
        let moments = if model.parameters.storage.autograd {
            State::Autograd { exp_avg: zeros()?, exp_avg_sq: zeros()? }
        } else {
            let zeros = || vec![0.0; model.parameters.layout.learned];
            State::Own(Moments { exp_avg: zeros(), exp_avg_sq: zeros() })
        };
        Ok(Self { options: options.clone(), steps: 0, moments })
    }

    /// Spends the model's gradient on one step at this learning rate, then clears it. At rate 0 no bit of the weights
    /// changes.
    ///
    /// # Errors
    /// When the gradient is not finite, when there is none, or when a reader of the weights does not let go in time;
    /// weights and state are then as before.
    pub fn step(&mut self, model: &mut Model, lr: f64) -> Result<StepReport> {
        if !(lr.is_finite() && lr >= 0.0) {
            return Err(Error::input("learning rate", "finite and not negative", lr));
        }
        let (options, steps) = (&self.options, self.steps + 1);
        let decayed = model.parameters.layout.decayed;
        let grad_norm = match &mut self.moments {
            State::Own(moments) => {
                let (norm, clip) = clipping(options, model)?;
                let (betas, eps, weight_decay) = (options.betas, options.eps, options.weight_decay);
                let step = Step { betas, eps, lr, weight_decay, number: steps, decayed, clip };
                model.parameters.step(|weights, gradient| step.take(weights, gradient, moments))?;
                norm
            }
            State::Autograd { exp_avg, exp_avg_sq } => tch::no_grad(|| {
                model.give_back(model.parameters.layout.learned);
                let (norm, clip) = clipping(options, model)?;
                let FlatGradient::Autograd(gradient) = model.parameters.gradient()? else {
                    return Err(other_passes());
                };
                let mut gradient = gradient.shallow_clone();
                if clip < 1.0 {
                    let _ = gradient.f_mul_scalar_(clip)?;
                }
                model.parameters.write(|master| {
                    let update = Update { options, steps, lr, decayed: decayed as i64 };
                    update.moments(exp_avg, exp_avg_sq, &gradient)?;
                    update.weights(master, exp_avg, exp_avg_sq)
                })?;
                model.parameters.clear_gradient()?;
                Ok(norm)
            })?,
        };
        self.steps = steps;
        Ok(StepReport { grad_norm, steps })
    }

    /// Returns the state for a checkpoint, copied.
    ///
    /// # Errors
    /// When libtorch fails.
    pub fn state(&self, model: &Model) -> Result<AdamWState> {
        let layout = &model.parameters.layout;
        let (exp_avg, exp_avg_sq) = match &self.moments {
            State::Own(Moments { exp_avg, exp_avg_sq }) => {
                (copied_numbers(layout, exp_avg)?, copied_numbers(layout, exp_avg_sq)?)
            }
            State::Autograd { exp_avg, exp_avg_sq } => {
                (copied(layout, exp_avg)?, copied(layout, exp_avg_sq)?)
            }
        };
        Ok(AdamWState { steps: self.steps, exp_avg, exp_avg_sq })
    }

    /// Goes on from a checkpoint's state.
    ///
    /// # Errors
    /// When a tensor is missing, extra, of another shape or not finite; the state is then as before.
    pub fn restore(&mut self, model: &Model, state: &AdamWState) -> Result<()> {
        let exp_avg = model.parameters.gather(&state.exp_avg)?;
        let exp_avg_sq = model.parameters.gather(&state.exp_avg_sq)?;
        self.moments = match self.moments {
            State::Own(_) => State::Own(Moments {
                exp_avg: to_host(&exp_avg)?,
                exp_avg_sq: to_host(&exp_avg_sq)?,
            }),
            State::Autograd { .. } => State::Autograd { exp_avg, exp_avg_sq },
        };
        self.steps = state.steps;
        Ok(())
    }
}

/// Returns the gradient's norm, and what it is multiplied by where that is too large.
fn clipping(options: &OptimizerConfig, model: &Model) -> Result<(f64, f64)> {
    let layout = &model.parameters.layout;
    let gradient = model.parameters.gradient()?;
    let norm = match gradient {
        FlatGradient::Own(gradient) => norm(gradient)?,
        FlatGradient::Autograd(gradient) => gradient.f_norm()?.f_double_value(&[])?,
    };
    if !norm.is_finite() {
        match gradient {
            FlatGradient::Own(gradient) => {
                Parameters::check_finite(layout, &Tensor::f_from_slice(gradient)?, "gradient")?;
            }
            FlatGradient::Autograd(gradient) => {
                Parameters::check_finite(layout, gradient, "gradient")?;
            }
        }
        return Err(Error::GradientNorm { got: norm });
    }
    // As PyTorch's clip_grad_norm_ has it; 0 switches it off.
    let scale = options.max_grad_norm / (norm + 1e-6);
    Ok((norm, if scale > 0.0 && scale < 1.0 { scale } else { 1.0 }))
}

fn other_passes() -> Error {
    Error::input("optimizer", "made for this model", "one of other passes")
}

/// The arithmetic of one step, on flat buffers.
struct Update<'a> {
    options: &'a OptimizerConfig,
    /// Counted from one.
    steps: u64,
    lr: f64,
    /// Elements subject to weight decay: the first so many.
    decayed: i64,
}

impl Update<'_> {
    fn moments(
        &self,
        exp_avg: &mut Tensor,
        exp_avg_sq: &mut Tensor,
        gradient: &Tensor,
    ) -> Result<()> {
        let _ = exp_avg.f_lerp_(gradient, 1.0 - self.options.betas[0])?;
        let _ = exp_avg_sq.f_lerp_(&gradient.f_square()?, 1.0 - self.options.betas[1])?;
        Ok(())
    }

    fn weights(&self, master: &mut Tensor, exp_avg: &Tensor, exp_avg_sq: &Tensor) -> Result<()> {
        if self.lr == 0.0 {
            return Ok(()); // adding zero would turn -0.0 into 0.0
        }
        if self.options.weight_decay > 0.0 {
            let mut matrices = master.f_narrow(0, 0, self.decayed)?;
            let _ = matrices.f_mul_scalar_(1.0 - self.lr * self.options.weight_decay)?;
        }
        let correction = |beta: f64| 1.0 - beta.powf(self.steps as f64);
        let (first, second) =
            (correction(self.options.betas[0]), correction(self.options.betas[1]));
        let mut denominator = exp_avg_sq.f_sqrt()?;
        let _ = denominator.f_div_scalar_(second.sqrt())?.f_add_scalar_(self.options.eps)?;
        // addcdiv has no factor in tch, so the step size goes into the denominator.
        let _ = denominator.f_mul_scalar_(-first / self.lr)?;
        let _ = master.f_addcdiv_(exp_avg, &denominator)?;
        Ok(())
    }
}
