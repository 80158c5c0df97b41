//! Densities and options that make no fit.

use candle_core::{DType, Tensor};
use flow_core::distribution::GaussianMixture;
use flow_core::layers::ActNorm;
use flow_core::{Flow, FlowRng};
use flow_density::variational::{
    Constraint, Divergence, Energy, LogDensityResult, VariationalOptions, Weighted, constrained, diagnose,
    fit_reverse_kl,
};
use flow_density::{Error, realnvp};

use super::store;

fn refused(log_density: impl Fn(&Tensor) -> LogDensityResult, options: VariationalOptions<'_>) -> Error {
    let q = realnvp(2).transforms(1).hidden(&[4]).build(&store(DType::F64)).unwrap();
    fit_reverse_kl(&q, log_density, options).unwrap_err()
}

fn options() -> VariationalOptions<'static> {
    VariationalOptions::new(5).samples(16).diagnostic_draws(50)
}

fn normal(x: &Tensor) -> LogDensityResult {
    x.sqr()?.sum(1)? * -0.5
}

#[test]
fn what_a_log_density_must_not_return() {
    let everywhere = |value: f64| move |x: &Tensor| normal(x)? + Tensor::full(value, x.dim(0)?, x.device())?;
    let check = |error: Error, says: &[&str]| match &error {
        Error::LogDensity { .. } => says.iter().for_each(|s| assert!(error.to_string().contains(s), "{s}: {error}")),
        other => panic!("{other}"),
    };
    check(refused(everywhere(f64::NAN), options()), &["NaN for 16 of 16 samples", "first at ["]);
    check(refused(everywhere(f64::INFINITY), options()), &["+∞"]);
    check(refused(everywhere(f64::NEG_INFINITY), options()), &["-∞ at all 16 samples", "constraint"]);
    check(refused(|x| x.sqr(), options()), &["[16, 2] for 16 samples", "[16]; sum over the entries"]);
    check(refused(|x| normal(x)?.sum_all(), options()), &["returned the shape []"]);
    check(refused(|x| normal(&x.detach()), options()), &["does not depend on its argument", "no `detach`"]);
    check(refused(|_| candle_core::bail!("no such school"), options()), &["failed", "no such school"]);
    // Zero on half of the plane: the divergence is infinite, and the other direction is not.
    let half = |x: &Tensor| {
        let side = x.narrow(1, 0, 1)?.squeeze(1)?;
        let outside = Tensor::full(f64::NEG_INFINITY, x.dim(0)?, x.device())?;
        side.gt(0.0)?.where_cond(&normal(x)?, &outside)
    };
    check(refused(half, options().without_tail_check()), &["KL(q‖p) is infinite", "forward divergence"]);
    let q = realnvp(2).transforms(1).hidden(&[4]).build(&store(DType::F64)).unwrap();
    let fit = fit_reverse_kl(&q, half, options().divergence(Divergence::Forward).diagnostic_draws(500)).unwrap();
    let said = fit.diagnostics.to_string();
    assert!(fit.diagnostics.outside > 100 && said.contains("lie where the density is zero"), "{said}");
}

/// A density without an integral is refused before time is spent on it, whatever its form.
#[test]
fn improper_densities_are_refused() {
    let flat = |x: &Tensor| x.narrow(1, 1, 1)?.sqr()?.squeeze(1)? * -0.5;
    let wave = |x: &Tensor| {
        let above = (x.narrow(1, 1, 1)? - x.narrow(1, 0, 1)?.sin()?)?.squeeze(1)?;
        above.sqr()? * -0.5
    };
    for error in [refused(flat, options()), refused(wave, options())] {
        assert!(matches!(error, Error::Improper { coordinate: 0 }), "{error}");
        assert!(error.to_string().contains("no finite integral"), "{error}");
    }
    // Where it was asked for, the diagnostics say it.
    let q = realnvp(2).transforms(1).hidden(&[4]).build(&store(DType::F64)).unwrap();
    fit_reverse_kl(&q, flat, options().without_tail_check()).unwrap();
    let found = diagnose(&q, flat, 100, &mut FlowRng::seed_from(1)).unwrap();
    assert!(found.does_not_decay == Some(0) && found.to_string().contains("does not fall off"), "{found}");
    // Slow tails that have an integral pass, and so do bounded domains, on which a flow has nothing far out.
    let cauchy = |x: &Tensor| (x.sqr()? + 1.0)?.log()?.sum(1)?.neg();
    fit_reverse_kl(&q, cauchy, options()).unwrap();
    for energy in Energy::ALL {
        fit_reverse_kl(&q, |z| energy.log_density(z), options()).unwrap();
    }
    let bounded = constrained(&store(DType::F64), &[Constraint::Simplex(3)], |path, n| {
        realnvp(n).transforms(1).hidden(&[4]).bijector(path)
    });
    fit_reverse_kl(&bounded.unwrap(), |x| x.log()?.sum(1), options()).unwrap();
}

#[test]
fn options_and_flows_that_make_no_fit() {
    for (options, says) in [
        (options().samples(0), "samples of a step"),
        (options().samples(1).divergence(Divergence::Forward), "at least 2"),
        (options().divergence(Divergence::Renyi { alpha: 1.0 }), "other than 1"),
        (options().annealing(0.0, 10), "annealing"),
        (options().annealing(0.5, 0), "annealing"),
        (options().diagnostic_draws(1), "diagnostics"),
        (options().learning_rate(-1.0), "learning_rate"),
    ] {
        let error = refused(normal, options).to_string();
        assert!(error.contains(says), "{says}: {error}");
    }
    let store = store(DType::F64);
    let norm = ActNorm::new(&store.root(), &[2]).unwrap();
    let mixture = GaussianMixture::new(&store.root().pp("base"), &[2], 2, 1.0).unwrap();
    let q = Flow::new(&store, norm, mixture).unwrap();
    let error = fit_reverse_kl(&q, normal, options()).unwrap_err().to_string();
    assert!(error.contains("cannot be differentiated"), "{error}");
    assert!(Weighted::draw(&q, normal, 0, &mut FlowRng::seed_from(1)).is_err());
    let q = realnvp(2).transforms(1).hidden(&[4]).build(&super::store(DType::F64)).unwrap();
    let weighted = Weighted::draw(&q, normal, 5, &mut FlowRng::seed_from(1)).unwrap();
    assert!(weighted.mean(|x| x.sum_all()).is_err());
}
