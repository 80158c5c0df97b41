//! Numbers between two ends.

use candle_core::Tensor;

use crate::bijector::{Bijector, check_batch, check_domain, sum_event};
use crate::numerics::softmax::log_sigmoid;
use crate::{Error, Result};

const NAME: &str = "interval";

/// Numbers of an open interval `(a, b)` as real ones, elementwise: `z = ln(x - a) - ln(b - x)`.
///
/// `log |det| = Σ ln(b - a) - ln(x - a) - ln(b - x)`. For probabilities, angles and whatever has two ends; of the unit
/// interval it is [`Logit`](crate::layers::Logit) with `α = 0`.
///
/// # Domain
/// Encoding takes the open interval; anything else, NaN included, is an [`Error::Domain`] naming the rows. Decoding takes
/// every real number; far out its result rounds to an end.
///
/// # Shapes
/// - any event.
#[derive(Debug, Clone)]
pub struct Interval {
    shape: Vec<usize>,
    low: f64,
    high: f64,
}

impl Interval {
    /// Over events of `shape`, from `low` to `high`.
    ///
    /// # Errors
    /// [`Error::Config`] unless `low < high` and both are finite.
    pub fn new(shape: &[usize], low: f64, high: f64) -> Result<Self> {
        if !(low < high && low.is_finite() && high.is_finite()) {
            return Err(Error::config(NAME, format!("needs finite low < high, got ({low}, {high})")));
        }
        Ok(Interval { shape: shape.to_vec(), low, high })
    }

    fn width(&self) -> f64 {
        self.high - self.low
    }
}

impl Bijector for Interval {
    fn name(&self) -> String {
        NAME.into()
    }

    fn event_shape(&self) -> &[usize] {
        &self.shape
    }

    fn encode(&self, x: &Tensor, _context: Option<&Tensor>) -> Result<(Tensor, Tensor)> {
        check_batch(NAME, x, &self.shape)?;
        let (above, below) = (x.affine(1.0, -self.low)?, x.affine(-1.0, self.high)?);
        check_domain(NAME, &above.minimum(&below)?.detach().gt(0.0)?, || {
            format!("not inside ({}, {})", self.low, self.high)
        })?;
        let (above, below) = (above.log()?, below.log()?);
        let log = (&above + &below)?.affine(-1.0, self.width().ln())?;
        Ok(((above - below)?, sum_event(&log)?))
    }

    fn decode(&self, z: &Tensor, _context: Option<&Tensor>) -> Result<(Tensor, Tensor)> {
        check_batch(NAME, z, &self.shape)?;
        let share = log_sigmoid(z)?;
        // ln(1 - p) = ln p - z.
        let log = ((&share * 2.0)? - z)?.affine(1.0, self.width().ln())?;
        Ok((share.exp()?.affine(self.width(), self.low)?, sum_event(&log)?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ends_must_be_finite_and_in_order() {
        for (low, high) in [(1.0, 1.0), (2.0, 1.0), (f64::NEG_INFINITY, 0.0), (0.0, f64::NAN)] {
            assert!(Interval::new(&[1], low, high).unwrap_err().to_string().contains("low < high"));
        }
    }
}
