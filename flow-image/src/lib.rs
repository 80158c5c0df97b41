//! Flows for images: data sets, pictures and, on top of them, exact likelihoods.
//!
//! Images stay bytes, the integer levels of the file, until a batch is asked for: an exact likelihood
//! needs exact integers to dequantize.
//!
//! Train a small Glow on the built-in digits, and draw threes:
//!
//! ```
//! use std::path::Path;
//!
//! use candle_core::Device;
//! use flow_core::FlowRng;
//! use flow_core::train::Trainer;
//! use flow_image::data::{OpenOptions, open};
//! use flow_image::model::preset;
//! use flow_image::trainer::{ImageRun, ImageTask, train_config};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let options = OpenOptions::default();
//! let digits = open(Path::new("digits"), &options)?;
//! let preset = preset("glow-digits")?;
//! let run = ImageRun::new(preset.model, &digits.train, &options, &preset.recipe, 0)?;
//! let config = train_config(&preset.recipe, run.batch, 10, 0);
//! let task = ImageTask::new(run, digits, &Device::Cpu)?;
//!
//! let out = std::env::temp_dir().join(format!("flow-image-doc-{}", std::process::id()));
//! let mut trainer = Trainer::new(config, &out, task)?;
//! trainer.run(&mut ())?;
//!
//! let model = trainer.task().model();
//! let threes = model.sample(4, Some(&[3, 3, 3, 3]), &[0.7], &mut FlowRng::seed_from(1))?;
//! assert_eq!(threes.dims(), &[4, 1, 8, 8]);
//! std::fs::remove_dir_all(out)?;
//! # Ok(())
//! # }
//! ```

pub mod codec;
pub mod data;
mod error;
pub mod io;
pub mod metrics;
pub mod model;
pub mod trainer;

/// The tensors that this crate's functions take and return.
pub use candle_core;
pub use data::{Augment, BatchCursor, BatchState, Dataset, OpenOptions, Splits};
pub use error::{Error, Result};

/// The README's example, compiled and run with the documentation tests.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
