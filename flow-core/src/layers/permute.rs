//! Fixed permutations: the cheapest way to let every entry be transformed in turn.

use candle_core::{DType, Device, Tensor};

use crate::bijector::{Bijector, Pullback, Tape, check_batch, zero_log_det};
use crate::param::{Param, ParamPath};
use crate::{Error, Gradients, Result};

/// `z[b, c, …] = x[b, π(c), …]` for a fixed permutation `π` of the first event dimension; `log |det| = 0`.
///
/// The permutation is a buffer and is saved with the model. Dinh et al. 2017 (section 3.5) reverse the
/// order; Kingma & Dhariwal 2018 (section 3.2) compare a reversal, a shuffle and the learned 1×1
/// convolution.
///
/// # Shapes
/// - event `(C, …)`; buffer `order`: `(C,)`.
#[derive(Debug)]
pub struct Permute {
    shape: Vec<usize>,
    order: Param,
}

impl Permute {
    /// The permutation that sends entry `order[c]` of the data to entry `c` of the latent.
    ///
    /// # Errors
    /// [`Error::Config`] unless `order` holds each of `0..C` once.
    pub fn new(path: &ParamPath, shape: &[usize], order: &[usize]) -> Result<Self> {
        let Some(&channels) = shape.first() else {
            return Err(Error::config("permute", "needs an event with at least one dimension"));
        };
        check_permutation(order, channels)?;
        // Buffers have the store's element type; f32 holds every index below 2^24 exactly.
        let values: Vec<f64> = order.iter().map(|&i| i as f64).collect();
        let order = Tensor::from_vec(values, channels, &Device::Cpu)?;
        Ok(Permute { shape: shape.to_vec(), order: path.buffer("order", &order)? })
    }

    /// The reversed order, `π(c) = C - 1 - c`.
    ///
    /// # Errors
    /// [`Error::Config`] for an event without dimensions.
    pub fn reverse(path: &ParamPath, shape: &[usize]) -> Result<Self> {
        let channels = shape.first().copied().unwrap_or_default();
        Permute::new(path, shape, &(0..channels).rev().collect::<Vec<_>>())
    }

    /// A random order, drawn from the store's seed and the path.
    ///
    /// # Errors
    /// [`Error::Config`] for an event without dimensions.
    pub fn random(path: &ParamPath, shape: &[usize]) -> Result<Self> {
        let channels = shape.first().copied().unwrap_or_default();
        Permute::new(path, shape, &path.rng("order").permutation(channels))
    }

    /// The permutation `π`.
    ///
    /// # Errors
    /// [`Error::Config`] when a loaded buffer is no permutation.
    pub fn order(&self) -> Result<Vec<usize>> {
        let order = self.order.tensor().to_device(&Device::Cpu)?.to_dtype(DType::F64)?.to_vec1::<f64>()?;
        let order: Vec<usize> = order.into_iter().map(|v| v as usize).collect();
        check_permutation(&order, self.shape[0])?;
        Ok(order)
    }

    fn forward_index(&self) -> Result<Vec<u32>> {
        Ok(self.order()?.into_iter().map(|i| i as u32).collect())
    }

    fn backward_index(&self) -> Result<Vec<u32>> {
        let order = self.order()?;
        let mut inverse = vec![0; order.len()];
        for (position, &source) in order.iter().enumerate() {
            inverse[source] = position as u32;
        }
        Ok(inverse)
    }
}

fn check_permutation(order: &[usize], channels: usize) -> Result<()> {
    let mut seen = vec![false; channels];
    for &i in order {
        match seen.get_mut(i) {
            Some(slot) if !*slot => *slot = true,
            _ => return Err(Error::config("permute", format!("{i} is repeated or not below {channels}"))),
        }
    }
    if order.len() == channels {
        return Ok(());
    }
    Err(Error::config("permute", format!("an order of {} entries for {channels} channels", order.len())))
}

/// Entries of dimension 1 in the given order. Candle's `index_select` refuses strided input.
fn select(x: &Tensor, index: Vec<u32>) -> Result<Tensor> {
    let index = Tensor::from_vec(index, x.dim(1)?, x.device())?;
    Ok(x.contiguous()?.index_select(&index, 1)?)
}

impl Bijector for Permute {
    fn name(&self) -> String {
        "permute".into()
    }

    fn event_shape(&self) -> &[usize] {
        &self.shape
    }

    fn encode(&self, x: &Tensor, _context: Option<&Tensor>) -> Result<(Tensor, Tensor)> {
        check_batch("permute", x, &self.shape)?;
        Ok((select(x, self.forward_index()?)?, zero_log_det(x)?))
    }

    fn decode(&self, z: &Tensor, _context: Option<&Tensor>) -> Result<(Tensor, Tensor)> {
        check_batch("permute", z, &self.shape)?;
        Ok((select(z, self.backward_index()?)?, zero_log_det(z)?))
    }

    fn backprop(
        &self,
        z: &Tensor,
        _tape: &Tape,
        _context: Option<&Tensor>,
        grad_z: &Tensor,
        _grad_log_det: &Tensor,
        _gradients: &mut Gradients,
    ) -> Result<Pullback> {
        check_batch("permute", z, &self.shape)?;
        let index = self.backward_index()?;
        Ok(Pullback { x: select(z, index.clone())?, grad_x: select(&grad_z.detach(), index)?, grad_context: None })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::test_util::{check_backprop, check_bijector, normal, store64, values};

    #[test]
    fn inverse_log_det_and_gradients() {
        for shape in [&[1][..], &[5], &[4, 2, 3]] {
            let store = store64(3);
            let layer = Permute::random(&store.root(), shape).unwrap();
            let mut dims = vec![2];
            dims.extend_from_slice(shape);
            check_bijector(&layer, &normal(1, &dims), None, 1e-12);
            check_backprop(&store, &layer, &normal(1, &dims), None);
        }
    }

    #[test]
    fn entry_order_c_goes_to_entry_c() {
        let layer = Permute::new(&store64(3).root(), &[3], &[2, 0, 1]).unwrap();
        let x = Tensor::new(&[[10.0, 11.0, 12.0f64]], &Device::Cpu).unwrap();
        assert_eq!(values(&layer.encode(&x, None).unwrap().0), [12.0, 10.0, 11.0]);
        let reverse = Permute::reverse(&store64(3).root(), &[3]).unwrap();
        assert_eq!(values(&reverse.encode(&x, None).unwrap().0), [12.0, 11.0, 10.0]);
    }

    #[test]
    fn strided_input_is_accepted() {
        let layer = Permute::reverse(&store64(3).root(), &[2, 3]).unwrap();
        let x = normal(1, &[4, 3, 2]).transpose(1, 2).unwrap();
        let z = layer.encode(&x, None).unwrap().0.to_vec3::<f64>().unwrap();
        assert_eq!(z[3][0], x.to_vec3::<f64>().unwrap()[3][1]);
    }

    #[test]
    fn what_is_no_permutation_is_refused() {
        let path = store64(3).root();
        for order in [&[0, 0, 1][..], &[0, 1], &[0, 1, 3], &[0, 1, 2, 2]] {
            assert!(matches!(Permute::new(&path, &[3], order), Err(Error::Config { .. })));
        }
        assert!(Permute::random(&path, &[]).is_err());
        let layer = Permute::random(&path, &[3]).unwrap();
        layer.order.set(&Tensor::zeros(3, DType::F64, &Device::Cpu).unwrap()).unwrap();
        assert!(matches!(layer.encode(&normal(1, &[1, 3]), None), Err(Error::Config { .. })));
    }
}
