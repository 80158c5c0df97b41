//! Every builder makes a density: over the plane it adds up to one.

use candle_core::{DType, Device, Tensor};
use flow_core::testing::quadrature::total_probability;
use flow_core::testing::randomise;
use flow_core::{Bijector, Density, FlowRng, ParamStore};
use flow_density::model::{cnf, maf, matching, nsf_autoregressive, nsf_coupling, planar, radial, realnvp, sylvester};

use super::builders::precise;

/// `∫ p = 1 ± 2e-3` with randomised parameters, with and without a context. The noise is small: the normalisations' scales
/// multiply it by three, and a density that is steep in some place wants a finer grid than is worth its time.
macro_rules! adds_up {
    ($builder:expr, $bound:expr, $points:expr) => {
        for size in [0, 2] {
            let store = ParamStore::new(3, DType::F64, &Device::Cpu);
            let flow = $builder.context(size).build(&store).unwrap();
            randomise(&store, 0.1, &mut FlowRng::seed_from(5)).unwrap();
            let context = Tensor::new(&[[0.4_f64, -0.9]], &Device::Cpu).unwrap();
            let context = flow.bijector().context_shape().map(|_| &context);
            assert_eq!(context.is_some(), size > 0);
            let total = total_probability(&flow, context, [-$bound, $bound], $points).unwrap();
            assert!((total - 1.0).abs() < 2e-3, "{}, K = {size}: ∫ p = {total}", stringify!($builder));
            flow.set_training(false);
        }
    };
}

#[test]
fn flows_with_networks() {
    adds_up!(maf(2).transforms(2).hidden(&[8]), 30.0, 400);
    adds_up!(realnvp(2).transforms(2).hidden(&[8]), 30.0, 400);
    adds_up!(nsf_autoregressive(2).transforms(2).hidden(&[8]), 16.0, 800);
    adds_up!(nsf_coupling(2).transforms(2).hidden(&[8]), 16.0, 800);
}

#[test]
fn bumps() {
    adds_up!(planar(2).transforms(4).hidden(&[4]), 15.0, 400);
    adds_up!(radial(2).transforms(4).hidden(&[4]), 15.0, 400);
    adds_up!(sylvester(2).transforms(3).hidden(&[4]), 20.0, 500);
}

#[test]
fn continuous_flows() {
    adds_up!(precise(cnf(2)), 9.0, 120);
    adds_up!(precise(matching(2)), 9.0, 120);
}
