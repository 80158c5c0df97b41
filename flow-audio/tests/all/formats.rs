//! Compressed formats, made by no encoder but by hand where a file is small enough for it.

use flow_audio::data::open_all;

use crate::support::{plain, put, refused};

/// A FLAC file of one channel of 16 bits at 8 kHz: one verbatim frame of 192 samples, and in the header `declared`.
pub(crate) fn flac(samples: &[i16; 192], declared: u64) -> Vec<u8> {
    let mut info = Vec::new();
    info.extend([0, 192, 0, 192]);
    info.extend([0; 6]);
    // 20 bits of rate, 3 of channels less one, 5 of bits less one, 36 of samples.
    let packed: u64 = 8000 << 44 | 15 << 36 | declared;
    info.extend(packed.to_be_bytes());
    info.extend([0; 16]);
    // Sync, fixed blocks; 192 samples, rate of the header; one channel, 16 bits; frame 0.
    let mut frame = vec![0xff, 0xf8, 0x10, 0x08, 0x00];
    frame.push(crc(&frame, 8, 0x07) as u8);
    // A verbatim subframe without wasted bits.
    frame.push(0x02);
    frame.extend(samples.iter().flat_map(|s| s.to_be_bytes()));
    frame.extend((crc(&frame, 16, 0x8005) as u16).to_be_bytes());
    [&b"fLaC\x80\x00\x00\x22"[..], &info, &frame].concat()
}

fn crc(bytes: &[u8], bits: u32, polynomial: u32) -> u32 {
    let (top, mask) = (1 << (bits - 1), (1u32 << bits) - 1);
    bytes.iter().fold(0, |crc, &byte| {
        (0..8).fold(crc ^ u32::from(byte) << (bits - 8), |crc, _| {
            (if crc & top != 0 { crc << 1 ^ polynomial } else { crc << 1 }) & mask
        })
    })
}

pub(crate) fn levels() -> [i16; 192] {
    std::array::from_fn(|n| (n as i16 - 96) * 300)
}

#[cfg(feature = "codecs")]
#[test]
fn flac_comes_back_to_the_bit_whatever_its_name() {
    let folder = tempfile::tempdir().unwrap();
    let wanted: Vec<f32> = levels().iter().map(|&s| f32::from(s) / 32_768.0).collect();
    for name in ["a.flac", "a.wav"] {
        let clip = crate::support::only(&put(folder.path(), name, &flac(&levels(), 192)));
        assert_eq!((clip.samples(), clip.rate(), clip.bits()), (&wanted[..], 8000, 16));
    }
}

#[cfg(feature = "codecs")]
#[test]
fn compressed_files_that_break_off_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = put(folder.path(), "a.flac", &flac(&levels(), 1000));
    refused(&path, &plain(), &["declares 1000 samples and holds 192"]);
    let good = flac(&levels(), 192);
    for length in 1..good.len() {
        let path = put(folder.path(), "a.flac", &good[..length]);
        refused(&path, &plain(), &[]);
    }
    let mut damaged = good.clone();
    *damaged.last_mut().unwrap() ^= 1;
    let path = put(folder.path(), "a.flac", &damaged);
    refused(&path, &plain(), &[]);
}

#[cfg(not(feature = "codecs"))]
#[test]
fn a_build_without_codecs_names_the_feature() {
    let folder = tempfile::tempdir().unwrap();
    let path = put(folder.path(), "a.flac", &flac(&levels(), 192));
    refused(&path, &plain(), &["a FLAC file", "feature codecs"]);
}

#[test]
fn other_formats_are_refused_by_name() {
    let folder = tempfile::tempdir().unwrap();
    let ogg = |packet: &[u8]| [&b"OggS"[..], &[0; 22], &[1, 30], packet].concat();
    for (name, bytes, expected) in [
        ("a.ogg", ogg(b"OpusHead"), "an Opus file; convert it"),
        ("a.mp3", b"FORM\0\0\0\0AIFF".to_vec(), "an AIFF file"),
        ("a.flac", b"RIFF".to_vec(), "fLaC, as a FLAC file begins"),
        ("a.mp3", b"no mp3 at all".to_vec(), "a frame of MPEG audio"),
        ("a.wav", b"\0\0\0\x20ftypM4A ".to_vec(), "an MP4 or M4A file"),
    ] {
        refused(&put(folder.path(), name, &bytes), &plain(), &[expected]);
    }
    assert!(open_all(put(folder.path(), "a.mp3", b"ID3"), &plain()).is_err());
}
