//! The same numbers on the CPU with kernels and elsewhere: in composed operations, and on another device.
//!
//! Hand-written kernels run on the CPU alone; everywhere else a model is computed by Candle's own operations. What has no
//! GPU at hand can still be held against that promise: [`without_kernels`] makes every kernel refuse as it would for a
//! tensor of another device, so that a test runs the operations that a GPU would run. A test that describes what it
//! computes as a function of a device is run in both ways by [`Elsewhere::compare`]:
//!
//! ```
//! use flow_core::layers::ActNorm;
//! use flow_core::testing::{Elsewhere, Found, on_second_device};
//! use flow_core::{Bijector, FlowRng, ParamStore};
//! use flow_core::candle_core::{DType, Device};
//!
//! let actnorm = |device: &Device| -> flow_core::Result<Found> {
//!     let store = ParamStore::new(1, DType::F32, device);
//!     let layer = ActNorm::new(&store.root(), &[3])?;
//!     let x = FlowRng::seed_from(2).normal((5, 3), DType::F32, device)?;
//!     let (z, log_det) = layer.initialize(&x, None)?;
//!     Found::default().tensor("z", &z)?.tensor("log-determinant", &log_det)?.params(&store)
//! };
//! let compare = |elsewhere: &Elsewhere| elsewhere.hold("actnorm", 1e-4, actnorm);
//! compare(&Elsewhere::Composed);
//! on_second_device("actnorm", compare);
//! ```

use std::fmt::Display;
use std::io::Write;
use std::sync::OnceLock;

use candle_core::{DType, Device, Tensor};

use super::{Failure, Fault, close_values, values};
use crate::train::{Metrics, Progress, StepReport, Task, TrainConfig, Trainer};
use crate::{Backprop, Density, FlowRng, Gradients, ParamStore, Result};

/// Names the device of [`second_device`]: `cuda`, `cuda:1` or `metal`.
pub const DEVICE_VARIABLE: &str = "FLOW_DEVICE";

/// Runs `f` as if all tensors of this thread lay on another device, as far as kernels are concerned:
/// [`accepts`](crate::kernels::accepts) and [`runs_on`](crate::kernels::runs_on) say no, and a kernel that is reached
/// nevertheless is an error that names it.
pub fn without_kernels<R>(f: impl FnOnce() -> R) -> R {
    crate::kernels::without(f)
}

/// Where a computation is done a second time.
#[derive(Debug, Clone)]
pub enum Elsewhere {
    /// On the CPU, in Candle's operations alone.
    Composed,
    /// On another device.
    Device(Device),
}

impl Elsewhere {
    /// The float types there: Metal has no f64.
    pub fn dtypes(&self) -> &'static [DType] {
        match self {
            Elsewhere::Device(Device::Metal(_)) => &[DType::F32],
            _ => &[DType::F32, DType::F64],
        }
    }

    /// Runs `f` there.
    pub fn run<R>(&self, f: impl FnOnce(&Device) -> R) -> R {
        match self {
            Elsewhere::Composed => without_kernels(|| f(&Device::Cpu)),
            Elsewhere::Device(device) => f(device),
        }
    }

    /// Computes `f` on the CPU with kernels and here, and returns the worst deviation relative to `1 + |expected|`.
    ///
    /// `f` builds whatever it needs on the device that it is given, from the same seeds every time.
    ///
    /// # Errors
    /// The first [`Failure`]: an error of `f`, other names or shapes than on the CPU, a number farther off than
    /// `tolerance` or not finite.
    pub fn compare<E: Display>(
        &self,
        what: &str,
        tolerance: f64,
        f: impl Fn(&Device) -> std::result::Result<Found, E>,
    ) -> std::result::Result<f64, Failure> {
        let failure = |got: String, expected: String| {
            let property = format!("the same {self}");
            Failure { bijector: what.into(), property, got, expected }
        };
        let erred = |place: &str, error: E| failure(format!("the error '{error}' {place}"), "no error".into());
        let expected = f(&Device::Cpu).map_err(|error| erred("on the CPU with kernels", error))?;
        let got = self.run(&f).map_err(|error| erred(&self.to_string(), error))?;
        if got.shape() != expected.shape() {
            return Err(failure(format!("{:?}", got.shape()), format!("{:?}", expected.shape())));
        }
        let mut worst = 0.0;
        for ((name, got), (_, expected)) in got.0.iter().zip(&expected.0) {
            let deviation = close_values(name, got, expected, tolerance).map_err(|fault| {
                let (got, expected) = Fault::into_parts(fault);
                failure(got, expected)
            })?;
            worst = f64::max(worst, deviation);
        }
        Ok(worst)
    }

    /// [`Elsewhere::compare`] in a test.
    ///
    /// # Panics
    /// With the failure, if there is one.
    #[track_caller]
    #[allow(clippy::panic, reason = "only tests call it, which fail by it")]
    pub fn hold<E: Display>(&self, what: &str, tolerance: f64, f: impl Fn(&Device) -> std::result::Result<Found, E>) {
        if let Err(failure) = self.compare(what, tolerance, f) {
            panic!("{failure}");
        }
    }
}

/// What is compared, with its name.
pub type Comparison = (&'static str, fn(&Elsewhere));

/// Compares everything in composed operations.
pub fn in_composed_operations(all: &[Comparison]) {
    all.iter().for_each(|(_, compare)| compare(&Elsewhere::Composed));
}

/// Compares everything on [`second_device`], or says that there is none ([`on_second_device`]); `of` names the models.
pub fn all_on_second_device(of: &str, all: &[Comparison]) {
    all.iter().for_each(|(what, compare)| on_second_device(&format!("{of}, {what}"), compare));
}

impl Display for Elsewhere {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Elsewhere::Composed => f.write_str("in composed operations"),
            Elsewhere::Device(device) => write!(f, "on {:?}", device.location()),
        }
    }
}

/// Named numbers that a computation found, in f64, in the order in which they were found.
#[derive(Debug, Clone, Default)]
pub struct Found(Vec<(String, Vec<f64>)>);

impl Found {
    /// Takes in all entries of a tensor.
    ///
    /// # Errors
    /// A failure of the device.
    pub fn tensor(self, name: &str, t: &Tensor) -> Result<Self> {
        Ok(self.numbers(name, values(&t.detach())?))
    }

    /// Takes in numbers.
    #[must_use]
    pub fn numbers(mut self, name: &str, values: impl IntoIterator<Item = f64>) -> Self {
        self.0.push((name.into(), values.into_iter().collect()));
        self
    }

    /// Takes in the gradient of every parameter; one that has none counts as zeros.
    ///
    /// # Errors
    /// A failure of the device.
    pub fn gradients(mut self, gradients: &Gradients) -> Result<Self> {
        for (param, gradient) in gradients.iter() {
            let found = gradient.map(values).transpose()?;
            let found = found.unwrap_or_else(|| vec![0.0; param.var().elem_count()]);
            self = self.numbers(&format!("gradient of '{}'", param.name()), found);
        }
        Ok(self)
    }

    /// Takes in every parameter and buffer.
    ///
    /// # Errors
    /// A failure of the device.
    pub fn params(mut self, store: &ParamStore) -> Result<Self> {
        for (name, value) in store.snapshot()? {
            self = self.tensor(&format!("parameter '{name}'"), &value)?;
        }
        Ok(self)
    }

    /// Takes in what others found.
    #[must_use]
    pub fn and(mut self, prefix: &str, other: Found) -> Self {
        self.0.extend(other.0.into_iter().map(|(name, values)| (format!("{prefix}: {name}"), values)));
        self
    }

    /// Takes in what a density says of a batch: scores, gradients by both ways of back-propagation, and as many samples.
    ///
    /// # Errors
    /// What the density returns.
    pub fn density(mut self, density: &dyn Density, x: &Tensor, context: Option<&Tensor>) -> Result<Self> {
        let rows = x.dim(0)?;
        {
            let _paused = density.store().no_grad();
            self = self.tensor("log_prob", &density.log_prob(x, context)?)?;
        }
        let weight = FlowRng::seed_from(23).uniform(rows, density.store().dtype(), x.device())?;
        for mode in [Backprop::Plain, Backprop::Reversible] {
            let mut gradients = Gradients::new(density.store());
            let scored = density.log_prob_backward(x, context, &weight, mode, &mut gradients)?;
            let found = Found::default().tensor("log_prob", &scored.log_prob)?.tensor("of x", &scored.grad_x)?;
            self = self.and(&format!("{mode:?} gradients"), found.gradients(&gradients)?);
        }
        let drawn = density.sample(rows, context, 0.7, &mut FlowRng::seed_from(29))?;
        self.tensor("samples", &drawn)
    }

    /// Takes in the loss of every step of a training without a folder, and what its validations measured.
    ///
    /// # Errors
    /// What the training returns.
    pub fn training<T: Task>(self, config: TrainConfig, task: T) -> Result<Self> {
        let (mut trainer, mut watched) = (Trainer::in_memory(config, task)?, Watched::default());
        trainer.run(&mut watched)?;
        Ok(self.numbers("losses", watched.losses).numbers("validations", watched.validations))
    }

    /// The names, and how many numbers each has.
    fn shape(&self) -> Vec<(&str, usize)> {
        self.0.iter().map(|(name, values)| (name.as_str(), values.len())).collect()
    }
}

/// What is seen of a training.
#[derive(Default)]
struct Watched {
    losses: Vec<f64>,
    validations: Vec<f64>,
}

impl Progress for Watched {
    fn step(&mut self, report: &StepReport<'_>) {
        self.losses.push(report.metrics.objective.value);
    }

    fn validation(&mut self, _step: u64, metrics: &Metrics, _best: f64) {
        self.validations.push(metrics.objective.value);
    }
}

/// A GPU to hold the CPU against: the one that the environment variable `FLOW_DEVICE` names (`cuda`, `cuda:1`, `metal`);
/// without it the first CUDA device, or else Metal. `None` if there is neither.
///
/// Always the same one: Candle takes two handles of a GPU that were opened one by one for two devices.
///
/// # Errors
/// A message if the device that the variable names cannot be opened.
pub fn second_device() -> std::result::Result<Option<Device>, String> {
    static OPENED: OnceLock<std::result::Result<Option<Device>, String>> = OnceLock::new();
    OPENED.get_or_init(|| open(std::env::var(DEVICE_VARIABLE).ok().as_deref())).clone()
}

fn open(named: Option<&str>) -> std::result::Result<Option<Device>, String> {
    let Some(name) = named.filter(|name| !name.is_empty()) else {
        return Ok(Device::new_cuda(0).or_else(|_| Device::new_metal(0)).ok());
    };
    let (kind, number) = name.split_once(':').unwrap_or((name, "0"));
    let opened = match (kind, number.parse()) {
        ("cuda", Ok(number)) => Device::new_cuda(number),
        ("metal", Ok(number)) => Device::new_metal(number),
        _ => return Err(format!("{DEVICE_VARIABLE}={name}: must be cuda, cuda:N, metal or metal:N")),
    };
    opened.map(Some).map_err(|error| format!("{DEVICE_VARIABLE}={name}: {error}"))
}

/// Runs `test` against [`second_device`]; where there is none, a line on stderr says so, which the test program does not
/// hold back.
///
/// # Panics
/// If the device that `FLOW_DEVICE` names cannot be opened.
#[allow(clippy::panic, reason = "only tests call it, and a device that was asked for must not be passed over")]
pub fn on_second_device(name: &str, test: impl FnOnce(&Elsewhere)) {
    match second_device() {
        Ok(Some(device)) => test(&Elsewhere::Device(device)),
        Ok(None) => {
            let line =
                format!("SKIPPED {name}: no CUDA or Metal device (build with --features cuda on a machine with one)\n");
            // Not by a macro, whose output the test program keeps for tests that fail.
            let _ = std::io::stderr().write_all(line.as_bytes());
        }
        Err(message) => panic!("{name}: {message}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Error;

    #[test]
    fn differences_and_errors_are_failures() {
        let same = |_: &Device| Ok::<_, Error>(Found::default().numbers("a", [1.0, 2.0]));
        assert_eq!(Elsewhere::Composed.compare("same", 0.0, same).unwrap(), 0.0);
        let accepted = |d: &Device| crate::kernels::runs_on(d);
        let other = |d: &Device| Ok::<_, Error>(Found::default().numbers("a", [if accepted(d) { 1.0 } else { 1.1 }]));
        let failure = Elsewhere::Composed.compare("other", 1e-3, other).unwrap_err();
        assert!(failure.to_string().contains("a 1.1"), "{failure}");
        assert!(Elsewhere::Composed.compare("other", 0.1, other).is_ok());
        let fewer = |d: &Device| {
            let found = Found::default();
            Ok::<_, Error>(if accepted(d) { found.numbers("a", [1.0]) } else { found })
        };
        assert!(Elsewhere::Composed.compare("fewer", 1.0, fewer).is_err());
        let nan = |_: &Device| Ok::<_, Error>(Found::default().numbers("a", [f64::NAN]));
        assert!(Elsewhere::Composed.compare("nan", 1.0, nan).is_err());
        let erring = |d: &Device| if accepted(d) { Ok(Found::default()) } else { Err(Error::config("x", "is off")) };
        let failure = Elsewhere::Composed.compare("erring", 1.0, erring).unwrap_err();
        assert!(failure.to_string().contains("is off"), "{failure}");
    }

    #[test]
    fn devices_go_by_their_names() {
        for bad in ["tpu", "cuda:x", "cpu"] {
            assert!(open(Some(bad)).unwrap_err().contains("must be cuda"), "{bad}");
        }
        #[cfg(not(feature = "cuda"))]
        assert!(open(Some("cuda:1")).unwrap_err().starts_with("FLOW_DEVICE=cuda:1: "));
    }

    #[test]
    fn a_kernel_that_is_reached_is_named() {
        let x = Tensor::zeros(3, DType::F32, &Device::Cpu).unwrap();
        let reached = without_kernels(|| crate::kernels::read::<f32, _>(&x, |_| Ok(())));
        assert!(reached.unwrap_err().to_string().contains("elsewhere.rs"));
    }
}
