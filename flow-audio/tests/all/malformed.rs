//! Hostile files: every reader refuses with one line that names the file, never with a panic, and takes no more memory
//! than the file justifies.

use flow_audio::data::{open, open_all};
use flow_audio::{Mel, MelConfig, OpenOptions};

use crate::support::{chunk, extensible, format, pcm16, plain, put, refused, riff, tone};

fn data(count: usize) -> Vec<u8> {
    chunk(b"data", &tone(count).iter().flat_map(|s| s.to_le_bytes()).collect::<Vec<_>>())
}

fn with(mut bytes: Vec<u8>, position: usize, new: &[u8]) -> Vec<u8> {
    bytes[position..position + new.len()].copy_from_slice(new);
    bytes
}

#[test]
fn a_file_cut_off_anywhere_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let good = pcm16(8000, &tone(100));
    for length in 0..good.len() {
        let path = put(folder.path(), "cut.wav", &good[..length]);
        let expected: &[&str] = match length {
            0 => &["an empty file"],
            1..=11 => &["RIFF and WAVE"],
            12..=19 => &["the chunk 'fmt '"],
            20..=35 => &["a chunk 'fmt ' of 16 bytes"],
            36..=43 => &["the chunk 'data'"],
            _ => &["expected 100 samples of 1 channels", "then the end of the file"],
        };
        refused(&path, &plain(), expected);
    }
    let path = put(folder.path(), "cut.wav", &good[..44 + 60]);
    refused(&path, &plain(), &["expected 100 samples", "found 30 samples"]);
}

#[test]
fn wav_files_that_are_not_read_are_refused_by_what_they_are() {
    let folder = tempfile::tempdir().unwrap();
    let fmt = || format(1, 1, 8000, 16);
    let wave = |chunks: &[Vec<u8>]| riff(chunks);
    let float = |values: &[f32]| {
        let bytes: Vec<u8> = values.iter().flat_map(|x| x.to_le_bytes()).collect();
        riff(&[format(3, 1, 8000, 32), chunk(b"data", &bytes)])
    };
    let guid = with(extensible(1, 1, 8000, 16, 16), 40, &[9; 4]);
    for (what, bytes, expected) in [
        ("no sample", wave(&[fmt(), chunk(b"data", &[])]), "no sample"),
        ("data first", wave(&[data(9), fmt()]), "'fmt ' before the data"),
        ("no data", wave(&[fmt()]), "the chunk 'data'"),
        (
            "four gigabytes",
            with(wave(&[fmt(), data(9)]), 40, &[0xff; 4]),
            "found 9 samples, then the end of the file; a program",
        ),
        (
            "two gigabytes",
            with(wave(&[fmt(), data(9)]), 40, &[0, 0, 0, 0x80]),
            "found 9 samples, then the end of the file",
        ),
        ("long chunk", wave(&[with(chunk(b"LIST", &[0; 8]), 4, &[0xff; 4]), fmt(), data(9)]), "the end of the file"),
        ("long format", with(wave(&[fmt(), data(9)]), 16, &[0xff; 4]), "a chunk 'fmt ' of 4294967295 bytes"),
        ("ms adpcm", wave(&[format(2, 1, 8000, 4), data(9)]), "a WAV file of Microsoft ADPCM; convert it"),
        ("ima adpcm", wave(&[format(0x11, 1, 8000, 4), data(9)]), "IMA ADPCM"),
        ("a-law", wave(&[format(6, 1, 8000, 8), data(9)]), "A-law"),
        ("mu-law", wave(&[format(7, 1, 8000, 8), data(9)]), "mu-law"),
        ("mp3", wave(&[format(0x55, 1, 8000, 16), data(9)]), "MP3"),
        ("unknown", wave(&[format(0x1234, 1, 8000, 16), data(9)]), "format 0x1234"),
        ("extensible mu-law", wave(&[extensible(7, 1, 8000, 8, 8), data(9)]), "mu-law"),
        ("guid", wave(&[guid, data(9)]), "whole numbers or floats"),
        ("short extensible", wave(&[format(0xfffe, 1, 8000, 16), data(9)]), "40 bytes of extensible format"),
        ("double", wave(&[format(3, 1, 8000, 64), data(16)]), "floats of 32 bits"),
        ("64 bits", wave(&[format(1, 1, 8000, 64), data(16)]), "whole numbers of 8, 16, 24 or 32 bits"),
        ("no channel", wave(&[format(1, 0, 8000, 16), data(9)]), "1 to 256 channels"),
        ("many channels", wave(&[format(1, 1000, 8000, 16), data(1000)]), "1 to 256 channels"),
        ("no rate", wave(&[format(1, 1, 0, 16), data(9)]), "samples a second"),
        (
            "odd block",
            with(wave(&[format(1, 1, 8000, 24), data(9)]), 32, &[2, 0]),
            "blocks of 2 bytes for 1 channels of 24 bits",
        ),
        ("half block", wave(&[format(1, 2, 8000, 24), data(10)]), "whole number of blocks of 6 bytes"),
        ("more bits than bytes", wave(&[extensible(1, 1, 8000, 16, 24), data(9)]), "24 bits in 2 bytes"),
        ("short format", wave(&[chunk(b"fmt ", &[1, 0, 1, 0]), data(9)]), "16 bytes of format"),
        ("nan", float(&[0.0, 0.5, f32::NAN]), "sample 2 of channel 0 is NaN"),
        ("infinite", float(&[0.0, f32::NEG_INFINITY]), "sample 1 of channel 0 is -inf"),
        ("no fractions", float(&[0.0, 3000.0, -2000.0]), "2 of 3 floats lie beyond ±1, up to 3000"),
        ("rifx", with(pcm16(8000, &tone(9)), 0, b"RIFX"), "a big-endian WAV file (RIFX)"),
        ("rf64", with(pcm16(8000, &tone(9)), 0, b"RF64"), "RF64"),
        ("page", b"<!DOCTYPE html><html>404".to_vec(), "an HTML page; the download went wrong"),
        ("text", b"hello, world".to_vec(), "RIFF and WAVE, as a WAV file begins"),
        ("avi", with(pcm16(8000, &tone(9)), 8, b"AVI "), "an AVI video"),
        ("noise chunk", wave(&[fmt(), chunk(&[0xff, 0, 1, 2], &[0; 4]), data(9)]), "four printable characters"),
    ] {
        let path = put(folder.path(), &format!("{what}.wav"), &bytes);
        refused(&path, &plain(), &[expected]);
    }
    refused(&put(folder.path(), "x.txt", b"hello"), &plain(), &["looked for WAV"]);
    refused(&folder.path().join("nowhere.wav"), &plain(), &["No such file"]);
}

#[test]
fn floats_a_little_beyond_are_clipped_and_counted() {
    let folder = tempfile::tempdir().unwrap();
    let mut values = vec![0.5f32; 1000];
    values[7] = 1.25;
    let bytes: Vec<u8> = values.iter().flat_map(|x| x.to_le_bytes()).collect();
    let path = put(folder.path(), "a.wav", &riff(&[format(3, 1, 8000, 32), chunk(b"data", &bytes)]));
    let set = open_all(&path, &plain()).unwrap();
    assert_eq!(set.get(0).unwrap().samples()[7], 1.0);
    assert!(set.notes()[0].contains("beyond full scale, 1 in all, which were clipped"), "{:?}", set.notes());
}

#[test]
fn broken_files_are_left_out_only_when_that_is_wanted() {
    let folder = tempfile::tempdir().unwrap();
    put(folder.path(), "a.wav", &pcm16(8000, &tone(500)));
    let bad = put(folder.path(), "b.wav", b"<html>");
    put(folder.path(), "c.wav", &pcm16(8000, &tone(500))[..200]);
    let error = open_all(folder.path(), &plain()).unwrap_err().to_string();
    assert!(error.contains("b.wav: this is an HTML page"), "{error}");
    let mut options = plain();
    options.skip_broken = true;
    let set = open_all(folder.path(), &options).unwrap();
    assert_eq!(set.len(), 1);
    assert!(
        set.notes()
            .iter()
            .any(|n| n.contains("2 of 3 files cannot be read") && n.contains("b.wav, c.wav; the first: "))
    );
    refused(&bad, &options, &["an HTML page"]);
}

#[test]
fn folders_without_sound_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    refused(folder.path(), &plain(), &["found no sound files", "looked for WAV"]);
    put(folder.path(), "below/readme.txt", b"x");
    refused(folder.path(), &plain(), &["found no sound files"]);
    let mut deep = folder.path().to_path_buf();
    (0..20).for_each(|_| deep.push("d"));
    put(&deep, "a.wav", &pcm16(8000, &tone(9)));
    let error = open_all(folder.path(), &plain()).unwrap_err().to_string();
    assert!(error.contains("deeper than 16"), "{error}");
}

#[test]
fn lists_that_cannot_be_read_are_refused_with_their_line() {
    let folder = tempfile::tempdir().unwrap();
    let wavs = folder.path().join("wavs");
    put(&wavs, "a.wav", &pcm16(8000, &tone(500)));
    let list = |text: &[u8]| put(folder.path(), "metadata.csv", text);
    for (text, expected) in [
        (&b"a|one\nb one\n"[..], "in line 2 no '|': b one"),
        (b"a|one\n\xff\xfe|x\n", "in line 2 invalid utf-8"),
        (b"a|one\na|two\n", "in line 2 a for a second time"),
        (b"../../etc/passwd|one\n", "in line 1 the name '../../etc/passwd'"),
        (b"z|one\n", "none of z"),
        (b"\n\n", "an empty list"),
        (b"", "an empty file"),
    ] {
        let path = list(text);
        let error = open_all(folder.path(), &plain()).unwrap_err().to_string();
        assert!(error.contains(expected) && error.contains(&*path.to_string_lossy()), "{expected}: {error}");
    }
    list(b"a|one\nb one\n");
    let mut options = plain();
    options.skip_broken = true;
    let set = open_all(folder.path(), &options).unwrap();
    assert!(set.len() == 1 && set.notes()[0].contains("1 lines cannot be read and were left out: line 2"));
}

#[test]
fn options_outside_their_domain_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = put(folder.path(), "a.wav", &pcm16(8000, &tone(500)));
    let refuse = |options: OpenOptions, expected: &str| {
        let error = open(&path, &options).unwrap_err().to_string();
        assert!(error.contains(expected), "{expected}: {error}");
    };
    refuse(OpenOptions::default().with_held_out(1.0, 0.0), "validation");
    refuse(OpenOptions::default().with_held_out(0.0, f64::NAN), "test");
    refuse(OpenOptions::default(), "cannot hold 1 of 1 clips out");
    let mut options = plain();
    options.resample = true;
    refuse(options, "--mel");
    refuse(plain().with_rate(0, true), "rate");
    let mut options = plain();
    options.voices = Some(Default::default());
    refuse(options, "for the source voices only");
    let mut options = plain();
    options.samples = 1000;
    refuse(options, "all 1 clips have fewer than 1000 samples: a.wav (500)");
}

#[test]
fn files_of_mels_are_refused_by_what_is_wrong() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("x.npz");
    let config = MelConfig::speech_8k();
    Mel::new(config, 4, vec![0.5; 256]).unwrap().save(&path).unwrap();
    let good = std::fs::read(&path).unwrap();
    for length in 0..good.len() {
        std::fs::write(&path, &good[..length]).unwrap();
        let error = Mel::load(&path).unwrap_err().to_string();
        assert!(error.contains("x.npz") && !error.contains('\n'), "{length}: {error}");
    }
    for (bytes, expected) in [
        (b"<html>".to_vec(), "an HTML page"),
        (pcm16(8000, &tone(9)), "the arrays mel and config"),
        (b"PK\x03\x04 nothing".to_vec(), "a readable .npz file"),
    ] {
        std::fs::write(&path, bytes).unwrap();
        let error = Mel::load(&path).unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
    }
    refused(&put(folder.path(), "x.npy", b"\x93NUMPY\x01\x00"), &plain(), &["a NumPy array"]);
}
