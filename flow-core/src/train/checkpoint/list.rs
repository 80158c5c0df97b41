//! The checkpoints of a run: which there are, which is meant.

use std::path::{Path, PathBuf};

use super::config_file::ConfigFile;
use super::{EMA, MODEL, OPTIMIZER, STATE, Snapshot};
use crate::train::files::{self, fault};
use crate::train::state::RunState;
use crate::{Error, Result};

const BEST: &str = "best";

/// The checkpoint folder that a path given by a user means.
///
/// The path itself if it holds a `config.json`; otherwise, for the output folder of a run (or its
/// `checkpoints` folder), the best checkpoint, or the latest if there is no best.
///
/// # Errors
/// [`Error::Checkpoint`] when there is none, or when the one that is meant has been damaged: another one would be
/// another model.
pub fn find_checkpoint(path: &Path) -> Result<PathBuf> {
    if ConfigFile::is_in(path) {
        return Ok(path.to_path_buf());
    }
    for checkpoints in [Checkpoints::new(path), Checkpoints { folder: path.to_path_buf() }] {
        if let Some(found) = checkpoints.best()?.map_or_else(|| checkpoints.newest(), |best| Ok(Some(best)))? {
            return Ok(found);
        }
    }
    Err(fault(path, "holds no checkpoint; train a model first, or name the folder of a run"))
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

    /// The newest complete checkpoint: what a run goes on from.
    pub fn latest(&self) -> Result<Option<PathBuf>> {
        Ok(self.latest_and_damaged()?.0)
    }

    /// The newest complete checkpoint, and what is wrong with those that are newer.
    ///
    /// No kill leaves an incomplete one, but failing disks and copies do.
    pub(in crate::train) fn latest_and_damaged(&self) -> Result<(Option<PathBuf>, Vec<Error>)> {
        let mut damaged = Vec::new();
        for step in self.steps()?.into_iter().rev() {
            let folder = self.at(step);
            match check_complete(&folder) {
                Ok(()) => return Ok((Some(folder), damaged)),
                Err(error) => damaged.push(error),
            }
        }
        Ok((None, damaged))
    }

    /// The newest checkpoint, for use: an older one in its place would be another model.
    fn newest(&self) -> Result<Option<PathBuf>> {
        match self.latest_and_damaged()? {
            (_, damaged) if !damaged.is_empty() => Err(instead(damaged.into_iter().next())),
            (found, _) => Ok(found),
        }
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
        let (latest, damaged) = self.latest_and_damaged()?;
        let none = || match damaged.into_iter().next() {
            Some(damaged) => damaged,
            None => fault(&self.folder, "holds no checkpoint to resume from; start the run without resuming"),
        };
        latest.ok_or_else(none)
    }

    /// The checkpoint with the best validation, if there is one.
    ///
    /// # Errors
    /// [`Error::Checkpoint`] naming the file that is missing or not as long as it was.
    pub fn best(&self) -> Result<Option<PathBuf>> {
        // A process killed between the two renames of a replacement leaves the old one under the second name.
        let names = [BEST.to_string(), format!(".old-{BEST}")];
        match names.iter().map(|name| self.folder.join(name)).find(|folder| folder.is_dir()) {
            Some(best) => check_complete(&best).map(|()| Some(best)).map_err(|e| instead(Some(e))),
            None => Ok(None),
        }
    }

    /// Removes what killed writes have left behind.
    pub(in crate::train) fn clean(&self) -> Result<()> {
        files::clean(&self.folder)
    }

    /// Writes the checkpoint of the snapshot's step and forgets all but the last `keep`.
    pub(in crate::train) fn save(&self, snapshot: &Snapshot<'_>, keep: usize) -> Result<PathBuf> {
        let folder = self.at(snapshot.state.step);
        files::replace_folder(&folder, |aside| snapshot.write(aside))?;
        let steps = self.steps()?;
        let superfluous = steps.len().saturating_sub(keep.max(1));
        steps[..superfluous].iter().try_for_each(|&step| files::remove_folder(&self.at(step)))?;
        Ok(folder)
    }

    /// Writes the snapshot as the best one.
    pub(in crate::train) fn save_best(&self, snapshot: &Snapshot<'_>) -> Result<()> {
        files::replace_folder(&self.folder.join(BEST), |aside| snapshot.write(aside))
    }
}

/// A fault of the checkpoint that is meant, with what to do about it.
fn instead(error: Option<Error>) -> Error {
    match error {
        Some(Error::Checkpoint { path, reason }) => {
            fault(path, format!("{reason}; name the folder of another checkpoint of the run to use that one"))
        }
        Some(other) => other,
        None => Error::config("checkpoint", "is damaged"),
    }
}

/// Checks that all files of a training checkpoint are there and have their full length.
fn check_complete(folder: &Path) -> Result<()> {
    let config = ConfigFile::read(folder)?;
    files::read_json::<RunState>(&folder.join(STATE))?;
    files::check_length(&folder.join(MODEL))?;
    files::check_length(&folder.join(OPTIMIZER))?;
    if config.is_averaged() { files::check_length(&folder.join(EMA)) } else { Ok(()) }
}
