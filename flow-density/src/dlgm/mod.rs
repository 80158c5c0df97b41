//! The deep latent Gaussian model of binary images, with a flow as its posterior.
//!
//! Rezende & Mohamed 2015 (arXiv 1505.05770), section 6.2: a latent `z` of 40 normal numbers, a decoder that makes the
//! probability of every pixel of it, and an encoder that makes, for every image, a Gaussian and a flow which bends it
//! towards `p(z | x)`. The longer the flow, the closer the bound comes to `ln p(x)`.
//!
//! ```
//! use candle_core::{DType, Device};
//! use flow_core::train::{Optimizer, OptimizerConfig};
//! use flow_core::{FlowRng, Gradients, ParamStore};
//! use flow_density::dlgm::{BinaryImages, Dlgm, DlgmConfig, Family, Stream, score};
//!
//! # fn main() -> flow_density::Result<()> {
//! // Bars, each in one of four columns, with some grey.
//! let grey: Vec<u8> = (0..40 * 16).map(|i| if i % 4 == i / 16 % 4 { 230 } else { 20 }).collect();
//! let images = BinaryImages::binarize(&grey, 256, [4, 4], 1, Stream::Train)?;
//!
//! let store = ParamStore::new(0, DType::F32, &Device::Cpu);
//! let config = DlgmConfig { latents: 2, hidden: 8, ..DlgmConfig::new([4, 4], Family::Planar, 4) };
//! let model = Dlgm::new(&store, &config)?;
//! let (mut rng, mut gradients) = (FlowRng::seed_from(1), Gradients::new(&store));
//! let mut optimizer = Optimizer::new(OptimizerConfig::adam(3e-2), &store)?;
//! let x = images.batch(&(0..40).collect::<Vec<_>>(), DType::F32, &Device::Cpu)?;
//! for _ in 0..100 {
//!     gradients.clear();
//!     model.free_energy_backward(&x, &model.noise(40, &mut rng)?, 1.0, &mut gradients)?;
//!     optimizer.step(&gradients, 1.0)?;
//! }
//! let report = score(&model, &images, 20, 50, &mut rng)?;
//! // Independent pixels with the right probabilities: about 9 nats.
//! assert!(report.nll.0 < 8.0 && report.bound.0 >= report.nll.0, "{report:?}");
//! # Ok(())
//! # }
//! ```
//!
//! [`BinaryImages`] is the data, [`Dlgm`] the model, [`score`] the paper's numbers, [`DlgmTask`] what the training engine
//! sees. This crate reads no pictures: it is given their bytes.

mod bernoulli;
mod config;
mod images;
mod model;
mod posterior;
mod score;
#[cfg(test)]
mod tests;
mod trainer;

pub use config::{DlgmConfig, Family};
pub use images::{BinaryImages, Stream};
pub use model::{Code, Dlgm, Terms};
pub use score::{Report, score};
pub use trainer::{DlgmRun, DlgmTask, FREE_ENERGY, Parts, train_config};
