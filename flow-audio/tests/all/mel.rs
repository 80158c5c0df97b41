//! Mel spectrograms against those of librosa.

use std::path::Path;

use flow_audio::MelConfig;
use flow_audio::mel::MelBasis;

use crate::support::file;

/// The floats of a `.npy` file of two axes, read without this crate's own reader.
fn golden(path: &Path) -> (String, Vec<f64>) {
    let bytes = std::fs::read(path).unwrap();
    let length = usize::from(u16::from_le_bytes([bytes[8], bytes[9]]));
    let header = String::from_utf8(bytes[10..10 + length].to_vec()).unwrap();
    let data = &bytes[10 + length..];
    let values = match header.contains("<f8") {
        true => data.chunks_exact(8).map(|b| f64::from_le_bytes(b.try_into().unwrap())).collect(),
        false => data.chunks_exact(4).map(|b| f64::from(f32::from_le_bytes(b.try_into().unwrap()))).collect(),
    };
    (header, values)
}

#[test]
fn the_basis_is_that_of_librosa() {
    let Some(path) = file("fixtures/mel_basis_22050_1024_80_0_8000.npy") else { return };
    let (header, wanted) = golden(&path);
    assert!(header.contains("(80, 513)"), "{header}");
    let ours = MelBasis::new(&MelConfig::tacotron2()).matrix();
    assert_eq!(ours.len(), wanted.len());
    let worst = ours.iter().zip(&wanted).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max);
    assert!(worst < 1e-8, "{worst:e}");
}

#[cfg(feature = "codecs")]
#[test]
fn the_spectrogram_is_that_of_librosa() {
    use flow_audio::{Convention, Mel};
    let (Some(path), Some(clip)) = (file("fixtures/logmel_tacotron2.npy"), file("audio/LJ001-0001.flac")) else {
        return;
    };
    let clip = crate::support::only(&clip);
    let ours = MelConfig::tacotron2().spectrogram(clip.samples()).unwrap();
    let wanted = Mel::load_as(&path, &MelConfig::tacotron2()).unwrap();
    assert_eq!((ours.frames(), wanted.frames()), (832, 832));
    let pairs = ours.values().iter().zip(wanted.values());
    let worst = pairs.map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
    assert!(worst < 1e-4, "{worst:e}");
    println!("largest difference from librosa: {worst:e}");
    let other = MelConfig::tacotron2().with_convention(Convention::HifiGan).spectrogram(clip.samples()).unwrap();
    let wanted = wanted.cut(0, other.frames()).unwrap();
    let pairs = other.values().iter().zip(wanted.values());
    assert!(pairs.map(|(a, b)| (a - b).abs()).fold(0.0, f32::max) > 1.0, "the conventions are told apart");
}
