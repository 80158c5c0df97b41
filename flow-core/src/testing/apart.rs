//! A bijector on the CPU with its kernels, and elsewhere.

use candle_core::{DType, Device, Tensor, Var};

use super::case::decoded;
use super::{Case, Domain, Elsewhere, Failure, Found, randomise};
use crate::autodiff::{gradient_or_zero, pair};
use crate::error::Direction;
use crate::{Bijector, FlowRng, Gradients, ParamStore, Result};

/// Rows of the batch.
const ROWS: usize = 3;

impl Elsewhere {
    /// Holds a bijector here against itself on the CPU with kernels: values, log-determinants and gradients in both
    /// directions, by automatic differentiation and by hand, while training and after, and data-dependent initialisation.
    ///
    /// # Errors
    /// The first [`Failure`].
    pub fn check(&self, case: &Case, dtype: DType, tolerance: f64) -> std::result::Result<f64, Failure> {
        self.compare(&format!("{case}, {dtype:?}"), tolerance, |device| found(case, dtype, device))
    }
}

/// A bijector with parameters away from their initial values, and a batch for it.
struct Setting<'a> {
    case: &'a Case,
    store: ParamStore,
    layer: Box<dyn Bijector>,
    x: Tensor,
    z: Tensor,
    context: Option<Tensor>,
}

fn found(case: &Case, dtype: DType, device: &Device) -> Result<Found> {
    let s = Setting::new(case, dtype, device)?;
    let mut found = Found::default();
    for training in [false, true] {
        s.layer.set_training(training);
        let what = if training { "training" } else { "trained" };
        found = found.and(&format!("{what}, encoding"), s.pass(Direction::Encode)?);
        found = found.and(&format!("{what}, decoding"), s.pass(Direction::Decode)?);
    }
    s.layer.set_training(false);
    s.layer.initialize(&s.x, s.context.as_ref())?;
    // Running statistics of the passes in training are among them.
    Ok(found.and("initialised", Found::default().params(&s.store)?))
}

impl<'a> Setting<'a> {
    fn new(case: &'a Case, dtype: DType, device: &Device) -> Result<Self> {
        let store = ParamStore::new(1, dtype, device);
        let layer = case.build(&store)?;
        layer.set_training(false);
        let mut rng = FlowRng::seed_from(7);
        randomise(&store, 0.2, &mut rng)?;
        let mut draw = |domain: Domain, shape: &[usize]| -> Result<Tensor> {
            Ok(domain.draw(ROWS, shape, dtype, &mut rng)?.to_device(device)?)
        };
        let drawn = draw(case.data, layer.event_shape())?;
        let z = draw(case.latent, layer.latent_shape())?;
        let context = layer.context_shape().map(|shape| draw(Domain::Real, shape)).transpose()?;
        let x = decoded(case.data, layer.as_ref(), drawn, context.as_ref())?;
        Ok(Setting { case, store, layer, x, z, context })
    }

    /// One direction: outside the graph, through it, and by the hand-written backward pass.
    fn pass(&self, direction: Direction) -> Result<Found> {
        let (context, encodes) = (self.context.as_ref(), direction == Direction::Encode);
        let input = if encodes { &self.x } else { &self.z };
        let run = |input: &Tensor, context: Option<&Tensor>| {
            if encodes { self.layer.encode(input, context) } else { self.layer.decode(input, context) }
        };
        let (value, log_det, tape) = {
            let _paused = self.store.no_grad();
            let taped = if encodes { Bijector::encode_taped } else { Bijector::decode_taped };
            taped(self.layer.as_ref(), input, context)?
        };
        let mut found = Found::default().tensor("value", &value)?.tensor("log-determinant", &log_det)?;
        if !encodes && !self.case.decode_differentiable {
            return Ok(found);
        }
        let mut rng = FlowRng::seed_from(17);
        let of_value = rng.normal(value.shape(), value.dtype(), value.device())?;
        let of_log_det = rng.normal(log_det.shape(), log_det.dtype(), log_det.device())?;

        let leaf = Var::from_tensor(input)?;
        let of_context = context.map(Var::from_tensor).transpose()?;
        let (tracked, log) = run(leaf.as_tensor(), of_context.as_ref().map(Var::as_tensor))?;
        let graph = (pair(&tracked, &of_value)? + pair(&log, &of_log_det)?)?.backward()?;
        let mut gradients = Gradients::new(&self.store);
        gradients.accumulate(&graph)?;
        let mut plain =
            Found::default().tensor("value", &tracked)?.tensor("of the input", &gradient_or_zero(&graph, &leaf)?)?;
        if let Some(of_context) = &of_context {
            plain = plain.tensor("of the context", &gradient_or_zero(&graph, of_context)?)?;
        }
        found = found.and("graph", plain.gradients(&gradients)?);

        let mut gradients = Gradients::new(&self.store);
        let back = if encodes { Bijector::backprop } else { Bijector::backprop_decode };
        let pulled = back(self.layer.as_ref(), &value, &tape, context, &of_value, &of_log_det, &mut gradients)?;
        let mut by_hand = Found::default().tensor("input", &pulled.x)?.tensor("of the input", &pulled.grad_x)?;
        if let Some(of_context) = &pulled.grad_context {
            by_hand = by_hand.tensor("of the context", of_context)?;
        }
        Ok(found.and("backward pass", by_hand.gradients(&gradients)?))
    }
}
