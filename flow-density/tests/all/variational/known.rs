//! Densities whose integral is known, at sizes that are quick; `density fit --problem` has the real ones.

use candle_core::{DType, Tensor};
use flow_core::layers::constraint::Simplex;
use flow_core::train::StopFlag;
use flow_core::{Backprop, Density, FlowRng};
use flow_density::variational::{
    Constraint, Divergence, Energy, Problem, VariationalOptions, Weighted, constrained, fit_reverse_kl,
};
use flow_density::{nsf_coupling, planar, realnvp};

use super::store;

/// Under a flow over each domain, importance weights of the even density find the domain's size: what a wrong
/// log-determinant or a part that is never reached would spoil.
#[test]
fn domains_have_their_sizes() {
    let cases: [(&[Constraint], f64); 5] = [
        // Of a parabola over each interval, (4³/6)²: an even density has weights without a bound at the ends.
        (&[Constraint::Interval { count: 2, low: -1.0, high: 3.0 }], 4096.0 / 36.0),
        (&[Constraint::Simplex(3)], 0.5),
        // The entries below the diagonal of a factor are in the unit interval of ±1, and in the unit disc.
        (&[Constraint::CorrelationCholesky(3)], 2.0 * std::f64::consts::PI),
        (&[Constraint::Simplex(2), Constraint::Interval { count: 1, low: -1.0, high: 3.0 }], 64.0 / 6.0),
        (&[Constraint::CorrelationCholesky(2)], 2.0),
    ];
    for (constraints, size) in cases {
        let q = constrained(&store(DType::F64), constraints, |path, features| {
            realnvp(features).transforms(1).hidden(&[4]).bijector(path)
        });
        let spans = match constraints.last() {
            Some(Constraint::Interval { count, .. }) => *count,
            _ => 0,
        };
        let density = |x: &Tensor| {
            let x = x.narrow(1, x.dim(1)? - spans.max(1), spans.max(1))?;
            if spans == 0 { x.sum(1)?.zeros_like() } else { ((&x + 1.0)? * x.affine(-1.0, 3.0)?)?.log()?.sum(1) }
        };
        let weighted = Weighted::draw(&q.unwrap(), density, 40_000, &mut FlowRng::seed_from(1)).unwrap();
        let found = weighted.diagnostics().unwrap().log_evidence.exp();
        assert!((found / size - 1.0).abs() < 0.03, "{constraints:?}: {found}, expected {size}");
    }
    // Half-lines and ordered vectors have no size: a density on them whose integral is known.
    let parts = [Constraint::Positive(1), Constraint::LogPositive(1), Constraint::Ordered(2)];
    let q = constrained(&store(DType::F64), &parts, |path, n| realnvp(n).transforms(1).hidden(&[4]).bijector(path));
    // 2x·e^-x²·2y·e^-y²·N(a)·N(b) with a < b: one half. Little of it lies where weights would be large and rare.
    let density = |x: &Tensor| {
        let (positive, real) = (x.narrow(1, 0, 2)?, x.narrow(1, 2, 2)?.sqr()?.sum(1)?);
        let twice = (&positive * 2.0)?.log()?.sum(1)?;
        (((real * -0.5)? - positive.sqr()?.sum(1)?)? + twice)? - std::f64::consts::TAU.ln()
    };
    let weighted = Weighted::draw(&q.unwrap(), density, 40_000, &mut FlowRng::seed_from(1)).unwrap();
    let found = weighted.diagnostics().unwrap().log_evidence.exp();
    assert!((found / 0.5 - 1.0).abs() < 0.05, "{found}");
}

#[test]
fn integrals_of_the_papers_energies() {
    // Beside the envelope along z1, 2Γ(5/4)·(2·8⁴)^¼, a branch of width s has √(2π)·s; the envelope along z2 takes a little.
    let envelope = 2.0 * 0.906_402_477_055_477 * 8192.0_f64.powf(0.25);
    let branches = |widths: f64| (widths * std::f64::consts::TAU.sqrt() * envelope).ln();
    let expected = [(1.8775, 2e-4), (branches(0.4), 5e-4), (branches(0.7), 2e-3), (branches(0.75), 5e-3)];
    for (energy, (known, most)) in Energy::ALL.into_iter().zip(expected) {
        let found = energy.log_evidence().unwrap();
        assert!((found - known).abs() < most, "{energy}: {found}, expected {known}");
        assert!(energy == Energy::U1 || found < known, "{energy}: {found} above {known}");
    }
}

/// A divergence by quadrature is what samples say that it is.
#[test]
fn quadrature_and_samples_agree() {
    let q = planar(2).transforms(2).inverse().build(&store(DType::F64)).unwrap();
    let exact = Energy::U1.divergence(&q).unwrap();
    let weighted =
        Weighted::draw(&q, |z| Energy::U1.log_density(z), 20_000, &mut FlowRng::seed_from(1)).unwrap().diagnostics();
    let weighted = weighted.unwrap();
    let sampled = Energy::U1.log_evidence().unwrap() - weighted.elbo;
    assert!((exact - sampled).abs() < 4.0 * weighted.elbo_error, "{exact} {sampled} ± {}", weighted.elbo_error);
}

/// A posterior of probabilities: draws that are chosen by their weights have the moments of the Dirichlet distribution.
#[test]
fn a_posterior_on_the_simplex() {
    let q = constrained(&store(DType::F32), &[Constraint::Simplex(3)], |path, n| {
        nsf_coupling(n).transforms(2).hidden(&[16]).bijector(path)
    });
    let (q, simplex) = (q.unwrap(), Simplex::new(3).unwrap());
    // Counts 4, 2, 9 under an even prior: Dirichlet(5, 3, 10), with Γ(5)Γ(3)Γ(10)/Γ(18).
    let counts = Tensor::new(&[[4.0_f32, 2.0, 9.0]], &candle_core::Device::Cpu).unwrap();
    let log_density =
        |x: &Tensor| simplex.complete(x).map_err(candle_core::Error::wrap)?.log()?.broadcast_mul(&counts)?.sum(1);
    let options = VariationalOptions::new(150).samples(128).learning_rate(0.01).diagnostic_draws(4000);
    let fit = fit_reverse_kl(&q, log_density, options).unwrap();
    let log_evidence = (24.0_f64 * 2.0 * 362_880.0).ln() - (2..18).map(|k| f64::from(k).ln()).sum::<f64>();
    let found = &fit.diagnostics;
    assert!((found.elbo - log_evidence).abs() < 0.03 && found.effective_share > 0.9, "{found}; {log_evidence}");
    assert!((found.log_evidence - log_evidence).abs() < 0.01, "{found}");
    let weighted = Weighted::draw(&q, log_density, 4000, &mut FlowRng::seed_from(1)).unwrap();
    let drawn = weighted.resample(4000, &mut FlowRng::seed_from(2)).unwrap();
    let mean = drawn.mean(0).unwrap().to_vec1::<f32>().unwrap();
    assert!((mean[0] - 5.0 / 18.0).abs() < 0.01 && (mean[1] - 3.0 / 18.0).abs() < 0.01, "{mean:?}");
    let first = weighted.mean(|x| x.narrow(1, 0, 1)?.squeeze(1)).unwrap();
    assert!((first - 5.0 / 18.0).abs() < 0.01);
}

/// Every divergence comes to the bent normal.
#[test]
fn divergences_fit_the_banana() {
    for (divergence, limit) in
        [(Divergence::Reverse, 0.05), (Divergence::Forward, 0.1), (Divergence::Renyi { alpha: 0.5 }, 0.1)]
    {
        let q = realnvp(2).transforms(4).hidden(&[16]).build(&store(DType::F32)).unwrap();
        let options = VariationalOptions::new(250).divergence(divergence).samples(128).learning_rate(0.01);
        let options = options.annealing(0.3, 50).diagnostic_draws(2000);
        let fit = fit_reverse_kl(&q, |x| Problem::Banana.log_density(x), options).unwrap();
        assert!(fit.diagnostics.elbo.abs() < limit, "{divergence:?}: {}", fit.diagnostics);
        assert!(fit.curve.len() >= 25 && fit.curve.iter().any(|point| point.validation.is_some()));
    }
}

#[test]
fn a_fit_that_was_stopped_goes_on_to_the_same_bits() {
    let folder = tempfile::tempdir().unwrap();
    let run = |steps: u64, folder: Option<&std::path::Path>, mode| {
        let store = store(DType::F32);
        let q = realnvp(2).transforms(2).hidden(&[8]).build(&store).unwrap();
        let options =
            VariationalOptions::new(20).samples(32).diagnostic_draws(100).backprop(mode).stop(StopFlag::new());
        let options = options.engine(|config| {
            config.steps = steps;
            config.schedule = flow_core::train::ScheduleConfig::constant(2);
            config.validate_every = None;
        });
        let options = match folder {
            Some(folder) => options.folder(folder),
            None => options,
        };
        fit_reverse_kl(&q, |x| Problem::Banana.log_density(x), options).unwrap();
        store.fingerprint("").unwrap()
    };
    let whole = run(20, None, Backprop::Reversible);
    let part = run(8, Some(folder.path()), Backprop::Reversible);
    assert_ne!(part, whole);
    assert_eq!(run(20, Some(folder.path()), Backprop::Reversible), whole);
}

#[test]
fn draws_have_no_gradient_unless_they_are_asked_for() {
    let store = store(DType::F32);
    let q = realnvp(2).transforms(2).hidden(&[8]).build(&store).unwrap();
    assert!(!q.sample(3, None, 1.0, &mut FlowRng::seed_from(1)).unwrap().track_op());
    let weighted = Weighted::draw(&q, |x| Problem::Banana.log_density(x), 3, &mut FlowRng::seed_from(1)).unwrap();
    assert!(!weighted.x().track_op() && weighted.log_weights().len() == 3);
}
