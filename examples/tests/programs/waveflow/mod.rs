//! The `waveflow` program from outside: every verb, bad input, and runs that are killed.

use std::path::Path;
use std::process::{Command, Output};

use super::shared::all_refused;

/// The smallest model, for clips of 8 kHz.
const TINY: &str = r#"{"height": 8, "channels": 4, "flows": 2, "layers": 2, "mels": 64, "upsample": [16, 8]}"#;

/// The program in a folder.
fn waveflow(folder: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_waveflow"));
    command.current_dir(folder);
    command
}

/// Runs the program, which has to succeed; returns what it says on both streams.
fn says(folder: &Path, arguments: &[&str]) -> String {
    let Output { status, stdout, stderr } = waveflow(folder).args(arguments).output().unwrap();
    let said = String::from_utf8_lossy(&stdout).to_string() + &String::from_utf8_lossy(&stderr);
    assert!(status.success(), "waveflow {arguments:?}: {status}\n{said}");
    said
}

fn train<'a>(out: &'a str, steps: &'a str) -> Vec<&'a str> {
    let base =
        ["train", "--config", "tiny.json", "--segment", "1024", "--batch-size", "2", "--out", out, "--steps", steps];
    base.to_vec()
}

/// Two clips of a rising tone, 8 kHz and 16 kHz.
fn tones(folder: &Path) {
    for (name, rate) in [("low.wav", 8000), ("high.wav", 16_000)] {
        let samples: Vec<f32> = (0..6000).map(|n| 0.4 * (0.02 * n as f32 + 1e-5 * (n * n) as f32).sin()).collect();
        let path = folder.join(name);
        let _ = flow_audio::io::write_wav(&path, &samples, rate, flow_audio::io::Encoding::Pcm16).unwrap();
    }
}

#[test]
fn every_verb_works_on_what_train_leaves() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    std::fs::write(folder.join("tiny.json"), TINY).unwrap();
    tones(folder);
    let said = says(folder, &train("m", "6"));
    for part in ["120 training, 8 validation, 8 test clips at 8000 Hz", "nats/sample", "copy.wav"] {
        assert!(said.contains(part), "no `{part}` in {said}");
    }
    for file in ["copy.wav", "copy.png", "original.png", "loss.png", "log.jsonl"] {
        assert!(folder.join("m").join(file).is_file(), "{file}");
    }
    let copies = ["vocode", "--checkpoint", "m", "--data", "low.wav", "--out", "copies", "--denoise", "0.1"];
    let said = says(folder, &copies);
    assert!(said.contains("distance") && said.contains("times real time"), "{said}");
    assert!(folder.join("copies/low.wav").is_file() && folder.join("copies/low.png").is_file(), "{said}");
    let said = says(folder, &["eval", "--checkpoint", "m", "--segments", "4", "--copies", "2"]);
    assert!(said.contains("nats/sample over 4 of") && said.contains("Griffin-Lim"), "{said}");
    assert!(said.contains("PESQ (narrow)"), "{said}");
    assert!(
        says(folder, &["mel", "--checkpoint", "m", "--data", "low.wav", "--out", "mels"]).contains("1 spectrograms")
    );
    let synthesis = ["synthesize", "mels/low.npz", "--checkpoint", "m", "--out", "one.wav"];
    assert!(says(folder, &synthesis).contains("47 frames, 6016 samples at 8000 Hz"));
    // In pieces: the whole as one chunk is the whole, and many chunks are near it.
    let pieces = |more: &[&str]| says(folder, &[&synthesis[..4], &["--out", "pieces.wav"], more].concat());
    let said = pieces(&["--chunk", "47", "--compare"]);
    assert!(said.contains("inf dB"), "{said}");
    assert_eq!(std::fs::read(folder.join("pieces.wav")).unwrap(), std::fs::read(folder.join("one.wav")).unwrap());
    assert!(pieces(&["--chunk", "8", "--overlap", "4", "--compare"]).contains("dB of signal to noise"));
    let said = says(folder, &["score", "--checkpoint", "m", "--data", "low.wav", "--out", "scores"]);
    assert!(said.contains("nats/sample") && folder.join("scores/low.png").is_file(), "{said}");
    assert_eq!(std::fs::read_to_string(folder.join("scores/likelihood.csv")).unwrap().lines().count(), 1 + 46);
    assert!(says(folder, &["info", "--checkpoint", "m"]).contains("64 bands of 0 to 4000 Hz at 8000 Hz"));
    assert!(says(folder, &["info", "--presets"]).contains("waveflow-h16-c64"));
    // Clips of one name in two folders stay apart.
    std::fs::create_dir_all(folder.join("both/a")).unwrap();
    for name in ["both/a/x.wav", "both/a_x.wav"] {
        std::fs::copy(folder.join("low.wav"), folder.join(name)).unwrap();
    }
    says(folder, &["mel", "--checkpoint", "m", "--data", "both", "--out", "apart"]);
    assert!(folder.join("apart/a_x.npz").is_file() && folder.join("apart/a_x-2.npz").is_file());
    // The parts of other clips are named as that.
    for name in ["both/b.wav", "both/c.wav"] {
        std::fs::copy(folder.join("low.wav"), folder.join(name)).unwrap();
    }
    let eval = ["eval", "--checkpoint", "m", "--segments", "1", "--copies", "0"];
    assert!(!says(folder, &eval).contains("the run's own data"));
    let said = says(folder, &[&eval[..], &["--data", "both", "--split", "train"]].concat());
    assert!(said.contains(super::shared::OTHER_DATA), "{said}");
    let cases: [(&[&str], &str); 12] = [
        (&["vocode", "--checkpoint", "m", "--data", "high.wav", "--out", "new"], "--resample"),
        (&["vocode", "--checkpoint", "m", "--data", "tiny.json", "--out", "new"], "tiny.json"),
        (
            &["synthesize", "mels/low.npz", "--checkpoint", "m", "--convention", "hifi-gan", "--out", "x.wav"],
            "hifi-gan",
        ),
        (&["eval", "--checkpoint", "none"], "train"),
        (&["synthesize", "mels/low.npz", "--checkpoint", "m", "--stream", "4", "--out", "x.wav"], "causal_width"),
        (&["synthesize", "mels/low.npz", "--checkpoint", "m", "--overlap", "4", "--out", "x.wav"], "--overlap"),
        (&["synthesize", "mels/low.npz", "--checkpoint", "m", "--compare", "--out", "x.wav"], "--compare"),
        (&["train", "--mel", "other", "--out", "new"], "--mel other"),
        (&["train", "--resample", "--out", "new"], "--resample"),
        (&["mel", "--checkpoint", "m", "--raw-weights", "--out", "new"], "--raw-weights"),
        (&["eval", "--checkpoint", "m", "--copies", "0", "--seed", "1"], "--seed"),
        (&["train", "--data", "low.wav", "--out", "new"], "low.wav"),
    ];
    all_refused(waveflow, folder, &cases);
    assert!(
        says(folder, &["vocode", "--checkpoint", "m", "--data", "high.wav", "--resample", "--out", "new"])
            .contains("distance")
    );
}

/// A model of what prediction leaves, through the same verbs; its stream is still the whole.
#[test]
fn a_prediction_works_as_well() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    std::fs::write(folder.join("tiny.json"), TINY.replace('}', r#", "causal_width": true}"#)).unwrap();
    tones(folder);
    let predicting = |steps| [&train("m", steps)[..], &["--prediction", "40"]].concat();
    let said = says(folder, &predicting("4"));
    assert!(said.contains("on the errors of prediction from 40 samples"), "{said}");
    says(folder, &[&predicting("6")[..], &["--resume"]].concat());
    assert!(says(folder, &["info", "--checkpoint", "m"]).contains("prediction from 40 samples"));
    // Better than the same steps without it by what is known from the start.
    let nats = |folder: &Path, run: &str| -> f64 {
        let said = says(folder, &["eval", "--checkpoint", run, "--segments", "8", "--copies", "0"]);
        said.split("log-likelihood ").nth(1).unwrap().split(' ').next().unwrap().parse().unwrap()
    };
    says(folder, &train("plain", "6"));
    assert!(nats(folder, "m") > nats(folder, "plain") + 1.0);
    says(folder, &["vocode", "--checkpoint", "m", "--data", "low.wav", "--out", "copies"]);
    says(folder, &["score", "--checkpoint", "m", "--data", "low.wav", "--out", "scores"]);
    says(folder, &["mel", "--checkpoint", "m", "--data", "low.wav", "--out", "mels"]);
    let synthesis =
        ["synthesize", "mels/low.npz", "--checkpoint", "m", "--out", "one.wav", "--stream", "3", "--compare"];
    let said = says(folder, &synthesis);
    let decibels = said.split(" dB of signal").next().unwrap().rsplit(' ').next().unwrap();
    assert!(decibels == "inf" || decibels.parse::<f64>().unwrap() > 90.0, "{said}");
    let other = [&train("m", "8")[..], &["--resume", "--prediction", "41"]].concat();
    let far = [&train("new", "2")[..], &["--prediction", "257"]].concat();
    all_refused(waveflow, folder, &[(&other, "prediction"), (&far, "from 1 to 256 samples")]);
}

/// WaveGlow through the same verbs; what it cannot do is refused by its name.
#[test]
fn a_waveglow_works_as_well() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let glow = r#"{"family": "waveglow", "channels": 4, "flows": 3, "layers": 2, "early_every": 2, "mels": 64, "hop": 128, "reach": 2}"#;
    std::fs::write(folder.join("tiny.json"), glow).unwrap();
    tones(folder);
    assert!(says(folder, &train("m", "4")).contains("WaveGlow, groups of 8, 3 flows of 2 layers"));
    assert!(says(folder, &["info", "--checkpoint", "m"]).contains("WaveGlow, groups of 8"));
    let said = says(folder, &["info", "--presets"]);
    assert!(said.contains("waveglow-c64") && said.contains("87879272"), "{said}");
    let copies = ["vocode", "--checkpoint", "m", "--data", "low.wav", "--out", "copies", "--denoise", "0.1"];
    assert!(says(folder, &copies).contains("distance"));
    says(folder, &["score", "--checkpoint", "m", "--data", "low.wav", "--out", "scores"]);
    assert_eq!(std::fs::read_to_string(folder.join("scores/likelihood.csv")).unwrap().lines().count(), 1 + 46);
    says(folder, &["mel", "--checkpoint", "m", "--data", "low.wav", "--out", "mels"]);
    let synthesis = ["synthesize", "mels/low.npz", "--checkpoint", "m", "--out", "one.wav"];
    let pieces = says(folder, &[&synthesis[..], &["--chunk", "8", "--overlap", "4", "--compare"]].concat());
    assert!(pieces.contains("dB of signal to noise") && pieces.contains("6016 samples"), "{pieces}");
    let cases: [(&[&str], &str); 2] = [
        (&["synthesize", "mels/low.npz", "--checkpoint", "m", "--stream", "4", "--out", "x.wav"], "WaveGlow"),
        (&["train", "--config", "tiny.json", "--segment", "100", "--out", "new"], "segments"),
    ];
    all_refused(waveflow, folder, &cases);
    says(folder, &["train", "--resume", "--steps", "6", "--out", "m"]);
}

/// A model that is causal in time makes the same waveform in a stream of any pieces.
#[test]
fn a_stream_is_the_whole() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    std::fs::write(folder.join("tiny.json"), TINY.replace('{', "{\"causal_width\": true, ")).unwrap();
    tones(folder);
    says(folder, &train("m", "4"));
    says(folder, &["mel", "--checkpoint", "m", "--data", "low.wav", "--out", "mels"]);
    for piece in ["1", "5", "47"] {
        let said = says(
            folder,
            &["synthesize", "mels/low.npz", "--checkpoint", "m", "--out", "x.wav", "--stream", piece, "--compare"],
        );
        let decibels = said.split(" dB of signal").next().and_then(|s| s.rsplit(' ').next()).unwrap();
        assert!(decibels.parse::<f64>().unwrap() > 80.0, "{said}");
        assert!(said.contains("KiB kept"), "{said}");
    }
}

#[test]
fn killed_runs_end_in_the_bits_of_an_undisturbed_one() {
    let model = tempfile::tempdir().unwrap();
    let config = model.path().join("tiny.json");
    std::fs::write(&config, TINY).unwrap();
    crate::shared::killed_runs_end_in_the_same_bits(40, |folder, out, steps| {
        let mut command = waveflow(folder);
        command.args(["train", "--config"]).arg(&config).args(["--segment", "1024", "--batch-size", "2", "--out", out]);
        command.args(["--steps", steps, "--checkpoint-every", "10", "--validate-every", "1000", "--ema", "0.9"]);
        command
    });
}
