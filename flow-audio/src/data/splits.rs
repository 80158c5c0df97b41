//! Train, validation and test parts of a set of clips.

use flow_core::FlowRng;
use flow_core::train::Fingerprint;

use super::Clips;
use crate::{Error, Result};

/// The three parts of a set of clips: whole clips each, never segments of the same clip in two parts.
#[derive(Debug, Clone, PartialEq)]
pub struct Splits {
    /// What the model learns from.
    pub train: Clips,
    /// What training decisions look at: early stopping, the best checkpoint.
    pub validation: Clips,
    /// What is reported, and looked at by nothing else.
    pub test: Clips,
}

impl Splits {
    /// By what a run knows its data again.
    pub fn fingerprint(&self) -> Fingerprint {
        let parts = [("train", &self.train), ("validation", &self.validation), ("test", &self.test)];
        parts.iter().fold(Fingerprint::new("clips"), |print, (name, set)| print.part(name, set.len(), set.hash()))
    }

    /// What was left out, mixed down, clipped or resampled in reading, every sentence once.
    pub fn notes(&self) -> Vec<&str> {
        let mut notes: Vec<&str> = Vec::new();
        for note in [&self.train, &self.validation, &self.test].into_iter().flat_map(Clips::notes) {
            if !notes.contains(&note.as_str()) {
                notes.push(note);
            }
        }
        notes
    }
}

/// The parts that a source has of its own.
#[derive(Debug)]
pub(super) struct Parts {
    pub(super) train: Clips,
    pub(super) validation: Option<Clips>,
    pub(super) test: Option<Clips>,
}

/// How many of `count` clips a fraction is: at least one, unless it is zero.
pub(super) fn share(count: usize, fraction: f64) -> usize {
    if fraction == 0.0 { 0 } else { ((count as f64 * fraction).round() as usize).max(1) }
}

/// `(rest, held out)`: so many whole clips, by a permutation that depends on `seed` and `part` alone.
pub(super) fn hold_out(set: &Clips, count: usize, seed: u64, part: &str) -> Result<(Clips, Clips)> {
    if count >= set.len() {
        let reason = format!(
            "cannot hold {count} of {} clips out for {part}; parts are made of whole clips: give more of them, or hold \
             nothing out",
            set.len()
        );
        return Err(Error::config(set.source(), reason));
    }
    let order = FlowRng::named(seed, part).permutation(set.len());
    let (held, rest) = order.split_at(count);
    Ok((set.subset(rest.iter().copied())?, set.subset(held.iter().copied())?))
}
