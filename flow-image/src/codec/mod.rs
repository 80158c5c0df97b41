//! Lossless compression of images by an integer discrete flow.
//!
//! A density over integers is a code: an image of probability `p` can be written in `-log₂ p` bits. An
//! *integer discrete flow* (Hoogeboom, Peters, van den Berg & Welling 2019) is such a density, and its
//! bijection maps integers to integers exactly, so that nothing is lost. [`Idf::bits`] is the length that training
//! minimises; [`compress`] and [`decompress`] realise it with a range coder.
//!
//! # What is guaranteed
//! `decompress(model, compress(model, x)) = x` bit for bit. The arithmetic of the coder consists of IEEE 754 operations
//! in a fixed order, one image at a time, and uses no tensor library and no function of the system's
//! mathematical library. An archive therefore does not depend on the number of threads, on the batch or on
//! instruction-set extensions, and can be read on another machine of any architecture whose `f32` and `f64` follow the standard
//! (all 64-bit targets; x87 code on 32-bit x86 does not). The *same weights* are needed: the
//! archive carries their [`fingerprint`] and checksums of archive and pixels, so that a mismatch is an
//! error, never a wrong image.
//!
//! # What it costs
//! Whole archives of the first thousand test images, in bits per value, after a few minutes of training on one
//! CPU core (`cargo run --release -p flow-image --example idf`); the model itself is not counted:
//!
//! | images | preset | steps | images seen | minutes | bits/value | WebP, lossless |
//! |---|---|---|---|---|---|---|
//! | MNIST | `idf-mnist` | 1,500 | 24,000 | 2.5 | 1.169 | 2.031 |
//! | Fashion-MNIST | `idf-fashion` | 1,500 | 24,000 | 2.1 | 3.136 | 4.555 |
//! | CIFAR-10 (19,000 images to train on) | `idf-cifar10` | 2,000 | 32,000 | 5.2 | 3.973 | 4.699 |
//!
//! The core was shared with other work, so that the minutes are upper bounds. At such budgets the priors do the
//! work. With one coupling per level CIFAR-10 after 800 steps needs 4.189 bits/value on validation images,
//! without any 4.185; MNIST needs 1.439 on the test images instead of 1.169, and Fashion-MNIST 3.377 instead of 3.136.
//! Presumably a translation takes from black pixels what makes them cheap, being exactly black. Neither
//! translations modulo the number of levels nor couplings that start at zero helped MNIST within 750 steps. Hence
//! the presets for grey images have no couplings.

mod archive;
mod coder;
mod config;
mod fixed;
mod mixture;
mod model;
mod names;
mod net;
mod task;

pub use archive::{
    ArchiveInfo, Restored, compress, compress_named, decompress, decompress_from, fingerprint, info, read_archive,
    restore, restore_archive, write_archive, write_named_archive,
};
pub use config::{IdfConfig, PRESETS};
pub use model::Idf;
pub use task::{IdfRun, IdfTask, train_config};

/// Bits per value of `archive_bytes` bytes that hold `values` integers: what image coding papers report.
///
/// Everything in the archive counts, the header included; not the model.
pub fn bits_per_value(archive_bytes: usize, values: usize) -> f64 {
    8.0 * archive_bytes as f64 / values as f64
}

#[cfg(test)]
mod tests;
