//! The network of one flow: a WaveNet over two dimensions that is causal over rows, or over one dimension.

use candle_core::{DType, Tensor};
use flow_core::kernels::{Kept, accepts, fuse};
use flow_core::nn::{ConvGeometry, conv2d, matmul};
use flow_core::param::Init;
use flow_core::{Param, ParamPath, Result};

use super::kernel::Shape;
use super::normed::{Normed, pointwise};
use super::op::NetworkOp;

/// The parameters of one residual layer.
#[derive(Debug)]
pub(super) struct Layer {
    /// `C → 2C`, 3×3 or 1×3, dilated.
    pub gate: Normed,
    /// `M → 2C`, 1×1, of the conditioner.
    pub condition: Normed,
    /// `C → 2C`, 1×1: what is added to the stream, and what goes to the head. The last layer may have the second half alone.
    pub out: Normed,
}

/// From some rows of a waveform and of its conditioner, the parameters of the affine maps that they decide (Ping et al.
/// 2019, section 3.2; Prenger et al. 2018, section 2):
///
/// `X₀ = front(x)`, `a, b = gate_l(X_l) + condition_l(c)`, `r, s = out_l(tanh a · σ(b))`, `X_{l+1} = X_l + r`,
/// `(log s, t) = head(Σ_l s)`. The head starts at zero.
#[derive(Debug)]
pub(super) struct Network {
    /// The sizes, but for the width.
    sizes: Shape,
    pub front: Normed,
    pub layers: Vec<Layer>,
    pub head_weight: Param,
    pub head_bias: Param,
}

impl Network {
    /// A network of these sizes, whatever their width; `spare` gives the last layer's `out` a half for the stream, which
    /// nothing uses, as the authors' WaveFlow has it.
    pub fn new(path: &ParamPath, sizes: Shape, spare: bool) -> Result<Self> {
        let (c, m, last) = (sizes.channels, sizes.context, sizes.dilations.len().saturating_sub(1));
        let layer = |l: usize| -> Result<Layer> {
            let path = path.pp(format!("layer{l}"));
            let outs = if l < last || spare { 2 * c } else { c };
            Ok(Layer {
                gate: Normed::new(&path.pp("gate"), [2 * c, c, sizes.kernel_rows, 3], 2 * c)?,
                condition: Normed::new(&path.pp("condition"), [2 * c, m, 1, 1], 2 * c)?,
                out: Normed::new(&path.pp("out"), [outs, c, 1, 1], outs)?,
            })
        };
        let head = path.pp("head");
        Ok(Network {
            front: Normed::new(&path.pp("front"), [c, sizes.inputs, 1, 1], c)?,
            layers: (0..=last).map(layer).collect::<Result<_>>()?,
            head_weight: head.param("weight", (sizes.outputs, c, 1, 1), Init::Const(0.0))?,
            head_bias: head.param("bias", sizes.outputs, Init::Const(0.0))?,
            sizes,
        })
    }

    pub fn dtype(&self) -> DType {
        self.head_weight.dtype()
    }

    /// Whether passes over it build a graph.
    pub fn tracked(&self) -> bool {
        self.front.tracked()
    }

    /// The sizes for the kernels.
    pub fn shape(&self, width: usize) -> Shape {
        Shape { width, ..self.sizes.clone() }
    }

    /// Parameters, `(B, rows, W, outputs)`.
    ///
    /// # Shapes
    /// - `x`: `(B, …)` with the numbers of `(input rows, W, inputs)`; `context`: `(B, context rows, W, M)`.
    pub fn forward(&self, x: &Tensor, context: &Tensor) -> Result<Tensor> {
        if !accepts(x) || x.elem_count() == 0 {
            return self.composed(x, context);
        }
        self.forward_packed(x, context, &self.packed()?)
    }

    /// The same by the kernel, from the weights of [`Network::packed`].
    pub fn forward_packed(&self, x: &Tensor, context: &Tensor, packed: &Tensor) -> Result<Tensor> {
        let (batch, _, width, _) = context.dims4()?;
        let kept = (x.track_op() || context.track_op() || packed.track_op()).then(Kept::default);
        fuse(NetworkOp { shape: self.shape(width), batch, kept }, [x, context, packed])
    }

    /// The same in Candle's operations: the specification.
    pub fn composed(&self, x: &Tensor, context: &Tensor) -> Result<Tensor> {
        let (s, c) = (&self.sizes, self.sizes.channels);
        let (batch, _, width, _) = context.dims4()?;
        if batch == 0 || width == 0 {
            // Candle's convolutions take no empty tensors.
            return Ok(Tensor::zeros((batch, s.rows(), width, s.outputs), x.dtype(), x.device())?);
        }
        let seen: Vec<u32> = s.order.iter().map(|&row| row as u32).collect();
        let seen = Tensor::from_vec(seen, s.rows(), x.device())?;
        let context = context.contiguous()?.index_select(&seen, 1)?.permute((0, 3, 1, 2))?.contiguous()?;
        let x = x.reshape((batch, s.input_rows, width, s.inputs))?.narrow(1, 0, s.rows())?;
        let x = x.permute((0, 3, 1, 2))?.contiguous()?;
        let mut x = pointwise(&x, &self.front.weight()?, &self.front.bias())?;
        let mut skips: Option<Tensor> = None;
        for (l, layer) in self.layers.iter().enumerate() {
            let pre = conv2d(&x, &layer.gate.weight()?, Some(&layer.gate.bias()), &self.geometry(l))?;
            let pre = (pre + pointwise(&context, &layer.condition.weight()?, &layer.condition.bias())?)?;
            let (a, b) = (pre.narrow(1, 0, c)?, pre.narrow(1, c, c)?);
            let sigmoid = b.affine(0.5, 0.0)?.tanh()?.affine(0.5, 0.5)?;
            let gated = (a.tanh()? * sigmoid)?;
            let out = pointwise(&gated, &layer.out.weight()?, &layer.out.bias())?;
            if l + 1 < self.layers.len() {
                x = (x + out.narrow(1, 0, c)?)?;
            }
            skips = flow_core::autodiff::add_optional(skips, Some(out.narrow(1, out.dim(1)? - c, c)?))?;
        }
        let skips = skips.unwrap_or(x);
        let params = pointwise(&skips.contiguous()?, &self.head_weight.tensor(), &self.head_bias.tensor())?;
        Ok(params.permute((0, 2, 3, 1))?.contiguous()?)
    }

    fn geometry(&self, layer: usize) -> ConvGeometry {
        let (rows, [dh, dw]) = (self.sizes.kernel_rows, self.sizes.dilations[layer]);
        let width = if self.sizes.causal { [2 * dw, 0] } else { [dw, dw] };
        ConvGeometry::new([rows, 3]).dilation([dh, dw]).padding([[(rows - 1) * dh, 0], width])
    }

    /// All weights as [`Shape::lengths`] lays them out.
    ///
    /// Nothing lies between the skip half of `out` and the head but a sum, so each layer's skip weights are multiplied with
    /// the head's: as many outputs a layer as there are parameters instead of `C`. Both receive their gradients through that
    /// product.
    pub fn packed(&self) -> Result<Tensor> {
        let (c, outputs) = (self.sizes.channels, self.sizes.outputs);
        let head = self.head_weight.tensor().reshape((outputs, c))?;
        let mut constant = self.head_bias.tensor().reshape((outputs, 1))?;
        let front = self.front.weight()?.flatten_from(1)?.t()?.contiguous()?;
        let mut parts = vec![front.flatten_all()?, self.front.bias()];
        for (l, layer) in self.layers.iter().enumerate() {
            parts.push(layer.gate.weight()?.permute((2, 3, 1, 0))?.contiguous()?.flatten_all()?);
            parts.push(layer.condition.weight()?.flatten_from(1)?.t()?.contiguous()?.flatten_all()?);
            parts.push((layer.gate.bias() + layer.condition.bias())?);
            let (out, bias) = (layer.out.weight()?.flatten_from(1)?, layer.out.bias());
            if l + 1 < self.layers.len() {
                parts.push(out.narrow(0, 0, c)?.t()?.contiguous()?.flatten_all()?);
                parts.push(bias.narrow(0, 0, c)?);
            }
            let skips = out.dim(0)? - c;
            parts.push(matmul(&head, &out.narrow(0, skips, c)?)?.t()?.contiguous()?.flatten_all()?);
            constant = (constant + matmul(&head, &bias.narrow(0, skips, c)?.reshape((c, 1))?)?)?;
        }
        parts.push(constant.flatten_all()?);
        Ok(Tensor::cat(&parts, 0)?)
    }
}
