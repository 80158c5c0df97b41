//! Mel spectrograms by named conventions.
