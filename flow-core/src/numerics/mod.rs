//! Numbers without flows: roots, softmax, small matrices, optimal assignments.

pub(crate) mod linalg;
pub(crate) mod root;
pub(crate) mod softmax;
pub mod transport;
