//! Hostile files: every reader refuses with one line that names the file, never with a panic, and takes no more memory
//! than the file justifies.

use std::path::Path;

use flow_image::data::npy;
use flow_video::data::{OpenOptions, open, open_all};
use flow_video::io::write_clip;

use crate::formats::npz;
use crate::support::{moving, plain, put, refused};

/// The bytes that a writer makes of a clip.
pub(crate) fn good(ending: &str, channels: usize) -> Vec<u8> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join(format!("x.{ending}"));
    write_clip(&path, &moving(channels, [5, 7], 3), 10.0).unwrap();
    std::fs::read(path).unwrap()
}

pub(crate) fn good_npy() -> Vec<u8> {
    npy::encode(&[8, 2, 3, 4], &[7u8; 192]).unwrap()
}

fn with(mut bytes: Vec<u8>, position: usize, new: &[u8]) -> Vec<u8> {
    bytes[position..position + new.len()].copy_from_slice(new);
    bytes
}

fn cut(bytes: &[u8], count: usize) -> Vec<u8> {
    bytes[..bytes.len() - count].to_vec()
}

/// A chunk of a PNG with its right checksum.
fn chunk(kind: &[u8; 4], body: &[u8]) -> Vec<u8> {
    let mut crc = flate2::Crc::new();
    crc.update(kind);
    crc.update(body);
    [&(body.len() as u32).to_be_bytes()[..], kind, body, &crc.sum().to_be_bytes()].concat()
}

/// An animated PNG that claims a size.
fn huge_png(side: u32) -> Vec<u8> {
    let header = [&side.to_be_bytes()[..], &side.to_be_bytes(), &[8, 0, 0, 0, 0]].concat();
    let control = [&3u32.to_be_bytes()[..], &0u32.to_be_bytes()].concat();
    [&b"\x89PNG\r\n\x1a\n"[..], &chunk(b"IHDR", &header), &chunk(b"acTL", &control), &chunk(b"IDAT", &[1; 9])].concat()
}

fn still_png() -> Vec<u8> {
    flow_image::io::encode_png(&image::GrayImage::new(4, 3).into()).unwrap()
}

fn y4m(header: &str, rest: &[u8]) -> Vec<u8> {
    [header.as_bytes(), b"\n", rest].concat()
}

#[test]
fn malformed_files_are_one_line_naming_file_and_place() {
    let (gif, apng, grey) = (good("gif", 3), good("apng", 1), good("y4m", 1));
    let mut tar = vec![0; 512];
    tar[257..262].copy_from_slice(b"ustar");
    let array = |shape: &[u64], length: usize| npy::encode(shape, &vec![1u8; length]).unwrap();
    let claims = |shape: &str| {
        let header = format!("{{'descr': '|u1', 'fortran_order': False, 'shape': {shape}, }}\n");
        [b"\x93NUMPY\x01\x00", &(header.len() as u16).to_le_bytes()[..], header.as_bytes(), &[1; 9]].concat()
    };
    let cases: Vec<(&str, Vec<u8>, &str)> = vec![
        // GIF
        ("empty.gif", vec![], "empty file"),
        ("magic.gif", with(gif.clone(), 0, b"NOPE"), "the first bytes of a GIF"),
        ("header.gif", gif[..9].to_vec(), "header.gif: "),
        ("cut.gif", gif[..gif.len() / 2].to_vec(), "frame "),
        ("huge.gif", with(gif.clone(), 6, &[0xff; 4]), "found 65535x65535"),
        ("flat.gif", with(gif.clone(), 6, &[0; 2]), "expected frames of 1 to"),
        ("none.gif", [&gif[..13], b";"].concat(), "none.gif"),
        // Animated PNG
        ("empty.apng", vec![], "empty file"),
        ("magic.apng", with(apng.clone(), 0, b"NOPE"), "the first bytes of a PNG"),
        ("header.apng", apng[..20].to_vec(), "header.apng"),
        ("cut.apng", apng[..apng.len() / 2].to_vec(), "cut.apng"),
        ("huge.apng", huge_png(60_000), "huge.apng"),
        ("large.apng", huge_png(20_000), "found 20000x20000"),
        ("zero.apng", huge_png(0), "zero.apng"),
        ("still.apng", still_png(), "a still picture; a clip of pictures is a folder"),
        // Y4M
        ("empty.y4m", vec![], "empty file"),
        ("magic.y4m", with(grey.clone(), 0, b"NOPE"), "expected the word YUV4MPEG2"),
        ("line.y4m", b"YUV4MPEG2 W4 H4".to_vec(), "byte 0: expected a line of at most 1024 bytes"),
        (
            "long.y4m",
            [b"YUV4MPEG2 W4 H4 X".to_vec(), vec![b'x'; 2000], b"\n".to_vec()].concat(),
            "a line of at most 1024",
        ),
        ("size.y4m", y4m("YUV4MPEG2 W4", &[]), "expected a width W and a height H"),
        ("zero.y4m", y4m("YUV4MPEG2 W0 H4", &[]), "byte 10: expected a width, W1 to W32768, found \"W0\""),
        ("huge.y4m", y4m("YUV4MPEG2 W32768 H32768", b"FRAME\n"), "expected frames that fit into the file"),
        ("over.y4m", y4m("YUV4MPEG2 W99999999999999999999 H4", b"FRAME\n"), "W1 to W32768"),
        ("deep.y4m", y4m("YUV4MPEG2 W2 H2 C420p10", b"FRAME\n"), "byte 16: expected 8 bits of 4:2:0"),
        ("none.y4m", y4m("YUV4MPEG2 W2 H2 F1:1 Cmono", &[]), "byte 27: expected the line FRAME, found the end"),
        ("frame.y4m", y4m("YUV4MPEG2 W2 H2 F1:1 Cmono", b"FRAMES\n1234"), "byte 27: expected the line FRAME"),
        ("cut.y4m", cut(&grey, 1), "expected a frame of 35 bytes, found the end of the file after 34"),
        ("more.y4m", [grey.clone(), vec![0]].concat(), "more.y4m"),
        // NumPy
        ("empty.npy", vec![], "empty file"),
        ("magic.npy", with(good_npy(), 0, b"NOPE"), "the magic bytes of a NumPy file"),
        ("cut.npy", cut(&good_npy(), 1), "found 191 bytes of data"),
        ("huge.npy", claims("(4000000000, 4000000000, 4000000000)"), "huge.npy"),
        ("zero.npy", claims("(0, 3, 3)"), "found 9 bytes of data"),
        ("flat.npy", array(&[6, 6], 36), "[N, T, H, W]"),
        ("picture.npy", array(&[6, 6, 3], 108), "one picture"),
        // NumPy archives
        ("empty.npz", vec![], "empty file"),
        ("magic.npz", b"nonsense".to_vec(), "the first bytes of a zip archive"),
        ("cut.npz", cut(&npz(&[("x.npy", good_npy())]), 30), "cut.npz"),
        ("text.npz", npz(&[("notes.txt", b"hello".to_vec())]), "a zip archive; unpack it"),
        ("inner.npz", npz(&[("x.npy", cut(&good_npy(), 1))]), "inner.npz"),
        // Something else than the name promises
        ("page.gif", b"<!DOCTYPE html><html>".to_vec(), "an HTML page; the download went wrong"),
        ("page.mp4", b"<html>".to_vec(), "an HTML page"),
        ("clips.tar", tar, "a tar archive; unpack it"),
        ("clips.zip", npz(&[("a.txt", vec![1])]), "a zip archive"),
        ("lfs.y4m", b"version https://git-lfs.github.com/spec/v1".to_vec(), "git lfs pull"),
        ("data.h5", b"\x89HDF\r\n\x1a\n".to_vec(), "an HDF5 file"),
        ("picture.bmp", b"BM".to_vec(), "name the folder"),
        ("garbage", vec![b'x'; 100], "looked for GIF, animated PNG, Y4M"),
        // A gzipped file is an idx file or nothing.
        ("garbage.gz", vec![0x1f, 0x8b, 8, 0, 0], "garbage.gz"),
    ];
    for (name, bytes, expected) in cases {
        let folder = tempfile::tempdir().unwrap();
        let path = put(folder.path(), name, &bytes);
        let place = if name.ends_with(".gz") { "garbage.gz" } else { name };
        refused(&path, &plain(), &[place, expected]);
    }
}

#[test]
fn broken_frames_of_a_folder_are_named() {
    for (bytes, expected) in [
        (vec![], "empty file"),
        (cut(&still_png(), 20), "2.png"),
        (b"<html>".to_vec(), "an HTML page"),
        (b"nonsense".to_vec(), "2.png"),
    ] {
        let folder = tempfile::tempdir().unwrap();
        put(folder.path(), "1.png", &still_png());
        put(folder.path(), "2.png", &bytes);
        refused(folder.path(), &plain(), &["2.png", expected]);
    }
}

#[test]
fn folders_missing_files_and_devices_are_named() {
    let root = tempfile::tempdir().unwrap();
    refused(root.path(), &plain(), &["found no clips; looked for GIF"]);
    refused(&root.path().join("nowhere"), &plain(), &["nowhere", "No such file"]);
    #[cfg(unix)]
    refused(Path::new("/dev/zero"), &plain(), &["/dev/zero", "found a device"]);
    let mut deep = root.path().to_path_buf();
    (0..20).for_each(|_| deep.push("d"));
    std::fs::create_dir_all(&deep).unwrap();
    refused(root.path(), &plain(), &["nested deeper than 16"]);
}

#[test]
fn options_outside_their_domains_are_refused() {
    let root = tempfile::tempdir().unwrap();
    let path = put(root.path(), "x.gif", &good("gif", 1));
    let with = |change: fn(&mut OpenOptions)| {
        let mut options = plain();
        change(&mut options);
        open_all(&path, &options).unwrap_err().to_string()
    };
    assert!(with(|o| o.fps = Some(0.0)).contains("fps"));
    assert!(with(|o| o.fps = Some(f64::NAN)).contains("fps"));
    assert!(with(|o| o.size = Some(0.into())).contains("resize"));
    assert!(with(|o| o.size = Some(5000.into())).contains("resize"));
    assert!(with(|o| o.cut = Some(0)).contains("cut"));
    assert!(with(|o| o.bits = Some(9)).contains("bits"));
    assert!(with(|o| o.frames = 4).contains("no clip has 4 frames"));
    assert!(with(|o| o.crop = Some("0,0,8,1".parse().unwrap())).contains("x.gif"));
    for bad in [1.0, -0.1, f64::NAN] {
        assert!(open(&path, &OpenOptions::default().with_held_out(bad, 0.0)).is_err());
    }
}

/// Without FFmpeg a video is one line with what to install.
#[cfg(not(feature = "ffmpeg"))]
#[test]
fn videos_name_the_feature_and_the_packages() {
    let root = tempfile::tempdir().unwrap();
    for (name, bytes) in [
        ("a.mp4", b"\0\0\0\x20ftypisom".to_vec()),
        ("b.mkv", b"\x1a\x45\xdf\xa3".to_vec()),
        ("c.avi", b"RIFF\0\0\0\0AVI LIST".to_vec()),
        ("d.webm", vec![1; 50]),
        ("e.mov", vec![2; 50]),
        ("no-ending", b"\0\0\0\x20ftypisom".to_vec()),
    ] {
        let path = put(root.path(), name, &bytes);
        refused(&path, &plain(), &[name, "--features ffmpeg", "apt-get install libavcodec-dev", "brew install ffmpeg"]);
        let error = open_all(&path, &plain()).unwrap_err();
        assert!(matches!(error, flow_video::Error::FeatureDisabled { doing: "reading", .. }));
    }
}
