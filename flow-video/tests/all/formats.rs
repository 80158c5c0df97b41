//! What is written is read again: every format, grey and colour, at its rate.

use std::io::{Cursor, Write};
use std::path::Path;

use flow_image::data::npy;
use flow_video::data::{Layout, OpenOptions, open_all};
use flow_video::io::{Pixels, check_name, write_clip, write_frames, write_npy};
use image::codecs::gif::GifEncoder;
use image::{Delay, Frame, GrayImage, Luma, Rgba, RgbaImage};

use crate::support::{all, moving, only, plain, put, refused, worst};

const SIZE: [usize; 2] = [5, 7];

#[test]
fn every_format_comes_back() {
    let folder = tempfile::tempdir().unwrap();
    for channels in [1, 3] {
        let frames = moving(channels, SIZE, 4);
        // Ending, how far colours may be off, whether the rate is in the file.
        for (ending, error, timed) in [
            (".gif", 0, true),
            (".png", 0, true),
            (".apng", 0, true),
            (".y4m", if channels == 1 { 0 } else { 2 }, true),
            ("", 0, false),
        ] {
            let path = folder.path().join(format!("clip-{channels}{ending}"));
            write_clip(&path, &frames, 25.0).unwrap();
            let clip = only(&path);
            assert_eq!((clip.shape(), clip.frames()), ([channels, 5, 7], 4), "{ending}");
            assert!(worst(clip.values(), frames.bytes()) <= error, "{ending} {channels}");
            assert_eq!(clip.fps(), timed.then_some(25.0), "{ending}");
        }
        let path = folder.path().join(format!("clips-{channels}.npy"));
        write_npy(&path, &[frames.clone(), moving(channels, SIZE, 4)]).unwrap();
        let read = open_all(&path, &with_layout(plain(), Layout::Ntchw)).unwrap();
        assert_eq!((read.len(), read.get(1).unwrap().values()), (2, frames.bytes()));
    }
    // Nothing half-written, nothing aside.
    let names: Vec<String> =
        std::fs::read_dir(folder.path()).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
    assert!(names.len() == 12 && names.iter().all(|name| name.starts_with("clip")), "{names:?}");
}

fn with_layout(mut options: OpenOptions, layout: Layout) -> OpenOptions {
    options.layout = layout;
    options
}

#[test]
fn rates_are_kept_on_average() {
    let folder = tempfile::tempdir().unwrap();
    let frames = moving(1, SIZE, 30);
    for fps in [7.0, 10.0, 15.0, 24.0, 30.0, 50.0] {
        let path = folder.path().join("x.gif");
        write_clip(&path, &frames, fps).unwrap();
        // Hundredths of a second: a thirtieth frame off by half of one at most.
        let read = only(&path).fps().unwrap();
        assert!((30.0 / read - 30.0 / fps).abs() <= 0.005 + 1e-9, "{fps}: {read}");
    }
    for fps in [0.5, 12.5, 24_000.0 / 1001.0, 60.0, 120.0] {
        for name in ["x.apng", "x.y4m"] {
            let path = folder.path().join(name);
            write_clip(&path, &frames, fps).unwrap();
            let read = only(&path).fps().unwrap();
            assert!((read - fps).abs() < 1e-3 * fps, "{name}: {fps} became {read}");
        }
    }
}

#[test]
fn folders_of_frames_are_replaced_but_never_mixed_with_others() {
    let root = tempfile::tempdir().unwrap();
    let path = root.path().join("out");
    write_frames(&path, &moving(1, SIZE, 9)).unwrap();
    write_frames(&path, &moving(3, SIZE, 4)).unwrap();
    assert_eq!((only(&path).frames(), only(&path).shape()), (4, [3, 5, 7]));
    let notes = put(&path, "notes.txt", b"mine");
    let error = write_frames(&path, &moving(1, SIZE, 2)).unwrap_err().to_string();
    assert!(error.contains("out") && error.contains("notes.txt"), "{error}");
    assert_eq!((std::fs::read(notes).unwrap(), std::fs::read_dir(root.path()).unwrap().count()), (b"mine".to_vec(), 1));
    let file = put(root.path(), "file", b"x");
    assert!(write_frames(&file, &moving(1, SIZE, 2)).is_err());
    assert_eq!(std::fs::read(file).unwrap(), b"x");
}

#[test]
fn what_cannot_be_written_leaves_nothing() {
    let root = tempfile::tempdir().unwrap();
    let frames = moving(1, SIZE, 2);
    for (name, fps) in [("x.jpg", 10.0), ("x.gif", 51.0), ("x.apng", 0.0), ("x.y4m", f64::NAN), ("x.npz", 10.0)] {
        let path = root.path().join(name);
        let error = write_clip(&path, &frames, fps).unwrap_err().to_string();
        assert!(error.contains(name) || error.contains("fps"), "{error}");
        assert!(check_name(&path, fps).is_err());
    }
    let blocked = put(root.path(), "file", b"x");
    for name in ["a.gif", "a.apng", "a.y4m", "a.npy", "a"] {
        let error = write_clip(&blocked.join(name), &frames, 10.0).unwrap_err().to_string();
        assert!(error.contains("file"), "{error}");
    }
    let other = moving(1, SIZE, 3);
    assert!(write_npy(&root.path().join("y.npy"), &[frames, other]).is_err());
    assert_eq!(std::fs::read_dir(root.path()).unwrap().count(), 1);
}

/// Frames that are parts of the screen and leave what is below them are shown whole.
#[test]
fn animations_are_composited() {
    let root = tempfile::tempdir().unwrap();
    let palette = [10, 10, 10, 200, 200, 200];
    let mut bytes = Vec::new();
    {
        let mut encoder = gif::Encoder::new(&mut bytes, 4, 3, &palette).unwrap();
        let ground = gif::Frame { width: 4, height: 3, buffer: vec![0; 12].into(), delay: 10, ..gif::Frame::default() };
        let dot =
            gif::Frame { left: 2, top: 1, width: 1, height: 1, buffer: vec![1].into(), delay: 30, ..ground.clone() };
        encoder.write_frame(&ground).unwrap();
        encoder.write_frame(&dot).unwrap();
    }
    let clip = only(&put(root.path(), "a.gif", &bytes));
    let mut second = [10; 12];
    second[6] = 200;
    assert_eq!((clip.shape(), clip.frame(0).unwrap(), clip.frame(1).unwrap()), ([1, 3, 4], &[10; 12][..], &second[..]));
    assert_eq!(clip.fps(), Some(5.0));
    let mut bytes = Vec::new();
    {
        let mut encoder = png::Encoder::new(&mut bytes, 4, 3);
        encoder.set_color(png::ColorType::Grayscale);
        encoder.set_animated(2, 0).unwrap();
        encoder.set_frame_delay(1, 5).unwrap();
        let mut writer = encoder.write_header().unwrap();
        writer.write_image_data(&[10; 12]).unwrap();
        writer.set_frame_dimension(1, 1).unwrap();
        writer.set_frame_position(2, 1).unwrap();
        writer.write_image_data(&[200]).unwrap();
        writer.finish().unwrap();
    }
    let animated = only(&put(root.path(), "a.png", &bytes));
    assert_eq!((animated.values(), animated.fps()), (clip.values(), Some(5.0)));
    // A fixed rate shows the second frame for three moments.
    let mut options = plain();
    options.fps = Some(10.0);
    let set = open_all(root.path().join("a.gif"), &options).unwrap();
    assert_eq!((set.get(0).unwrap().frames(), set.fps()), (4, Some(10.0)));
}

#[test]
fn hurried_animations_and_transparent_ones_are_told() {
    let root = tempfile::tempdir().unwrap();
    let mut bytes = Vec::new();
    {
        let mut encoder = GifEncoder::new(&mut bytes);
        for _ in 0..2 {
            let clear = RgbaImage::from_pixel(2, 2, Rgba([0, 0, 0, 0]));
            encoder.encode_frame(Frame::from_parts(clear, 0, 0, Delay::from_numer_denom_ms(0, 1))).unwrap();
        }
    }
    let set = all(&put(root.path(), "a.gif", &bytes));
    assert_eq!(set.fps(), Some(10.0));
    assert!(set.notes().iter().any(|note| note.contains("below 20 ms, which counts as 100 ms")), "{:?}", set.notes());
    assert!(set.notes().iter().any(|note| note.contains("2 of 2 frames have transparent pixels")), "{:?}", set.notes());
}

#[test]
fn y4m_of_other_programs() {
    let root = tempfile::tempdir().unwrap();
    // 3x3, 4:2:0, limited range: grey 126 is level 128; then a frame whose first block is red.
    let header = b"YUV4MPEG2 W3 H3 F30:1 Ip A1:1 C420jpeg XYSCSS=420JPEG\n";
    let grey = [&b"FRAME\n"[..], &[126; 9], &[128; 8]].concat();
    let mut red = [&b"FRAME Ip\n"[..], &[81; 9], &[128; 8]].concat();
    (red[18], red[22]) = (90, 240);
    let clip = only(&put(root.path(), "a.y4m", &[&header[..], &grey, &red].concat()));
    assert_eq!((clip.shape(), clip.frames(), clip.fps()), ([3, 3, 3], 2, Some(30.0)));
    assert_eq!(clip.frame(0).unwrap(), [128; 27]);
    let second = clip.frame(1).unwrap();
    let pixel = |at: usize| [second[at], second[9 + at], second[18 + at]];
    assert!(pixel(0)[0] > 250 && pixel(0)[1] < 3 && pixel(0)[2] < 3, "{:?}", pixel(0));
    assert_eq!(pixel(4), pixel(0), "a chroma sample stands for a block of two by two");
    assert_eq!(pixel(8), [76; 3]);
    // 4:2:2, whose chroma has all rows.
    let bytes = [&b"YUV4MPEG2 W2 H2 F1:1 C422 XCOLORRANGE=FULL\nFRAME\n"[..], &[7; 4], &[128; 4]].concat();
    assert_eq!(only(&put(root.path(), "b.y4m", &bytes)).values(), [7; 4]);
}

/// So many clips that differ from each other.
fn different(clips: u8, frames: usize) -> Vec<u8> {
    let clip = |clip: u8| {
        moving(1, SIZE, frames).bytes().iter().map(|v| v.wrapping_add(37u8.wrapping_mul(clip))).collect::<Vec<_>>()
    };
    (0..clips).flat_map(clip).collect()
}

#[test]
fn arrays_of_every_order_and_type() {
    let root = tempfile::tempdir().unwrap();
    let clips = different(12, 2);
    let eighth = clips[7 * 70..8 * 70].to_vec();
    let path = put(root.path(), "nthw.npy", &npy::encode(&[12, 2, 5, 7], &clips).unwrap());
    let set = all(&path);
    assert_eq!((set.len(), set.shape(), set.get(7).unwrap().values()), (12, [1, 5, 7], &eighth[..]));
    assert_eq!(set.get(7).unwrap().name(), "nthw.npy#7");
    assert!(set.notes()[0].contains("read as nthw, 12 clips of 2 frames"), "{:?}", set.notes());
    // The same, time first, as Moving-MNIST's own file.
    let frame = |frame: usize| clips.chunks(35).skip(frame).step_by(2).flatten().copied();
    let first: Vec<u8> = frame(0).chain(frame(1)).collect();
    let set = all(&put(root.path(), "tnhw.npy", &npy::encode(&[2, 12, 5, 7], &first).unwrap()));
    assert_eq!((set.len(), set.get(7).unwrap().values()), (12, &eighth[..]));
    let frames = moving(1, SIZE, 3);
    let floats: Vec<f32> = frames.bytes().iter().map(|&v| f32::from(v) / 255.0).collect();
    let set = all(&put(root.path(), "thw.npy", &npy::encode(&[3, 5, 7], &floats).unwrap()));
    assert_eq!((set.len(), set.get(0).unwrap().values()), (1, frames.bytes()));
    assert!(set.notes()[0].contains("float32 read as [0, 1]"), "{:?}", set.notes());
    let path = put(root.path(), "both.npy", &npy::encode(&[3, 3, 5, 7], &frames.bytes().repeat(3)).unwrap());
    refused(&path, &plain(), &["both.npy", "--layout", "tchw"]);
    let path = put(root.path(), "even.npy", &npy::encode(&[4, 5, 3, 35], &frames.bytes().repeat(20)).unwrap());
    refused(&path, &plain(), &["even.npy", "--layout", "nthw or tnhw"]);
    assert_eq!(open_all(&path, &with_layout(plain(), Layout::Tnhw)).unwrap().len(), 5);
    // Four clips that stand still, which the shape takes for the frames.
    let still: Vec<u8> = (0..4u8).flat_map(|clip| vec![clip * 60; 20 * 35]).collect();
    let path = put(root.path(), "still.npy", &npy::encode(&[4, 20, 5, 7], &still).unwrap());
    refused(&path, &plain(), &["still.npy", "differ more than neighbouring clips"]);
}

/// An archive of these arrays.
pub(crate) fn npz(members: &[(&str, Vec<u8>)]) -> Vec<u8> {
    let mut bytes = Cursor::new(Vec::new());
    let mut zip = zip::ZipWriter::new(&mut bytes);
    for (name, member) in members {
        zip.start_file(*name, zip::write::SimpleFileOptions::default()).unwrap();
        zip.write_all(member).unwrap();
    }
    zip.finish().unwrap();
    bytes.into_inner()
}

#[test]
fn archives_are_one_array_or_parts() {
    let root = tempfile::tempdir().unwrap();
    let array = |clips: u8| npy::encode(&[u64::from(clips), 2, 5, 7], &different(clips, 2)).unwrap();
    let path =
        put(root.path(), "a.npz", &npz(&[("clips.npy", array(9)), ("fps.npy", npy::encode(&[1], &[5u8]).unwrap())]));
    let set = all(&path);
    assert_eq!(set.len(), 9);
    assert!(set.notes().iter().any(|note| note.contains("not read: fps")), "{:?}", set.notes());
    assert_eq!(all(&put(root.path(), "b.npz", &npz(&[("anything.npy", array(8))]))).len(), 8);
    let path = put(root.path(), "c.npz", &npz(&[("x_train.npy", array(8)), ("x_test.npy", array(9))]));
    let splits = flow_video::data::open(&path, &plain()).unwrap();
    assert_eq!([splits.train.len(), splits.validation.len(), splits.test.len()], [8, 0, 9]);
    let path = put(root.path(), "d.npz", &npz(&[("a.npy", array(8)), ("b.npy", array(8))]));
    refused(&path, &plain(), &["d.npz", "the arrays a, b"]);
}

#[test]
fn pictures_of_sixteen_bits_and_several_sizes() {
    let root = tempfile::tempdir().unwrap();
    for frame in 0..3u16 {
        let deep: image::ImageBuffer<Luma<u16>, Vec<u16>> =
            image::ImageBuffer::from_fn(4, 3, |x, _| Luma([257 * (10 * frame + x as u16)]));
        deep.save(root.path().join(format!("{frame}.png"))).unwrap();
    }
    let set = all(root.path());
    assert_eq!(set.get(0).unwrap().frame(2).unwrap()[..4], [20, 21, 22, 23]);
    assert!(set.notes()[0].contains("3 of 3 frames have 16 bits"), "{:?}", set.notes());
    GrayImage::new(5, 3).save(root.path().join("3.png")).unwrap();
    refused(root.path(), &plain(), &["frame 4 is 3x5, those before it 3x4"]);
}

#[test]
fn sizes_are_those_that_were_asked_for() {
    let root = tempfile::tempdir().unwrap();
    let path = root.path().join("a.apng");
    write_clip(&path, &moving(3, [12, 20], 3), 10.0).unwrap();
    let mut options = plain().with_size(6);
    assert_eq!(open_all(&path, &options).unwrap().shape(), [3, 6, 6]);
    options.crop = Some("4,2,8,10".parse().unwrap());
    options.size = None;
    let cropped = open_all(&path, &options).unwrap();
    assert_eq!(cropped.shape(), [3, 10, 8]);
    let whole = only(&path);
    assert_eq!(cropped.get(0).unwrap().frame(1).unwrap()[..8], whole.frame(1).unwrap()[2 * 20 + 4..2 * 20 + 12]);
    let enlarged: Pixels = moving(3, [12, 20], 3).enlarged(3).unwrap();
    assert_eq!(enlarged.shape(), [3, 36, 60]);
    options.crop = None;
    options.channels = flow_video::data::Channels::Gray;
    assert_eq!(open_all(&path, &options).unwrap().shape(), [1, 12, 20]);
    options.bits = Some(5);
    let few = open_all(Path::new(&path), &options).unwrap();
    assert!(few.levels() == 32 && few.get(0).unwrap().values().iter().all(|&v| v < 32));
}
