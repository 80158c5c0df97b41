//! A learned histogram that makes bounded data normal, given a guess of every value.

use candle_core::{D, Device, Tensor};

use crate::bijector::{Bijector, check_batch_as, check_context, check_domain, sum_event};
use crate::kernels::fuse_on_host;
use crate::kernels::gaussianize::{Gaussianize as Kernel, Given, NO_GUESS};
use crate::numerics::host;
use crate::param::{Init, Param, ParamPath};
use crate::{Error, Result};

/// Counts that every bin has before the first value is seen.
const PRIOR_COUNT: f64 = 0.1;
/// More bins or classes than this are a mistake.
const MOST: usize = 1 << 16;

/// `y = Φ⁻¹(F(x | g, c))`, where `F` mixes the histogram of a class `c` with the bin of a guess `g`:
///
/// `F(x | g, c) = (1 - ρ_c) H_c(x) + ρ_c · clamp((x - start of the bin of g) / width, 0, 1)`.
///
/// `H_c` is the distribution function of a histogram of equal bins on `[low, high]`, as in
/// [`Gaussianize`](super::Gaussianize), and `ρ_c` how sure a guess of the class is. A value in the bin of its guess costs about
/// `-ln ρ_c` nats, and one that is not costs `-ln(1 - ρ_c)` more than without a guess. A network could not be as sure: its normal
/// density would have to be as narrow as the bin. Given the guess and the class the map is monotone, so that `y = 0` is the median:
/// the guess itself where `ρ_c > ½`.
///
/// The masses are `softmax` of learned logits, less a thousandth that is dealt out evenly, and `ρ_c` is `0.9999 σ` of one more.
/// [`Bijector::initialize`] sets both to what a batch counts.
///
/// # Context
/// Before each `x` a guess and a class, `(2 C, …)`: first the guesses in the units of `x`, of which those outside `[low, high]`
/// are none; then the numbers of the classes, of which the whole part counts, the last class from its number on and the first
/// below one. What is not a number is no guess, and the first class. Nothing is differentiated by them.
///
/// # Domain
/// As [`Gaussianize`](super::Gaussianize).
///
/// # Shapes
/// - event `(C, …)`, context `(2 C, …)`, parameter `logits` `(classes, bins + 1)`.
///
/// Computed in f64 on the CPU, on other devices too: tensors go there and back.
#[derive(Debug, Clone)]
pub struct GaussianizeGuessed {
    shape: Vec<usize>,
    context: Vec<usize>,
    classes: usize,
    bins: usize,
    low: f64,
    high: f64,
    logits: Param,
}

impl GaussianizeGuessed {
    /// Histograms of `bins` equal masses on `[low, high]` for each of `classes` classes, of events of `shape`, under `path`;
    /// guesses have half of the mass.
    ///
    /// # Errors
    /// [`Error::Config`] for an event without channels, no bins or classes or more than 65,536, or bounds that are not
    /// finite and in order.
    pub fn new(path: &ParamPath, shape: &[usize], classes: usize, bins: usize, [low, high]: [f64; 2]) -> Result<Self> {
        let mut context = shape.to_vec();
        match context.first_mut() {
            Some(channels) => *channels *= 2,
            None => return Err(Error::config("guessed gaussianize", "needs an event with at least one dimension")),
        }
        for (what, count) in [("bins", bins), ("classes", classes)] {
            if !(1..=MOST).contains(&count) {
                let reason = format!("{what} must be in [1, {MOST}], got {count}");
                return Err(Error::config("guessed gaussianize", reason));
            }
        }
        if !(low.is_finite() && high.is_finite() && low < high) {
            let reason = format!("bounds must be finite and in order, got {low} and {high}");
            return Err(Error::config("guessed gaussianize", reason));
        }
        let logits = path.param("logits", (classes, bins + 1), Init::Const(0.0))?;
        Ok(GaussianizeGuessed { shape: shape.to_vec(), context, classes, bins, low, high, logits })
    }

    /// The logits of the bins of each class, and of the share of its guesses.
    pub fn logits(&self) -> &Param {
        &self.logits
    }

    /// The bin of a value inside the bounds.
    fn bin(&self, value: f64) -> usize {
        let at = (value - self.low) / (self.high - self.low) * self.bins as f64;
        (at as usize).min(self.bins - 1)
    }

    /// Class and guess of every entry.
    fn given(&self, x: &Tensor, context: Option<&Tensor>) -> Result<(Vec<u16>, Vec<u32>)> {
        let context = check_context("guessed gaussianize", context, x.dim(0)?, &self.context, self.logits.dtype())?;
        let channels = self.shape[0];
        let part = |from: usize| -> Result<Vec<f64>> {
            host::numbers(&context.narrow(1, from, channels)?.contiguous()?.to_device(&Device::Cpu)?)
        };
        let inside = |value: f64| (self.low..=self.high).contains(&value);
        let guesses = part(0)?.into_iter().map(|g| if inside(g) { self.bin(g) as u32 } else { NO_GUESS });
        let classes = part(channels)?.into_iter().map(|c| (c as usize).min(self.classes - 1) as u16);
        Ok((classes.collect(), guesses.collect()))
    }

    fn map(&self, input: &Tensor, context: Option<&Tensor>, inverse: bool) -> Result<(Tensor, Tensor)> {
        check_batch_as("guessed gaussianize", input, &self.shape, self.logits.dtype())?;
        let (classes, guesses) = self.given(input, context)?;
        let (shape, given) = (input.shape().clone(), Given::Guess { classes, guesses });
        let kernel = Kernel { shape, bins: self.bins, given, low: self.low, high: self.high, inverse };
        let both = fuse_on_host(kernel, [input, &self.logits.tensor()])?;
        Ok((both.get(0)?, sum_event(&both.get(1)?)?))
    }

    /// Logits that give each class the histogram of its values that no guess hit, and the share of those that one did.
    fn counted(&self, x: &Tensor, context: Option<&Tensor>) -> Result<Tensor> {
        let (classes, guesses) = self.given(x, context)?;
        let mut counts = vec![PRIOR_COUNT; self.classes * self.bins];
        let mut hits = vec![[0.5_f64, 0.5]; self.classes];
        let values = host::numbers(&x.to_device(&Device::Cpu)?)?;
        for ((value, class), guess) in values.into_iter().zip(classes).zip(guesses) {
            let (bin, class) = (self.bin(value), usize::from(class));
            let hit = bin as u32 == guess;
            if guess != NO_GUESS {
                hits[class][usize::from(hit)] += 1.0;
            }
            if !hit {
                counts[class * self.bins + bin] += 1.0;
            }
        }
        let logs = Tensor::from_vec(counts, (self.classes, self.bins), &Device::Cpu)?.log()?;
        let logs = logs.broadcast_sub(&logs.mean_keepdim(D::Minus1)?)?;
        let sure: Vec<f64> = hits.iter().map(|[missed, hit]| (hit / missed).ln()).collect();
        let sure = Tensor::from_vec(sure, (self.classes, 1), &Device::Cpu)?;
        Ok(Tensor::cat(&[logs, sure], 1)?.to_dtype(self.logits.dtype())?)
    }
}

impl Bijector for GaussianizeGuessed {
    fn name(&self) -> String {
        "guessed gaussianize".into()
    }

    fn event_shape(&self) -> &[usize] {
        &self.shape
    }

    fn context_shape(&self) -> Option<&[usize]> {
        Some(&self.context)
    }

    fn encode(&self, x: &Tensor, context: Option<&Tensor>) -> Result<(Tensor, Tensor)> {
        check_batch_as("guessed gaussianize", x, &self.shape, self.logits.dtype())?;
        let inside = (x.ge(self.low)? * x.le(self.high)?)?;
        check_domain("guessed gaussianize", &inside, || format!("outside [{}, {}]", self.low, self.high))?;
        self.map(x, context, false)
    }

    fn decode(&self, z: &Tensor, context: Option<&Tensor>) -> Result<(Tensor, Tensor)> {
        self.map(z, context, true)
    }

    fn initialize(&self, x: &Tensor, context: Option<&Tensor>) -> Result<(Tensor, Tensor)> {
        // Nothing is set for data outside the domain.
        self.encode(x, context)?;
        if x.dim(0)? == 0 {
            return Err(Error::config("guessed gaussianize", "cannot be initialised from a batch without rows"));
        }
        self.logits.set(&self.counted(x, context)?.to_device(x.device())?)?;
        self.encode(x, context)
    }
}

#[cfg(test)]
mod tests {
    use candle_core::DType;

    use super::*;
    use crate::ParamStore;

    const COUNT: usize = 600;

    fn layer() -> GaussianizeGuessed {
        let store = ParamStore::new(1, DType::F64, &Device::Cpu);
        GaussianizeGuessed::new(&store.root(), &[1, COUNT], 2, 8, [0.0, 1.0]).unwrap()
    }

    fn row(values: Vec<f64>, channels: usize) -> Tensor {
        Tensor::from_vec(values, (1, channels, COUNT), &Device::Cpu).unwrap()
    }

    /// Values of which those of the first class are guessed nine times of ten, those of the second never; and the context.
    fn guessed() -> (Tensor, Tensor) {
        let value = |i: usize| ((i * 7 % 8) as f64 + 0.25 + 0.5 * (i % 5) as f64 / 5.0) / 8.0;
        let guess = |i: usize| match (i % 2, i % 20) {
            (1, _) => -1.0,
            (_, 0) => value(i + 1),
            _ => value(i),
        };
        let both = (0..COUNT).map(guess).chain((0..COUNT).map(|i| (i % 2) as f64)).collect();
        (row((0..COUNT).map(value).collect(), 1), row(both, 2))
    }

    #[test]
    fn initialised_it_codes_guessed_values_by_how_sure_the_guesses_are() {
        let (layer, (x, context)) = (layer(), guessed());
        let (y, log_det) = layer.initialize(&x, Some(&context)).unwrap();
        let normal = y.sqr().unwrap().affine(-0.5, -0.5 * std::f64::consts::TAU.ln()).unwrap();
        let log_prob = (log_det + sum_event(&normal).unwrap()).unwrap().to_vec1::<f64>().unwrap()[0];
        // Class 0: 60 and 75 hits in the bins 0, 4 and 2, 6, and 15 misses in each of the first two; class 1: 75 values in each of
        // four bins, without guesses.
        let sure: f64 = 0.9999 * 270.5 / 301.0;
        let mass = |count: f64, all: f64| 1e-3 / 8.0 + 0.999 * (count + 0.1) / (all + 0.8);
        let [often, never] = [15.0, 0.0].map(|count| (1.0 - sure) * mass(count, 30.0));
        let hits = 120.0 * (8.0 * (often + sure)).ln() + 150.0 * (8.0 * (never + sure)).ln();
        let expected = hits + 30.0 * (8.0 * often).ln() + 300.0 * (8.0 * mass(75.0, 300.0)).ln();
        assert!((log_prob - expected).abs() < 1e-6, "{log_prob} {expected}");
        // A guess is the median of what it is sure of.
        let (back, _) = layer.decode(&y.zeros_like().unwrap(), Some(&context)).unwrap();
        let (back, guess) = (host::numbers(&back).unwrap(), host::numbers(&context).unwrap());
        assert!((0..COUNT).step_by(2).all(|i| (back[i] * 8.0).floor() == (guess[i] * 8.0).floor()));
    }

    #[test]
    fn every_probability_comes_back_whatever_the_guess() {
        let (layer, (x, context)) = (layer(), guessed());
        layer.initialize(&x, Some(&context)).unwrap();
        for shift in 0..COUNT / 40 {
            // Guesses that have nothing to do with the values: below, inside and above them.
            let mut values = host::numbers(&context).unwrap();
            values[..COUNT].rotate_left(shift);
            let context = row(values, 2);
            let y = row((0..COUNT).map(|i| (i as f64 - 300.0) / 45.0).collect(), 1);
            let (back, log_det) = layer.decode(&y, Some(&context)).unwrap();
            let (again, forward) = layer.encode(&back, Some(&context)).unwrap();
            let gap = (&again - &y).unwrap().abs().unwrap().max_all().unwrap().to_scalar::<f64>().unwrap();
            assert!(gap < 1e-5, "{gap}");
            let sum = (log_det + forward).unwrap().to_vec1::<f64>().unwrap()[0];
            assert!(sum.abs() < 1e-3, "{sum}");
        }
    }

    #[test]
    fn guesses_that_are_nearly_sure_leave_single_precision_enough() {
        let store = ParamStore::new(1, DType::F32, &Device::Cpu);
        let layer = GaussianizeGuessed::new(&store.root(), &[1, COUNT], 2, 256, [0.0, 1.0]).unwrap();
        let (x, context) = guessed();
        let single = |t: &Tensor| t.to_dtype(DType::F32).unwrap();
        let (x, context) = (single(&x), single(&context));
        layer.initialize(&x, Some(&context)).unwrap();
        let logits = layer
            .logits()
            .tensor()
            .slice_assign(&[0..2, 256..257], &Tensor::full(20_f32, (2, 1), &Device::Cpu).unwrap());
        layer.logits().set(&logits.unwrap()).unwrap();
        let (y, log_det) = layer.encode(&x, Some(&context)).unwrap();
        let (back, _) = layer.decode(&y, Some(&context)).unwrap();
        // Half a bin.
        let gap = (back - &x).unwrap().abs().unwrap().max_all().unwrap().to_scalar::<f32>().unwrap();
        assert!(gap < 0.5 / 256.0 && host::sum(&log_det).unwrap().is_finite(), "{gap}");
    }

    #[test]
    fn refuses_what_does_not_fit() {
        let (layer, (x, context)) = (layer(), guessed());
        assert!(layer.encode(&x, None).unwrap_err().to_string().contains("needs a context"));
        assert!(layer.encode(&x, Some(&x)).is_err());
        assert!(layer.encode(&x.affine(2.0, 0.0).unwrap(), Some(&context)).is_err());
        let none = (x.narrow(0, 0, 0).unwrap(), context.narrow(0, 0, 0).unwrap());
        assert_eq!(layer.encode(&none.0, Some(&none.1)).unwrap().0.dims(), &[0, 1, COUNT]);
        assert!(layer.initialize(&none.0, Some(&none.1)).is_err());
        let root = ParamStore::new(1, DType::F64, &Device::Cpu).root();
        let bad: [(&[usize], usize, usize, f64); 4] =
            [(&[], 1, 4, 1.0), (&[1], 0, 4, 1.0), (&[1], 1, 0, 1.0), (&[1], 1, 4, 0.0)];
        for (shape, classes, bins, high) in bad {
            assert!(GaussianizeGuessed::new(&root, shape, classes, bins, [0.0, high]).is_err());
        }
    }
}
