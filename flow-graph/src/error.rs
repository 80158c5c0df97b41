//! The one error type of this crate.
//!
//! A message about a file names the file, the line and column in it, and what was expected there.

use std::path::PathBuf;

/// What can go wrong in `flow-graph`.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A SMILES that cannot be read.
    #[error("SMILES '{}', column {column}: {reason}", shortened(.smiles))]
    Smiles {
        /// The whole string.
        smiles: String,
        /// Column counted from one, in characters.
        column: usize,
        /// What is wrong there and what was expected.
        reason: String,
    },
    /// A structure that is well-formed but is no molecule: a valence exceeded, no Kekulé form, no atoms.
    #[error("{0}")]
    Chemistry(String),
    /// A place in a file that is not what the format promises.
    #[error("{}: line {line}, column {column}: {reason}", path.display())]
    Line {
        /// The file.
        path: PathBuf,
        /// Line number, counted from one (after decompression where the file is compressed).
        line: usize,
        /// Column counted from one.
        column: usize,
        /// What the format wants there and what was found.
        reason: String,
    },
    /// A file that as a whole is not usable.
    #[error("{}: {reason}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What is wrong with it and what would be right.
        reason: String,
    },
    /// A molecule that a model cannot express.
    #[error("the model cannot express this molecule: {0}")]
    Vocabulary(String),
    /// A failure of the core: tensors, files, arguments.
    #[error(transparent)]
    Core(#[from] flow_core::Error),
}

/// Shorthand used throughout the crate.
pub type Result<T> = std::result::Result<T, Error>;

/// Long strings would bury the message.
fn shortened(text: &str) -> String {
    const LONGEST: usize = 120;
    match text.char_indices().nth(LONGEST) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_string(),
    }
}

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
