//! The mixture-of-logistics transformer of Flow++.

use candle_core::{DType, Tensor};

use super::affine::soft_clamp;
use super::{Affine, ScaleBound, Transformer, log_sigmoid, rows::Rows};
use crate::error::Direction;
use crate::{Error, Result};

/// Log-scales of the components lie in `(-5, 5)`, by a soft clamp with slope one at the origin.
const LOG_SCALE_BOUND: f64 = 5.0;

/// The largest `ln |∂x/∂y|` whose exponential is used; beyond, f32 overflows.
const STEEPEST: f64 = 80.0;

/// The most steps of the search for the inverse; halving alone needs 50 in f64.
const MAX_STEPS: usize = 200;

/// `y = (logit F(x) + t) · s`, with the distribution function of a mixture of `K` logistics,
/// `F(x) = Σ_k π_k σ((x - μ_k) / s_k)`, and an affine map with bounded scale (Ho et al. 2019, arXiv 1902.00275,
/// section 3.2).
///
/// The `P = 3K + 2` parameters of an element are `K` raw weights (softmax), `K` means, `K` raw log-scales
/// (softly clamped to ±5), the shift and the raw scale of an [`Affine`]. Everything is computed from
/// `ln F` and `ln (1 - F)`, so that neither tail saturates. All parameters zero give the identity for a
/// soft-clamped scale.
///
/// # Cost
/// Encode is closed-form. Decode is a search: Newton's method kept inside a bracket that is known
/// beforehand, all elements at once until the last one has converged; a typical call costs 5 to 20
/// encodes, more for larger batches. It converges to 1e-12 (f64) or 1e-6 (f32) relative to `1 + |x|`.
#[derive(Debug, Clone, Copy)]
pub struct LogisticMixture {
    components: usize,
    affine: Affine,
}

/// The mixture of each element, every field `(M, K)`; weights and scales as logarithms.
struct Mixture {
    log_weights: Tensor,
    means: Tensor,
    log_scales: Tensor,
}

impl LogisticMixture {
    /// A mixture of `components` logistics, followed by an affine map whose scale is bounded by `bound`.
    ///
    /// # Errors
    /// [`Error::Config`] for no components.
    pub fn new(components: usize, bound: ScaleBound) -> Result<Self> {
        if components == 0 {
            return Err(Error::config("mixture components", "0, wanted at least 1"));
        }
        Ok(LogisticMixture { components, affine: Affine::new(bound) })
    }

    /// `K`.
    pub fn components(&self) -> usize {
        self.components
    }

    /// The mixture and the parameters `(M, 1, 2)` of the affine map.
    fn split(&self, params: &Tensor) -> Result<(Mixture, Tensor)> {
        let k = self.components;
        let raw = params.narrow(1, 0, k)?;
        let log_weights = raw.broadcast_sub(&log_sum_exp(&raw)?)?;
        let means = params.narrow(1, k, k)?;
        let log_scales = soft_clamp(&params.narrow(1, 2 * k, k)?, LOG_SCALE_BOUND)?;
        Ok((Mixture { log_weights, means, log_scales }, params.narrow(1, 3 * k, 2)?.unsqueeze(1)?))
    }
}

/// `ln Σ_k exp(t_k)` over the last dimension of `(M, K)`, as `(M, 1)`.
fn log_sum_exp(t: &Tensor) -> Result<Tensor> {
    // The maximum cancels; detached, its ties cannot split the gradient.
    let max = t.max_keepdim(1)?.detach();
    Ok((t.broadcast_sub(&max)?.exp()?.sum_keepdim(1)?.log()? + max)?)
}

/// `if condition { a } else { b }`, element by element.
fn choose(condition: &Tensor, a: &Tensor, b: &Tensor) -> Result<Tensor> {
    Ok(condition.where_cond(a, b)?)
}

impl Mixture {
    /// `logit F(x)` and the logarithm of its slope `f / (F (1 - F))`, both `(M, 1)`.
    fn logit(&self, x: &Tensor) -> Result<(Tensor, Tensor)> {
        let u = (x.broadcast_sub(&self.means)? * self.log_scales.neg()?.exp()?)?;
        let below = log_sigmoid(&u)?;
        // ln σ(-u) = ln σ(u) - u.
        let above = (&below - &u)?;
        let log_f = log_sum_exp(&(&self.log_weights + &below)?)?;
        let log_rest = log_sum_exp(&(&self.log_weights + &above)?)?;
        let log_density = log_sum_exp(&((&self.log_weights + (below + above)?)? - &self.log_scales)?)?;
        let log_slope = ((log_density - &log_f)? - &log_rest)?;
        Ok(((log_f - log_rest)?, log_slope))
    }

    fn detach(&self) -> Self {
        Mixture {
            log_weights: self.log_weights.detach(),
            means: self.means.detach(),
            log_scales: self.log_scales.detach(),
        }
    }

    /// Where every single component would put the root; the mixture's root lies between the extremes.
    fn bracket(&self, logit: &Tensor) -> Result<(Tensor, Tensor)> {
        let roots = (&self.means + self.log_scales.exp()?.broadcast_mul(logit)?)?;
        Ok((roots.min_keepdim(1)?, roots.max_keepdim(1)?))
    }

    /// Solves `logit F(x) = logit`, off the graph.
    ///
    /// Newton's step is taken where it stays in the bracket and is at most half as long as the step
    /// before; otherwise the bracket is halved. So every element converges, plateaus included.
    fn solve(&self, logit: &Tensor, name: &str) -> Result<Tensor> {
        let (mut low, mut high) = self.bracket(logit)?;
        let mut x = ((&low + &high)? * 0.5)?;
        let mut last = (&high - &low)?;
        let mut settled = x.ne(&x)?;
        let tolerance = if logit.dtype() == DType::F64 { 1e-12 } else { 1e-6 };
        for _ in 0..MAX_STEPS {
            let (value, log_slope) = self.logit(&x)?;
            let excess = (value - logit)?;
            let too_high = excess.ge(0.0)?;
            (low, high) = (choose(&too_high, &low, &x)?, choose(&too_high, &x, &high)?);
            let newton = (&x - (&excess * log_slope.neg()?.exp()?)?)?;
            let short = (&newton - &x)?.abs()?.le(&(&last * 0.5)?)?;
            let usable = ((newton.ge(&low)? * newton.le(&high)?)? * short)?;
            let next = choose(&usable, &newton, &((&low + &high)? * 0.5)?)?;
            // At round-off Newton's steps no longer shrink; halving a stale bracket would undo them.
            let next = choose(&settled, &x, &next)?;
            last = (&next - &x)?.abs()?;
            settled = (&last / (next.abs()? + 1.0)?)?.le(tolerance)?;
            x = next;
            if settled.min_all()?.to_scalar::<u8>()? == 1 {
                return Ok(x);
            }
        }
        Err(Error::NotInvertible {
            layer: name.to_string(),
            direction: Direction::Decode,
            reason: format!("the search for the inverse did not converge in {MAX_STEPS} steps"),
        })
    }
}

/// Refuses NaN and infinities: a search cannot converge on them, and comparisons would hide them.
fn check_finite(name: &str, what: &str, t: &Tensor) -> Result<()> {
    // `0 · t` is zero exactly where `t` is finite.
    let zero = t.affine(0.0, 0.0)?.sum_all()?.to_dtype(DType::F32)?.to_scalar::<f32>()?;
    if zero == 0.0 { Ok(()) } else { Err(Error::NonFinite { layer: name.into(), what: what.into(), step: None }) }
}

impl Transformer for LogisticMixture {
    fn name(&self) -> String {
        format!("mixture of {} logistics", self.components)
    }

    fn params_per_element(&self) -> usize {
        3 * self.components + 2
    }

    fn encode(&self, x: &Tensor, params: &Tensor) -> Result<(Tensor, Tensor)> {
        let rows = Rows::new(self, x, params)?;
        let (mixture, affine) = self.split(&rows.params)?;
        let (logit, log_slope) = mixture.logit(&rows.values)?;
        let (y, log_scale) = self.affine.encode(&logit, &affine)?;
        rows.restore(&y, &(log_slope + log_scale)?)
    }

    fn decode(&self, y: &Tensor, params: &Tensor) -> Result<(Tensor, Tensor)> {
        let rows = Rows::new(self, y, params)?;
        let (mixture, affine) = self.split(&rows.params)?;
        let (logit, log_scale) = self.affine.decode(&rows.values, &affine)?;
        check_finite(&self.name(), "latent", &logit)?;
        check_finite(&self.name(), "parameter", &rows.params)?;
        let root = mixture.detach().solve(&logit.detach(), &self.name())?;
        // A Newton step of length zero that carries the derivative of the inverse function. The bound
        // keeps `0 · ∞` out where the map is flat to working precision.
        let (value, log_slope) = mixture.logit(&root)?;
        let excess = (value - logit)?;
        let inverse_slope = log_slope.detach().maximum(-STEEPEST)?.neg()?.exp()?;
        let x = (root - ((&excess - excess.detach())? * inverse_slope)?)?;
        let (_, log_slope) = mixture.logit(&x)?;
        rows.restore(&x, &(log_scale - log_slope)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::test_util::{check_transformer, distance, normal, values};
    use candle_core::{Device, Var};

    fn mixture() -> LogisticMixture {
        LogisticMixture::new(4, ScaleBound::SoftClamp(2.0)).unwrap()
    }

    #[test]
    fn inverse_slopes_and_gradients() {
        check_transformer(&mixture(), &normal(1, &[3, 2, 2]).affine(2.0, 0.0).unwrap(), 1e-6);
        let glow = LogisticMixture::new(1, ScaleBound::Sigmoid).unwrap();
        check_transformer(&glow, &normal(1, &[3, 2]), 1e-6);
    }

    #[test]
    fn zero_parameters_are_the_identity() {
        let x = normal(1, &[4, 3]).affine(3.0, 0.0).unwrap();
        let (y, log) = mixture().encode(&x, &Tensor::zeros((4, 3, 14), DType::F64, &Device::Cpu).unwrap()).unwrap();
        assert!(distance(&y, &x) < 1e-12);
        assert!(distance(&log, &x.zeros_like().unwrap()) < 1e-12);
    }

    #[test]
    fn a_single_logistic_is_a_straight_line() {
        let one = LogisticMixture::new(1, ScaleBound::SoftClamp(2.0)).unwrap();
        let params = Tensor::new(&[[[0.3, 1.5, -0.7, 0.2, 0.0f64]]], &Device::Cpu).unwrap();
        let scale = (5.0 * (-0.7f64 / 5.0).tanh()).exp();
        for x in [-40.0, 0.0, 1.5, 700.0] {
            let (y, log) = one.encode(&Tensor::new(&[[x]], &Device::Cpu).unwrap(), &params).unwrap();
            let expected = (x - 1.5) / scale + 0.2;
            assert!((values(&y)[0] - expected).abs() < 1e-10 * (1.0 + expected.abs()));
            assert!((values(&log)[0] + scale.ln()).abs() < 1e-10);
        }
    }

    /// Components far apart and narrow: between them the map is a plateau on which Newton overshoots.
    fn plateau() -> Tensor {
        let mut params = vec![0.0; 14];
        params[4..8].copy_from_slice(&[-30.0, -10.0, 10.0, 30.0]);
        params[8..12].copy_from_slice(&[-5.0, -4.0, -5.0, 2.0]);
        Tensor::from_vec(params, (1, 1, 14), &Device::Cpu).unwrap()
    }

    #[test]
    fn the_inverse_is_found_across_plateaus_and_far_out() {
        let targets = [-1e4, -50.0, -3.0, -1.2, -1.0, 0.0, 1e-3, 0.8, 1.0986, 1.2, 50.0, 1e4];
        let y = Tensor::from_slice(&targets, (targets.len(), 1), &Device::Cpu).unwrap();
        let params = plateau().broadcast_as((targets.len(), 1, 14)).unwrap().contiguous().unwrap();
        let (x, log) = mixture().decode(&y, &params).unwrap();
        let (again, log_again) = mixture().encode(&x, &params).unwrap();
        let relative = ((again - &y).unwrap().abs().unwrap() / (y.abs().unwrap() + 1.0).unwrap()).unwrap();
        assert!(values(&relative).iter().all(|&e| e < 1e-9), "{relative}");
        assert!(distance(&log.neg().unwrap(), &log_again) < 1e-6);
    }

    #[test]
    fn flat_to_working_precision_is_still_finite() {
        let mut params = values(&plateau());
        params[11] = -5.0;
        for dtype in [DType::F64, DType::F32] {
            let y = Tensor::new(&[[-3f64.ln()], [0.0], [3f64.ln()], [0.5]], &Device::Cpu).unwrap();
            let params =
                Tensor::from_slice(&params, (1, 1, 14), &Device::Cpu).unwrap().broadcast_as((4, 1, 14)).unwrap();
            let y = Var::from_tensor(&y.to_dtype(dtype).unwrap()).unwrap();
            let params = Var::from_tensor(&params.contiguous().unwrap().to_dtype(dtype).unwrap()).unwrap();
            let (x, log) = mixture().decode(&y, &params).unwrap();
            assert!(values(&x).iter().chain(&values(&log)).all(|v| v.is_finite()));
            assert!(distance(&mixture().encode(&x, &params).unwrap().0, &y) < 1e-3);
            let store = x.sum_all().unwrap().backward().unwrap();
            assert!(values(store.get(&params).unwrap()).iter().all(|g| g.is_finite()));
        }
    }

    #[test]
    fn single_precision_converges() {
        let f32 = |t: Tensor| t.to_dtype(DType::F32).unwrap();
        let params = f32(normal(2, &[100, 3, 14]).affine(3.0, 0.0).unwrap());
        let y = f32(normal(1, &[100, 3]).affine(3.0, 0.0).unwrap());
        let (x, _) = mixture().decode(&y, &params).unwrap();
        assert!(distance(&mixture().encode(&x, &params).unwrap().0, &y) < 1e-3);
    }

    #[test]
    fn gradients_are_finite_far_outside() {
        let x = Var::from_tensor(&Tensor::new(&[[-1e5], [1e5f64]], &Device::Cpu).unwrap()).unwrap();
        let params = Var::from_tensor(&Tensor::cat(&[plateau(), plateau()], 0).unwrap()).unwrap();
        let (y, log) = mixture().encode(&x, &params).unwrap();
        let store = (y + log).unwrap().sum_all().unwrap().backward().unwrap();
        for v in [&x, &params] {
            assert!(values(store.get(v).unwrap()).iter().all(|g| g.is_finite()));
        }
    }

    #[test]
    fn what_cannot_be_inverted_is_an_error() {
        let y = Tensor::new(&[[f64::NAN]], &Device::Cpu).unwrap();
        assert!(matches!(mixture().decode(&y, &plateau()), Err(Error::NonFinite { .. })));
        let broken = (plateau() / 0.0).unwrap();
        assert!(matches!(mixture().decode(&normal(1, &[1, 1]), &broken), Err(Error::NonFinite { .. })));
        assert!(LogisticMixture::new(0, ScaleBound::Sigmoid).is_err());
        assert!(matches!(mixture().decode(&normal(1, &[1, 1]), &normal(1, &[1, 1, 5])), Err(Error::Shape { .. })));
    }
}
