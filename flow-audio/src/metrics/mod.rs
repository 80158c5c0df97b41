//! How near synthesised speech comes to the recording.
