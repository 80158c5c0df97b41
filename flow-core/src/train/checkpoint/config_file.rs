//! `config.json`: what a checkpoint says of itself.

use std::collections::BTreeMap;
use std::path::Path;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::Result;
use crate::train::config::TrainConfig;
use crate::train::files::{self, Tensors, fault};
use crate::train::fingerprint::Fingerprint;

/// The format of checkpoint folders that this version writes and reads.
pub const CHECKPOINT_VERSION: u32 = 1;

const CONFIG: &str = "config.json";

/// The content of the file.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct ConfigFile {
    version: u32,
    /// The crate version that wrote the file, for the curious.
    #[serde(default)]
    writer: String,
    pub(super) task: Value,
    /// Absent when a model was saved without a training run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) train: Option<TrainConfig>,
    /// What the run learns from; absent where that cannot be told, and in checkpoints of earlier versions.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) data: Option<Fingerprint>,
    /// CRC-32C of the files of tensors; earlier versions wrote none.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    checksums: BTreeMap<String, String>,
}

impl ConfigFile {
    pub(super) fn new(task: Value, train: Option<TrainConfig>, data: Option<Fingerprint>) -> Self {
        let writer = env!("CARGO_PKG_VERSION").into();
        ConfigFile { version: CHECKPOINT_VERSION, writer, task, train, data, checksums: BTreeMap::new() }
    }

    /// Whether a folder has such a file.
    pub(super) fn is_in(folder: &Path) -> bool {
        folder.join(CONFIG).is_file()
    }

    /// Reads the file; the version is looked at before anything else is believed.
    pub(super) fn read(folder: &Path) -> Result<Self> {
        let path = folder.join(CONFIG);
        let value: Value = files::read_json(&path)?;
        match value.get("version").and_then(Value::as_u64) {
            Some(v) if v == u64::from(CHECKPOINT_VERSION) => {}
            Some(v) => {
                let reason = format!("has format version {v}, this program reads version {CHECKPOINT_VERSION}");
                return Err(fault(path, reason));
            }
            None => {
                return Err(fault(path, "has no format version: another tool's file, no checkpoint of this library"));
            }
        }
        serde_json::from_value(value).map_err(|e| fault(path, e))
    }

    /// Whether the run keeps an average of the weights.
    pub(super) fn is_averaged(&self) -> bool {
        self.train.as_ref().is_some_and(|train| train.ema.is_some())
    }

    /// Writes a file of tensors beside this one, which is to be written after all of them.
    pub(super) fn write_tensors(&mut self, folder: &Path, name: &str, tensors: &Tensors) -> Result<()> {
        let checksum = files::write_tensors(&folder.join(name), tensors)?;
        self.checksums.insert(name.into(), format!("{checksum:08x}"));
        Ok(())
    }

    pub(super) fn write(&self, folder: &Path) -> Result<()> {
        files::write_json(&folder.join(CONFIG), self)
    }

    /// Reads a file of tensors beside this one, whose bytes must be those that were written.
    pub(super) fn read_tensors(&self, folder: &Path, name: &str) -> Result<Tensors> {
        let path = folder.join(name);
        let (tensors, checksum) = files::read_tensors(&path)?;
        match self.checksums.get(name) {
            Some(written) if *written != format!("{checksum:08x}") => Err(fault(
                path,
                format!(
                    "is damaged: its checksum is {checksum:08x}, {written} was written; use another checkpoint of the run or a copy"
                ),
            )),
            _ => Ok(tensors),
        }
    }
}
