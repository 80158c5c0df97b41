//! Every verb on small models: what it says and what it leaves.

use std::path::Path;

use image::{GrayImage, Luma};
use safetensors::SafeTensors;

use super::{run, train};

/// A model of the digits, and a place for results.
fn trained() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let summary = train(folder.path(), "m", "20", &[]);
    assert!(summary.contains("bits/dim over 50 images (17 levels, D = 64), 20 steps"), "{summary}");
    folder
}

fn size(path: &Path) -> (u32, u32) {
    image::image_dimensions(path).unwrap()
}

/// A cell of a sheet of `columns` by `rows` 8x8 images: eight times enlarged, with lines of two pixels, right and below
/// the names of rows and columns.
fn cell(sheet: &image::DynamicImage, [columns, rows]: [u32; 2], column: u32, row: u32) -> image::DynamicImage {
    let (left, top) = (sheet.width() - (columns * 66 + 2), sheet.height() - (rows * 66 + 2));
    sheet.crop_imm(left + 2 + column * 66, top + 2 + row * 66, 64, 64)
}

#[test]
fn train_leaves_pictures_log_and_checkpoint_that_the_other_verbs_use() {
    let folder = trained();
    let at = |name: &str| folder.path().join(name);
    for file in ["m/samples.png", "m/loss.png", "m/log.jsonl", "m/checkpoints/best/model.safetensors"] {
        assert!(at(file).is_file(), "{file}");
    }
    let said = run(folder.path(), &["sample", "--checkpoint", "m", "--count", "6", "--columns", "3", "--out", "s.png"]);
    assert_eq!(said.trim(), "6 images in s.png");
    // Three columns of 8 pixels, eight times enlarged, with lines of two pixels, and the classes beside the rows.
    let (width, height) = size(&at("s.png"));
    assert!(height == 2 * 66 + 2 && (3 * 66 + 12..3 * 66 + 60).contains(&width), "{width} {height}");
    let said = run(folder.path(), &["info", "--checkpoint", "m"]);
    for part in
        ["\"family\":\"glow\"", "1x8x8 images of 17 levels, D = 64", "step         20", "bits/dim in validation"]
    {
        assert!(said.contains(part), "{part}: {said}");
    }
    assert!(run(folder.path(), &["info", "--presets"]).contains("glow-cifar10"));
}

/// A codec reads the flags of the engine, the data and the augmentation like any other model, and its seed.
#[test]
fn a_codec_honours_the_flags_of_training() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let base = ["train", "--model", "idf-digits", "--steps", "4", "--validate-every", "2", "--test-images", "9"];
    let flags = ["--batch-size", "8", "--ema", "0", "--patience", "3", "--schedule", "constant", "--warmup", "1"];
    let more =
        ["--learning-rate", "0.001", "--clip", "2", "--flip", "--shift", "0.1", "--log-every", "1", "--seed", "5"];
    let said = run(folder, &[&base[..], &flags, &more, &["--out", "a"]].concat());
    assert!(said.contains("in an archive of 9 images, 4 steps") && folder.join("a/loss.png").exists(), "{said}");
    let config = std::fs::read_to_string(folder.join("a/checkpoints/step-00000004/config.json")).unwrap();
    let config: serde_json::Value = serde_json::from_str(&config).unwrap();
    let (task, train) = (&config["task"], &config["train"]);
    assert_eq!((&task["batch"], &task["seed"], &task["augment"]["flip"]), (&8.into(), &5.into(), &true.into()));
    assert_eq!((&train["early_stop_patience"], &train["clip_norm"]), (&3.into(), &2.0.into()));
    assert_eq!(
        (&train["schedule"]["warmup_steps"], &train["schedule"]["decay"]["kind"]),
        (&1.into(), &"constant".into())
    );
    assert_eq!((&train["optimizer"]["learning_rate"], &train["log_every"]), (&0.001.into(), &1.into()));
    assert!(train["ema"].is_null(), "{config}");
    let weights = |out: &str, seed: &str| {
        run(folder, &[&base[..], &["--out", out, "--seed", seed]].concat());
        std::fs::read(folder.join(out).join("checkpoints/step-00000004/model.safetensors")).unwrap()
    };
    let first = weights("b", "1");
    assert!(first == weights("c", "1") && first != weights("d", "2"));
    run(folder, &["compress", "--checkpoint", "b", "--count", "5", "--out", "five.flow"]);
    let said = run(
        folder,
        &["decompress", "--checkpoint", "b", "--archive", "five.flow", "--out", "five.npy", "--verify", "digits"],
    );
    assert!(said.contains("5 images restored") && said.contains("identical to the originals"), "{said}");
}

#[test]
fn a_run_of_minutes_ends_in_a_report() {
    let folder = tempfile::tempdir().unwrap();
    let said = train(folder.path(), "m", "1000000", &["--minutes", "0.02"]);
    assert!(said.starts_with("time is up at step") && said.contains("test ") && said.contains("bits/dim"), "{said}");
}

#[test]
fn eval_reports_the_mean_of_its_table_and_more_draws_tighten_the_bound() {
    let folder = tempfile::tempdir().unwrap();
    // A model close to the data: far from it every draw of the noise is as likely as any other.
    train(folder.path(), "m", "300", &[]);
    let mean = |draws: &str| -> f64 {
        let csv = format!("bits-{draws}.csv");
        let arguments = ["eval", "--checkpoint", "m", "--count", "60", "--draws", draws, "--csv", &csv];
        let said = run(folder.path(), &arguments);
        assert!(said.starts_with("test ") && said.contains("17 levels = 4.09 bits, D = 64"), "{said}");
        let text = std::fs::read_to_string(folder.path().join(&csv)).unwrap();
        let mut lines = text.lines();
        assert_eq!(lines.next(), Some("index,label,bits_per_dim"));
        let rows: Vec<Vec<f64>> = lines.map(|l| l.split(',').map(|c| c.parse().unwrap()).collect()).collect();
        assert!(rows.iter().enumerate().all(|(i, r)| r[0] == i as f64 && (0.0..10.0).contains(&r[1])));
        let mean = rows.iter().map(|r| r[2]).sum::<f64>() / rows.len() as f64;
        let reported: f64 = said.split_whitespace().nth(1).unwrap().parse().unwrap();
        assert!(rows.len() == 60 && (reported - mean).abs() < 1e-4, "{reported} {mean}");
        mean
    };
    assert!(mean("32") < mean("1"));
}

#[test]
fn latents_carry_the_same_pixels_for_every_family() {
    let folder = tempfile::tempdir().unwrap();
    let configs = [
        ("glow", r#"{"family": "glow", "levels": 2, "steps": 1, "width": 8}"#, 2),
        ("realnvp", r#"{"family": "realnvp", "scales": 2, "base_width": 4, "blocks": 1}"#, 2),
        ("nice", r#"{"family": "nice", "couplings": 2, "hidden_layers": 1, "width": 16}"#, 1),
    ];
    for (family, config, levels) in configs {
        std::fs::write(folder.path().join("config.json"), config).unwrap();
        let train = ["train", "--out", family, "--config", "config.json", "--steps", "10", "--test-images", "20"];
        run(folder.path(), &train);
        let said = run(folder.path(), &["encode", "--checkpoint", family, "--count", "70", "--out", "z.safetensors"]);
        assert!(said.contains("decoded again, 0 of 4480 values differ"), "{family}: {said}");
        let bytes = std::fs::read(folder.path().join("z.safetensors")).unwrap();
        let file = SafeTensors::deserialize(&bytes).unwrap();
        let entries: usize = (0..levels).map(|i| file.tensor(&format!("z{i}")).unwrap().data().len() / 4).sum();
        assert_eq!((entries, file.len()), (70 * 64, levels + 1), "{family}");
        let decode =
            ["decode", "--checkpoint", family, "--latents", "z.safetensors", "--images", family, "--out", "d.png"];
        assert!(run(folder.path(), &decode).starts_with("70 images in d.png"));
        let said = run(folder.path(), &["inspect", "--checkpoint", family, "--count", "16"]);
        assert!(said.lines().filter(|l| l[2..].starts_with('z')).count() == levels, "{family}: {said}");
        assert!(said.contains("layers on 16 images: "), "{said}");
    }
    // Every family gives back the same pictures: those of the data.
    let picture =
        |family: &str, i: usize| std::fs::read(folder.path().join(format!("{family}/image-{i:05}.png"))).unwrap();
    for i in [0, 69] {
        assert!(picture("glow", i) == picture("nice", i) && picture("glow", i) == picture("realnvp", i));
    }
}

#[test]
fn walks_start_and_end_at_their_images() {
    let folder = trained();
    let indices = ["--indices", "3,17,20,4", "--steps", "5", "--gif", "w.gif", "--out", "w.png"];
    let said = run(folder.path(), &[&["interpolate", "--checkpoint", "m", "--spherical"], &indices[..]].concat());
    assert_eq!(said.trim(), "2 pairs in 5 steps in w.png");
    run(folder.path(), &["encode", "--checkpoint", "m", "--out", "z.safetensors", "--count", "21"]);
    let decode = ["decode", "--checkpoint", "m", "--latents", "z.safetensors", "--out", "all.png", "--columns", "1"];
    run(folder.path(), &decode);
    let (walk, all) =
        (image::open(folder.path().join("w.png")).unwrap(), image::open(folder.path().join("all.png")).unwrap());
    for (row, column, index) in [(0, 0, 3), (0, 4, 17), (1, 0, 20), (1, 4, 4)] {
        assert_eq!(cell(&walk, [5, 2], column, row), cell(&all, [1, 21], 0, index), "row {row}, column {column}");
    }
    let gif = std::fs::read(folder.path().join("w.gif")).unwrap();
    assert!(gif.starts_with(b"GIF89a"));
}

#[test]
fn editing_along_a_saved_direction_is_editing_along_the_direction() {
    let folder = trained();
    let edit =
        |arguments: &[&str]| run(folder.path(), &[&["edit", "--checkpoint", "m", "--count", "4"], arguments].concat());
    let said = edit(&["--class-a", "8", "--class-b", "3", "--save-vector", "v.safetensors", "--out", "a.png"]);
    assert!(said.starts_with("class 8 from class 3 ("), "{said}");
    let threes = image::open(folder.path().join("a.png")).unwrap();
    assert!(threes.width() > 7 * 66 + 2 && threes.height() > 4 * 66 + 2, "no names of rows and columns");
    edit(&["--vector", "v.safetensors", "--out", "b.png", "--strength", "-3..0", "--steps", "3"]);
    run(folder.path(), &["encode", "--checkpoint", "m", "--out", "z.safetensors", "--count", "4"]);
    run(
        folder.path(),
        &["decode", "--checkpoint", "m", "--latents", "z.safetensors", "--out", "all.png", "--columns", "1"],
    );
    let (b, all) =
        (image::open(folder.path().join("b.png")).unwrap(), image::open(folder.path().join("all.png")).unwrap());
    for row in 0..4 {
        let (of_b, of_all) = (|column| cell(&b, [3, 4], column, row), cell(&all, [1, 4], 0, row));
        assert_eq!(of_b(2), of_all, "strength 0 is the image itself");
        assert_ne!(of_b(0), of_all, "strength -3 is another one");
    }
}

/// Pictures that are dark or bright all over, with a `labels.csv` that says which.
fn flat_pictures(folder: &Path) {
    std::fs::create_dir_all(folder).unwrap();
    let mut labels = String::from("file,bright\n");
    for i in 0..60u8 {
        let bright = i % 2 == 1;
        let value = if bright { 150 + i / 2 } else { 90 + i / 2 };
        let picture = GrayImage::from_fn(8, 8, |x, y| Luma([value.wrapping_add(((x * 3 + y * 5) % 7) as u8)]));
        picture.save(folder.join(format!("{i:02}.png"))).unwrap();
        labels += &format!("{i:02}.png,{}\n", u8::from(bright));
    }
    std::fs::write(folder.join("labels.csv"), labels).unwrap();
}

#[test]
fn attributes_of_a_folder_and_pictures_of_another_kind() {
    let folder = tempfile::tempdir().unwrap();
    flat_pictures(&folder.path().join("flat"));
    let noise = folder.path().join("noise");
    std::fs::create_dir(&noise).unwrap();
    for i in 0..40u32 {
        let value = |x: u32, y: u32| ((x * 7919 + y * 104_729 + i * 1_299_709).wrapping_mul(2_654_435_761) >> 24) as u8;
        GrayImage::from_fn(12, 10, |x, y| Luma([value(x, y)])).save(noise.join(format!("{i}.png"))).unwrap();
    }
    train(folder.path(), "m", "20", &["--data", "flat"]);
    let edit = ["edit", "--checkpoint", "m", "--data", "flat", "--attribute", "bright", "--out", "bright.png"];
    let said = run(folder.path(), &edit);
    assert!(said.starts_with("bright (") && said.contains("images at 7 strengths -1..1"), "{said}");
    let ood =
        ["ood", "--checkpoint", "m", "--data", "flat", "--other", "noise", "--split", "train", "--out", "ood.png"];
    let said = run(folder.path(), &ood);
    let auroc: f64 = said.strip_prefix("AUROC ").unwrap().split(';').next().unwrap().parse().unwrap();
    assert!(auroc > 0.9, "{said}");
    assert_eq!(size(&folder.path().join("ood.png")), (1200, 700));
}
