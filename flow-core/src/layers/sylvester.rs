//! The Sylvester flow: several hyperbolic tangents along orthogonal directions.

use candle_core::{DType, Device, Tensor};

use super::conv1x1::reflected;
use crate::bijector::{Bijector, check_batch_as, zero_log_det};
use crate::error::Direction;
use crate::nn::matmul;
use crate::numerics::host;
use crate::numerics::root;
use crate::param::{Init, Param, ParamPath};
use crate::{Error, Result};

pub(super) const NAME: &str = "sylvester";

/// How far derivatives stay away from zero: constraints that the papers write with `>` hold with this margin.
pub(super) const SLACK: f64 = 1e-3;

/// `z = x + Q·R·tanh(R̃·Qᵀx + b)` and `log |det| = Σ_i ln(1 + R_ii·R̃_ii·(1 - tanh²(a_i)))`, where `a = R̃·Qᵀx + b` has
/// `M ≤ D` entries (van den Berg et al. 2018, arXiv 1803.05649, section 3).
///
/// `R` and `R̃` are upper triangular with diagonals in `(-1, 1)`, whose products exceed -1: every factor is positive and
/// the map invertible. The columns of `Q` are orthonormal: the first `M` of a product of Householder reflections
/// (H-SNF), `M` of which reach every such matrix up to signs.
///
/// # Directions
/// Encode is the closed form; [`Inverse`](crate::Inverse) turns it round. Decode needs no iteration over vectors:
/// `a + R̃R·tanh a = R̃Qᵀz + b` is triangular, so it is solved from its last entry up, each entry by Newton's method
/// inside a bracket, in f64. Gradients are those of the implicit function.
///
/// # Shapes
/// - event `(D,)`; the context is ignored.
#[derive(Debug)]
pub struct Sylvester {
    shape: [usize; 1],
    start: Param,
    v: Param,
    upper: [Param; 2],
    diagonal: [Param; 2],
    b: Param,
}

/// The constrained parameters: `Qᵀ` `(M, D)`, `Rᵀ` and `R̃ᵀ` `(M, M)`, diagonals and `b` `(M,)`.
struct Frame {
    q: Tensor,
    r: Tensor,
    r_tilde: Tensor,
    slopes: Tensor,
    b: Tensor,
}

impl Sylvester {
    /// A layer over vectors of length `dims` with `width` units and as many reflections.
    ///
    /// # Errors
    /// [`Error::Config`] unless `1 ≤ width ≤ dims`.
    pub fn new(path: &ParamPath, dims: usize, width: usize) -> Result<Self> {
        if width == 0 || width > dims {
            return Err(Error::config(NAME, format!("needs a width of 1 to {dims}, the dimensions, got {width}")));
        }
        let eye = Tensor::eye(dims, DType::F64, &Device::Cpu)?.narrow(0, 0, width)?;
        let upper = |name: &str| path.param(name, (width, width), Init::Normal(0.1));
        let diagonal = |name: &str| path.param(name, width, Init::Normal(0.5));
        Ok(Sylvester {
            shape: [dims],
            start: path.buffer("start", &eye)?,
            v: path.param("v", (width, dims), Init::Normal(1.0))?,
            upper: [upper("r")?, upper("r_tilde")?],
            diagonal: [diagonal("diagonal")?, diagonal("diagonal_tilde")?],
            b: path.param("b", width, Init::Const(0.0))?,
        })
    }

    fn width(&self) -> usize {
        self.b.var().elem_count()
    }

    fn frame(&self) -> Result<Frame> {
        let width = self.width();
        let strictly_upper: Vec<f64> = (0..width * width).map(|k| f64::from(k / width < k % width)).collect();
        let triangle = |i: usize| -> Result<(Tensor, Tensor)> {
            let diagonal = self.diagonal[i].tensor().tanh()?.affine(1.0 - SLACK, 0.0)?;
            let upper = self.upper[i].tensor();
            let mask = host::tensor_like(&strictly_upper, (width, width), &upper)?;
            let eye = Tensor::eye(width, upper.dtype(), upper.device())?;
            let matrix = ((upper * mask)? + eye.broadcast_mul(&diagonal)?)?;
            Ok((matrix.t()?.contiguous()?, diagonal))
        };
        let ((r, d), (r_tilde, d_tilde)) = (triangle(0)?, triangle(1)?);
        let q = reflected(&self.start.tensor(), &self.v.tensor())?;
        Ok(Frame { q, r, r_tilde, slopes: (d * d_tilde)?, b: self.b.tensor() })
    }
}

impl Frame {
    /// `R̃·Qᵀx + b`, `(B, M)`.
    fn heights(&self, x: &Tensor) -> Result<Tensor> {
        Ok(matmul(&matmul(x, &self.q.t()?)?, &self.r_tilde)?.broadcast_add(&self.b)?)
    }

    /// `Q·R·h`, `(B, D)`, and `Σ ln(1 + R_ii·R̃_ii·(1 - h²))`, `(B,)`.
    fn bumps(&self, h: &Tensor) -> Result<(Tensor, Tensor)> {
        let log = (h.sqr()?.affine(-1.0, 1.0)?.broadcast_mul(&self.slopes)? + 1.0)?.log()?.sum(1)?;
        Ok((matmul(&matmul(h, &self.r)?, &self.q)?, log))
    }

    /// `tanh a` for `a + R̃R·tanh a = c`, `(B, M)`, from the last entry up.
    fn solve(&self, c: &Tensor) -> Result<Tensor> {
        let width = c.dim(1)?;
        // Row j of (R̃R)ᵀ = Rᵀ·R̃ᵀ holds what entry j adds to all entries.
        let spread = matmul(&self.r, &self.r_tilde)?;
        let (mut rest, mut found) = (c.clone(), Vec::with_capacity(width));
        for i in (0..width).rev() {
            let slope = self.slopes.narrow(0, i, 1)?;
            let height = TanhRoot { layer: NAME, slope: &slope }.solve(&rest.narrow(1, i, 1)?.squeeze(1)?)?;
            let h = height.tanh()?.unsqueeze(1)?;
            rest = (rest - h.broadcast_mul(&spread.narrow(0, i, 1)?)?)?;
            found.push(h);
        }
        found.reverse();
        Ok(Tensor::cat(&found, 1)?)
    }
}

/// The equation `a + s·tanh a = c` with `s > -1`, increasing in `a`.
pub(super) struct TanhRoot<'a> {
    /// Whose equation it is, for errors.
    pub(super) layer: &'a str,
    /// `s`, `(1,)` or one for every entry of `c`.
    pub(super) slope: &'a Tensor,
}

impl TanhRoot<'_> {
    /// The root for every entry of `c`, as a differentiable function of `c` and `s`.
    ///
    /// It is found outside the graph, in f64, and then takes one Newton step in tracked operations, whose value is
    /// zero and whose derivative is that of the implicit function.
    pub(super) fn solve(&self, c: &Tensor) -> Result<Tensor> {
        let slopes = host::numbers(self.slope)?;
        let a = root::all(self.layer, c, &host::numbers(c)?, |i, c| {
            let s = slopes.get(i % slopes.len().max(1)).copied().unwrap_or(0.0);
            let f = |a: f64| (a + s * a.tanh(), 1.0 + s * (1.0 - a.tanh().powi(2)));
            root::increasing(f, c, [c - s.abs(), c + s.abs()])
        })?;
        if !(c.track_op() || self.slope.track_op()) {
            return Ok(a);
        }
        let h = a.tanh()?;
        let residual = (h.broadcast_mul(self.slope)? - c)?;
        let slope = (h.sqr()?.affine(-1.0, 1.0)?.broadcast_mul(&self.slope.detach())? + 1.0)?;
        let change = ((&residual - residual.detach())? / slope)?;
        Ok((a - change)?)
    }
}

impl Bijector for Sylvester {
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
        if check_batch_as(NAME, x, &self.shape, self.b.dtype())? == 0 {
            return Ok((x.clone(), zero_log_det(x)?));
        }
        let frame = self.frame()?;
        let (bumps, log_det) = frame.bumps(&frame.heights(x)?.tanh()?)?;
        Ok(((x + bumps)?, log_det))
    }

    fn decode(&self, z: &Tensor, _context: Option<&Tensor>) -> Result<(Tensor, Tensor)> {
        if check_batch_as(NAME, z, &self.shape, self.b.dtype())? == 0 {
            return Ok((z.clone(), zero_log_det(z)?));
        }
        let frame = self.frame()?;
        let (bumps, log_det) = frame.bumps(&frame.solve(&frame.heights(z)?)?)?;
        Ok(((z - bumps)?, log_det.neg()?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::FlowRng;
    use crate::testing::numbers::{distance, normal, store64, values};
    use crate::testing::randomise;

    #[test]
    fn the_frame_is_orthonormal_and_the_triangles_are_triangles() {
        let store = store64(3);
        let layer = Sylvester::new(&store.root(), 5, 3).unwrap();
        randomise(&store, 0.5, &mut FlowRng::seed_from(1)).unwrap();
        let frame = layer.frame().unwrap();
        let gram = frame.q.matmul(&frame.q.t().unwrap().contiguous().unwrap()).unwrap();
        assert!(distance(&gram, &Tensor::eye(3, DType::F64, &Device::Cpu).unwrap()) < 1e-12);
        for matrix in [&frame.r, &frame.r_tilde] {
            let rows = matrix.to_vec2::<f64>().unwrap();
            assert!((0..3).all(|i| (0..3).all(|j| (j <= i) == (rows[i][j] != 0.0))), "{rows:?}");
        }
        assert!(values(&frame.slopes).iter().all(|s| s.abs() < 1.0));
    }

    /// One unit along the first axis, both triangles the numbers `r` and `r̃`: a planar map of the first entry alone.
    #[test]
    fn one_unit_is_a_planar_flow() {
        let layer = Sylvester::new(&store64(3).root(), 2, 1).unwrap();
        let set = |p: &Param, v: f64| p.set(&Tensor::full(v, p.var().shape(), &Device::Cpu).unwrap()).unwrap();
        layer.v.set(&Tensor::new(&[[1.0_f64, 0.0]], &Device::Cpu).unwrap()).unwrap();
        set(&layer.diagonal[0], 0.8);
        set(&layer.diagonal[1], -1.1);
        set(&layer.b, 0.3);
        let (r, r_tilde) = ((1.0 - SLACK) * 0.8_f64.tanh(), (1.0 - SLACK) * (-1.1_f64).tanh());
        let (z, log_det) = layer.encode(&Tensor::new(&[[0.9_f64, -0.4]], &Device::Cpu).unwrap(), None).unwrap();
        // The reflection turns the first axis: Q = (-1, 0)ᵀ.
        let h = (r_tilde * -0.9 + 0.3_f64).tanh();
        assert!((values(&z)[0] - (0.9 - r * h)).abs() < 1e-12 && values(&z)[1] == -0.4);
        assert!((values(&log_det)[0] - (1.0 + r * r_tilde * (1.0 - h * h)).ln()).abs() < 1e-12);
    }

    #[test]
    fn every_unit_is_found_at_the_margin_and_bad_widths_are_refused() {
        let store = store64(3);
        let layer = Sylvester::new(&store.root(), 4, 4).unwrap();
        randomise(&store, 1.0, &mut FlowRng::seed_from(1)).unwrap();
        let extreme = |i: usize, v: f64| {
            let p = &layer.diagonal[i];
            p.set(&Tensor::full(v, p.var().shape(), &Device::Cpu).unwrap()).unwrap();
        };
        extreme(0, 40.0);
        extreme(1, -40.0);
        let x = normal(1, &[40, 4]);
        let (z, _) = layer.encode(&x, None).unwrap();
        assert!(distance(&layer.decode(&z, None).unwrap().0, &x) < 1e-8);
        let path = store64(1).root();
        assert!(Sylvester::new(&path, 3, 0).is_err() && Sylvester::new(&path, 3, 4).is_err());
    }
}
