//! Checkpoints: one folder each, complete or absent.
//!
//! ```text
//! OUT/checkpoints/step-00001234/   OUT/checkpoints/best/
//!   config.json            format version, the task's and the engine's hyper-parameters, the data's fingerprint,
//!                          checksums of the files of tensors
//!   model.safetensors      every parameter and buffer
//!   optimizer.safetensors  moments and step count
//!   ema.safetensors        averaged parameters and buffers, a model of its own; if averaging is on
//!   state.json             step, generator, schedule, counters, position in the data
//! ```
//!
//! A folder is written aside, flushed to disk and renamed, so that a process killed at any moment leaves
//! either the old state or the new one.

mod config_file;
mod list;
mod pack;
mod resume;

use std::path::Path;

use candle_core::DType;
use serde::Serialize;
use serde_json::Value;

use super::config::TrainConfig;
use super::ema::Ema;
use super::files::{self, Tensors, fault};
use super::fingerprint::Fingerprint;
use super::optimizer::Optimizer;
use super::state::RunState;
use crate::{Error, ParamStore, Result};

pub use config_file::CHECKPOINT_VERSION;
use config_file::ConfigFile;
pub use list::{Checkpoints, find_checkpoint};
pub use pack::{Packed, Precision, pack_model};
pub(super) use resume::{Resumption, differences};

const MODEL: &str = "model.safetensors";
const OPTIMIZER: &str = "optimizer.safetensors";
const EMA: &str = "ema.safetensors";
const STATE: &str = "state.json";

/// Writes a model without a training run: `config.json`, which holds its description (a [`Run`](super::Run)), and
/// `model.safetensors`, atomically.
///
/// # Errors
/// [`Error::Io`] naming the path; an existing folder is then unchanged. [`Error::Checkpoint`] for a description that
/// is no JSON.
pub fn save_model(folder: &Path, store: &ParamStore, run: &impl Serialize) -> Result<()> {
    let run = serde_json::to_value(run).map_err(|e| fault(folder, e))?;
    files::replace_folder(folder, |aside| {
        let mut config = ConfigFile::new(run, None, None);
        config.write_tensors(aside, MODEL, &values(store))?;
        config.write(aside)
    })
}

/// The task's hyper-parameters in a checkpoint folder: what is needed to build the model anew.
///
/// # Errors
/// [`Error::Checkpoint`] naming the file, for a missing or malformed file or another format version.
pub fn load_config(folder: &Path) -> Result<Value> {
    Ok(ConfigFile::read(folder)?.task)
}

/// The engine's hyper-parameters in a checkpoint folder; `None` for a model saved by [`save_model`].
///
/// # Errors
/// As [`load_config`].
pub fn load_train_config(folder: &Path) -> Result<Option<TrainConfig>> {
    Ok(ConfigFile::read(folder)?.train)
}

/// What the run of a checkpoint learns from, where the checkpoint says so.
///
/// # Errors
/// As [`load_config`].
pub fn load_fingerprint(folder: &Path) -> Result<Option<Fingerprint>> {
    Ok(ConfigFile::read(folder)?.data)
}

/// Fills `store` with the weights of a checkpoint folder, or with their average if `ema` is set.
///
/// # Errors
/// [`Error::Checkpoint`] naming the file and every difference in names, shapes and dtypes, or a file whose bytes are
/// not those that were written; the store is then unchanged.
pub fn load_weights(folder: &Path, store: &ParamStore, ema: bool) -> Result<()> {
    load_weights_as(folder, store, ema, Cast::Refuse)
}

/// What [`load_weights_as`] does with weights of another element type than the store's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cast {
    /// They are an error that names them.
    Refuse,
    /// They are converted: f64 to f32 rounds, f32 to f64 is exact.
    Allow,
}

/// As [`load_weights`], into a store of another element type if `cast` allows it: a model that was trained in f32 is
/// checked in f64, or the reverse.
///
/// # Errors
/// As [`load_weights`].
pub fn load_weights_as(folder: &Path, store: &ParamStore, ema: bool, cast: Cast) -> Result<()> {
    let config = ConfigFile::read(folder)?;
    let name = if ema { EMA } else { MODEL };
    let path = folder.join(name);
    if ema && !path.exists() && !config.is_averaged() {
        return Err(fault(path, "is missing: the run kept no average of the weights; load the weights themselves"));
    }
    let mut tensors = config.read_tensors(folder, name)?;
    for value in tensors.values_mut() {
        // To widen half precision loses nothing.
        if cast == Cast::Allow || matches!(value.dtype(), DType::BF16 | DType::F16) {
            *value = value.to_dtype(store.dtype())?;
        }
    }
    in_file(&path, store.restore(&tensors))
}

/// As [`load_weights`], with the average of the weights if `average` is set and the run kept one.
///
/// # Errors
/// As [`load_weights`].
pub fn load_averaged(folder: &Path, store: &ParamStore, average: bool) -> Result<()> {
    load_weights(folder, store, average && ConfigFile::read(folder)?.is_averaged())
}

/// Views of all parameters and buffers, without a copy.
fn values(store: &ParamStore) -> Tensors {
    store.all().iter().map(|p| (p.name().to_string(), p.var().as_detached_tensor())).collect()
}

/// Turns complaints about tensors into complaints about the file that holds them.
fn in_file<T>(path: &Path, result: Result<T>) -> Result<T> {
    result.map_err(|error| match error {
        Error::Config { reason, .. } => fault(path, reason),
        other => other,
    })
}

/// The tensors and counters of a run, as a checkpoint stores them.
pub(super) struct Snapshot<'a> {
    pub store: &'a ParamStore,
    pub task: Value,
    pub train: &'a TrainConfig,
    pub data: Option<Fingerprint>,
    pub optimizer: &'a Optimizer,
    pub ema: Option<&'a Ema>,
    pub state: &'a RunState,
}

impl Snapshot<'_> {
    fn write(&self, folder: &Path) -> Result<()> {
        let mut config = ConfigFile::new(self.task.clone(), Some(self.train.clone()), self.data.clone());
        config.write_tensors(folder, MODEL, &values(self.store))?;
        config.write_tensors(folder, OPTIMIZER, &self.optimizer.state()?)?;
        if let Some(ema) = self.ema {
            let mut averaged = values(self.store);
            averaged.extend(ema.averages());
            config.write_tensors(folder, EMA, &averaged)?;
        }
        files::write_json(&folder.join(STATE), self.state)?;
        config.write(folder)
    }
}
