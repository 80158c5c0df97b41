//! Gradients of divergences against what does not share their code.

use candle_core::{DType, Device};
use flow_core::testing::randomise;
use flow_core::{Density, Flow, distribution::StandardGaussian};

use super::*;
use crate::model::{DiscreteFlow, planar, realnvp};
use crate::variational::Problem;

fn store() -> ParamStore {
    ParamStore::new(3, DType::F64, &Device::Cpu)
}

/// Couplings and planar layers turned round, with parameters away from their first values.
fn flow(store: &ParamStore) -> DiscreteFlow {
    let (couplings, bumps) = (store.root().pp("a"), store.root().pp("b"));
    let layers: Vec<Box<dyn flow_core::Bijector>> = vec![
        Box::new(realnvp(2).transforms(2).hidden(&[5]).bijector(&couplings).unwrap()),
        Box::new(planar(2).transforms(2).inverse().bijector(&bumps).unwrap()),
    ];
    let base = StandardGaussian::new(&[2], DType::F64, &Device::Cpu);
    let flow = Flow::new(store, flow_core::Chain::new(layers).unwrap(), base).unwrap();
    randomise(store, 0.2, &mut FlowRng::seed_from(1)).unwrap();
    flow
}

fn objective(divergence: Divergence, estimator: Estimator, samples: usize) -> Objective {
    Objective { divergence, estimator, samples, annealing: None }
}

/// Gradients, one number after the other, and the estimate.
fn differentiate<F>(task: &VariationalTask<'_, DiscreteFlow, F, ()>, factor: f64) -> (Vec<f64>, f64)
where
    F: Fn(&Tensor) -> LogDensityResult,
{
    let mut gradients = Gradients::new(task.q.store());
    let share = Share::whole(task.objective.samples);
    let metrics = task.differentiate(factor, share, &mut FlowRng::seed_from(9), &mut gradients).unwrap();
    let loss = metrics.objective.value;
    let all = gradients.iter().flat_map(|(param, gradient)| match gradient {
        Some(gradient) => gradient.flatten_all().unwrap().to_vec1::<f64>().unwrap(),
        None => vec![0.0; param.var().elem_count()],
    });
    (all.collect(), loss)
}

/// With the noise held, the estimate is a function of the parameters, and the total gradient its derivative.
#[test]
fn total_gradients_are_finite_differences_in_both_modes() {
    for divergence in [Divergence::Reverse, Divergence::Renyi { alpha: 0.5 }, Divergence::chi_squared()] {
        let store = store();
        let q = flow(&store);
        let task = |mode| {
            let objective = objective(divergence, Estimator::Total, 16);
            let log_density = |x: &Tensor| Problem::Banana.log_density(x);
            VariationalTask::new(&q, log_density, objective, ()).unwrap().backprop(mode)
        };
        let (plain, _) = differentiate(&task(Backprop::Plain), 0.7);
        let (reversible, _) = differentiate(&task(Backprop::Reversible), 0.7);
        assert!(plain.iter().zip(&reversible).all(|(a, b)| (a - b).abs() < 1e-8 * (1.0 + a.abs())));
        let mut start = 0;
        for param in store.trainable() {
            let before = param.var().as_tensor().copy().unwrap();
            let count = before.elem_count();
            let entries = before.flatten_all().unwrap().to_vec1::<f64>().unwrap();
            let at = count / 2;
            let moved = |step: f64| {
                let mut entries = entries.clone();
                entries[at] += step;
                param.set(&Tensor::from_vec(entries, before.shape(), &Device::Cpu).unwrap()).unwrap();
                let loss = differentiate(&task(Backprop::Plain), 0.7).1;
                param.set(&before).unwrap();
                loss
            };
            let numerical = (moved(1e-5) - moved(-1e-5)) / 2e-5;
            let got = plain[start + at];
            assert!(
                (got - numerical).abs() < 1e-6 * (1.0 + got.abs()),
                "{divergence:?} {}: {got} {numerical}",
                param.name()
            );
            start += count;
        }
    }
}

/// Where the flow is the density, no sample says that anything is to be changed.
#[test]
fn path_derivatives_have_no_variance_where_the_fit_is_perfect() {
    let (ours, theirs) = (store(), store());
    let (q, p) = (flow(&ours), flow(&theirs));
    let log_density = |x: &Tensor| p.log_prob(x, None).map_err(candle_core::Error::wrap);
    for divergence in [Divergence::Reverse, Divergence::importance_weighted(), Divergence::chi_squared()] {
        let gradient = |estimator| {
            let task = VariationalTask::new(&q, log_density, objective(divergence, estimator, 8), ()).unwrap();
            let (gradient, loss) = differentiate(&task, 1.0);
            assert!(loss.abs() < 1e-9, "{divergence:?}: {loss}");
            gradient.iter().fold(0.0_f64, |most, g| most.max(g.abs()))
        };
        assert!(gradient(Estimator::PathDerivative) < 1e-9, "{divergence:?}");
        assert!(gradient(Estimator::Total) > 1e-2, "{divergence:?}");
    }
}

/// Both estimators have one mean, and the forward one goes where the other direction of the divergence says.
#[test]
fn estimators_agree_on_average() {
    let store = store();
    let q = flow(&store);
    let gradient = |divergence, estimator| {
        let objective = objective(divergence, estimator, 6000);
        let task = VariationalTask::new(&q, |x: &Tensor| Problem::Banana.log_density(x), objective, ()).unwrap();
        differentiate(&task, 1.0).0
    };
    let cosine = |a: &[f64], b: &[f64]| {
        let dot = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f64>();
        dot(a, b) / (dot(a, a) * dot(b, b)).sqrt()
    };
    let (total, path) =
        (gradient(Divergence::Reverse, Estimator::Total), gradient(Divergence::Reverse, Estimator::PathDerivative));
    let difference: f64 = total.iter().zip(&path).map(|(a, b)| (a - b).powi(2)).sum::<f64>();
    let size: f64 = total.iter().map(|a| a * a).sum();
    assert!(difference < 0.05 * size, "{difference} of {size}");
    let bound = |estimator| gradient(Divergence::Renyi { alpha: 0.5 }, estimator);
    assert!(cosine(&bound(Estimator::Total), &bound(Estimator::PathDerivative)) > 0.9);
    assert!(cosine(&gradient(Divergence::Forward, Estimator::Total), &total) > 0.3);
}
