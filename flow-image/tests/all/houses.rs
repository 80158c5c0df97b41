//! Files as other people's programs write them: right, or refused with what to do.
//!
//! The right values are those of NumPy, PIL and torchvision, worked out by hand: nothing here was read by this crate first.

use std::io::Write;
use std::path::{Path, PathBuf};

use flow_image::data::{self, ArrayOptions, Dataset, FolderOptions, Layout, Range, Splits, folder};
use flow_image::{OpenOptions, Result};
use image::{DynamicImage, GrayImage, Luma, Rgb, RgbImage, Rgba, RgbaImage};

/// The parts of a path, nothing held out, the training images in the order of the source.
fn open(path: &Path) -> Result<Splits> {
    let options = OpenOptions::default().with_held_out(0.0, 0.0);
    let splits = data::open(path, &options)?;
    let train = data::open_all(path, &options)?.subset(0..splits.train.len())?;
    let more: Vec<String> = splits.train.notes().iter().filter(|note| !train.notes().contains(note)).cloned().collect();
    Ok(Splits { train: train.with_notes(more), ..splits })
}

#[track_caller]
fn refused(path: &Path, expected: &[&str]) {
    let error = open(path).err().unwrap_or_else(|| panic!("{} was accepted", path.display())).to_string();
    for part in expected {
        assert!(error.contains(part), "no `{part}` in: {error}");
    }
    assert!(!error.contains('\n'), "{error}");
}

fn put(root: &Path, name: &str, bytes: &[u8]) -> PathBuf {
    let path = root.join(name);
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(&path, bytes).unwrap();
    path
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

/// Grey images of one colour each, 2 rows of 3, as idx.
fn idx_images(count: u8) -> Vec<u8> {
    let header = [[0, 0, 8, 3], [0, 0, 0, count], [0, 0, 0, 2], [0, 0, 0, 3]].concat();
    header.into_iter().chain((0..count).flat_map(|image| (0..6).map(move |place| 10 * image + place))).collect()
}

fn idx_labels(labels: &[u8]) -> Vec<u8> {
    [&[0, 0, 8, 1, 0, 0, 0, labels.len() as u8][..], labels].concat()
}

fn picture(root: &Path, name: &str, value: u8) {
    let path = root.join(name);
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    RgbImage::from_fn(8, 8, |x, y| Rgb([value, x as u8, y as u8])).save(path).unwrap();
}

/// A file of CIFAR's Python form, as Python 2 pickled it: protocol 2, byte strings, an array by `_reconstruct`.
pub(crate) fn pickled(labels_key: &str, labels: &[u8], fortran: bool) -> Vec<u8> {
    let text = |text: &str| [&b"U"[..], &[text.len() as u8], text.as_bytes()].concat();
    let count = labels.len();
    let data: Vec<u8> = (0..count).flat_map(|image| (0..3072).map(move |i| (i % 251 + image) as u8)).collect();
    [
        &b"\x80\x02}q\x00("[..],
        &text("batch_label"),
        &text("training batch 1 of 5"),
        &text(labels_key),
        b"](",
        &labels.iter().flat_map(|&label| [b'K', label]).collect::<Vec<u8>>(),
        b"e",
        &text("data"),
        b"cnumpy.core.multiarray\n_reconstruct\nq\x02cnumpy\nndarray\nq\x03K\x00\x85q\x04U\x01bq\x05\x87q\x06Rq\x07(K\x01",
        &[b'K', count as u8, b'M', 0, 12, 0x86],
        b"cnumpy\ndtype\nq\x08U\x02u1K\x00K\x01\x87q\x09Rq\x0a(K\x03U\x01|NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb",
        if fortran { b"\x88" } else { b"\x89" },
        &[&b"T"[..], &(data.len() as u32).to_le_bytes(), &data].concat(),
        b"tb",
        b"u.",
    ]
    .concat()
}

/// The names of classes, as Python 3 pickles a dictionary of strings.
fn pickled_names(key: &str, count: usize) -> Vec<u8> {
    let text = |text: &str| [&b"X"[..], &(text.len() as u32).to_le_bytes(), text.as_bytes()].concat();
    let names: Vec<u8> = (0..count).flat_map(|class| text(&format!("kind{class}"))).collect();
    [&b"\x80\x03}("[..], &text(key), b"](", &names, b"eu."].concat()
}

#[test]
fn cifar_in_its_python_form() {
    let root = tempfile::tempdir().unwrap();
    let ten = root.path().join("cifar-10-batches-py");
    put(&ten, "data_batch_1", &pickled("labels", &[3, 1], false));
    put(&ten, "data_batch_2", &pickled("labels", &[9], false));
    put(&ten, "test_batch", &pickled("labels", &[0, 4, 5], false));
    put(&ten, "batches.meta", &pickled_names("label_names", 10));
    // By itself, and from the root that torchvision is given.
    for path in [&ten, root.path()] {
        let splits = open(path).unwrap();
        assert_eq!((splits.train.len(), splits.test.len(), splits.train.shape()), (3, 3, [3, 32, 32]));
        assert_eq!((splits.train.labels().unwrap(), splits.test.labels().unwrap()), (&[3, 1, 9][..], &[0, 4, 5][..]));
        assert_eq!(splits.train.class_names()[9], "kind9");
        assert_eq!(splits.train.image(1).unwrap()[..3], [1, 2, 3]);
        assert!(splits.notes()[0].contains("2 training batches, CIFAR-10 has 5"), "{:?}", splits.notes());
    }
    assert_eq!(open(&ten.join("data_batch_1")).unwrap().train.labels().unwrap(), [3, 1]);
    put(&ten, "data_batch_2", &pickled("labels", &[10], false));
    refused(&ten, &["data_batch_2", "labels 0 to 9", "10 for image 0"]);
    put(&ten, "data_batch_2", &pickled("labels", &[1], true));
    refused(&ten, &["data_batch_2", "C order"]);
    put(&ten, "data_batch_2", &pickled("tags", &[1], false));
    refused(&ten, &["data_batch_2", "an entry labels", "tags"]);
    put(&ten, "data_batch_2", b"<!DOCTYPE html><p>not found");
    refused(&ten, &["data_batch_2", "an HTML page"]);

    let root = tempfile::tempdir().unwrap();
    let hundred = root.path().join("cifar-100-python");
    put(&hundred, "train", &pickled("fine_labels", &[99, 7], false));
    put(&hundred, "test", &pickled("fine_labels", &[0], false));
    put(&hundred, "meta", &pickled_names("fine_label_names", 100));
    let splits = open(root.path()).unwrap();
    assert_eq!((splits.train.labels().unwrap(), splits.train.class_names().len()), (&[99, 7][..], 100));
    assert_eq!((splits.test.len(), splits.test.class_names()[99].as_str()), (1, "kind99"));
    put(&hundred, "meta", &pickled_names("fine_label_names", 20));
    refused(&hundred, &["meta", "100 names", "20"]);
}

#[test]
fn cifar_100_in_its_binary_form() {
    let root = tempfile::tempdir().unwrap();
    let record = |coarse: u8, fine: u8, value: u8| [&[coarse, fine][..], &[value; 3072]].concat();
    let train = put(root.path(), "train.bin", &[record(19, 99, 5), record(0, 1, 6), record(3, 2, 7)].concat());
    put(root.path(), "test.bin", &record(1, 50, 8));
    let names: String = (0..100).map(|class| format!("kind{class}\n")).collect();
    put(root.path(), "fine_label_names.txt", names.as_bytes());
    let splits = open(root.path()).unwrap();
    assert_eq!((splits.train.len(), splits.test.len()), (3, 1));
    assert_eq!((splits.train.labels().unwrap(), splits.test.class_names().len()), (&[99, 1, 2][..], 100));
    assert_eq!(splits.train.image(2).unwrap(), [7; 3072]);
    assert_eq!(open(&train).unwrap().train.class_names()[99], "kind99");
    put(root.path(), "train.bin", &[record(0, 100, 5), record(0, 1, 6)].concat());
    refused(root.path(), &["train.bin", "byte 1:", "a label 0 to 99", "100 in record 0"]);
    put(root.path(), "train.bin", &record(0, 1, 5)[..3000]);
    refused(root.path(), &["train.bin", "whole records of 3074 bytes"]);
}

#[test]
fn emnist_is_turned_upright_and_its_letters_have_names() {
    let root = tempfile::tempdir().unwrap();
    let at = root.path().join("EMNIST/raw");
    put(&at, "emnist-letters-train-images-idx3-ubyte.gz", &gzip(&idx_images(3)));
    put(&at, "emnist-letters-train-labels-idx1-ubyte.gz", &gzip(&idx_labels(&[1, 26, 2])));
    put(&at, "emnist-letters-test-images-idx3-ubyte.gz", &gzip(&idx_images(2)));
    put(&at, "emnist-letters-test-labels-idx1-ubyte.gz", &gzip(&idx_labels(&[2, 1])));
    let splits = open(root.path()).unwrap();
    assert_eq!((splits.train.len(), splits.test.len(), splits.train.shape()), (3, 2, [1, 3, 2]));
    // 0 1 2 / 3 4 5 mirrored along the diagonal.
    assert_eq!(splits.train.image(0).unwrap(), [0, 3, 1, 4, 2, 5]);
    assert_eq!((splits.train.labels().unwrap(), splits.test.labels().unwrap()), (&[0, 25, 1][..], &[1, 0][..]));
    assert_eq!((splits.train.class_names().len(), splits.test.class_names()[0].as_str()), (26, "1"));
    let notes = splits.notes();
    assert!(notes.iter().any(|n| n.contains("turned upright")), "{notes:?}");
    assert!(notes.iter().any(|n| n.contains("numbered from 1")), "{notes:?}");
    put(&at, "emnist-letters-mapping.txt", b"1 65 97\n2 66 98\n26 90 122\n");
    assert_eq!(open(&at).unwrap().train.class_names()[25], "Z");
    let one = open(&at.join("emnist-letters-train-images-idx3-ubyte.gz")).unwrap();
    assert_eq!((one.train.image(0).unwrap()[1], one.train.labels().unwrap()[1]), (3, 25));
    put(&at, "emnist-letters-mapping.txt", b"1 65 97\ntwo 66\n");
    refused(&at, &["emnist-letters-mapping.txt: line 2", "a label and the code"]);
    // Two sets in one folder: no choice is made in silence.
    put(&at, "emnist-digits-train-images-idx3-ubyte.gz", &gzip(&idx_images(3)));
    refused(&at, &["several data sets", "emnist-digits-train", "emnist-letters-train"]);
}

#[test]
fn roots_as_torchvision_fills_them() {
    for at in ["MNIST/raw", "FashionMNIST/raw", "KMNIST/raw", "raw"] {
        let root = tempfile::tempdir().unwrap();
        put(root.path(), &format!("{at}/train-images-idx3-ubyte"), &idx_images(4));
        put(root.path(), &format!("{at}/train-labels-idx1-ubyte"), &idx_labels(&[0, 1, 2, 3]));
        put(root.path(), &format!("{at}/t10k-images-idx3-ubyte"), &idx_images(1));
        put(root.path(), &format!("{at}/t10k-labels-idx1-ubyte"), &idx_labels(&[1]));
        let splits = open(root.path()).unwrap();
        assert_eq!((splits.train.len(), splits.test.len(), splits.test.class_names().len()), (4, 1, 4), "{at}");
        assert!(!data::holds_pictures(root.path()));
    }
    let root = tempfile::tempdir().unwrap();
    put(root.path(), "MNIST/raw/train-images-idx3-ubyte", &idx_images(4));
    let splits = open(root.path()).unwrap();
    assert!(splits.train.labels().is_none() && splits.notes()[0].contains("no labels beside"), "{:?}", splits.notes());
    put(root.path(), "cifar-10-batches-py/data_batch_1", &pickled("labels", &[3, 1], false));
    refused(root.path(), &["several data sets", "MNIST/raw", "cifar-10-batches-py"]);
}

#[test]
fn archives_and_error_pages_are_named_with_their_remedies() {
    let root = tempfile::tempdir().unwrap();
    let mut tar = vec![0u8; 1024];
    tar[257..262].copy_from_slice(b"ustar");
    for (name, bytes) in [
        ("cifar-10-binary.tar.gz", gzip(b"whatever it is")),
        ("renamed.gz", gzip(&tar)),
        ("cifar.tar", tar.clone()),
        ("photos.tgz", gzip(&tar)),
    ] {
        refused(&put(root.path(), name, &bytes), &[name, "a tar archive; unpack it"]);
    }
    let page = b"\n<html><head><title>403 Forbidden</title>";
    for name in ["x.npy", "x.npz", "x.bin", "train-images-idx3-ubyte.gz", "x.dat", "data_batch_1"] {
        refused(&put(root.path(), name, page), &[name, "an HTML page; the download went wrong"]);
    }
    refused(&put(root.path(), "y-idx3-ubyte.gz", &gzip(page)), &["y-idx3-ubyte.gz", "an HTML page"]);
    // Inside a folder, whatever its format.
    let folder = |name: &str, bytes: &[u8]| {
        let root = tempfile::tempdir().unwrap();
        put(root.path(), name, bytes);
        root
    };
    for name in ["train-images-idx3-ubyte.gz", "data_batch_1.bin", "data_batch_1", "train.npy", "train.npz", "a.png"] {
        refused(folder(name, page).path(), &[name, "an HTML page"]);
    }
    refused(folder("cifar-10-python.tar.gz", b"x").path(), &["found no images", "unpack cifar-10-python.tar.gz"]);
    refused(folder("faces.npz", b"x").path(), &["found no images", "name the file: faces.npz"]);
    refused(folder("train_32x32.mat", b"x").path(), &["found no images"]);
    refused(&put(root.path(), "train_32x32.mat", b"MATLAB 5.0 MAT-file, and so on"), &["a MATLAB file", "loadmat"]);
}

#[test]
fn pictures_of_every_format_give_the_same_pixels() {
    let root = tempfile::tempdir().unwrap();
    let rgb = RgbImage::from_fn(5, 4, |x, y| Rgb([x as u8 * 50, y as u8 * 60, 200]));
    for ending in ["png", "bmp", "tif", "tiff", "ppm", "webp", "BMP"] {
        DynamicImage::from(rgb.clone())
            .save_with_format(
                root.path().join(format!("x.{ending}")),
                image::ImageFormat::from_extension(ending).unwrap(),
            )
            .unwrap();
    }
    // A GIF has a palette: colours of which there are few survive.
    rgb.save(root.path().join("x.gif")).unwrap();
    let set = folder::read(root.path(), &FolderOptions::default()).unwrap();
    assert_eq!((set.len(), set.shape(), set.notes().len()), (8, [3, 4, 5], 0), "{:?}", set.notes());
    let expected: Vec<u8> = (0..3).flat_map(|c| rgb.pixels().map(move |p| p[c])).collect();
    for index in 0..8 {
        assert_eq!(set.image(index).unwrap(), expected, "{}", set.names().unwrap()[index]);
    }
    let root = tempfile::tempdir().unwrap();
    put(root.path(), "a.pgm", b"P2\n2 1\n255\n0 200\n");
    put(root.path(), "b.pbm", b"P1\n2 1\n1 0\n");
    let set = folder::read(root.path(), &FolderOptions::default()).unwrap();
    assert_eq!((set.shape(), set.images()), ([1, 1, 2], &[0, 200, 0, 255][..]));
}

#[test]
fn what_bytes_cannot_hold_is_counted() {
    let root = tempfile::tempdir().unwrap();
    RgbaImage::from_fn(4, 4, |x, _| Rgba([9, 8, 7, if x == 0 { 0 } else { 255 }]))
        .save(root.path().join("a.png"))
        .unwrap();
    RgbaImage::from_pixel(4, 4, Rgba([9, 8, 7, 255])).save(root.path().join("b.png")).unwrap();
    image::ImageBuffer::from_pixel(4, 4, Rgb([0x1234u16, 0x5678, 0x9abc])).save(root.path().join("c.png")).unwrap();
    let frames = [Rgb([9, 8, 7]), Rgb([1, 2, 3])].map(|colour| RgbImage::from_pixel(4, 4, colour));
    flow_image::io::write_gif(&root.path().join("d.gif"), &frames, 100).unwrap();
    let set = folder::read(root.path(), &FolderOptions::default()).unwrap();
    let notes = set.notes().join("\n");
    assert!(notes.contains("1 of 4 pictures have transparent pixels") && notes.contains(": a.png"), "{notes}");
    assert!(notes.contains("1 of 4 pictures have 16 bits a channel") && notes.contains(": c.png"), "{notes}");
    assert!(notes.contains("1 of 4 pictures have several frames") && notes.contains(": d.gif"), "{notes}");
    assert_eq!(set.notes().len(), 3, "{notes}");
    let root = tempfile::tempdir().unwrap();
    image::Rgb32FImage::from_pixel(2, 2, Rgb([100f32, 3.0, 7.0])).save(root.path().join("x.tiff")).unwrap();
    refused(root.path(), &["x.tiff", "floating-point numbers; save it with 8 or 16 bits"]);
}

#[test]
fn loose_pictures_beside_class_folders() {
    let root = tempfile::tempdir().unwrap();
    for (name, value) in [("cat/0.png", 1), ("cat/1.png", 2), ("dog/0.png", 3), ("loose.png", 4)] {
        picture(root.path(), name, value);
    }
    put(root.path(), "readme.txt", b"x");
    put(root.path(), ".DS_Store", b"x");
    let set = folder::read(root.path(), &FolderOptions::default()).unwrap();
    assert_eq!(
        (set.len(), set.class_names(), set.labels().unwrap()),
        (3, &["cat".to_string(), "dog".into()][..], &[0, 0, 1][..])
    );
    let notes = set.notes().join("\n");
    assert!(notes.contains("1 pictures beside the 2 class folders belong to none, left out: loose.png"), "{notes}");
    assert!(notes.contains("1 files are no pictures: readme.txt") && notes.contains("1 hidden files"), "{notes}");
    // More beside than inside: nobody meant that.
    for i in 0..4 {
        picture(root.path(), &format!("{i}.png"), i);
    }
    refused(root.path(), &["5 pictures beside the folders of 2 classes, 3 in them", "move them"]);
    // One folder is no choice between classes.
    std::fs::remove_dir_all(root.path().join("dog")).unwrap();
    let set = folder::read(root.path(), &FolderOptions::default()).unwrap();
    assert!(set.len() == 7 && set.labels().is_none(), "{:?}", set.class_names());
    assert!(set.notes().iter().any(|note| note.contains("beside the folder cat: no classes")), "{:?}", set.notes());
}

#[test]
fn parts_by_names_in_any_case_and_what_lies_beside_them() {
    for (train, validation, test) in
        [("train", "val", "test"), ("Train", "Valid", "Test"), ("TRAINING", "dev", "testing")]
    {
        let root = tempfile::tempdir().unwrap();
        for (i, part) in [train, train, validation, test].iter().enumerate() {
            picture(root.path(), &format!("{part}/a/{i}.png"), i as u8);
        }
        picture(root.path(), "extra/x.png", 9);
        let splits = open(root.path()).unwrap();
        assert_eq!([&splits.train, &splits.validation, &splits.test].map(Dataset::len), [2, 1, 1], "{train}");
        assert!(splits.notes()[0].contains("not read: extra"), "{:?}", splits.notes());
        assert_eq!(splits.test.names().unwrap(), [format!("{test}/a/3.png")]);
        let all = data::open_all(root.path(), &OpenOptions::default()).unwrap();
        assert_eq!((all.len(), all.class_names()), (4, &["a".to_string()][..]));
    }
}

#[test]
fn broken_pictures_are_skipped_and_counted_if_asked() {
    let root = tempfile::tempdir().unwrap();
    picture(root.path(), "a.png", 1);
    picture(root.path(), "d.png", 2);
    put(root.path(), "b.png", b"\x89PNG\r\n\x1a\nrubbish");
    put(root.path(), "c.jpg", b"<html>");
    put(root.path(), "e.png", b"");
    refused(root.path(), &["b.png", "--skip-broken leaves such pictures out"]);
    let skipping = FolderOptions::default().skipping_broken(true);
    let set = folder::read(root.path(), &skipping).unwrap();
    assert_eq!(set.names().unwrap(), ["a.png", "d.png"]);
    assert!(set.notes()[0].contains("3 broken pictures were left out: b.png, c.jpg, e.png"), "{:?}", set.notes());
    for name in ["a.png", "d.png"] {
        std::fs::remove_file(root.path().join(name)).unwrap();
    }
    assert!(folder::read(root.path(), &skipping).unwrap_err().to_string().contains("b.png"));
}

#[test]
fn tables_of_labels_as_celeba_and_kaggle_have_them() {
    let root = tempfile::tempdir().unwrap();
    for (i, name) in ["n0.png", "n1.png", "n2.png"].iter().enumerate() {
        picture(root.path(), name, i as u8);
    }
    put(root.path(), "labels.csv", b"image_id,Smiling,Male\nn0.png,-1,1\nn2.png,1,-1\n");
    let set = open(root.path()).unwrap().train;
    let mut column: Vec<_> =
        set.names().unwrap().iter().zip(set.attributes().unwrap().column("Smiling").unwrap()).collect();
    column.sort();
    let expected = [("n0.png", Some(false)), ("n1.png", None), ("n2.png", Some(true))];
    assert!(column.iter().zip(expected).all(|((name, value), (n, v))| *name == n && *value == v), "{column:?}");
    assert!(set.notes().iter().any(|note| note.contains("no row for 1 of 3 pictures: n1.png")), "{:?}", set.notes());
    put(root.path(), "labels.csv", b"id,breed\nn0,boxer\nn1,pug\nn2,pug\n");
    let set = open(root.path()).unwrap().train;
    assert!(set.len() == 3 && set.attributes().is_none() && set.labels().is_none());
    assert!(set.notes().iter().any(|note| note.contains("no attributes are read")), "{:?}", set.notes());
    put(root.path(), "labels.csv", b"id,hat\nx0,1\nx1,0\n");
    refused(root.path(), &["labels.csv: line 2", "files of the folder under `id`, such as n0.png", "x0, x1"]);
}

#[test]
fn a_part_is_scaled_as_the_training_part_was() {
    let root = tempfile::tempdir().unwrap();
    let array = |values: &[f32]| {
        let header = format!("{{'descr': '<f4', 'fortran_order': False, 'shape': ({}, 1, 1), }}\n", values.len());
        let body: Vec<u8> = values.iter().flat_map(|v| v.to_le_bytes()).collect();
        [b"\x93NUMPY\x01\x00", &(header.len() as u16).to_le_bytes()[..], header.as_bytes(), &body].concat()
    };
    put(root.path(), "train.npy", &array(&[-1.0, 0.5, 1.0]));
    put(root.path(), "test.npy", &array(&[0.0, 1.0]));
    let splits = open(root.path()).unwrap();
    assert_eq!((splits.train.images(), splits.test.images()), (&[0, 191, 255][..], &[128, 255][..]));
    put(root.path(), "test.npy", &array(&[0.0, 200.0]));
    refused(root.path(), &["test.npy", "element 1 is 200, expected -1 to 1 as in the training images"]);
    let mut options = OpenOptions::default().with_held_out(0.0, 0.0);
    options.array = ArrayOptions::new(Layout::Nhw, Range::Unit);
    let error = data::open(root.path(), &options).unwrap_err().to_string();
    assert!(error.contains("train.npy") && error.contains("element 0 is -1"), "{error}");
}

#[test]
fn duplicates_across_parts_are_counted_or_removed() {
    let root = tempfile::tempdir().unwrap();
    for (name, value) in
        [("train/0.png", 1), ("train/1.png", 2), ("train/2.png", 2), ("test/0.png", 1), ("test/1.png", 7)]
    {
        picture(root.path(), name, value);
    }
    let splits = open(root.path()).unwrap();
    let note = splits.notes().join("\n");
    assert!(note.contains("1 of 2 test images are also training images, 1 of 3 training images repeat"), "{note}");
    let mut options = OpenOptions::default().with_held_out(0.0, 0.0);
    options.dedup = true;
    let splits = data::open(root.path(), &options).unwrap();
    assert_eq!((splits.train.len(), splits.test.len()), (1, 2), "{:?}", splits.train.names());
    assert_eq!(splits.train.images()[0], 2);
}

#[test]
fn gray_pictures_among_coloured_ones_are_grey_in_all_channels() {
    let root = tempfile::tempdir().unwrap();
    picture(root.path(), "a.png", 1);
    GrayImage::from_pixel(8, 8, Luma([77])).save(root.path().join("b.bmp")).unwrap();
    let set = open(root.path()).unwrap().train;
    assert_eq!(set.shape(), [3, 8, 8]);
    assert!((0..2).any(|i| set.image(i).unwrap() == [77; 192]));
}
