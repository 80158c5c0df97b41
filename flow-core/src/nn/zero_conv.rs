//! The zero-initialised convolution with an edge indicator, of the Glow authors' code.

use candle_core::Tensor;

use super::Conditioner;
use super::conv::{ConvGeometry, conv2d};
use crate::Result;
use crate::kernels::LOG_SCALE_FACTOR;
use crate::param::{Init, Param, ParamPath};

/// `out = (conv₃(x) + b) · exp(3 l)`, everything zero at the start.
///
/// The convolution sees one more channel that is one on the zero padding and zero inside, so that it
/// can tell the border from a black pixel (Kingma & Dhariwal 2018, section 3.3 and the authors' code).
///
/// # Shapes
/// - `x`: `(B, C, H, W)`; output `(B, O, H, W)`.
#[derive(Debug, Clone)]
pub struct ZeroConv {
    weight: Param,
    bias: Param,
    log_scale: Param,
}

impl ZeroConv {
    /// Parameters `weight (O, C+1, 3, 3)`, `bias (O)` and `log_scale (O)` under `path`.
    ///
    /// With no input channels the layer is a constant map, see [`ZeroConv::constant`].
    pub fn new(path: &ParamPath, inputs: usize, outputs: usize) -> Result<Self> {
        let zero = Init::Const(0.0);
        Ok(ZeroConv {
            weight: path.param("weight", (outputs, inputs + 1, 3, 3), zero)?,
            bias: path.param("bias", outputs, zero)?,
            log_scale: path.param("log_scale", outputs, zero)?,
        })
    }

    /// The output for an image of zeros, `(1, O, H, W)`: what the edge channel and the bias give.
    ///
    /// A learned top prior is this map; weights of the zero channels would never be trained.
    pub fn constant(&self, height: usize, width: usize) -> Result<Tensor> {
        let weight = self.weight.tensor();
        let edge = weight.narrow(1, weight.dim(1)? - 1, 1)?;
        norm(&edge_map(&edge, height, width)?, &self.bias.tensor(), &self.log_scale.tensor())
    }
}

impl Conditioner for ZeroConv {
    fn forward(&self, x: &Tensor, _context: Option<&Tensor>) -> Result<Tensor> {
        norm(&edge_conv(x, &self.weight.tensor())?, &self.bias.tensor(), &self.log_scale.tensor())
    }
}

/// `(x + b) · exp(3 l)` per channel.
pub(super) fn norm(x: &Tensor, bias: &Tensor, log_scale: &Tensor) -> Result<Tensor> {
    let scale = log_scale.affine(LOG_SCALE_FACTOR, 0.0)?.exp()?;
    Ok(x.broadcast_add(&bias.reshape((1, (), 1, 1))?)?.broadcast_mul(&scale.reshape((1, (), 1, 1))?)?)
}

/// A 3×3 convolution of `x`, zero-padded, with one more channel that is one on the padding.
///
/// The extra channel is the same for every sample, so its part is computed once and added.
pub(super) fn edge_conv(x: &Tensor, weight: &Tensor) -> Result<Tensor> {
    let (_, c, h, w) = x.dims4()?;
    let inside = conv2d(x, &weight.narrow(1, 0, c)?, None, &ConvGeometry::same(3))?;
    Ok(inside.broadcast_add(&edge_map(&weight.narrow(1, c, 1)?, h, w)?)?)
}

/// What a 3×3 kernel `(O, 1, 3, 3)` makes of an image that is zero inside and one around: `(1, O, H, W)`.
fn edge_map(weight: &Tensor, h: usize, w: usize) -> Result<Tensor> {
    let inside = Tensor::full(-1.0_f32, (1, 1, h, w), weight.device())?.to_dtype(weight.dtype())?;
    let edge = inside.pad_with_zeros(2, 1, 1)?.pad_with_zeros(3, 1, 1)?.affine(1.0, 1.0)?;
    conv2d(&edge, weight, None, &ConvGeometry { padding: [[0, 0]; 2], ..ConvGeometry::same(3) })
}
