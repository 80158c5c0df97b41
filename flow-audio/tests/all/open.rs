//! What a path becomes: one file, folders, parts, LJSpeech's layout, other rates, the built-in voices.

use flow_audio::data::{is_generated, open, open_all};
use flow_audio::{OpenOptions, Segments, Voices};

use crate::support::{pcm16, plain, put, refused, tone};

#[test]
fn folders_are_read_however_deep_in_the_order_of_the_names() {
    let folder = tempfile::tempdir().unwrap();
    for name in ["b/z.wav", "a.WAV", "b/a.wav", ".hidden.wav", "notes.txt"] {
        put(folder.path(), name, &pcm16(8000, &tone(500)));
    }
    let set = open_all(folder.path(), &plain()).unwrap();
    let names: Vec<&str> = set.iter().map(|clip| clip.name()).collect();
    assert_eq!(names, ["a.WAV", "b/a.wav", "b/z.wav"]);
    assert!(set.notes()[0].contains("1 files are no sound: notes.txt"), "{:?}", set.notes());
    assert_eq!((set.rate(), set.samples()), (8000, 1500));
}

#[test]
fn parts_are_whole_clips_and_the_same_for_a_seed() {
    let folder = tempfile::tempdir().unwrap();
    for index in 0..20i16 {
        let samples: Vec<i16> = tone(400).iter().map(|s| s / 2 + index).collect();
        put(folder.path(), &format!("{index:02}.wav"), &pcm16(8000, &samples));
    }
    let splits = open(folder.path(), &OpenOptions::default()).unwrap();
    assert_eq!([splits.train.len(), splits.validation.len(), splits.test.len()], [17, 1, 2]);
    let mut names: Vec<String> = [&splits.train, &splits.validation, &splits.test]
        .into_iter()
        .flat_map(|s| s.iter().map(|c| c.name().to_string()))
        .collect();
    names.sort();
    names.dedup();
    assert_eq!(names.len(), 20);
    assert_eq!(splits.fingerprint(), open(folder.path(), &OpenOptions::default()).unwrap().fingerprint());
    let mut other = OpenOptions::default();
    other.seed = 1;
    assert_ne!(splits.fingerprint(), open(folder.path(), &other).unwrap().fingerprint());
    assert!(splits.test.source().contains("2 of 20 clips held out for test (seed 0)"));
    assert_eq!(splits.fingerprint().to_string(), "17 train, 1 validation, 2 test clips");
}

#[test]
fn a_folder_with_parts_has_these() {
    let folder = tempfile::tempdir().unwrap();
    for name in ["train/a.wav", "train/b.wav", "test/c.wav", "d.wav"] {
        put(folder.path(), name, &pcm16(8000, &tone(500)));
    }
    let splits = open(folder.path(), &OpenOptions::default()).unwrap();
    assert_eq!([splits.train.len(), splits.validation.len(), splits.test.len()], [1, 1, 1]);
    assert_eq!(splits.test.get(0).unwrap().name(), "c.wav");
    assert!(splits.notes().iter().any(|note| note.contains("beside its parts, not read: d.wav")));
    put(folder.path(), "test/c.wav", &pcm16(16_000, &tone(500)));
    refused(folder.path(), &plain(), &["16000 Hz but 8000 Hz"]);
}

#[test]
fn ljspeech_has_transcripts_and_tells_what_is_missing_and_unlisted() {
    let folder = tempfile::tempdir().unwrap();
    for name in ["wavs/LJ-1.wav", "wavs/LJ-2.wav", "wavs/LJ-9.wav", "LJ-3.wav"] {
        put(folder.path(), name, &pcm16(22_050, &tone(900)));
    }
    let list = "LJ-2|He paid $1|He paid one dollar\nLJ-1|Plain words\nLJ-3|Beside|Beside\nLJ-4|Gone|Gone\n";
    put(folder.path(), "metadata.csv", list.as_bytes());
    let set = open_all(folder.path(), &plain()).unwrap();
    let said: Vec<_> = set.iter().map(|clip| (clip.name(), clip.transcript().unwrap())).collect();
    assert_eq!(
        said,
        [("wavs/LJ-2.wav", "He paid one dollar"), ("wavs/LJ-1.wav", "Plain words"), ("LJ-3.wav", "Beside")]
    );
    assert!(set.notes()[0].contains("1 recordings are listed and not there: LJ-4"), "{:?}", set.notes());
    assert!(set.notes()[1].contains("1 recordings are there and not listed, and were not read: wavs/LJ-9.wav"));
}

#[test]
fn other_rates_are_refused_unless_they_are_to_be_resampled() {
    let folder = tempfile::tempdir().unwrap();
    put(folder.path(), "a.wav", &pcm16(8000, &tone(2000)));
    put(folder.path(), "b.wav", &pcm16(16_000, &tone(4000)));
    let error = open_all(folder.path(), &plain()).unwrap_err().to_string();
    assert!(error.contains("8000 Hz in a.wav but 16000 Hz in b.wav") && error.contains("--resample"), "{error}");
    let error = open_all(folder.path(), &plain().with_rate(8000, false)).unwrap_err().to_string();
    assert!(error.contains("b.wav: has 16000 Hz where 8000 Hz are wanted; resample it with --resample"), "{error}");
    let mut lenient = plain().with_rate(8000, false);
    lenient.skip_broken = true;
    assert!(open_all(folder.path(), &lenient).is_err(), "another rate is no broken file");
    let set = open_all(folder.path(), &plain().with_rate(8000, true)).unwrap();
    assert_eq!((set.rate(), set.get(0).unwrap().len(), set.get(1).unwrap().len()), (8000, 2000, 2000));
    assert!(
        set.notes().iter().any(|n| n.contains("1 of 2 clips were resampled to 8000 Hz: b.wav")),
        "{:?}",
        set.notes()
    );
}

#[test]
fn silent_clips_are_left_out_and_loud_ones_are_told() {
    let folder = tempfile::tempdir().unwrap();
    put(folder.path(), "a.wav", &pcm16(8000, &tone(500)));
    put(folder.path(), "b.wav", &pcm16(8000, &[0; 500]));
    put(folder.path(), "c.wav", &pcm16(8000, &[32; 500]));
    let loud: Vec<i16> = tone(500).iter().map(|s| s.saturating_mul(10)).collect();
    put(folder.path(), "d.wav", &pcm16(8000, &loud));
    let set = open_all(folder.path(), &plain()).unwrap();
    assert_eq!(set.iter().map(|clip| clip.name()).collect::<Vec<_>>(), ["a.wav", "d.wav"]);
    let notes = set.notes().join("\n");
    assert!(notes.contains("2 of 4 clips are silent") && notes.contains("left out: b.wav, c.wav"), "{notes}");
    assert!(notes.contains("1 of 4 clips were recorded too loud") && notes.contains("full scale: d.wav"), "{notes}");
    assert!(set.get(1).unwrap().full_scale_runs() > 10);
}

#[test]
fn voices_need_no_file_and_give_segments() {
    assert!(is_generated("voices"));
    let mut options = OpenOptions::default();
    options.voices = Some(Voices { clips: 4, validation: 1, test: 1, seconds: 1.0, rate: 8000 });
    let splits = open("voices", &options).unwrap();
    assert_eq!([splits.train.len(), splits.validation.len(), splits.test.len()], [4, 1, 1]);
    assert!(splits.notes()[0].contains("synthesised"), "{:?}", splits.notes());
    let segments = Segments::new(&splits.train, &flow_audio::MelConfig::speech_8k(), 2048).unwrap();
    assert_eq!(segments.len(), 4 * 3);
    options.rate = Some(16_000);
    assert!(open("voices", &options).unwrap_err().to_string().contains("synthesised at 8000 Hz"));
}
