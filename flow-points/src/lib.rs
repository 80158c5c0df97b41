//! Point clouds as flows: PointFlow on `flow-core`, trained by likelihood or by flow matching.
//!
//! Read clouds or meshes (or take the built-in shapes), train a model, draw new clouds of any number of points, write PLY:
//!
//! ```
//! use candle_core::Device;
//! use flow_core::{FlowRng, train::Trainer};
//! use flow_points::Cloud;
//! use flow_points::data::{Normalization, NormalizeMode, built_in};
//! use flow_points::io::ply;
//! use flow_points::model::{Draw, PointFlowConfig};
//! use flow_points::shapes::Family;
//! use flow_points::trainer::{PointRun, PointTask, draw_clouds, train_config};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let mugs = built_in(&[Family::Mug], 8, 128)?;
//! let mut model = PointFlowConfig::small();
//! model.latent = 8;
//! model.encoder.point = vec![16, 32];
//! model.encoder.head = vec![16];
//! model.point.hidden = vec![32, 32];
//!
//! let normalization = Normalization::of(&mugs.train.clouds, NormalizeMode::Set)?;
//! let config = train_config(&model.objective, 20, 0);
//! let mut run = PointRun::new(model, mugs.train.source.as_str(), normalization);
//! run.batch = 4;
//! run.points = 64;
//! let task = PointTask::new(run, &mugs.train.clouds, &mugs.validation.clouds, &Device::Cpu)?;
//! let out = std::env::temp_dir().join(format!("flow-points-doc-{}", std::process::id()));
//! let mut trainer = Trainer::new(config, &out, task)?;
//! trainer.run(&mut ())?;
//!
//! let model = trainer.task().model();
//! model.set_training(false);
//! let clouds = draw_clouds(model, &normalization, 2, 500, &Draw::default(), &mut FlowRng::seed_from(1))?;
//! ply::write(&out.join("mug.ply"), &Cloud::new(clouds[0].clone()), &ply::PlyOptions::default())?;
//! # std::fs::remove_dir_all(out)?;
//! # Ok(())
//! # }
//! ```

mod cloud;
pub mod data;
mod error;
pub mod io;
mod mesh;
pub mod metrics;
pub mod model;
pub mod render;
pub mod shapes;
pub mod straighten;
pub mod trainer;

pub use cloud::{Cloud, Mesh, Point};
pub use error::{Error, Result};

/// Tensors and devices, of the version that this crate takes and returns.
pub use candle_core;

/// The README's example, compiled and run with the documentation tests.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
