//! From the description in a checkpoint back to a model.

use std::path::Path;

use candle_core::Device;
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::checkpoint::{find_checkpoint, load_averaged, load_config, load_fingerprint};
use super::files::fault;
use crate::{Error, ParamStore};

/// A model as [`load`] sees it.
pub trait Model {
    /// The parameters and buffers.
    fn store(&self) -> &ParamStore;

    /// Switches batch statistics (training) or running averages (evaluation). The default has none to switch.
    fn set_training(&self, _training: bool) {}
}

/// The part of `config.json` that makes a checkpoint self-describing: enough to build its model again.
///
/// A [`Task`](super::Task) names it as its `Run`; [`load`] does the reverse.
pub trait Run: Serialize + DeserializeOwned {
    /// What is described.
    type Model: Model;
    /// What can go wrong.
    type Error: From<Error>;
    /// The model in words, for the message about a checkpoint of something else: "an image model".
    const DESCRIBES: &'static str;

    /// Builds the model with fresh parameters.
    ///
    /// # Errors
    /// A field that is out of range, by name.
    fn build(&self, device: &Device) -> Result<Self::Model, Self::Error>;

    /// Reads the description of a checkpoint folder.
    ///
    /// # Errors
    /// [`Error::Checkpoint`] naming the folder when the configuration is missing or describes something else.
    fn read(checkpoint: &Path) -> Result<Self, Self::Error> {
        let config = load_config(checkpoint)?;
        let data =
            load_fingerprint(checkpoint)?.map_or_else(String::new, |data| format!("; the run is on {}", data.kind()));
        let other = |error: serde_json::Error| {
            let (own, said) = (Self::DESCRIBES, error.to_string());
            let field =
                said.strip_prefix("unknown field `").and_then(|rest| rest.split_once('`')).map(|(field, _)| field);
            let reason = match field {
                Some(field) => format!(
                    "config.json does not describe {own}, it speaks of `{field}`{data}: load it with the program that trained \
                     it, or with its version"
                ),
                None => format!("config.json does not describe {own}: {said}{data}"),
            };
            fault(checkpoint, reason)
        };
        Ok(serde_json::from_value(config).map_err(other)?)
    }
}

/// The description and the model of a checkpoint, in evaluation mode, with the averaged weights if `average` and it has
/// them.
///
/// `path` is a checkpoint, or a run's folder, of which the best checkpoint is taken.
///
/// # Errors
/// [`Error::Checkpoint`] or [`Error::Io`] naming the file and the difference; those of [`Run::build`].
pub fn load<R: Run>(path: &Path, device: &Device, average: bool) -> Result<(R, R::Model), R::Error> {
    let checkpoint = find_checkpoint(path)?;
    let run = R::read(&checkpoint)?;
    let model = run.build(device)?;
    load_averaged(&checkpoint, model.store(), average)?;
    model.set_training(false);
    Ok((run, model))
}
