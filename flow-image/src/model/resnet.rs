//! The residual conditioner network of RealNVP.

use candle_core::Tensor;
use flow_core::nn::{BatchNorm, Conditioner, ConvGeometry, WeightNormConv2d, WeightNormOptions};
use flow_core::{Error, Init, Param, ParamPath, Result};

/// Sizes of a [`ResNet`].
#[derive(Debug, Clone, Copy)]
pub(crate) struct ResNetSize {
    pub(crate) inputs: usize,
    pub(crate) width: usize,
    pub(crate) outputs: usize,
    pub(crate) blocks: usize,
}

const UNIT: WeightNormOptions = WeightNormOptions::new(false, true);
const BEFORE_NORM: WeightNormOptions = WeightNormOptions::new(false, false);
const SCALED: WeightNormOptions = WeightNormOptions::new(true, true);

/// `max(x, 0)`, which unlike Candle's `relu` does not turn a NaN into a zero.
fn rectify(x: &Tensor) -> Result<Tensor> {
    Ok(x.maximum(0.0)?)
}

/// A residual network whose output is read from 1×1 skip convolutions of every block (Dinh et al. 2017,
/// sections 3.3 and 4.1, in the layout of the authors' code).
///
/// All convolutions are weight-normalised; batch norms have a shift but no scale.
struct ResNet {
    input: WeightNormConv2d,
    input_skip: WeightNormConv2d,
    blocks: Vec<Block>,
    norm: BatchNorm,
    output: WeightNormConv2d,
}

/// `x + conv(relu(norm(conv(relu(norm(x))))))` and the skip convolution of the sum.
struct Block {
    norms: [BatchNorm; 2],
    convs: [WeightNormConv2d; 2],
    skip: WeightNormConv2d,
}

impl Block {
    fn new(path: &ParamPath, width: usize) -> Result<Self> {
        let conv = |name: &str, kernel: usize, options| {
            WeightNormConv2d::new(&path.pp(name), width, width, ConvGeometry::same(kernel), options)
        };
        Ok(Block {
            norms: [BatchNorm::new(&path.pp("norm0"), width, false)?, BatchNorm::new(&path.pp("norm1"), width, false)?],
            convs: [conv("conv0", 3, BEFORE_NORM)?, conv("conv1", 3, SCALED)?],
            skip: conv("skip", 1, SCALED)?,
        })
    }

    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let mut h = x.clone();
        for (norm, conv) in self.norms.iter().zip(&self.convs) {
            h = conv.forward(&rectify(&norm.forward(&h)?)?)?;
        }
        Ok((x + h)?)
    }
}

impl ResNet {
    fn new(path: &ParamPath, size: ResNetSize) -> Result<Self> {
        let ResNetSize { inputs, width, outputs, blocks } = size;
        if width == 0 || blocks == 0 {
            let reason = format!("needs width and blocks of at least 1, got {width} and {blocks}");
            return Err(Error::config("residual network", reason));
        }
        let conv = |name: &str, from: usize, to: usize, kernel: usize, options| {
            WeightNormConv2d::new(&path.pp(name), from, to, ConvGeometry::same(kernel), options)
        };
        Ok(ResNet {
            input: conv("input", inputs, width, 3, UNIT)?,
            input_skip: conv("input_skip", width, width, 1, SCALED)?,
            blocks: (0..blocks).map(|i| Block::new(&path.pp(format!("block{i}")), width)).collect::<Result<_>>()?,
            norm: BatchNorm::new(&path.pp("norm"), width, false)?,
            output: conv("output", width, outputs, 1, SCALED)?,
        })
    }

    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let mut h = self.input.forward(x)?;
        let mut sum = self.input_skip.forward(&h)?;
        for block in &self.blocks {
            h = block.forward(&h)?;
            sum = (sum + block.skip.forward(&h)?)?;
        }
        self.output.forward(&rectify(&self.norm.forward(&sum)?)?)
    }

    fn convolutions(&self) -> impl Iterator<Item = &WeightNormConv2d> {
        let inner = self.blocks.iter().flat_map(|b| b.convs.iter().chain([&b.skip]));
        [&self.input, &self.input_skip, &self.output].into_iter().chain(inner)
    }

    fn set_training(&self, training: bool) {
        let norms = self.blocks.iter().flat_map(|b| &b.norms).chain([&self.norm]);
        norms.for_each(|n| n.set_training(training));
    }
}

/// What the conditioner of a RealNVP coupling sees besides the untouched entries.
pub(crate) enum Seen {
    /// A checkerboard `(1, H, W)`, one where entries are untouched: an extra input channel. The
    /// normalised input is doubled, since half of it is zero.
    Checkerboard(Tensor),
    /// Nothing: the input is half of the channels.
    Channels,
}

/// The conditioner of a RealNVP coupling: shift `t` and log-scale `s = g · tanh(raw)`.
///
/// Input `x` becomes `relu([r, -r, mask])` with `r` its batch norm, then goes through a [`ResNet`]. The
/// learned scalar `g` bounds the log-scale, `|s| < |g|`, and belongs here and not to the transformer,
/// so that its gradient comes with the network's.
pub(crate) struct RealNvpNet {
    norm: BatchNorm,
    seen: Seen,
    net: ResNet,
    rescale: Param,
}

impl RealNvpNet {
    /// A network from `channels` seen channels to shift and log-scale of `moved` transformed ones.
    pub(crate) fn new(
        path: &ParamPath,
        channels: usize,
        moved: usize,
        seen: Seen,
        width: usize,
        blocks: usize,
    ) -> Result<Self> {
        let (extra, rescale) = match seen {
            Seen::Checkerboard(_) => (1, 0.0),
            Seen::Channels => (0, 1.0),
        };
        let size = ResNetSize { inputs: 2 * channels + extra, width, outputs: 2 * moved, blocks };
        Ok(RealNvpNet {
            norm: BatchNorm::new(&path.pp("norm"), channels, false)?,
            seen,
            net: ResNet::new(&path.pp("resnet"), size)?,
            rescale: path.param("rescale", 1, Init::Const(rescale))?,
        })
    }

    /// What the authors penalise: the magnitudes of weight-normalised kernels and the scale of the log-scales.
    pub(crate) fn penalised(&self) -> impl Iterator<Item = Param> {
        self.net.convolutions().filter_map(WeightNormConv2d::magnitude).chain([&self.rescale]).cloned()
    }

    fn features(&self, x: &Tensor) -> Result<Tensor> {
        let r = self.norm.forward(x)?;
        let both = match &self.seen {
            Seen::Channels => Tensor::cat(&[&r, &r.neg()?], 1)?,
            Seen::Checkerboard(mask) => {
                let r = r.affine(2.0, 0.0)?;
                let (b, _, h, w) = x.dims4()?;
                let mask = mask.to_dtype(x.dtype())?.to_device(x.device())?.broadcast_as((b, 1, h, w))?;
                Tensor::cat(&[&r, &r.neg()?, &mask.contiguous()?], 1)?
            }
        };
        rectify(&both)
    }
}

impl Conditioner for RealNvpNet {
    fn forward(&self, x: &Tensor, _context: Option<&Tensor>) -> Result<Tensor> {
        let h = self.net.forward(&self.features(x)?)?;
        let (b, c, height, width) = h.dims4()?;
        let pairs = h.reshape((b, c / 2, 2, height, width))?;
        let raw = pairs.narrow(2, 1, 1)?.contiguous()?;
        let log_scale = raw.tanh()?.broadcast_mul(&self.rescale.tensor())?;
        Ok(Tensor::cat(&[&pairs.narrow(2, 0, 1)?, &log_scale], 2)?.reshape((b, c, height, width))?)
    }

    fn set_training(&self, training: bool) {
        self.norm.set_training(training);
        self.net.set_training(training);
    }
}
