//! A mixture of logistics as a monotone map: multi-modal conditionals in one coupling.
//!
//! Encoding is closed and stays in log-space. Decoding has no closed form: a safeguarded Newton
//! iteration solves each element in f64 from a bracket that is known beforehand.

use candle_core::{Device, Tensor};

use super::affine::soft_clamp;
use super::{Transformer, check_params};
use crate::numerics::host::numbers;
use crate::numerics::root;
use crate::numerics::softmax::{log_sigmoid, log_softmax, log_sum_exp};
use crate::{Error, Result};

/// `|ln s|` of a component stays below this: widths between 0.007 and 148.
const COMPONENT_BOUND: f64 = 5.0;
/// `|a|`, the logarithm of the outer scale, stays below this.
const SCALE_BOUND: f64 = 3.0;
/// The largest logarithm of a derivative of `decode` that gradients see: in a gap between narrow
/// components the exact one overflows.
const MAX_LOG_PULL: f64 = 60.0;

/// The logistic-mixture CDF of Flow++ (Ho et al. 2019, arXiv 1902.00275, section 3.2):
///
/// `y = e^a · logit F(x) + b`, `F(x) = Σ_k π_k σ((x - μ_k) / s_k)`.
///
/// With `z_k = (x - μ_k) / s_k`, `r_k ∝ π_k σ(z_k)` and `q_k ∝ π_k σ(-z_k)` (each adds up to one),
///
/// `ln ∂y/∂x = a + ln Σ_k (r_k σ(-z_k) + q_k σ(z_k)) / s_k`,
///
/// the sum of `F'/F` and `F'/(1 - F)`: positive terms only, so nothing cancels in the tails.
///
/// Parameters along dimension 2: `K` logits of `π`, `K` locations, `K` raw log-scales (`ln s_k` is softly
/// clamped to ±5), then `a` (softly clamped to ±3) and `b`. **Zero parameters give the identity.**
/// All components are then alike, and components that are alike get like gradients; so the locations have
/// gains, `μ_k = g_k · raw_k` with `g_k` from ½ to 1½, and the first step of training parts them.
///
/// # Gradients of `decode`
/// The solution `x*` is found outside the graph and then takes one Newton step in tracked operations,
/// `x = x* - (y(x*) - y) / y'(x*)`, whose value is zero and whose derivative is that of the implicit
/// function. They are exact, but for first derivatives only, as all of Candle's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LogisticMixture {
    components: usize,
}

impl LogisticMixture {
    /// A mixture of `components` logistics; Flow++ uses 32 for images, 4 to 8 suit vectors.
    ///
    /// # Errors
    /// [`Error::Config`] for no component.
    pub fn new(components: usize) -> Result<Self> {
        if components == 0 {
            return Err(Error::config("logistic mixture", "needs at least one component"));
        }
        Ok(LogisticMixture { components })
    }

    /// The number of components.
    pub fn components(&self) -> usize {
        self.components
    }

    fn unpack(&self, params: &Tensor) -> Result<Mixture> {
        let k = self.components;
        let gains: Vec<f64> = (0..k).map(|i| 0.5 + (i as f64 + 0.5) / k as f64).collect();
        let mut shape = vec![1; params.rank()];
        shape[2] = k;
        let gains = Tensor::from_vec(gains, shape, &Device::Cpu)?.to_dtype(params.dtype())?;
        Ok(Mixture {
            log_weights: log_softmax(&params.narrow(2, 0, k)?, 2)?,
            means: params.narrow(2, k, k)?.broadcast_mul(&gains.to_device(params.device())?)?,
            log_scales: soft_clamp(&params.narrow(2, 2 * k, k)?, COMPONENT_BOUND)?,
            log_scale: soft_clamp(&params.narrow(2, 3 * k, 1)?.squeeze(2)?, SCALE_BOUND)?,
            shift: params.narrow(2, 3 * k + 1, 1)?.squeeze(2)?,
        })
    }

    /// `x` with `y(x) = y`, outside the graph.
    fn solve(&self, y: &Tensor, mixture: &Mixture) -> Result<Tensor> {
        let scale = mixture.log_scale.neg()?.exp()?;
        let targets = numbers(&((y - &mixture.shift)? * scale)?)?;
        let [log_weights, means, log_scales] =
            [numbers(&mixture.log_weights)?, numbers(&mixture.means)?, numbers(&mixture.log_scales)?];
        let inner: usize = y.dims()[2..].iter().product();
        let solve = |i: usize, target: f64| {
            let start = i / inner * self.components * inner + i % inner;
            let at = |k: usize| start + k * inner;
            let component = |k: usize| Component::new(log_weights[at(k)], means[at(k)], log_scales[at(k)]);
            let components: Vec<Component> = (0..self.components).map(component).collect();
            quantile(&components, target)
        };
        root::all(&self.name(), y, &targets, solve)
    }
}

/// The parameters of the map: components `(B, C, K, …)`, the rest `(B, C, …)`.
struct Mixture {
    log_weights: Tensor,
    means: Tensor,
    log_scales: Tensor,
    log_scale: Tensor,
    shift: Tensor,
}

impl Mixture {
    fn detach(&self) -> Mixture {
        Mixture {
            log_weights: self.log_weights.detach(),
            means: self.means.detach(),
            log_scales: self.log_scales.detach(),
            log_scale: self.log_scale.detach(),
            shift: self.shift.detach(),
        }
    }

    /// `y` and `ln ∂y/∂x`.
    fn encode(&self, x: &Tensor) -> Result<(Tensor, Tensor)> {
        let z = x.unsqueeze(2)?.broadcast_sub(&self.means)?.mul(&self.log_scales.neg()?.exp()?)?;
        let (log_below, log_above) = (log_sigmoid(&z)?, log_sigmoid(&z.neg()?)?);
        let (below, above) = ((&self.log_weights + &log_below)?, (&self.log_weights + &log_above)?);
        let logit = (log_sum_exp(&below, 2)? - log_sum_exp(&above, 2)?)?.squeeze(2)?;
        let y = ((logit * self.log_scale.exp()?)? + &self.shift)?;
        let rises = Tensor::cat(
            &[
                ((log_softmax(&below, 2)? + log_above)? - &self.log_scales)?,
                ((log_softmax(&above, 2)? + log_below)? - &self.log_scales)?,
            ],
            2,
        )?;
        let log = (log_sum_exp(&rises, 2)?.squeeze(2)? + &self.log_scale)?;
        Ok((y, log))
    }

    /// A constant solution `x` becomes the function of `y` and the parameters that it is.
    fn attach(&self, x: &Tensor, y: &Tensor) -> Result<Tensor> {
        let (value, log) = self.encode(x)?;
        let residual = (value - y)?;
        let pull = log.detach().neg()?.minimum(MAX_LOG_PULL)?.exp()?;
        // The residual's value is rounding; only its derivative is wanted.
        let change = ((&residual - residual.detach())? * pull)?;
        Ok((x - change)?)
    }
}

impl Transformer for LogisticMixture {
    fn name(&self) -> String {
        format!("logistic mixture, {} components", self.components)
    }
    fn params_per_element(&self) -> usize {
        3 * self.components + 2
    }
    fn encode(&self, x: &Tensor, params: &Tensor) -> Result<(Tensor, Tensor)> {
        check_params(self, x, params)?;
        self.unpack(params)?.encode(x)
    }
    fn decode(&self, y: &Tensor, params: &Tensor) -> Result<(Tensor, Tensor)> {
        check_params(self, y, params)?;
        let mixture = self.unpack(params)?;
        let mut x = self.solve(&y.detach(), &mixture.detach())?;
        if y.track_op() || params.track_op() {
            x = mixture.attach(&x, y)?;
        }
        let (_, log) = mixture.encode(&x)?;
        Ok((x, log.neg()?))
    }
}

/// One logistic of the mixture, for the scalar solver.
#[derive(Debug, Clone, Copy)]
struct Component {
    log_weight: f64,
    mean: f64,
    scale: f64,
}

impl Component {
    fn new(log_weight: f64, mean: f64, log_scale: f64) -> Self {
        Component { log_weight, mean, scale: log_scale.exp() }
    }
}

/// `ln(e^a + e^b)`; minus infinity is an empty sum.
fn log_add(a: f64, b: f64) -> f64 {
    let (low, high) = if a < b { (a, b) } else { (b, a) };
    if low == f64::NEG_INFINITY { high } else { high + (low - high).exp().ln_1p() }
}

/// `logit F(x)` and its derivative, as [`Mixture::encode`] has them.
fn logit_cdf(components: &[Component], x: f64) -> (f64, f64) {
    let [mut below, mut above, mut density] = [f64::NEG_INFINITY; 3];
    for c in components {
        let z = (x - c.mean) / c.scale;
        let rest = (-z.abs()).exp().ln_1p();
        let (log_below, log_above) = (z.min(0.0) - rest, (-z).min(0.0) - rest);
        below = log_add(below, c.log_weight + log_below);
        above = log_add(above, c.log_weight + log_above);
        density = log_add(density, c.log_weight + log_below + log_above - c.scale.ln());
    }
    // 1 / (F (1 - F)) = 1/F + 1/(1 - F); far out this loses digits, which only slows Newton's steps.
    (below - above, (density - below).exp() + (density - above).exp())
}

/// The `x` with `logit F(x) = target`, `None` when it is not found (a value is not finite).
///
/// `F` is a weighted mean of `σ(z_k)`, hence `min z_k ≤ logit F ≤ max z_k` and the root lies between
/// the least and the greatest `μ_k + s_k · target`.
fn quantile(components: &[Component], target: f64) -> Option<f64> {
    let ends = components.iter().map(|c| c.mean + c.scale * target);
    let (low, high) = ends.fold((f64::INFINITY, f64::NEG_INFINITY), |(l, h), e| (l.min(e), h.max(e)));
    // `min` and `max` pass over a NaN.
    if components.iter().any(|c| !(c.mean + c.scale * target + c.log_weight).is_finite()) {
        return None;
    }
    root::increasing(|x| logit_cdf(components, x), target, [low, high])
}

#[cfg(test)]
mod tests;
