//! The planar flow: one hyperbolic tangent along one direction.

use candle_core::Tensor;

use super::sylvester::{SLACK, TanhRoot};
use crate::bijector::{Bijector, check_batch_as};
use crate::error::Direction;
use crate::numerics::softmax::log_sigmoid;
use crate::param::{Init, Param, ParamPath};
use crate::{Error, Result};

pub(super) const NAME: &str = "planar";

/// Keeps `w/|w|²` finite.
pub(super) const TINY: f64 = 1e-12;

/// The length of `w` at the start, root mean square, and how far from zero `b` is at most.
pub(super) const START_WIDTH: f64 = 3.0;
pub(super) const START_PLACES: f64 = 2.0;

/// `z = x + û·tanh(wᵀx + b)` and `log |det| = ln(1 + wᵀû·(1 - tanh²(wᵀx + b)))` (Rezende & Mohamed 2015, arXiv
/// 1505.05770, equations 10 to 12).
///
/// It is invertible when `wᵀû > -1`, which `û = u + (m(wᵀu) - wᵀu)·w/|w|²` sees to (appendix A.1) with
/// `m(a) = -1 + 10⁻³ + ln(1 + eᵃ)`. The margin of 10⁻³ is ours: in floating point the logarithm vanishes for negative `a`,
/// and the derivative with it.
///
/// # Directions
/// Encode is the closed form, so this layer estimates densities; [`Inverse`](crate::Inverse) turns it round for
/// variational inference, where samples must be cheap. Decode solves `a + wᵀû·tanh a = wᵀz + b` for each row by
/// Newton's method inside a bracket, in f64; its gradients are those of the implicit function.
///
/// # Start
/// `w` is long and `b` spread out, so that layers bend standardised data sharply and in different places. With short
/// `w` and `b = 0` every layer is an odd and nearly linear map, and a stack of them is slow to become anything else.
///
/// # Shapes
/// - event `(D,)`; the context is ignored.
#[derive(Debug)]
pub struct Planar {
    shape: [usize; 1],
    w: Param,
    u: Param,
    b: Param,
}

/// The constrained parameters: `w` and `û`, `(1, D)`, `b` and `wᵀû`, `(1,)`.
struct Plane {
    w: Tensor,
    u: Tensor,
    b: Tensor,
    slope: Tensor,
}

impl Planar {
    /// A layer over vectors of length `dims`, with parameters `w`, `u` and `b` under `path`.
    ///
    /// # Errors
    /// [`Error::Config`] without dimensions.
    pub fn new(path: &ParamPath, dims: usize) -> Result<Self> {
        if dims == 0 {
            return Err(Error::config(NAME, "needs at least one dimension"));
        }
        Ok(Planar {
            shape: [dims],
            w: path.param("w", dims, Init::Normal(START_WIDTH / (dims as f64).sqrt()))?,
            u: path.param("u", dims, Init::Normal(0.1))?,
            b: path.param("b", 1, Init::Uniform(START_PLACES))?,
        })
    }

    /// `u`, `w` and `b`.
    pub(super) fn parameters(&self) -> [&Param; 3] {
        [&self.u, &self.w, &self.b]
    }

    fn plane(&self) -> Result<Plane> {
        let (w, u) = (self.w.tensor(), self.u.tensor());
        let along = (&w * &u)?.sum_keepdim(0)?;
        // ln(1 + eᵃ) = -ln σ(-a).
        let wanted = (log_sigmoid(&along.neg()?)?.neg()? - (1.0 - SLACK))?;
        let shift = ((wanted - &along)? / (w.sqr()?.sum_keepdim(0)? + TINY)?)?;
        let u = (u + w.broadcast_mul(&shift)?)?;
        let slope = (&w * &u)?.sum_keepdim(0)?;
        Ok(Plane { w: w.unsqueeze(0)?, u: u.unsqueeze(0)?, b: self.b.tensor(), slope })
    }
}

impl Plane {
    /// `wᵀx + b`, `(B,)`.
    fn height(&self, x: &Tensor) -> Result<Tensor> {
        Ok(x.broadcast_mul(&self.w)?.sum(1)?.broadcast_add(&self.b)?)
    }

    /// `û·h`, `(B, D)`, and `ln(1 + wᵀû·(1 - h²))`, `(B,)`.
    fn bump(&self, h: &Tensor) -> Result<(Tensor, Tensor)> {
        let log = (h.sqr()?.affine(-1.0, 1.0)?.broadcast_mul(&self.slope)? + 1.0)?.log()?;
        Ok((h.unsqueeze(1)?.broadcast_mul(&self.u)?, log))
    }
}

impl Bijector for Planar {
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
        check_batch_as(NAME, x, &self.shape, self.w.dtype())?;
        let plane = self.plane()?;
        let (bump, log_det) = plane.bump(&plane.height(x)?.tanh()?)?;
        Ok(((x + bump)?, log_det))
    }

    fn decode(&self, z: &Tensor, _context: Option<&Tensor>) -> Result<(Tensor, Tensor)> {
        check_batch_as(NAME, z, &self.shape, self.w.dtype())?;
        let plane = self.plane()?;
        let height = TanhRoot { layer: NAME, slope: &plane.slope }.solve(&plane.height(z)?)?;
        let (bump, log_det) = plane.bump(&height.tanh()?)?;
        Ok(((z - bump)?, log_det.neg()?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::numbers::{normal, store64, values};
    use candle_core::Device;

    /// A layer with given `w` and `u`.
    fn planar(w: [f64; 2], u: [f64; 2]) -> Planar {
        let layer = Planar::new(&store64(1).root(), 2).unwrap();
        layer.w.set(&Tensor::new(&w, &Device::Cpu).unwrap()).unwrap();
        layer.u.set(&Tensor::new(&u, &Device::Cpu).unwrap()).unwrap();
        layer.b.set(&Tensor::new(&[0.0], &Device::Cpu).unwrap()).unwrap();
        layer
    }

    #[test]
    fn the_constraint_is_that_of_the_paper_up_to_the_margin() {
        for along in [-3.0_f64, -0.5, 0.0, 2.0] {
            // wᵀu = along, and u has a part at right angles to w that must stay.
            let plane = planar([2.0, 0.0], [0.5 * along, 0.7]).plane().unwrap();
            let m = along.exp().ln_1p() - 1.0;
            assert!((values(&plane.slope)[0] - m - SLACK).abs() < 1e-9, "{along}");
            assert!((values(&plane.u)[1] - 0.7).abs() < 1e-12);
        }
    }

    #[test]
    fn stays_invertible_far_beyond_the_constraint_and_finite_without_a_direction() {
        for (w, u) in [([3.0, 0.0], [-1e3, 1.0]), ([0.0, 0.0], [1.0, -1.0]), ([1e-9, 0.0], [-5.0, 1.0])] {
            let layer = planar(w, u);
            let x = normal(1, &[50, 2]).affine(3.0, 0.0).unwrap();
            let (z, log_det) = layer.encode(&x, None).unwrap();
            assert!(values(&log_det).iter().all(|l| l.is_finite() && *l >= SLACK.ln() - 1e-9));
            let back = values(&layer.decode(&z, None).unwrap().0);
            // At the margin a rounding error may grow by its inverse, a thousand.
            assert!(back.iter().zip(values(&x)).all(|(b, x)| (b - x).abs() < 1e-9), "w = {w:?}");
        }
    }

    #[test]
    fn values_are_those_of_the_formula() {
        let layer = planar([1.0, -2.0], [0.3, 0.4]);
        let x = [0.6_f64, 0.2];
        let along = 0.3 - 0.8_f64;
        let shift = (along.exp().ln_1p() - 1.0 + SLACK - along) / 5.0;
        let (u, h) = ([0.3 + shift, 0.4 - 2.0 * shift], (x[0] - 2.0 * x[1]).tanh());
        let (z, log_det) = layer.encode(&Tensor::new(&[x], &Device::Cpu).unwrap(), None).unwrap();
        let expected = [x[0] + u[0] * h, x[1] + u[1] * h];
        assert!(values(&z).iter().zip(expected).all(|(a, b)| (a - b).abs() < 1e-11));
        let slope: f64 = u[0] - 2.0 * u[1];
        assert!((values(&log_det)[0] - (1.0 + slope * (1.0 - h * h)).ln()).abs() < 1e-11);
        assert!(Planar::new(&store64(1).root(), 0).is_err());
    }
}
