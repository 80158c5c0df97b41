//! The network of the autoregressive prior over latents: residual blocks of causal, dilated convolutions over the last
//! steps of a clip.
//!
//! Composed operations are the specification and the path of other devices; on the CPU the blocks are fused kernels.

mod branch;
mod kernel;
mod op;
#[cfg(test)]
mod parity;
#[cfg(test)]
mod speed;
#[cfg(test)]
mod tests;

use candle_core::{DType, Tensor};
use flow_core::bijector::check_batch_as;
use flow_core::kernels::{accepts, fuse};
use flow_core::{Error, Param, ParamPath, Result};

use branch::Branch;
use kernel::Shape;
use op::{BlockOp, Relayout, evaluate};

/// Time steps that a network may see.
const MOST_STEPS: usize = 8;

/// The sizes of a [`LatentNet`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LatentNetConfig {
    /// Channels of a step, and of the output.
    pub channels: usize,
    /// Time steps of the input, `1..=8`.
    pub steps: usize,
    /// Rows of a frame of latents.
    pub height: usize,
    /// Columns of a frame of latents.
    pub width: usize,
    /// Channels of the hidden layers.
    pub hidden: usize,
    /// Residual blocks.
    pub blocks: usize,
    /// Whether a block has, beside its branch without dilation, one of dilation 2 where the smaller side is at least 5
    /// and one of dilation 4 where it is at least 9.
    pub dilations: bool,
    /// Whether the second hidden layer is `tanh · σ` of two convolutions, or a rectified one.
    pub gated: bool,
}

impl LatentNetConfig {
    fn check(&self) -> Result<()> {
        let reason = if !(1..=MOST_STEPS).contains(&self.steps) {
            format!("takes 1 to {MOST_STEPS} time steps, not {}", self.steps)
        } else if [self.channels, self.height, self.width, self.hidden, self.blocks].contains(&0) {
            format!("no size may be zero: {self:?}")
        } else {
            return Ok(());
        };
        Err(Error::config("latent network", reason))
    }

    /// The dilations of a block's branches.
    fn dilations(&self) -> Vec<usize> {
        let side = self.height.min(self.width);
        let more = [(2, 5), (4, 9)].into_iter().filter(|&(_, least)| self.dilations && side >= least);
        std::iter::once(1).chain(more.map(|(dilation, _)| dilation)).collect()
    }

    /// The sizes of a block with `after` others after it: steps that nothing asks for are not computed.
    fn block(&self, after: usize) -> Shape {
        Shape {
            channels: self.channels,
            hidden: self.hidden,
            gated: self.gated,
            steps: self.steps,
            outputs: self.steps.min(1 + 2 * after),
            height: self.height,
            width: self.width,
            dilations: self.dilations(),
        }
    }
}

/// `X ← X + Σ_d branch_d(X)` for every block, then the last time step of `X`: the network of VideoFlow's prior
/// `p(z_t | z_<t, h_t)` (Kumar et al. 2019, arXiv 1903.01434, section 4.2 and the authors' code, `conv3d_net`).
///
/// A branch of dilation `d` is
/// `out = (conv(g) + b)·exp(3 l)`, `g = tanh(an(W h)) · σ(an(W′ h))` or `relu(an(W h))`, `h = relu(an(conv(X)))`, where
///
/// - `conv` has a kernel of two time steps, this one and the one before, and 3×3 pixels `d` apart; it is padded with
///   zeros, by one step before the first, and sees one more channel that is one on the padding and zero inside. With one
///   time step in all the kernel has one;
/// - `an` is activation normalization `(x + b)·exp(3 l)` with parameters for each time step, set from data
///   ([`LatentNet::initialize`]);
/// - the last convolution starts at zero, so that the network starts as the last time step itself.
///
/// On the CPU fused kernels compute the blocks: for a single clip on all threads, and with the same bits for any number of
/// them. A graph keeps the inputs of the blocks; the backward pass computes their hidden layers again.
///
/// # Shapes
/// - `x`: `(B, n, C, H, W)`, oldest step first; output `(B, C, H, W)`.
#[derive(Debug)]
pub struct LatentNet {
    config: LatentNetConfig,
    blocks: Vec<Block>,
}

/// One residual block.
#[derive(Debug)]
struct Block {
    shape: Shape,
    branches: Vec<Branch>,
}

impl Block {
    fn new(path: &ParamPath, shape: Shape) -> Result<Self> {
        let branch = |&d: &usize| Branch::new(&path.pp(format!("dilation{d}")), &shape, d);
        Ok(Block { branches: shape.dilations.iter().map(branch).collect::<Result<_>>()?, shape })
    }

    fn params(&self) -> impl Iterator<Item = &Param> {
        self.branches.iter().flat_map(|branch| &branch.params)
    }

    /// All parameters one after the other: the second argument of the fused operation.
    fn packed(&self) -> Result<Tensor> {
        let flat: Vec<Tensor> = self.params().map(|p| p.tensor().flatten_all()).collect::<candle_core::Result<_>>()?;
        Ok(Tensor::cat(&flat, 0)?)
    }

    /// `x` and what every branch makes of it by `f`.
    fn sum(&self, x: &Tensor, f: impl Fn(&Branch, &Tensor) -> Result<Tensor>) -> Result<Tensor> {
        self.branches.iter().try_fold(x.clone(), |sum, branch| Ok((sum + f(branch, x)?)?))
    }
}

impl LatentNet {
    /// A network with parameters `block{i}.dilation{d}.{first, second, last}.{weight, flag, bias, log_scale}` under
    /// `path`; hidden weights are Gaussian with deviation 0.05.
    ///
    /// # Errors
    /// [`flow_core::Error::Config`] when a size is zero or there are more than eight steps, or a name is taken.
    pub fn new(path: &ParamPath, config: &LatentNetConfig) -> Result<Self> {
        config.check()?;
        let block = |i: usize| Block::new(&path.pp(format!("block{i}")), config.block(config.blocks - 1 - i));
        Ok(LatentNet { config: *config, blocks: (0..config.blocks).map(block).collect::<Result<_>>()? })
    }

    /// The sizes.
    pub fn config(&self) -> &LatentNetConfig {
        &self.config
    }

    /// The last time step after all blocks.
    ///
    /// # Shapes
    /// - `x`: `(B, n, C, H, W)`, oldest step first; output `(B, C, H, W)`.
    ///
    /// # Errors
    /// Another shape or type than the parameters'.
    pub fn forward(&self, x: &Tensor) -> Result<Tensor> {
        if self.check(x)? == 0 {
            return self.last_step(x);
        }
        match x.dtype() {
            _ if !accepts(x) => self.composed(x),
            _ if x.track_op() || self.tracked() => self.fused(x),
            DType::F32 => evaluate::<f32>(self.readable(), x),
            _ => evaluate::<f64>(self.readable(), x),
        }
    }

    /// The same network in Candle's operations.
    ///
    /// # Errors
    /// As for [`LatentNet::forward`].
    pub fn composed(&self, x: &Tensor) -> Result<Tensor> {
        self.check(x)?;
        let x = self.blocks.iter().try_fold(x.clone(), |x, block| block.sum(&x, Branch::composed))?;
        self.last_step(&x)
    }

    /// Sets every activation normalization so that each channel of each time step leaves it with mean 0 and deviation 1
    /// on this batch, in the order of the pass; returns the output with the new parameters.
    ///
    /// # Errors
    /// As for [`LatentNet::forward`], and a batch without rows or with numbers that are not finite.
    pub fn initialize(&self, x: &Tensor) -> Result<Tensor> {
        self.check(x)?;
        let x = self.blocks.iter().try_fold(x.clone(), |x, block| block.sum(&x, Branch::initialize))?;
        self.last_step(&x)
    }

    /// The batch size.
    fn check(&self, x: &Tensor) -> Result<usize> {
        let LatentNetConfig { channels, steps, height, width, .. } = self.config;
        let params = self.blocks.iter().flat_map(Block::params);
        let dtype = params.map(Param::dtype).next().unwrap_or(DType::F32);
        check_batch_as("latent network", x, &[steps, channels, height, width], dtype)
    }

    fn last_step(&self, x: &Tensor) -> Result<Tensor> {
        Ok(x.narrow(1, self.config.steps - 1, 1)?.squeeze(1)?)
    }

    /// Whether a parameter is tracked.
    fn tracked(&self) -> bool {
        self.blocks.iter().flat_map(Block::params).any(Param::tracked)
    }

    /// What [`evaluate`] takes.
    fn readable(&self) -> impl Iterator<Item = (&Shape, Vec<&Param>)> {
        self.blocks.iter().map(|block| (&block.shape, block.params().collect()))
    }

    /// The fused operations in a graph.
    fn fused(&self, x: &Tensor) -> Result<Tensor> {
        let (batch, steps, c, h, w) = x.dims5()?;
        let wanted = self.config.block(self.config.blocks - 1).input_steps();
        let x = x.narrow(1, steps - wanted, wanted)?;
        let mut x = fuse(Relayout { to: [batch, wanted, h, w, c], columns: h * w }, [&x])?;
        for block in &self.blocks {
            x = fuse(BlockOp { shape: block.shape.clone(), batch }, [&x, &block.packed()?])?;
        }
        Ok(fuse(Relayout { to: [batch, 1, c, h, w], columns: c }, [&x])?.squeeze(1)?)
    }
}
