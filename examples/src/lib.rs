//! What the example programs share.

pub mod bench;
pub mod cli;
pub mod density;
pub mod dlgm;
pub mod engine;
pub mod glow;
pub mod graphaf;
pub mod info;
pub mod pack;
mod paths;
pub mod plot;
pub mod pointflow;
pub mod ranks;
mod settings;
pub mod solver;
pub mod training;
pub mod videoflow;
pub mod waveflow;

/// Tensors come and go by the thousand a second. The system's allocator hands every large one back at once and clears the
/// pages anew for the next, which took a quarter of a training step of small networks.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// The workspace README's example, compiled and run with the documentation tests.
#[cfg(doctest)]
#[doc = include_str!("../../README.md")]
struct Readme;
