//! What a run leaves in its folder.

use std::fs::{File, OpenOptions, TryLockError};

use super::{Trainer, json};
use crate::train::checkpoint::Snapshot;
use crate::train::communicator::check_same_weights;
use crate::train::ema::Ema;
use crate::train::events::EventLog;
use crate::train::task::Task;
use crate::{Error, FlowRng, Result};

/// Which checkpoint is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Latest,
    Best,
}

impl<T: Task> Trainer<T> {
    /// Creates the output folder, makes sure that no other process writes there, and tidies up.
    pub(super) fn claim_folder(&self) -> Result<Option<File>> {
        let Some(out) = &self.out else { return Ok(None) };
        std::fs::create_dir_all(&out.path).map_err(Error::io(&out.path))?;
        let path = out.path.join(".lock");
        let options = OpenOptions::new().create(true).write(true).truncate(false).open(&path);
        let lock = options.map_err(Error::io(&path))?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let reason = "another process is training into this folder";
                return Err(Error::config(out.path.display().to_string(), reason));
            }
            // Some network file systems have no locks; that is no reason not to train.
            Err(TryLockError::Error(_)) => {}
        }
        out.checkpoints.clean()?;
        Ok(Some(lock))
    }

    pub(super) fn open_log(&self) -> Result<Option<EventLog>> {
        self.out.as_ref().map(|out| EventLog::open(&out.path, self.state.step)).transpose()
    }

    pub(super) fn preview(&mut self) -> Result<()> {
        let Some(out) = self.out.as_ref().filter(|_| self.channel.rank() == 0) else { return Ok(()) };
        let folder = out.path.join("previews");
        std::fs::create_dir_all(&folder).map_err(Error::io(&folder))?;
        let mut rng = FlowRng::named(self.config.seed, "preview");
        let (task, step) = (&mut self.task, self.state.step);
        match &mut self.ema {
            Some(ema) => ema.during(|| task.preview(&folder, step, &mut rng).map_err(Into::into)),
            None => task.preview(&folder, step, &mut rng).map_err(Into::into),
        }
    }

    pub(super) fn checkpoint(&mut self, log: Option<&mut EventLog>) -> Result<()> {
        check_same_weights(self.channel.as_ref(), self.task.store())?;
        if let Some(log) = log {
            // The log first: it may run ahead of the checkpoint, which cuts it off on resume, but not lag behind.
            log.flush()?;
            self.save(Kind::Latest)?;
        }
        self.channel.barrier()
    }

    /// Keeps the weights that validated best so far, in the folder or in memory.
    pub(super) fn keep_best(&mut self) -> Result<()> {
        if self.first_keeps {
            return if self.channel.rank() == 0 { self.save(Kind::Best) } else { Ok(()) };
        }
        let mut best = self.task.store().snapshot()?;
        if let Some(ema) = &self.ema {
            for (name, average) in ema.averages() {
                best.insert(name, average.copy()?);
            }
        }
        self.best = Some(best);
        Ok(())
    }

    /// Puts the weights of the best validation in place, averaged ones where averaging is on; without a validation the
    /// last ones. Not to be followed by more steps. With ranks, all of them call it.
    ///
    /// # Errors
    /// [`Error::Checkpoint`] when the best checkpoint has been damaged or removed meanwhile.
    pub fn take_best(&mut self) -> Result<()> {
        if self.channel.rank() == 0 {
            self.take_own_best()?;
        }
        self.share_weights()
    }

    fn take_own_best(&mut self) -> Result<()> {
        let store = self.task.store();
        if let Some(best) = &self.best {
            return store.restore(best);
        }
        match self.checkpoints().map(super::Checkpoints::best).transpose()?.flatten() {
            Some(folder) => crate::train::load_averaged(&folder, store, true),
            None => self.ema.as_mut().map_or(Ok(()), Ema::swap),
        }
    }

    fn save(&mut self, kind: Kind) -> Result<()> {
        let Some(out) = &self.out else { return Ok(()) };
        self.state.schedule = self.schedule.state().clone();
        self.state.ema_updates = self.ema.as_ref().map_or(0, Ema::updates);
        self.state.data = json("position in the data", &self.task.position())?;
        let snapshot = Snapshot {
            store: self.task.store(),
            task: self.described.clone(),
            train: &self.config,
            data: self.data.clone(),
            optimizer: &self.optimizer,
            ema: self.ema.as_ref(),
            state: &self.state,
        };
        match kind {
            Kind::Best => out.checkpoints.save_best(&snapshot),
            Kind::Latest => out.checkpoints.save(&snapshot, self.config.keep_last).map(drop),
        }
    }
}
