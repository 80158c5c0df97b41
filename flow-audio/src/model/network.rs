//! The network of one flow: a WaveNet over two dimensions, causal over rows.

use candle_core::{DType, Tensor};
use flow_core::kernels::{Kept, accepts, fuse};
use flow_core::nn::{ConvGeometry, conv2d, matmul};
use flow_core::param::Init;
use flow_core::{Param, ParamPath, Result};

use super::WaveFlowConfig;
use super::kernel::Shape;
use super::normed::{Normed, pointwise};
use super::op::NetworkOp;

/// The parameters of one residual layer.
#[derive(Debug)]
pub(super) struct Layer {
    /// `C → 2C`, 3×3, dilated.
    pub gate: Normed,
    /// `M → 2C`, 1×1, of the conditioner.
    pub condition: Normed,
    /// `C → 2C`, 1×1: what is added to the stream, and what goes to the head.
    pub out: Normed,
}

/// From rows `0..h-1` of a waveform and rows `1..h` of its conditioner, log-scale and shift of rows `1..h`
/// (Ping et al. 2019, section 3.2):
///
/// `X₀ = front(x)`, `a, b = gate_l(X_l) + condition_l(c)`, `r, s = out_l(tanh a · σ(b))`, `X_{l+1} = X_l + r`,
/// `(log s, t) = head(Σ_l s)`. The head starts at zero.
#[derive(Debug)]
pub(super) struct Network {
    pub config: WaveFlowConfig,
    pub front: Normed,
    pub layers: Vec<Layer>,
    pub head_weight: Param,
    pub head_bias: Param,
}

impl Network {
    pub fn new(path: &ParamPath, config: &WaveFlowConfig) -> Result<Self> {
        let (c, m) = (config.channels, config.mels);
        let layer = |l: usize| -> Result<Layer> {
            let path = path.pp(format!("layer{l}"));
            Ok(Layer {
                gate: Normed::new(&path.pp("gate"), [2 * c, c, 3, 3], 2 * c)?,
                condition: Normed::new(&path.pp("condition"), [2 * c, m, 1, 1], 2 * c)?,
                out: Normed::new(&path.pp("out"), [2 * c, c, 1, 1], 2 * c)?,
            })
        };
        let head = path.pp("head");
        Ok(Network {
            front: Normed::new(&path.pp("front"), [c, 1, 1, 1], c)?,
            layers: (0..config.layers).map(layer).collect::<Result<_>>()?,
            head_weight: head.param("weight", (2, c, 1, 1), Init::Const(0.0))?,
            head_bias: head.param("bias", 2, Init::Const(0.0))?,
            config: config.clone(),
        })
    }

    pub fn dtype(&self) -> DType {
        self.head_weight.dtype()
    }

    /// The sizes for the kernels; row `i` of the waveform goes with row `order[i]` of the context.
    pub fn shape(&self, width: usize, order: &[usize]) -> Shape {
        let c = &self.config;
        Shape {
            height: c.height,
            width,
            channels: c.channels,
            mels: c.mels,
            dilations: (0..c.layers).map(|l| [c.height_dilation(l), c.width_dilation(l)]).collect(),
            causal: c.causal_width,
            order: order.to_vec(),
        }
    }

    /// Log-scale and shift, `(B, h - 1, W, 2)`.
    ///
    /// # Shapes
    /// - `x`: `(B, h, W)`; `context`: `(B, h, W, M)`, its rows in the order of the waveform's first.
    pub fn forward(&self, x: &Tensor, context: &Tensor, order: &[usize]) -> Result<Tensor> {
        let (batch, _, width) = x.dims3()?;
        if !accepts(x) || batch == 0 {
            return self.composed(x, context, order);
        }
        let kept = (x.track_op() || context.track_op() || self.front.tracked()).then(Kept::default);
        fuse(NetworkOp { shape: self.shape(width, order), batch, kept }, [x, context, &self.packed()?])
    }

    /// The same in Candle's operations: the specification.
    pub fn composed(&self, x: &Tensor, context: &Tensor, order: &[usize]) -> Result<Tensor> {
        let (rows, c) = (self.config.height - 1, self.config.channels);
        let later: Vec<u32> = order[1..].iter().map(|&row| row as u32).collect();
        let later = Tensor::from_vec(later, rows, x.device())?;
        let context = context.contiguous()?.index_select(&later, 1)?.permute((0, 3, 1, 2))?.contiguous()?;
        let x = x.narrow(1, 0, rows)?.unsqueeze(1)?.contiguous()?;
        let mut x = pointwise(&x, &self.front.weight()?, &self.front.bias())?;
        let mut skips: Option<Tensor> = None;
        for (l, layer) in self.layers.iter().enumerate() {
            let pre = conv2d(&x, &layer.gate.weight()?, Some(&layer.gate.bias()), &self.geometry(l))?;
            let pre = (pre + pointwise(&context, &layer.condition.weight()?, &layer.condition.bias())?)?;
            let (a, b) = (pre.narrow(1, 0, c)?, pre.narrow(1, c, c)?);
            let sigmoid = b.affine(0.5, 0.0)?.tanh()?.affine(0.5, 0.5)?;
            let gated = (a.tanh()? * sigmoid)?;
            let out = pointwise(&gated, &layer.out.weight()?, &layer.out.bias())?;
            x = (x + out.narrow(1, 0, c)?)?;
            skips = flow_core::autodiff::add_optional(skips, Some(out.narrow(1, c, c)?))?;
        }
        let skips = skips.unwrap_or(x);
        let params = pointwise(&skips.contiguous()?, &self.head_weight.tensor(), &self.head_bias.tensor())?;
        Ok(params.permute((0, 2, 3, 1))?.contiguous()?)
    }

    fn geometry(&self, layer: usize) -> ConvGeometry {
        let (dh, dw) = (self.config.height_dilation(layer), self.config.width_dilation(layer));
        let width = if self.config.causal_width { [2 * dw, 0] } else { [dw, dw] };
        ConvGeometry::new([3, 3]).dilation([dh, dw]).padding([[2 * dh, 0], width])
    }

    /// All weights as [`Shape::lengths`] lays them out.
    ///
    /// Nothing lies between the skip half of `out` and the head but a sum, so each layer's skip weights are multiplied with
    /// the head's: 2 outputs a layer instead of `C`. Both receive their gradients through that product.
    pub fn packed(&self) -> Result<Tensor> {
        let c = self.config.channels;
        let head = self.head_weight.tensor().reshape((2, c))?;
        let mut constant = self.head_bias.tensor().reshape((2, 1))?;
        let mut parts = vec![self.front.weight()?.flatten_all()?, self.front.bias()];
        for (l, layer) in self.layers.iter().enumerate() {
            parts.push(layer.gate.weight()?.permute((2, 3, 1, 0))?.contiguous()?.flatten_all()?);
            parts.push(layer.condition.weight()?.flatten_from(1)?.t()?.contiguous()?.flatten_all()?);
            parts.push((layer.gate.bias() + layer.condition.bias())?);
            let (out, bias) = (layer.out.weight()?.flatten_from(1)?, layer.out.bias());
            if l + 1 < self.layers.len() {
                parts.push(out.narrow(0, 0, c)?.t()?.contiguous()?.flatten_all()?);
                parts.push(bias.narrow(0, 0, c)?);
            }
            parts.push(matmul(&head, &out.narrow(0, c, c)?)?.t()?.contiguous()?.flatten_all()?);
            constant = (constant + matmul(&head, &bias.narrow(0, c, c)?.reshape((c, 1))?)?)?;
        }
        parts.push(constant.flatten_all()?);
        Ok(Tensor::cat(&parts, 0)?)
    }
}
