//! The invertible 1×1 convolution: a learned mixing of channels.

use candle_core::{CpuStorage, CustomOp1, DType, Device, Layout, Tensor};
use serde::{Deserialize, Serialize};

use crate::autodiff::pair;
use crate::bijector::{Bijector, LayerReport, Pullback, Tape, check_batch_as};
use crate::kernels::{Real, accepts, contiguous, mix, read};
use crate::nn::matmul;
use crate::numerics::{host, linalg};
use crate::param::{Init, Param, ParamPath};
use crate::{Error, Gradients, Result};

/// How the matrix of an [`InvertibleConv`] is parametrised.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Parametrization {
    /// `W = P·L·(U + diag(s))` with fixed `P` and fixed signs of `s`: the log-determinant is `Σ ln |s|`
    /// and the matrix cannot become singular.
    #[default]
    Plu,
    /// A free matrix; the log-determinant takes an LU factorisation.
    Full,
    /// A product of Householder reflections: orthogonal, log-determinant zero.
    Householder {
        /// Number of reflections; as many as channels reach every orthogonal matrix up to sign.
        reflections: usize,
    },
}

/// `z[:, p] = W·x[:, p]` at every pixel, `log |det| = P · ln |det W|`.
///
/// Kingma & Dhariwal 2018, section 3.2; the PLU form is their section 3.2 "LU decomposition". `W`
/// starts as a random rotation. Inverses and determinants are computed in f64.
///
/// # Shapes
/// - event `(C, …)`; `P` is the product of the dimensions behind the channels.
#[derive(Debug)]
pub struct InvertibleConv {
    shape: Vec<usize>,
    form: Form,
}

/// The parameters of each parametrisation.
#[derive(Debug, Clone)]
enum Form {
    Plu { p: Param, sign: Param, l: Param, u: Param, log_s: Param },
    Full { w: Param },
    Householder { start: Param, v: Param },
}

const NAME: &str = "invertible 1x1 convolution";

/// `W·H_1·H_2·…`, where `H_k = I - 2 v_k v_kᵀ / |v_k|²` reflects along row `k` of `v`, `(K, C)`.
pub(super) fn reflected(w: &Tensor, v: &Tensor) -> Result<Tensor> {
    let mut w = w.clone();
    for k in 0..v.dim(0)? {
        let row = v.narrow(0, k, 1)?;
        let along = matmul(&matmul(&w, &row.t()?)?, &row)?;
        w = (w - along.broadcast_div(&row.sqr()?.sum_all()?)?.affine(2.0, 0.0)?)?;
    }
    Ok(w)
}

impl InvertibleConv {
    /// The element type of the parameters.
    fn dtype(&self) -> DType {
        match &self.form {
            Form::Plu { l: param, .. } | Form::Full { w: param } | Form::Householder { v: param, .. } => param.dtype(),
        }
    }

    /// A mixing of the channels of events of `shape`.
    ///
    /// # Errors
    /// [`Error::Config`] for an event without channels or zero reflections.
    pub fn new(path: &ParamPath, shape: &[usize], parametrization: Parametrization) -> Result<Self> {
        let Some(&c) = shape.first().filter(|&&c| c > 0) else {
            return Err(Error::config(NAME, "needs an event with at least one channel"));
        };
        let rotation = linalg::random_rotation(c, &mut path.rng("rotation"))?;
        // The store has its own type and device; f64 there is not on every device.
        let device = &Device::Cpu;
        let matrix = |values: Vec<f64>| Tensor::from_vec(values, (c, c), device);
        let form = match parametrization {
            Parametrization::Plu => {
                let linalg::Plu { p, l, u } = linalg::plu(&rotation, c);
                let diagonal: Vec<f64> = (0..c).map(|i| u[i * c + i]).collect();
                let sign = diagonal.iter().map(|d| d.signum()).collect::<Vec<_>>();
                let log = diagonal.iter().map(|d| d.abs().ln()).collect::<Vec<_>>();
                Form::Plu {
                    p: path.buffer("p", &matrix(p)?)?,
                    sign: path.buffer("sign", &Tensor::from_vec(sign, c, device)?)?,
                    l: path.param_from("l", &matrix(masked(&l, c, |i, j| j < i))?)?,
                    u: path.param_from("u", &matrix(masked(&u, c, |i, j| j > i))?)?,
                    log_s: path.param_from("log_s", &Tensor::from_vec(log, c, device)?)?,
                }
            }
            Parametrization::Full => Form::Full { w: path.param_from("w", &matrix(rotation)?)? },
            Parametrization::Householder { reflections: 0 } => {
                return Err(Error::config(NAME, "needs at least one Householder reflection"));
            }
            Parametrization::Householder { reflections } => Form::Householder {
                start: path.buffer("start", &matrix(rotation)?)?,
                v: path.param("v", (reflections, c), Init::Normal(1.0))?,
            },
        };
        Ok(InvertibleConv { shape: shape.to_vec(), form })
    }

    /// A free matrix that starts as a proper rotation, `det W = 1`: the mixing of WaveGlow (Prenger et al. 2018, section
    /// 2.2), whose determinant stays positive unless training passes through a singular matrix.
    ///
    /// # Errors
    /// [`Error::Config`] for an event without channels.
    pub fn proper_rotation(path: &ParamPath, shape: &[usize]) -> Result<Self> {
        let conv = InvertibleConv::new(path, shape, Parametrization::Full)?;
        let (c, mut values) = (conv.channels(), conv.weight_f64()?);
        if let Form::Full { w } = &conv.form
            && linalg::determinant(&values, c) < 0.0
        {
            values.iter_mut().take(c).for_each(|value| *value = -*value);
            w.set(&conv.matrix(&values, w.var())?)?;
        }
        Ok(conv)
    }

    /// The same mixing, by the same parameters, of events with other dimensions behind the channels.
    ///
    /// # Errors
    /// [`Error::Config`] for another number of channels.
    pub fn resized(&self, shape: &[usize]) -> Result<Self> {
        if shape.first() != Some(&self.channels()) {
            return Err(Error::config(NAME, format!("mixes {} channels, not those of {shape:?}", self.channels())));
        }
        Ok(InvertibleConv { shape: shape.to_vec(), form: self.form.clone() })
    }

    fn channels(&self) -> usize {
        self.shape[0]
    }

    fn pixels(&self) -> usize {
        self.shape[1..].iter().product()
    }

    /// The matrix `W`, `(C, C)`, tracked.
    pub fn weight(&self) -> Result<Tensor> {
        let c = self.channels();
        match &self.form {
            Form::Full { w } => Ok(w.tensor()),
            Form::Plu { p, sign, l, u, log_s } => {
                let (l, u) = (l.tensor(), u.tensor());
                let like = |f: fn(usize, usize) -> bool| -> Result<Tensor> {
                    let ones = masked(&vec![1.0; c * c], c, f);
                    host::tensor_like(&ones, (c, c), &l)
                };
                let eye = like(|i, j| i == j)?;
                let lower = ((l.clone() * like(|i, j| j < i)?)? + &eye)?;
                let diagonal = eye.broadcast_mul(&(sign.tensor() * log_s.tensor().exp()?)?)?;
                let upper = ((u * like(|i, j| j > i)?)? + diagonal)?;
                Ok(matmul(&matmul(&p.tensor(), &lower)?, &upper)?)
            }
            Form::Householder { start, v } => reflected(&start.tensor(), &v.tensor()),
        }
    }

    /// The ratio of the extreme singular values of `W`: how much a round trip may amplify errors.
    pub fn condition_number(&self) -> Result<f64> {
        linalg::condition_number(&self.weight_f64()?, self.channels(), NAME)
    }

    fn weight_f64(&self) -> Result<Vec<f64>> {
        host::numbers(&self.weight()?)
    }

    fn inverse_f64(&self) -> Result<Vec<f64>> {
        linalg::inverse(&self.weight_f64()?, self.channels(), NAME)
    }

    /// `sign · P · ln |det W|` for every sample.
    fn log_det(&self, batch: usize, sign: f64) -> Result<Tensor> {
        let scale = sign * self.pixels() as f64;
        let per_sample = match &self.form {
            Form::Plu { log_s, .. } => log_s.tensor().sum_all()?,
            Form::Full { w } => on_host(&w.tensor(), LogAbsDet)?,
            Form::Householder { start, .. } => {
                return Ok(Tensor::zeros(batch, start.var().dtype(), start.var().device())?);
            }
        };
        Ok(per_sample.affine(scale, 0.0)?.reshape(1)?.broadcast_as(batch)?)
    }

    /// `M·x` at every pixel, by the kernel where nothing is tracked.
    fn mix(&self, matrix: &Tensor, x: &Tensor) -> Result<Tensor> {
        if accepts(x) && !x.track_op() && !matrix.track_op() {
            return apply(matrix, false, x, self.channels(), self.pixels());
        }
        let flat = x.reshape((x.dim(0)?, self.channels(), self.pixels()))?;
        Ok(matrix.unsqueeze(0)?.broadcast_matmul(&flat)?.reshape(x.shape())?)
    }

    fn matrix(&self, values: &[f64], like: &Tensor) -> Result<Tensor> {
        let c = self.channels();
        host::tensor_like(values, (c, c), like)
    }

    /// Sends the gradient of `W`, and `volume = P·Σ_b grad_log_det`, to the parameters.
    fn weight_gradient(&self, grad: Vec<f64>, volume: f64, like: &Tensor, gradients: &mut Gradients) -> Result<()> {
        let c = self.channels();
        match &self.form {
            Form::Full { w } => {
                let inverse = self.inverse_f64()?;
                let total = (0..c * c).map(|k| grad[k] + volume * inverse[k % c * c + k / c]).collect::<Vec<_>>();
                gradients.add(w, &self.matrix(&total, like)?)
            }
            Form::Householder { .. } => {
                let store = pair(&self.weight()?, &self.matrix(&grad, like)?)?.backward()?;
                gradients.accumulate(&store)
            }
            Form::Plu { p, sign, l, u, log_s } => {
                let numbers = |t: &Param| host::numbers(t.var());
                let s: Vec<f64> =
                    numbers(sign)?.iter().zip(numbers(log_s)?).map(|(sign, log)| sign * log.exp()).collect();
                let with_diagonal = |strict: Vec<f64>, diagonal: &dyn Fn(usize) -> f64| -> Vec<f64> {
                    (0..c * c).map(|k| if k / c == k % c { diagonal(k / c) } else { strict[k] }).collect()
                };
                let lower = with_diagonal(masked(&numbers(l)?, c, |i, j| j < i), &|_| 1.0);
                let upper = with_diagonal(masked(&numbers(u)?, c, |i, j| j > i), &|i| s[i]);
                // W = P·L·V: ∂L = Pᵀ∂W·Vᵀ, ∂V = Lᵀ·Pᵀ∂W, each on its own triangle.
                let inner = product(&numbers(p)?, true, &grad, false, c);
                let grad_l = masked(&product(&inner, false, &upper, true, c), c, |i, j| j < i);
                let grad_v = product(&lower, true, &inner, false, c);
                let grad_log: Vec<f64> = (0..c).map(|i| grad_v[i * c + i] * s[i] + volume).collect();
                gradients.add(l, &self.matrix(&grad_l, like)?)?;
                gradients.add(u, &self.matrix(&masked(&grad_v, c, |i, j| j > i), like)?)?;
                gradients.add(log_s, &host::tensor_like(&grad_log, c, like)?)
            }
        }
    }
}

/// `a` where `keep(row, column)`, zero elsewhere.
fn masked(a: &[f64], n: usize, keep: impl Fn(usize, usize) -> bool) -> Vec<f64> {
    a.iter().enumerate().map(|(k, &v)| if keep(k / n, k % n) { v } else { 0.0 }).collect()
}

/// `A·B`, each operand transposed if asked.
fn product(a: &[f64], a_t: bool, b: &[f64], b_t: bool, n: usize) -> Vec<f64> {
    let at = |m: &[f64], t: bool, i: usize, j: usize| if t { m[j * n + i] } else { m[i * n + j] };
    (0..n * n).map(|k| (0..n).map(|l| at(a, a_t, k / n, l) * at(b, b_t, l, k % n)).sum()).collect()
}

/// The kernel `M·x` or `Mᵀ·x` for the tensor's element type.
fn apply(matrix: &Tensor, transposed: bool, x: &Tensor, channels: usize, pixels: usize) -> Result<Tensor> {
    fn run<T: Real>(m: &Tensor, transposed: bool, x: &Tensor, c: usize, pixels: usize) -> Result<Tensor> {
        let y = read::<T, _>(m, |m| read::<T, _>(x, |x| Ok(mix::apply(m, c, transposed, x, pixels))))?;
        Ok(Tensor::from_vec(y, x.shape(), x.device())?)
    }
    match x.dtype() {
        DType::F32 => run::<f32>(matrix, transposed, x, channels, pixels),
        _ => run::<f64>(matrix, transposed, x, channels, pixels),
    }
}

impl Bijector for InvertibleConv {
    fn name(&self) -> String {
        NAME.into()
    }

    fn event_shape(&self) -> &[usize] {
        &self.shape
    }

    fn encode(&self, x: &Tensor, _context: Option<&Tensor>) -> Result<(Tensor, Tensor)> {
        let batch = check_batch_as(NAME, x, &self.shape, self.dtype())?;
        Ok((self.mix(&self.weight()?, x)?, self.log_det(batch, 1.0)?))
    }

    fn decode(&self, z: &Tensor, _context: Option<&Tensor>) -> Result<(Tensor, Tensor)> {
        let batch = check_batch_as(NAME, z, &self.shape, self.dtype())?;
        let weight = self.weight()?;
        let inverse =
            if weight.track_op() { on_host(&weight, Inverse)? } else { self.matrix(&self.inverse_f64()?, z)? };
        Ok((self.mix(&inverse, z)?, self.log_det(batch, -1.0)?))
    }

    fn describe(&self, x: &Tensor, context: Option<&Tensor>) -> Result<Vec<LayerReport>> {
        Ok(vec![LayerReport { condition: Some(self.condition_number()?), ..LayerReport::of(self, x, context)? }])
    }

    fn backprop(
        &self,
        z: &Tensor,
        tape: &Tape,
        context: Option<&Tensor>,
        grad_z: &Tensor,
        grad_log_det: &Tensor,
        gradients: &mut Gradients,
    ) -> Result<Pullback> {
        check_batch_as(NAME, z, &self.shape, self.dtype())?;
        if !accepts(z) {
            return crate::bijector::backprop_locally(self, z, tape, context, grad_z, grad_log_det, gradients);
        }
        let (c, pixels) = (self.channels(), self.pixels());
        let weight = self.weight()?.detach();
        let x = apply(&self.matrix(&self.inverse_f64()?, z)?, false, z, c, pixels)?;
        let grad_x = apply(&weight, true, grad_z, c, pixels)?;
        let grad = match z.dtype() {
            DType::F32 => read::<f32, _>(grad_z, |g| read::<f32, _>(&x, |x| Ok(mix::outer(g, x, c, pixels))))?,
            _ => read::<f64, _>(grad_z, |g| read::<f64, _>(&x, |x| Ok(mix::outer(g, x, c, pixels))))?,
        };
        let volume = pixels as f64 * host::sum(grad_log_det)?;
        self.weight_gradient(grad, volume, z, gradients)?;
        Ok(Pullback { x, grad_x, grad_context: None })
    }
}

/// A function of a small matrix, computed on the CPU wherever the matrix lies: Candle has no factorisations.
fn on_host(matrix: &Tensor, function: impl CustomOp1 + Send + Sync + 'static) -> Result<Tensor> {
    Ok(matrix.to_device(&Device::Cpu)?.contiguous()?.apply_op1(function)?.to_device(matrix.device())?)
}

/// A square matrix as f64 numbers, and its side.
fn square(storage: &CpuStorage, layout: &Layout) -> candle_core::Result<(Vec<f64>, usize)> {
    let (n, _) = layout.shape().dims2()?;
    let values = match storage {
        CpuStorage::F32(v) => contiguous(v, layout)?.iter().map(|&v| f64::from(v)).collect(),
        CpuStorage::F64(v) => contiguous(v, layout)?.to_vec(),
        _ => candle_core::bail!("{NAME}: the matrix must be f32 or f64"),
    };
    Ok((values, n))
}

/// Numbers in the element type of `like`.
fn storage_like(like: &CpuStorage, values: Vec<f64>) -> CpuStorage {
    match like {
        CpuStorage::F64(_) => CpuStorage::F64(values),
        _ => CpuStorage::F32(values.into_iter().map(|v| v as f32).collect()),
    }
}

/// `ln |det W|`, with gradient `W⁻ᵀ`. Candle has neither.
struct LogAbsDet;

impl CustomOp1 for LogAbsDet {
    fn name(&self) -> &'static str {
        "log-abs-det"
    }

    fn cpu_fwd(&self, storage: &CpuStorage, layout: &Layout) -> candle_core::Result<(CpuStorage, candle_core::Shape)> {
        let (w, n) = square(storage, layout)?;
        let value = linalg::log_abs_det(&w, n, NAME).map_err(candle_core::Error::wrap)?;
        Ok((storage_like(storage, vec![value]), ().into()))
    }

    fn bwd(&self, w: &Tensor, _res: &Tensor, grad: &Tensor) -> candle_core::Result<Option<Tensor>> {
        let inverse = w.detach().apply_op1(Inverse)?;
        Ok(Some(inverse.t()?.broadcast_mul(grad)?))
    }
}

/// `W⁻¹`, with gradient `-W⁻ᵀ·G·W⁻ᵀ`.
struct Inverse;

impl CustomOp1 for Inverse {
    fn name(&self) -> &'static str {
        "matrix-inverse"
    }

    fn cpu_fwd(&self, storage: &CpuStorage, layout: &Layout) -> candle_core::Result<(CpuStorage, candle_core::Shape)> {
        let (w, n) = square(storage, layout)?;
        let inverse = linalg::inverse(&w, n, NAME).map_err(candle_core::Error::wrap)?;
        Ok((storage_like(storage, inverse), (n, n).into()))
    }

    fn bwd(&self, _w: &Tensor, inverse: &Tensor, grad: &Tensor) -> candle_core::Result<Option<Tensor>> {
        let t = inverse.t()?.contiguous()?;
        Ok(Some(t.matmul(&grad.contiguous()?)?.matmul(&t)?.neg()?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bijector::backprop_locally;
    use crate::testing::numbers::distance;
    use crate::{FlowRng, ParamStore};

    #[test]
    fn proper_rotations_have_determinant_one_and_are_shared_by_other_sizes() {
        for seed in 0..6 {
            let store = ParamStore::new(seed, DType::F64, &Device::Cpu);
            let conv = InvertibleConv::proper_rotation(&store.root(), &[4, 1]).unwrap();
            assert!((linalg::determinant(&conv.weight_f64().unwrap(), 4) - 1.0).abs() < 1e-12, "{seed}");
            let wide = conv.resized(&[4, 7]).unwrap();
            let x = FlowRng::seed_from(seed).normal((2, 4, 7), DType::F64, &Device::Cpu).unwrap();
            let column = |t: &Tensor| t.narrow(2, 5, 1).unwrap().contiguous().unwrap();
            let (z, one) = (wide.encode(&x, None).unwrap().0, conv.encode(&column(&x), None).unwrap().0);
            assert!(distance(&column(&z), &one) < 1e-14);
            assert_eq!(store.all().len(), 1);
            assert!(conv.resized(&[3, 7]).unwrap_err().to_string().contains("4 channels"));
        }
    }

    #[test]
    fn hand_written_gradients_are_those_of_the_graph() {
        let forms = [Parametrization::Plu, Parametrization::Full, Parametrization::Householder { reflections: 3 }];
        for form in forms {
            let store = ParamStore::new(0, DType::F64, &Device::Cpu);
            let conv = InvertibleConv::new(&store.root(), &[4, 3, 2], form).unwrap();
            let mut rng = FlowRng::seed_from(2);
            let mut draw = |shape: &[usize]| rng.normal(shape, DType::F64, &Device::Cpu).unwrap();
            for p in store.trainable() {
                p.set(&(p.tensor() + draw(p.var().dims()).affine(0.1, 0.0).unwrap()).unwrap()).unwrap();
            }
            let (z, grad, log) = (draw(&[3, 4, 3, 2]), draw(&[3, 4, 3, 2]), draw(&[3]));
            let (mut a, mut b) = (Gradients::new(&store), Gradients::new(&store));
            let got = conv.backprop(&z, &Tape::Inverse, None, &grad, &log, &mut a).unwrap();
            let want = backprop_locally(&conv, &z, &Tape::Inverse, None, &grad, &log, &mut b).unwrap();
            assert!(distance(&got.x, &want.x) < 1e-10 && distance(&got.grad_x, &want.grad_x) < 1e-10, "{form:?}");
            for p in store.trainable() {
                assert!(distance(a.get(&p).unwrap(), b.get(&p).unwrap()) < 1e-9, "{form:?} {}", p.name());
            }
            let (back, _) = conv.decode(&conv.encode(&z, None).unwrap().0, None).unwrap();
            assert!(distance(&back, &z) < 1e-10, "{form:?}");
        }
    }
}
