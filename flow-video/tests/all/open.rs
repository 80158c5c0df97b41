//! Paths as people have them: folders of clips, parts, names of generators.

use std::path::Path;

use flow_image::io::Pixels;
use flow_video::data::generate::{MovingDigits, Shapes};
use flow_video::data::{Clip, OpenOptions, holds_arrays, is_generated, open, open_all};
use flow_video::io::{write_clip, write_frames};
use image::{Rgb, RgbImage};

use crate::support::{all, moving, plain, put, refused};

const SIZE: [usize; 2] = [5, 7];

/// A folder of numbered pictures, each of its number.
fn pictures(folder: &Path, numbers: &[usize], name: impl Fn(usize) -> String) {
    std::fs::create_dir_all(folder).unwrap();
    for &number in numbers {
        RgbImage::from_pixel(4, 3, Rgb([number as u8, 9, 9])).save(folder.join(name(number))).unwrap();
    }
}

fn firsts(clip: &Clip) -> Vec<u8> {
    (0..clip.frames()).map(|frame| clip.frame(frame).unwrap()[0]).collect()
}

#[test]
fn folders_of_numbered_pictures_are_clips() {
    let root = tempfile::tempdir().unwrap();
    // KTH's names, BAIR's numbers without zeros and its depth, and a clip with a hole.
    pictures(&root.path().join("walking/person01"), &[1, 2, 3], |n| format!("image-{n:03}.png"));
    let twelve: Vec<usize> = (0..12).collect();
    pictures(&root.path().join("traj_0_to_255/3"), &twelve, |n| format!("{n}.png"));
    pictures(&root.path().join("traj_0_to_255/20"), &[0, 1, 5, 6], |n| format!("{n}.png"));
    put(root.path(), "readme.txt", b"hello");
    put(root.path(), ".hidden/0.png", b"junk");
    let set = all(root.path());
    let names: Vec<&str> = set.iter().map(Clip::name).collect();
    assert_eq!(names, ["traj_0_to_255/3", "traj_0_to_255/20", "walking/person01"]);
    assert_eq!(firsts(set.get(0).unwrap()), (0..12).collect::<Vec<u8>>());
    assert_eq!((firsts(set.get(1).unwrap()), set.get(1).unwrap().fps()), (vec![0, 1, 5, 6], None));
    let said = set.notes().join("\n");
    assert!(said.contains("3 numbers between the first and the last are missing: 2 to 4"), "{said}");
    assert!(said.contains("1 files are no clips and no pictures: readme.txt"), "{said}");
    // A folder of pictures is one clip, named by itself.
    let one = all(&root.path().join("walking/person01"));
    assert_eq!((one.len(), one.get(0).unwrap().name()), (1, "person01"));
    // Clips that are too short are named, and so is the rate that there is not.
    let long = open_all(root.path(), &plain().with_frames(4)).unwrap();
    assert!(long.len() == 2 && long.notes().last().unwrap().contains("walking/person01 (3)"), "{:?}", long.notes());
    let mut options = plain();
    options.fps = Some(5.0);
    refused(root.path(), &options, &["--fps", "no times"]);
}

#[test]
fn a_folder_may_mix_files_and_folders() {
    let root = tempfile::tempdir().unwrap();
    let frames = moving(1, SIZE, 3);
    for name in ["b10.gif", "b9.y4m", "c.png"] {
        write_clip(&root.path().join(name), &frames, 10.0).unwrap();
    }
    write_frames(&root.path().join("a"), &moving(3, SIZE, 3)).unwrap();
    let set = all(root.path());
    let names: Vec<&str> = set.iter().map(Clip::name).collect();
    assert_eq!((names, set.shape()), (vec!["b9.y4m", "b10.gif", "c.png", "a"], [3, 5, 7]));
    write_clip(&root.path().join("d.gif"), &moving(1, [6, 6], 3), 10.0).unwrap();
    refused(root.path(), &plain(), &["5x7 in b9.y4m but 6x6 in d.gif", "--size"]);
    assert_eq!(open_all(root.path(), &plain().with_size(4)).unwrap().len(), 5);
}

#[test]
fn broken_clips_are_named_or_left_out() {
    let root = tempfile::tempdir().unwrap();
    for name in ["a.gif", "b.gif"] {
        write_clip(&root.path().join(name), &moving(1, SIZE, 3), 10.0).unwrap();
    }
    let whole = std::fs::read(root.path().join("b.gif")).unwrap();
    put(root.path(), "b.gif", &whole[..whole.len() / 2]);
    refused(root.path(), &plain(), &["b.gif"]);
    let mut options = plain();
    options.skip_broken = true;
    let set = open_all(root.path(), &options).unwrap();
    assert!(set.len() == 1 && set.notes()[0].contains("1 of 2 clips cannot be read and were left out: b.gif"));
}

#[test]
fn parts_are_whole_clips_by_the_seed() {
    let root = tempfile::tempdir().unwrap();
    for clip in 0..20u8 {
        let frames = Pixels::from_bytes(vec![clip; 3 * 4], [1, 2, 2]).unwrap();
        write_clip(&root.path().join(format!("{clip}.y4m")), &frames, 10.0).unwrap();
    }
    let options = OpenOptions::default().with_held_out(0.1, 0.25);
    let splits = open(root.path(), &options).unwrap();
    let names = |set: &flow_video::data::Clips| set.iter().map(|clip| clip.name().to_string()).collect::<Vec<_>>();
    let mut all_names = [names(&splits.train), names(&splits.validation), names(&splits.test)].concat();
    assert_eq!([splits.train.len(), splits.validation.len(), splits.test.len()], [13, 2, 5]);
    assert!(splits.test.source().ends_with("5 of 20 clips held out for test (seed 0)"), "{}", splits.test.source());
    all_names.sort();
    all_names.dedup();
    assert_eq!(all_names.len(), 20);
    assert_eq!(splits, open(root.path(), &options).unwrap());
    assert_eq!(splits.fingerprint(), open(root.path(), &options).unwrap().fingerprint());
    let mut other = options.clone();
    other.seed = 1;
    let moved = open(root.path(), &other).unwrap();
    assert_ne!(names(&splits.test), names(&moved.test));
    assert!(splits.fingerprint().difference(&moved.fingerprint()).unwrap().contains("clips"));
    // More clips to validate do not move the test clips.
    assert_eq!(splits.test, open(root.path(), &OpenOptions::default().with_held_out(0.3, 0.25)).unwrap().test);
}

#[test]
fn folders_of_parts_are_respected() {
    let root = tempfile::tempdir().unwrap();
    for (part, count) in [("train", 3), ("val", 1), ("test", 2)] {
        for clip in 0..count {
            write_frames(&root.path().join(format!("{part}/{clip}")), &moving(1, SIZE, 2)).unwrap();
        }
    }
    put(root.path(), "other/0.png", b"never read");
    let splits = open(root.path(), &OpenOptions::default()).unwrap();
    assert_eq!([splits.train.len(), splits.validation.len(), splits.test.len()], [3, 1, 2]);
    assert!(
        splits.notes().iter().any(|note| note.contains("beside its parts, not read: other")),
        "{:?}",
        splits.notes()
    );
    write_frames(&root.path().join("test/9"), &moving(3, SIZE, 2)).unwrap();
    let error = open(root.path(), &OpenOptions::default()).unwrap_err().to_string();
    assert!(error.contains("[1, 5, 7]") && error.contains("[3, 5, 7]"), "{error}");
}

#[test]
fn one_clip_has_parts_only_in_pieces() {
    let root = tempfile::tempdir().unwrap();
    let path = root.path().join("long.y4m");
    write_clip(&path, &moving(1, SIZE, 43), 10.0).unwrap();
    let error = open(&path, &OpenOptions::default()).unwrap_err().to_string();
    assert!(error.contains("long.y4m") && error.contains("--cut"), "{error}");
    let mut options = OpenOptions::default().with_frames(8);
    options.cut = Some(8);
    let splits = open(&path, &options).unwrap();
    assert_eq!([splits.train.len(), splits.validation.len(), splits.test.len()], [3, 1, 1]);
    assert!(splits.notes().iter().any(|note| note.contains("long.y4m#40 (3)")), "{:?}", splits.notes());
    options.cut = Some(7);
    assert!(open(&path, &options).unwrap_err().to_string().contains("cut"));
}

#[test]
fn digits_and_shapes_need_no_file() {
    let mut options = OpenOptions::default().with_frames(6);
    options.digits = Some(MovingDigits { clips: 4, validation: 2, test: 3, frames: 6, ..MovingDigits::builtin() });
    assert!(is_generated("digits") && is_generated("shapes") && !is_generated("elsewhere"));
    let splits = open("digits", &options).unwrap();
    assert_eq!([splits.train.len(), splits.validation.len(), splits.test.len()], [4, 2, 3]);
    assert_eq!((splits.train.shape(), splits.train.windows(4)), ([1, 32, 32], 12));
    assert_eq!(splits, open("digits", &options).unwrap());
    assert_eq!(open_all("digits", &options).unwrap().len(), 9);
    let mut other = options.clone();
    other.seed = 1;
    assert_ne!(splits.fingerprint(), open("digits", &other).unwrap().fingerprint());
    // What does not apply is refused.
    assert!(open("digits", &options.clone().with_size(16)).unwrap_err().to_string().contains("--size"));
    assert!(open("shapes", &options).unwrap_err().to_string().contains("how digits move"));
    options.frames = 7;
    assert!(open("digits", &options).unwrap_err().to_string().contains("no clip has 7 frames"));
    let mut options = OpenOptions::default();
    options.shapes = Some(Shapes { clips: 4, validation: 1, test: 1, frames: 3, size: 20 });
    assert_eq!(open("shapes", &options).unwrap().train.shape(), [3, 20, 20]);
    assert!(open("digits", &options).unwrap_err().to_string().contains("how shapes move"));
    let json = serde_json::to_string(&options).unwrap();
    assert_eq!(serde_json::from_str::<OpenOptions>(&json).unwrap(), options);
}

#[test]
fn idx_files_become_moving_digits() {
    let root = tempfile::tempdir().unwrap();
    let idx = |count: u8, first: u8| {
        let header = [[0, 0, 8, 3], [0, 0, 0, count], [0, 0, 0, 28], [0, 0, 0, 28]].concat();
        let images = (0..count).flat_map(|image| vec![first + image; 784]);
        header.into_iter().chain(images).collect::<Vec<u8>>()
    };
    put(root.path(), "MNIST/raw/train-images-idx3-ubyte", &idx(40, 1));
    put(root.path(), "MNIST/raw/t10k-images-idx3-ubyte", &idx(10, 100));
    let mut options = OpenOptions::default();
    let moving = MovingDigits { clips: 5, validation: 2, test: 3, digits: 1, ..MovingDigits::mnist() };
    options.digits = Some(moving);
    for path in [root.path().to_path_buf(), root.path().join("MNIST/raw")] {
        assert!(is_generated(&path) && !holds_arrays(&path));
        let splits = open(&path, &options).unwrap();
        assert_eq!((splits.train.len(), splits.train.shape(), splits.test.len()), (5, [1, 64, 64], 3));
        let brightest = |set: &flow_video::data::Clips| set.iter().flat_map(|c| c.values().to_vec()).max().unwrap();
        assert!(brightest(&splits.train) <= 40 && brightest(&splits.test) >= 100, "each part has its own digits");
    }
    let one = root.path().join("MNIST/raw/train-images-idx3-ubyte");
    assert_eq!(open(&one, &options).unwrap().train.len(), 5);
}
