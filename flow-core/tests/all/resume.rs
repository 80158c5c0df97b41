//! A checkpoint is used as what it is, or refused: other data, other runs, damaged files.

use std::fs;
use std::path::{Path, PathBuf};

use flow_core::hash::Fnv;
use flow_core::train::{
    Checkpoints, Fingerprint, Progress, Task, Trainer, find_checkpoint, load_fingerprint, load_weights,
};

use crate::toy::{Bend, Toy, assert_same_checkpoint, config};

const STEPS: u64 = 12;

fn toy(source: &'static str, data: Option<Fingerprint>) -> Toy {
    Toy::new(8, Bend { source, data, ..Bend::default() })
}

fn images(train: &[u8], validation: &[u8]) -> Option<Fingerprint> {
    let part = |print: Fingerprint, name, bytes: &[u8]| print.part(name, bytes.len(), Fnv::new().bytes(bytes));
    Some(part(part(Fingerprint::new("images"), "train", train), "validation", validation))
}

fn start(out: &Path, toy: Toy) {
    Trainer::new(config(STEPS), out, toy).unwrap().run(&mut ()).unwrap();
}

fn refusal(out: &Path, toy: Toy) -> String {
    Trainer::resume(config(STEPS), out, toy).err().unwrap().to_string()
}

#[test]
fn a_run_knows_its_data_again_wherever_they_lie() {
    let (out, whole) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    start(out.path(), toy("photos", images(b"abc", b"d")));
    let newest = Checkpoints::new(out.path()).at(STEPS);
    assert_eq!(load_fingerprint(&newest).unwrap(), images(b"abc", b"d"));

    let message = refusal(out.path(), toy("photos", images(b"abcx", b"d")));
    assert!(message.contains("other data (train: 4 images now, 3 then)"), "{message}");
    let message = refusal(out.path(), toy("photos", images(b"abd", b"c")));
    assert!(message.contains("train: as many images, but not the same; validation: as many"), "{message}");
    let message = refusal(out.path(), toy("photos", Some(Fingerprint::new("molecules"))));
    assert!(message.contains("a run on images, this one is on molecules"), "{message}");

    // The same data by another name, to the same bits.
    let longer = config(STEPS + 6);
    Trainer::resume(longer.clone(), out.path(), toy("../here/photos", images(b"abc", b"d")))
        .unwrap()
        .run(&mut ())
        .unwrap();
    Trainer::new(longer, whole.path(), toy("../here/photos", images(b"abc", b"d"))).unwrap().run(&mut ()).unwrap();
    let last = |out: &Path| Checkpoints::new(out).at(STEPS + 6);
    assert_same_checkpoint(&last(whole.path()), &last(out.path()));
}

/// A run of an earlier version says nothing of its data; then the name has to be the same, as it had.
#[test]
fn without_fingerprints_the_description_decides() {
    let out = tempfile::tempdir().unwrap();
    start(out.path(), toy("photos", None));
    let message = refusal(out.path(), toy("pictures", images(b"abc", b"d")));
    assert!(message.contains(r#"source: checkpoint "photos", asked "pictures""#), "{message}");
    Trainer::resume(config(STEPS), out.path(), toy("photos", images(b"abc", b"d"))).unwrap();
}

#[test]
fn a_run_of_another_kind_is_named_as_one() {
    let out = tempfile::tempdir().unwrap();
    start(out.path(), toy("", None));
    let path = Checkpoints::new(out.path()).at(STEPS).join("config.json");
    let mut text: serde_json::Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    text["task"] = serde_json::json!({"spec": 1, "source": "a", "levels": [1, 2], "open": {}, "batch": 3});
    fs::write(&path, text.to_string()).unwrap();
    let message = refusal(out.path(), toy("", None));
    assert!(message.contains("a run of another kind, described by batch, levels, open, source, spec"), "{message}");
    assert!(!message.contains('{'), "{message}");
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let path = entry.unwrap().path();
        let target = to.join(path.file_name().unwrap());
        match path.is_dir() {
            true => copy(&path, &target),
            false => assert!(fs::copy(&path, target).is_ok()),
        }
    }
}

/// A copy of `run` with one file of one checkpoint changed.
fn damaged(run: &Path, checkpoint: &str, file: &str, damage: impl Fn(&mut Vec<u8>)) -> (tempfile::TempDir, PathBuf) {
    let out = tempfile::tempdir().unwrap();
    copy(run, out.path());
    let path = out.path().join("checkpoints").join(checkpoint).join(file);
    let mut bytes = fs::read(&path).unwrap();
    damage(&mut bytes);
    fs::write(&path, bytes).unwrap();
    (out, path)
}

fn flip(bytes: &mut [u8]) {
    let middle = bytes.len() - 20;
    bytes[middle] ^= 4;
}

fn halve(bytes: &mut Vec<u8>) {
    bytes.truncate(bytes.len() / 2);
}

#[test]
fn the_best_checkpoint_is_right_or_refused() {
    let run = tempfile::tempdir().unwrap();
    start(run.path(), toy("", None));
    let store = Toy::plain();
    for file in ["model.safetensors", "ema.safetensors"] {
        let (out, path) = damaged(run.path(), "best", file, halve);
        let message = find_checkpoint(out.path()).unwrap_err().to_string();
        assert!(message.contains(&path.display().to_string()) && message.contains("truncated"), "{message}");
        assert!(message.contains("another checkpoint of the run"), "{message}");

        let (out, path) = damaged(run.path(), "best", file, |bytes| flip(bytes));
        let best = find_checkpoint(out.path()).unwrap();
        let before = store.weights();
        let message = load_weights(&best, store.store(), file == "ema.safetensors").unwrap_err().to_string();
        assert!(
            message.contains(&path.display().to_string()) && message.contains("is damaged: its checksum"),
            "{message}"
        );
        assert_eq!(store.weights(), before);
    }
}

/// Keeps what a run says.
#[derive(Default)]
struct Notes(Vec<String>);

impl Progress for Notes {
    fn note(&mut self, message: &str) {
        self.0.push(message.into());
    }
}

#[test]
fn a_resume_says_what_it_passes_over_and_refuses_what_it_cannot_trust() {
    let run = tempfile::tempdir().unwrap();
    start(run.path(), toy("", None));
    let newest = format!("step-{STEPS:08}");
    for file in ["model.safetensors", "optimizer.safetensors", "ema.safetensors"] {
        let (out, path) = damaged(run.path(), &newest, file, halve);
        let mut notes = Notes::default();
        Trainer::resume(config(STEPS), out.path(), Toy::plain()).unwrap().run(&mut notes).unwrap();
        let [note] = &notes.0[..] else { panic!("{:?}", notes.0) };
        assert!(
            note.contains("passed over a damaged checkpoint") && note.contains(&path.display().to_string()),
            "{note}"
        );
        assert_same_checkpoint(&Checkpoints::new(run.path()).at(STEPS), &Checkpoints::new(out.path()).at(STEPS));

        let (out, path) = damaged(run.path(), &newest, file, |bytes| flip(bytes));
        let message = refusal(out.path(), Toy::plain());
        assert!(message.contains(&path.display().to_string()) && message.contains("checksum"), "{message}");
    }
}
