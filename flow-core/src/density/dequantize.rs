//! From discrete data to real numbers and back.
//!
//! A density over real numbers put on discrete data can be driven to infinity by narrow peaks on the
//! levels. Noise that fills each level's bin prevents that, and turns `log p` into a lower bound of the
//! discrete log-probability ([`bits`](super::bits)). The noise is uniform (Uria et al. 2013) or learned
//! ([`VariationalDequantizer`]).
//!
//! Levels are integers `k` in `0..n`, as a tensor of any numeric type; dequantized data is
//! `x = (k + u) / n` in `[0, 1)`, and [`quantize`] recovers `k` exactly.

use candle_core::{DType, Tensor};

use super::flow::Density;
use super::reversible::Backprop;
use crate::autodiff::pair;
use crate::bijector::{Bijector, sum_event};
use crate::distribution::{Distribution, StandardGaussian};
use crate::numerics::host;
use crate::numerics::softmax::log_sigmoid;
use crate::{Error, FlowRng, Gradients, Result};

/// Noise stays this far from the borders of a bin (a bin has width one here).
///
/// With 256 levels an f32 resolves 2⁻¹⁶ of a bin, and noise of `1 - 2⁻²⁴` would be rounded into the
/// next one. Two rounded operations, the division here and the product in [`quantize`], are within 2⁻¹⁵.
const MARGIN: f64 = 1.0 / 32768.0;

/// `x = (k + u) / n` with `u` uniform, of type `dtype`, in `[0, 1)`.
///
/// `u` is drawn from the `2¹⁴` midpoints of a regular grid of the bin, so that no rounding carries a
/// value over the border: `quantize(uniform(k)) = k` always.
///
/// # Shapes
/// - `k`: any shape, kept.
///
/// # Errors
/// [`Error::Config`] for a number of levels outside `2..=256` or an entry that is no level.
pub fn uniform(k: &Tensor, levels: u32, dtype: DType, rng: &mut FlowRng) -> Result<Tensor> {
    check_entries(k, levels)?;
    let cells = 0.5 / MARGIN;
    let wide = host::wide(k)?;
    let cell = rng.uniform(k.shape(), DType::F64, wide.device())?.affine(cells, 0.0)?.floor()?;
    let noise = cell.affine(1.0 / cells, MARGIN)?;
    let x = (wide + noise)?.affine(1.0 / f64::from(levels), 0.0)?;
    Ok(x.to_dtype(dtype)?.to_device(k.device())?)
}

/// `k = ⌊n x⌋`, limited to `0..n`: the level whose bin holds `x`, as `U32`.
///
/// Samples of a model may lie outside `[0, 1)`; they go to the nearest level.
///
/// # Errors
/// [`Error::Config`] for a number of levels outside `2..=256`, [`Error::NonFinite`] for NaN or infinity.
pub fn quantize(x: &Tensor, levels: u32) -> Result<Tensor> {
    check_levels(levels)?;
    let scaled = host::wide(&x.detach())?.affine(f64::from(levels), 0.0)?;
    let total = (&scaled * 0.0)?.sum_all()?.to_scalar::<f64>()?;
    if total != 0.0 {
        return Err(Error::NonFinite { layer: "quantize".into(), what: "value".into(), step: None });
    }
    Ok(scaled.floor()?.clamp(0.0, f64::from(levels - 1))?.to_dtype(DType::U32)?.to_device(x.device())?)
}

pub(crate) fn check_levels(levels: u32) -> Result<()> {
    if !(2..=256).contains(&levels) {
        return Err(Error::config("levels", format!("must be in 2..=256, got {levels}")));
    }
    Ok(())
}

/// Every entry of `k` must be an integer in `0..levels`.
fn check_entries(k: &Tensor, levels: u32) -> Result<()> {
    check_levels(levels)?;
    let entries = host::numbers(k)?;
    match entries.iter().find(|v| v.fract() != 0.0 || !(0.0..f64::from(levels)).contains(*v)) {
        Some(v) => Err(Error::config("dequantize", format!("found {v}, expected integers in 0..{levels}"))),
        None => Ok(()),
    }
}

/// Dequantized data with the density of its noise.
#[derive(Debug, Clone)]
pub struct Dequantized {
    /// `(k + u) / n`, shape `(B, event…)`, tracked.
    pub x: Tensor,
    /// `log q(u | k)` in nats with `u` in units of one bin, shape `(B,)`, tracked.
    pub log_q: Tensor,
}

/// Learned noise: `u = sigmoid(g(ε; k))` with `ε ~ N(0, I)` and a flow `g` (Ho et al. 2019, Flow++,
/// section 3.1).
///
/// `log q(u | k) = log N(ε) - log |det ∂g/∂ε| - Σ ln σ′`, and
/// `log P(k) ≥ E_q [log p((k + u) / n) - D ln n - log q(u | k)]`.
/// The bound is tight when `q` is the posterior of the noise under `p`; uniform dequantization is the
/// special case of a flat `q`. The sigmoid is squeezed to `[2⁻¹⁵, 1 - 2⁻¹⁵]`, accounted for in `log q`.
///
/// # Shapes
/// - `bijector`: encodes noise to `ε`, event `(event…)`, and decodes the other way, which is the direction
///   used here: it must be differentiable. Its context, if it takes one, has the data's number of
///   elements and receives `k / n - ½`.
pub struct VariationalDequantizer<B> {
    bijector: B,
    levels: u32,
}

impl<B: Bijector> VariationalDequantizer<B> {
    /// Noise from `bijector` for data of `levels` levels.
    ///
    /// # Errors
    /// [`Error::Config`] for a number of levels outside `2..=256`, or a context of another size than the data.
    pub fn new(bijector: B, levels: u32) -> Result<Self> {
        check_levels(levels)?;
        let size: usize = bijector.event_shape().iter().product();
        match bijector.context_shape() {
            Some(shape) if shape.iter().product::<usize>() != size => {
                let reason = format!("takes a context {shape:?}, the data is {:?}", bijector.event_shape());
                Err(Error::config(format!("dequantizer {}", bijector.name()), reason))
            }
            _ => Ok(VariationalDequantizer { bijector, levels }),
        }
    }

    /// The bijector.
    pub fn bijector(&self) -> &B {
        &self.bijector
    }

    /// One draw of the noise for every entry of `k`, in the floating type `dtype`.
    ///
    /// # Errors
    /// [`Error::Config`] for entries that are no levels, [`Error::Shape`] when `k` is not `(B, event…)`.
    pub fn dequantize(&self, k: &Tensor, dtype: DType, rng: &mut FlowRng) -> Result<Dequantized> {
        let batch = crate::bijector::check_shape("dequantizer", k, self.bijector.event_shape())?;
        check_entries(k, self.levels)?;
        let k = k.to_dtype(dtype)?;
        let context = match self.bijector.context_shape() {
            None => None,
            Some(shape) => {
                let dims: Vec<usize> = std::iter::once(batch).chain(shape.iter().copied()).collect();
                Some(k.affine(1.0 / f64::from(self.levels), -0.5)?.reshape(dims)?)
            }
        };
        let base = StandardGaussian::new(self.bijector.latent_shape(), dtype, k.device());
        let noise = base.sample(batch, None, 1.0, rng)?;
        let (v, log_det) = self.bijector.decode(&noise, context.as_ref())?;
        let (log_u, log_rest) = (log_sigmoid(&v)?, log_sigmoid(&v.neg()?)?);
        let shrink = 1.0 - 2.0 * MARGIN;
        let log_slope = sum_event(&(&log_u + log_rest)?.affine(1.0, shrink.ln())?)?;
        let u = log_u.exp()?.affine(shrink, MARGIN)?;
        let log_q = ((base.log_prob(&noise, None)? - log_det)? - log_slope)?;
        Ok(Dequantized { x: (k + u)?.affine(1.0 / f64::from(self.levels), 0.0)?, log_q })
    }

    /// One draw of the lower bound of `log P(k | context)` in nats, `(B,)`, tracked.
    ///
    /// Bits per dimension are `-bound / (D ln 2)`: the width of the bins is in the bound already.
    ///
    /// # Errors
    /// As for [`VariationalDequantizer::dequantize`], and whatever `density` returns.
    pub fn bound(
        &self,
        density: &dyn Density,
        k: &Tensor,
        context: Option<&Tensor>,
        rng: &mut FlowRng,
    ) -> Result<Tensor> {
        let Dequantized { x, log_q } = self.dequantize(k, density.store().dtype(), rng)?;
        self.assemble(&density.log_prob(&x, context)?, &log_q)
    }

    /// Gradients of `Σ_b weight_b · bound_b` for both flows, added to `gradients`; returns the bound, detached.
    ///
    /// Parameters of the dequantizer have to live in the density's store.
    ///
    /// # Errors
    /// As for [`VariationalDequantizer::bound`].
    #[allow(clippy::too_many_arguments, reason = "Density::log_prob_backward's arguments and the generator")]
    pub fn bound_backward(
        &self,
        density: &dyn Density,
        k: &Tensor,
        context: Option<&Tensor>,
        weight: &Tensor,
        mode: Backprop,
        rng: &mut FlowRng,
        gradients: &mut Gradients,
    ) -> Result<Tensor> {
        let Dequantized { x, log_q } = self.dequantize(k, density.store().dtype(), rng)?;
        let scored = density.log_prob_backward(&x.detach(), context, weight, mode, gradients)?;
        let noise = (pair(&x, &scored.grad_x)? - pair(&log_q, weight)?)?;
        gradients.check_variables(&noise, &[])?;
        gradients.accumulate(&noise.backward()?)?;
        self.assemble(&scored.log_prob, &log_q.detach())
    }

    fn assemble(&self, log_prob: &Tensor, log_q: &Tensor) -> Result<Tensor> {
        let dims: usize = self.bijector.event_shape().iter().product();
        Ok((log_prob - log_q)?.affine(1.0, -(dims as f64) * f64::from(self.levels).ln())?)
    }
}

#[cfg(test)]
mod tests {
    use candle_core::Device;

    use super::*;
    use crate::distribution::StandardLogistic;
    use crate::layers::{ActNorm, Coupling, Partition};
    use crate::testing::{SmoothNet, randomise};
    use crate::transformer::{Affine, ScaleBound};
    use crate::{Flow, ParamPath, ParamStore};

    #[test]
    fn quantizing_undoes_dequantizing() {
        for levels in [2, 3, 17, 32, 100, 255, 256] {
            let k = Tensor::arange(0, levels, &Device::Cpu).unwrap().repeat(300).unwrap();
            for dtype in [DType::F32, DType::F64] {
                let x = uniform(&k, levels, dtype, &mut FlowRng::seed_from(1)).unwrap();
                let back = quantize(&x, levels).unwrap();
                assert_eq!(back.to_vec1::<u32>().unwrap(), k.to_vec1::<u32>().unwrap(), "{levels} {dtype:?}");
            }
        }
    }

    #[test]
    fn the_noise_closest_to_the_border_stays_inside() {
        for levels in 2..=256_u32 {
            for k in 0..levels {
                for u in [MARGIN, 1.0 - MARGIN] {
                    let x = ((f64::from(k) + u) / f64::from(levels)) as f32;
                    let x = Tensor::new(&[x], &Device::Cpu).unwrap();
                    assert_eq!(quantize(&x, levels).unwrap().to_vec1::<u32>().unwrap(), [k], "{levels} {u}");
                }
            }
        }
    }

    #[test]
    fn uniform_noise_fills_the_bin() {
        let k = Tensor::full(3_u32, 20_000, &Device::Cpu).unwrap();
        let x = uniform(&k, 8, DType::F64, &mut FlowRng::seed_from(2)).unwrap();
        let u: Vec<f64> = x.to_vec1::<f64>().unwrap().iter().map(|x| x * 8.0 - 3.0).collect();
        let mean = u.iter().sum::<f64>() / 20_000.0;
        let second = u.iter().map(|u| u * u).sum::<f64>() / 20_000.0;
        // Five standard errors of the moments ½ and ⅓.
        assert!((mean - 0.5).abs() < 5.0 * (1.0_f64 / 12.0 / 20_000.0).sqrt());
        assert!((second - 1.0 / 3.0).abs() < 5.0 * (4.0_f64 / 45.0 / 20_000.0).sqrt());
    }

    #[test]
    fn what_is_no_level_is_refused() {
        let mut rng = FlowRng::seed_from(0);
        for bad in [[0.0, 8.0], [-1.0, 0.0], [0.5, 0.0], [f64::NAN, 0.0]] {
            let k = Tensor::new(&bad, &Device::Cpu).unwrap();
            assert!(uniform(&k, 8, DType::F32, &mut rng).is_err(), "{bad:?}");
        }
        assert!(quantize(&Tensor::new(&[f32::NAN, 0.0], &Device::Cpu).unwrap(), 8).is_err());
        let outside = Tensor::new(&[-0.3_f32, 1.0, 7.0], &Device::Cpu).unwrap();
        assert_eq!(quantize(&outside, 8).unwrap().to_vec1::<u32>().unwrap(), [0, 7, 7]);
    }

    fn net_coupling(path: &ParamPath) -> Coupling<Affine, SmoothNet> {
        let net = SmoothNet::new(&path.pp("net"), &[1], &[2], 2).unwrap();
        let transformer = Affine::new(ScaleBound::SoftClamp(0.4));
        let partition = Partition::Channels { swap: false };
        Coupling::new(&[2], partition, transformer, net).unwrap().with_context(&[2])
    }

    fn model(seed: u64) -> (ParamStore, Flow<ActNorm, StandardLogistic>) {
        let store = ParamStore::new(seed, DType::F64, &Device::Cpu);
        let norm = ActNorm::new(&store.root().pp("norm"), &[2]).unwrap();
        let flow = Flow::new(&store, norm, StandardLogistic::new(&[2], DType::F64, &Device::Cpu)).unwrap();
        (store, flow)
    }

    fn moved(store: &ParamStore) {
        randomise(store, 0.4, &mut FlowRng::seed_from(9)).unwrap();
    }

    /// `E_q[f(u) / q(u)] = ∫ f` for an `f` that vanishes at the borders, where `q` has thin tails.
    #[test]
    fn the_noise_has_the_density_it_claims() {
        const N: usize = 40_000;
        let store = ParamStore::new(1, DType::F64, &Device::Cpu);
        let dequantizer = VariationalDequantizer::new(net_coupling(&store.root()), 4).unwrap();
        moved(&store);
        let k = Tensor::new(&[[1.0_f64, 3.0]], &Device::Cpu).unwrap().repeat((N, 1)).unwrap();
        let Dequantized { x, log_q } = dequantizer.dequantize(&k, DType::F64, &mut FlowRng::seed_from(4)).unwrap();
        let u = (x.affine(4.0, 0.0).unwrap() - k).unwrap().to_vec2::<f64>().unwrap();
        let log_q = log_q.to_vec1::<f64>().unwrap();
        let f = |row: &[f64]| row.iter().map(|u| 30.0 * (u * (1.0 - u)).powi(2)).product::<f64>();
        let weights: Vec<f64> = u.iter().zip(log_q).map(|(row, log_q)| f(row) / log_q.exp()).collect();
        let mean = weights.iter().sum::<f64>() / N as f64;
        let variance = weights.iter().map(|w| (w - mean).powi(2)).sum::<f64>() / N as f64;
        let error = 5.0 * (variance / N as f64).sqrt();
        assert!((mean - 1.0).abs() < error, "{mean}, expected 1 ± {error}");
        assert!(error < 0.05, "too noisy to say anything: ± {error}");
    }

    #[test]
    fn the_bound_stays_below_the_probability() {
        let (store, flow) = model(1);
        let dequantizer = VariationalDequantizer::new(net_coupling(&store.root()), 4).unwrap();
        moved(&store);
        let value = |name: &str| store.get(name).unwrap().var().to_vec1::<f64>().unwrap();
        let (bias, log_scale) = (value("norm.bias"), value("norm.log_scale"));
        // P(k) by the logistic's CDF at the borders of the bins.
        let cdf = |i: usize, x: f64| 1.0 / (1.0 + (-(x + bias[i]) * (3.0 * log_scale[i]).exp()).exp());
        let bin = |i: usize, k: f64| cdf(i, (k + 1.0) / 4.0) - cdf(i, k / 4.0);
        let exact = (bin(0, 1.0) * bin(1, 3.0)).ln();
        let k = Tensor::new(&[[1.0_f64, 3.0]], &Device::Cpu).unwrap().repeat((4000, 1)).unwrap();
        let bound = dequantizer.bound(&flow, &k, None, &mut FlowRng::seed_from(4)).unwrap();
        let mean = bound.mean_all().unwrap().to_scalar::<f64>().unwrap();
        // The gap is KL(q ‖ posterior): positive, and small for noise that covers the bin.
        assert!(mean < exact && mean > exact - 1.5, "{mean}, exact {exact}");
    }

    #[test]
    fn gradients_of_the_bound_are_derivatives() {
        let (store, flow) = model(2);
        let dequantizer = VariationalDequantizer::new(net_coupling(&store.root()), 17).unwrap();
        moved(&store);
        let k = Tensor::new(&[[0.0_f64, 16.0], [5.0, 2.0], [9.0, 9.0]], &Device::Cpu).unwrap();
        let weight = Tensor::new(&[0.3_f64, -1.0, 0.8], &Device::Cpu).unwrap();
        let objective = || {
            let bound = dequantizer.bound(&flow, &k, None, &mut FlowRng::seed_from(6)).unwrap();
            (bound * &weight).unwrap().sum_all().unwrap().to_scalar::<f64>().unwrap()
        };
        for mode in [Backprop::Plain, Backprop::Reversible] {
            let mut gradients = Gradients::new(&store);
            let mut rng = FlowRng::seed_from(6);
            dequantizer.bound_backward(&flow, &k, None, &weight, mode, &mut rng, &mut gradients).unwrap();
            for (param, gradient) in gradients.iter() {
                let gradient = gradient.unwrap().flatten_all().unwrap().to_vec1::<f64>().unwrap();
                let start = param.var().flatten_all().unwrap().to_vec1::<f64>().unwrap();
                let shape = param.var().shape().clone();
                let shifted = |step: f64| {
                    let mut entries = start.clone();
                    entries[0] += step;
                    param.set(&Tensor::from_vec(entries, &shape, &Device::Cpu).unwrap()).unwrap();
                    objective()
                };
                let numerical = (shifted(1e-5) - shifted(-1e-5)) / 2e-5;
                shifted(0.0);
                assert!((gradient[0] - numerical).abs() < 1e-6 * (1.0 + numerical.abs()), "{}", param.name());
            }
        }
    }
}
