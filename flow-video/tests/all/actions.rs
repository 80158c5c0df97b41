//! What is told beside frames: read, learned from, and told of frames to come.

use std::io::Write;
use std::path::Path;

use flow_core::{Density, FlowRng};
use flow_video::candle_core::{DType, Device, Tensor};
use flow_video::data::generate::Shapes;
use flow_video::data::{self, OpenOptions};
use flow_video::model::{Footage, Predictor};

use crate::model::{actions, changed, clips, rows};

#[test]
fn an_action_changes_its_own_frame() {
    let (model, x) = (changed(DType::F64, |config| config.actions = 3), clips(6, 1));
    let score = |actions: Option<&Tensor>| {
        rows(&model.log_prob(Footage::new(&x, actions), &mut FlowRng::seed_from(9)).unwrap())
    };
    let told = actions(6);
    let known = score(Some(&told));
    for t in 0..6 {
        let mut values: Vec<f64> = told.flatten_all().unwrap().to_vec1().unwrap();
        values[3 * t] += 1.0;
        let after = score(Some(&Tensor::from_vec(values, told.shape(), &Device::Cpu).unwrap()));
        assert_eq!(after[1], known[1], "clips are independent");
        for s in 0..6 {
            // The first two frames have no past, and their priors see nothing.
            assert_eq!(after[0][s] != known[0][s], s == t && s >= 2, "the action of frame {t} on frame {s}");
        }
    }
    // Nothing told is not the same as a zero that is told.
    let nan = (told.zeros_like().unwrap() * f64::NAN).unwrap();
    assert_eq!(score(Some(&nan)), score(None));
    assert_ne!(score(Some(&told.zeros_like().unwrap())), score(None));
}

#[test]
fn scales_are_those_of_the_training_clips() {
    let (model, x) = (changed(DType::F64, |config| config.actions = 3), clips(4, 1));
    let score =
        |actions: &Tensor| rows(&model.log_prob(Footage::new(&x, Some(actions)), &mut FlowRng::seed_from(9)).unwrap());
    let told = actions(4);
    let before = score(&told);
    model.scale_actions(&[(10.0, 2.0), (-1.0, 0.5), (0.0, 1.0)]).unwrap();
    let scale = |values: [f64; 3]| Tensor::new(&values, &Device::Cpu).unwrap().reshape((1, 1, 3)).unwrap();
    let moved = told.broadcast_mul(&scale([2.0, 0.5, 1.0])).unwrap().broadcast_add(&scale([10.0, -1.0, 0.0])).unwrap();
    let after = score(&moved);
    assert!(before.iter().flatten().zip(after.iter().flatten()).all(|(a, b)| (a - b).abs() < 1e-9));
    assert!(
        model.scale_actions(&[(0.0, 1.0)]).unwrap_err().to_string().contains("1 numbers are told, the model takes 3")
    );
}

#[test]
fn futures_follow_what_they_are_told() {
    let (model, seen) = (changed(DType::F32, |config| config.actions = 3), clips(3, 7));
    let futures = |actions: Option<Tensor>, weight: f64| {
        let mut predictor = Predictor::new(&model);
        predictor.observe(&seen).unwrap();
        let predictor = match actions {
            Some(actions) => predictor.tell(&actions).unwrap(),
            None => predictor,
        };
        let drawn = predictor.guide(weight).unwrap().repeat(2).unwrap();
        let drawn = { drawn }.predict(2, &[0.8], &mut FlowRng::seed_from(1)).unwrap();
        drawn.flatten_all().unwrap().to_vec1::<u8>().unwrap()
    };
    let told = (actions(2) * 3.0).unwrap();
    let plain = futures(Some(told.clone()), 1.0);
    assert_ne!(plain, futures(None, 1.0));
    assert_ne!(plain, futures(Some(told.clone()), 4.0));
    // What is not told cannot be guided by, and a weight of zero leaves the means of a model that is told nothing.
    assert_eq!(futures(None, 4.0), futures(None, 1.0));
    assert_ne!(futures(Some(told.clone()), 0.0), plain);

    let mut predictor = Predictor::new(&model);
    predictor.observe(&seen).unwrap();
    let mut predictor = predictor.tell(&told).unwrap();
    let error = predictor.predict(3, &[0.8], &mut FlowRng::seed_from(1)).unwrap_err().to_string();
    assert!(error.contains("those of 2 frames were told"), "{error}");
    let other = changed(DType::F32, |_| ());
    let mut deaf = Predictor::new(&other);
    deaf.observe(&seen).unwrap();
    assert!(deaf.tell(&told).err().unwrap().to_string().contains("the model takes none"));
    assert!(model.log_prob(Footage::new(&seen, Some(&told)), &mut FlowRng::seed_from(1)).is_err());
    assert!(model.frame().store().parameter_count() > other.frame().store().parameter_count());
}

/// An archive of these members.
fn archive(path: &Path, members: &[(&str, Vec<u8>)]) {
    let mut zip = zip::ZipWriter::new(std::fs::File::create(path).unwrap());
    for (name, bytes) in members {
        zip.start_file(format!("{name}.npy"), zip::write::SimpleFileOptions::default()).unwrap();
        zip.write_all(bytes).unwrap();
    }
    zip.finish().unwrap();
}

fn array<T: flow_core::files::numpy::Element>(shape: &[u64], values: &[T]) -> Vec<u8> {
    flow_core::files::numpy::encode(shape, values).unwrap()
}

#[test]
fn archives_tell_actions_or_labels() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("robot.npz");
    let frames: Vec<u8> = (0..10 * 4 * 6 * 6).map(|v| (v % 251) as u8).collect();
    let x = array(&[10, 4, 6, 6], &frames);
    let told: Vec<f32> = (0..10 * 4 * 2).map(|v| v as f32).collect();
    let mut options = OpenOptions::default().with_held_out(0.1, 0.2);
    options.layout = flow_video::data::Layout::Nthw;
    options.actions = true;
    archive(&path, &[("x", x.clone()), ("actions", array(&[10, 4, 2], &told))]);
    let all = data::open_all(&path, &options).unwrap();
    assert_eq!((all.action_size(), all.get(3).unwrap().actions()), (2, &told[24..32]));
    let window = all.batch_actions(&[(3, 1), (0, 2)], 2).unwrap().unwrap();
    assert_eq!(window.flatten_all().unwrap().to_vec1::<f32>().unwrap(), [26.0, 27.0, 28.0, 29.0, 4.0, 5.0, 6.0, 7.0]);
    let (mean, deviation) = all.action_scale()[0];
    assert!((mean - 39.0).abs() < 1e-9 && (deviation - 23.0868).abs() < 1e-3, "{mean} {deviation}");
    let cut = all.get(3).unwrap().clone();
    assert_eq!(cut.actions().len(), 8);

    archive(&path, &[("x", x.clone()), ("labels", array(&[10], &[0_i64, 1, 2, 0, 1, 2, 0, 1, 2, 2]))]);
    let splits = data::open(&path, &options).unwrap();
    assert_eq!((splits.train.action_size(), splits.test.action_size()), (3, 3));
    let mut untold = options.clone();
    untold.actions = false;
    assert_ne!(splits.fingerprint(), data::open(&path, &untold).unwrap().fingerprint());

    let refusals: [(&str, Vec<u8>, &str); 5] = [
        ("other", array(&[10], &[0_i64; 10]), "what is told beside the clips under actions or labels"),
        ("actions", array(&[10, 5, 2], &[0.0_f32; 100]), "as there are clips and frames"),
        ("actions", array(&[10, 4, 2], &[f32::INFINITY; 80]), "the action of frame 0 is infinite"),
        ("labels", array(&[9], &[0_i64; 9]), "a class number for each clip"),
        ("labels", array(&[10], &[-1_i64; 10]), "class numbers from 0"),
    ];
    for (name, member, expected) in refusals {
        archive(&path, &[("x", x.clone()), (name, member)]);
        let error = data::open_all(&path, &options).unwrap_err().to_string();
        assert!(error.contains(expected), "{name}: {error}");
    }
    let gif = folder.path().join("x.npy");
    std::fs::write(&gif, &x).unwrap();
    for path in [gif.as_path(), Path::new("digits")] {
        let mut told = OpenOptions::default();
        told.actions = true;
        let error = data::open(path, &told).unwrap_err().to_string();
        assert!(error.contains("told beside") || error.contains("tells nothing"), "{error}");
    }
}

#[test]
fn shapes_tell_their_direction() {
    let shapes = Shapes { clips: 40, validation: 2, test: 3, size: 20, frames: 3 };
    let (told, plain) = (shapes.told_splits(1).unwrap(), shapes.splits(1).unwrap());
    for (told, plain) in told.train.iter().zip(plain.train.iter()) {
        assert_eq!(told.values(), plain.values());
        let seen = shapes.direction(plain.frame(0).unwrap(), plain.frame(1).unwrap(), plain.shape()).unwrap();
        let row = &told.actions()[8..16];
        assert_eq!(row.iter().position(|v| *v == 1.0), Some(seen));
        assert_eq!(row.iter().sum::<f32>(), 1.0);
    }
}
