//! Opening data: files, folders in parts, splits, and a real data set where there is one.
//!
//! The real one is `points/mn10vox_chair.npy` below `FLOW_DATA`, or below `../shared/data` beside the workspace; without it
//! that test says that it checks nothing.

#[allow(dead_code, reason = "each test binary uses its own part")]
use std::path::{Path, PathBuf};

use crate::common::{npy, valid};
use flow_points::data::{OpenOptions, SplitSource, open};
use tempfile::TempDir;

fn write(folder: &Path, name: &str, bytes: &[u8]) -> PathBuf {
    let path = folder.join(name);
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(&path, bytes).unwrap();
    path
}

/// An array of `shapes` clouds of two points; the first number of each cloud is its place.
fn array(shapes: usize) -> Vec<u8> {
    let numbers: Vec<u8> = (0..shapes * 6).flat_map(|i| ((i / 6) as f32).to_le_bytes()).collect();
    npy("<f4", &format!("({shapes}, 2, 3)"), &numbers)
}

fn places(set: &flow_points::data::PointSet) -> Vec<usize> {
    set.clouds.iter().map(|cloud| cloud[0][0] as usize).collect()
}

/// A folder with every kind of file below `train`, and one each below `val` and `test`.
fn parts() -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    for (name, _, bytes) in valid() {
        write(folder.path(), &format!("train/deep/er/{name}"), &bytes);
    }
    write(folder.path(), "train/notes.md", b"no shape");
    write(folder.path(), "val/one.xyz", b"1 2 3\n");
    write(folder.path(), "test/two.xyz", b"1 2 3\n4 5 6\n");
    folder
}

#[test]
fn a_folder_in_parts_is_read_in_the_order_of_its_names() {
    let folder = parts();
    let mut options = OpenOptions::default();
    options.points_per_mesh = 50;
    let loaded = open(folder.path(), &options).unwrap();
    assert!(loaded.skipped.is_empty(), "{:?}", loaded.skipped);
    // One array of the files holds two clouds.
    let arrays = loaded.train.names.iter().filter(|n| n.starts_with("deep/er/b.npy-0000")).count();
    assert_eq!((loaded.train.clouds.len(), arrays), (valid().len() + 1, 2), "{:?}", loaded.train.names);
    let letters: String = loaded.train.names.iter().map(|n| &n["deep/er/".len()..][..1]).collect();
    assert_eq!(letters, "aaaaaaaabbbbbbcde");
    let names: std::collections::BTreeSet<_> = loaded.train.names.iter().collect();
    assert!(names.len() == loaded.train.names.len() && loaded.train.names.contains(&"deep/er/c".to_string()));
    assert_eq!(loaded.validation.clouds, [vec![[1.0, 2.0, 3.0]]]);
    assert_eq!((loaded.test.names[0].as_str(), loaded.test.clouds[0].len()), ("two", 2));
    // Meshes are sampled, clouds are not; again, and in other company, the same points come out.
    let size = |name: &str| loaded.train.clouds[loaded.train.names.iter().position(|n| n == name).unwrap()].len();
    assert_eq!((size("deep/er/a.obj"), loaded.train.clouds.iter().filter(|c| c.len() == 50).count() > 4), (50, true));
    assert_eq!(open(folder.path(), &options).unwrap(), loaded);
    std::fs::remove_file(folder.path().join("train/deep/er/a.ply")).unwrap();
    let fewer = open(folder.path(), &options).unwrap();
    assert!(fewer.train.clouds.iter().all(|cloud| loaded.train.clouds.contains(cloud)));
    options.seed = 1;
    let other = open(folder.path(), &options).unwrap();
    assert_ne!(other.train.clouds, fewer.train.clouds);
}

#[test]
fn what_cannot_be_read_is_left_out_by_name_or_ends_a_strict_reading() {
    let folder = parts();
    let bad = write(folder.path(), "train/deep/bad.off", b"OFF\n3 1 0\n0 0 0\n");
    let loaded = open(folder.path(), &OpenOptions::default()).unwrap();
    assert_eq!(loaded.skipped.len(), 1);
    assert!(loaded.skipped[0].contains("bad.off"), "{:?}", loaded.skipped);
    assert_eq!(loaded.train.clouds.len(), valid().len() + 1);
    let mut strict = OpenOptions::default();
    strict.strict = true;
    assert!(open(folder.path(), &strict).unwrap_err().to_string().contains(&bad.display().to_string()));
    // Where nothing can be read, the first fault is told.
    let only = tempfile::tempdir().unwrap();
    write(only.path(), "bad.off", b"OFF\n3 1 0\n0 0 0\n");
    let message = open(only.path(), &OpenOptions::default()).unwrap_err().to_string();
    assert!(message.contains("no shapes to train on") && message.contains("bad.off"), "{message}");
    let empty = tempfile::tempdir().unwrap();
    assert!(open(empty.path(), &OpenOptions::default()).unwrap_err().to_string().contains("no shapes to train on"));
}

#[test]
fn a_folder_without_parts_and_an_array_without_splits_are_cut_at_random_but_alike() {
    let folder = tempfile::tempdir().unwrap();
    for i in 0..40 {
        write(folder.path(), &format!("{i:02}.xyz"), format!("{i} 0 0\n").as_bytes());
    }
    let loaded = open(folder.path(), &OpenOptions::default()).unwrap();
    let beside = tempfile::tempdir().unwrap();
    let path = write(beside.path(), "shapes.npy", &array(40));
    let twin = open(&path, &OpenOptions::default()).unwrap();
    for (a, b) in [(&loaded.train, &twin.train), (&loaded.validation, &twin.validation), (&loaded.test, &twin.test)] {
        assert_eq!(places(a), places(b));
    }
    assert_eq!([loaded.train.clouds.len(), loaded.validation.clouds.len(), loaded.test.clouds.len()], [34, 2, 4]);
    let all = [&loaded.train, &loaded.validation, &loaded.test].map(places).concat();
    assert_eq!(all.iter().collect::<std::collections::BTreeSet<_>>().len(), 40);
    let mut other = OpenOptions::default();
    other.seed = 3;
    assert_ne!(places(&open(&path, &other).unwrap().test), places(&twin.test));
}

fn from(splits: SplitSource) -> OpenOptions {
    let mut options = OpenOptions::default();
    options.splits = splits;
    options
}

#[test]
fn splits_beside_an_array_or_named_and_every_fault_in_them() {
    let folder = tempfile::tempdir().unwrap();
    let data = write(folder.path(), "shapes.npy", &array(5));
    let with = |text: &str| {
        let named = write(folder.path(), "named.json", text.as_bytes());
        open(&data, &from(SplitSource::File(named)))
    };
    let loaded = with(r#"{"train": [4, 0], "val": [2], "test": [1]}"#).unwrap();
    assert_eq!([&loaded.train, &loaded.validation, &loaded.test].map(places), [vec![4, 0], vec![2], vec![1]]);
    assert_eq!(loaded.train.names, ["shapes-00004", "shapes-00000"]);
    let loaded = with(r#"{"others": {"train": [9]}, "shapes": {"train": [3]}}"#).unwrap();
    assert_eq!(places(&loaded.train), [3]);
    for (text, expected) in [
        (r#"{"train": [0, 5]}"#, "names shape 5, the data have 5"),
        (r#"{"train": [0], "test": [0]}"#, "names shape 0 twice"),
        (r#"{"others": {"train": [0]}}"#, "has no entry 'shapes'"),
        (r#"{"train": [0], "tset": [1]}"#, "is no list of splits"),
        (r#"{"train": [-1]}"#, "is no list of splits"),
        ("[0, 1", "is no list of splits"),
        ("", "is no list of splits"),
    ] {
        let message = with(text).unwrap_err().to_string();
        assert!(message.contains(expected) && message.contains("named.json"), "{text}: {message}");
    }
    // Beside the data, a file that speaks of others only is no fault.
    write(folder.path(), "splits.json", br#"{"others": {"train": [0]}}"#);
    assert_eq!(open(&data, &OpenOptions::default()).unwrap().train.clouds.len(), 5);
    // Nor is a list without a name, which may be that of any array; a file that was asked for may be one.
    write(folder.path(), "splits.json", br#"{"train": [1], "test": [0]}"#);
    assert_eq!(open(&data, &OpenOptions::default()).unwrap().train.clouds.len(), 5);
    let whole = from(SplitSource::Whole);
    write(folder.path(), "splits.json", br#"{"shapes": {"train": [1, 2], "test": [0]}}"#);
    assert_eq!(places(&open(&data, &whole).unwrap().train), [0, 1, 2, 3, 4]);
    let parts = parts();
    let other = from(SplitSource::File(folder.path().join("splits.json")));
    for no_array in [parts.path(), &parts.path().join("val/one.xyz")] {
        let message = open(no_array, &other).unwrap_err().to_string();
        assert!(message.contains("splits.json") && message.contains("is none"), "{message}");
    }
    assert!(open(&folder.path().join("shpaes"), &OpenOptions::default()).unwrap_err().to_string().contains("shpaes"));
    assert_eq!(places(&open(&data, &OpenOptions::default()).unwrap().train), [1, 2]);
}

#[cfg(unix)]
#[test]
fn a_link_back_to_the_folder_is_walked_once() {
    let folder = parts();
    let plain = open(folder.path(), &OpenOptions::default()).unwrap();
    std::os::unix::fs::symlink(folder.path(), folder.path().join("train/again")).unwrap();
    let linked = open(folder.path(), &OpenOptions::default()).unwrap();
    // The link leads to the other parts, once each, and not round and round.
    assert_eq!(linked.train.clouds.len(), plain.train.clouds.len() + 2);
}

#[test]
fn real_chairs() {
    let workspace = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let root = std::env::var_os("FLOW_DATA").map_or_else(|| workspace.join("../shared/data"), PathBuf::from);
    let path = root.join("points/mn10vox_chair.npy");
    if !path.exists() {
        eprintln!("SKIPPED: no {}; set FLOW_DATA to the folder of data sets", path.display());
        return;
    }
    let loaded = open(&path, &OpenOptions::default()).unwrap();
    assert_eq!((loaded.train.clouds.len(), loaded.test.clouds.len()), (711, 178));
    let finite = |set: &flow_points::data::PointSet| set.clouds.iter().flatten().flatten().all(|v| v.is_finite());
    assert!(finite(&loaded.train) && finite(&loaded.test));
    assert!(loaded.train.clouds.iter().chain(&loaded.test.clouds).all(|cloud| cloud.len() == 4096));
    // Chairs are taller than wide: they stand along y, as pictures and turning about the vertical assume.
    let extent = |axis: usize| -> f32 {
        let clouds = loaded.train.clouds.iter();
        let sides = clouds.map(|c| {
            let of = |f: fn(f32, f32) -> f32, from: f32| c.iter().map(|p| p[axis]).fold(from, f);
            of(f32::max, f32::MIN) - of(f32::min, f32::MAX)
        });
        sides.sum::<f32>() / loaded.train.clouds.len() as f32
    };
    assert!(extent(1) > extent(0) && extent(1) > extent(2), "{} {} {}", extent(0), extent(1), extent(2));
}
