//! What is written is read again, and every kind of WAV file is read for what it is.

use flow_audio::io::{Encoding, write_wav};

use crate::support::{all, chunk, extensible, format, only, pcm16, put, riff, tone};

#[test]
fn integers_come_back_to_the_bit() {
    let folder = tempfile::tempdir().unwrap();
    let levels: Vec<i16> = (i16::MIN..=i16::MAX).step_by(7).chain([i16::MAX]).collect();
    let path = put(folder.path(), "a.wav", &pcm16(22_050, &levels));
    let clip = only(&path);
    assert_eq!((clip.rate(), clip.bits(), clip.len(), clip.name()), (22_050, 16, levels.len(), "a.wav"));
    let wanted: Vec<f32> = levels.iter().map(|&s| f32::from(s) / 32_768.0).collect();
    assert_eq!(clip.samples(), wanted);
    let again = folder.path().join("b.wav");
    let written = write_wav(&again, clip.samples(), 22_050, Encoding::Pcm16).unwrap();
    assert_eq!((written.samples, written.clipped, written.note()), (levels.len(), 0, None));
    assert_eq!(only(&again).samples(), wanted);
}

#[test]
fn floats_come_back_and_what_is_beyond_is_clipped_and_counted() {
    let folder = tempfile::tempdir().unwrap();
    let mut samples: Vec<f32> = (0..999).map(|n| (n as f32 * 0.01).sin() * 0.99).collect();
    let path = folder.path().join("a.wav");
    assert_eq!(write_wav(&path, &samples, 8000, Encoding::Float32).unwrap().clipped, 0);
    let clip = only(&path);
    assert_eq!((clip.samples(), clip.bits()), (&samples[..], 24));
    samples[5] = 1.5;
    samples[6] = -7.0;
    samples[7] = 1.0;
    for encoding in [Encoding::Float32, Encoding::Pcm16] {
        let written = write_wav(&path, &samples, 8000, encoding).unwrap();
        assert!(written.clipped == 2 && written.note().unwrap().contains("2 of 999"));
        let clip = only(&path);
        assert!((clip.samples()[5] - 1.0).abs() < 1e-4 && clip.samples()[6] == -1.0);
    }
    for (bad, expected) in [(vec![0.0, f32::NAN], "sample 1 is not finite"), (vec![], "has samples")] {
        let before = std::fs::read(&path).unwrap();
        let error = write_wav(&path, &bad, 8000, Encoding::Pcm16).unwrap_err().to_string();
        assert!(error.contains(expected) && error.contains("a.wav"), "{error}");
        assert_eq!(std::fs::read(&path).unwrap(), before);
    }
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
}

/// Each depth holds a quarter of full scale, its negative, and the two ends.
#[test]
fn every_depth_is_a_fraction_of_full_scale() {
    let folder = tempfile::tempdir().unwrap();
    let wanted = [0.25f32, -0.25, -1.0, 0.5];
    let le = |value: i64, bytes: usize| value.to_le_bytes()[..bytes].to_vec();
    let data = |bits: u32| -> Vec<u8> {
        let of = |x: &f32| le((f64::from(*x) * 2f64.powi(bits as i32 - 1)) as i64, bits as usize / 8);
        wanted.iter().flat_map(of).collect()
    };
    let eight: Vec<u8> = data(8).iter().map(|&b| b.wrapping_add(128)).collect();
    for (name, header, data, bits) in [
        ("8", format(1, 1, 8000, 8), eight, 8),
        ("16", format(1, 1, 8000, 16), data(16), 16),
        ("24", format(1, 1, 8000, 24), data(24), 24),
        ("32", format(1, 1, 8000, 32), data(32), 24),
        ("16x", extensible(1, 1, 8000, 16, 16), data(16), 16),
        ("24x", extensible(1, 1, 8000, 24, 24), data(24), 24),
        ("24 of 32", extensible(1, 1, 8000, 32, 24), data(32), 24),
        ("20 of 24", extensible(1, 1, 8000, 24, 20), data(24), 20),
        ("12 of 16", format(1, 1, 8000, 12), data(16), 12),
        ("float", format(3, 1, 8000, 32), wanted.iter().flat_map(|x| x.to_le_bytes()).collect(), 24),
        ("floatx", extensible(3, 1, 8000, 32, 32), wanted.iter().flat_map(|x| x.to_le_bytes()).collect(), 24),
    ] {
        let path = put(folder.path(), &format!("{name}.wav"), &riff(&[header, chunk(b"data", &data)]));
        let clip = only(&path);
        assert_eq!((clip.samples(), clip.bits()), (&wanted[..], bits), "{name}");
    }
}

/// 24 bits at the lower end of four bytes, which the format does not allow and some programs write.
#[test]
fn padded_samples_are_read_at_the_end_where_they_stand() {
    let folder = tempfile::tempdir().unwrap();
    let low: Vec<u8> = [1i32 << 21, -(1 << 21), 3].iter().flat_map(|n| n.to_le_bytes()).collect();
    let header = extensible(1, 1, 8000, 32, 24);
    let path = put(folder.path(), "a.wav", &riff(&[header.clone(), chunk(b"data", &low)]));
    let set = all(&path);
    assert_eq!(set.get(0).unwrap().samples(), [0.25, -0.25, 3.0 / 8_388_608.0]);
    assert!(set.notes()[0].contains("lower end of 4 bytes"), "{:?}", set.notes());
    let both: Vec<u8> = [i32::MAX, 3].iter().flat_map(|n| n.to_le_bytes()).collect();
    let path = put(folder.path(), "b.wav", &riff(&[header, chunk(b"data", &both)]));
    crate::support::refused(&path, &crate::support::plain(), &["bits at both ends"]);
}

#[test]
fn channels_are_averaged_and_told() {
    let folder = tempfile::tempdir().unwrap();
    for channels in [2u16, 3, 8] {
        let samples: Vec<i16> =
            (0..100 * i32::from(channels)).map(|n| (n % i32::from(channels) * 100 + 500) as i16).collect();
        let data: Vec<u8> = samples.iter().flat_map(|s| s.to_le_bytes()).collect();
        let bytes = riff(&[format(1, channels, 8000, 16), chunk(b"data", &data)]);
        let set = all(&put(folder.path(), "a.wav", &bytes));
        let clip = set.get(0).unwrap();
        let mean = (500.0 + 50.0 * f32::from(channels - 1)) / 32_768.0;
        assert!(clip.len() == 100 && clip.samples().iter().all(|x| (x - mean).abs() < 1e-7));
        assert!(set.notes()[0].contains("1 of 1 clips have several channels, which were mixed to one"));
        assert_eq!(clip.notes(), [format!("{channels} channels mixed to one")]);
    }
}

/// Chunks before the data, of odd length too, and behind it.
#[test]
fn other_chunks_are_stepped_over() {
    let folder = tempfile::tempdir().unwrap();
    let data: Vec<u8> = tone(50).iter().flat_map(|s| s.to_le_bytes()).collect();
    let list = chunk(b"LIST", b"INFOodd");
    let chunks = [
        list.clone(),
        format(1, 1, 8000, 16),
        list.clone(),
        chunk(b"fact", &[50, 0, 0, 0]),
        chunk(b"data", &data),
        list,
    ];
    let clip = only(&put(folder.path(), "a.wav", &riff(&chunks)));
    let wanted: Vec<f32> = tone(50).iter().map(|&s| f32::from(s) / 32_768.0).collect();
    assert_eq!(clip.samples(), wanted);
    let odd_rate =
        [format(1, 1, 8000, 16)[..16].to_vec(), vec![1, 2, 3, 4], format(1, 1, 8000, 16)[20..].to_vec()].concat();
    let set = all(&put(folder.path(), "b.wav", &riff(&[odd_rate, chunk(b"data", &data)])));
    assert!(set.notes()[0].contains("bytes a second"), "{:?}", set.notes());
}
