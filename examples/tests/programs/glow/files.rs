//! Other people's files through the program: what it says of them, and that nothing is lost on the way.

use std::path::Path;

use image::{GrayImage, Luma};

use super::{glow, npy, run, train};

/// Runs the program, which has to succeed; returns what it says on stderr.
fn said(folder: &Path, arguments: &[&str]) -> String {
    let output = glow(folder).args(arguments).output().unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr).to_string();
    assert!(output.status.success(), "glow {arguments:?}: {stderr}");
    stderr
}

/// Runs the program, which has to refuse; returns the last line of stderr.
fn refused(folder: &Path, arguments: &[&str]) -> String {
    let output = glow(folder).args(arguments).output().unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr).to_string();
    assert_eq!(output.status.code(), Some(2), "glow {arguments:?}: {stderr}");
    stderr.lines().last().unwrap_or_default().to_string()
}

/// Ten grey pictures of 8x8 in each of three folders of classes.
fn classes(folder: &Path) {
    for (class, name) in ["cat", "dog", "éléphant"].iter().enumerate() {
        std::fs::create_dir_all(folder.join(name)).unwrap();
        for i in 0..10u32 {
            let value = |x: u32, y: u32| (class as u32 * 60 + i * 5 + (x * 3 + y * 7) % 11) as u8;
            let picture = GrayImage::from_fn(8, 8, |x, y| Luma([value(x, y)]));
            picture.save(folder.join(name).join(format!("ñ {i}.png"))).unwrap();
        }
    }
}

#[test]
fn an_archive_restores_the_whole_tree_under_its_names() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    classes(&folder.join("tree"));
    run(folder, &["train", "--model", "idf-digits", "--data", "tree", "--steps", "3", "--out", "c"]);
    let archive = ["--checkpoint", "c", "--archive", "a.flow"];
    let out = run(folder, &["compress", "--checkpoint", "c", "--data", "tree", "--out", "a.flow"]);
    assert!(out.starts_with("30 images with their names, "), "{out}");
    let out = run(folder, &[&["decompress", "--out", "again", "--verify", "tree"], &archive[..]].concat());
    assert!(out.contains("30 images restored to again, identical to the originals"), "{out}");
    for class in ["cat", "dog", "éléphant"] {
        for i in 0..10 {
            let pixels = |root: &str| image::open(folder.join(root).join(class).join(format!("ñ {i}.png"))).unwrap();
            assert_eq!(pixels("tree"), pixels("again"));
        }
    }
    let found = crate::shared::listing(&folder.join("again")).len();
    assert_eq!(found, 33, "thirty files in three folders");
    // A part is packed where one is asked for, and said.
    let arguments = ["compress", "--checkpoint", "c", "--data", "tree", "--split", "test", "--out", "b.flow"];
    assert!(said(folder, &arguments).contains("data: test part, 3 of 30 images; "));
    let out = run(folder, &[&["decompress", "--out", "flat.npy"], &archive[..]].concat());
    assert!(out.contains("30 images restored to flat.npy"), "{out}");
}

#[test]
fn a_training_says_what_it_read_and_its_report_is_what_eval_says() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    classes(&folder.join("tree"));
    GrayImage::from_pixel(8, 8, Luma([3])).save(folder.join("tree/loose.png")).unwrap();
    std::fs::write(folder.join("tree/cat/broken.png"), b"<html>").unwrap();
    let tiny = ["--levels", "1", "--steps-per-level", "1", "--width", "4", "--batch-size", "8", "--steps", "12"];
    let base = [&["train", "--data", "tree", "--out", "m", "--seed", "3"], &tiny[..]].concat();
    let error = refused(folder, &base);
    assert!(error.contains("broken.png: this is an HTML page"), "{error}");
    let said = said(folder, &[&base[..], &["--skip-broken"]].concat());
    for part in [
        "data: 26 training, 1 validation, 3 test images of 1x8x8, 256 levels; 3 classes: cat, dog, éléphant",
        "note: tree: 1 pictures beside the 3 class folders belong to none, left out: loose.png",
        "note: tree: 1 broken pictures were left out: cat/broken.png",
        "3 of 30 images held out for test",
    ] {
        assert!(said.contains(part), "no `{part}` in {said}");
    }
    let number = |line: &str| line.split_whitespace().nth(1).unwrap().to_string();
    std::fs::remove_dir_all(folder.join("m")).unwrap();
    let report = run(folder, &[&base[..], &["--skip-broken"]].concat());
    let eval = ["eval", "--checkpoint", "m", "--data", "tree", "--csv", "bits.csv"];
    assert_eq!(number(&report), number(&run(folder, &eval)), "{report}");
    let table = std::fs::read_to_string(folder.join("bits.csv")).unwrap();
    assert!(table.starts_with("index,label,bits_per_dim,file\n") && table.contains(",dog/ñ "), "{table}");
    let all = run(folder, &["eval", "--checkpoint", "m", "--data", "tree", "--split", "all"]);
    assert!(all.starts_with("all ") && all.contains("over 30 images"), "{all}");
    let other = "note: these are not the run's own data (";
    let eval = &eval[..5];
    assert!(!self::said(folder, eval).contains("the run's own data"));
    std::fs::remove_file(folder.join("tree/cat/broken.png")).unwrap();
    let first = std::fs::read_dir(folder.join("tree/cat")).unwrap().next().unwrap().unwrap();
    std::fs::remove_file(first.path()).unwrap();
    let said = self::said(folder, eval);
    assert!(said.contains(other), "{said}");
}

#[test]
fn channels_that_no_picture_has() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let values: Vec<u8> = (0..40 * 4 * 64).map(|i| (i * 7 % 251) as u8).collect();
    std::fs::write(folder.join("four.npy"), npy("|u1", "(40, 4, 8, 8)", &values)).unwrap();
    let base = ["train", "--data", "four.npy", "--levels", "1", "--steps-per-level", "1", "--width", "4"];
    let more = ["--batch-size", "8", "--warmup", "2", "--steps", "10", "--preview-every", "5", "--out", "r"];
    let error = refused(folder, &[&base[..], &more].concat());
    assert!(error.contains("four.npy") && error.contains("--layout"), "{error}");
    assert!(!folder.join("r").exists());
    let out = run(folder, &[&base[..], &more, &["--layout", "nchw"]].concat());
    assert!(out.contains("bits/dim over 4 images") && out.contains("samples.npy"), "{out}");
    assert!(folder.join("r/samples.npy").is_file() && folder.join("r/previews/samples-00000005.npy").is_file());
    let sample = ["sample", "--checkpoint", "r", "--count", "6", "--out"];
    let error = refused(folder, &[&sample[..], &["s.png"]].concat());
    assert!(error.contains("the model's images have 4") && error.contains("--out s.npy"), "{error}");
    assert_eq!(run(folder, &[&sample[..], &["s.npy"]].concat()).trim(), "6 images in s.npy (levels 0 to 255)");
    assert!(run(folder, &["eval", "--checkpoint", "r", "--data", "four.npy"]).contains("over 4 images"));
}

#[test]
fn arrays_and_sweeps_of_all_classes() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    train(folder, "m", "10", &[]);
    let begun = std::time::Instant::now();
    let out = run(folder, &["sample", "--checkpoint", "m", "--count", "2500", "--out", "s.npz", "--images", "each"]);
    assert_eq!(out.trim(), "2500 images in s.npz (levels 0 to 16)");
    assert!(begun.elapsed().as_secs() < 60 && std::fs::read_dir(folder.join("each")).unwrap().count() == 2500);
    // Ten classes, in the order of their numbers, ten of each in turn.
    let read = flow_image::data::npz::read(&folder.join("s.npz"), &Default::default()).unwrap();
    assert_eq!(
        (read.len(), read.shape(), read.labels().unwrap()[..21].to_vec()[10..].to_vec()),
        (2500, [1, 8, 8], {
            let mut labels = vec![1; 10];
            labels.push(2);
            labels
        })
    );
    run(folder, &["sample", "--checkpoint", "m", "--sweep", "0.5,1", "--out", "w.npz"]);
    let read = flow_image::data::npz::read(&folder.join("w.npz"), &Default::default()).unwrap();
    let classes: Vec<u32> = (0..10).chain(0..10).collect();
    assert_eq!(read.labels().unwrap(), classes);
    let out = run(folder, &["sample", "--checkpoint", "m", "--count", "6000", "--columns", "10", "--out", "long.png"]);
    assert!(out.starts_with("6000 images in 2 pages, long.png to long-2.png"), "{out}");
}

/// Every verb takes a checkpoint of the program, or names the verbs that do.
#[test]
fn checkpoints_of_the_other_kind() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    run(folder, &["train", "--model", "idf-digits", "--steps", "2", "--out", "c", "--test-images", "5"]);
    train(folder, "m", "4", &[]);
    let info = run(folder, &["info", "--checkpoint", "c"]);
    for part in ["lossless codec", "1x8x8 images of 17 levels", "parameters", "step         2", "bits/value"] {
        assert!(info.contains(part), "{part}: {info}");
    }
    let verbs: [&[&str]; 8] = [
        &["sample"],
        &["eval"],
        &["encode"],
        &["decode"],
        &["interpolate"],
        &["edit", "--class-a", "1", "--class-b", "2"],
        &["ood", "--other", "digits"],
        &["inspect"],
    ];
    for verb in verbs {
        let error = refused(folder, &[verb, &["--checkpoint", "c"]].concat());
        assert!(error.contains("is a lossless codec, which compress, decompress and info use"), "{error}");
    }
    for verb in ["compress", "decompress"] {
        let error = refused(folder, &[verb, "--checkpoint", "m"]);
        assert!(
            error.contains("is a glow, which has no codes") && error.contains("glow train --model idf-"),
            "{error}"
        );
    }
    let table = run(folder, &["info", "--presets"]);
    assert!(table.lines().all(|line| !line.contains('{')) && table.contains("idf-cifar10"), "{table}");
    let json: serde_json::Value = serde_json::from_str(&run(folder, &["info", "--presets", "--json"])).unwrap();
    let names: Vec<&str> = json.as_array().unwrap().iter().filter_map(|p| p["name"].as_str()).collect();
    assert!(names.contains(&"glow-cifar10") && names.contains(&"idf-fashion"), "{names:?}");
    assert!(refused(folder, &["train", "--model", "idf", "--out", "n"]).contains("idf-digits"));
}
