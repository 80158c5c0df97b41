//! Readers of sound files, corpora and the batches drawn from them.
