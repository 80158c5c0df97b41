//! Monotone rational-quadratic splines with linear tails.

use candle_core::Tensor;

use super::{Transformer, log_sigmoid, rows::Rows};
use crate::{Error, Result};

/// The smallest width and height of a bin as a share of the interval, and the smallest slope at a knot.
const MIN: f64 = 1e-3;

/// A monotone spline of `K` rational-quadratic pieces on `[-B, B]`, the identity outside (Durkan et al.
/// 2019, arXiv 1906.04032, section 3.1).
///
/// In the bin `[x_k, x_k + w]` with heights `[y_k, y_k + h]`, mean slope `s = h / w`, knot slopes `d₀`, `d₁`
/// and `θ = (x - x_k) / w`:
///
/// `y = y_k + h (s θ² + d₀ θ(1-θ)) / (s + (d₀ + d₁ - 2s) θ(1-θ))`
///
/// The `P = 3K - 1` parameters of an element are `K` raw widths, `K` raw heights (softmax) and `K - 1`
/// raw slopes at the inner knots (softplus); the slopes at `±B` are one, so that the tails continue
/// smoothly. All parameters zero give the identity. Both directions are closed forms.
#[derive(Debug, Clone, Copy)]
pub struct RationalQuadraticSpline {
    bins: usize,
    bound: f64,
}

/// The bin that holds each element, every field `(M, 1)`.
struct Bin {
    left: Tensor,
    width: Tensor,
    bottom: Tensor,
    height: Tensor,
    slope: Tensor,
    slope_left: Tensor,
    slope_right: Tensor,
}

impl RationalQuadraticSpline {
    /// A spline of `bins` pieces on `[-bound, bound]`.
    ///
    /// # Errors
    /// [`Error::Config`] unless `2 <= bins <= 500` and `bound` is positive and finite.
    pub fn new(bins: usize, bound: f64) -> Result<Self> {
        if !(2..=500).contains(&bins) {
            return Err(Error::config("spline bins", format!("{bins}, wanted 2 to 500")));
        }
        if !(bound > 0.0 && bound.is_finite()) {
            return Err(Error::config("spline bound", format!("{bound}, wanted a positive number")));
        }
        Ok(RationalQuadraticSpline { bins, bound })
    }

    /// How many pieces.
    pub fn bins(&self) -> usize {
        self.bins
    }

    /// `B`: outside `[-B, B]` the map is the identity.
    pub fn bound(&self) -> f64 {
        self.bound
    }

    /// Raw numbers `(M, K)` as bin sizes that are positive and add up to `2B`.
    fn sizes(&self, raw: &Tensor) -> Result<Tensor> {
        // The maximum cancels; detached, its ties cannot split the gradient.
        let exp = raw.broadcast_sub(&raw.max_keepdim(1)?.detach())?.exp()?;
        let share = exp.broadcast_div(&exp.sum_keepdim(1)?)?;
        let span = 2.0 * self.bound;
        Ok(share.affine(span * (1.0 - MIN * self.bins as f64), span * MIN)?)
    }

    /// The lower edges of bins of these sizes: `-B + Σ_{j<k} size_j`.
    fn edges(&self, sizes: &Tensor) -> Result<Tensor> {
        let (dtype, device) = (sizes.dtype(), sizes.device());
        let before = (Tensor::triu2(self.bins, dtype, device)? - Tensor::eye(self.bins, dtype, device)?)?;
        Ok(sizes.matmul(&before)?.affine(1.0, -self.bound)?)
    }

    /// Raw numbers `(M, K-1)` as the slopes at the left and at the right of every bin, each `(M, K)`.
    fn knot_slopes(&self, raw: &Tensor) -> Result<(Tensor, Tensor)> {
        // softplus(offset) = 1 - MIN, so that a raw zero is a slope of one.
        let offset = (1.0 - MIN).exp_m1().ln();
        let softplus = log_sigmoid(&raw.affine(-1.0, -offset)?)?.neg()?;
        let inner = (softplus + MIN)?;
        let tail = Tensor::ones((raw.dim(0)?, 1), raw.dtype(), raw.device())?;
        Ok((Tensor::cat(&[&tail, &inner], 1)?, Tensor::cat(&[&inner, &tail], 1)?))
    }

    /// The bin of each value `(M, 1)`, found among the edges of the data (`encode`) or of the latent.
    fn locate(&self, value: &Tensor, params: &Tensor, encode: bool) -> Result<Bin> {
        let k = self.bins;
        let widths = self.sizes(&params.narrow(1, 0, k)?)?;
        let heights = self.sizes(&params.narrow(1, k, k)?)?;
        let (slopes_left, slopes_right) = self.knot_slopes(&params.narrow(1, 2 * k, k - 1)?)?;
        let (lefts, bottoms) = (self.edges(&widths)?, self.edges(&heights)?);
        let mask = one_hot_bin(value, if encode { &lefts } else { &bottoms })?;
        let pick = |t: &Tensor| -> Result<Tensor> { Ok((t * &mask)?.sum_keepdim(1)?) };
        let (width, height) = (pick(&widths)?, pick(&heights)?);
        Ok(Bin {
            left: pick(&lefts)?,
            bottom: pick(&bottoms)?,
            slope: (&height / &width)?,
            slope_left: pick(&slopes_left)?,
            slope_right: pick(&slopes_right)?,
            width,
            height,
        })
    }

    /// Applies `f` inside the bounds; outside, the identity with log-derivative zero.
    fn with_tails(
        &self,
        value: &Tensor,
        params: &Tensor,
        f: impl Fn(&Tensor, &Tensor) -> Result<(Tensor, Tensor)>,
    ) -> Result<(Tensor, Tensor)> {
        let rows = Rows::new(self, value, params)?;
        let inside = rows.values.detach().abs()?.le(self.bound)?;
        let zeros = rows.values.zeros_like()?.detach();
        // What lies outside is replaced before the arithmetic: a NaN behind a later selection would
        // still reach the gradient.
        let (mapped, log) = f(&inside.where_cond(&rows.values, &zeros)?, &rows.params)?;
        rows.restore(&inside.where_cond(&mapped, &rows.values)?, &inside.where_cond(&log, &zeros)?)
    }
}

/// `(M, K)`, one where the value lies in the bin `[edge_k, edge_{k+1})`; the first and the last bin are
/// open-ended, so that rounding at `±B` cannot lose a point. Not tracked.
fn one_hot_bin(value: &Tensor, edges: &Tensor) -> Result<Tensor> {
    let (rows, bins) = edges.dims2()?;
    let inner = edges.detach().narrow(1, 1, bins - 1)?;
    let reached = value.detach().broadcast_as((rows, bins - 1))?.ge(&inner)?.to_dtype(edges.dtype())?;
    let ones = Tensor::ones((rows, 1), edges.dtype(), edges.device())?;
    let from = Tensor::cat(&[&ones, &reached], 1)?;
    let past = Tensor::cat(&[&reached, &ones.zeros_like()?], 1)?;
    Ok((from - past)?)
}

impl Bin {
    /// `d₀ + d₁ - 2s`.
    fn bend(&self) -> Result<Tensor> {
        Ok(((&self.slope_left + &self.slope_right)? - self.slope.affine(2.0, 0.0)?)?)
    }

    /// `y - y_k` over `h`, and `ln ∂y/∂x`, at the relative position `θ`.
    fn value_and_log_slope(&self, theta: &Tensor) -> Result<(Tensor, Tensor)> {
        let rest = theta.affine(-1.0, 1.0)?;
        let mixed = (theta * &rest)?;
        let denominator = (&self.slope + (self.bend()? * &mixed)?)?;
        let value = (((&self.slope * theta.sqr()?)? + (&self.slope_left * &mixed)?)? / &denominator)?;
        let ends = ((&self.slope_right * theta.sqr()?)? + (&self.slope_left * rest.sqr()?)?)?;
        let numerator = (ends + (&self.slope * mixed)?.affine(2.0, 0.0)?)?;
        let log = ((self.slope.log()? - denominator.log()?)?.affine(2.0, 0.0)? + numerator.log()?)?;
        Ok((value, log))
    }

    /// `θ` of the point that lies `rise` above the bin's lower left corner: the root in `[0, 1]` of a
    /// quadratic, as `2c / (-b - √(b² - 4ac))`, which does not cancel (equations 6 to 8 of the paper).
    fn root(&self, rise: &Tensor) -> Result<Tensor> {
        let bent = (rise * self.bend()?)?;
        let a = ((&self.height * (&self.slope - &self.slope_left)?)? + &bent)?;
        let b = ((&self.height * &self.slope_left)? - bent)?;
        let c = (&self.slope * rise)?.neg()?;
        // Never negative but for rounding; the floor also keeps the slope of the root finite.
        let discriminant = (b.sqr()? - (a * &c)?.affine(4.0, 0.0)?)?.maximum(1e-30)?;
        Ok((c.affine(2.0, 0.0)? / (b + discriminant.sqrt()?)?.neg()?)?)
    }
}

impl Transformer for RationalQuadraticSpline {
    fn name(&self) -> String {
        format!("rational-quadratic spline, {} bins", self.bins)
    }

    fn params_per_element(&self) -> usize {
        3 * self.bins - 1
    }

    fn encode(&self, x: &Tensor, params: &Tensor) -> Result<(Tensor, Tensor)> {
        self.with_tails(x, params, |x, params| {
            let bin = self.locate(x, params, true)?;
            let (value, log) = bin.value_and_log_slope(&((x - &bin.left)? / &bin.width)?)?;
            Ok((((value * &bin.height)? + &bin.bottom)?, log))
        })
    }

    fn decode(&self, y: &Tensor, params: &Tensor) -> Result<(Tensor, Tensor)> {
        self.with_tails(y, params, |y, params| {
            let bin = self.locate(y, params, false)?;
            let theta = bin.root(&(y - &bin.bottom)?)?;
            let (_, log) = bin.value_and_log_slope(&theta)?;
            Ok((((theta * &bin.width)? + &bin.left)?, log.neg()?))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::test_util::{check_transformer, distance, normal, values};
    use candle_core::{DType, Device, Var};

    fn spline() -> RationalQuadraticSpline {
        RationalQuadraticSpline::new(5, 3.0).unwrap()
    }

    /// One element per row with the same random parameters.
    fn element(points: &[f64]) -> (Tensor, Tensor) {
        let x = Tensor::from_slice(points, (points.len(), 1), &Device::Cpu).unwrap();
        (x, normal(3, &[1, 1, 14]).broadcast_as((points.len(), 1, 14)).unwrap().contiguous().unwrap())
    }

    /// The knots of [`element`]'s spline, data and latent side, `-B` first and `B` last.
    fn knots() -> (Vec<f64>, Vec<f64>) {
        let raw = normal(3, &[1, 14]);
        let side = |at| {
            let edges = spline().edges(&spline().sizes(&raw.narrow(1, at, 5).unwrap()).unwrap()).unwrap();
            values(&edges).into_iter().chain([3.0]).collect::<Vec<f64>>()
        };
        (side(0), side(5))
    }

    #[test]
    fn inverse_slopes_and_gradients() {
        check_transformer(&spline(), &normal(1, &[3, 2, 2]).affine(2.0, 0.0).unwrap(), 1e-9);
    }

    #[test]
    fn zero_parameters_are_the_identity() {
        let x = normal(1, &[4, 3, 2]).affine(2.0, 0.0).unwrap();
        let zeros = Tensor::zeros((4, 3, 14, 2), DType::F64, &Device::Cpu).unwrap();
        let (y, log) = spline().encode(&x, &zeros).unwrap();
        assert!(distance(&y, &x) < 1e-12);
        assert!(distance(&log, &x.zeros_like().unwrap()) < 1e-12);
    }

    #[test]
    fn knots_map_to_knots_with_their_slopes() {
        let (lefts, bottoms) = knots();
        let (x, params) = element(&lefts);
        let (y, log) = spline().encode(&x, &params).unwrap();
        assert!(values(&y).iter().zip(&bottoms).all(|(a, b)| (a - b).abs() < 1e-12), "{y} against {bottoms:?}");
        let (back, inverse_log) = spline().decode(&y, &params).unwrap();
        assert!(distance(&back, &x) < 1e-9);
        assert!(distance(&inverse_log.neg().unwrap(), &log) < 1e-9);
        // The tails have slope one on both sides of ±B.
        assert!(values(&log)[0].abs() < 1e-12 && values(&log)[5].abs() < 1e-12);
    }

    #[test]
    fn the_map_increases_and_is_continuous_across_every_knot() {
        let (lefts, _) = knots();
        for knot in lefts {
            let (x, params) = element(&[knot - 1e-7, knot, knot + 1e-7]);
            let (y, log) = spline().encode(&x, &params).unwrap();
            let (y, log) = (values(&y), values(&log));
            assert!(y[0] < y[1] && y[1] < y[2] && y[2] - y[0] < 1e-4);
            assert!((log[2] - log[0]).abs() < 1e-4, "the slope jumps at {knot}");
        }
    }

    #[test]
    fn gradients_are_finite_on_knots_and_far_outside() {
        let mut points = knots().0;
        points.extend([-3e8, -30.0, -3.0 - 1e-9, 3.0 + 1e-9, 30.0, 3e8]);
        let (x, params) = element(&points);
        for decode in [false, true] {
            let (x, params) = (Var::from_tensor(&x).unwrap(), Var::from_tensor(&params).unwrap());
            let f = if decode { spline().decode(&x, &params) } else { spline().encode(&x, &params) };
            let (y, log) = f.unwrap();
            let store = (y + log).unwrap().sum_all().unwrap().backward().unwrap();
            let (gx, gp) = (values(store.get(&x).unwrap()), values(store.get(&params).unwrap()));
            assert!(gx.iter().chain(&gp).all(|g| g.is_finite()));
            assert!(gx[6..].iter().all(|&g| g == 1.0), "the tails are the identity: {gx:?}");
            assert!(gp[6 * 14..].iter().all(|&g| g == 0.0));
        }
    }

    #[test]
    fn single_precision_round_trip_with_wild_parameters() {
        let f32 = |t: Tensor| t.to_dtype(DType::F32).unwrap();
        let x = f32(normal(1, &[200, 3]).affine(1.5, 0.0).unwrap());
        let params = f32(normal(2, &[200, 3, 14]).affine(3.0, 0.0).unwrap());
        let (y, _) = spline().encode(&x, &params).unwrap();
        let (back, _) = spline().decode(&y, &params).unwrap();
        let (again, _) = spline().encode(&back, &params).unwrap();
        assert!(distance(&again, &y) < 1e-3);
    }

    #[test]
    fn extreme_parameters_stay_finite_in_single_precision() {
        let params = normal(2, &[50, 3, 14]).affine(1e3, 0.0).unwrap().to_dtype(DType::F32).unwrap();
        let x = normal(1, &[50, 3]).to_dtype(DType::F32).unwrap();
        let (x, params) = (Var::from_tensor(&x).unwrap(), Var::from_tensor(&params).unwrap());
        for f in [RationalQuadraticSpline::encode, RationalQuadraticSpline::decode] {
            let (y, log) = f(&spline(), &x, &params).unwrap();
            assert!(values(&y).iter().chain(&values(&log)).all(|v| v.is_finite()));
            let store = (y + log).unwrap().sum_all().unwrap().backward().unwrap();
            for v in [&x, &params] {
                assert!(values(store.get(v).unwrap()).iter().all(|g| g.is_finite()));
            }
        }
    }

    #[test]
    fn bad_arguments_are_refused() {
        assert!(RationalQuadraticSpline::new(1, 3.0).is_err());
        assert!(RationalQuadraticSpline::new(8, 0.0).is_err());
        assert!(RationalQuadraticSpline::new(8, f64::NAN).is_err());
        assert!(matches!(spline().encode(&normal(1, &[2, 3]), &normal(1, &[2, 3, 13])), Err(Error::Shape { .. })));
    }
}
