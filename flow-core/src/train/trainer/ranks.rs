//! How ranks come together before they train.

use std::path::Path;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::{Trainer, json};
use crate::hash::Fnv;
use crate::train::communicator::{Description, Overlap, Ranks, StepPeers, check_alike};
use crate::train::ema::Ema;
use crate::train::files::{self, Tensors};
use crate::train::fingerprint::Fingerprint;
use crate::train::state::RunState;
use crate::train::task::Task;
use crate::{Error, ParamStore, Result};

/// What rank 0 tells the others before the first step.
#[derive(Debug, Serialize, Deserialize)]
struct Beginning {
    /// Whether it has a folder.
    keeps: bool,
    /// Where the run goes on; none for a run that begins.
    state: Option<RunState>,
}

impl<T: Task> Trainer<T> {
    /// Makes sure that all ranks are about to do the same, gives the task its ranks, and brings the others to where rank 0
    /// is. Does nothing alone, or the second time.
    pub(super) fn join(&mut self) -> Result<()> {
        if self.joined || self.channel.world_size() == 1 {
            return Ok(());
        }
        let channel = self.channel.clone();
        check_alike(channel.as_ref(), &self.description()?)?;
        self.task.share_out(Ranks::new(channel.clone()))?;
        if self.config.overlap {
            let second = channel.second()?;
            self.overlap = second.map(|second| Overlap::new(second, &self.gradients, self.config.bucket_bytes));
        }
        if self.task.store().has_statistics() {
            self.peers = Some(Arc::new(StepPeers::new(channel.clone())));
        }
        let begins = Beginning { keeps: self.out.is_some(), state: self.initialized.then(|| self.state.clone()) };
        let told =
            channel.broadcast(serde_json::to_vec(&begins).map_err(|e| Error::config("ranks", e.to_string()))?)?;
        let Beginning { keeps, state } = serde_json::from_slice(&told)
            .map_err(|e| Error::config("ranks", format!("rank 0 is not understood: {e}")))?;
        self.first_keeps = keeps;
        match state {
            Some(state) => self.catch_up(state)?,
            // This rank may have found an old checkpoint where rank 0 sees none.
            None if self.initialized => {
                let reason =
                    "this one found a checkpoint to go on from and rank 0 did not; do they see the same folder?";
                return Err(Error::config("ranks", reason));
            }
            None => {}
        }
        self.joined = true;
        Ok(())
    }

    /// Takes over the counters and tensors of a run that rank 0 goes on with.
    fn catch_up(&mut self, state: RunState) -> Result<()> {
        let updates = state.ema_updates;
        if self.channel.rank() != 0 {
            self.go_on(state).map_err(|reason| Error::config("ranks", reason))??;
        }
        self.share_weights()?;
        let moments = self.those_of_first(self.optimizer.state()?)?;
        self.optimizer.restore(&moments)?;
        if let Some(averages) = self.ema.as_ref().map(Ema::averages) {
            let averages = self.those_of_first(averages)?;
            self.ema.as_mut().map_or(Ok(()), |ema| ema.restore(&averages, updates))?;
        }
        Ok(())
    }

    /// Gives every rank the parameters and buffers of rank 0.
    pub(super) fn share_weights(&self) -> Result<()> {
        if self.channel.world_size() == 1 {
            return Ok(());
        }
        let weights = self.those_of_first(self.task.store().snapshot()?)?;
        self.task.store().restore(&weights)
    }

    /// The tensors of rank 0, bit by bit.
    fn those_of_first(&self, own: Tensors) -> Result<Tensors> {
        let name = Path::new("weights of rank 0");
        let bytes = if self.channel.rank() == 0 { files::to_bytes(name, &own)? } else { Vec::new() };
        files::from_bytes(name, &self.channel.broadcast(bytes)?)
    }

    /// What all ranks must have in common.
    fn description(&self) -> Result<Description> {
        let mut run = self.described.clone();
        // The same data may lie elsewhere on another machine.
        if let (Some(location), Some(fields), true) = (T::LOCATION, run.as_object_mut(), self.data.is_some()) {
            fields.remove(location);
        }
        Ok(Description(serde_json::json!({
            "version": env!("CARGO_PKG_VERSION"),
            "ranks": self.channel.world_size(),
            "run": run,
            "engine": json("configuration of the engine", &self.config)?,
            "data": self.data.as_ref().map(Fingerprint::by_name),
            "model": shapes(self.task.store()),
        })))
    }
}

/// The number of parameters and buffers, and a hash of their names, shapes and types.
fn shapes(store: &ParamStore) -> serde_json::Value {
    let all = store.all();
    let hash = all.iter().fold(Fnv::new(), |hash, param| {
        hash.bytes(format!("{} {:?} {:?};", param.name(), param.var().dims(), param.dtype()).as_bytes())
    });
    serde_json::json!({"tensors": all.len(), "names, shapes and types": format!("{:016x}", hash.value())})
}
