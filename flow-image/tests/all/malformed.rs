//! Hostile files: every reader refuses with one line that names the file, never with a panic, and takes
//! no more memory than the file justifies.

// Helper functions of tests are no tests to the lint.

use std::io::Write;
use std::path::{Path, PathBuf};

use flow_core::FlowRng;
use flow_core::testing::fuzz;
use flow_image::data::{FolderOptions, cifar, folder, idx, npy};
use flow_image::{Dataset, OpenOptions, Result, data};

type Reader = fn(&Path) -> Result<Dataset>;

const IDX: Reader = |path| idx::read(path, None);
const CIFAR: Reader = |path| cifar::read(&[path.to_path_buf()]);
const NPY: Reader = npy::read;
const PICTURE: Reader = |path| folder::read(parent(path), &FolderOptions::default());
const OPEN: Reader = |path| data::open(path, &OpenOptions::default()).map(|splits| splits.train);

const WHOLE: Reader = |path| data::open_all(path, &OpenOptions::default());

fn parent(path: &Path) -> &Path {
    path.parent().unwrap()
}

/// Two 2x3 images.
fn good_idx() -> Vec<u8> {
    let header = [[0, 0, 8, 3], [0, 0, 0, 2], [0, 0, 0, 2], [0, 0, 0, 3]].concat();
    header.into_iter().chain(1..=12).collect()
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

fn good_cifar() -> Vec<u8> {
    (0..2u8).flat_map(|label| std::iter::once(label).chain((0..3072).map(|i| i as u8))).collect()
}

fn good_npy(dtype: &str, shape: &str, body: &[u8]) -> Vec<u8> {
    npy_with(&format!("{{'descr': '{dtype}', 'fortran_order': False, 'shape': {shape}, }}\n"), body)
}

fn npy_with(header: &str, body: &[u8]) -> Vec<u8> {
    [b"\x93NUMPY\x01\x00", &(header.len() as u16).to_le_bytes()[..], header.as_bytes(), body].concat()
}

fn good_png() -> Vec<u8> {
    let picture = image::RgbImage::from_fn(6, 5, |x, y| image::Rgb([x as u8 * 40, y as u8 * 50, 7]));
    flow_image::io::encode_png(&picture.into()).unwrap()
}

/// A picture that claims 60,000 by 60,000 pixels, with a valid checksum.
fn huge_png() -> Vec<u8> {
    let png = with(with(good_png(), 16, &60_000u32.to_be_bytes()), 20, &60_000u32.to_be_bytes());
    let mut crc = flate2::Crc::new();
    crc.update(&png[12..29]);
    with(png, 29, &crc.sum().to_be_bytes())
}

fn floats(values: &[f32]) -> Vec<u8> {
    values.iter().flat_map(|v| v.to_le_bytes()).collect()
}

/// `bytes` with some replaced from `position` on.
fn with(mut bytes: Vec<u8>, position: usize, new: &[u8]) -> Vec<u8> {
    bytes[position..position + new.len()].copy_from_slice(new);
    bytes
}

/// `bytes` without their last `count`.
fn cut(bytes: Vec<u8>, count: usize) -> Vec<u8> {
    bytes[..bytes.len() - count].to_vec()
}

fn write(folder: &Path, name: &str, bytes: &[u8]) -> PathBuf {
    let path = folder.join(name);
    std::fs::write(&path, bytes).unwrap();
    path
}

#[track_caller]
fn assert_message(error: &flow_image::Error, path: &Path, expected: &str) {
    let message = error.to_string();
    let name = path.file_name().unwrap().to_str().unwrap();
    assert!(message.contains(name), "does not name {name}: {message}");
    assert!(message.contains(expected), "does not say `{expected}`: {message}");
    assert!(!message.contains('\n'), "more than one line: {message}");
}

#[test]
fn the_good_files_of_this_test_are_good() {
    let folder = tempfile::tempdir().unwrap();
    let read = |reader: Reader, name: &str, bytes: Vec<u8>| reader(&write(folder.path(), name, &bytes)).unwrap();
    for bytes in [good_idx(), gzip(&good_idx()), [gzip(&good_idx()[..9]), gzip(&good_idx()[9..])].concat()] {
        let set = read(IDX, "x-idx3-ubyte", bytes);
        assert_eq!((set.shape(), set.images()), ([1, 2, 3], &(1..=12).collect::<Vec<u8>>()[..]));
    }
    let set = read(CIFAR, "x.bin", good_cifar());
    assert_eq!((set.shape(), set.labels().unwrap()), ([3, 32, 32], &[0, 1][..]));
    assert_eq!(set.image(1).unwrap()[..3], [0, 1, 2]);
    let set = read(NPY, "x.npy", good_npy("|u1", "(1, 2, 2, 3)", &(0..12).collect::<Vec<_>>()));
    assert_eq!((set.shape(), set.images()), ([3, 2, 2], &[0, 3, 6, 9, 1, 4, 7, 10, 2, 5, 8, 11][..]));
    let set = read(NPY, "y.npy", good_npy("|u1", "(2, 3, 1, 2)", &(0..12).collect::<Vec<_>>()));
    assert_eq!((set.shape(), set.images()), ([3, 1, 2], &(0..12).collect::<Vec<u8>>()[..]));
    let set = read(NPY, "z.npy", good_npy("<f4", "(1, 1, 4)", &floats(&[0.0, 0.5, 100.0 / 255.0, 1.0])));
    assert_eq!((set.shape(), set.images()), ([1, 1, 4], &[0, 128, 100, 255][..]));
    assert_eq!(read(PICTURE, "x.png", good_png()).shape(), [3, 5, 6]);
}

#[test]
fn malformed_files_are_one_line_naming_file_and_place() {
    let u1 = |shape: &str, length: usize| good_npy("|u1", shape, &vec![1; length]);
    let cases: Vec<(Reader, &str, Vec<u8>, &str)> = vec![
        // idx
        (IDX, "empty-idx3", vec![], "empty file"),
        (IDX, "header-idx3", good_idx()[..9].to_vec(), "byte 9: expected an idx header of 16 bytes"),
        (IDX, "body-idx3", cut(good_idx(), 1), "byte 4: expected dimensions of 1 to 27 values"),
        (IDX, "long-idx3", [good_idx(), vec![0]].concat(), "byte 28: expected 28 bytes in all, found more data"),
        (IDX, "magic-idx3", with(good_idx(), 3, &[1]), "byte 0: expected idx magic [00, 00, 08, 03]"),
        (IDX, "zero-idx3", with(good_idx(), 4, &[0; 4]), "byte 4"),
        (IDX, "flat-idx3", with(good_idx(), 8, &[0; 4]), "byte 4"),
        (IDX, "huge-idx3", with(good_idx(), 4, &[0xff; 12]), "byte 4"),
        (IDX, "many-idx3", with(good_idx(), 4, &[0x7f, 0xff]), "all that the file can hold"),
        (IDX, "garbage-idx3", vec![b'x'; 100], "byte 0"),
        (IDX, "cut.gz", cut(gzip(&good_idx()), 12), "x"),
        (
            IDX,
            "crc.gz",
            {
                let g = gzip(&good_idx());
                let n = g.len();
                with(g, n - 8, &[9; 4])
            },
            "byte 28: expected readable data",
        ),
        (IDX, "short.gz", gzip(&cut(good_idx(), 1)), "byte 27: expected 28 decompressed bytes in all, found the end"),
        (
            IDX,
            "long.gz",
            gzip(&[good_idx(), vec![0; 9]].concat()),
            "byte 28: expected 28 decompressed bytes in all, found more",
        ),
        (IDX, "empty.gz", gzip(&[]), "byte 0: expected an idx header"),
        (IDX, "huge.gz", gzip(&with(good_idx(), 4, &[0xff; 12])), "byte 4"),
        (IDX, "only-magic.gz", vec![0x1f, 0x8b], "byte 0: expected readable data"),
        // CIFAR-10
        (CIFAR, "empty.bin", vec![], "empty file"),
        (CIFAR, "cut.bin", cut(good_cifar(), 1), "byte 3073: expected whole records of 3073 bytes, found 3072 bytes"),
        (
            CIFAR,
            "label.bin",
            with(good_cifar(), 3073, &[10]),
            "byte 3073: expected a label 0 to 9, found 10 in record 1",
        ),
        (CIFAR, "tiny.bin", vec![0], "byte 0"),
        // NumPy
        (NPY, "empty.npy", vec![], "empty file"),
        (NPY, "magic.npy", b"\x93NUMPX\x01\x00\x00\x00".to_vec(), "byte 0: expected the magic bytes"),
        (NPY, "short.npy", b"\x93NUMPY\x01".to_vec(), "byte 6"),
        (NPY, "version.npy", with(u1("(1, 1, 1)", 1), 6, &[9]), "byte 6"),
        (NPY, "header.npy", b"\x93NUMPY\x01\x00\x50\x00{'descr'".to_vec(), "byte 8: expected a header"),
        (NPY, "long-header.npy", b"\x93NUMPY\x02\x00\xff\xff\xff\xff{'descr'".to_vec(), "a length of 4294967295"),
        (NPY, "text.npy", npy_with("hello", &[]), "byte 10"),
        (NPY, "brackets.npy", npy_with(&"(".repeat(9000), &[]), "byte 10"),
        (NPY, "keys.npy", npy_with("{'descr': '|u1'}", &[]), "byte 10"),
        (NPY, "non-ascii.npy", npy_with("{'d\u{1}", &[]), "byte 13: expected printable ASCII"),
        (NPY, "few.npy", u1("(1, 2, 3)", 5), "found 5 bytes of data"),
        (NPY, "many.npy", u1("(1, 2, 3)", 7), "found 7 bytes of data"),
        (NPY, "none.npy", u1("(0, 2, 3)", 0), "found 0 bytes of data"),
        (NPY, "huge.npy", u1("(4000000000, 4000000000, 4000000000)", 7), "byte 10"),
        (NPY, "wrap.npy", u1("(0, 9999999999999999999, 9999999999999999999)", 0), "byte 10"),
        (NPY, "digits.npy", u1("(1, 2, 99999999999999999999999999)", 2), "byte 10"),
        (NPY, "hex.npy", u1("(0xffffffffff, 0xffffffffff, 0xffffffffff)", 2), "byte 10"),
        (NPY, "minus.npy", u1("(-1, 2, 3)", 6), "byte 10"),
        (NPY, "rank.npy", u1("(6,)", 6), "byte 6: expected shape [N, H, W]"),
        (NPY, "axes.npy", u1("(1, 1, 2, 2, 2)", 8), "byte 6: expected shape [N, H, W]"),
        (NPY, "complex.npy", good_npy("<c8", "(1, 1, 1)", &[0; 8]), "expected elements of type bool, integer or float"),
        (NPY, "text.npy", good_npy("<U1", "(1, 1, 1)", &[65, 0, 0, 0]), "expected elements of type bool, integer"),
        (NPY, "rgba.npy", u1("(1, 2, 2, 4)", 16), "--layout: nhwc for colour with transparency"),
        (NPY, "flat.npy", u1("(2, 4)", 8), "x.reshape(-1, H, W)"),
        (
            NPY,
            "record.npy",
            npy_with("{'descr': [('a', '|u1')], 'fortran_order': False, 'shape': (1, 1, 1)}", &[0]),
            "byte 10",
        ),
        (NPY, "nan.npy", good_npy("<f4", "(1, 1, 2)", &floats(&[0.0, f32::NAN])), "element 1 is NaN"),
        (NPY, "range.npy", good_npy("<f4", "(1, 1, 2)", &floats(&[7.5, 0.0])), "floats from 0 to 7.5"),
        (NPY, "deep.npy", good_npy("<u2", "(1, 1, 1)", &[0, 1]), "element 0 is 256, uint16 are levels 0 to 255"),
        // Pictures
        (PICTURE, "empty.png", vec![], "empty file"),
        (PICTURE, "cut.png", cut(good_png(), 30), "cut.png"),
        (PICTURE, "header.png", good_png()[..20].to_vec(), "header.png"),
        (PICTURE, "magic.png", with(good_png(), 0, b"nonsense"), "magic.png"),
        (PICTURE, "huge.png", huge_png(), "huge.png"),
        (PICTURE, "garbage.jpg", vec![0xff; 100], "garbage.jpg"),
        (PICTURE, "garbage.webp", [b"RIFF\xff\xff\xff\xffWEBPVP8L".to_vec(), vec![1; 50]].concat(), "garbage.webp"),
        // By content
        (OPEN, "empty", vec![], "empty file"),
        (OPEN, "garbage", vec![b'x'; 100], "looked for an idx file"),
        (OPEN, "picture.png", good_png(), "name the folder"),
        (OPEN, "cut.bin", cut(good_cifar(), 5), "byte 3073"),
    ];
    for (reader, name, bytes, expected) in cases {
        let folder = tempfile::tempdir().unwrap();
        let path = write(folder.path(), name, &bytes);
        let error = reader(&path).err().unwrap_or_else(|| panic!("{name} was accepted"));
        assert_message(&error, &path, expected);
    }
}

#[test]
fn folders_missing_files_and_forbidden_files_are_named() {
    let root = tempfile::tempdir().unwrap();
    for (name, reader) in [("idx", IDX), ("cifar", CIFAR), ("npy", NPY)] {
        let folder = root.path().join(name);
        std::fs::create_dir(&folder).unwrap();
        assert_message(&reader(&folder).unwrap_err(), &folder, "expected a file, found a folder");
        let missing = root.path().join(format!("{name}-missing"));
        assert_message(&reader(&missing).unwrap_err(), &missing, "No such file");
    }
    let empty = root.path().join("empty");
    std::fs::create_dir(&empty).unwrap();
    for looked_for in ["train-images-idx3-ubyte", "data_batch_*.bin", "train.npy", "*.png"] {
        assert_message(&OPEN(&empty).unwrap_err(), &empty, looked_for);
    }
    assert_message(&OPEN(&root.path().join("nowhere")).unwrap_err(), Path::new("nowhere"), "No such file");
}

#[cfg(unix)]
#[test]
fn forbidden_files_and_devices_are_named() {
    use std::os::unix::fs::PermissionsExt;
    let device = Path::new("/dev/zero");
    assert_message(&OPEN(device).unwrap_err(), device, "found a device");
    let root = tempfile::tempdir().unwrap();
    let path = write(root.path(), "secret.png", &good_png());
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o000)).unwrap();
    if std::fs::read(&path).is_ok() {
        eprintln!("SKIPPED: this user may read any file, so a forbidden one cannot be made");
        return;
    }
    for reader in [IDX, CIFAR, NPY, PICTURE, OPEN] {
        assert_message(&reader(&path).unwrap_err(), &path, "Permission denied");
    }
}

#[test]
fn images_and_labels_must_agree() {
    let root = tempfile::tempdir().unwrap();
    let images = write(root.path(), "train-images-idx3-ubyte", &good_idx());
    let labels = |values: &[u8]| {
        let header = [0, 0, 8, 1, 0, 0, 0, values.len() as u8];
        write(root.path(), "train-labels-idx1-ubyte", &[&header[..], values].concat())
    };
    let path = labels(&[3, 1]);
    assert_eq!(idx::read(&images, Some(&path)).unwrap().labels().unwrap(), [3, 1]);
    // The labels beside the images are found without being named.
    let splits = data::open(root.path(), &OpenOptions::default().with_held_out(0.5, 0.0)).unwrap();
    assert_eq!(splits.train.class_names().len(), 4);
    let path = labels(&[3, 1, 2]);
    assert_message(&idx::read(&images, Some(&path)).unwrap_err(), &images, "2 images but 3 labels");
    assert_message(&OPEN(&images).unwrap_err(), &path, "2 images but 3 labels");
}

/// One good file of each format that has a reader, with the name that it needs.
fn good_files() -> Vec<(Reader, &'static str, Vec<u8>)> {
    let npy = good_npy("|u1", "(2, 2, 3)", &[7; 12]);
    let picture = image::DynamicImage::from(image::RgbImage::from_fn(6, 5, |x, y| image::Rgb([x as u8, y as u8, 7])));
    let encoded = |format| {
        let mut bytes = std::io::Cursor::new(Vec::new());
        picture.write_to(&mut bytes, format).unwrap();
        bytes.into_inner()
    };
    let mut hundred = vec![3; 3074 * 2];
    hundred[3074] = 1;
    vec![
        (IDX, "x-idx3-ubyte", good_idx()),
        (IDX, "x.gz", gzip(&good_idx())),
        (WHOLE, "emnist-letters-train-images-idx3-ubyte", good_idx()),
        (CIFAR, "x.bin", good_cifar()),
        (WHOLE, "train.bin", hundred),
        (WHOLE, "data_batch_1", crate::houses::pickled("labels", &[3, 1], false)),
        (NPY, "x.npy", npy.clone()),
        (NPY, "y.npy", good_npy(">f8", "(1, 2, 3)", &[0.5f64.to_be_bytes(); 6].concat())),
        (
            NPY,
            "z.npy",
            npy_with("{'descr': '<i4', 'fortran_order': True, 'shape': (1, 2, 3)}\n", &[9, 0, 0, 0].repeat(6)),
        ),
        (WHOLE, "y", npy.clone()),
        (WHOLE, "x.npz", npz(&npy, zip::CompressionMethod::Stored)),
        (WHOLE, "y.npz", npz(&npy, zip::CompressionMethod::Deflated)),
        (PICTURE, "x.png", good_png()),
        (PICTURE, "x.bmp", encoded(image::ImageFormat::Bmp)),
        (PICTURE, "x.tiff", encoded(image::ImageFormat::Tiff)),
        (PICTURE, "x.ppm", encoded(image::ImageFormat::Pnm)),
        (PICTURE, "x.gif", encoded(image::ImageFormat::Gif)),
        (PICTURE, "x.webp", encoded(image::ImageFormat::WebP)),
        (PICTURE, "x.jpg", encoded(image::ImageFormat::Jpeg)),
    ]
}

/// An archive of images and labels.
fn npz(images: &[u8], method: zip::CompressionMethod) -> Vec<u8> {
    let labels = good_npy("<i8", "(2, )", &[&1i64.to_le_bytes()[..], &0i64.to_le_bytes()].concat());
    let mut bytes = std::io::Cursor::new(Vec::new());
    let mut zip = zip::ZipWriter::new(&mut bytes);
    let options = zip::write::SimpleFileOptions::default().compression_method(method);
    for (name, member) in [("x.npy", images), ("y.npy", &labels)] {
        zip.start_file(name, options).unwrap();
        zip.write_all(member).unwrap();
    }
    zip.finish().unwrap();
    bytes.into_inner()
}

/// A decoder of JPEG fills up what is missing, with as many pixels as the header promises.
#[test]
fn a_jpeg_file_of_more_pixels_than_its_bytes_hold_is_refused() {
    let (_, _, mut bytes) = good_files().into_iter().find(|(_, name, _)| name.ends_with(".jpg")).unwrap();
    let frame = bytes.windows(2).position(|marker| marker == [0xff, 0xc0]).unwrap();
    bytes[frame + 5..frame + 9].copy_from_slice(&[9000_u16.to_be_bytes(), 9000_u16.to_be_bytes()].concat());
    let folder = tempfile::tempdir().unwrap();
    let error = PICTURE(&write(folder.path(), "x.jpg", &bytes)).unwrap_err().to_string();
    assert!(error.contains("9000x9000 pixels in") && error.contains("damaged or cut off"), "{error}");
}

/// `FLOW_FUZZ=1000000 cargo test --release -p flow-image --test all damaged` tries a million inputs for each format.
#[test]
fn damaged_files_never_panic() {
    let inputs = fuzz::rounds(600);
    for (reader, name, good) in good_files() {
        let folder = tempfile::tempdir().unwrap();
        let mut rng = FlowRng::named(inputs.into(), name);
        assert!(reader(&write(folder.path(), name, &good)).is_ok(), "{name} is not good to begin with");
        let mut accepted = 0;
        for _ in 0..inputs {
            let bytes = damage(good.clone(), &mut rng);
            let path = write(folder.path(), name, &bytes);
            match reader(&path) {
                Ok(set) => {
                    // Deflate expands 1,032 times at most, a picture of one bit a pixel eight times more. Formats that
                    // repeat colours or lines are bounded by their decoders' limits alone.
                    let repeats = [".bmp", ".tiff", ".gif", ".webp", ".ppm"].iter().any(|end| name.ends_with(end));
                    let bound = match repeats {
                        true => 1 << 29,
                        false if name.ends_with(".jpg") => 3 * 4096 * bytes.len(),
                        false => 8 * 1032 * bytes.len(),
                    };
                    assert!(set.images().len() <= bound, "{name}: {} values", set.images().len());
                    accepted += 1;
                }
                Err(error) => assert!(!error.to_string().contains('\n'), "{error}"),
            }
        }
        assert!(accepted < inputs, "{name}: damage went unnoticed every time");
    }
}

#[test]
fn damaged_tables_of_labels_never_panic() {
    let inputs = fuzz::rounds(600);
    let folder = tempfile::tempdir().unwrap();
    write(folder.path(), "a.png", &good_png());
    write(folder.path(), "b.png", &good_png());
    let mut rng = FlowRng::named(inputs.into(), "labels");
    for good in ["image_id,Smiling,Male\na.png,1,-1\nb.png,-1,1\n", "\"id\";\"hat\"\n\"a\";\"0\"\n\"b\";1\n"] {
        write(folder.path(), "labels.csv", good.as_bytes());
        assert!(PICTURE(&folder.path().join("a.png")).unwrap().attributes().is_some(), "{good}");
        for _ in 0..inputs {
            write(folder.path(), "labels.csv", &damage(good.as_bytes().to_vec(), &mut rng));
            if let Err(error) = PICTURE(&folder.path().join("a.png")) {
                let error = error.to_string();
                assert!(!error.contains('\n') && error.contains("labels.csv"), "{error}");
            }
        }
    }
}

/// A few bytes changed, a tail cut off or added, or nothing but noise.
fn damage(mut bytes: Vec<u8>, rng: &mut FlowRng) -> Vec<u8> {
    match rng.below(4) {
        0 => bytes.truncate(rng.below(bytes.len())),
        1 => bytes.extend((0..1 + rng.below(40)).map(|_| rng.below(256) as u8)),
        2 => bytes = (0..rng.below(200)).map(|_| rng.below(256) as u8).collect(),
        _ => {
            for _ in 0..1 + rng.below(4) {
                let position = rng.below(bytes.len().min(100));
                bytes[position] = rng.below(256) as u8;
            }
        }
    }
    bytes
}
