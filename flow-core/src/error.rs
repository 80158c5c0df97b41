//! The one error type of this crate.
//!
//! Every variant says what was given, what was expected and where, so that the message alone is
//! enough to mend the cause.

use std::path::PathBuf;

use candle_core::DType;

/// A direction of a [`Bijector`](crate::Bijector), for messages.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    /// Data to latent.
    Encode,
    /// Latent to data.
    Decode,
}

impl Direction {
    /// The other one.
    pub fn opposite(self) -> Self {
        match self {
            Direction::Encode => Direction::Decode,
            Direction::Decode => Direction::Encode,
        }
    }
}

impl std::fmt::Display for Direction {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Direction::Encode => "encode",
            Direction::Decode => "decode",
        })
    }
}

/// What can go wrong in `flow-core`.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A tensor whose shape does not fit the layer it was given to.
    #[error("{layer}: expected {expected}, got a tensor of shape {actual:?}")]
    Shape {
        /// The layer or function that refused the tensor.
        layer: String,
        /// The shape it wanted, in words: `(B, 12, 16, 16)`.
        expected: String,
        /// The shape it was given.
        actual: Vec<usize>,
    },
    /// A conditioning tensor that is missing, or present where none is wanted.
    #[error("{layer}: {reason}")]
    Context {
        /// The layer or function.
        layer: String,
        /// What was wrong with the context.
        reason: String,
    },
    /// A tensor of another element type than the layer computes in; there are no implicit conversions.
    #[error("{layer}: expected element type {expected}, got {actual:?}")]
    DType {
        /// The layer or function that refused the tensor.
        layer: String,
        /// The type it wanted, in words: `F32`, `F32 or F64`.
        expected: String,
        /// The type it was given.
        actual: DType,
    },
    /// A direction that the layer does not have in closed form.
    #[error("{layer} cannot {direction}{}: {reason}", named(rows))]
    NotInvertible {
        /// The layer.
        layer: String,
        /// The direction asked for.
        direction: Direction,
        /// The rows of the batch that are to blame, ascending; the others can be had by
        /// [`bijector::each_row`](crate::bijector::each_row). Empty if it is all of them.
        rows: Vec<usize>,
        /// Why, and what to use instead.
        reason: String,
    },
    /// Numbers outside the domain of a layer.
    #[error("{layer}{}: {reason}", named(rows))]
    Domain {
        /// The layer.
        layer: String,
        /// The rows of the batch that hold them, ascending.
        rows: Vec<usize>,
        /// What the domain is and what helps.
        reason: String,
    },
    /// A NaN or an infinity where a finite number is needed.
    #[error("{layer}: non-finite {what}{}", step.map(|s| format!(" at step {s}")).unwrap_or_default())]
    NonFinite {
        /// The layer or function that met it.
        layer: String,
        /// What was not finite: `loss`, `sample`, `log-determinant` …
        what: String,
        /// The training step, where there is one.
        step: Option<u64>,
    },
    /// A hyper-parameter or argument outside its domain.
    #[error("{what}: {reason}")]
    Config {
        /// The parameter.
        what: String,
        /// What is wrong with it and what would be right.
        reason: String,
    },
    /// A checkpoint that cannot be used, with the exact difference.
    #[error("checkpoint {}: {reason}", path.display())]
    Checkpoint {
        /// The file or folder.
        path: PathBuf,
        /// What differs.
        reason: String,
    },
    /// A file system failure, with the path that caused it.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// The system's own error.
        source: std::io::Error,
    },
    /// A solver of an ordinary differential equation that cannot go on.
    #[error(
        "ODE solver at t = {t}, dt = {dt:.3e}{}: {reason}",
        row.map(|r| format!(", sample {r}")).unwrap_or_default()
    )]
    Solver {
        /// The time reached.
        t: f64,
        /// The step that failed.
        dt: f64,
        /// The sample with the largest error, if the state tells.
        row: Option<usize>,
        /// What happened and what helps.
        reason: String,
    },
    /// A row of data that holds a NaN or an infinity, found because a step on it was not finite.
    #[error("{what}: row {row} holds a number that is not finite; remove or repair it")]
    NonFiniteRow {
        /// The data.
        what: String,
        /// The row, from zero.
        row: usize,
    },
    /// A failure of a task of the training engine, in the words of the crate that it comes from.
    #[error(transparent)]
    Task(Box<dyn std::error::Error + Send + Sync>),
    /// The run was asked to stop (Ctrl-C) and has stopped cleanly.
    #[error("interrupted at step {step}")]
    Interrupted {
        /// The last finished step.
        step: u64,
    },
    /// A failure inside Candle.
    #[error("{}", first_line(.0))]
    Tensor(#[from] candle_core::Error),
}

/// Candle appends a backtrace to its messages when `RUST_BACKTRACE` is set; a user needs one line.
fn first_line(error: &candle_core::Error) -> String {
    error.to_string().lines().next().unwrap_or_default().to_string()
}

/// ` row 3`, ` rows 3, 4 and 7`, or the first few and how many more; nothing for no rows.
fn named(rows: &[usize]) -> String {
    const SHOWN: usize = 8;
    let shown: Vec<String> = rows.iter().take(SHOWN).map(ToString::to_string).collect();
    match (rows, rows.len().checked_sub(SHOWN)) {
        ([], _) => String::new(),
        ([row], _) => format!(" row {row}"),
        (_, None | Some(0)) => format!(" rows {}", shown.join(", ")),
        (_, Some(more)) => format!(" rows {} and {more} more", shown.join(", ")),
    }
}

/// Shorthand used throughout the crate.
pub type Result<T> = std::result::Result<T, Error>;

impl Error {
    /// An [`Error::Config`] from its two parts.
    pub fn config(what: impl Into<String>, reason: impl Into<String>) -> Self {
        Error::Config { what: what.into(), reason: reason.into() }
    }

    /// The rows of the batch that are to blame, ascending: without them the call may succeed. Empty if the error is not
    /// about single rows.
    pub fn rows(&self) -> &[usize] {
        match self {
            Error::NotInvertible { rows, .. } | Error::Domain { rows, .. } => rows,
            Error::Solver { row: Some(row), .. } | Error::NonFiniteRow { row, .. } => std::slice::from_ref(row),
            _ => &[],
        }
    }

    /// The same error about a batch in which row `i` is row `place[i]`.
    #[must_use]
    pub(crate) fn renumbered(mut self, place: &[usize]) -> Self {
        let there = |row: &mut usize| *row = place.get(*row).copied().unwrap_or(*row);
        match &mut self {
            Error::NotInvertible { rows, .. } | Error::Domain { rows, .. } => rows.iter_mut().for_each(there),
            Error::Solver { row: Some(row), .. } | Error::NonFiniteRow { row, .. } => there(row),
            _ => {}
        }
        self
    }

    /// An [`Error::Task`] around another crate's error; its message and its source stay.
    pub fn task(error: impl std::error::Error + Send + Sync + 'static) -> Self {
        Error::Task(Box::new(error))
    }

    /// An [`Error::Io`] that remembers its path: `fs::read(p).map_err(Error::io(p))`.
    pub fn io(path: impl Into<PathBuf>) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.into();
        move |source| Error::Io { path, source }
    }
}
