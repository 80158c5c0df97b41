//! Correlation matrices.

use candle_core::Tensor;

use super::positive;
use crate::bijector::{Bijector, check_batch, check_domain, zero_log_det};
use crate::numerics::softmax::log_sigmoid;
use crate::{Error, Result};

const NAME: &str = "correlation cholesky";

/// The Cholesky factor `L` of a correlation matrix `L·Lᵀ` of `d` variables as `d(d - 1)/2` real numbers, by canonical
/// partial correlations `y = tanh z` (Lewandowski, Kurowicka & Joe 2009, section 2).
///
/// The event holds the entries below the diagonal, row by row; the diagonal follows from them, since the rows of `L` have
/// length one, and [`CorrelationCholesky::matrix`] adds it. Within a row,
/// `L_ij = y_ij·√r_ij` with `r_ij = 1 - Σ_(k<j) L_ik²`, and decoding has
/// `log |det| = Σ ln(1 - y_ij²) + ½ ln r_ij`, with respect to the entries below the diagonal.
///
/// # Domain
/// Encoding takes entries whose squares add up to less than one in every row; others, NaN included, are an
/// [`Error::Domain`] naming the rows of the batch. Decoding takes every real vector; far out correlations round to ±1.
///
/// # Shapes
/// - event `(d(d - 1)/2,)`.
#[derive(Debug, Clone)]
pub struct CorrelationCholesky {
    shape: [usize; 1],
    variables: usize,
}

impl CorrelationCholesky {
    /// Of `variables` variables.
    ///
    /// # Errors
    /// [`Error::Config`] for fewer than two.
    pub fn new(variables: usize) -> Result<Self> {
        if variables < 2 {
            return Err(Error::config(NAME, format!("needs at least two variables, got {variables}")));
        }
        Ok(CorrelationCholesky { shape: [variables * (variables - 1) / 2], variables })
    }

    /// The factor `L`, `(B, d, d)`, of events `(B, d(d - 1)/2)`.
    ///
    /// # Errors
    /// [`Error::Shape`] for another shape.
    pub fn matrix(&self, x: &Tensor) -> Result<Tensor> {
        let (batch, d) = (check_batch(NAME, x, &self.shape)?, self.variables);
        let mut rows = Vec::with_capacity(d);
        for i in 0..d {
            let zeros = Tensor::zeros((batch, d - 1 - i), x.dtype(), x.device())?;
            let below = x.narrow(1, i * i.saturating_sub(1) / 2, i)?;
            let diagonal = match i {
                0 => Tensor::ones((batch, 1), x.dtype(), x.device())?,
                _ => below.sqr()?.sum_keepdim(1)?.affine(-1.0, 1.0)?.relu()?.sqrt()?,
            };
            rows.push(Tensor::cat(&[below, diagonal, zeros], 1)?);
        }
        Ok(Tensor::stack(&rows, 1)?)
    }

    /// The columns of a batch with the number of each within its row of `L`.
    fn columns<'a>(&self, t: &'a Tensor) -> impl Iterator<Item = Result<(usize, Tensor)>> + 'a {
        let places = (1..self.variables).flat_map(|i| 0..i);
        places.enumerate().map(move |(column, j)| Ok((j, t.narrow(1, column, 1)?)))
    }
}

impl Bijector for CorrelationCholesky {
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
        // What is left of one before and after each entry of a row.
        let (mut left, mut after): (Vec<Tensor>, Vec<Tensor>) = (Vec::new(), Vec::new());
        for column in self.columns(x) {
            let (j, entry) = column?;
            let before = match (j, after.last()) {
                (0, _) | (_, None) => entry.ones_like()?,
                (_, Some(rest)) => rest.clone(),
            };
            after.push((&before - entry.sqr()?)?);
            left.push(before);
        }
        let (left, after) = (Tensor::cat(&left, 1)?, Tensor::cat(&after, 1)?);
        check_domain(NAME, &positive(&after)?, || "in a row whose squares add up to one or more".into())?;
        // atanh(x/√r) = ±(ln(√r ± x) - ½ ln(r - x²)), with the sign of x, which loses no digits near ±√r.
        let sign = x.detach().ge(0.0)?.to_dtype(x.dtype())?.affine(2.0, -1.0)?;
        let (log_left, log_after) = (left.log()?, after.log()?);
        let reach = (left.sqrt()? + (x * &sign)?)?.log()?;
        let z = ((reach - (&log_after * 0.5)?)? * sign)?;
        // 1 - y² = r_(j+1)/r_j.
        let log_det = ((log_left * 0.5)? - log_after)?.sum(1)?;
        Ok((z, log_det))
    }

    fn decode(&self, z: &Tensor, _context: Option<&Tensor>) -> Result<(Tensor, Tensor)> {
        if check_batch(NAME, z, &self.shape)? == 0 {
            return Ok((z.clone(), zero_log_det(z)?));
        }
        // ln(1 - tanh² z) = ln σ(2z) + ln σ(-2z) + ln 4.
        let twice = (z * 2.0)?;
        let shrink = ((log_sigmoid(&twice)? + log_sigmoid(&twice.neg()?)?)? + 4.0_f64.ln())?;
        let mut left: Vec<Tensor> = Vec::new();
        let mut rest: Option<Tensor> = None;
        for column in self.columns(&shrink) {
            let (j, log) = column?;
            let before = match (j, rest.take()) {
                (0, _) | (_, None) => log.zeros_like()?,
                (_, Some(rest)) => rest,
            };
            rest = Some((&before + log)?);
            left.push(before);
        }
        let left = (Tensor::cat(&left, 1)? * 0.5)?;
        let x = (z.tanh()? * left.exp()?)?;
        Ok((x, (shrink + left)?.sum(1)?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::numbers::{normal, values};

    #[test]
    fn factors_make_correlation_matrices() {
        let layer = CorrelationCholesky::new(4).unwrap();
        let x = layer.decode(&normal(1, &[20, 6]), None).unwrap().0;
        let l = layer.matrix(&x).unwrap();
        let correlations = l.matmul(&l.transpose(1, 2).unwrap().contiguous().unwrap()).unwrap();
        for matrix in values(&correlations).chunks(16) {
            for (i, j) in (0..4).flat_map(|i| (0..4).map(move |j| (i, j))) {
                let entry = matrix[4 * i + j];
                assert!(if i == j { (entry - 1.0).abs() < 1e-12 } else { entry.abs() < 1.0 });
            }
        }
        assert!(
            values(&l).chunks(16).all(|m| (0..4).all(|i| m[5 * i] > 0.0 && (i + 1..4).all(|j| m[4 * i + j] == 0.0)))
        );
        let outside = normal(1, &[1, 6]).affine(0.0, 0.8).unwrap();
        let error = layer.encode(&outside, None).unwrap_err().to_string();
        assert!(error.starts_with("correlation cholesky row 0"), "{error}");
        assert!(CorrelationCholesky::new(1).is_err());
    }
}
