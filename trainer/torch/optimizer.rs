//! AdamW over flat buffers.

use tch::Tensor;

use super::{Error, Model, Result, export::copied, parameters::Parameters};
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
    /// The mean of gradients of each parameter, under its name, in f32.
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
    exp_avg: Tensor,
    exp_avg_sq: Tensor,
}

impl AdamW {
    /// Starts with no step done, for this model. The learning rate comes with each step, not from the options.
    ///
    /// # Errors
    /// When an option is out of range, or there is no memory left.
    pub fn new(model: &Model, options: &OptimizerConfig) -> Result<Self> {
        options.validate()?;
        let zeros = || model.parameters.weights().buffers()[0].f_zeros_like();
        Ok(Self { options: options.clone(), steps: 0, exp_avg: zeros()?, exp_avg_sq: zeros()? })
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
        model.give_back(model.parameters.layout.len);
        tch::no_grad(|| {
            let grad_norm = self.clip(model)?;
            let gradient = model.parameters.gradient()?.shallow_clone();
            let layout =
                (model.parameters.layout.decayed as i64, model.parameters.layout.len as i64);
            let (options, steps) = (&self.options, self.steps + 1);
            let moments = (&mut self.exp_avg, &mut self.exp_avg_sq);
            model.parameters.write(|master| {
                let update = Update { options, steps, lr, decayed: layout.0 };
                update.moments(moments.0, moments.1, &gradient)?;
                update.weights(master, moments.0, moments.1)
            })?;
            self.steps = steps;
            model.parameters.clear_gradient()?;
            Ok(StepReport { grad_norm, steps })
        })
    }

    /// Returns the gradient's norm after scaling it down where it is too large.
    fn clip(&self, model: &Model) -> Result<f64> {
        let mut gradient = model.parameters.gradient()?.shallow_clone();
        let norm = gradient.f_norm()?.f_double_value(&[])?;
        if !norm.is_finite() {
            Parameters::check_finite(&model.parameters.layout, &gradient, "gradient")?;
            return Err(Error::GradientNorm { got: norm });
        }
        // As PyTorch's clip_grad_norm_ has it; 0 switches it off.
        let scale = self.options.max_grad_norm / (norm + 1e-6);
        if scale > 0.0 && scale < 1.0 {
            let _ = gradient.f_mul_scalar_(scale)?;
        }
        Ok(norm)
    }

    /// Returns the state for a checkpoint, copied.
    ///
    /// # Errors
    /// When libtorch fails.
    pub fn state(&self, model: &Model) -> Result<AdamWState> {
        let layout = &model.parameters.layout;
        Ok(AdamWState {
            steps: self.steps,
            exp_avg: copied(layout, &self.exp_avg)?,
            exp_avg_sq: copied(layout, &self.exp_avg_sq)?,
        })
    }

    /// Goes on from a checkpoint's state.
    ///
    /// # Errors
    /// When a tensor is missing, extra, of another shape or not finite; the state is then as before.
    pub fn restore(&mut self, model: &Model, state: &AdamWState) -> Result<()> {
        let exp_avg = model.parameters.gather(&model.spec, &state.exp_avg)?;
        let exp_avg_sq = model.parameters.gather(&model.spec, &state.exp_avg_sq)?;
        (self.steps, self.exp_avg, self.exp_avg_sq) = (state.steps, exp_avg, exp_avg_sq);
        Ok(())
    }
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
