//! The radial flow: expansion or contraction around a point.

use candle_core::Tensor;

use crate::bijector::{Bijector, check_batch_as};
use crate::error::Direction;
use crate::numerics::root;
use crate::numerics::softmax::log_sigmoid;
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

/// The constrained parameters: `x₀` `(1, D)`, `α`, `α + β` and `β` `(1,)`.
struct Ball {
    centre: Tensor,
    alpha: Tensor,
    reach: Tensor,
    beta: Tensor,
}

/// What the squared distance of a point says of the map there, each `(B,)`.
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
        // softplus a = -ln σ(-a).
        let softplus = |p: &Param| -> Result<Tensor> { Ok(log_sigmoid(&p.tensor().neg()?)?.neg()?) };
        let (alpha, reach) = (softplus(&self.alpha)?, softplus(&self.beta)?);
        let beta = (&reach - &alpha)?;
        Ok(Ball { centre: self.centre.tensor().unsqueeze(0)?, alpha, reach, beta })
    }

    fn log_det(&self, stretch: &Stretch) -> Result<Tensor> {
        let across = stretch.factor.log()?.affine((self.shape[0] - 1) as f64, 0.0)?;
        Ok((across + stretch.radial.log()?)?)
    }
}

impl Ball {
    /// `φ` and the radial derivative where `|x - x₀|²` is `square`.
    fn stretch(&self, square: &Tensor) -> Result<Stretch> {
        let r = (square + TINY)?.sqrt()?;
        let below = r.broadcast_add(&self.alpha)?;
        // (r + α + β)/(r + α): nothing cancels when β is close to -α.
        let factor = (r.broadcast_add(&self.reach)? / &below)?;
        let bend = ((square / r)? / below.sqr()?)?.broadcast_mul(&self.beta)?;
        let radial = (&factor - bend)?;
        Ok(Stretch { factor, radial })
    }

    /// The squared distance before the map where it is `square` after it, tracked.
    fn before(&self, square: &Tensor) -> Result<Tensor> {
        let scalar = |t: &Tensor| -> Result<f64> { Ok(root::host(t)?.first().copied().unwrap_or(f64::NAN)) };
        let (alpha, beta) = (scalar(&self.alpha)?, scalar(&self.beta)?);
        let f = |d: f64| {
            let r = (d * d + TINY).sqrt();
            let factor = 1.0 + beta / (alpha + r);
            (d * factor, factor - beta * d * d / (r * (alpha + r).powi(2)))
        };
        // |φ·d - d| = |β|·d/(α + r) ≤ |β|.
        let bracket = |target: f64| [(target - beta.max(0.0)).max(0.0), target - beta.min(0.0)];
        let solve = |square: f64| root::increasing(f, square.sqrt(), bracket(square.sqrt())).map(|d| d * d);
        let found = root::each(NAME, square, solve)?;
        let tracked = square.track_op() || self.alpha.track_op() || self.beta.track_op();
        if tracked { self.attach(&found, square) } else { Ok(found) }
    }

    /// A constant solution becomes the function of `square` and the parameters that it is, by one Newton step in
    /// tracked operations: of squares, which are smooth where distances are not.
    fn attach(&self, found: &Tensor, square: &Tensor) -> Result<Tensor> {
        let Stretch { factor, radial } = self.stretch(found)?;
        let residual = ((found * factor.sqr()?)? - square)?;
        // d(S φ²)/dS = φ·(φ + r φ').
        let slope = (factor * radial)?.detach();
        Ok((found - ((&residual - residual.detach())? / slope)?)?)
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
        let ball = self.ball()?;
        let offset = x.broadcast_sub(&ball.centre)?;
        let stretch = ball.stretch(&offset.sqr()?.sum(1)?)?;
        let z = offset.broadcast_mul(&stretch.factor.unsqueeze(1)?)?.broadcast_add(&ball.centre)?;
        Ok((z, self.log_det(&stretch)?))
    }

    fn decode(&self, z: &Tensor, _context: Option<&Tensor>) -> Result<(Tensor, Tensor)> {
        check_batch_as(NAME, z, &self.shape, self.alpha.dtype())?;
        let ball = self.ball()?;
        let offset = z.broadcast_sub(&ball.centre)?;
        let stretch = ball.stretch(&ball.before(&offset.sqr()?.sum(1)?)?)?;
        let x = offset.broadcast_div(&stretch.factor.unsqueeze(1)?)?.broadcast_add(&ball.centre)?;
        Ok((x, self.log_det(&stretch)?.neg()?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::numbers::{distance, normal, store64, values};
    use candle_core::{Device, Var};

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
