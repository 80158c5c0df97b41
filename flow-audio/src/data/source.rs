//! One file as a clip, whatever its format.

use std::path::{Path, PathBuf};

use super::clip::Decoded;
use super::kind::{Kind, first_bytes, read_file, recognise};
use super::{Clip, wav};
use crate::Result;

/// Where a clip is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Source {
    pub(super) path: PathBuf,
    /// As the user knows it: relative to what was opened.
    pub(super) name: String,
    pub(super) transcript: Option<String>,
}

impl Source {
    pub(super) fn new(path: PathBuf, name: String) -> Self {
        Source { path, name, transcript: None }
    }

    /// The clip, mixed to one channel.
    ///
    /// # Errors
    /// Those of the format's reader.
    pub(super) fn read(&self) -> Result<Clip> {
        let kind = recognise(&self.path, &first_bytes(&self.path)?)?;
        let bytes = read_file(&self.path)?;
        let decoded = match kind {
            Kind::Wav => wav::read(&self.path, &bytes)?,
            kind => compressed(&self.path, &bytes, kind)?,
        };
        Ok(Clip::from_decoded(&self.name, decoded)?.with_transcript(self.transcript.clone()))
    }
}

#[cfg(feature = "codecs")]
fn compressed(path: &Path, bytes: &[u8], kind: Kind) -> Result<Decoded> {
    super::codecs::read(path, bytes, kind)
}

#[cfg(not(feature = "codecs"))]
fn compressed(path: &Path, _bytes: &[u8], kind: Kind) -> Result<Decoded> {
    Err(crate::Error::FeatureDisabled { path: path.into(), format: kind.name() })
}
