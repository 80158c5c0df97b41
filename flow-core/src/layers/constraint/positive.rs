//! Positive numbers.

use candle_core::Tensor;

use super::{Link, positive};
use crate::Result;
use crate::bijector::{Bijector, check_batch, check_domain, sum_event};

const NAME: &str = "positive";

/// Positive numbers as real ones, elementwise: `z = ln(eˣ - 1)`, or `z = ln x` with [`Link::Exponential`].
///
/// `log |det| = Σ x - z`, or `-Σ z`. For scales, rates and concentrations.
///
/// # Domain
/// Encoding takes numbers above zero; anything else, NaN included, is an [`Error::Domain`](crate::Error::Domain) naming the
/// rows. Decoding takes every real number; far below zero its result rounds to zero.
///
/// # Shapes
/// - any event.
#[derive(Debug, Clone)]
pub struct Positive {
    shape: Vec<usize>,
    link: Link,
}

impl Positive {
    /// Over events of `shape`.
    pub fn new(shape: &[usize], link: Link) -> Self {
        Positive { shape: shape.to_vec(), link }
    }
}

impl Bijector for Positive {
    fn name(&self) -> String {
        NAME.into()
    }

    fn event_shape(&self) -> &[usize] {
        &self.shape
    }

    fn encode(&self, x: &Tensor, _context: Option<&Tensor>) -> Result<(Tensor, Tensor)> {
        check_batch(NAME, x, &self.shape)?;
        check_domain(NAME, &positive(x)?, || "not above zero".into())?;
        let (z, log) = self.link.to_real(x)?;
        Ok((z, sum_event(&log)?))
    }

    fn decode(&self, z: &Tensor, _context: Option<&Tensor>) -> Result<(Tensor, Tensor)> {
        check_batch(NAME, z, &self.shape)?;
        let (x, log) = self.link.to_positive(z)?;
        Ok((x, sum_event(&log)?))
    }
}
