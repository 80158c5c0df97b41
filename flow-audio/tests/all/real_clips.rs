//! Real recordings, where there are some.

use crate::support::file;

#[cfg(feature = "codecs")]
#[test]
fn ljspeech_clips_have_the_lengths_that_others_count() {
    let Some(path) = file("audio/LJ001-0001.flac") else { return };
    let clip = crate::support::only(&path);
    assert_eq!((clip.rate(), clip.bits(), clip.len()), (22_050, 16, 212_893));
    let folder = tempfile::tempdir().unwrap();
    for name in ["LJ001-0001.flac", "LJ001-0002.flac"] {
        std::fs::copy(path.with_file_name(name), folder.path().join(name)).unwrap();
    }
    let set = crate::support::all(folder.path());
    assert_eq!((set.len(), set.rate()), (2, 22_050));
    // Griffin and Lim's waveform of the recording's spectrogram is near it in its spectrum.
    use flow_audio::{MelConfig, mel::griffin_lim, metrics};
    let config = MelConfig::hifi_gan();
    let samples = &clip.samples()[..22_016];
    let mel = config.spectrogram(samples).unwrap();
    let made = griffin_lim(&mel, 30, &mut flow_core::FlowRng::seed_from(1)).unwrap();
    let distance = metrics::multi_resolution_stft(samples, &made).unwrap();
    assert!(distance.spectral_convergence < 0.6, "{distance:?}");
    let distortion = metrics::mel_cepstral_distortion(&mel, &config.spectrogram(&made).unwrap()).unwrap();
    assert!(distortion < 7.0, "{distortion} dB");
}

#[test]
fn spoken_digits_are_of_one_rate() {
    let Some(path) = file("audio/fsdd") else { return };
    match flow_audio::data::open_all(&path, &crate::support::plain()) {
        Ok(set) => assert_eq!((set.rate(), set.samples() > 10_000), (8000, true)),
        Err(error) => panic!("{error}"),
    }
}
