//! The invertible 1×1 convolution of Glow: one learned matrix that mixes the channels of every pixel.

use candle_core::{DType, Tensor};
use serde::{Deserialize, Serialize};

use crate::bijector::{Bijector, Pullback, Tape, check_batch};
use crate::param::{Init, Param, ParamPath};
use crate::reversible::pair;
use crate::{Error, Gradients, Result, linalg};

/// How the matrix of an [`InvertibleConv`] is written in terms of trainable parameters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Parametrization {
    /// `W = P·L·(U + diag(sign · exp(log_s)))`: `P` and `sign` fixed, `L` unit lower and `U` strictly
    /// upper triangular. Always invertible; the log-determinant is a sum.
    #[default]
    Plu,
    /// Every entry of `W` free; the log-determinant comes from an LU decomposition in f64 at each call.
    Full,
    /// A product of reflections `I - 2vvᵀ/|v|²`: orthogonal, log-determinant zero.
    Householder {
        /// How many reflections; as many as channels reach every orthogonal matrix of that determinant.
        reflections: usize,
    },
}

/// The parameters of the three parametrisations.
#[derive(Debug)]
enum Weight {
    Plu(Plu),
    Full(Param),
    /// One vector per row.
    Householder(Param),
}

/// `z = W x` at every position, `log |det| = HW · ln |det W|` (Kingma & Dhariwal 2018, section 3.2).
///
/// `W` starts as a random rotation or reflection. The inverse is computed in f64 at each decode, at a
/// cost of `C³`; the product with the pixels costs `C²·HW·B`.
///
/// # Shapes
/// - event `(C, …)`, a vector `(D,)` included; `W` is `(C, C)`.
///
/// # Errors
/// [`Error::NotInvertible`] when the matrix has become singular, [`Error::NonFinite`] when a weight has
/// become NaN or infinite: always from decode, and from encode where the log-determinant needs an LU.
#[derive(Debug)]
pub struct InvertibleConv {
    shape: Vec<usize>,
    weight: Weight,
}

impl InvertibleConv {
    /// Parameters under `path`, by parametrisation: `lower`, `upper`, `log_scale` with the buffers
    /// `permutation` and `sign`; or `weight`; or `reflections`.
    ///
    /// # Errors
    /// [`Error::Config`] for an event without channels, or for no reflections.
    pub fn new(path: &ParamPath, shape: &[usize], parametrization: Parametrization) -> Result<Self> {
        let channels = match shape.first() {
            Some(&c) if c > 0 => c,
            _ => return Err(Error::config("conv1x1", format!("needs an event with channels, got {shape:?}"))),
        };
        let rotation = linalg::random_orthogonal(&mut path.rng("rotation"), channels)?;
        let weight = match parametrization {
            Parametrization::Plu => Weight::Plu(Plu::new(path, &rotation)?),
            Parametrization::Full => Weight::Full(path.param_from("weight", &rotation)?),
            Parametrization::Householder { reflections: 0 } => {
                return Err(Error::config("conv1x1", "needs at least one Householder reflection"));
            }
            Parametrization::Householder { reflections } => {
                Weight::Householder(path.param("reflections", (reflections, channels), Init::Normal(1.0))?)
            }
        };
        Ok(InvertibleConv { shape: shape.to_vec(), weight })
    }

    /// The matrix `W`, `(C, C)`, tracked unless tracking is paused.
    pub fn weight(&self) -> Result<Tensor> {
        match &self.weight {
            Weight::Plu(factors) => factors.product(),
            Weight::Full(weight) => Ok(weight.tensor()),
            Weight::Householder(vectors) => reflect(&vectors.tensor()),
        }
    }

    /// The ratio of the largest to the smallest singular value of `W`: how much decoding amplifies errors.
    ///
    /// # Errors
    /// [`Error::NonFinite`] when a weight is NaN or infinite.
    pub fn condition_number(&self) -> Result<f64> {
        linalg::condition_number(&self.name(), &self.weight()?.detach())
    }

    /// `ln |det W|`, a scalar; tracked like the weight.
    fn log_abs_det(&self, weight: &Tensor) -> Result<Tensor> {
        match &self.weight {
            Weight::Plu(factors) => Ok(factors.log_scale.tensor().sum_all()?),
            Weight::Full(_) => linalg::log_abs_det(&self.name(), weight),
            Weight::Householder(_) => Ok(Tensor::zeros((), weight.dtype(), weight.device())?),
        }
    }

    /// `sign · HW · ln |det W|` for every sample.
    fn log_det(&self, weight: &Tensor, batch: usize, sign: f64) -> Result<Tensor> {
        let per_sample = self.log_abs_det(weight)?.affine(sign * self.positions() as f64, 0.0)?;
        Ok(per_sample.reshape(1)?.broadcast_as(batch)?)
    }

    /// `HW`, how often the matrix is applied in one sample.
    fn positions(&self) -> usize {
        self.shape[1..].iter().product()
    }

    /// `(B, C, …)` as a contiguous `(B, C, HW)`.
    fn columns(&self, x: &Tensor) -> Result<Tensor> {
        Ok(x.contiguous()?.reshape((x.dim(0)?, self.shape[0], self.positions()))?)
    }

    /// `matrix · x` at every position.
    fn apply(&self, matrix: &Tensor, x: &Tensor) -> Result<Tensor> {
        if self.positions() == 1 {
            // Vectors: one product over the batch instead of one per sample.
            let rows = x.contiguous()?.reshape((x.dim(0)?, self.shape[0]))?;
            return Ok(rows.matmul(&matrix.t()?)?.reshape(x.shape())?);
        }
        Ok(matrix.broadcast_matmul(&self.columns(x)?)?.reshape(x.shape())?)
    }

    /// `Σ_b Σ_positions g xᵀ`, the gradient of `⟨g, W x⟩` with respect to `W`.
    fn outer(&self, g: &Tensor, x: &Tensor) -> Result<Tensor> {
        let (batch, channels) = (x.dim(0)?, self.shape[0]);
        if self.positions() == 1 {
            let rows = |t: &Tensor| t.contiguous()?.reshape((batch, channels));
            return Ok(rows(g)?.t()?.matmul(&rows(x)?)?);
        }
        let per_sample = self.columns(g)?.matmul(&self.columns(x)?.transpose(1, 2)?)?;
        // A product with ones: Candle's own sum over the leading dimension is one scalar loop.
        let ones = Tensor::ones((1, batch), x.dtype(), x.device())?;
        Ok(ones.matmul(&per_sample.reshape((batch, channels * channels))?)?.reshape((channels, channels))?)
    }
}

impl Bijector for InvertibleConv {
    fn name(&self) -> String {
        match self.weight {
            Weight::Plu(_) => "conv1x1(plu)".into(),
            Weight::Full(_) => "conv1x1(full)".into(),
            Weight::Householder(_) => "conv1x1(householder)".into(),
        }
    }

    fn event_shape(&self) -> &[usize] {
        &self.shape
    }

    fn encode(&self, x: &Tensor, _context: Option<&Tensor>) -> Result<(Tensor, Tensor)> {
        let batch = check_batch(&self.name(), x, &self.shape)?;
        let weight = self.weight()?;
        Ok((self.apply(&weight, x)?, self.log_det(&weight, batch, 1.0)?))
    }

    fn decode(&self, z: &Tensor, _context: Option<&Tensor>) -> Result<(Tensor, Tensor)> {
        let batch = check_batch(&self.name(), z, &self.shape)?;
        let weight = self.weight()?;
        // The inverse of the very matrix that `encode` applies, rounding included, keeps the drift of
        // reversible back-propagation at the round-off of one product.
        let inverse = linalg::inverse(&self.name(), &weight)?;
        Ok((self.apply(&inverse, z)?, self.log_det(&weight, batch, -1.0)?))
    }

    /// `∂/∂x = Wᵀ g` and `∂/∂W = Σ g xᵀ`; the chain to the parameters is a graph over `(C, C)` matrices.
    fn backprop(
        &self,
        z: &Tensor,
        _tape: &Tape,
        _context: Option<&Tensor>,
        grad_z: &Tensor,
        grad_log_det: &Tensor,
        gradients: &mut Gradients,
    ) -> Result<Pullback> {
        check_batch(&self.name(), z, &self.shape)?;
        let weight = self.weight()?;
        let x = self.apply(&linalg::inverse(&self.name(), &weight.detach())?, z)?;
        let total = grad_log_det.detach().sum_all()?.affine(self.positions() as f64, 0.0)?;
        let objective = pair(&weight, &self.outer(grad_z, &x)?)? + pair(&self.log_abs_det(&weight)?, &total)?;
        gradients.accumulate(&objective?.backward()?)?;
        let grad_x = self.apply(&weight.detach().t()?.contiguous()?, grad_z)?;
        Ok(Pullback { x, grad_x: grad_x.detach(), grad_context: None })
    }
}

/// The factors of `W = P·L·(U + diag(sign · exp(log_s)))`.
///
/// `lower` and `upper` are stored as full squares of which a triangle is used.
#[derive(Debug)]
struct Plu {
    permutation: Param,
    sign: Param,
    lower: Param,
    upper: Param,
    log_scale: Param,
    eye: Tensor,
    below: Tensor,
}

impl Plu {
    /// The factors of `matrix`.
    fn new(path: &ParamPath, matrix: &Tensor) -> Result<Self> {
        let [p, l, u] = linalg::plu("conv1x1", matrix)?;
        let (n, dtype, device) = (matrix.dim(0)?, path.store().dtype(), path.store().device());
        let eye = Tensor::eye(n, DType::F64, matrix.device())?;
        let below = (Tensor::tril2(n, DType::F64, matrix.device())? - &eye)?;
        let diagonal = (&u * &eye)?.sum(1)?;
        Ok(Plu {
            permutation: path.buffer("permutation", &p)?,
            sign: path.buffer("sign", &diagonal.sign()?)?,
            lower: path.param_from("lower", &(l * &below)?)?,
            upper: path.param_from("upper", &(u * below.t()?)?)?,
            log_scale: path.param_from("log_scale", &diagonal.abs()?.log()?)?,
            eye: eye.to_dtype(dtype)?.to_device(device)?,
            below: below.to_dtype(dtype)?.to_device(device)?,
        })
    }

    fn product(&self) -> Result<Tensor> {
        let lower = ((self.lower.tensor() * &self.below)? + &self.eye)?;
        let scale = (self.sign.tensor() * self.log_scale.tensor().exp()?)?;
        let upper = ((self.upper.tensor() * self.below.t()?)? + self.eye.broadcast_mul(&scale)?)?;
        Ok(self.permutation.tensor().matmul(&lower)?.matmul(&upper)?)
    }
}

/// `Π_k (I - 2 v_k v_kᵀ / |v_k|²)` for the rows `v_k` of `vectors`.
fn reflect(vectors: &Tensor) -> Result<Tensor> {
    let (count, n) = vectors.dims2()?;
    let mut product = Tensor::eye(n, vectors.dtype(), vectors.device())?;
    for k in 0..count {
        let v = vectors.narrow(0, k, 1)?;
        let projection = product.matmul(&v.t()?)?.broadcast_div(&v.sqr()?.sum_keepdim(1)?)?;
        product = (product - projection.matmul(&v)?.affine(2.0, 0.0)?)?;
    }
    Ok(product)
}

#[cfg(test)]
mod tests;
