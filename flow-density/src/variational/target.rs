//! The density that a flow is fitted to, as a function that somebody else wrote.

use candle_core::{Tensor, Var};
use flow_core::autodiff::{gradient_or_zero, pair};
use flow_core::numerics::host;

use crate::{Error, Result};

/// The result of a user's log-density; other errors go into it by `candle_core::Error::wrap`.
pub type LogDensityResult = candle_core::Result<Tensor>;

/// A log-density, up to a constant, whose values are checked.
pub(super) struct Target<F> {
    log_density: F,
}

/// Log-densities of samples, with the graph that they came from.
pub(super) struct Values {
    x: Var,
    graph: Tensor,
    /// `ln p` of each sample.
    pub(super) logs: Vec<f64>,
}

impl<F: Fn(&Tensor) -> LogDensityResult> Target<F> {
    pub(super) fn new(log_density: F) -> Self {
        Target { log_density }
    }

    /// The function itself, whose values are not checked.
    pub(super) fn function(&self) -> &F {
        &self.log_density
    }

    /// `ln p` of samples, `(B, D)`.
    ///
    /// # Errors
    /// [`Error::LogDensity`] for a result of another shape, for NaN and `+∞`, and for `-∞` everywhere.
    pub(super) fn evaluate(&self, x: &Tensor) -> Result<Values> {
        let x = Var::from_tensor(&x.detach())?;
        let rows = x.dim(0)?;
        let graph = (self.log_density)(x.as_tensor())
            .map_err(|e| Error::log_density(format!("failed: {e}"), "ln p of each sample"))?;
        if graph.dims() != [rows] {
            let found = format!("returned the shape {:?} for {rows} samples of shape {:?}", graph.dims(), x.dims());
            return Err(Error::log_density(
                found,
                format!("one number for each sample, [{rows}]; sum over the entries"),
            ));
        }
        let logs = host::numbers(&graph)?;
        let bad = |is: fn(f64) -> bool| logs.iter().position(|&l| is(l));
        for (row, name) in [(bad(f64::is_nan), "NaN"), (bad(|l| l == f64::INFINITY), "+∞")] {
            if let Some(row) = row {
                let count = logs.iter().filter(|l| l.is_nan() || **l == f64::INFINITY).count();
                let found = format!("returned {name} for {count} of {rows} samples, first at {}", point(&x, row)?);
                return Err(Error::log_density(found, "a number, or -∞ where the density is zero"));
            }
        }
        if rows > 0 && logs.iter().all(|l| *l == f64::NEG_INFINITY) {
            let found = format!("is -∞ at all {rows} samples, such as {}", point(&x, 0)?);
            return Err(Error::log_density(found, OUTSIDE));
        }
        Ok(Values { x, graph, logs })
    }
}

/// What helps where samples lie outside the support.
const OUTSIDE: &str = "samples where the density is positive; a flow covers all of space unless its first layer is a \
                       constraint (`constrained`), or begins elsewhere";

impl Values {
    /// Refuses a density of zero at any sample.
    pub(super) fn refuse_zero(&self) -> Result<()> {
        let Some(row) = self.logs.iter().position(|l| *l == f64::NEG_INFINITY) else { return Ok(()) };
        let count = self.logs.iter().filter(|l| **l == f64::NEG_INFINITY).count();
        let rows = self.logs.len();
        let found =
            format!("is -∞ at {count} of {rows} samples, such as {}: KL(q‖p) is infinite", point(&self.x, row)?);
        Err(Error::log_density(
            found,
            format!("{OUTSIDE}; or fit by the forward divergence, which gives them no weight"),
        ))
    }

    /// The gradient of `Σ c_i ln p(x_i)` with respect to the samples, zero in rows of coefficient zero.
    ///
    /// # Errors
    /// [`Error::LogDensity`] if the result does not depend on the samples by tracked operations.
    pub(super) fn gradient(&self, coefficients: &Tensor) -> Result<Tensor> {
        if !self.graph.track_op() {
            return Err(Error::log_density(
                "does not depend on its argument by operations of Candle",
                "a result that can be differentiated: no `detach`, no numbers read out of the tensor",
            ));
        }
        let store = pair(&self.graph, coefficients)?.backward()?;
        let gradient = gradient_or_zero(&store, self.x.as_tensor())?;
        let mut dims = vec![1; gradient.rank()];
        dims[0] = gradient.dim(0)?;
        // Where the density is zero its logarithm may have no derivative, and zero times NaN is NaN.
        let counts = coefficients.ne(0.0)?.reshape(dims)?.broadcast_as(gradient.shape())?;
        Ok(counts.where_cond(&gradient, &gradient.zeros_like()?)?)
    }
}

/// A sample in words.
fn point(x: &Var, row: usize) -> Result<String> {
    let entries = host::numbers(&x.as_tensor().narrow(0, row, 1)?)?;
    let shown: Vec<String> = entries.iter().take(6).map(|v| format!("{v:.4}")).collect();
    let more = if entries.len() > shown.len() { ", …" } else { "" };
    Ok(format!("[{}{more}]", shown.join(", ")))
}
