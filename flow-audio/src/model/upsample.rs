//! From frames to samples, by either model's conditioner.

use candle_core::{DType, Tensor};
use flow_core::bijector::check_dtype;
use flow_core::nn::matmul;
use flow_core::param::Init;
use flow_core::{Param, ParamPath, Result};

use super::conditioner::Conditioner;
use super::normed::misshapen;
use super::{ModelConfig, WaveGlowConfig};

/// A conditioner.
#[derive(Debug)]
pub(crate) enum Upsample {
    /// WaveFlow's, whose bands stay apart but for their neighbours.
    Staged(Conditioner),
    /// WaveGlow's.
    Single(Transposed),
}

impl Upsample {
    pub fn new(path: &ParamPath, config: &ModelConfig) -> Result<Self> {
        Ok(match config {
            ModelConfig::WaveFlow(config) => Upsample::Staged(Conditioner::new(path, config)?),
            ModelConfig::WaveGlow(config) => Upsample::Single(Transposed::new(&path.pp("upsample"), config)?),
        })
    }

    /// `(B, M, F)` to `(B, hop·F, M)`.
    pub fn forward(&self, mel: &Tensor) -> Result<Tensor> {
        match self {
            Upsample::Staged(conditioner) => conditioner.forward(mel),
            Upsample::Single(transposed) => transposed.forward(mel),
        }
    }
}

/// WaveGlow's conditioner: one transposed convolution over time that mixes all bands, with a kernel of `K` hops `s`, of whose
/// result the first `F s` samples are taken (Prenger et al. 2018, section 3.1; their kernel of 1,024 samples at a hop of 256 is
/// `K = 4`).
///
/// A sample sees the frame that begins at or before it and those before: with `q` the frame and `r` the place in it,
/// `y[o, q s + r] = b_o + Σ_{d < K} Σ_m x[m, q - d]·w[m, o, d s + r]`, one product of the gathered frames `(F, K M)` with a
/// matrix `(K M, s M)` whose result lies as the samples do. Frames before the first are zero.
#[derive(Debug)]
pub(crate) struct Transposed {
    /// `(M, M, K s)`: from, to, time.
    pub weight: Param,
    pub bias: Param,
    mels: usize,
    hop: usize,
    reach: usize,
}

impl Transposed {
    /// Parameters `weight` and `bias` under `path`, uniform in `±1/√(M K s)`, as PyTorch's.
    fn new(path: &ParamPath, config: &WaveGlowConfig) -> Result<Self> {
        let &WaveGlowConfig { mels, hop, reach, .. } = config;
        let bound = 1.0 / ((mels * reach * hop) as f64).sqrt();
        Ok(Transposed {
            weight: path.param("weight", (mels, mels, reach * hop), Init::Uniform(bound))?,
            bias: path.param("bias", mels, Init::Uniform(bound))?,
            mels,
            hop,
            reach,
        })
    }

    pub fn dtype(&self) -> DType {
        self.weight.dtype()
    }

    fn forward(&self, mel: &Tensor) -> Result<Tensor> {
        let (m, hop, reach) = (self.mels, self.hop, self.reach);
        let &[batch, mels, frames] = mel.dims() else { return Err(self.misfit(mel)) };
        if mels != m || frames == 0 {
            return Err(self.misfit(mel));
        }
        check_dtype("waveglow (mel)", mel, self.dtype())?;
        let padded = mel.transpose(1, 2)?.pad_with_zeros(1, reach - 1, 0)?;
        let seen = (0..reach).map(|d| Ok(padded.narrow(1, reach - 1 - d, frames)?)).collect::<Result<Vec<_>>>()?;
        let seen = Tensor::cat(&seen, 2)?.contiguous()?.reshape((batch * frames, reach * m))?;
        // From (from, to, d, r) to (d, from; r, to).
        let matrix = self.weight.tensor().reshape((m, m, reach, hop))?.permute((2, 0, 3, 1))?;
        let made = matmul(&seen, &matrix.contiguous()?.reshape((reach * m, hop * m))?)?;
        Ok(made.reshape((batch, frames * hop, m))?.broadcast_add(&self.bias.tensor())?)
    }

    fn misfit(&self, mel: &Tensor) -> flow_core::Error {
        misshapen("waveglow (mel)", format!("(B, {}, F) with F > 0", self.mels), mel)
    }
}
