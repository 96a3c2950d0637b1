//! What stands on top: log-probs of the next token, or a number per row and label.

use std::ops::Range;

use tch::{Kind, Tensor};

use super::{
    Error, Result,
    layer::{Linear, Norm},
};
use crate::trainer::learner::{Entropy, LogprobOptions};

/// Logits held at a time: 128 MiB in f32. More rows are computed chunk by chunk.
pub(super) const MAX_LOGITS: usize = 1 << 25;

/// [`TokenLogprobs`](crate::trainer::learner::TokenLogprobs) as tensors, perhaps with a graph behind them.
#[derive(Debug)]
pub(super) struct Outputs {
    pub(super) logprobs: Tensor,
    pub(super) entropy: Option<Tensor>,
    /// Whether the token is the most probable one: 1 or 0.
    pub(super) top: Option<Tensor>,
    /// `[rows x candidates]`
    pub(super) candidates: Option<Tensor>,
}

/// The tokens whose log-probs are wanted.
#[derive(Debug)]
pub(super) struct Aims {
    /// The token after each row: `[rows]`.
    pub(super) targets: Tensor,
    /// `[rows, candidates]`, where there are any.
    pub(super) candidates: Option<Tensor>,
}

impl Aims {
    /// Returns those of some of the rows.
    pub(super) fn part(&self, rows: &Range<usize>) -> Result<Self> {
        let part = |tensor: &Tensor| tensor.f_narrow(0, rows.start as i64, rows.len() as i64);
        let candidates = self.candidates.as_ref().map(part).transpose()?;
        Ok(Self { targets: part(&self.targets)?, candidates })
    }
}

/// The final norm and the projection.
#[derive(Debug)]
pub(super) struct HeadLayer {
    pub(super) norm: Norm,
    pub(super) project: Linear,
    /// Logits held at a time: [`MAX_LOGITS`].
    pub(super) max_logits: usize,
}

impl HeadLayer {
    /// Bytes of logits that a pass of our own may hold: as many as autograd's three copies in f32.
    pub(super) fn logit_bytes(&self) -> usize {
        3 * self.max_logits * size_of::<f32>()
    }

    /// Splits rows so that no part has more logits than fit.
    pub(super) fn chunks(&self, rows: usize) -> Vec<Range<usize>> {
        let vocab = self.project.weight.size()[0] as usize;
        let step = (self.max_logits / vocab.max(1)).max(1);
        (0..rows).step_by(step).map(|start| start..rows.min(start + step)).collect()
    }

    /// Maps the residual stream `[rows, hidden]` and the tokens that are wanted to log-probs.
    pub(super) fn logprobs(
        &self,
        rows: &Tensor,
        aims: &Aims,
        options: &LogprobOptions,
    ) -> Result<Outputs> {
        let targets = &aims.targets;
        let all = self.all_logprobs(rows, options.temperature)?;
        let logprobs = all.f_gather(1, &targets.f_unsqueeze(1)?, false)?.f_squeeze_dim(1)?;
        let top = || all.f_argmax(-1, false)?.f_eq_tensor(targets);
        let entropy = match options.entropy {
            Entropy::Skip => None,
            Entropy::Measure => Some(tch::no_grad(|| entropy(&all))?),
            Entropy::Train => Some(entropy(&all)?),
        };
        let gather = |ids: &Tensor| all.f_gather(1, ids, false)?.f_flatten(0, -1);
        let candidates = aims.candidates.as_ref().map(gather).transpose()?;
        Ok(Outputs { logprobs, entropy, top: options.top.then(top).transpose()?, candidates })
    }

    /// Maps the residual stream `[rows, hidden]` to the log-probs of all tokens `[rows, vocab]`.
    pub(super) fn all_logprobs(&self, rows: &Tensor, temperature: f64) -> Result<Tensor> {
        let logits = match temperature {
            1.0 => self.logits(rows)?,
            temperature => self.logits(rows)?.f_div_scalar(temperature)?,
        };
        Ok(logits.f_log_softmax(-1, Kind::Float)?)
    }

    /// Maps the residual stream `[rows, hidden]` to logits, in f32.
    pub(super) fn logits(&self, rows: &Tensor) -> Result<Tensor> {
        Ok(self.project.forward(&self.norm.forward(rows)?)?.f_to_kind(Kind::Float)?)
    }

    /// Maps the residual stream `[rows, hidden]` to a number per row and label, row by row, in f32.
    pub(super) fn scores(&self, rows: &Tensor) -> Result<Tensor> {
        let hidden = self.norm.forward(rows)?.f_to_kind(Kind::Float)?;
        let weight = self.project.weight.f_to_kind(Kind::Float)?;
        Ok(hidden.f_linear(&weight, None::<&Tensor>)?.f_reshape([-1])?)
    }
}

/// Checks that the logits can be divided by the temperature.
pub(super) fn check(temperature: f64) -> Result<()> {
    if temperature.is_finite() && temperature > 0.0 {
        return Ok(());
    }
    Err(Error::input("temperature", "positive", temperature))
}

/// `-sum_v p_v log p_v` of each row of log-probs.
fn entropy(all: &Tensor) -> Result<Tensor> {
    Ok(all
        .f_exp()?
        .f_mul(all)?
        .f_sum_dim_intlist([-1i64].as_slice(), false, Kind::Float)?
        .f_neg()?)
}

/// Copies a vector of numbers to the host.
pub(super) fn to_host(tensor: &Tensor) -> Result<Vec<f32>> {
    let tensor =
        tensor.f_detach()?.f_to_device(tch::Device::Cpu)?.f_to_kind(Kind::Float)?.f_contiguous()?;
    let mut values = vec![0.0; tensor.numel()];
    tensor.f_copy_data(&mut values, tensor.numel())?;
    Ok(values)
}
