//! Damaged files: every pure-Rust reader returns, never panics, and takes no memory that the file does not justify.
//!
//! `FLOW_FUZZ=1000000 cargo test --release -p flow-video --test all fuzz` tries a million inputs for each format.

use std::path::Path;

use flow_core::FlowRng;
use flow_core::testing::fuzz;
use flow_image::data::npy;
use flow_video::data::open_all;

use crate::formats::npz;
use crate::malformed::{good, good_npy};
use crate::support::{plain, put};

/// A good file of each format, and for how many inputs of it there is time where the others have one.
fn good_files() -> Vec<(&'static str, Vec<u8>)> {
    let idx = [&[0, 0, 8, 3, 0, 0, 0, 2, 0, 0, 0, 4, 0, 0, 0, 4][..], &[9; 32]].concat();
    let picture = flow_image::io::encode_png(&image::GrayImage::new(4, 3).into()).unwrap();
    vec![
        ("x.gif", good("gif", 3)),
        ("grey.gif", good("gif", 1)),
        ("x.apng", good("apng", 3)),
        ("grey.apng", good("apng", 1)),
        ("x.y4m", good("y4m", 3)),
        ("grey.y4m", good("y4m", 1)),
        ("420.y4m", [&b"YUV4MPEG2 W3 H3 F30:1 Ip C420jpeg\nFRAME\n"[..], &[9; 17]].concat()),
        ("x.npy", good_npy()),
        ("f.npy", npy::encode(&[8, 2, 1, 2, 2], &[0.5f32; 64]).unwrap()),
        ("x.npz", npz(&[("x_train.npy", good_npy()), ("x_test.npy", good_npy())])),
        ("x-idx3-ubyte", idx),
        ("frames/1.png", picture),
    ]
}

#[test]
fn damaged_files_never_panic() {
    let inputs = fuzz::rounds(400);
    let mut options = plain();
    let few = flow_video::data::generate::MovingDigits {
        clips: 1,
        validation: 0,
        test: 0,
        frames: 2,
        size: 8,
        digit: 4,
        ..Default::default()
    };
    for (name, good) in good_files() {
        options.digits = (name == "x-idx3-ubyte").then_some(few);
        let folder = tempfile::tempdir().unwrap();
        let mut rng = FlowRng::named(inputs.into(), name);
        let read = |path: &Path| {
            let path = if name.starts_with("frames") { path.parent().unwrap() } else { path };
            open_all(path, &options)
        };
        read(&put(folder.path(), name, &good))
            .unwrap_or_else(|error| panic!("{name} is not good to begin with: {error}"));
        let mut accepted = 0;
        for _ in 0..inputs {
            let bytes = damage(good.clone(), &mut rng);
            match read(&put(folder.path(), name, &bytes)) {
                Ok(set) => {
                    let values: usize = set.iter().map(|clip| clip.values().len()).sum();
                    // Animations repeat colours and frames; what their reader allows. Deflate by its ratio.
                    let bound = if name.ends_with("gif") || name.ends_with("png") {
                        3 * ((1 << 24) + 4096 * bytes.len())
                    } else {
                        3 * 1032 * bytes.len()
                    };
                    assert!(values <= bound, "{name}: {values} values of {} bytes", bytes.len());
                    accepted += 1;
                }
                Err(error) => assert!(!error.to_string().contains('\n'), "{name}: {error}"),
            }
        }
        assert!(accepted < inputs, "{name}: damage went unnoticed every time");
    }
}

/// A few bytes changed, a tail cut off or added, a part left out or twice, or nothing but noise behind the first bytes.
fn damage(mut bytes: Vec<u8>, rng: &mut FlowRng) -> Vec<u8> {
    match rng.below(6) {
        0 => bytes.truncate(rng.below(bytes.len())),
        1 => bytes.extend((0..1 + rng.below(40)).map(|_| rng.below(256) as u8)),
        2 => {
            let kept = rng.below(12);
            bytes.truncate(kept);
            bytes.extend((0..rng.below(200)).map(|_| rng.below(256) as u8));
        }
        3 => {
            let (from, to) = (rng.below(bytes.len()), rng.below(bytes.len()));
            let part = bytes[from.min(to)..from.max(to)].to_vec();
            let at = rng.below(bytes.len());
            bytes.splice(at..at, part);
        }
        4 => {
            let position = rng.below(bytes.len());
            bytes[position] = rng.below(256) as u8;
        }
        _ => {
            for _ in 0..1 + rng.below(4) {
                let position = rng.below(bytes.len().min(100));
                bytes[position] = rng.below(256) as u8;
            }
        }
    }
    bytes
}
