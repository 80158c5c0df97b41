//! Stacks of affine layers whose inputs are in part the same for many rows.

use candle_core::{DType, Tensor};

use crate::cnf::FieldActivation;
use crate::nn::matmul;
use crate::param::{Init, Param, ParamPath};
use crate::{Error, Result};

/// `y = x W + s V + b`, where `s` is shared by the rows of a group.
///
/// The same as one affine layer over `[x, s]`, but `s V + b` is computed once for each group.
///
/// # Shapes
/// - `x`: `(B, I)`; `s`: `(G, S)`, `G` divides `B`; `y`: `(B, O)`.
#[derive(Debug)]
struct Dense {
    weight: Param,
    shared: Option<Param>,
    bias: Param,
}

impl Dense {
    /// Parameters `weight`, `shared` (unless `shared` is zero) and `bias`, all uniform in `±1/√(I + S)`.
    fn new(path: &ParamPath, inputs: usize, shared: usize, outputs: usize) -> Result<Self> {
        let init = Init::Uniform(1.0 / ((inputs + shared).max(1) as f64).sqrt());
        Ok(Dense {
            weight: path.param("weight", (inputs, outputs), init)?,
            shared: if shared == 0 { None } else { Some(path.param("shared", (shared, outputs), init)?) },
            bias: path.param("bias", outputs, init)?,
        })
    }

    fn forward(&self, x: &Tensor, shared: &Tensor) -> Result<Tensor> {
        let y = matmul(x, &self.weight.tensor())?;
        let Some(weight) = &self.shared else { return Ok(y.broadcast_add(&self.bias.tensor())?) };
        let offset = matmul(shared, &weight.tensor())?.broadcast_add(&self.bias.tensor())?;
        let (groups, outputs) = offset.dims2()?;
        if groups == 1 {
            return Ok(y.broadcast_add(&offset)?);
        }
        if groups == y.dim(0)? {
            return Ok((y + offset)?);
        }
        let rows = y.dims().to_vec();
        let y = y.reshape((groups, (), outputs))?.broadcast_add(&offset.unsqueeze(1)?)?;
        Ok(y.reshape(rows)?)
    }

    /// The derivative along `v`.
    fn tangent(&self, v: &Tensor) -> Result<Tensor> {
        matmul(v, &self.weight.tensor())
    }
}

/// Affine layers with an activation between, and none after the last.
#[derive(Debug)]
pub(super) struct Stack {
    layers: Vec<Dense>,
    activation: FieldActivation,
}

impl Stack {
    /// Layers `0`, `1`, … under `path` through widths `dim, hidden…, dim`; `shared` numbers enter every layer, or
    /// the first alone.
    pub(super) fn new(
        path: &ParamPath,
        dim: usize,
        hidden: &[usize],
        activation: FieldActivation,
        shared: usize,
        everywhere: bool,
    ) -> Result<Self> {
        let mut layers = Vec::with_capacity(hidden.len() + 1);
        let mut width = dim;
        for (i, &next) in hidden.iter().chain([&dim]).enumerate() {
            let shared = if everywhere || i == 0 { shared } else { 0 };
            layers.push(Dense::new(&path.pp(i), width, shared, next)?);
            width = next;
        }
        Ok(Stack { layers, activation })
    }

    /// The element type of the parameters.
    pub(super) fn dtype(&self) -> DType {
        self.layers[0].weight.dtype()
    }

    pub(super) fn value(&self, x: &Tensor, shared: &Tensor) -> Result<Tensor> {
        let mut h = x.contiguous()?;
        for (i, layer) in self.layers.iter().enumerate() {
            h = layer.forward(&h, shared)?;
            if i + 1 < self.layers.len() {
                h = self.activation.apply(&h)?;
            }
        }
        Ok(h)
    }

    /// The value and the derivative along every tangent.
    pub(super) fn jvp(&self, x: &Tensor, tangents: &[Tensor], shared: &Tensor) -> Result<(Tensor, Vec<Tensor>)> {
        let mut h = x.contiguous()?;
        let mut tangents = tangents.iter().map(Tensor::contiguous).collect::<candle_core::Result<Vec<_>>>()?;
        for (i, layer) in self.layers.iter().enumerate() {
            h = layer.forward(&h, shared)?;
            tangents = tangents.iter().map(|v| layer.tangent(v)).collect::<Result<_>>()?;
            if i + 1 < self.layers.len() {
                let (value, slope) = self.activation.apply_with_slope(&h)?;
                tangents = tangents.iter().map(|v| Ok((v * &slope)?)).collect::<Result<_>>()?;
                h = value;
            }
        }
        Ok((h, tangents))
    }
}

/// Refuses sizes of zero.
///
/// # Errors
/// [`Error::Config`] that names `field`.
pub(super) fn check_sizes(field: &str, dim: usize, hidden: &[usize], context: Option<usize>) -> Result<()> {
    if dim == 0 {
        return Err(Error::config(format!("{field} dimension"), "is 0, at least 1 is needed"));
    }
    if hidden.contains(&0) {
        return Err(Error::config(format!("{field} hidden widths"), format!("{hidden:?} contains zero")));
    }
    if context == Some(0) {
        return Err(Error::config(format!("{field} context"), "has no entries; leave it out instead"));
    }
    Ok(())
}
