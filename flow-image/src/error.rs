//! The one error type of this crate.
//!
//! A message about a file names the file, the place in it, what was expected there and what was found.

use std::path::{Path, PathBuf};

/// What can go wrong in `flow-image`.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// Bytes that are not what the format promises.
    #[error("{}: byte {position}: expected {expected}, found {found}", path.display())]
    Format {
        /// The file.
        path: PathBuf,
        /// Offset in bytes, after decompression where the file is compressed.
        position: u64,
        /// What the format wants there.
        expected: String,
        /// What is there.
        found: String,
    },
    /// A line of text that is not what the format promises.
    #[error("{}: line {line}: expected {expected}, found {found}", path.display())]
    Line {
        /// The file.
        path: PathBuf,
        /// Line number, counted from one.
        line: usize,
        /// What the format wants there.
        expected: String,
        /// What is there.
        found: String,
    },
    /// Two files that contradict each other.
    #[error("{} and {}: {reason}", first.display(), second.display())]
    Mismatch {
        /// One file.
        first: PathBuf,
        /// The other file.
        second: PathBuf,
        /// In what they differ, and what to do about it.
        reason: String,
    },
    /// A path that holds no data set of a known format.
    #[error("{}: found no images; looked for {looked_for}", path.display())]
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
    /// A picture that cannot be decoded.
    #[error("{}: {}; --skip-broken leaves such pictures out", path.display(), one_line(.source))]
    Broken {
        /// The file.
        path: PathBuf,
        /// The codec's own error.
        source: image::ImageError,
    },
    /// A picture that cannot be encoded.
    #[error("{}: {}", path.display(), one_line(.source))]
    Picture {
        /// The file.
        path: PathBuf,
        /// The codec's own error.
        source: image::ImageError,
    },
    /// A failure of the core: tensors, files, arguments.
    #[error(transparent)]
    Core(#[from] flow_core::Error),
}

/// Shorthand used throughout the crate.
pub type Result<T> = std::result::Result<T, Error>;

/// Codecs quote bytes of the file, line breaks included; a user needs one line.
fn one_line(error: &image::ImageError) -> String {
    error.to_string().split_whitespace().collect::<Vec<_>>().join(" ")
}

impl From<candle_core::Error> for Error {
    fn from(error: candle_core::Error) -> Self {
        Error::Core(error.into())
    }
}

impl Error {
    /// The message without what to do about a broken picture, for those who do it already.
    pub(crate) fn without_remedy(&self) -> String {
        match self {
            Error::Broken { path, source } => format!("{}: {}", path.display(), one_line(source)),
            other => other.to_string(),
        }
    }

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

    /// An [`Error::Broken`] that remembers its path.
    pub(crate) fn broken(path: &Path) -> impl FnOnce(image::ImageError) -> Self {
        let path = path.to_path_buf();
        move |source| Error::Broken { path, source }
    }

    /// An [`Error::Picture`] that remembers its path.
    pub(crate) fn picture(path: &Path) -> impl FnOnce(image::ImageError) -> Self {
        let path = path.to_path_buf();
        move |source| Error::Picture { path, source }
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
