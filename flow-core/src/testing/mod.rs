//! A test kit for bijectors: one call checks a layer against independent oracles.
//!
//! A bijector makes claims that nothing enforces: that decoding undoes encoding, that the
//! log-determinant is that of the map, that the hand-written backward pass is the derivative. A wrong
//! log-determinant trains without complaint and reports densities above the truth. The kit holds
//! every claim against something that does not share the layer's code: numerical Jacobians in both
//! directions, finite differences of an objective, a second model of another seed, one row at a time.
//!
//! The kit is behind the feature `testing`, which only tests need. A crate with bijectors of its own has
//!
//! ```toml
//! [dependencies]
//! flow-core = "0.1"
//!
//! [dev-dependencies]
//! flow-core = { version = "0.1", features = ["testing"] }
//! ```
//!
//! and in its tests
//!
//! ```
//! use flow_core::layers::ActNorm;
//! use flow_core::testing::{Case, check};
//!
//! let case = Case::new("ActNorm", "three channels", |path| Ok(Box::new(ActNorm::new(path, &[3])?)));
//! check(&case).unwrap_or_else(|failure| panic!("{failure}"));
//! ```
//!
//! Every [`Check`] builds the bijector several times, with fresh and with randomised parameters, and holds it against:
//! inverses and log-determinants in both directions, row by row, far out, at the knots that [`Case::knots`] names and
//! on a batch without rows; single precision against double at knots, ends, denormal numbers and ±10⁶; gradients,
//! automatic, hand-written and numerical; saving and loading; and errors that name the layer for wrong shapes, contexts
//! and element types. Data-dependent initialisation from nothing, or from what is not finite, must spoil no parameter. A
//! panic is a [`Failure`] that names the case. What a layer
//! cannot keep is declared with a reason ([`Case::looser`], [`Case::reach`], [`Case::idle`]), which
//! [`Case::reasons`] lists.
//!
//! [`registry`] lists every bijector of this crate, [`quadrature`] integrates densities, [`jacobian`]
//! differentiates by central differences, [`fuzz`] damages files for the tests of readers, [`ThreadRanks`] are ranks of
//! data-parallel training in one process, [`Elsewhere`] holds the CPU's kernels against composed operations and against a
//! GPU.

use std::any::Any;
use std::panic::AssertUnwindSafe;

use candle_core::{DType, Device, Tensor};

use crate::Error;

mod apart;
mod case;
#[cfg(test)]
pub(crate) mod distribution;
mod elsewhere;
pub mod fuzz;
mod gradient;
pub mod jacobian;
mod net;
#[cfg(test)]
pub(crate) mod numbers;
mod properties;
pub mod quadrature;
mod ranks;
mod refusals;
pub mod registry;
mod sweep;
#[cfg(test)]
pub(crate) mod transformer;

pub use case::{Case, Domain, randomise};
pub use elsewhere::{
    Comparison, DEVICE_VARIABLE, Elsewhere, Found, all_on_second_device, in_composed_operations, on_second_device,
    second_device, without_kernels,
};
pub use net::{SmoothNet, smooth_coupling};
pub use ranks::ThreadRanks;

use case::{Parameters, Subject};

/// How far a result may be from its oracle, as a fraction of `1 + |expected|`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Tolerance {
    /// `decode ∘ encode` and `encode ∘ decode` against the identity, and rows against batches.
    pub round_trip: f64,
    /// Log-determinants against the numerical Jacobian's.
    pub log_det: f64,
    /// Gradients against plain automatic differentiation and against finite differences.
    pub gradient: f64,
}

/// What to check a [`Case`] with: precision, tolerances, seed.
#[derive(Debug, Clone)]
pub struct Check {
    /// The element type of parameters and data, `F64` or `F32`.
    pub dtype: DType,
    /// The tolerances, multiplied by what [`Case::looser`] asks for.
    pub tolerance: Tolerance,
    /// The seed of parameters, of their randomisation and of the data.
    pub seed: u64,
    /// Rows per batch.
    pub batch: usize,
    /// Standard deviation of the noise that moves parameters away from their initial values, at
    /// which many gradients vanish.
    pub noise: f64,
    /// At most this many entries of each parameter are checked by finite differences.
    pub entries: usize,
}

impl Check {
    /// Double precision: tight tolerances and finite differences of gradients.
    pub fn f64() -> Self {
        let tolerance = Tolerance { round_trip: 1e-9, log_det: 1e-6, gradient: 1e-6 };
        Check { dtype: DType::F64, tolerance, seed: 1, batch: 3, noise: 0.2, entries: 3 }
    }

    /// Single precision. Central differences have no digits to spare in f32, so the Jacobian is that of
    /// the same layer in f64 with the same parameters, and finite differences of gradients are skipped.
    pub fn f32() -> Self {
        let tolerance = Tolerance { round_trip: 1e-4, log_det: 1e-3, gradient: 1e-3 };
        Check { dtype: DType::F32, tolerance, ..Check::f64() }
    }

    /// Checks every property, with initial and with randomised parameters.
    ///
    /// # Errors
    /// The first [`Failure`], which names the bijector, the property, what came out and what should have.
    pub fn run(&self, case: &Case) -> std::result::Result<Report, Failure> {
        let mut report = Report { bijector: case.to_string(), measured: Vec::new() };
        for property in properties::ALL.iter().chain(refusals::ALL).chain(sweep::ALL).chain(gradient::ALL) {
            if property.only.is_some_and(|dtype| dtype != self.dtype) {
                continue;
            }
            for &parameters in property.parameters {
                let measure = || (property.check)(&Subject::build(case, self, parameters)?);
                // A layer that panics is a finding like any other, and must not hide those of the other cases.
                let outcome = std::panic::catch_unwind(AssertUnwindSafe(measure));
                let worst =
                    outcome.unwrap_or_else(|payload| Err(Fault::Panicked(message(payload)))).map_err(|fault| {
                        let (got, expected) = fault.into_parts();
                        let property = format!("{} ({parameters} parameters, {:?})", property.name, self.dtype);
                        Failure { bijector: case.to_string(), property, got, expected }
                    })?;
                report.measured.push((property.name, worst));
            }
        }
        Ok(report)
    }
}

/// Checks `case` in double and in single precision: what the test of a layer of yours calls.
///
/// # Errors
/// The first [`Failure`].
pub fn check(case: &Case) -> std::result::Result<[Report; 2], Failure> {
    Ok([Check::f64().run(case)?, Check::f32().run(case)?])
}

/// What held, and how closely.
#[derive(Debug, Clone)]
pub struct Report {
    /// The case.
    pub bijector: String,
    /// Each property with the worst deviation from its oracle, relative to `1 + |expected|`.
    pub measured: Vec<(&'static str, f64)>,
}

impl Report {
    /// The worst deviation of the properties of this name, `None` if none was checked.
    pub fn worst(&self, property: &str) -> Option<f64> {
        self.measured.iter().filter(|(name, _)| *name == property).map(|&(_, worst)| worst).reduce(f64::max)
    }
}

/// A claim that did not hold.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[error("{bijector}: {property}: got {got}, expected {expected}")]
pub struct Failure {
    /// The case.
    pub bijector: String,
    /// The property, with the kind of parameters and the precision.
    pub property: String,
    /// What came out.
    pub got: String,
    /// What should have come out.
    pub expected: String,
}

/// One claim and how it is checked.
struct Property {
    name: &'static str,
    /// Which parameters the claim is checked with.
    parameters: &'static [Parameters],
    /// The one precision that it is about, if it is.
    only: Option<DType>,
    check: fn(&Subject<'_>) -> Outcome,
}

/// The worst deviation, or what went wrong.
type Outcome = std::result::Result<f64, Fault>;

/// Why a property does not hold.
enum Fault {
    /// The result differs from the oracle.
    Differs { got: String, expected: String },
    /// The bijector returned an error.
    Erred(Error),
    /// The bijector panicked.
    Panicked(String),
}

impl Fault {
    fn differs(got: impl Into<String>, expected: impl Into<String>) -> Self {
        Fault::Differs { got: got.into(), expected: expected.into() }
    }

    fn into_parts(self) -> (String, String) {
        match self {
            Fault::Differs { got, expected } => (got, expected),
            Fault::Erred(error) => (format!("the error '{error}'"), "no error".into()),
            Fault::Panicked(message) => (format!("a panic: {message}"), "a value or an error".into()),
        }
    }
}

impl<E: Into<Error>> From<E> for Fault {
    fn from(error: E) -> Self {
        Fault::Erred(error.into())
    }
}

/// What a panic said.
fn message(payload: Box<dyn Any + Send>) -> String {
    let text = payload.downcast_ref::<&str>().map(ToString::to_string);
    text.or_else(|| payload.downcast_ref::<String>().cloned()).unwrap_or_else(|| "without a message".into())
}

/// All entries in f64.
fn values(t: &Tensor) -> crate::Result<Vec<f64>> {
    // To the CPU first: not every device has f64.
    Ok(t.flatten_all()?.to_device(&Device::Cpu)?.to_dtype(DType::F64)?.to_vec1::<f64>()?)
}

/// The worst deviation of `got` from `expected`, relative to `1 + |expected|`.
///
/// A NaN or an infinity on either side is an infinite deviation.
fn close(what: &str, got: &Tensor, expected: &Tensor, tolerance: f64) -> Outcome {
    if got.dims() != expected.dims() {
        return Err(Fault::differs(
            format!("{what} of shape {:?}", got.dims()),
            format!("the shape {:?}", expected.dims()),
        ));
    }
    close_values(what, &values(got)?, &values(expected)?, tolerance)
}

fn close_values(what: &str, got: &[f64], expected: &[f64], tolerance: f64) -> Outcome {
    let mut worst = 0.0;
    for (i, (&g, &e)) in got.iter().zip(expected).enumerate() {
        let deviation = (g - e).abs() / (1.0 + e.abs());
        // A NaN must not pass.
        if deviation.is_nan() || deviation > tolerance {
            let expected = format!("{e:.12} ± {:.1e} (deviation {deviation:.1e})", tolerance * (1.0 + e.abs()));
            return Err(Fault::differs(format!("{what} {g:.12} at entry {i}"), expected));
        }
        worst = f64::max(worst, deviation);
    }
    Ok(worst)
}

fn finite(what: &str, t: &Tensor) -> Outcome {
    match values(t)?.iter().find(|v| !v.is_finite()) {
        Some(v) => Err(Fault::differs(format!("{v} in {what}"), "finite numbers")),
        None => Ok(0.0),
    }
}
