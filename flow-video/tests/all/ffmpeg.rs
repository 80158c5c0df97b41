//! Videos, written by this crate and read by `ffprobe` and `ffmpeg`, and the other way round.

use std::path::{Path, PathBuf};
use std::process::Command;

use flow_video::data::open_all;
use flow_video::io::{Pixels, write_clip};

use crate::support::{all, moving, only, plain, put, refused, worst};

/// What a program prints; `None`, loudly, where there is no such program.
fn run(program: &str, arguments: &[&str]) -> Option<String> {
    match Command::new(program).args(arguments).output() {
        Ok(output) => {
            assert!(output.status.success(), "{program} {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
            Some(String::from_utf8_lossy(&output.stdout).trim().to_string())
        }
        Err(error) => {
            eprintln!("SKIPPED: {program}: {error}; install the Debian package ffmpeg");
            None
        }
    }
}

/// `ffmpeg` with these arguments, made to write `name` in a folder.
fn made(folder: &Path, name: &str, arguments: &str) -> Option<PathBuf> {
    let path = folder.join(name);
    let mut all: Vec<&str> = vec!["-v", "error", "-y"];
    all.extend(arguments.split_whitespace());
    all.push(path.to_str().unwrap());
    run("ffmpeg", &all).map(|_| path)
}

#[test]
fn every_frame_comes_back_at_its_rate() {
    let folder = tempfile::tempdir().unwrap();
    for (channels, size) in [(1, [64, 64]), (3, [64, 64]), (3, [33, 47])] {
        let frames = moving(channels, size, 30);
        for (ending, error) in [("mkv", 0), ("mp4", 14), ("webm", 40)] {
            for count in [30, 1] {
                let path = folder.path().join(format!("x.{ending}"));
                let part = frames.range(0..count).unwrap();
                write_clip(&path, &part, 10.0).unwrap();
                let clip = only(&path);
                assert_eq!((clip.frames(), clip.fps()), (count, Some(10.0)), "{ending}");
                assert_eq!(clip.shape()[1..], size, "{ending}: nothing is padded");
                let wanted: Vec<u8> = match (clip.shape()[0], channels) {
                    (3, 1) => part.images().flat_map(|frame| frame.repeat(3)).collect(),
                    _ => part.bytes().to_vec(),
                };
                let found = worst(clip.values(), &wanted);
                assert!(found <= error, "{ending} {channels} {size:?} {count}: off by {found}");
                let shown = "stream=nb_read_frames,avg_frame_rate,width,height";
                let probe =
                    ["-v", "error", "-count_frames", "-select_streams", "v", "-show_entries", shown, "-of", "csv=p=0"];
                let Some(said) = run("ffprobe", &[&probe[..], &[path.to_str().unwrap()]].concat()) else { return };
                assert_eq!(said.trim_end_matches(','), format!("{},{},10/1,{count}", size[1], size[0]), "{ending}");
            }
        }
    }
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 3, "nothing is left aside");
}

#[test]
fn failed_encodings_leave_no_file() {
    let root = tempfile::tempdir().unwrap();
    let file = put(root.path(), "file", b"x");
    let frames = moving(1, [8, 8], 2);
    for name in ["a.mp4", "a.mkv", "a.webm"] {
        let error = write_clip(&file.join(name), &frames, 10.0).unwrap_err().to_string();
        assert!(error.contains("file"), "{error}");
        std::fs::create_dir(root.path().join(name)).unwrap();
        assert!(write_clip(&root.path().join(name), &frames, 10.0).is_err(), "a folder is in the way");
        std::fs::remove_dir(root.path().join(name)).unwrap();
    }
    let wide = Pixels::from_bytes(vec![0; 9000], [1, 1, 9000]).unwrap();
    assert!(write_clip(&root.path().join("b.mp4"), &wide, 10.0).unwrap_err().to_string().contains("at most 8192"));
    assert_eq!(std::fs::read_dir(root.path()).unwrap().count(), 1);
}

#[test]
fn a_variable_rate_is_resampled_by_presentation_time() {
    let root = tempfile::tempdir().unwrap();
    // Frames at 0, 1, 2, 3 and 4 tenths, then only every third one.
    let source = "-f lavfi -i testsrc=size=32x16:rate=10:duration=2 -vf select=lt(n\\,5)+not(mod(n\\,3))";
    let Some(path) = made(root.path(), "vfr.mkv", &format!("{source} -vsync vfr -c:v ffv1")) else { return };
    let set = all(&path);
    assert_eq!(set.get(0).unwrap().frames(), 10);
    assert!(set.notes().iter().any(|note| note.contains("100 to 300 ms")), "{:?}", set.notes());
    let mut options = plain();
    options.fps = Some(10.0);
    let set = open_all(&path, &options).unwrap();
    let clip = set.get(0).unwrap();
    assert!((18..=21).contains(&clip.frames()), "{}", clip.frames());
    // The frame of 0.6 s is on show until 0.9 s.
    assert_eq!(clip.frame(6), clip.frame(8));
    assert_ne!(clip.frame(8), clip.frame(9));
    options.fps = Some(5.0);
    let set = open_all(&path, &options).unwrap();
    assert_eq!(set.get(0).unwrap().frame(3), clip.frame(6));
    assert_eq!(set.fps(), Some(5.0));
}

#[test]
fn rotation_is_applied() {
    let root = tempfile::tempdir().unwrap();
    let source = "-f lavfi -i testsrc=size=48x32:rate=10:duration=0.5 -pix_fmt yuv444p -c:v libx264 -qp 0";
    let Some(upright) = made(root.path(), "upright.mp4", source) else { return };
    for (degrees, quarters) in [(90, 1), (180, 2), (270, 3)] {
        let turned = format!("-i {} -c copy -metadata:s:v rotate={degrees}", upright.display());
        let Some(path) = made(root.path(), "turned.mp4", &turned) else { return };
        let set = all(&path);
        if set.notes().is_empty() {
            eprintln!("SKIPPED: this ffmpeg writes no rotation");
            return;
        }
        assert!(set.notes().iter().any(|note| note.contains("turned by")), "{:?}", set.notes());
        // As ffmpeg itself shows it.
        let raw = format!("-i {} -c:v ffv1", path.display());
        let Some(shown) = made(root.path(), "shown.mkv", &raw) else { return };
        let (ours, theirs) = (only(&path), only(&shown));
        assert_eq!(ours.shape(), theirs.shape(), "{degrees}");
        assert_eq!(ours.shape()[1..], if quarters == 2 { [32, 48] } else { [48, 32] });
        assert!(worst(ours.values(), theirs.values()) <= 2, "{degrees}");
    }
}

#[test]
fn other_codecs_sizes_and_depths_are_read() {
    let root = tempfile::tempdir().unwrap();
    for (name, arguments, shape) in [
        ("deep.mkv", "-f lavfi -i testsrc=size=32x16:rate=25:duration=0.4 -pix_fmt yuv422p10le -c:v ffv1", [3, 16, 32]),
        ("grey.avi", "-f lavfi -i testsrc=size=32x16:rate=25:duration=0.4 -pix_fmt gray -c:v ffv1", [1, 16, 32]),
        ("motion.avi", "-f lavfi -i testsrc=size=32x16:rate=25:duration=0.4 -c:v mjpeg", [3, 16, 32]),
        ("part2.mov", "-f lavfi -i testsrc=size=32x16:rate=25:duration=0.4 -c:v mpeg4", [3, 16, 32]),
        ("alpha.mov", "-f lavfi -i testsrc=size=32x16:rate=25:duration=0.4 -pix_fmt argb -c:v qtrle", [3, 16, 32]),
        ("b-frames.mp4", "-f lavfi -i testsrc=size=32x16:rate=25:duration=0.4 -c:v libx264 -bf 3 -crf 1", [3, 16, 32]),
    ] {
        let Some(path) = made(root.path(), name, arguments) else { return };
        let clip = only(&path);
        assert_eq!((clip.shape(), clip.frames(), clip.fps()), (shape, 10, Some(25.0)), "{name}");
        // The same frames as ffmpeg's own conversion, whose chroma is smoother.
        let raw = root.path().join("raw.rgb");
        let pixels = if shape[0] == 1 { "gray" } else { "rgb24" };
        let size = ["-v", "error", "-y", "-i", path.to_str().unwrap(), "-f", "rawvideo", "-pix_fmt", pixels];
        run("ffmpeg", &[&size[..], &[raw.to_str().unwrap()]].concat());
        let theirs = std::fs::read(&raw).unwrap();
        let plane = shape[1] * shape[2];
        let ours: Vec<u8> = clip
            .values()
            .chunks(shape[0] * plane)
            .flat_map(|frame| (0..plane).flat_map(move |at| (0..shape[0]).map(move |c| frame[c * plane + at])))
            .collect();
        assert_eq!(ours.len(), theirs.len(), "{name}");
        let mean = ours.iter().zip(&theirs).map(|(a, b)| f64::from(a.abs_diff(*b))).sum::<f64>() / ours.len() as f64;
        assert!(mean < 6.0, "{name}: {mean}");
    }
}

/// `ffmpeg` itself converts odd sizes by another rule than even ones, so the planes are the measure here.
#[test]
fn odd_sizes_are_what_their_planes_say() {
    let root = tempfile::tempdir().unwrap();
    let arguments = "-f lavfi -i testsrc=size=33x17:rate=25:duration=0.4 -pix_fmt yuv420p -c:v ffv1";
    let Some(path) = made(root.path(), "odd.mkv", arguments) else { return };
    let clip = only(&path);
    assert_eq!((clip.shape(), clip.frames()), ([3, 17, 33], 10));
    let raw = root.path().join("raw.yuv");
    let planar = ["-v", "error", "-y", "-i", path.to_str().unwrap(), "-f", "rawvideo", "-pix_fmt", "yuv420p"];
    run("ffmpeg", &[&planar[..], &[raw.to_str().unwrap()]].concat());
    let (luma, chroma) = (17 * 33, 9 * 17);
    let planes = std::fs::read(&raw).unwrap();
    assert_eq!(planes.len(), 10 * (luma + 2 * chroma));
    for (frame, planes) in clip.values().chunks(3 * luma).zip(planes.chunks(luma + 2 * chroma)) {
        for at in 0..luma {
            let of_chroma = luma + at / 33 / 2 * 17 + at % 33 / 2;
            let centred = |place: usize| (f64::from(planes[place]) - 128.0) * 255.0 / 224.0;
            let y = (f64::from(planes[at]) - 16.0) * 255.0 / 219.0;
            let (u, v) = (centred(of_chroma), centred(of_chroma + chroma));
            let wanted = [y + 1.402 * v, y - 0.344_136 * u - 0.714_136 * v, y + 1.772 * u];
            for (c, wanted) in wanted.into_iter().enumerate() {
                let got = f64::from(frame[c * luma + at]);
                assert!((got - wanted.clamp(0.0, 255.0)).abs() < 1.0, "{at} {c}: {got} {wanted}");
            }
        }
    }
}

#[test]
fn damaged_and_empty_videos_are_named() {
    let root = tempfile::tempdir().unwrap();
    let path = root.path().join("whole.mp4");
    write_clip(&path, &moving(3, [64, 64], 30), 10.0).unwrap();
    let whole = std::fs::read(&path).unwrap();
    for (name, bytes) in [
        ("half.mp4", whole[..whole.len() / 2].to_vec()),
        ("header.mp4", whole[..100].to_vec()),
        ("noise.mp4", vec![7; 5000]),
        ("noise.webm", vec![9; 5000]),
    ] {
        refused(&put(root.path(), name, &bytes), &plain(), &[name]);
    }
    refused(&put(root.path(), "empty.mp4", b""), &plain(), &["empty file"]);
    refused(&put(root.path(), "page.mp4", b"<html>"), &plain(), &["an HTML page"]);
    let Some(sound) = made(root.path(), "sound.mp4", "-f lavfi -i sine=duration=0.2") else { return };
    refused(&sound, &plain(), &["sound.mp4", "a file of sound without video"]);
    let none = "-f lavfi -i testsrc=size=32x16:rate=10:duration=1 -frames:v 0 -c:v ffv1";
    if let Some(path) = made(root.path(), "none.mkv", none) {
        refused(&path, &plain(), &["none.mkv"]);
    }
}

/// Videos beside other clips, and those that differ in size.
#[test]
fn videos_lie_beside_other_clips() {
    let root = tempfile::tempdir().unwrap();
    for name in ["a.mkv", "b.gif", "c.mp4"] {
        write_clip(&root.path().join(name), &moving(3, [16, 24], 5), 10.0).unwrap();
    }
    let set = all(root.path());
    assert_eq!((set.len(), set.shape(), set.fps()), (3, [3, 16, 24], Some(10.0)));
}
