//! Placeholder until the network is here.
use candle_core::Tensor;
use flow_core::{ParamPath, Result};
/// Sizes.
pub struct LatentNetConfig {
    /// Channels.
    pub channels: usize,
    /// Steps.
    pub steps: usize,
    /// Height.
    pub height: usize,
    /// Width.
    pub width: usize,
    /// Hidden.
    pub hidden: usize,
    /// Blocks.
    pub blocks: usize,
    /// Dilations.
    pub dilations: bool,
    /// Gated.
    pub gated: bool,
}
/// Net.
pub struct LatentNet;
impl LatentNet {
    /// New.
    pub fn new(_path: &ParamPath, _config: &LatentNetConfig) -> Result<Self> {
        Ok(LatentNet)
    }
    /// Forward.
    pub fn forward(&self, x: &Tensor) -> Result<Tensor> {
        Ok(x.narrow(1, x.dim(1)? - 1, 1)?.squeeze(1)?)
    }
    /// Init.
    pub fn initialize(&self, x: &Tensor) -> Result<Tensor> {
        self.forward(x)
    }
}
