use flow_core::numerics::host;
use flow_core::testing::ThreadRanks;
use flow_core::train::Trainer;

use super::*;
use crate::data::{NormalizeMode, built_in};
use crate::model::{EncoderConfig, LikelihoodConfig};
use crate::shapes::Family;

fn run(batch: usize, warp: f64, objective: Objective) -> (PointRun, Vec<Vec<Point>>) {
    let clouds = built_in(&[Family::Mug], 8, 64).unwrap().train.clouds;
    let mut model = PointFlowConfig { latent: 4, objective, ..PointFlowConfig::small() };
    model.encoder = EncoderConfig { point: vec![8, 16], head: vec![8], ..model.encoder };
    model.point.hidden = vec![16];
    let normalization = Normalization::of(&clouds, NormalizeMode::Set).unwrap();
    let run = PointRun {
        model,
        source: "mugs".into(),
        normalization,
        origin: [0.0; 3],
        batch,
        points: 32,
        replacement: false,
        rotate: false,
        warp,
        seed: 1,
        validation_clouds: 4,
    };
    (run, clouds)
}

#[test]
fn the_second_half_of_a_step_is_warped() {
    let matching = PointFlowConfig::small().objective;
    let batch = |warp: f64| {
        let (run, clouds) = run(4, warp, matching.clone());
        let (clouds, _, plain) = PointTask::new(run, &clouds, &[], &Device::Cpu).unwrap().batch().unwrap();
        (from_tensor(&clouds).unwrap(), plain.count)
    };
    let ((given, all), (warped, plain)) = (batch(0.0), batch(0.2));
    assert_eq!((all, plain), (4, 2));
    assert_eq!(given[..2], warped[..2]);
    // The others are the same points, moved by no more than a warp moves.
    for (a, b) in given[2..].iter().flatten().flatten().zip(warped[2..].iter().flatten().flatten()) {
        assert!(a != b && (b / a).ln().abs() <= 0.2 * 4.0, "{a} became {b}");
    }
}

#[test]
fn large_clouds_are_encoded_in_parts_of_a_steps_size() {
    let (run, _) = run(4, 0.0, PointFlowConfig::small().objective);
    let model = run.build(&Device::Cpu).unwrap();
    model.set_training(false);
    let clouds = FlowRng::seed_from(5).normal((2, 65, 3), DType::F32, &Device::Cpu).unwrap();
    let mean = |clouds: &Tensor| model.posterior(clouds).unwrap().mean;
    let every_other = |from: u32| {
        let places = Tensor::from_vec((0..32).map(|i| 2 * i + from).collect(), 32, &Device::Cpu).unwrap();
        mean(&clouds.index_select(&places, 1).unwrap())
    };
    let wanted = ((every_other(0) + every_other(1)).unwrap() / 2.0).unwrap();
    let small = clouds.narrow(1, 0, 63).unwrap();
    for (clouds, wanted) in [(&clouds, wanted), (&small, mean(&small))] {
        let found = run.latents(&model, clouds).unwrap();
        let error = (found - wanted).unwrap().abs().unwrap().max_all().unwrap().to_scalar::<f32>().unwrap();
        assert!(error < 1e-5, "{error}");
    }
    for wrong in [clouds.narrow(1, 0, 0), clouds.narrow(2, 0, 2), clouds.flatten(0, 1)] {
        let error = run.latents(&model, &wrong.unwrap()).unwrap_err();
        assert!(matches!(error, Error::Core(flow_core::Error::Shape { .. })), "{error}");
    }
}

#[test]
fn the_points_decide_which_checkpoint_is_best() {
    let (run, clouds) = run(4, 0.0, PointFlowConfig::small().objective);
    let mut task = PointTask::new(run, &clouds, &clouds, &Device::Cpu).unwrap();
    let names: Vec<String> =
        task.validate(&mut FlowRng::seed_from(1)).unwrap().iter().map(|metric| metric.name.to_string()).collect();
    assert_eq!(names, ["point_error", "matching_loss", "prior_error", "kl_nats"]);
}

#[test]
fn warps_that_make_no_sense_are_refused() {
    let refused = |batch, warp, objective: Objective| {
        let (run, clouds) = run(batch, warp, objective);
        PointTask::new(run, &clouds, &[], &Device::Cpu).err().map_or(String::new(), |e| e.to_string())
    };
    let matching = PointFlowConfig::small().objective;
    assert_eq!(refused(3, 0.2, matching.clone()), "");
    assert!(refused(2, 0.2, matching.clone()).contains("batch size"));
    assert!(refused(4, -0.1, matching.clone()).contains("warp"));
    assert!(refused(4, f64::NAN, matching).contains("warp"));
    assert!(refused(4, 0.2, PointFlowConfig::paper().objective).contains("flow matching"));
}

/// Latents are whitened with those of all ranks, each of which counts them once.
#[test]
fn ranks_move_running_statistics_as_one_process_does() {
    let train = |channel: Option<ThreadRanks>| -> Vec<f64> {
        let (run, clouds) = run(5, 0.0, PointFlowConfig::small().objective);
        let task = PointTask::new(run, &clouds, &[], &Device::Cpu).unwrap();
        let config = TrainConfig { steps: 3, validate_every: None, checkpoint_every: None, ..TrainConfig::default() };
        let trainer = Trainer::in_memory(config, task).unwrap();
        let mut trainer = match channel {
            Some(channel) => trainer.with_communicator(channel),
            None => trainer,
        };
        trainer.run(&mut ()).unwrap();
        let buffers = trainer.task().store().all().into_iter().filter(|p| p.name().contains("running_"));
        buffers.flat_map(|p| host::numbers(p.var()).unwrap()).collect()
    };
    let alone = train(None);
    assert!(alone.iter().any(|&v| v != 0.0 && v != 1.0));
    for together in ThreadRanks::run(3, |channel| train(Some(channel))) {
        let gap = alone.iter().zip(&together).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max);
        assert!(gap < 1e-5, "{gap}: {alone:?} {together:?}");
    }
}

#[test]
fn statistics_of_mixed_axes_are_not_shared_out() {
    let statistics = MovingStatistics::MixedAxes { points: 32 };
    let objective = Objective::Likelihood(LikelihoodConfig { statistics, ..LikelihoodConfig::paper() });
    let (run, clouds) = run(4, 0.0, objective);
    let mut task = PointTask::new(run, &clouds, &[], &Device::Cpu).unwrap();
    let channel = ThreadRanks::group(2).swap_remove(0);
    let message = task.share_out(Ranks::new(std::sync::Arc::new(channel))).unwrap_err().to_string();
    assert!(message.contains("mixed axes") && message.contains("single process"), "{message}");
}
