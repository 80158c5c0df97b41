//! Increasing vectors.

use candle_core::Tensor;

use super::{Link, positive};
use crate::bijector::{Bijector, check_batch, check_domain, zero_log_det};
use crate::{Error, Result};

const NAME: &str = "ordered";

/// Increasing vectors as real ones: `z_1 = x_1`, and `z_i` is the real number of the gap `x_i - x_(i-1)`, by the map of
/// [`Positive`](super::Positive).
///
/// For cut points, and for the means of a mixture whose components could otherwise change places.
///
/// # Domain
/// Encoding takes strictly increasing vectors; others are an [`Error::Domain`] naming the rows. Decoding takes every real
/// vector; where a gap is below the last digit of what it is added to, two entries become equal.
///
/// # Shapes
/// - event `(D,)`.
#[derive(Debug, Clone)]
pub struct Ordered {
    shape: [usize; 1],
    link: Link,
}

impl Ordered {
    /// Over vectors of length `dims`.
    ///
    /// # Errors
    /// [`Error::Config`] without dimensions.
    pub fn new(dims: usize, link: Link) -> Result<Self> {
        if dims == 0 {
            return Err(Error::config(NAME, "needs at least one dimension"));
        }
        Ok(Ordered { shape: [dims], link })
    }
}

impl Bijector for Ordered {
    fn name(&self) -> String {
        NAME.into()
    }

    fn event_shape(&self) -> &[usize] {
        &self.shape
    }

    fn encode(&self, x: &Tensor, _context: Option<&Tensor>) -> Result<(Tensor, Tensor)> {
        let (batch, gaps) = (check_batch(NAME, x, &self.shape)?, self.shape[0] - 1);
        if batch == 0 {
            return Ok((x.clone(), zero_log_det(x)?));
        }
        let first = x.narrow(1, 0, 1)?;
        // A NaN in the first place has no gap before it.
        let known = first.detach().eq(&first.detach())?;
        let apart = (x.narrow(1, 1, gaps)? - x.narrow(1, 0, gaps)?)?;
        let increasing = if gaps == 0 { known } else { Tensor::cat(&[known, positive(&apart)?], 1)? };
        check_domain(NAME, &increasing, || "not above the entry before them".into())?;
        if gaps == 0 {
            return Ok((x.clone(), zero_log_det(x)?));
        }
        let (z, log) = self.link.to_real(&apart)?;
        Ok((Tensor::cat(&[first, z], 1)?, log.sum(1)?))
    }

    fn decode(&self, z: &Tensor, _context: Option<&Tensor>) -> Result<(Tensor, Tensor)> {
        let (batch, gaps) = (check_batch(NAME, z, &self.shape)?, self.shape[0] - 1);
        if gaps == 0 || batch == 0 {
            return Ok((z.clone(), zero_log_det(z)?));
        }
        let (apart, log) = self.link.to_positive(&z.narrow(1, 1, gaps)?)?;
        let mut columns = vec![z.narrow(1, 0, 1)?];
        for i in 0..gaps {
            columns.push((&columns[i] + apart.narrow(1, i, 1)?)?);
        }
        Ok((Tensor::cat(&columns, 1)?, log.sum(1)?))
    }
}
