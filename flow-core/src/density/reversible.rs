//! Back-propagation whose memory does not grow with depth.
//!
//! An ordinary backward pass needs every activation of the forward pass. A chain of bijectors does
//! not: the input of a layer is its inverse applied to its output. So the chain is walked backwards;
//! each layer reconstructs its input, rebuilds its own small graph, and pushes two incoming gradients
//! through it, that of its value and that of its log-determinant (Gomez et al. 2017, arXiv 1707.04585,
//! extended by the log-determinant). Gradients equal those of plain back-propagation up to the
//! round-off of the reconstruction.

use candle_core::Tensor;

use crate::Result;
use crate::numerics::host;

/// The largest reconstruction error of the input, relative to `max(1, max |x|)`, that is accepted.
///
/// In exact arithmetic there is none. In f32 a scale near zero loses digits of what it scales, and a
/// rare sample may pass through many such scales; the error then grows from layer to layer. The true
/// input is at hand, so the error is measured, and a batch above the bound is done again plainly.
pub const DRIFT_TOLERANCE: f64 = 1e-3;

/// The reconstruction error of a batch relative to `max(1, max |x|)`; not a number if it diverged.
pub fn drift(x: &Tensor, reconstructed: &Tensor) -> Result<f64> {
    if x.elem_count() == 0 {
        return Ok(0.0);
    }
    let largest = |t: &Tensor| -> Result<f64> {
        // A sum keeps NaN, which a maximum may lose.
        let flat = t.abs()?.flatten_all()?;
        let sum = host::sum(&flat.sum(0)?)?;
        let max = host::sum(&flat.max(0)?)?;
        Ok(if sum.is_nan() { f64::NAN } else { max })
    };
    Ok(largest(&(x - reconstructed)?)? / largest(x)?.max(1.0))
}

/// How gradients of a flow are computed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Backprop {
    /// Layer by layer from the output, memory independent of depth; a batch whose reconstruction drifts
    /// beyond [`DRIFT_TOLERANCE`] is done again the plain way.
    #[default]
    Reversible,
    /// One graph over the whole chain, memory proportional to depth.
    Plain,
}
