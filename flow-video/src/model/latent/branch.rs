//! The parameters of one branch, and what it does in Candle's operations.

use candle_core::Tensor;
use flow_core::nn::{ConvGeometry, conv2d, whitening};
use flow_core::{Init, Param, ParamPath, Result};

use super::kernel::{LOG_SCALE_FACTOR, Shape};

/// Standard deviation of the hidden weights at the start.
const WEIGHT_STD: f64 = 0.05;

/// The parameters of one branch, in the layouts that the kernels' products take; see [`Shape::lengths`].
#[derive(Debug)]
pub(super) struct Branch {
    dilation: usize,
    gated: bool,
    /// First convolution: weight, flag, bias, log-scale; second: weight, bias, log-scale; last: weight, flag, bias,
    /// log-scale.
    pub params: [Param; 11],
}

impl Branch {
    pub fn new(path: &ParamPath, s: &Shape, dilation: usize) -> Result<Self> {
        let (k, n, c, h, g) = (s.kernel_steps(), s.steps, s.channels, s.hidden, s.wide());
        let (normal, zero) = (Init::Normal(WEIGHT_STD), Init::Const(0.0));
        let (first, second, last) = (path.pp("first"), path.pp("second"), path.pp("last"));
        let params = [
            first.param("weight", (k, 3, 3, c, h), normal)?,
            first.param("flag", (k, 3, 3, h), normal)?,
            first.param("bias", (n, h), zero)?,
            first.param("log_scale", (n, h), zero)?,
            second.param("weight", (h, g), normal)?,
            second.param("bias", (n, g), zero)?,
            second.param("log_scale", (n, g), zero)?,
            last.param("weight", (k, h, 3, 3, c), zero)?,
            last.param("flag", (k, 3, 3, c), zero)?,
            last.param("bias", c, zero)?,
            last.param("log_scale", c, zero)?,
        ];
        Ok(Branch { dilation, gated: s.gated, params })
    }

    /// What the branch adds to `x`, `(B, T, C, H, W)`, at every step.
    pub fn composed(&self, x: &Tensor) -> Result<Tensor> {
        let [.., w2, b2, l2, _, _, _, _] = self.params.each_ref().map(Param::tensor);
        let h = self.normalized(x)?.relu()?;
        self.composed_last(&activation(&norm(&pointwise(&h, &w2)?, &b2, &l2)?, self.gated)?)
    }

    /// The first convolution, normalized: `(B, T, H', H, W)`.
    pub fn normalized(&self, x: &Tensor) -> Result<Tensor> {
        let [w, f, b, l, ..] = self.params.each_ref().map(Param::tensor);
        norm(&flagged_conv(x, &w, &f, self.dilation)?, &b, &l)
    }

    /// The last convolution of the hidden layer `(B, T, H', H, W)`.
    fn composed_last(&self, h: &Tensor) -> Result<Tensor> {
        let [.., w, f, b, l] = self.params.each_ref().map(Param::tensor);
        let w = w.permute((0, 2, 3, 1, 4))?;
        norm(&flagged_conv(h, &w, &f, self.dilation)?, &b.unsqueeze(0)?, &l.unsqueeze(0)?)
    }

    /// Sets both activation normalizations from what reaches them from `x`; returns what the branch then adds.
    pub fn initialize(&self, x: &Tensor) -> Result<Tensor> {
        let [w1, f1, b1, l1, w2, b2, l2, ..] = &self.params;
        let h = set_norm(&flagged_conv(x, &w1.tensor(), &f1.tensor(), self.dilation)?, b1, l1)?.relu()?;
        let h = set_norm(&pointwise(&h, &w2.tensor())?, b2, l2)?;
        self.composed_last(&activation(&h, self.gated)?)
    }
}

/// `tanh(a) · σ(a′)` of the two halves of the channels, or `relu(a)`.
fn activation(h: &Tensor, gated: bool) -> Result<Tensor> {
    if !gated {
        return Ok(h.relu()?);
    }
    let half = h.dim(2)? / 2;
    let gate = h.narrow(2, half, half)?.affine(0.5, 0.0)?.tanh()?.affine(0.5, 0.5)?;
    Ok((h.narrow(2, 0, half)?.tanh()? * gate)?)
}

/// `(x + b) · exp(3 l)` of `(B, T, C, H, W)`, with a row of parameters for each step or one for all.
fn norm(x: &Tensor, bias: &Tensor, log_scale: &Tensor) -> Result<Tensor> {
    let wide = |t: &Tensor| t.unsqueeze(0)?.unsqueeze(3)?.unsqueeze(4);
    let scale = log_scale.affine(LOG_SCALE_FACTOR, 0.0)?.exp()?;
    Ok(x.broadcast_add(&wide(bias)?)?.broadcast_mul(&wide(&scale)?)?)
}

/// Sets bias and log-scale so that every channel of every step has mean 0 and deviation 1.
fn set_norm(pre: &Tensor, bias: &Param, log_scale: &Param) -> Result<Tensor> {
    let (mut b, mut l) = (Vec::new(), Vec::new());
    for step in 0..pre.dim(1)? {
        let (shift, scale) = whitening("latent network", &pre.narrow(1, step, 1)?.squeeze(1)?)?;
        b.push(shift);
        l.push(scale);
    }
    bias.set(&Tensor::stack(&b, 0)?)?;
    log_scale.set(&Tensor::stack(&l, 0)?)?;
    norm(pre, &bias.tensor(), &log_scale.tensor())
}

/// A convolution without extent: `weight` is `(C, O)`.
fn pointwise(x: &Tensor, weight: &Tensor) -> Result<Tensor> {
    let (b, t, c, h, w) = x.dims5()?;
    let rows = weight.t()?.unsqueeze(0)?.broadcast_matmul(&x.reshape((b * t, c, h * w))?)?;
    Ok(rows.reshape((b, t, (), h, w))?)
}

/// A convolution over a step and the one before it, where the weight `(K, 3, 3, C, O)` has two steps, of `x` padded with
/// zeros in space and, by one step, in time; `flag`, `(K, 3, 3, O)`, sees a channel that is one on all of that padding
/// and zero inside.
///
/// Candle has no convolution of three axes: the two steps lie side by side in the channels, time in the batch.
fn flagged_conv(x: &Tensor, weight: &Tensor, flag: &Tensor, dilation: usize) -> Result<Tensor> {
    let (b, t, c, h, w) = x.dims5()?;
    let pad = |x: &Tensor| x.pad_with_zeros(3, dilation, dilation)?.pad_with_zeros(4, dilation, dilation);
    let outside = pad(&Tensor::ones((1, 1, 1, h, w), x.dtype(), x.device())?)?.affine(-1.0, 1.0)?;
    let (high, wide) = (h + 2 * dilation, w + 2 * dilation);
    let mut input = Tensor::cat(&[outside.broadcast_as((b, t, 1, high, wide))?, pad(x)?], 2)?;
    let steps = weight.dim(0)?;
    if steps == 2 {
        let sized = |channels: usize| (b, 1, channels, high, wide);
        let padding = [Tensor::ones(sized(1), x.dtype(), x.device())?, Tensor::zeros(sized(c), x.dtype(), x.device())?];
        let before = Tensor::cat(&[Tensor::cat(&padding, 2)?, input.narrow(1, 0, t - 1)?], 1)?;
        input = Tensor::cat(&[before, input], 2)?;
    }
    let kernel = Tensor::cat(&[&flag.unsqueeze(3)?, weight], 3)?.permute((4, 0, 3, 1, 2))?;
    let kernel = kernel.reshape(((), steps * (c + 1), 3, 3))?;
    let geometry = ConvGeometry::new([3, 3]).dilation([dilation, dilation]);
    let y = conv2d(&input.reshape((b * t, steps * (c + 1), high, wide))?, &kernel, None, &geometry)?;
    Ok(y.reshape((b, t, (), h, w))?)
}
