//! Softmax and its relatives along any dimension, from primitives that Candle differentiates rightly.

use candle_core::Tensor;

use crate::Result;

/// The greatest entry over dimension `dim`, which is kept with length one, as a constant; of an empty tensor, which Candle
/// refuses to reduce, an empty one.
pub(crate) fn max_keepdim(t: &Tensor, dim: usize) -> Result<Tensor> {
    if t.elem_count() == 0 {
        let mut dims = t.dims().to_vec();
        dims[dim] = dims[dim].min(1);
        return Ok(Tensor::zeros(dims, t.dtype(), t.device())?);
    }
    Ok(t.detach().max_keepdim(dim)?.detach())
}

/// `ln Σ_k exp(t_k)` over dimension `dim`, which is kept with length one.
///
/// The maximum is a constant of the computation (it cancels), so it is detached: Candle gives every
/// one of several equal maxima the whole gradient.
///
/// # Errors
/// For a dimension that there is not.
pub fn log_sum_exp(t: &Tensor, dim: usize) -> Result<Tensor> {
    let max = max_keepdim(t, dim)?;
    let sum = t.broadcast_sub(&max)?.exp()?.sum_keepdim(dim)?;
    Ok((sum.log()? + max)?)
}

/// `t_k - ln Σ_j exp(t_j)` over dimension `dim`.
///
/// The maximum is taken off first, so that differences survive in logits of large magnitude.
///
/// # Errors
/// For a dimension that there is not.
pub fn log_softmax(t: &Tensor, dim: usize) -> Result<Tensor> {
    let t = t.broadcast_sub(&max_keepdim(t, dim)?)?;
    Ok(t.broadcast_sub(&t.exp()?.sum_keepdim(dim)?.log()?)?)
}

/// `exp(t_k) / Σ_j exp(t_j)` over dimension `dim`.
pub(crate) fn softmax(t: &Tensor, dim: usize) -> Result<Tensor> {
    let weights = t.broadcast_sub(&max_keepdim(t, dim)?)?.exp()?;
    Ok(weights.broadcast_div(&weights.sum_keepdim(dim)?)?)
}

/// `ln sigmoid(h) = min(h, 0) - ln(1 + e^-|h|)`, stable for every finite `h`.
pub(crate) fn log_sigmoid(h: &Tensor) -> Result<Tensor> {
    let negative = h.minimum(0.0)?;
    // -|h| as 2 min(h, 0) - h: Candle's derivative of |h| at zero is one, that of the minimum one half.
    let softplus = (((&negative * 2.0)? - h)?.exp()? + 1.0)?.log()?;
    Ok((negative - softplus)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::{Device, Var};

    #[test]
    fn equal_the_definitions_and_survive_large_values() {
        let t = Tensor::new(&[[[0.5_f64, -1.0], [2.0, -1.0]], [[1e6, -1e6], [1e6 + 1.0, 3.0]]], &Device::Cpu).unwrap();
        let logs = log_softmax(&t, 1).unwrap();
        let total = logs.exp().unwrap().sum(1).unwrap().flatten_all().unwrap().to_vec1::<f64>().unwrap();
        assert!(total.iter().all(|s| (s - 1.0).abs() < 1e-12), "{total:?}");
        let weights = softmax(&t, 1).unwrap();
        let gap = (weights - logs.exp().unwrap()).unwrap().abs().unwrap().max_all().unwrap();
        assert!(gap.to_scalar::<f64>().unwrap() < 1e-12);
        let sums = log_sum_exp(&t, 1).unwrap().flatten_all().unwrap().to_vec1::<f64>().unwrap();
        let expected = [(0.5_f64.exp() + 2.0_f64.exp()).ln(), -1.0 + 2.0_f64.ln(), 1e6 + 1.0_f64.exp().ln_1p(), 3.0];
        assert!(sums.iter().zip(expected).all(|(a, b)| (a - b).abs() < 1e-9 * (1.0 + b.abs())), "{sums:?}");
    }

    #[test]
    fn ties_share_the_gradient() {
        let t = Var::new(&[[1.0_f64, 1.0, 0.0]], &Device::Cpu).unwrap();
        let gradient = log_sum_exp(t.as_tensor(), 1).unwrap().sum_all().unwrap().backward().unwrap();
        let gradient = gradient.get(&t).unwrap().flatten_all().unwrap().to_vec1::<f64>().unwrap();
        let weights = softmax(t.as_tensor(), 1).unwrap().flatten_all().unwrap().to_vec1::<f64>().unwrap();
        assert!(gradient.iter().zip(&weights).all(|(g, w)| (g - w).abs() < 1e-14), "{gradient:?} {weights:?}");
    }
}
