//! What several of these tests need.

use std::path::{Path, PathBuf};

use flow_video::data::{Clip, Clips, OpenOptions, open_all};
use flow_video::io::Pixels;

/// Options that take clips as they are.
pub(crate) fn plain() -> OpenOptions {
    OpenOptions::default().with_held_out(0.0, 0.0)
}

/// `count` frames in which a square moves over a gradient; colours that a GIF's 256 hold exactly.
pub(crate) fn moving(channels: usize, [height, width]: [usize; 2], count: usize) -> Pixels {
    let mut values = Vec::new();
    for frame in 0..count {
        for channel in 0..channels {
            for row in 0..height {
                for column in 0..width {
                    let inside = (frame..frame + 3).contains(&column) && (1..4).contains(&row);
                    let ground = (column * 4 + row * 2) % 96;
                    values.push(if inside { 250 - 60 * channel as u8 } else { (ground + 40 * channel) as u8 });
                }
            }
        }
    }
    Pixels::from_bytes(values, [channels, height, width]).unwrap()
}

/// The only clip of a path.
#[track_caller]
pub(crate) fn only(path: &Path) -> Clip {
    let set = open_all(path, &plain()).unwrap_or_else(|error| panic!("{error}"));
    assert_eq!(set.len(), 1, "{}", path.display());
    set.get(0).unwrap().clone()
}

pub(crate) fn all(path: &Path) -> Clips {
    open_all(path, &plain()).unwrap_or_else(|error| panic!("{error}"))
}

#[track_caller]
pub(crate) fn refused(path: &Path, options: &OpenOptions, expected: &[&str]) {
    let error = open_all(path, options).err().unwrap_or_else(|| panic!("{} was accepted", path.display())).to_string();
    for part in expected {
        assert!(error.contains(part), "no `{part}` in: {error}");
    }
    assert!(!error.contains('\n'), "more than one line: {error}");
}

pub(crate) fn put(root: &Path, name: &str, bytes: &[u8]) -> PathBuf {
    let path = root.join(name);
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(&path, bytes).unwrap();
    path
}

/// The greatest difference of two lists of values.
pub(crate) fn worst(a: &[u8], b: &[u8]) -> u8 {
    assert_eq!(a.len(), b.len());
    a.iter().zip(b).map(|(a, b)| a.abs_diff(*b)).max().unwrap_or(0)
}
