//! Probabilities that add up to one.

use candle_core::Tensor;

use super::{before, positive};
use crate::bijector::{Bijector, check_batch, check_domain, zero_log_det};
use crate::numerics::softmax::log_sigmoid;
use crate::{Error, Result};

const NAME: &str = "simplex";

/// Probabilities of `K` cases as `K - 1` real numbers, by breaking a stick: of what is left of one, case `k` takes the share
/// `v_k = σ(z_k - ln(K - k))`.
///
/// The event is the first `K - 1` probabilities; the last is what is left of one, and [`Simplex::complete`] adds it. With
/// `r_k = 1 - x_1 - … - x_(k-1)`, encoding is `z_k = ln x_k - ln r_(k+1) + ln(K - k)` and
/// `log |det| = Σ_k ln r_k - ln x_k - ln r_(k+1)`, with respect to those `K - 1` probabilities. The latent zero is the even
/// distribution.
///
/// # Domain
/// Encoding takes `K - 1` numbers above zero whose sum is below one; others, NaN included, are an [`Error::Domain`] naming
/// the rows. Decoding takes every real vector; far out probabilities round to zero.
///
/// # Shapes
/// - event `(K - 1,)`.
#[derive(Debug, Clone)]
pub struct Simplex {
    shape: [usize; 1],
}

impl Simplex {
    /// Over the probabilities of `cases` cases.
    ///
    /// # Errors
    /// [`Error::Config`] for fewer than two.
    pub fn new(cases: usize) -> Result<Self> {
        if cases < 2 {
            return Err(Error::config(NAME, format!("needs at least two cases, got {cases}")));
        }
        Ok(Simplex { shape: [cases - 1] })
    }

    /// All `K` probabilities, `(B, K)`, of events `(B, K - 1)`.
    ///
    /// # Errors
    /// [`Error::Shape`] for another shape.
    pub fn complete(&self, x: &Tensor) -> Result<Tensor> {
        check_batch(NAME, x, &self.shape)?;
        Ok(Tensor::cat(&[x, &x.sum_keepdim(1)?.affine(-1.0, 1.0)?], 1)?)
    }

    /// `ln(K - k)` for `k = 1 … K - 1`.
    fn offsets(&self, like: &Tensor) -> Result<Tensor> {
        let parts = self.shape[0];
        let offsets: Vec<f64> = (0..parts).map(|k| ((parts - k) as f64).ln()).collect();
        Ok(Tensor::from_vec(offsets, (1, parts), &candle_core::Device::Cpu)?
            .to_dtype(like.dtype())?
            .to_device(like.device())?)
    }
}

impl Bijector for Simplex {
    fn name(&self) -> String {
        NAME.into()
    }

    fn event_shape(&self) -> &[usize] {
        &self.shape
    }

    fn encode(&self, x: &Tensor, _context: Option<&Tensor>) -> Result<(Tensor, Tensor)> {
        if check_batch(NAME, x, &self.shape)? == 0 {
            return Ok((x.clone(), zero_log_det(x)?));
        }
        let left = x.matmul(&before(self.shape[0], x)?)?.affine(-1.0, 1.0)?;
        let after = (&left - x)?;
        let inside = (positive(x)? * positive(&after)?)?;
        check_domain(NAME, &inside, || "not above zero, or leave nothing of one to the last case".into())?;
        let (x, after) = (x.log()?, after.log()?);
        let log_det = ((left.log()? - &x)? - &after)?.sum(1)?;
        Ok(((x - after)?.broadcast_add(&self.offsets(&left)?)?, log_det))
    }

    fn decode(&self, z: &Tensor, _context: Option<&Tensor>) -> Result<(Tensor, Tensor)> {
        if check_batch(NAME, z, &self.shape)? == 0 {
            return Ok((z.clone(), zero_log_det(z)?));
        }
        let odds = z.broadcast_sub(&self.offsets(z)?)?;
        // ln(1 - v) = ln v - odds.
        let share = log_sigmoid(&odds)?;
        let rest = (&share - &odds)?;
        let x = (rest.matmul(&before(self.shape[0], z)?)? + share)?;
        let log_det = (&x + rest)?.sum(1)?;
        Ok((x.exp()?, log_det))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::numbers::{normal, values};

    #[test]
    fn zero_is_even_and_everything_adds_up_to_one() {
        let simplex = Simplex::new(4).unwrap();
        let even = simplex.decode(&normal(1, &[1, 3]).affine(0.0, 0.0).unwrap(), None).unwrap().0;
        assert!(values(&simplex.complete(&even).unwrap()).iter().all(|p| (p - 0.25).abs() < 1e-12));
        let x = simplex.decode(&normal(1, &[50, 3]).affine(4.0, 0.0).unwrap(), None).unwrap().0;
        let all = simplex.complete(&x).unwrap();
        assert!(values(&all).iter().all(|&p| p > 0.0) && all.dims() == [50, 4]);
        assert!(values(&all.sum(1).unwrap()).iter().all(|s| (s - 1.0).abs() < 1e-12));
        let error = Simplex::new(1).unwrap_err().to_string();
        assert!(error.contains("two cases"), "{error}");
    }
}
