//! The one error type of this crate.
//!
//! A message about a file names the file, the place in it, what was expected there and what was found.

use std::path::{Path, PathBuf};

/// What can go wrong in `flow-audio`.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// Bytes that are not what the format promises.
    #[error("{}: byte {position}: expected {expected}, found {found}", path.display())]
    Format {
        /// The file.
        path: PathBuf,
        /// Offset in bytes.
        position: u64,
        /// What the format wants there.
        expected: String,
        /// What is there.
        found: String,
    },
    /// A path that holds no sound of a known format.
    #[error("{}: found no sound files; looked for {looked_for}", path.display())]
    NoData {
        /// The file or folder.
        path: PathBuf,
        /// The formats and names that were tried.
        looked_for: String,
    },
    /// A file that is something else than its name or place promises.
    #[error("{}: this is {is}; {remedy}", path.display())]
    WrongKind {
        /// The file.
        path: PathBuf,
        /// What it is, with its article.
        is: String,
        /// What to do about it.
        remedy: String,
    },
    /// A sound file that cannot be decoded.
    #[error("{}: {what}; --skip-broken leaves such files out", path.display())]
    Broken {
        /// The file.
        path: PathBuf,
        /// What the decoder says.
        what: String,
    },
    /// A format that this build does not read.
    #[error("{}: this is a {format} file, and this program was built without the feature codecs, which reads them", path.display())]
    FeatureDisabled {
        /// The file.
        path: PathBuf,
        /// Its format.
        format: &'static str,
    },
    /// A failure of the core: tensors, files, arguments.
    #[error(transparent)]
    Core(#[from] flow_core::Error),
}

/// Shorthand used throughout the crate.
pub type Result<T> = std::result::Result<T, Error>;

impl From<candle_core::Error> for Error {
    fn from(error: candle_core::Error) -> Self {
        Error::Core(error.into())
    }
}

impl Error {
    /// An argument outside its domain: [`flow_core::Error::Config`] from its two parts.
    pub fn config(what: impl Into<String>, reason: impl Into<String>) -> Self {
        flow_core::Error::config(what, reason).into()
    }

    /// A file system failure that remembers its path: `fs::read(p).map_err(Error::io(p))`.
    pub fn io(path: impl Into<PathBuf>) -> impl FnOnce(std::io::Error) -> Self {
        let wrap = flow_core::Error::io(path);
        move |source| wrap(source).into()
    }

    /// An [`Error::Format`] from its parts.
    pub fn format(path: &Path, position: usize, expected: impl Into<String>, found: impl Into<String>) -> Self {
        Error::Format {
            path: path.to_path_buf(),
            position: position as u64,
            expected: expected.into(),
            found: found.into(),
        }
    }
}

/// For the training engine: the message and the cause stay.
impl From<Error> for flow_core::Error {
    fn from(error: Error) -> Self {
        match error {
            Error::Core(error) => error,
            other => flow_core::Error::task(other),
        }
    }
}
