//! Normalizing flows on Candle: exact likelihoods, exact inverses.
//!
//! A [`Flow`] is an invertible map, the [`Bijector`], with a base density over what it maps data to. It scores data
//! exactly and draws samples exactly, and it is trained by maximum likelihood. This crate is the mathematics and the
//! training engine; it knows no modality.
//!
//! # A density
//!
//! Points near a wave, a spline whose parameters come from a masked network, and a fit of four hundred steps.
//! `flow_core::candle_core` is the Candle whose tensors the crate speaks.
//!
//! ```
//! use flow_core::candle_core::{DType, Device, Tensor};
//! use flow_core::distribution::StandardGaussian;
//! use flow_core::layers::MaskedAutoregressive;
//! use flow_core::nn::MlpConfig;
//! use flow_core::train::{FitOptions, fit};
//! use flow_core::transformer::RationalQuadraticSpline;
//! use flow_core::{Density, Flow, FlowRng, ParamStore};
//!
//! # fn main() -> flow_core::Result<()> {
//! let (mut rng, dtype, cpu) = (FlowRng::seed_from(0), DType::F32, Device::Cpu);
//! let across = rng.normal((256, 1), dtype, &cpu)?;
//! let up = (across.affine(2.0, 0.0)?.sin()? + rng.normal((256, 1), dtype, &cpu)?.affine(0.2, 0.0)?)?;
//! let x = Tensor::cat(&[across, up], 1)?;
//!
//! let store = ParamStore::new(0, dtype, &cpu);
//! let spline = RationalQuadraticSpline::new(8, 5.0)?;
//! let map = MaskedAutoregressive::new(&store.root(), 2, spline, &MlpConfig::new(&[32]))?;
//! let flow = Flow::new(&store, map, StandardGaussian::new(&[2], dtype, &cpu))?;
//! fit(&flow, &x, FitOptions::new(400).learning_rate(1e-2))?;
//! let nats = flow.log_prob(&x, None)?.mean(0)?.to_scalar::<f32>()?;
//! let drawn = flow.sample(1000, None, 1.0, &mut rng)?;
//! assert!(nats > -1.6 && drawn.dims() == [1000, 2], "{nats} nats");
//! # Ok(())
//! # }
//! ```
//!
//! # A conditional density
//!
//! `p(y | x)`: the network takes `x` as its context. Wherever a flow takes a context, one row serves all samples.
//!
//! ```
//! # use flow_core::candle_core::{DType, Device, Tensor};
//! # use flow_core::distribution::StandardGaussian;
//! # use flow_core::layers::MaskedAutoregressive;
//! # use flow_core::nn::MlpConfig;
//! # use flow_core::train::{FitOptions, fit};
//! # use flow_core::transformer::{Affine, ScaleBound};
//! # use flow_core::{Density, Flow, FlowRng, ParamStore};
//! # fn main() -> flow_core::Result<()> {
//! # let (mut rng, dtype, cpu) = (FlowRng::seed_from(0), DType::F32, Device::Cpu);
//! let x = rng.normal((256, 1), dtype, &cpu)?;
//! let y = (x.sin()? + rng.normal((256, 1), dtype, &cpu)?.affine(0.1, 0.0)?)?;
//!
//! let store = ParamStore::new(0, dtype, &cpu);
//! let affine = Affine::new(ScaleBound::SoftClamp(3.0));
//! let map = MaskedAutoregressive::new(&store.root(), 1, affine, &MlpConfig::new(&[32, 32]).context(1))?;
//! let flow = Flow::new(&store, map, StandardGaussian::new(&[1], dtype, &cpu))?;
//! fit(&flow, &y, FitOptions::new(300).learning_rate(1e-2).context(&x))?;
//! let at = Tensor::new(&[[1.5_f32]], &cpu)?;
//! let mean = flow.sample(1000, Some(&at), 1.0, &mut rng)?.mean_all()?.to_scalar::<f32>()?;
//! assert!((mean - 1.5_f32.sin()).abs() < 0.1, "{mean}");
//! # Ok(())
//! # }
//! ```
//!
//! # A bijector of your own
//!
//! Two directions, each with its log-determinant; gradients follow. The kit `flow_core::testing` (feature
//! `testing`) holds what the layer claims against numerical Jacobians and finite differences.
//!
//! ```
//! use flow_core::bijector::{Bijector, check_batch_as};
//! use flow_core::candle_core::Tensor;
//! use flow_core::testing::{Case, check};
//! use flow_core::{Init, Param, Result};
//!
//! /// `z = x · exp(s)`.
//! struct Stretch(Param);
//!
//! impl Bijector for Stretch {
//!     fn name(&self) -> String { "stretch".into() }
//!     fn event_shape(&self) -> &[usize] { self.0.var().dims() }
//!     fn encode(&self, x: &Tensor, _: Option<&Tensor>) -> Result<(Tensor, Tensor)> { self.apply(x, 1.0) }
//!     fn decode(&self, z: &Tensor, _: Option<&Tensor>) -> Result<(Tensor, Tensor)> { self.apply(z, -1.0) }
//! }
//!
//! impl Stretch {
//!     fn apply(&self, x: &Tensor, sign: f64) -> Result<(Tensor, Tensor)> {
//!         let batch = check_batch_as("stretch", x, self.event_shape(), self.0.dtype())?;
//!         let s = (self.0.tensor() * sign)?;
//!         Ok((x.broadcast_mul(&s.exp()?)?, s.sum_all()?.broadcast_as(batch)?))
//!     }
//! }
//!
//! let case = Case::new("Stretch", "three entries", |p| Ok(Box::new(Stretch(p.param("s", 3, Init::Const(0.0))?))));
//! check(&case).unwrap_or_else(|failure| panic!("{failure}"));
//! ```

pub use candle_core;

pub mod autodiff;
pub mod bijector;
pub mod cnf;
pub mod density;
pub mod distribution;
pub mod error;
pub mod files;
pub mod hash;
pub mod kernels;
pub mod layers;
pub mod nn;
pub mod numerics;
pub mod param;
mod rng;
#[cfg(any(test, feature = "testing"))]
pub mod testing;
pub mod train;
pub mod transformer;

pub use bijector::{Bijector, Chain, Inverse, Pullback, Tape};
pub use density::{Backprop, Density, Flow, MultiScale, Reparameterized, Scored};
pub use distribution::Distribution;
pub use error::{Direction, Error, Result};
pub use param::{Gradients, Init, Param, ParamPath, ParamStore};
pub use rng::{FlowRng, Share};
pub use transformer::Transformer;

/// The README's example, compiled and run with the documentation tests.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
