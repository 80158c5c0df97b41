//! From training to prediction.

use super::{run, trained};

#[test]
fn every_verb_works_on_what_train_leaves() {
    let folder = trained(&["--score-context"]);
    let folder = folder.path();
    let has = |name: &str, begin: &[u8]| {
        let bytes = std::fs::read(folder.join(name)).unwrap_or_else(|e| panic!("{name}: {e}"));
        assert!(bytes.starts_with(begin), "{name}");
    };
    for (name, begin) in
        [("run/predictions.gif", &b"GIF89a"[..]), ("run/predictions.png", b"\x89PNG"), ("run/loss.png", b"\x89PNG")]
    {
        has(name, begin);
    }
    let at = ["--checkpoint", "run"];
    let verb = |arguments: &[&str]| run(folder, &[arguments, &at].concat());

    let said = verb(&["predict", "--count", "2", "--frames", "4", "--clip", "0,3", "--out", "f.gif"]);
    assert_eq!(said.lines().count(), 2, "{said}");
    has("f-0.gif", b"GIF89a");
    has("f-3.gif", b"GIF89a");
    verb(&["predict", "--temperature", "0.5,0.9", "--out", "f.png"]);
    has("f.png", b"\x89PNG");
    verb(&["predict", "--count", "3", "--frames", "2", "--out", "f.npy"]);
    let first = std::fs::read(folder.join("f.npy")).unwrap();
    assert!(String::from_utf8_lossy(&first[..100]).contains("(3, 2, 1, 32, 32"));
    verb(&["predict", "--count", "3", "--frames", "2", "--out", "again.npy"]);
    assert_eq!(first, std::fs::read(folder.join("again.npy")).unwrap(), "one seed, one future");
    verb(&["predict", "--count", "3", "--frames", "2", "--seed", "1", "--out", "other.npy"]);
    assert_ne!(first, std::fs::read(folder.join("other.npy")).unwrap());

    verb(&["sample", "--count", "2", "--frames", "5", "--out", "s.apng"]);
    has("s.apng", b"\x89PNG");
    let said =
        verb(&["eval", "--count", "3", "--futures", "4", "--frames", "3", "--report", "e.json", "--plot", "e.png"]);
    for part in ["bits/dim over 3 clips", "best of 4", "last given frame again", "black frames", "level 1", "tenths"] {
        assert!(said.contains(part), "{part}: {said}");
    }
    has("e.json", b"{");
    has("e.png", b"\x89PNG");
    let said = verb(&["score", "--count", "2", "--out", "s.csv"]);
    assert!(said.contains("most surprising: frame "), "{said}");
    // Twenty frames a clip, the first three have too little past.
    assert_eq!(std::fs::read_to_string(folder.join("s.csv")).unwrap().lines().count(), 1 + 2 * 17);
    has("s.png", b"\x89PNG");
    verb(&["interpolate", "--start", "0:1", "--end", "2:3", "--level", "1", "--count", "4", "--out", "w.npy"]);
    has("w.npy", b"\x93NUMPY");
    let said = verb(&["info"]);
    for part in ["VideoFlow, 2 levels of 1 steps", "learned as well", "step         3", "clips"] {
        assert!(said.contains(part), "{part}: {said}");
    }
}

#[test]
fn clips_go_through_files_and_come_back() {
    let folder = trained(&[]);
    let folder = folder.path();
    let render = ["render", "--clips", "8", "--split", "test", "--clip", "1"];
    for name in ["c.npy", "c.y4m", "c.apng", "frames"] {
        run(folder, &[&render[..], &["--out", name]].concat());
    }
    let score = |data: &str, out: &str| {
        run(folder, &["score", "--checkpoint", "run", "--data", data, "--split", "all", "--clip", "0", "--out", out]);
        let table = std::fs::read_to_string(folder.join(out)).unwrap();
        table.lines().skip(1).map(|line| line.rsplit(',').next().unwrap().to_string()).collect::<Vec<_>>()
    };
    let of_pictures = score("frames", "a.csv");
    assert_eq!(of_pictures.len(), 17);
    assert_eq!(of_pictures, score("c.apng", "b.csv"));
}

/// Which clips are held out does not follow from how many frames a verb asks for, and other clips are named as that.
#[test]
fn parts_are_those_of_the_run() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let render = |more: &[&str]| run(folder, &[&["render"][..], more].concat());
    std::fs::create_dir(folder.join("clips")).unwrap();
    for clip in ["0", "1", "2", "3", "4", "5"] {
        let out = format!("clips/{clip}.npy");
        render(&["--clips", "8", "--split", "test", "--clip", clip, "--out", &out]);
        if clip < "2" {
            let short = format!("clips/short-{clip}.npy");
            render(&["--data", &out, "--split", "all", "--cut", "5", "--clip", "0", "--out", &short]);
        }
    }
    std::fs::write(folder.join("tiny.json"), super::CONFIG).unwrap();
    let train = ["train", "--data", "clips", "--steps", "1", "--horizon", "2", "--out", "run"];
    run(folder, &[&train[..], &["--config", "tiny.json", "--batch-size", "2", "--targets", "1"]].concat());
    let notes = |more: &[&str]| {
        let mut command = super::videoflow(folder);
        command
            .args(["eval", "--checkpoint", "run", "--data", "clips", "--futures", "1", "--split", "train"])
            .args(more);
        crate::shared::notes(command)
    };
    let said = notes(&["--frames", "2"]);
    assert!(said.contains("data: train part, 6 clips") && !said.contains("the run's own data"), "{said}");
    let said = notes(&["--frames", "9"]);
    assert!(said.contains("have fewer than 12 frames") && !said.contains("the run's own data"), "{said}");
    std::fs::remove_file(folder.join("clips/5.npy")).unwrap();
    let said = notes(&["--frames", "2"]);
    assert!(said.contains(crate::shared::OTHER_DATA), "{said}");
    // The model for small frames looks at more of them than others, and is given as many.
    ["0", "1"].iter().for_each(|clip| std::fs::remove_file(folder.join(format!("clips/short-{clip}.npy"))).unwrap());
    let small = ["train", "--data", "clips", "--steps", "1", "--horizon", "2", "--targets", "1", "--out", "small"];
    run(folder, &[&small[..], &["--batch-size", "2"]].concat());
    assert!(run(folder, &["info", "--checkpoint", "small"]).contains("followed over 5 frames"));
}

#[test]
fn presets_are_listed() {
    let folder = tempfile::tempdir().unwrap();
    let table = run(folder.path(), &["info", "--presets"]);
    for name in ["moving-digits", "moving-mnist", "small", "bair-quant", "bair-qual", "shapes", "base"] {
        assert!(table.contains(name), "{name}: {table}");
    }
    let json: serde_json::Value = serde_json::from_str(&run(folder.path(), &["info", "--presets", "--json"])).unwrap();
    assert_eq!(json[3]["model"]["width"], 512);
}
