//! Straightening as a training run.

use std::sync::Arc;

use candle_core::{DType, Device, Tensor};
use flow_core::cnf::matching::{ReflowConfig, ReflowPairs, ReflowTask};
use flow_core::cnf::{ConcatSquash, ConcatSquashConfig};
use flow_core::train::{Optimizer, OptimizerConfig, Task};
use flow_core::{FlowRng, Gradients, ParamStore};

#[test]
fn a_copy_learns_straight_paths_or_one_step_from_the_pairs_it_is_given() {
    let device = Device::Cpu;
    let build = |seed| {
        let store = ParamStore::new(seed, DType::F64, &device);
        let config = ConcatSquashConfig::new(&[16]);
        let field = Arc::new(ConcatSquash::new(&store.root().pp("field"), 2, Some(1), &config).unwrap());
        (store, field)
    };
    let rows = |t: &Tensor| t.flatten_all().unwrap().to_vec1::<f64>().unwrap();
    let (teacher, _) = build(1);
    // Groups of four rows whose context moves them: data = ε/2 + 3c.
    let pairs = |seed: u64| {
        let mut rng = FlowRng::seed_from(seed);
        let noise = rng.normal((32, 4, 2), DType::F64, &device).unwrap();
        let context = rng.normal((32, 1), DType::F64, &device).unwrap();
        let moved = context.affine(3.0, 0.0).unwrap().unsqueeze(2).unwrap();
        let data = noise.affine(0.5, 0.0).unwrap().broadcast_add(&moved).unwrap();
        ReflowPairs { noise, data, context: Some(context) }
    };
    for distill in [false, true] {
        let (store, field) = build(2);
        let config = ReflowConfig::new(1.0).distill(distill).batch(16).times_per_group(2);
        let run = serde_json::json!({ "distill": distill });
        let mut task = ReflowTask::new(run, config, (&store, field), &teacher, [pairs(3), pairs(4)]).unwrap();
        let mut rng = FlowRng::seed_from(5);
        task.initialize(&mut rng).unwrap();
        let same = |(name, t): (&String, &Tensor)| rows(t) == rows(&store.snapshot().unwrap()[name]);
        assert!(teacher.snapshot().unwrap().iter().all(same), "a copy begins with the teacher's weights");
        let before = task.validate(&mut FlowRng::seed_from(6)).unwrap().objective.value;
        let mut optimizer = Optimizer::new(OptimizerConfig::adam(1e-2), &store).unwrap();
        for step in 0..300 {
            let mut gradients = Gradients::new(&store);
            task.step(step, &mut rng, &mut gradients).unwrap();
            optimizer.step(&gradients, 1.0).unwrap();
        }
        let after = task.validate(&mut FlowRng::seed_from(6)).unwrap().objective.value;
        assert!(after < 0.1 * before, "distill {distill}: {before} became {after}");
    }
    // Pairs that do not fit are named.
    let (store, field) = build(2);
    let config = ReflowConfig::new(1.0).distill(false).batch(16).times_per_group(2);
    let attempt = |wrong: ReflowPairs| {
        ReflowTask::new(serde_json::Value::Null, config, (&store, field.clone()), &teacher, [pairs(3), wrong])
            .err()
            .map_or(String::new(), |e| e.to_string())
    };
    let good = pairs(4);
    let fewer = good.context.as_ref().map(|c| c.narrow(0, 0, 31).unwrap());
    assert!(attempt(ReflowPairs { context: fewer, ..good.clone() }).contains("one for each group"));
    let short = good.data.narrow(1, 0, 3).unwrap();
    assert!(attempt(ReflowPairs { data: short, ..good.clone() }).contains("the shape of the noise"));
    let none = |t: &Tensor| t.narrow(0, 0, 0).unwrap();
    let empty = ReflowPairs { noise: none(&good.noise), data: none(&good.data), context: None };
    assert!(attempt(empty).contains("there are none"));
}
