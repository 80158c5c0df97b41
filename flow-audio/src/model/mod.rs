//! WaveFlow, split by its parts.
