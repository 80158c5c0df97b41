use candle_core::{DType, Device};

use super::*;
use crate::distribution::StandardGaussian;
use crate::layers::{ActNorm, MaskedAutoregressive};
use crate::nn::MlpConfig;
use crate::train::StopFlag;
use crate::transformer::{Affine, ScaleBound};
use crate::{Bijector, Chain, Flow, Param};

type Conditional = Flow<Chain, StandardGaussian>;

/// Affine maps of one number, conditioned on one number.
fn conditional(seed: u64) -> Conditional {
    let store = ParamStore::new(seed, DType::F32, &Device::Cpu);
    let config = MlpConfig::new(&[16]).context(1);
    let affine = Affine::new(ScaleBound::SoftClamp(3.0));
    let net = MaskedAutoregressive::new(&store.root().pp("net"), 1, affine, &config).unwrap();
    let norm = ActNorm::new(&store.root().pp("norm"), &[1]).unwrap();
    let layers: Vec<Box<dyn Bijector>> = vec![Box::new(norm), Box::new(net)];
    Flow::new(&store, Chain::new(layers).unwrap(), StandardGaussian::new(&[1], DType::F32, &Device::Cpu)).unwrap()
}

/// `y = sin 2c + 0.2 ε` for `c` in [-1, 1].
fn waves(rows: usize, seed: u64) -> (Tensor, Tensor) {
    let mut rng = FlowRng::seed_from(seed);
    let c = rng.uniform((rows, 1), DType::F32, &Device::Cpu).unwrap().affine(2.0, -1.0).unwrap();
    let noise = rng.normal((rows, 1), DType::F32, &Device::Cpu).unwrap().affine(0.2, 0.0).unwrap();
    ((c.affine(2.0, 0.0).unwrap().sin().unwrap() + noise).unwrap(), c)
}

/// `½ ln(2πe·0.2²)`.
const ENTROPY: f64 = -0.190_5;

#[test]
fn a_conditional_density_reaches_its_entropy_and_ends_with_its_best_weights() {
    let flow = conditional(0);
    let ((y, c), (held, held_c)) = (waves(4000, 1), waves(2000, 2));
    let options = FitOptions::new(600).learning_rate(1e-2).context(&c).validation(&held, Some(&held_c));
    let fitted = fit(&flow, &y, options).unwrap();
    let (best, step) = fitted.summary.best.unwrap();
    // A standard error of the mean of 2,000 rows is 0.016.
    assert!(best > ENTROPY - 0.05 && best < ENTROPY + 0.08, "{best}");
    let now = -flow.log_prob(&held, Some(&held_c)).unwrap().mean_all().unwrap().to_scalar::<f32>().unwrap();
    assert!((f64::from(now) - best).abs() < 1e-4, "{now}, best {best} at {step}");
    let validated: Vec<_> = fitted.curve.iter().filter(|p| p.validation.is_some()).collect();
    assert_eq!(validated.len(), 20);
    assert!(fitted.curve.windows(2).all(|p| p[0].step < p[1].step));
    assert!(validated[0].validation.unwrap() > best + 0.1, "{validated:?}");
}

#[test]
fn early_stop_ends_a_fit_before_its_steps() {
    let flow = conditional(0);
    let ((y, c), (held, held_c)) = (waves(20, 1), waves(500, 2));
    let options = FitOptions::new(4000).learning_rate(2e-2).context(&c).validation(&held, Some(&held_c)).patience(2);
    let fitted = fit(&flow, &y, options.engine(|config| config.validate_every = Some(50))).unwrap();
    assert!(fitted.summary.stopped_early && fitted.summary.step < 4000, "{:?}", fitted.summary);
}

#[test]
fn a_folder_resumes_to_the_same_bits_and_refuses_other_data() {
    let (y, c) = waves(200, 1);
    let options = || FitOptions::new(30).context(&c).batch(50);
    let weights = |flow: &Conditional| -> Vec<Vec<f32>> {
        let flat = |p: &Param| p.tensor().flatten_all().unwrap().to_vec1().unwrap();
        flow.store().all().iter().map(flat).collect()
    };
    let whole = conditional(0);
    fit(&whole, &y, options()).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let stopped = StopFlag::new();
    stopped.request();
    let parts = conditional(0);
    let first = fit(&parts, &y, options().folder(folder.path()).stop(stopped)).unwrap();
    assert!(first.summary.interrupted && first.summary.step == 1);
    let parts = conditional(0);
    let rest = fit(&parts, &y, options().folder(folder.path())).unwrap();
    assert_eq!((rest.summary.step, rest.summary.interrupted), (30, false));
    assert_eq!(weights(&whole), weights(&parts));
    let other = waves(200, 7).0;
    let message = fit(&conditional(0), &other, options().folder(folder.path())).unwrap_err().to_string();
    assert!(message.contains("checksum"), "{message}");
}

#[test]
fn what_cannot_be_fitted_is_named() {
    let (y, c) = waves(20, 1);
    let flow = conditional(0);
    let mut values = y.flatten_all().unwrap().to_vec1::<f32>().unwrap();
    values[13] = f32::INFINITY;
    let broken = Tensor::from_vec(values, (20, 1), &Device::Cpu).unwrap();
    let error = fit(&flow, &broken, FitOptions::new(5).context(&c)).unwrap_err();
    assert!(matches!(&error, Error::NonFiniteRow { row: 13, .. }), "{error}");
    let few = c.narrow(0, 0, 3).unwrap();
    let message = fit(&flow, &y, FitOptions::new(5).context(&few)).unwrap_err().to_string();
    assert!(message.contains("20 rows") && message.contains("3"), "{message}");
    let none = y.narrow(0, 0, 0).unwrap();
    assert!(fit(&flow, &none, FitOptions::new(5)).unwrap_err().to_string().contains("no rows"));
}

/// A density that is scored without a graph, as under a forgotten `no_grad`.
struct Detached(Conditional);

impl Density for Detached {
    fn store(&self) -> &ParamStore {
        self.0.store()
    }
    fn event_shape(&self) -> &[usize] {
        self.0.event_shape()
    }
    fn log_prob(&self, x: &Tensor, context: Option<&Tensor>) -> Result<Tensor> {
        self.0.log_prob(x, context)
    }
    fn initialize(&self, x: &Tensor, context: Option<&Tensor>) -> Result<()> {
        self.0.initialize(x, context)
    }
    fn set_training(&self, training: bool) {
        self.0.set_training(training);
    }
    fn log_prob_backward(
        &self,
        x: &Tensor,
        context: Option<&Tensor>,
        _weight: &Tensor,
        _mode: Backprop,
        _gradients: &mut Gradients,
    ) -> Result<crate::Scored> {
        let _paused = self.store().no_grad();
        let log_prob = self.log_prob(x, context)?;
        Ok(crate::Scored { log_prob, grad_x: x.zeros_like()?, grad_context: None, fell_back: false })
    }
    fn sample(&self, n: usize, context: Option<&Tensor>, temperature: f64, rng: &mut FlowRng) -> Result<Tensor> {
        self.0.sample(n, context, temperature, rng)
    }
}

#[test]
fn a_fit_that_moves_no_parameter_is_an_error() {
    let (y, c) = waves(20, 1);
    let message = fit(&Detached(conditional(0)), &y, FitOptions::new(5).context(&c)).unwrap_err().to_string();
    assert!(message.contains("training step 0") && message.contains("no parameter a gradient"), "{message}");
}

#[test]
fn a_batch_with_a_row_that_is_not_finite_names_it() {
    let flow = conditional(0);
    let (y, c) = waves(6, 1);
    let rows: Vec<f32> = (0..6).map(|i| if i == 4 { f32::NAN } else { 0.1 * i as f32 }).collect();
    let broken = Tensor::from_vec(rows, (6, 1), &Device::Cpu).unwrap();
    let weight = Tensor::full(-1f32, 6, &Device::Cpu).unwrap();
    for mode in [Backprop::Plain, Backprop::Reversible] {
        let mut gradients = Gradients::new(flow.store());
        flow.log_prob_backward(&y, Some(&c), &weight, mode, &mut gradients).unwrap();
        let error = flow.log_prob_backward(&broken, Some(&c), &weight, mode, &mut gradients).unwrap_err();
        assert!(matches!(error, Error::NonFiniteRow { row: 4, .. }), "{error}");
    }
}
