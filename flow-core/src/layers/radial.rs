//! The radial flow: expansion or contraction around a point.

use candle_core::Tensor;

use crate::bijector::{Bijector, check_batch_as};
use crate::error::Direction;
use crate::numerics::host;
use crate::numerics::root;
use crate::numerics::softmax::{log_sigmoid, max_keepdim};
use crate::param::{Init, Param, ParamPath};
use crate::{Error, Result};

const NAME: &str = "radial";

/// Under the root of `r = √(|x - x₀|² + TINY)`, so that the gradient exists at `x₀`; the log-determinant is that of
/// the map with this `r`, exactly.
const TINY: f64 = 1e-12;

/// `z = x₀ + φ(r)·(x - x₀)` with `φ(r) = 1 + β/(α + r)` and `r = |x - x₀|` (Rezende & Mohamed 2015, arXiv 1505.05770,
/// equation 14), and
///
/// `log |det| = (D - 1)·ln φ + ln(φ - β·r/(α + r)²)`.
///
/// `α > 0` and `β > -α`, which makes it invertible (appendix A.2), are `α = softplus(raw)` and `β = -α + softplus(raw)`.
///
/// # Directions
/// Encode is the closed form; [`Inverse`](crate::Inverse) turns it round for variational inference. Decode solves
/// `φ(r)·r = |z - x₀|` for each row by Newton's method inside a bracket, in f64; its gradients are those of the implicit
/// function.
///
/// # Shapes
/// - event `(D,)`; the context is ignored.
#[derive(Debug)]
pub struct Radial {
    shape: [usize; 1],
    centre: Param,
    alpha: Param,
    beta: Param,
}

/// The constrained parameters: `x₀` `(1, D)`, `α`, `α + β` and `β` `(1,)`; or as many rows of them as points.
pub(super) struct Ball {
    centre: Tensor,
    alpha: Tensor,
    reach: Tensor,
    beta: Tensor,
}

/// How far points are from the centre, in units that keep squares in range: `|x - x₀|²/m²` and `m`, each `(B,)`.
///
/// `m` is the greatest entry of the offset if that is above one: in f32 the square of 10²⁰ is infinite. Up to there all
/// units are one.
struct Distance {
    square: Tensor,
    unit: Tensor,
}

/// What the distance of a point says of the map there, each `(B,)`.
struct Stretch {
    /// `φ`.
    factor: Tensor,
    /// The derivative along the radius.
    radial: Tensor,
}

impl Radial {
    /// A layer over vectors of length `dims`, with parameters `centre`, `alpha` and `beta` under `path`.
    ///
    /// # Errors
    /// [`Error::Config`] without dimensions.
    pub fn new(path: &ParamPath, dims: usize) -> Result<Self> {
        if dims == 0 {
            return Err(Error::config(NAME, "needs at least one dimension"));
        }
        Ok(Radial {
            shape: [dims],
            centre: path.param("centre", dims, Init::Normal(1.0))?,
            alpha: path.param("alpha", 1, Init::Uniform(1.0))?,
            beta: path.param("beta", 1, Init::Uniform(1.0))?,
        })
    }

    fn ball(&self) -> Result<Ball> {
        Ball::new(self.centre.tensor().unsqueeze(0)?, &self.alpha.tensor(), &self.beta.tensor())
    }
}

impl Distance {
    fn of(offset: &Tensor) -> Result<Self> {
        let unit = max_keepdim(&offset.detach().abs()?, 1)?.maximum(1.0)?.detach();
        Ok(Distance { square: offset.broadcast_div(&unit)?.sqr()?.sum(1)?, unit: unit.squeeze(1)? })
    }
}

impl Ball {
    /// From the raw parameters.
    pub(super) fn new(centre: Tensor, alpha: &Tensor, beta: &Tensor) -> Result<Self> {
        // softplus a = -ln σ(-a).
        let softplus = |raw: &Tensor| -> Result<Tensor> { Ok(log_sigmoid(&raw.neg()?)?.neg()?) };
        let (alpha, reach) = (softplus(alpha)?, softplus(beta)?);
        let beta = (&reach - &alpha)?;
        Ok(Ball { centre, alpha, reach, beta })
    }

    /// The image of `x`, `(B, D)`, and `ln |det|`, `(B,)`.
    pub(super) fn encode(&self, x: &Tensor) -> Result<(Tensor, Tensor)> {
        let offset = x.broadcast_sub(&self.centre)?;
        let stretch = self.stretch(&Distance::of(&offset)?)?;
        let z = offset.broadcast_mul(&stretch.factor.unsqueeze(1)?)?.broadcast_add(&self.centre)?;
        Ok((z, self.log_det(&stretch)?))
    }

    /// The point whose image is `z`, and `ln |det|` of the way back.
    pub(super) fn decode(&self, z: &Tensor) -> Result<(Tensor, Tensor)> {
        let offset = z.broadcast_sub(&self.centre)?;
        let stretch = self.stretch(&self.before(Distance::of(&offset)?)?)?;
        let x = offset.broadcast_div(&stretch.factor.unsqueeze(1)?)?.broadcast_add(&self.centre)?;
        Ok((x, self.log_det(&stretch)?.neg()?))
    }

    fn log_det(&self, stretch: &Stretch) -> Result<Tensor> {
        let dims = self.centre.dim(1)?;
        let across = stretch.factor.log()?.affine((dims - 1) as f64, 0.0)?;
        Ok((across + stretch.radial.log()?)?)
    }

    /// `φ` and the radial derivative at this distance.
    fn stretch(&self, Distance { square, unit }: &Distance) -> Result<Stretch> {
        // In these units everything is near one, gradients too.
        let per_unit = unit.recip()?;
        let scaled = |t: &Tensor| per_unit.broadcast_mul(t);
        let r = (square + per_unit.affine(TINY.sqrt(), 0.0)?.sqr()?)?.sqrt()?;
        let below = (&r + scaled(&self.alpha)?)?;
        // (r + α + β)/(r + α): nothing cancels when β is close to -α.
        let factor = ((&r + scaled(&self.reach)?)? / &below)?;
        let bend = (((square / r)? / below.sqr()?)? * scaled(&self.beta)?)?;
        let radial = (&factor - bend)?;
        Ok(Stretch { factor, radial })
    }

    /// The distance before the map where it is `after` behind it, in the same units, tracked.
    fn before(&self, after: Distance) -> Result<Distance> {
        let (alphas, betas) = (host::numbers(&self.alpha)?, host::numbers(&self.beta)?);
        let at = |values: &[f64], i: usize| values.get(i % values.len().max(1)).copied().unwrap_or(f64::NAN);
        let units = host::numbers(&after.unit)?;
        let targets: Vec<f64> =
            host::numbers(&after.square)?.iter().zip(&units).map(|(s, unit)| s.sqrt() * unit).collect();
        let solve = |i: usize, target: f64| {
            let (alpha, beta) = (at(&alphas, i), at(&betas, i));
            let f = |d: f64| {
                // Where squares leave the range of f64 the map is a shift.
                if d > 1e100 {
                    return (d + beta, 1.0);
                }
                let r = (d * d + TINY).sqrt();
                let factor = 1.0 + beta / (alpha + r);
                (d * factor, factor - beta * d * d / (r * (alpha + r).powi(2)))
            };
            // |φ·d - d| = |β|·d/(α + r) ≤ |β|.
            let bracket = [(target - beta.max(0.0)).max(0.0), target - beta.min(0.0)];
            root::increasing(f, target, bracket).map(|d| (d / units[i]).powi(2))
        };
        let found = root::all(NAME, &after.square, &targets, solve)?;
        let tracked = after.square.track_op() || self.alpha.track_op() || self.beta.track_op();
        let found = Distance { square: found, unit: after.unit };
        if tracked { self.attach(found, &after.square) } else { Ok(found) }
    }

    /// A constant solution becomes the function of `square` and the parameters that it is, by one Newton step in
    /// tracked operations: of squares, which are smooth where distances are not.
    fn attach(&self, found: Distance, square: &Tensor) -> Result<Distance> {
        let Stretch { factor, radial } = self.stretch(&found)?;
        let residual = ((&found.square * factor.sqr()?)? - square)?;
        // d(S φ²)/dS = φ·(φ + r φ').
        let slope = (factor * radial)?.detach();
        Ok(Distance { square: (found.square - ((&residual - residual.detach())? / slope)?)?, unit: found.unit })
    }
}

impl Bijector for Radial {
    fn name(&self) -> String {
        NAME.into()
    }

    fn event_shape(&self) -> &[usize] {
        &self.shape
    }

    fn analytic(&self, direction: Direction) -> bool {
        direction == Direction::Encode
    }

    fn encode(&self, x: &Tensor, _context: Option<&Tensor>) -> Result<(Tensor, Tensor)> {
        check_batch_as(NAME, x, &self.shape, self.alpha.dtype())?;
        self.ball()?.encode(x)
    }

    fn decode(&self, z: &Tensor, _context: Option<&Tensor>) -> Result<(Tensor, Tensor)> {
        check_batch_as(NAME, z, &self.shape, self.alpha.dtype())?;
        self.ball()?.decode(z)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::numbers::{distance, normal, store64, values};
    use candle_core::{DType, Device, Var};

    /// A layer around `(1, -1)` with these raw parameters.
    fn radial(alpha: f64, beta: f64) -> Radial {
        let layer = Radial::new(&store64(1).root(), 2).unwrap();
        layer.centre.set(&Tensor::new(&[1.0, -1.0], &Device::Cpu).unwrap()).unwrap();
        layer.alpha.set(&Tensor::new(&[alpha], &Device::Cpu).unwrap()).unwrap();
        layer.beta.set(&Tensor::new(&[beta], &Device::Cpu).unwrap()).unwrap();
        layer
    }

    #[test]
    fn values_are_those_of_the_formula() {
        let layer = radial(0.5, 2.0);
        let (alpha, beta) = (0.5_f64.exp().ln_1p(), 2.0_f64.exp().ln_1p() - 0.5_f64.exp().ln_1p());
        // Three to the right and four up of the centre.
        let (z, log_det) = layer.encode(&Tensor::new(&[[4.0, 3.0]], &Device::Cpu).unwrap(), None).unwrap();
        let factor = 1.0 + beta / (alpha + 5.0);
        let found = values(&z);
        assert!((found[0] - 1.0 - 3.0 * factor).abs() < 1e-10 && (found[1] + 1.0 - 4.0 * factor).abs() < 1e-10);
        let along = factor - 5.0 * beta / (alpha + 5.0_f64).powi(2);
        assert!((values(&log_det)[0] - factor.ln() - along.ln()).abs() < 1e-10);
        assert!(Radial::new(&store64(1).root(), 0).is_err());
    }

    #[test]
    fn returns_from_strong_expansion_and_strong_contraction() {
        for (alpha, beta) in [(1.0, 20.0), (-4.0, 3.0), (1.0, -3.0), (4.0, -6.0)] {
            let layer = radial(alpha, beta);
            let x = normal(2, &[60, 2]).affine(2.0, 0.5).unwrap();
            let (z, _) = layer.encode(&x, None).unwrap();
            let gap = distance(&layer.decode(&z, None).unwrap().0, &x);
            assert!(gap < 1e-9, "{gap} with {alpha}, {beta}");
        }
    }

    #[test]
    fn far_out_squares_do_not_overflow() {
        for (dtype, sizes) in [(DType::F32, vec![1e6, 1e18, 1e20, 1e30, 1e37]), (DType::F64, vec![1e20, 1e160, 1e300])]
        {
            for (alpha, beta) in [(0.5, 2.0), (1.0, -3.0)] {
                let store = crate::ParamStore::new(1, dtype, &Device::Cpu);
                let layer = Radial::new(&store.root(), 2).unwrap();
                layer.alpha.set(&Tensor::new(&[alpha], &Device::Cpu).unwrap()).unwrap();
                layer.beta.set(&Tensor::new(&[beta], &Device::Cpu).unwrap()).unwrap();
                for &size in &sizes {
                    let x = Tensor::new(&[[size, -0.5 * size], [0.0, size], [0.3, -0.2]], &Device::Cpu).unwrap();
                    let x = Var::from_tensor(&x.to_dtype(dtype).unwrap()).unwrap();
                    for (value, log_det) in [layer.encode(&x, None).unwrap(), layer.decode(&x, None).unwrap()] {
                        // Far out the map moves points by β and changes no volume.
                        for (v, x) in values(&value).iter().zip(values(&x)).take(4) {
                            assert!((v - x).abs() <= 1e-6 * x.abs() + 3.0, "{size}: {v} {x}");
                        }
                        assert!(values(&log_det)[..2].iter().all(|l| l.abs() < 1e-4), "{log_det}");
                        let objective = (value.sum_all().unwrap() + log_det.sum_all().unwrap()).unwrap();
                        let graph = objective.backward().unwrap();
                        for p in [x.as_tensor(), layer.alpha.var(), layer.beta.var(), layer.centre.var()] {
                            assert!(values(graph.get(p).unwrap()).iter().all(|g| g.is_finite()), "{size}, {dtype:?}");
                        }
                    }
                }
            }
        }
    }

    #[test]
    fn the_centre_stays_and_has_finite_gradients_in_both_directions() {
        let layer = radial(0.3, 0.9);
        let x = Var::new(&[[1.0, -1.0]], &Device::Cpu).unwrap();
        for (value, log_det) in [layer.encode(&x, None).unwrap(), layer.decode(&x, None).unwrap()] {
            assert_eq!(values(&value), [1.0, -1.0]);
            let graph = (value.sum_all().unwrap() + log_det.sum_all().unwrap()).unwrap().backward().unwrap();
            assert!(values(graph.get(&x).unwrap()).iter().all(|g| g.is_finite()));
        }
    }
}
