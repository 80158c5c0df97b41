//! Elements as rows: the layout in which splines and mixtures reduce over their parameters.

use candle_core::Tensor;

use super::Transformer;
use crate::{Error, Result};

/// Elements `(B, C, …)` as a column `(M, 1)` and their parameters `(B, C, P, …)` as rows `(M, P)`.
///
/// Candle's reductions are fast over the last dimension only.
pub(super) struct Rows {
    pub(super) values: Tensor,
    pub(super) params: Tensor,
    dims: Vec<usize>,
}

impl Rows {
    /// Checks that `params` fits `values` and `transformer`, and rearranges both.
    ///
    /// # Errors
    /// [`Error::Shape`] naming the transformer.
    pub(super) fn new(transformer: &dyn Transformer, values: &Tensor, params: &Tensor) -> Result<Self> {
        let (dims, per) = (values.dims().to_vec(), transformer.params_per_element());
        let mut expected = dims.clone();
        expected.insert(dims.len().min(2), per);
        if dims.len() < 2 || params.dims() != expected {
            return Err(Error::Shape {
                layer: format!("{} (parameters)", transformer.name()),
                expected: format!("{expected:?}, {per} parameters for each element of {dims:?}"),
                actual: params.dims().to_vec(),
            });
        }
        let (count, positions) = (values.elem_count(), dims[2..].iter().product::<usize>());
        let params = params.reshape((dims[0] * dims[1], per, positions))?.transpose(1, 2)?;
        Ok(Rows {
            values: values.contiguous()?.reshape((count, 1))?,
            params: params.contiguous()?.reshape((count, per))?,
            dims,
        })
    }

    /// Two columns `(M, 1)` in the shape of the elements.
    pub(super) fn restore(&self, value: &Tensor, log: &Tensor) -> Result<(Tensor, Tensor)> {
        Ok((value.reshape(self.dims.as_slice())?, log.reshape(self.dims.as_slice())?))
    }
}
