//! Posteriors from pairs: the exact one is calibrated, others are not, and a fit comes to it.

use candle_core::{DType, Device, Tensor};
use flow_core::distribution::ConditionalGaussian;
use flow_core::layers::Identity;
use flow_core::nn::Conditioner;
use flow_core::train::FitOptions;
use flow_core::{Flow, FlowRng, ParamStore};
use flow_density::data::Standard;
use flow_density::posterior::{Pairs, Posterior, Simulator, fit_posterior};
use flow_density::{maf, realnvp};

/// The posterior of `θ ~ N(0, 1)` after `x ~ N(θ, ½)`: mean `0.8·x`, variance 0.2, its deviation times `width`.
struct Exact {
    width: f64,
    shift: f64,
}

impl Conditioner for Exact {
    fn forward(&self, x: &Tensor, _context: Option<&Tensor>) -> flow_core::Result<Tensor> {
        let mean = x.affine(0.8, self.shift)?;
        let log_std = mean.affine(0.0, (0.2_f64.sqrt() * self.width).ln())?;
        Ok(Tensor::cat(&[mean, log_std], 1)?)
    }
}

fn unit(columns: usize) -> Standard {
    Standard { mean: vec![0.0; columns], std: vec![1.0; columns], ..Standard::default() }
}

fn pairs(count: usize) -> Pairs {
    let simulate = |rng: &mut FlowRng| {
        let theta = rng.next_normal();
        (vec![theta], vec![theta + 0.5 * rng.next_normal()])
    };
    Pairs::simulate(count, simulate, &mut FlowRng::seed_from(1)).unwrap()
}

#[test]
fn calibration_tells_the_exact_posterior_from_others() {
    let store = ParamStore::new(0, DType::F32, &Device::Cpu);
    let calibrated = |width, shift| {
        let base = ConditionalGaussian::new(&[1], &[1], Exact { width, shift });
        let flow = Flow::new(&store, Identity::new(&[1]), base).unwrap();
        let posterior = Posterior::new(&flow, unit(1), unit(1)).unwrap();
        posterior.calibrate(&pairs(1000), 99, &mut FlowRng::seed_from(2)).unwrap()
    };
    let exact = calibrated(1.0, 0.0);
    assert!(exact.least_p_value() > 0.01 && exact.warning().is_none(), "{exact}");
    assert!((exact.coverage_of(0.9) - 0.9).abs() < 0.03 && (exact.coverage_of(0.5) - 0.5).abs() < 0.05, "{exact}");
    for (width, shift, says) in [(0.6, 0.0, "overconfident"), (1.7, 0.0, "too wide"), (1.0, 0.15, "not calibrated")] {
        let other = calibrated(width, shift);
        assert!(other.least_p_value() < 1e-4 && other.to_string().contains(says), "{width} {shift}: {other}");
    }
}

/// The distance from the exact posterior, on average over observations.
#[test]
fn a_fit_comes_to_the_exact_posterior() {
    let simulate = |count, seed| {
        Pairs::simulate(count, |rng| Simulator::Gaussian.run(rng), &mut FlowRng::seed_from(seed)).unwrap()
    };
    let q = maf(2).context(2).transforms(2).hidden(&[16]).build(&ParamStore::new(0, DType::F32, &Device::Cpu)).unwrap();
    let (posterior, fitted) = fit_posterior(&q, &simulate(8000, 1), FitOptions::new(250).learning_rate(0.01)).unwrap();
    assert!(fitted.curve.iter().any(|point| point.validation.is_some()));
    let fresh = simulate(1000, 2);
    let logs = posterior.log_prob(&fresh).unwrap();
    let exact = |(theta, x): (&[f64], &[f64])| Simulator::Gaussian.exact_log_prob(theta, x).unwrap();
    let gaps: f64 = fresh.theta().chunks(2).zip(fresh.x().chunks(2)).map(exact).zip(logs).map(|(e, l)| e - l).sum();
    assert!((0.0..0.03).contains(&(gaps / 1000.0 + 0.003)), "{}", gaps / 1000.0);
    let calibration = posterior.calibrate(&fresh, 99, &mut FlowRng::seed_from(3)).unwrap();
    assert!(calibration.warning().is_none() && calibration.ranks.len() == 2, "{calibration}");
    let draws = posterior.sample(&[1.0, 0.2], 4000, &mut FlowRng::seed_from(4)).unwrap();
    assert_eq!(draws.len(), 8000);
}

#[test]
fn what_makes_no_posterior_is_refused() {
    let store = ParamStore::new(0, DType::F32, &Device::Cpu);
    let q = realnvp(2).context(1).transforms(1).hidden(&[4]).build(&store).unwrap();
    let refused = |outcome: flow_density::Result<()>, says: &str| {
        let error = outcome.unwrap_err().to_string();
        assert!(error.contains(says), "{says}: {error}");
    };
    refused(Posterior::new(&q, unit(3), unit(1)).map(drop), "is over [2], there are 3");
    let posterior = Posterior::new(&q, unit(2), unit(1)).unwrap();
    let mut rng = FlowRng::seed_from(1);
    refused(posterior.sample(&[0.0, 1.0], 3, &mut rng).map(drop), "must be 1 finite numbers");
    refused(posterior.sample(&[f64::NAN], 3, &mut rng).map(drop), "must be 1 finite numbers");
    refused(posterior.log_prob(&pairs(5)).map(drop), "have 1 parameters and 1 observed");
    let two = Pairs::new(2, vec![0.5; 60], 1, vec![0.1; 30]).unwrap();
    refused(posterior.calibrate(&two, 100, &mut rng).map(drop), "99 or 199; got 100");
    refused(posterior.calibrate(&two.split(5, 0).1, 99, &mut rng).map(drop), "at least 25");
    refused(fit_posterior(&q, &two, FitOptions::new(2)).map(drop), "one and the same number");
    refused(fit_posterior(&q, &two.split(5, 0).1, FitOptions::new(2)).map(drop), "at least 10");
}
