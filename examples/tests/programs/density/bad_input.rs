//! Bad arguments and bad files: exit code 2, one line that says what was expected, and nothing left behind.

use super::{TINY, density, run};
use crate::shared::{all_refused, refused};

#[test]
fn data_that_cannot_be_read() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let constant: String = (0..20).map(|i| format!("{i},1\n")).collect();
    let wide = format!("{}\n", vec!["1"; 64].join(",")).repeat(20);
    let files: [(&str, &[u8]); 8] = [
        ("empty.csv", b""),
        ("short.csv", b"1,2\n3,4\n"),
        ("ragged.csv", b"1,2\n3\n"),
        ("words.csv", b"1,2\n3,four\n"),
        ("noise.npy", &[0xff, 0xfe, 0, 1, 2, 3]),
        ("noise.csv", &[0xff, 0xfe, 0, 1, 2, 3]),
        ("constant.csv", constant.as_bytes()),
        ("wide.csv", wide.as_bytes()),
    ];
    files.iter().for_each(|(name, bytes)| std::fs::write(folder.join(name), bytes).unwrap());
    std::fs::create_dir(folder.join("folder.csv")).unwrap();
    all_refused(
        density,
        folder,
        &[
            (&["train", "--data", "nowhere.npy"], "nowhere.npy"),
            (&["train", "--data", "folder.csv"], "folder.csv"),
            (&["train", "--data", "9gaussians"], "8gaussians, checkerboard"),
            (&["train", "--data", "table.pdf"], "one of .csv, .tsv"),
            (&["train", "--data", "empty.csv"], "empty.csv: no row of numbers"),
            (&["train", "--data", "short.csv"], "short.csv: 2 rows"),
            (&["train", "--data", "ragged.csv"], "ragged.csv: line 2"),
            (&["train", "--data", "words.csv"], "words.csv: line 2, column 2: 'four', expected a number"),
            (&["train", "--data", "noise.npy"], "noise.npy: not an NPY file"),
            (&["train", "--data", "noise.csv"], "noise.csv: byte 0"),
            (&["train", "--data", "constant.csv"], "constant.csv: column 2"),
            (&["train", "--data", "wide.csv"], "wide.csv: 64 columns"),
        ],
    );
}

#[test]
fn arguments_that_make_no_sense() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let train = ["train", "--model", "realnvp", "--steps", "2", "--out", "run", "--test-points", "10"];
    run(folder, &[&train[..], &TINY].concat());
    let rows: String = (0..40).map(|i| format!("{i}\n")).collect();
    std::fs::write(folder.join("one.csv"), rows.as_bytes()).unwrap();
    std::fs::write(folder.join("file"), "").unwrap();
    std::fs::create_dir(folder.join("folder")).unwrap();
    all_refused(
        density,
        folder,
        &[
            (&["train", "--out", "run"], "holds a run already"),
            (&["train", "--out", "file"], "file"),
            (&["train", "--out", "new", "--resume"], "holds no checkpoint"),
            (&[&train[..], &TINY[..4], &["--batch-size", "33", "--resume"]].concat(), "batch: checkpoint 32, asked 33"),
            (&["train", "--out", "new", "--batch-size", "0"], "--batch-size"),
            (&["train", "--out", "new", "--data", "one.csv", "--model", "maf", "--batch-size", "100"], "batch size"),
            (&["train", "--out", "new", "--steps", "0"], "steps"),
            (&["train", "--out", "new", "--minutes", "0"], "--minutes"),
            (&["train", "--out", "new", "--layers", "0"], "--layers"),
            (&["train", "--out", "new", "--hidden", "8,0"], "hidden"),
            (&["train", "--out", "new", "--model", "planar", "--hidden", "8"], "--layers"),
            (&["train", "--out", "new", "--bins", "0"], "bin"),
            (&["train", "--out", "new", "--model", "maf", "--bins", "8"], "--bins is for"),
            (&["train", "--out", "new", "--model", "maf", "--input-gain", "8"], "--input-gain is for"),
            (&["train", "--out", "new", "--model", "ffjord", "--input-gain", "0"], "--input-gain must be"),
            (&["train", "--out", "new", "--model", "ffjord", "--layers", "3"], "--layers is for"),
            (&["train", "--out", "new", "--model", "ffjord", "--tolerance", "0"], "--tolerance must"),
            (&["train", "--out", "new", "--tolerance", "0.1"], "--tolerance is for"),
            (&["train", "--out", "new", "--block", "9"], "--block is for"),
            (&["train", "--out", "new", "--learning-rate", "NaN"], "learning_rate"),
            (&["train", "--out", "new", "--ema", "1"], "ema.decay"),
            (&["train", "--out", "new", "--test-points", "0"], "--test-points"),
            (&["train", "--out", "new", "--device", "abacus"], "expected cpu"),
            (&["sample", "--checkpoint", "nowhere"], "nowhere"),
            (&["sample", "--checkpoint", "folder"], "holds no checkpoint"),
            (&["sample", "--checkpoint", "run", "--count", "0"], "--count"),
            (&["sample", "--checkpoint", "run", "--temperature", "NaN"], "--temperature"),
            (&["sample", "--checkpoint", "run", "--out", "folder"], "folder"),
            (&["sample", "--checkpoint", "run", "--steps", "3"], "--steps is for continuous flows"),
            (&["straighten", "--checkpoint", "run", "--out", "new"], "straightening is for continuous flows"),
            (&["eval", "--checkpoint", "run", "--points", "0"], "--points"),
            (&["eval", "--checkpoint", "run", "--json", "folder"], "expected the name of a file"),
            (&["eval", "--checkpoint", "run", "--data", "one.csv"], "one.csv: 1 column, the model was trained on 2"),
        ],
    );
}

/// A flag that nothing would read is named, with the reason and what to do instead.
#[test]
fn flags_that_do_not_apply() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let rows: String = (0..40).map(|i| format!("{},{},{}\n", i, i % 7, i % 5)).collect();
    std::fs::write(folder.join("three.csv"), rows.as_bytes()).unwrap();
    // No number is there twice.
    let rows: String = (1..41).map(|i| format!("{},{}\n", f64::from(i).sqrt(), f64::from(i).ln())).collect();
    std::fs::write(folder.join("flat.csv"), rows.as_bytes()).unwrap();
    let train = ["train", "--model", "maf", "--steps", "2", "--test-points", "10", "--out"];
    run(folder, &[&train[..], &["run"], &TINY[..]].concat());
    run(folder, &[&train[..], &["table", "--data", "flat.csv"], &TINY[..]].concat());
    all_refused(
        density,
        folder,
        &[
            (&["train", "--preview-every", "5"], "--preview-every: a density draws its pictures at the end"),
            (
                &["train", "--data", "three.csv", "--pixels", "99"],
                "--pixels: for data of the plane without classes, these have 3 columns",
            ),
            (&["train", "--schedule", "linear", "--cosine"], "got Linear and Cosine"),
            (&["train", "--clip=-1"], "clip_norm"),
            (&["straighten", "--checkpoint", "run", "--preview-every", "5"], "--preview-every: straightening draws"),
            (&["eval", "--checkpoint", "run", "--pixels", "99"], "--pixels: for the pictures of --pictures FOLDER"),
            (&["info", "--presets", "--checkpoint", "run", "--raw-weights"], "--checkpoint, --raw-weights: --presets"),
            (&["train", "--data", "moons", "--columns", "1"], "--columns: for tables, a toy has no columns"),
            (&["train", "--data", "moons", "--missing", "drop"], "--missing: for tables"),
            (&["train", "--data", "moons", "--dequantize"], "is for tables"),
            (&["eval", "--checkpoint", "run", "--split", "all"], "--split: for tables"),
            (
                &["eval", "--checkpoint", "table", "--seed", "3"],
                "--seed: for points of a toy, columns of steps and pictures",
            ),
            (&["eval", "--checkpoint", "run", "--columns", "1"], "--columns: for another table"),
            (
                &["eval", "--checkpoint", "run", "--data", "three.csv"],
                "three.csv: 3 columns, the model was trained on 2",
            ),
        ],
    );
}

/// Tables that are something else than they seem: each is named with what to do.
#[test]
fn tables_that_would_be_read_wrongly() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let rows = |row: &dyn Fn(usize) -> String| -> String { (0..40).map(row).collect() };
    let files = [
        ("thousands.csv", "price,b\n".to_string() + &rows(&|i| format!("\"{},534\",{i}\n", 10 + i))),
        ("decimal.csv", "a;b\n".to_string() + &rows(&|i| format!("1,{i};2,{i}\n"))),
        ("iris.csv", "length,width,species\n".to_string() + &rows(&|i| format!("{i}.5,{},setosa\n", i % 7))),
        ("index.csv", ",a,b\n".to_string() + &rows(&|i| format!("{i},{},{}\n", i % 7, i % 5))),
        ("missing.csv", "a,b\n".to_string() + &rows(&|i| format!("{i},{}\n", if i == 3 { "NA" } else { "1.5" }))),
        ("real.csv", "a,b\n".to_string() + &rows(&|i| format!("{},{}\n", (i as f64).sqrt(), i % 4))),
    ];
    files.iter().for_each(|(name, text)| std::fs::write(folder.join(name), text).unwrap());
    all_refused(
        density,
        folder,
        &[
            (&["train", "--data", "thousands.csv"], "thousands.csv: line 2, column 1: '10,534' under the name 'price'"),
            (&["train", "--data", "decimal.csv"], "write 1.5, not 1,5"),
            (&["train", "--data", "iris.csv"], "--columns length,width"),
            (&["train", "--data", "iris.csv", "--columns", "length,depth"], "no column 'depth'"),
            (&["train", "--data", "iris.csv", "--array", "x"], "--array x; leave it out"),
            (&["train", "--data", "index.csv"], "--columns a,b"),
            (
                &["train", "--data", "missing.csv"],
                "1 of 40 rows lacks a value (column 2 ('b'): 1, first in line 5, 'NA')",
            ),
            (&["train", "--data", "real.csv", "--dequantize=a"], "equal distances"),
            (&["train", "--data", "real.csv", "--dequantize=c"], "--dequantize: no column 'c'"),
        ],
    );
}

#[test]
fn what_the_parser_refuses() {
    let folder = tempfile::tempdir().unwrap();
    for (arguments, expected) in [
        (&["train", "--model", "diffusion"][..], "realnvp"),
        (&["train", "--steps", "many"], "many"),
        (&["train", "--hidden", "wide"], "wide"),
        (&["train", "--pixels", "1"], "16..=4096"),
        (&["sample", "--count", "-1"], "-1"),
        (&["dance"], "dance"),
    ] {
        let mut command = density(folder.path());
        command.args(arguments);
        let message = refused(command, folder.path());
        assert!(message.starts_with("error: ") && message.contains(expected), "{arguments:?}: {message}");
    }
}
