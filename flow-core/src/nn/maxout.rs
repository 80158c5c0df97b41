//! The maxout layer.

use candle_core::Tensor;

use super::Linear;
use crate::bijector::check_dtype;
use crate::kernels::maxout::Maxout as Kernel;
use crate::kernels::{Real, accepts, fuse, read};
use crate::param::ParamPath;
use crate::{Error, Result};

/// The most pieces of a unit.
const MAX_PIECES: usize = 256;

/// `h_u = max_p (x W + b)_{p·U + u}`, the greatest of `P` affine functions for each of `U` units (Goodfellow et al. 2013,
/// arXiv 1302.4389, section 2).
///
/// Of equal functions the first is chosen and gets the gradient; NaN stays NaN.
///
/// # Shapes
/// - `x`: `(B, I)`; `W`: `(I, P·U)`, piece by piece; `b`: `(P·U,)`; `h`: `(B, U)`.
#[derive(Debug, Clone)]
pub struct Maxout {
    linear: Linear,
    inputs: usize,
    units: usize,
    pieces: usize,
}

/// Which piece every unit of a batch took: what the gradient of an evaluation needs.
#[derive(Debug, Clone)]
pub struct Chosen(Vec<u8>);

impl Maxout {
    /// `units` units of `pieces` pieces with parameters `weight` and `bias` under `path`, all uniform in `±1/√I` at the
    /// start.
    ///
    /// # Errors
    /// [`Error::Config`] without inputs, units or pieces, or with more than 256 pieces.
    pub fn new(path: &ParamPath, inputs: usize, units: usize, pieces: usize) -> Result<Self> {
        if inputs == 0 || units == 0 || !(1..=MAX_PIECES).contains(&pieces) {
            let reason = format!(
                "{inputs} inputs, {units} units, {pieces} pieces: at least one of each is needed, at most 256 pieces"
            );
            return Err(Error::config("maxout", reason));
        }
        let linear = Linear::uniform(path, inputs, units * pieces)?;
        Ok(Maxout { linear, inputs, units, pieces })
    }

    /// The affine functions.
    pub fn linear(&self) -> &Linear {
        &self.linear
    }

    fn kernel(&self, batch: usize) -> Kernel {
        Kernel { batch, units: self.units, pieces: self.pieces }
    }

    fn check(&self, x: &Tensor) -> Result<usize> {
        check_dtype("maxout", x, self.linear.dtype())?;
        match x.dims() {
            &[batch, inputs] if inputs == self.inputs => Ok(batch),
            _ => Err(Error::Shape {
                layer: "maxout".into(),
                expected: format!("(B, {})", self.inputs),
                actual: x.dims().to_vec(),
            }),
        }
    }

    /// The units, in the graph.
    ///
    /// # Errors
    /// [`Error::Shape`] and [`Error::DType`] for what does not fit.
    pub fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let batch = self.check(x)?;
        let (sums, bias) = (super::matmul(x, &self.linear.weight()?)?, self.linear.bias_or_zero()?);
        if accepts(&sums) {
            return fuse(self.kernel(batch), [&sums, &bias]);
        }
        let pieces = sums.broadcast_add(&bias)?.reshape((batch, self.pieces, self.units))?;
        // The greatest, from the last piece to the first, so that the first of equals stays.
        let mut best = pieces.get_on_dim(1, self.pieces - 1)?;
        for p in (0..self.pieces - 1).rev() {
            let piece = pieces.get_on_dim(1, p)?;
            best = piece.lt(&best)?.where_cond(&best, &piece)?;
        }
        Ok(best)
    }

    /// The units outside any graph, with what [`Maxout::spread`] needs. On the CPU.
    ///
    /// # Errors
    /// As for [`Maxout::forward`], and a tensor of another device.
    pub fn evaluate(&self, x: &Tensor) -> Result<(Tensor, Chosen)> {
        let batch = self.check(x)?;
        let sums = self.linear.product(&x.detach())?;
        let bias = self.linear.bias_or_zero()?.detach();
        match sums.dtype() {
            candle_core::DType::F64 => self.choose::<f64>(batch, &sums, &bias),
            _ => self.choose::<f32>(batch, &sums, &bias),
        }
    }

    fn choose<T: Real>(&self, batch: usize, sums: &Tensor, bias: &Tensor) -> Result<(Tensor, Chosen)> {
        let kernel = self.kernel(batch);
        let (value, chosen) = read::<T, _>(sums, |sums| read::<T, _>(bias, |bias| Ok(kernel.choose(sums, bias))))?;
        Ok((Tensor::from_vec(value, (batch, self.units), sums.device())?, Chosen(chosen)))
    }

    /// The gradient of the affine functions, `(B, P·U)`, for that of the units, `(B, U)`: what
    /// [`Linear::pull_back`] of [`Maxout::linear`] takes.
    ///
    /// # Errors
    /// [`Error::Shape`] for a gradient of another batch than the evaluation's.
    pub fn spread(&self, chosen: &Chosen, grad: &Tensor) -> Result<Tensor> {
        let batch = chosen.0.len() / self.units;
        if grad.dims() != [batch, self.units] {
            let expected = format!("({batch}, {})", self.units);
            return Err(Error::Shape { layer: "maxout (gradient)".into(), expected, actual: grad.dims().to_vec() });
        }
        let (kernel, shape) = (self.kernel(batch), (batch, self.units * self.pieces));
        Ok(match grad.dtype() {
            candle_core::DType::F64 => {
                let spread = read::<f64, _>(grad, |grad| Ok(kernel.spread(&chosen.0, grad)))?;
                Tensor::from_vec(spread, shape, grad.device())?
            }
            _ => {
                let spread = read::<f32, _>(grad, |grad| Ok(kernel.spread(&chosen.0, grad)))?;
                Tensor::from_vec(spread, shape, grad.device())?
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use candle_core::{Device, Var};

    use super::*;
    use crate::Gradients;
    use crate::autodiff::pair;
    use crate::testing::numbers::{distance, normal, relative, store64, values};

    /// Zeros and ones, most of them zeros.
    fn binary(rows: usize, columns: usize) -> Tensor {
        let entries: Vec<f64> = (0..rows * columns).map(|i| f64::from(u8::from(i * i % 11 == 1))).collect();
        Tensor::from_vec(entries, (rows, columns), &Device::Cpu).unwrap()
    }

    #[test]
    fn the_greatest_function_wins_and_nan_stays() {
        let store = store64(1);
        let layer = Maxout::new(&store.root(), 3, 5, 4).unwrap();
        let x = normal(2, &[6, 3]);
        let h = layer.forward(&x).unwrap();
        let sums = values(&layer.linear().forward(&x).unwrap());
        for (i, &h) in values(&h).iter().enumerate() {
            let (row, unit) = (i / 5, i % 5);
            let greatest = (0..4).map(|p| sums[row * 20 + p * 5 + unit]).fold(f64::NEG_INFINITY, f64::max);
            assert!((h - greatest).abs() < 1e-14);
        }
        let spoiled = Tensor::cat(&[x.narrow(0, 0, 5).unwrap(), (normal(3, &[1, 3]) * f64::NAN).unwrap()], 0).unwrap();
        let spoiled = values(&layer.forward(&spoiled).unwrap());
        assert!(spoiled[25..].iter().all(|v| v.is_nan()) && spoiled[..25].iter().all(|v| v.is_finite()));
        for (inputs, units, pieces) in [(0, 1, 1), (1, 0, 1), (1, 1, 0), (1, 1, 257)] {
            assert!(Maxout::new(&store.root().pp("bad"), inputs, units, pieces).is_err());
        }
        assert!(layer.forward(&normal(1, &[2, 4])).is_err() && layer.evaluate(&normal(1, &[2, 4])).is_err());
    }

    /// Dense and sparse inputs: value and gradients by hand are those of the graph.
    #[test]
    fn gradients_by_hand_are_those_of_the_graph() {
        for x in [normal(2, &[9, 13]), binary(9, 13)] {
            let store = store64(1);
            let layer = Maxout::new(&store.root(), 13, 70, 3).unwrap();
            let x = Var::from_tensor(&x).unwrap();
            let h = layer.forward(x.as_tensor()).unwrap();
            let cotangent = normal(4, h.dims());
            let graph = pair(&h, &cotangent).unwrap().backward().unwrap();
            let (value, chosen) = layer.evaluate(x.as_tensor()).unwrap();
            assert!(distance(&value, &h) < 1e-13);
            let mut gradients = Gradients::new(&store);
            let grad = layer.spread(&chosen, &cotangent).unwrap();
            layer.linear().pull_back(x.as_tensor(), &grad, &mut gradients).unwrap();
            for (param, found) in gradients.iter() {
                assert!(relative(found.unwrap(), graph.get(param.var()).unwrap()) < 1e-13, "{}", param.name());
            }
            let of_x = layer.linear().pull_back_input(&grad).unwrap();
            assert!(relative(&of_x, graph.get(x.as_tensor()).unwrap()) < 1e-13);
        }
    }

    #[test]
    fn the_gradient_of_the_graph_is_that_of_finite_differences() {
        let store = store64(5);
        let layer = Maxout::new(&store.root(), 3, 4, 3).unwrap();
        let x = normal(2, &[5, 3]);
        let cotangent = normal(4, &[5, 4]);
        let value = || pair(&layer.forward(&x).unwrap(), &cotangent).unwrap();
        let graph = value().backward().unwrap();
        for param in store.trainable() {
            let (entries, found) = (values(param.var()), values(graph.get(param.var()).unwrap()));
            for i in 0..entries.len() {
                let at = |by: f64| {
                    let mut moved = entries.clone();
                    moved[i] += by;
                    param.set(&Tensor::from_vec(moved, param.var().dims(), &Device::Cpu).unwrap()).unwrap();
                    value().to_scalar::<f64>().unwrap()
                };
                let slope = (at(1e-6) - at(-1e-6)) / 2e-6;
                at(0.0);
                assert!((slope - found[i]).abs() < 1e-7 * (1.0 + slope.abs()), "{} {i}", param.name());
            }
        }
    }
}
