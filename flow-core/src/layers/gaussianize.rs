//! A learned histogram that makes bounded data normal, channel by channel.

use candle_core::{D, Device, Tensor};

use crate::bijector::{Bijector, check_batch_as, check_domain, sum_event};
use crate::kernels::fuse_on_host;
use crate::kernels::gaussianize::{Gaussianize as Kernel, Given};
use crate::numerics::host;
use crate::param::{Init, Param, ParamPath};
use crate::{Error, Result};

/// More bins than this are a mistake.
const MAX_BINS: usize = 1 << 16;

/// `y = Φ⁻¹(F_c(x))`: `F_c` is the distribution function of a histogram of equal bins on `[low, high]`, one for every
/// channel, `Φ` the standard normal one.
///
/// With the mass `w_k` in the bin of `x`, `log |det| = Σ ln(w_k · bins / (high - low)) - ln φ(y)`. If the histogram is that of
/// the data, every entry of `y` is standard normal by itself, and what follows has only dependence to learn: dequantized
/// bytes of which most are black cost `-log₂ w_k` bits each from the start, where an affine map of them to a normal number
/// never comes near. Piecewise linear distribution functions as flows: Müller et al. 2019 (arXiv 1808.03856, section 4.2);
/// making marginals normal: Chen & Gopinath 2000.
///
/// The masses are `softmax` of learned logits, less a thousandth that is dealt out evenly, so that every value has a
/// density. [`Bijector::initialize`] sets them to the histogram of a batch, with one more count in every bin.
///
/// # Domain
/// Encoding takes `low ≤ x ≤ high`; anything else is an [`Error::Domain`] that names layer and rows. Within a probability of
/// 1e-12 of an end, `y` is ±7.03. Decoding takes every real number; beyond ±7.03 the tails of `φ` are exponential.
///
/// # Shapes
/// - event `(C, …)`, parameter `logits` `(C, bins)`.
///
/// Computed in f64 on the CPU, on other devices too: tensors go there and back.
#[derive(Debug, Clone)]
pub struct Gaussianize {
    shape: Vec<usize>,
    bins: usize,
    low: f64,
    high: f64,
    logits: Param,
}

impl Gaussianize {
    /// A histogram of `bins` equal masses on `[low, high]` for each channel of events of `shape`, under `path`.
    ///
    /// # Errors
    /// [`Error::Config`] for an event without channels, no bins or more than 65,536, or bounds that are not finite and in
    /// order.
    pub fn new(path: &ParamPath, shape: &[usize], bins: usize, low: f64, high: f64) -> Result<Self> {
        let Some(&channels) = shape.first() else {
            return Err(Error::config("gaussianize", "needs an event with at least one dimension"));
        };
        if !(1..=MAX_BINS).contains(&bins) {
            return Err(Error::config("gaussianize bins", format!("must be in [1, {MAX_BINS}], got {bins}")));
        }
        if !(low.is_finite() && high.is_finite() && low < high) {
            return Err(Error::config(
                "gaussianize bounds",
                format!("must be finite and in order, got {low} and {high}"),
            ));
        }
        let logits = path.param("logits", (channels, bins), Init::Const(0.0))?;
        Ok(Gaussianize { shape: shape.to_vec(), bins, low, high, logits })
    }

    /// The logits of the bins.
    pub fn logits(&self) -> &Param {
        &self.logits
    }

    fn map(&self, input: &Tensor, inverse: bool) -> Result<(Tensor, Tensor)> {
        check_batch_as("gaussianize", input, &self.shape, self.logits.dtype())?;
        let (shape, given) = (input.shape().clone(), Given::Channel);
        let kernel = Kernel { shape, bins: self.bins, given, low: self.low, high: self.high, inverse };
        let both = fuse_on_host(kernel, [input, &self.logits.tensor()])?;
        Ok((both.get(0)?, sum_event(&both.get(1)?)?))
    }

    /// How many entries of each channel fall into each bin, and one more: logarithms, `(C, bins)`.
    fn log_counts(&self, x: &Tensor) -> Result<Tensor> {
        let channels = self.shape[0];
        let mut counts = vec![1.0; channels * self.bins];
        let rows = x.dim(0)?;
        let x = x.reshape((rows, channels, ()))?.to_device(&Device::Cpu)?;
        for channel in 0..channels {
            let counts = &mut counts[channel * self.bins..][..self.bins];
            for value in host::numbers(&x.narrow(1, channel, 1)?)? {
                let at = (value - self.low) / (self.high - self.low) * self.bins as f64;
                counts[(at as usize).min(self.bins - 1)] += 1.0;
            }
        }
        let logs = Tensor::from_vec(counts, (channels, self.bins), &Device::Cpu)?.log()?;
        let logs = logs.broadcast_sub(&logs.mean_keepdim(D::Minus1)?)?;
        Ok(logs.to_dtype(self.logits.dtype())?)
    }
}

impl Bijector for Gaussianize {
    fn name(&self) -> String {
        "gaussianize".into()
    }

    fn event_shape(&self) -> &[usize] {
        &self.shape
    }

    fn encode(&self, x: &Tensor, _context: Option<&Tensor>) -> Result<(Tensor, Tensor)> {
        check_batch_as("gaussianize", x, &self.shape, self.logits.dtype())?;
        let inside = (x.ge(self.low)? * x.le(self.high)?)?;
        check_domain("gaussianize", &inside, || format!("outside [{}, {}]", self.low, self.high))?;
        self.map(x, false)
    }

    fn decode(&self, z: &Tensor, _context: Option<&Tensor>) -> Result<(Tensor, Tensor)> {
        self.map(z, true)
    }

    fn initialize(&self, x: &Tensor, context: Option<&Tensor>) -> Result<(Tensor, Tensor)> {
        // Nothing is set for data outside the domain.
        self.encode(x, context)?;
        if x.dim(0)? == 0 {
            return Err(Error::config("gaussianize", "cannot be initialised from a batch without rows"));
        }
        self.logits.set(&self.log_counts(x)?.to_device(x.device())?)?;
        self.encode(x, context)
    }
}

#[cfg(test)]
mod tests {
    use candle_core::DType;

    use super::*;
    use crate::ParamStore;

    /// Bytes of which most are black, dequantized: 7 of 8 values below 1/4.
    fn mostly_black() -> Tensor {
        let values: Vec<f64> =
            (0..800).map(|i| (if i % 8 == 7 { 0.75 } else { 0.0 }) + (f64::from(i) + 0.5) / 3200.0).collect();
        Tensor::from_vec(values, (2, 1, 400), &Device::Cpu).unwrap()
    }

    fn layer(bins: usize) -> Gaussianize {
        let store = ParamStore::new(1, DType::F64, &Device::Cpu);
        Gaussianize::new(&store.root(), &[1, 400], bins, 0.0, 1.0).unwrap()
    }

    #[test]
    fn initialised_it_codes_each_value_by_the_histogram_of_the_data() {
        let (layer, x) = (layer(4), mostly_black());
        let (y, log_det) = layer.initialize(&x, None).unwrap();
        // 701 of 804 counts in the first bin, 101 in the last, of which a thousandth is dealt out evenly.
        let mass = |counts: f64| 2.5e-4 + 0.999 * counts / 804.0;
        let expected = 350.0 * (4.0 * mass(701.0)).ln() + 50.0 * (4.0 * mass(101.0)).ln();
        let normal = y.sqr().unwrap().affine(-0.5, -0.5 * std::f64::consts::TAU.ln()).unwrap();
        let log_prob = (log_det + sum_event(&normal).unwrap()).unwrap().to_vec1::<f64>().unwrap();
        assert!(log_prob.iter().all(|l| (l - expected).abs() < 1e-9), "{log_prob:?} {expected}");
        let (mean, square) = (y.mean_all().unwrap(), y.sqr().unwrap().mean_all().unwrap());
        assert!(
            mean.to_scalar::<f64>().unwrap().abs() < 0.02 && (square.to_scalar::<f64>().unwrap() - 1.0).abs() < 0.05
        );
    }

    #[test]
    fn both_ends_and_a_thousand_bins_invert_to_the_last_digits() {
        let layer = layer(1000);
        layer.initialize(&mostly_black(), None).unwrap();
        let ends =
            Tensor::from_vec((0..400).map(|i| f64::from(i) / 399.0).collect::<Vec<_>>(), (1, 1, 400), &Device::Cpu)
                .unwrap();
        let (y, log_det) = layer.encode(&ends, None).unwrap();
        let (back, back_log_det) = layer.decode(&y, None).unwrap();
        let gap = (&back - &ends).unwrap().abs().unwrap().max_all().unwrap().to_scalar::<f64>().unwrap();
        assert!(gap < 1e-8, "{gap}");
        let sum = (log_det + back_log_det).unwrap().to_vec1::<f64>().unwrap()[0];
        assert!(sum.abs() < 1e-6, "{sum}");
        let far = layer.decode(&ends.affine(2e6, -1e6).unwrap(), None).unwrap();
        assert!(far.1.to_vec1::<f64>().unwrap()[0].is_finite());
    }

    #[test]
    fn refuses_values_outside_and_batches_without_rows() {
        let layer = layer(4);
        for bad in [-0.1, 1.1, f64::NAN] {
            let x = Tensor::full(bad, (1, 1, 400), &Device::Cpu).unwrap();
            let message = layer.initialize(&x, None).unwrap_err().to_string();
            assert!(message.starts_with("gaussianize row 0: 400 of 400 values are outside [0, 1]"), "{message}");
        }
        assert!(layer.initialize(&mostly_black().narrow(0, 0, 0).unwrap(), None).is_err());
        let root = ParamStore::new(1, DType::F64, &Device::Cpu).root();
        for (shape, bins, high) in [(&[][..], 4, 1.0), (&[1][..], 0, 1.0), (&[1][..], 4, 0.0), (&[1][..], 4, f64::NAN)]
        {
            assert!(Gaussianize::new(&root, shape, bins, 0.0, high).is_err());
        }
    }
}
