//! Checkpoints: one folder each, complete or absent.
//!
//! ```text
//! OUT/checkpoints/step-00001234/   OUT/checkpoints/best/
//!   config.json            format version, the task's and the engine's hyper-parameters
//!   model.safetensors      every parameter and buffer
//!   optimizer.safetensors  moments and step count
//!   ema.safetensors        averaged parameters and buffers, a model of its own; if averaging is on
//!   state.json             step, generator, schedule, counters, position in the data
//! ```
//!
//! A folder is written aside, flushed to disk and renamed, so that a process killed at any moment leaves
//! either the old state or the new one.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::config::TrainConfig;
use super::ema::Ema;
use super::files::{self, Tensors, fault};
use super::optimizer::Optimizer;
use super::state::RunState;
use crate::{Error, ParamStore, Result};

/// The format of checkpoint folders that this version writes and reads.
pub const CHECKPOINT_VERSION: u32 = 1;

const CONFIG: &str = "config.json";
const MODEL: &str = "model.safetensors";
const OPTIMIZER: &str = "optimizer.safetensors";
const EMA: &str = "ema.safetensors";
const STATE: &str = "state.json";
const BEST: &str = "best";

/// `config.json`.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct ConfigFile {
    version: u32,
    /// The crate version that wrote the file, for the curious.
    #[serde(default)]
    writer: String,
    task: Value,
    /// Absent when a model was saved without a training run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    train: Option<TrainConfig>,
}

impl ConfigFile {
    fn new(task: Value, train: Option<TrainConfig>) -> Self {
        ConfigFile { version: CHECKPOINT_VERSION, writer: env!("CARGO_PKG_VERSION").into(), task, train }
    }

    /// Reads the file; the version is looked at before anything else is believed.
    fn read(folder: &Path) -> Result<Self> {
        let path = folder.join(CONFIG);
        let value: Value = files::read_json(&path)?;
        match value.get("version").and_then(Value::as_u64) {
            Some(v) if v == u64::from(CHECKPOINT_VERSION) => {}
            Some(v) => {
                let reason = format!("has format version {v}, this program reads version {CHECKPOINT_VERSION}");
                return Err(fault(path, reason));
            }
            None => return Err(fault(path, "has no format version; is it a checkpoint of this program?")),
        }
        serde_json::from_value(value).map_err(|e| fault(path, e))
    }
}

/// Writes a model without a training run: `config.json`, which holds its description (a [`Run`](super::Run)), and
/// `model.safetensors`, atomically.
///
/// # Errors
/// [`Error::Io`] naming the path; an existing folder is then unchanged. [`Error::Checkpoint`] for a description that
/// is no JSON.
pub fn save_model(folder: &Path, store: &ParamStore, run: &impl Serialize) -> Result<()> {
    let run = serde_json::to_value(run).map_err(|e| fault(folder, e))?;
    files::replace_folder(folder, |aside| {
        files::write_json(&aside.join(CONFIG), &ConfigFile::new(run, None))?;
        files::write_tensors(&aside.join(MODEL), &values(store))
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

/// Fills `store` with the weights of a checkpoint folder, or with their average if `ema` is set.
///
/// # Errors
/// [`Error::Checkpoint`] naming the file and every difference in names, shapes and dtypes; the store is
/// then unchanged.
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
    ConfigFile::read(folder)?;
    let path = folder.join(if ema { EMA } else { MODEL });
    if ema && !path.exists() {
        return Err(fault(path, "is missing: the run kept no average of the weights; load the weights themselves"));
    }
    let mut tensors = files::read_tensors(&path)?;
    if cast == Cast::Allow {
        for value in tensors.values_mut() {
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
    load_weights(folder, store, average && folder.join(EMA).exists())
}

/// The checkpoint folder that a path given by a user means.
///
/// The path itself if it holds a `config.json`; otherwise, for the output folder of a run (or its
/// `checkpoints` folder), the best checkpoint, or the latest if there is no best.
///
/// # Errors
/// [`Error::Checkpoint`] when there is none.
pub fn find_checkpoint(path: &Path) -> Result<PathBuf> {
    if path.join(CONFIG).is_file() {
        return Ok(path.to_path_buf());
    }
    for checkpoints in [Checkpoints::new(path), Checkpoints { folder: path.to_path_buf() }] {
        if let Some(found) = [checkpoints.best(), checkpoints.latest()?].into_iter().flatten().next() {
            return Ok(found);
        }
    }
    Err(fault(path, "holds no complete checkpoint"))
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
    pub optimizer: &'a Optimizer,
    pub ema: Option<&'a Ema>,
    pub state: &'a RunState,
}

impl Snapshot<'_> {
    fn write(&self, folder: &Path) -> Result<()> {
        let config = ConfigFile::new(self.task.clone(), Some(self.train.clone()));
        files::write_json(&folder.join(CONFIG), &config)?;
        files::write_tensors(&folder.join(MODEL), &values(self.store))?;
        files::write_tensors(&folder.join(OPTIMIZER), &self.optimizer.state()?)?;
        if let Some(ema) = self.ema {
            let mut averaged = values(self.store);
            averaged.extend(ema.averages());
            files::write_tensors(&folder.join(EMA), &averaged)?;
        }
        files::write_json(&folder.join(STATE), self.state)
    }
}

/// What is asked for when a run is resumed; each part is filled from the checkpoint.
pub(super) struct Resumption<'a> {
    pub store: &'a ParamStore,
    pub task: Value,
    pub train: &'a TrainConfig,
    pub optimizer: &'a mut Optimizer,
    pub ema: Option<&'a mut Ema>,
}

impl Resumption<'_> {
    /// Checks configuration and tensors of `folder`, then takes them over.
    pub(super) fn load(self, folder: &Path) -> Result<RunState> {
        self.compare(folder)?;
        let state: RunState = files::read_json(&folder.join(STATE))?;
        let path = folder.join(OPTIMIZER);
        in_file(&path, self.optimizer.restore(&files::read_tensors(&path)?))?;
        if let Some(ema) = self.ema {
            let path = folder.join(EMA);
            in_file(&path, ema.restore(&files::read_tensors(&path)?, state.ema_updates))?;
        }
        load_weights(folder, self.store, false)?;
        Ok(state)
    }

    /// Lists every hyper-parameter that differs from the checkpoint's.
    fn compare(&self, folder: &Path) -> Result<()> {
        let path = folder.join(CONFIG);
        let file = ConfigFile::read(folder)?;
        let json = |config: &TrainConfig| config.binding().map_err(|e| fault(&path, e));
        let mut differences = Vec::new();
        list_differences("", &file.task, &through_text(&path, &self.task)?, &mut differences);
        if let Some(train) = &file.train {
            list_differences("", &json(train)?, &through_text(&path, &json(self.train)?)?, &mut differences);
        }
        if differences.is_empty() {
            return Ok(());
        }
        Err(fault(path, format!("was made with other settings: {}", differences.join("; "))))
    }
}

/// Writes and reads a value, so that both sides of a comparison have lost the same bits of their floats.
fn through_text(path: &Path, value: &Value) -> Result<Value> {
    serde_json::from_str(&value.to_string()).map_err(|e| fault(path, e))
}

/// Appends `name: checkpoint A, asked B` for every leaf in which two JSON values differ.
fn list_differences(name: &str, saved: &Value, asked: &Value, out: &mut Vec<String>) {
    match (saved, asked) {
        (Value::Object(a), Value::Object(b)) => {
            let added = b.keys().filter(|key| !a.contains_key(*key));
            for key in a.keys().chain(added) {
                let name = if name.is_empty() { key.clone() } else { format!("{name}.{key}") };
                let side = |map: &serde_json::Map<String, Value>| map.get(key).cloned().unwrap_or_default();
                list_differences(&name, &side(a), &side(b), out);
            }
        }
        _ if saved == asked => {}
        _ => out.push(format!("{name}: checkpoint {}, asked {}", shown(saved), shown(asked))),
    }
}

fn shown(value: &Value) -> String {
    if value.is_null() { "nothing".to_string() } else { value.to_string() }
}

/// The checkpoints of one run.
#[derive(Debug, Clone)]
pub struct Checkpoints {
    folder: PathBuf,
}

impl Checkpoints {
    /// Those of the run that writes into `out`; nothing is created yet.
    pub fn new(out: &Path) -> Self {
        Checkpoints { folder: out.join("checkpoints") }
    }

    /// The folder of the checkpoint after `step` steps.
    pub fn at(&self, step: u64) -> PathBuf {
        self.folder.join(format!("step-{step:08}"))
    }

    /// Steps of which there is a folder, complete or not, in ascending order.
    pub fn steps(&self) -> Result<Vec<u64>> {
        let number = |path: &PathBuf| path.file_name()?.to_str()?.strip_prefix("step-")?.parse().ok();
        let mut steps: Vec<u64> = files::list(&self.folder)?.iter().filter_map(number).collect();
        steps.sort_unstable();
        Ok(steps)
    }

    /// The newest complete checkpoint.
    pub fn latest(&self) -> Result<Option<PathBuf>> {
        let newest_first = self.steps()?.into_iter().rev().map(|step| self.at(step));
        Ok(newest_first.into_iter().find(|folder| check_complete(folder).is_ok()))
    }

    /// Refuses a folder that holds a run already: before the first step of a fresh one, or before any work for it.
    ///
    /// # Errors
    /// [`Error::Checkpoint`] naming the newest checkpoint.
    pub fn check_free(&self) -> Result<()> {
        match self.latest()? {
            None => Ok(()),
            Some(found) => Err(fault(found, "the folder holds a run already; resume it or choose another folder")),
        }
    }

    /// The newest complete checkpoint of a run that is to go on.
    ///
    /// # Errors
    /// [`Error::Checkpoint`] naming the folder when there is none.
    pub fn to_resume(&self) -> Result<PathBuf> {
        let none = || fault(&self.folder, "holds no complete checkpoint to resume from");
        self.latest()?.ok_or_else(none)
    }

    /// The checkpoint with the best validation, if there is one and it is complete.
    pub fn best(&self) -> Option<PathBuf> {
        Some(self.folder.join(BEST)).filter(|folder| check_complete(folder).is_ok())
    }

    /// Removes what killed writes have left behind.
    pub(super) fn clean(&self) -> Result<()> {
        files::clean(&self.folder)
    }

    /// Writes the checkpoint of the snapshot's step and forgets all but the last `keep`.
    pub(super) fn save(&self, snapshot: &Snapshot<'_>, keep: usize) -> Result<PathBuf> {
        let folder = self.at(snapshot.state.step);
        files::replace_folder(&folder, |aside| snapshot.write(aside))?;
        let steps = self.steps()?;
        let superfluous = steps.len().saturating_sub(keep.max(1));
        steps[..superfluous].iter().try_for_each(|&step| files::remove_folder(&self.at(step)))?;
        Ok(folder)
    }

    /// Writes the snapshot as the best one.
    pub(super) fn save_best(&self, snapshot: &Snapshot<'_>) -> Result<()> {
        files::replace_folder(&self.folder.join(BEST), |aside| snapshot.write(aside))
    }
}

/// Checks that all files of a training checkpoint are there and have their full length.
fn check_complete(folder: &Path) -> Result<()> {
    let config = ConfigFile::read(folder)?;
    files::read_json::<RunState>(&folder.join(STATE))?;
    files::check_length(&folder.join(MODEL))?;
    files::check_length(&folder.join(OPTIMIZER))?;
    if config.train.is_some_and(|train| train.ema.is_some()) { files::check_length(&folder.join(EMA)) } else { Ok(()) }
}
