//! The real data sets, against numbers published about them.
//!
//! The folder is `FLOW_DATA`, or `../shared/data` beside the workspace; without it these tests say that
//! they check nothing.

// Helper functions of tests are no tests to the lint.

use std::path::{Path, PathBuf};

use flow_image::data::{self, Splits};
use flow_image::{Dataset, OpenOptions};

fn folder(name: &str) -> Option<PathBuf> {
    let workspace = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let root = std::env::var_os("FLOW_DATA").map_or_else(|| workspace.join("../shared/data"), PathBuf::from);
    let path = root.join(name);
    if path.exists() {
        return Some(path);
    }
    eprintln!("SKIPPED: no {}; set FLOW_DATA to the folder of data sets", path.display());
    None
}

fn open(path: &Path) -> Splits {
    data::open(path, &OpenOptions::default().with_held_out(0.0, 0.1)).unwrap()
}

/// Mean and standard deviation of one channel over all images, in units of 255.
fn moments(set: &Dataset, channel: usize) -> (f64, f64) {
    let [channels, height, width] = set.shape();
    let planes = set.images().chunks_exact(height * width).skip(channel).step_by(channels);
    let (mut sum, mut squares) = (0u64, 0u64);
    for &value in planes.flatten() {
        sum += u64::from(value);
        squares += u64::from(value).pow(2);
    }
    let count = (set.len() * height * width) as f64;
    let mean = sum as f64 / count;
    (mean / 255.0, (squares as f64 / count - mean * mean).sqrt() / 255.0)
}

#[test]
fn mnist_is_mnist() {
    let Some(path) = folder("images/mnist") else { return };
    let splits = open(&path);
    assert_eq!((splits.train.len(), splits.validation.len(), splits.test.len()), (60_000, 0, 10_000));
    let (mean, std) = moments(&splits.train, 0);
    assert!((mean - 0.1307).abs() < 5e-5 && (std - 0.3081).abs() < 5e-5, "{mean} {std}");
    let padded = splits.test.pad_to_multiple(32).unwrap();
    assert_eq!(padded.shape(), [1, 32, 32]);
}

#[test]
fn fashion_mnist_is_fashion_mnist() {
    let path = Path::new("/usr/share/datasets/fashion-mnist");
    if !path.exists() {
        eprintln!("SKIPPED: no {}; install the Debian package dataset-fashion-mnist", path.display());
        return;
    }
    let (mean, std) = moments(&open(path).train, 0);
    assert!((mean - 0.28604).abs() < 5e-6 && (std - 0.35302).abs() < 5e-6, "{mean} {std}");
}

#[test]
fn cifar_10_is_cifar_10() {
    let Some(path) = folder("images/cifar-10-batches-bin") else { return };
    let splits = open(&path);
    assert_eq!((splits.test.len(), splits.test.shape()), (10_000, [3, 32, 32]));
    assert_eq!(splits.test.class_names()[6], "frog");
    let labels = splits.test.labels().unwrap();
    assert!((0..10).all(|class| labels.iter().filter(|&&l| l == class).count() == 1000));
    // The published moments are of all 50,000 training images, of which a part may be here.
    for (channel, (mean, std)) in [(0.4914, 0.2470), (0.4822, 0.2435), (0.4465, 0.2616)].into_iter().enumerate() {
        let (m, s) = moments(&splits.train, channel);
        assert!((m - mean).abs() < 3e-3 && (s - std).abs() < 3e-3, "channel {channel}: {m} {s}");
    }
}
