//! What is written: WAV, arrays and pictures.
