//! The rational-quadratic spline: a flexible monotone map with a closed inverse.
//!
//! On `[-bound, bound]` the map runs through `bins + 1` knots, between two of which it is a quotient of
//! quadratics; outside it is the identity. Knots, heights and slopes all come from the conditioner.
//!
//! On the CPU one kernel computes value, log-derivative and gradients. Elsewhere tensor operations do, in which an
//! element picks its bin by a mask of zeros and ones that is a constant of the graph, and every quantity of the bin is
//! `Σ mask · quantity`: no index operation is differentiated. Both work in f64 whatever the element type (on devices
//! that have it): in f32 the logarithm near a knot can be off by whole nats.

use candle_core::{DType, Tensor};

use super::{Transformer, check_params};
use crate::kernels::spline::{MIN_BIN, MIN_SLOPE, Spline, unit_slope};
use crate::kernels::{accepts, fuse};
use crate::numerics::softmax::{log_sigmoid, softmax};
use crate::{Error, Result};

/// Half of the interval is left for the network to share out.
const MAX_BINS: usize = 500;

/// The monotone rational-quadratic spline with linear tails (Durkan et al. 2019, arXiv 1906.04032,
/// section 3.1): a bin from `(x₀, y₀)` of width `w` and height `h`, slopes `d₀`, `d₁` at its ends, and with
/// `s = h / w`, `ξ = (x - x₀) / w`
///
/// `y = y₀ + h · ξ (s ξ + d₀ (1 - ξ)) / D`, `D = s (ξ² + (1 - ξ)²) + (d₀ + d₁) ξ (1 - ξ)`,
///
/// `∂y/∂x = s² (d₁ ξ² + 2 s ξ (1 - ξ) + d₀ (1 - ξ)²) / D²`,
///
/// the paper's quotient with its denominator `D` written as a sum of positive terms. For `|x| ≥ bound` it is `y = x`.
///
/// Parameters along dimension 2: `bins` raw widths, `bins` raw heights (a softmax with a floor of 1e-3 of
/// the interval), `bins - 1` raw slopes at the inner knots (a softplus with a floor of 1e-3); the outer
/// slopes are one, so that the derivative is continuous. **Zero parameters give the identity.**
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct RationalQuadraticSpline {
    bins: usize,
    bound: f64,
}

impl RationalQuadraticSpline {
    /// A spline of `bins` pieces on `[-bound, bound]`; 8 bins and a bound of 3 to 5 suit standardised data.
    ///
    /// # Errors
    /// [`Error::Config`] unless `2 ≤ bins ≤ 500` and `bound` is positive and finite.
    pub fn new(bins: usize, bound: f64) -> Result<Self> {
        if !(2..=MAX_BINS).contains(&bins) {
            return Err(Error::config("spline bins", format!("must be in [2, {MAX_BINS}], got {bins}")));
        }
        if !(bound.is_finite() && bound > 0.0) {
            return Err(Error::config("spline bound", format!("must be positive and finite, got {bound}")));
        }
        Ok(RationalQuadraticSpline { bins, bound })
    }

    /// The number of pieces.
    pub fn bins(&self) -> usize {
        self.bins
    }

    /// Where the linear tails begin.
    pub fn bound(&self) -> f64 {
        self.bound
    }

    /// The lengths of the bins along one axis, `(B, C, bins, …)`, which add up to `2 · bound`.
    fn lengths(&self, params: &Tensor, start: usize) -> Result<Tensor> {
        let shares = softmax(&params.narrow(2, start, self.bins)?, 2)?;
        let (free, span) = (1.0 - MIN_BIN * self.bins as f64, 2.0 * self.bound);
        Ok(shares.affine(free * span, MIN_BIN * span)?)
    }

    /// The slopes at the inner knots, `(B, C, bins - 1, …)`: one where the raw value is zero.
    fn slopes(&self, params: &Tensor) -> Result<Tensor> {
        let raw = params.narrow(2, 2 * self.bins, self.bins - 1)?;
        // softplus(h) = -ln sigmoid(-h)
        Ok(log_sigmoid(&raw.affine(-1.0, -unit_slope())?)?.affine(-1.0, MIN_SLOPE)?)
    }

    /// The bin of each element of `input`, which runs along the axis named by `axis`.
    fn bin(&self, axis: Axis, input: &Tensor, params: &Tensor) -> Result<Bin> {
        let (widths, heights) = (self.lengths(params, 0)?, self.lengths(params, self.bins)?);
        let along = if axis == Axis::X { &widths } else { &heights };
        let mask = BinMask::new(input, &along.detach(), self.bound)?;
        let slopes = self.slopes(params)?;
        let outer = slopes.narrow(2, 0, 1)?.ones_like()?.detach();
        let bin = Bin {
            x: mask.before(&widths)?.affine(1.0, -self.bound)?,
            y: mask.before(&heights)?.affine(1.0, -self.bound)?,
            width: mask.pick(&widths)?,
            height: mask.pick(&heights)?,
            left: mask.pick(&Tensor::cat(&[&outer, &slopes], 2)?)?,
            right: mask.pick(&Tensor::cat(&[&slopes, &outer], 2)?)?,
        };
        Ok(bin)
    }

    /// One direction.
    fn apply(&self, axis: Axis, input: &Tensor, params: &Tensor) -> Result<(Tensor, Tensor)> {
        check_params(self, input, params)?;
        if !accepts(input) {
            return self.composed(axis, input, params);
        }
        let shape = input.shape().clone();
        let kernel = Spline { shape, bins: self.bins, bound: self.bound, inverse: axis == Axis::Y };
        let both = fuse(kernel, [input, params])?;
        Ok((both.get(0)?, both.get(1)?))
    }

    /// One direction in tensor operations: inside the bound through the bins, outside the identity.
    ///
    /// What is outside enters the arithmetic as a zero, so that nothing overflows there: a mask on the
    /// result alone would turn an infinite derivative into `0 · ∞`.
    fn composed(&self, axis: Axis, input: &Tensor, params: &Tensor) -> Result<(Tensor, Tensor)> {
        let values = input.detach();
        let inside = values.gt(-self.bound)?.mul(&values.lt(self.bound)?)?;
        let zeros = input.zeros_like()?.detach();
        let safe = inside.where_cond(input, &zeros)?;
        // Metal has no f64.
        let wide = if input.device().is_metal() { input.dtype() } else { DType::F64 };
        let (safe, params) = (safe.to_dtype(wide)?, params.to_dtype(wide)?);
        let bin = self.bin(axis, &safe, &params)?;
        let (value, log) = if axis == Axis::X { bin.encode(&safe)? } else { bin.decode(&safe)? };
        let (value, log) = (value.to_dtype(input.dtype())?, log.to_dtype(input.dtype())?);
        Ok((inside.where_cond(&value, input)?, inside.where_cond(&log, &zeros)?))
    }
}

/// The axis on which a bin is looked up.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Axis {
    X,
    Y,
}

/// Which bin each element is in, as constants: `(B, C, bins, …)` of zeros and ones.
struct BinMask {
    here: Tensor,
    before: Tensor,
}

impl BinMask {
    /// `lengths` are the detached lengths of the bins, which begin at `-bound`.
    fn new(input: &Tensor, lengths: &Tensor, bound: f64) -> Result<Self> {
        let mut knots: Vec<Tensor> = Vec::with_capacity(lengths.dim(2)?);
        for bin in 0..lengths.dim(2)? - 1 {
            let length = lengths.narrow(2, bin, 1)?;
            knots.push(match knots.last() {
                Some(knot) => (knot + length)?,
                None => length.affine(1.0, -bound)?,
            });
        }
        let reached = Tensor::cat(&knots, 2)?.broadcast_le(&input.detach().unsqueeze(2)?)?.to_dtype(input.dtype())?;
        let edge = reached.narrow(2, 0, 1)?.zeros_like()?;
        let before = Tensor::cat(&[&reached, &edge], 2)?;
        let begun = Tensor::cat(&[&edge.affine(0.0, 1.0)?, &reached], 2)?;
        Ok(BinMask { here: (begun - &before)?, before })
    }

    /// The quantity of the element's own bin, `(B, C, …)`.
    fn pick(&self, quantity: &Tensor) -> Result<Tensor> {
        Ok((quantity * &self.here)?.sum(2)?)
    }

    /// The sum of the quantity over the bins before, `(B, C, …)`.
    fn before(&self, quantity: &Tensor) -> Result<Tensor> {
        Ok((quantity * &self.before)?.sum(2)?)
    }
}

/// One bin per element: its lower corner, its size and the slopes at its ends, each `(B, C, …)`.
struct Bin {
    x: Tensor,
    y: Tensor,
    width: Tensor,
    height: Tensor,
    left: Tensor,
    right: Tensor,
}

impl Bin {
    fn encode(&self, x: &Tensor) -> Result<(Tensor, Tensor)> {
        let xi = within_unit(&((x - &self.x)? / &self.width)?)?;
        let (rise, slope) = ((&self.height / &self.width)?, self.denominator(&xi)?);
        let numerator = (&xi * ((&rise * &xi)? + (&self.left * xi.affine(-1.0, 1.0)?)?)?)?;
        let y = (&self.y + (&self.height * numerator)?.div(&slope)?)?;
        Ok((y, self.log_derivative(&xi)?))
    }

    /// `ξ = 2c / (-b - √(b² - 4ac))`, the paper's root of `aξ² + bξ + c`, here divided by the height:
    /// with `η = (y - y₀) / h` and `q = d₀ + d₁ - 2s`, `b = d₀ - ηq`, `a = s - b`, `c = -sη`.
    fn decode(&self, y: &Tensor) -> Result<(Tensor, Tensor)> {
        let eta = within_unit(&((y - &self.y)? / &self.height)?)?;
        let rise = (&self.height / &self.width)?;
        let bend = ((&self.left + &self.right)? - (&rise * 2.0)?)?;
        let b = (&self.left - (&eta * &bend)?)?;
        let a = (&rise - &b)?;
        let minus_c = (&rise * &eta)?;
        // Positive in exact arithmetic. The clamp is just above zero, where the root has a derivative.
        let discriminant = (b.sqr()? + ((a * &minus_c)? * 4.0)?)?.maximum(tiny(y.dtype()))?;
        let xi = within_unit(&((minus_c * 2.0)? / (b + discriminant.sqrt()?)?)?)?;
        let x = (&self.x + (&self.width * &xi)?)?;
        Ok((x, self.log_derivative(&xi)?.neg()?))
    }

    /// `D = s (ξ² + (1 - ξ)²) + (d₀ + d₁) ξ (1 - ξ)`.
    fn denominator(&self, xi: &Tensor) -> Result<Tensor> {
        let rest = xi.affine(-1.0, 1.0)?;
        let rise = (&self.height / &self.width)?;
        let straight = (rise * (xi.sqr()? + rest.sqr()?)?)?;
        Ok((straight + ((&self.left + &self.right)? * (xi * rest)?)?)?)
    }

    /// `2 ln s + ln(d₁ ξ² + 2 s ξ (1 - ξ) + d₀ (1 - ξ)²) - 2 ln D`.
    fn log_derivative(&self, xi: &Tensor) -> Result<Tensor> {
        let rest = xi.affine(-1.0, 1.0)?;
        let rise = (&self.height / &self.width)?;
        let middle = ((&rise * (xi * &rest)?)? * 2.0)?;
        let slopes = (((&self.right * xi.sqr()?)? + middle)? + (&self.left * rest.sqr()?)?)?;
        let ratio = (rise / self.denominator(xi)?)?;
        Ok((slopes.log()? + (ratio.log()? * 2.0)?)?)
    }
}

/// The position inside a bin, held in `[0, 1]`: the mask adds lengths in one order and the corner in another, so that
/// rounding may put an element outside of its own bin. The gradient goes through unchanged.
fn within_unit(position: &Tensor) -> Result<Tensor> {
    let change = (position.maximum(0.0)?.minimum(1.0)? - position)?;
    Ok((position + change.detach())?)
}

/// A positive number whose square root and its derivative are ordinary numbers.
fn tiny(dtype: DType) -> f64 {
    if dtype == DType::F64 { 1e-200 } else { 1e-30 }
}

impl Transformer for RationalQuadraticSpline {
    fn name(&self) -> String {
        format!("rational-quadratic spline, {} bins", self.bins)
    }
    fn params_per_element(&self) -> usize {
        3 * self.bins - 1
    }
    fn encode(&self, x: &Tensor, params: &Tensor) -> Result<(Tensor, Tensor)> {
        self.apply(Axis::X, x, params)
    }
    fn decode(&self, y: &Tensor, params: &Tensor) -> Result<(Tensor, Tensor)> {
        self.apply(Axis::Y, y, params)
    }
}

#[cfg(test)]
mod tests;
