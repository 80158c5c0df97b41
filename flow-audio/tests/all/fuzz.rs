//! Damaged files: every reader returns, never panics, and takes no memory that the file does not justify.
//!
//! `FLOW_FUZZ=1000000 cargo test --release --workspace --test all fuzz` tries a million inputs for each reader.

use std::path::Path;

use flow_audio::data::open_all;
use flow_audio::{Mel, MelConfig};
use flow_core::FlowRng;
use flow_core::testing::fuzz;

use crate::support::{chunk, extensible, format, pcm16, plain, put, riff, tone};

const WORDS: [&[u8]; 10] = [
    b"fmt ",
    b"data",
    b"LIST",
    b"RIFF",
    b"WAVE",
    &[0xff; 4],
    &[0; 4],
    &[0, 0, 0, 0x80],
    &[0xfe, 0xff],
    &[0, 0, 0xc0, 0x7f],
];

/// One file of each kind.
fn wavs() -> Vec<Vec<u8>> {
    let samples: Vec<u8> = tone(60).iter().flat_map(|s| s.to_le_bytes()).collect();
    let data = || chunk(b"data", &samples);
    let floats: Vec<u8> = (0..30).flat_map(|n| (n as f32 / 31.0).to_le_bytes()).collect();
    let padded: Vec<u8> = tone(30).iter().flat_map(|&s| (i32::from(s) << 16).to_le_bytes()).collect();
    vec![
        pcm16(8000, &tone(60)),
        riff(&[format(1, 2, 44_100, 24), chunk(b"LIST", b"odd"), data()]),
        riff(&[format(1, 1, 8000, 8), data()]),
        riff(&[extensible(1, 4, 8000, 16, 16), data()]),
        riff(&[extensible(1, 1, 8000, 32, 24), chunk(b"data", &padded)]),
        riff(&[format(3, 1, 8000, 32), chunk(b"data", &floats)]),
    ]
}

fn try_all(name: &str, files: &[Vec<u8>], default: u32, read: impl Fn(&Path) -> Result<usize, String>) {
    let folder = tempfile::tempdir().unwrap();
    for file in files {
        read(&put(folder.path(), name, file))
            .unwrap_or_else(|error| panic!("{name} is not good to begin with: {error}"));
    }
    let rounds = fuzz::rounds(default);
    let mut rng = FlowRng::named(u64::from(rounds), name);
    let mut accepted = 0;
    for _ in 0..rounds {
        let bytes = fuzz::input(files, &WORDS, &mut rng);
        match read(&put(folder.path(), name, &bytes)) {
            Ok(values) => {
                assert!(values <= 4096 * bytes.len(), "{name}: {values} values of {} bytes", bytes.len());
                accepted += 1;
            }
            Err(error) => assert!(!error.contains('\n') && error.contains(name), "{name}: {error}"),
        }
    }
    assert!(accepted < rounds, "{name}: damage went unnoticed every time");
}

fn samples(path: &Path) -> Result<usize, String> {
    let set = open_all(path, &plain()).map_err(|error| error.to_string())?;
    for clip in set.iter() {
        assert!(clip.samples().iter().all(|x| (-1.0..=1.0).contains(x)), "beyond full scale");
    }
    Ok(set.samples())
}

#[test]
fn damaged_wav_files_never_panic() {
    try_all("x.wav", &wavs(), 4000, samples);
}

#[cfg(feature = "codecs")]
#[test]
fn damaged_flac_files_never_panic() {
    let good = crate::formats::flac(&crate::formats::levels(), 192);
    try_all("x.flac", &[good], 1000, samples);
}

#[test]
fn damaged_mels_never_panic() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("x.npz");
    Mel::new(MelConfig { mels: 2, ..MelConfig::speech_8k() }, 3, vec![0.5; 6]).unwrap().save(&path).unwrap();
    let good = std::fs::read(&path).unwrap();
    try_all("x.npz", &[good], 1000, |path| {
        let mel = Mel::load(path).map_err(|error| error.to_string())?;
        assert!(mel.values().iter().all(|x| x.is_finite()));
        Ok(mel.values().len())
    });
}
