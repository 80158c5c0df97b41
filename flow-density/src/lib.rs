//! Normalizing flows over vectors and tables: builders for the common families, exact densities, training from CSV, NPY or
//! built-in toys.
//!
//! A flow of the plane, fitted to a toy whose entropy is known, and how far it is from it:
//!
//! ```
//! use candle_core::{DType, Device};
//! use flow_core::train::{FitOptions, fit};
//! use flow_core::{FlowRng, ParamStore};
//! use flow_density::data::{Data, Toy};
//! use flow_density::metrics::evaluate;
//!
//! # fn main() -> flow_density::Result<()> {
//! let data = Data::from_toy(Toy::Moons)?;
//! let rows = Toy::Moons.rows(2000, &mut FlowRng::seed_from(1));
//! let x = data.standard().apply(&rows, &Device::Cpu)?;
//!
//! let store = ParamStore::new(0, DType::F32, &Device::Cpu);
//! let flow = flow_density::maf(2).transforms(3).hidden(&[32]).build(&store)?;
//! fit(&flow, &x, FitOptions::new(60))?;
//!
//! let report = evaluate(&flow, data.standard(), &data, 1000, 1)?;
//! println!("{report}");
//! // A Gaussian scores 3.4 nats; no density beats the entropy.
//! assert!(report.nll < 3.4 && report.nll > 2.3, "{report}");
//! # Ok(())
//! # }
//! ```
//!
//! [`model`] has a builder for each family, which needs the number of features alone and takes a context if asked:
//! `nsf_coupling(1).context(3)` is `p(y | x)` for three regressors. [`data`] reads, splits and standardises tables.
//! [`trainer`] makes runs of it that leave checkpoints and can be resumed, by likelihood or by flow matching; it is what
//! the `density` program calls. [`variational`] fits flows to densities instead of to data,
//! posteriors among them, and [`posterior`] to pairs of parameters and what was simulated with them.

pub mod data;
pub mod dlgm;
mod error;
pub mod io;
pub mod metrics;
pub mod model;
pub mod posterior;
pub mod trainer;
pub mod variational;

pub use candle_core;
pub use error::{Error, Place, Result};
pub use flow_core;
pub use model::{cnf, maf, matching, nsf_autoregressive, nsf_coupling, planar, radial, realnvp, sylvester};

/// The README's example, compiled and run with the documentation tests.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
