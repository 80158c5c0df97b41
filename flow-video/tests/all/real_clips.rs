//! Real files, where there are some.
//!
//! The folder is `FLOW_DATA`, or `../shared/data` beside the workspace; without it these tests say that they check
//! nothing.

use std::path::{Path, PathBuf};

use flow_video::data::{Clip, OpenOptions, open, open_all};

use crate::support::plain;

fn file(name: &str) -> Option<PathBuf> {
    let workspace = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let root = std::env::var_os("FLOW_DATA").map_or_else(|| workspace.join("../shared/data"), PathBuf::from);
    let path = root.join(name);
    if path.exists() {
        return Some(path);
    }
    eprintln!("SKIPPED: no {}; set FLOW_DATA to the folder of data sets", path.display());
    None
}

/// Mean of all values, and the share of black ones.
fn moments<'a>(clips: impl Iterator<Item = &'a Clip>) -> (f64, f64) {
    let (mut sum, mut black, mut count) = (0u64, 0usize, 0usize);
    for clip in clips {
        sum += clip.values().iter().map(|&v| u64::from(v)).sum::<u64>();
        black += clip.values().iter().filter(|&&v| v == 0).count();
        count += clip.values().len();
    }
    (sum as f64 / count as f64, black as f64 / count as f64)
}

#[test]
fn the_test_set_of_stochastic_moving_mnist() {
    let Some(path) = file("video/smmnist_test_100x20x64x64.npy") else { return };
    let set = open_all(&path, &plain()).unwrap();
    assert_eq!((set.len(), set.shape(), set.get(99).unwrap().frames()), (100, [1, 64, 64], 20));
    let (_, black) = moments(set.iter());
    assert!((black - 0.881).abs() < 5e-4, "{black}");
    let splits = open(&path, &OpenOptions::default()).unwrap();
    assert_eq!([splits.train.len(), splits.validation.len(), splits.test.len()], [85, 5, 10]);
}

/// Clips that are made of MNIST's digits look like that test set, which other code has made.
#[test]
fn moving_mnist_has_the_moments_of_the_test_set() {
    let (Some(digits), Some(path)) = (file("images/mnist"), file("video/smmnist_test_100x20x64x64.npy")) else {
        return;
    };
    let mut options = OpenOptions::default();
    let moving = flow_video::data::generate::MovingDigits::mnist();
    options.digits = Some(flow_video::data::generate::MovingDigits { clips: 1, validation: 1, test: 500, ..moving });
    let made = open(&digits, &options).unwrap();
    let (mean, black) = moments(made.test.iter());
    let (wanted_mean, wanted_black) = moments(open_all(&path, &plain()).unwrap().iter());
    assert!((mean - wanted_mean).abs() < 0.6, "{mean} against {wanted_mean}");
    assert!((black - wanted_black).abs() < 0.005, "{black} against {wanted_black}");
    // How much changes from a frame to the next one.
    let change = |clips: &flow_video::data::Clips| {
        let (mut sum, mut count) = (0u64, 0usize);
        for clip in clips.iter() {
            let (before, after) = (clip.range(0, 19).unwrap(), clip.range(1, 19).unwrap());
            sum += before.iter().zip(after).map(|(a, b)| u64::from(a.abs_diff(*b))).sum::<u64>();
            count += before.len();
        }
        sum as f64 / count as f64
    };
    let (ours, theirs) = (change(&made.test), change(&open_all(&path, &plain()).unwrap()));
    assert!((ours - theirs).abs() < 0.05 * theirs, "{ours} against {theirs}");
}

#[cfg(feature = "ffmpeg")]
#[test]
fn real_videos_have_the_frames_that_others_count() {
    for (name, frames, fps, size) in [
        ("video/bikes.mp4", 250, 25.0, [3, 272, 640]),
        ("video/carphone_pristine.mp4", 120, 0.0, [3, 144, 176]),
        ("video/vtest.avi", 795, 10.0, [3, 576, 768]),
    ] {
        let Some(path) = file(name) else { continue };
        let options = plain().with_size(flow_video::data::Resize::new(size[1] as u32 / 8, size[2] as u32 / 8));
        let clips = open_all(&path, &options).unwrap();
        let clip = clips.get(0).unwrap();
        assert_eq!((clip.frames(), clip.shape()), (frames, [3, size[1] / 8, size[2] / 8]), "{name}");
        assert!(fps == 0.0 || clip.fps() == Some(fps), "{name}: {:?}", clip.fps());
    }
}
