//! Checkpoints of all programs as version 0.1.0 wrote them before the engine's tasks became typed: they load, draw what
//! they drew then, and a run goes on to the weights that it reached then.
use std::path::{Path, PathBuf};
use std::process::Command;

use candle_core::{Device, Tensor};

/// A folder of kept checkpoints, each with what the program that wrote it drew from it.
fn written(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/programs/checkpoints/written").join(name)
}

fn run(program: &str, arguments: &[&str]) {
    let output = Command::new(program).args(arguments).output().unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{program} {arguments:?}: {stderr}");
}

/// Draws from a kept checkpoint into a file of a fresh folder.
fn draw(program: &str, name: &str, file: &str, more: &[&str]) -> (Vec<u8>, Vec<u8>) {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join(file);
    let checkpoint = written(name);
    let tail = ["--checkpoint", checkpoint.to_str().unwrap(), "--seed", "5", "--out", out.to_str().unwrap()];
    run(program, &[&["sample"], &tail[..], more].concat());
    (std::fs::read(out).unwrap(), std::fs::read(checkpoint.join(file)).unwrap())
}

/// Numbers agree to the last digits that another processor's vector width may change.
fn assert_close(name: &str, a: &[f64], b: &[f64]) {
    assert_eq!(a.len(), b.len(), "{name}");
    for (x, y) in a.iter().zip(b) {
        assert!((x - y).abs() <= 1e-4 * (1.0 + y.abs()), "{name}: {x}, was {y}");
    }
}

#[test]
fn images() {
    for family in ["glow", "realnvp", "nice"] {
        let (now, then) = draw(env!("CARGO_BIN_EXE_glow"), family, "sample.png", &["--count", "6", "--columns", "3"]);
        let [now, then] = [now, then].map(|bytes| image::load_from_memory(&bytes).unwrap().to_rgb8());
        // The sheets of then had no names of rows and columns.
        let (left, top) = (now.width() - then.width(), now.height() - then.height());
        let sheet = image::imageops::crop_imm(&now, left, top, then.width(), then.height()).to_image();
        assert!(sheet == then, "{family}");
    }
}

#[test]
fn an_archive_is_restored_and_written_again_byte_for_byte() {
    let folder = tempfile::tempdir().unwrap();
    let (codec, archive) = (written("idf"), written("idf").join("digits.flow"));
    let path = |name: &str| folder.path().join(name).to_str().unwrap().to_string();
    let checkpoint = ["--checkpoint", codec.to_str().unwrap()];
    let decompress =
        ["decompress", "--archive", archive.to_str().unwrap(), "--out", &path("a.npy"), "--verify", "digits"];
    let test = ["--split", "test"];
    run(env!("CARGO_BIN_EXE_glow"), &[&decompress[..], &checkpoint, &test].concat());
    let compress = ["compress", "--data", "digits", "--count", "20", "--out", &path("b.flow")];
    run(env!("CARGO_BIN_EXE_glow"), &[&compress[..], &checkpoint, &test].concat());
    assert!(std::fs::read(path("b.flow")).unwrap() == std::fs::read(archive).unwrap());
}

#[test]
fn molecules() {
    for model in ["graphaf-spline", "graphaf-paper"] {
        let more = ["--count", "20", "--max-atoms", "12"];
        let (now, then) = draw(env!("CARGO_BIN_EXE_graphaf"), model, "sample.smi", &more);
        assert_eq!(String::from_utf8(now).unwrap(), String::from_utf8(then).unwrap(), "{model}");
    }
}

#[test]
fn clouds() {
    for model in ["pointflow-matching", "pointflow-paper"] {
        let more = ["--count", "2", "--points", "16"];
        let (now, then) = draw(env!("CARGO_BIN_EXE_pointflow"), model, "sample.npy", &more);
        let numbers = |bytes: &[u8]| -> Vec<f64> {
            bytes[bytes.len() - 2 * 16 * 3 * 4..]
                .chunks(4)
                .map(|b| f32::from_le_bytes(b.try_into().unwrap()).into())
                .collect()
        };
        assert_eq!(now.len(), then.len());
        assert_close(model, &numbers(&now), &numbers(&then));
    }
}

#[test]
fn densities() {
    for kind in ["realnvp", "maf", "spline", "planar", "ffjord", "matching"] {
        let name = format!("density-{kind}");
        let (now, then) = draw(env!("CARGO_BIN_EXE_density"), &name, "sample.csv", &["--count", "20"]);
        let numbers = |bytes: Vec<u8>| -> Vec<f64> {
            let text = String::from_utf8(bytes).unwrap();
            text.split([',', '\n']).filter_map(|cell| cell.parse().ok()).collect()
        };
        let (now, then) = (numbers(now), numbers(then));
        assert_eq!(then.len(), 40);
        assert_close(&name, &now, &then);
    }
}

/// The weights are of a later version than the checkpoint: since each row of a batch has a stream of its own, the noise of
/// dequantization is another.
#[test]
fn a_run_goes_on_to_the_weights_that_it_reached_then() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path().join("run/checkpoints/step-00000003");
    std::fs::create_dir_all(&at).unwrap();
    for entry in std::fs::read_dir(written("glow-run/checkpoints/step-00000003")).unwrap() {
        let path = entry.unwrap().path();
        std::fs::copy(&path, at.join(path.file_name().unwrap())).unwrap();
    }
    let out = folder.path().join("run");
    let same = "--levels 2 --steps-per-level 2 --width 8 --steps 6 --checkpoint-every 3 --validate-every 3 --seed 3";
    let more = ["train", "--resume", "--test-images", "20", "--out", out.to_str().unwrap()];
    run(env!("CARGO_BIN_EXE_glow"), &more.into_iter().chain(same.split(' ')).collect::<Vec<_>>());
    let tensors = |path: PathBuf| candle_core::safetensors::load(path, &Device::Cpu).unwrap();
    let now = tensors(out.join("checkpoints/step-00000006/model.safetensors"));
    let then = tensors(written("glow-run").join("final.safetensors"));
    assert_eq!(now.len(), then.len());
    let values = |t: &Tensor| -> Vec<f64> {
        t.flatten_all().unwrap().to_vec1::<f32>().unwrap().into_iter().map(f64::from).collect()
    };
    for (name, tensor) in &then {
        assert_close(name, &values(&now[name]), &values(tensor));
    }
}

/// Packed in full precision a model draws to the byte what it drew; in half precision it has half the bytes and nearly the
/// same likelihood, and no run goes on from it.
#[test]
fn a_packed_model_is_the_model() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).to_str().unwrap().to_string();
    let glow = env!("CARGO_BIN_EXE_glow");
    let from = written("glow");
    let (mut pictures, mut bits) = (Vec::new(), Vec::new());
    for weights in ["f32", "bf16", "f16"] {
        let packed = path(weights);
        run(glow, &["pack", "--checkpoint", from.to_str().unwrap(), "--weights", weights, "--out", &packed]);
        let picture = path(&format!("{weights}.png"));
        run(glow, &["sample", "--checkpoint", &packed, "--seed", "5", "--count", "6", "--out", &picture]);
        pictures.push(std::fs::read(picture).unwrap());
        let csv = path(&format!("{weights}.csv"));
        run(glow, &["eval", "--checkpoint", &packed, "--data", "digits", "--count", "40", "--csv", &csv]);
        let table = std::fs::read_to_string(csv).unwrap();
        let each: Vec<f64> = table.lines().filter_map(|row| row.rsplit(',').next()?.parse().ok()).collect();
        assert_eq!(each.len(), 40);
        bits.push(each.iter().sum::<f64>() / 40.0);
    }
    let picture = path("unpacked.png");
    run(glow, &["sample", "--checkpoint", from.to_str().unwrap(), "--seed", "5", "--count", "6", "--out", &picture]);
    assert!(pictures[0] == std::fs::read(picture).unwrap());
    assert!((bits[1] - bits[0]).abs() < 0.05 && (bits[2] - bits[0]).abs() < 0.01, "{bits:?}");
    let size = |weights: &str| std::fs::metadata(folder.path().join(weights).join("model.safetensors")).unwrap().len();
    // Of 4,693 numbers; the rest is their names.
    assert!(size("bf16") + 2 * 4600 < size("f32") && size("f16") <= size("bf16"));

    for program in [env!("CARGO_BIN_EXE_density"), env!("CARGO_BIN_EXE_pointflow"), env!("CARGO_BIN_EXE_graphaf")] {
        let (name, out) = match Path::new(program).file_name().and_then(|name| name.to_str()).unwrap_or_default() {
            name if name.starts_with("density") => ("density-spline", path("density")),
            name if name.starts_with("pointflow") => ("pointflow-matching", path("pointflow")),
            _ => ("graphaf-spline", path("graphaf")),
        };
        run(program, &["pack", "--checkpoint", written(name).to_str().unwrap(), "--out", &out]);
        run(program, &["info", "--checkpoint", &out]);
    }
    let refused =
        Command::new(glow).args(["pack", "--checkpoint", &path("f32"), "--out", &path("f32")]).output().unwrap();
    assert!(!refused.status.success());
    assert!(String::from_utf8_lossy(&refused.stderr).contains("is the checkpoint itself"));
}
