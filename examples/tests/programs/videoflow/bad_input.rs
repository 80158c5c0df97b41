//! Bad arguments and bad files: exit code 2, one line that says what was expected, and nothing left behind.

use super::{trained, videoflow};
use crate::shared::all_refused;

#[test]
fn what_makes_no_sense_is_refused() {
    let folder = trained(&[]);
    let folder = folder.path();
    std::fs::write(folder.join("film.mp4"), b"\0\0\0\x18ftypmp42").unwrap();
    std::fs::write(folder.join("page.gif"), b"<!DOCTYPE html>").unwrap();
    std::fs::write(folder.join("other.json"), r#"{"levels": 2, "depth": 3}"#).unwrap();
    all_refused(
        videoflow,
        folder,
        &[
            (&["train", "--out", "run"], "holds a run already"),
            (&["train", "--out", "new", "--data", "nowhere"], "nowhere"),
            (&["train", "--out", "new", "--data", "film.mp4"], "film.mp4"),
            (&["train", "--out", "new", "--data", "page.gif"], "page.gif"),
            (&["train", "--out", "new", "--config", "other.json"], "depth"),
            (&["train", "--out", "new", "--clips", "0"], "--clips"),
            (&["train", "--out", "new", "--layout", "nthw"], "--layout"),
            (&["train", "--out", "new", "--data", "shapes", "--walls", "bounce"], "--walls"),
            (&["train", "--out", "new", "--size", "64", "--clips", "8"], "--size"),
            (&["train", "--out", "new", "--clips", "8", "--context", "1"], "the model looks at 5 frames"),
            (&["train", "--out", "new", "--clips", "8", "--horizon", "40"], "frames"),
            (&["predict", "--checkpoint", "nowhere"], "nowhere"),
            (&["predict", "--checkpoint", "run", "--out", "f.bmp"], "f.bmp"),
            (&["predict", "--checkpoint", "run", "--clip", "999"], "--clip 999"),
            (&["predict", "--checkpoint", "run", "--temperature", "1,2,3"], "2 levels"),
            (&["predict", "--checkpoint", "run", "--temperature=-1"], "temperature"),
            (&["predict", "--checkpoint", "run", "--data", "shapes"], "the model is for [1, 32, 32]"),
            (&["sample", "--checkpoint", "run"], "--score-context"),
            (&["eval", "--checkpoint", "run", "--context", "2"], "looks at 3 frames"),
            (&["interpolate", "--checkpoint", "run", "--start", "0"], "expected CLIP:FRAME"),
            (&["interpolate", "--checkpoint", "run", "--end", "0:99"], "20 frames"),
            (&["interpolate", "--checkpoint", "run", "--level", "2"], "levels 0 to 1"),
            (&["render", "--count", "0"], "--count"),
        ],
    );
}
