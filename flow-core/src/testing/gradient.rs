//! What is asked of gradients: automatic, hand-written and numerical ones agree.
//!
//! The objective is `Σ w·log_det + ⟨c, value⟩` with fixed random `w` and `c`, which exercises both
//! gradients that a bijector has to pull back.

use candle_core::{DType, Tensor, Var};

use super::Parameters::{Initial, Randomised};
use super::{Fault, Outcome, Property, Subject, close, close_values, finite, jacobian::STEP, values};
use crate::autodiff::{gradient_or_zero, pair};
use crate::distribution::StandardGaussian;
use crate::error::Direction;
use crate::{Backprop, Density, Flow, FlowRng, Gradients, Param, ParamStore, Pullback, Result};

const fn property(name: &'static str, check: fn(&Subject<'_>) -> Outcome) -> Property {
    Property { name, parameters: &[Randomised], only: None, check }
}

pub(super) const ALL: &[Property] = &[
    Property { parameters: &[Initial, Randomised], ..property("finite gradients", finite_gradients) },
    property("every parameter is trained", no_idle_parameter),
    property("backprop", backprop),
    property("backprop while training", |s| {
        s.layer.set_training(true);
        backprop(s)
    }),
    property("backprop of decoding", backprop_of_decoding),
    property("backprop without rows", backprop_without_rows),
    property("a flow scores no rows", scores_without_rows),
    property("pattern of the jacobian", pattern),
    Property { only: Some(DType::F64), ..property("encode gradients", |s| differences(s, Direction::Encode)) },
    Property { only: Some(DType::F64), ..property("decode gradients", |s| differences(s, Direction::Decode)) },
];

/// The fixed random cotangents of value and log-determinant.
struct Cotangents {
    value: Tensor,
    log_det: Tensor,
}

impl Cotangents {
    fn like(value: &Tensor, log_det: &Tensor) -> Result<Self> {
        let mut rng = FlowRng::seed_from(17);
        Ok(Cotangents {
            value: rng.normal(value.shape(), value.dtype(), value.device())?,
            log_det: rng.normal(log_det.shape(), log_det.dtype(), log_det.device())?,
        })
    }

    fn objective(&self, value: &Tensor, log_det: &Tensor) -> Result<Tensor> {
        Ok((pair(value, &self.value)? + pair(log_det, &self.log_det)?)?)
    }
}

/// The objective's gradients by plain automatic differentiation.
pub(super) struct Plain {
    cotangents: Cotangents,
    value: Tensor,
    input: Tensor,
    context: Option<Tensor>,
    parameters: Gradients,
}

impl Plain {
    fn of(s: &Subject<'_>, direction: Direction) -> Result<Self> {
        let input = Var::from_tensor(match direction {
            Direction::Encode => &s.x,
            Direction::Decode => &s.z,
        })?;
        Self::at(s, direction, &input, s.context.as_ref())
    }

    pub(super) fn at(s: &Subject<'_>, direction: Direction, input: &Var, context: Option<&Tensor>) -> Result<Self> {
        let context = context.map(Var::from_tensor).transpose()?;
        let given = context.as_ref().map(Var::as_tensor);
        let (value, log_det) = match direction {
            Direction::Encode => s.layer.encode(input.as_tensor(), given)?,
            Direction::Decode => s.layer.decode(input.as_tensor(), given)?,
        };
        let cotangents = Cotangents::like(&value, &log_det)?;
        let graph = cotangents.objective(&value, &log_det)?.backward()?;
        let mut parameters = Gradients::new(&s.store);
        parameters.accumulate(&graph)?;
        Ok(Plain {
            cotangents,
            value: value.detach(),
            input: gradient_or_zero(&graph, input)?,
            context: context.as_ref().map(|c| gradient_or_zero(&graph, c)).transpose()?,
            parameters,
        })
    }

    pub(super) fn finite(&self) -> Outcome {
        finite("the input's gradient", &self.input)?;
        for (param, gradient) in self.parameters.iter() {
            if let Some(gradient) = gradient {
                finite(&format!("the gradient of '{}'", param.name()), gradient)?;
            }
        }
        Ok(0.0)
    }
}

/// Gradients are finite for ordinary data and for far-out data.
fn finite_gradients(s: &Subject<'_>) -> Outcome {
    for level in [None, Some(0), Some(1), Some(2)] {
        let input = match level {
            None => s.x.clone(),
            Some(i) => {
                let far = s.x.affine(0.0, s.case.data.extremes(s.case.reach)[i])?;
                s.input(Direction::Encode, far, s.context.as_ref())?
            }
        };
        Plain::at(s, Direction::Encode, &Var::from_tensor(&input)?, s.context.as_ref())?.finite()?;
    }
    Ok(0.0)
}

/// Nothing is pulled back through a batch without rows, and no parameter is spoilt.
fn backprop_without_rows(s: &Subject<'_>) -> Outcome {
    let (x, _, context) = s.without_rows()?;
    let (z, log_det, tape) = {
        let _paused = s.store.no_grad();
        s.layer.encode_taped(&x, context.as_ref())?
    };
    let mut gradients = Gradients::new(&s.store);
    let pulled = s.layer.backprop(&z, &tape, context.as_ref(), &z, &log_det, &mut gradients)?;
    let (back, log_back, tape) = {
        let _paused = s.store.no_grad();
        s.layer.decode_taped(&z, context.as_ref())?
    };
    let decoded = s.layer.backprop_decode(&back, &tape, context.as_ref(), &back, &log_back, &mut gradients)?;
    if decoded.x.dims() != z.dims() || decoded.grad_x.dims() != z.dims() {
        return Err(Fault::differs(format!("a latent of shape {:?}", decoded.x.dims()), format!("{:?}", z.dims())));
    }
    for (what, t) in [("input", &pulled.x), ("gradient of x", &pulled.grad_x)] {
        if t.dims() != x.dims() {
            return Err(Fault::differs(format!("{what} of shape {:?}", t.dims()), format!("{:?}", x.dims())));
        }
    }
    for (param, gradient) in gradients.iter() {
        if let Some(gradient) = gradient {
            finite(&format!("the gradient of '{}'", param.name()), gradient)?;
        }
    }
    Ok(0.0)
}

/// A flow with this layer gives a batch without rows no scores, and its parameters no gradient but zero.
fn scores_without_rows(s: &Subject<'_>) -> Outcome {
    let (x, _, context) = s.without_rows()?;
    let (store, device) = (&s.store, x.device());
    // The layer's own store takes no second layer of the same names.
    let twin = ParamStore::new(s.check.seed, s.check.dtype, device);
    let base = StandardGaussian::new(s.layer.latent_shape(), x.dtype(), device);
    let flow = Flow::new(&twin, s.case.build(&twin)?, base)?;
    twin.restore(&store.snapshot()?)?;
    let weight = Tensor::zeros(0, x.dtype(), device)?;
    let scored = flow.log_prob(&x, context.as_ref())?;
    for mode in [Backprop::Plain, Backprop::Reversible] {
        let mut gradients = Gradients::new(&twin);
        let found = flow.log_prob_backward(&x, context.as_ref(), &weight, mode, &mut gradients)?;
        for (what, got, expected) in [
            ("log_prob", scored.dims(), &[0][..]),
            ("log_prob", found.log_prob.dims(), &[0][..]),
            ("gradient of x", found.grad_x.dims(), x.dims()),
        ] {
            if got != expected {
                return Err(Fault::differs(format!("{what} of shape {got:?}, {mode:?}"), format!("{expected:?}")));
            }
        }
        for (param, gradient) in gradients.iter() {
            let sum = gradient.map(values).transpose()?.unwrap_or_default();
            if sum.iter().any(|&g| g != 0.0) {
                return Err(Fault::differs(format!("a gradient of '{}', {mode:?}", param.name()), "none or zero"));
            }
        }
    }
    let drawn = flow.sample(0, context.as_ref(), 1.0, &mut FlowRng::seed_from(1))?;
    if drawn.dims() != x.dims() {
        return Err(Fault::differs(format!("no samples of shape {:?}", drawn.dims()), format!("{:?}", x.dims())));
    }
    Ok(0.0)
}

/// No parameter is left out of the graph.
fn no_idle_parameter(s: &Subject<'_>) -> Outcome {
    let plain = Plain::of(s, Direction::Encode)?;
    for (param, gradient) in plain.parameters.iter() {
        let idle = s.case.idle.iter().any(|prefix| param.name().starts_with(prefix.as_str()));
        let silent = match gradient {
            Some(gradient) => values(gradient)?.iter().all(|&g| g == 0.0),
            None => true,
        };
        if silent && !idle {
            return Err(Fault::differs(format!("no gradient for '{}'", param.name()), "a non-zero gradient"));
        }
    }
    Ok(0.0)
}

/// Outputs do not depend at all on inputs that a mask or a split hides from them.
fn pattern(s: &Subject<'_>) -> Outcome {
    let Some(depends) = &s.case.pattern else { return Ok(0.0) };
    let input = Var::from_tensor(&s.x)?;
    let rows = s.layer.encode(input.as_tensor(), s.context.as_ref())?.0.flatten_from(1)?;
    for i in 0..rows.dim(1)? {
        let graph = rows.narrow(1, i, 1)?.sum_all()?.backward()?;
        let gradient = gradient_or_zero(&graph, &input)?.flatten_from(1)?.to_dtype(DType::F64)?;
        for (j, column) in gradient.t()?.to_vec2::<f64>()?.iter().enumerate() {
            if let Some(leak) = column.iter().find(|&&g| g != 0.0 && !depends(i, j)) {
                return Err(Fault::differs(format!("∂z_{i}/∂x_{j} = {leak:e}"), "exactly zero"));
            }
        }
    }
    Ok(0.0)
}

/// The reversible backward pass gives what one ordinary graph gives, and the input as well.
fn backprop(s: &Subject<'_>) -> Outcome {
    // A pass in training may move running statistics: both start from the same.
    let before = s.store.snapshot()?;
    let plain = Plain::of(s, Direction::Encode)?;
    s.store.restore(&before)?;
    let (z, tape) = {
        let _paused = s.store.no_grad();
        let (z, _, tape) = s.layer.encode_taped(&s.x, s.context.as_ref())?;
        (z, tape)
    };
    let mut gradients = Gradients::new(&s.store);
    let Cotangents { value, log_det } = &plain.cotangents;
    let pulled = s.layer.backprop(&z, &tape, s.context.as_ref(), value, log_det, &mut gradients)?;
    let worst = close("taped value", &z, &plain.value, s.tolerance().round_trip)?;
    Ok(worst.max(agrees(s, &pulled, &gradients, &s.x, &plain)?))
}

/// The backward pass of decoding gives what one ordinary graph gives, and the latent as well.
fn backprop_of_decoding(s: &Subject<'_>) -> Outcome {
    if !s.case.decode_differentiable {
        return Ok(0.0);
    }
    let plain = Plain::of(s, Direction::Decode)?;
    let context = s.context.as_ref();
    let (x, tape) = {
        let _paused = s.store.no_grad();
        let (x, _, tape) = s.layer.decode_taped(&s.z, context)?;
        (x, tape)
    };
    let mut gradients = Gradients::new(&s.store);
    let Cotangents { value, log_det } = &plain.cotangents;
    let pulled = s.layer.backprop_decode(&x, &tape, context, value, log_det, &mut gradients)?;
    let worst = close("taped decoded value", &x, &plain.value, s.tolerance().round_trip)?;
    Ok(worst.max(agrees(s, &pulled, &gradients, &s.z, &plain)?))
}

/// A pass's input and its gradients against those of one ordinary graph.
fn agrees(s: &Subject<'_>, pulled: &Pullback, gradients: &Gradients, input: &Tensor, plain: &Plain) -> Outcome {
    let tolerance = s.tolerance();
    let mut worst = close("reconstructed input", &pulled.x, input, tolerance.round_trip)?;
    worst = worst.max(close("gradient of the input", &pulled.grad_x, &plain.input, tolerance.gradient)?);
    if let Some(expected) = &plain.context {
        let got = pulled.grad_context.as_ref().ok_or_else(|| Fault::differs("no gradient of the context", "one"))?;
        worst = worst.max(close("gradient of the context", got, expected, tolerance.gradient)?);
    }
    for ((param, got), (_, expected)) in gradients.iter().zip(plain.parameters.iter()) {
        let zero = param.var().zeros_like()?;
        let what = format!("gradient of '{}'", param.name());
        worst = worst.max(close(&what, got.unwrap_or(&zero), expected.unwrap_or(&zero), tolerance.gradient)?);
    }
    Ok(worst)
}

/// Automatic gradients of input, context and parameters against central differences.
fn differences(s: &Subject<'_>, direction: Direction) -> Outcome {
    if direction == Direction::Decode && !s.case.decode_differentiable {
        return Ok(0.0);
    }
    let plain = Plain::of(s, direction)?;
    let input = match direction {
        Direction::Encode => &s.x,
        Direction::Decode => &s.z,
    };
    let evaluate = |input: &Tensor, context: Option<&Tensor>| -> Result<f64> {
        let _paused = s.store.no_grad();
        let (value, log_det) = match direction {
            Direction::Encode => s.layer.encode(input, context)?,
            Direction::Decode => s.layer.decode(input, context)?,
        };
        Ok(plain.cotangents.objective(&value, &log_det)?.to_scalar::<f64>()?)
    };
    let context = s.context.as_ref();
    let tolerance = s.tolerance().gradient;
    let mut worst = sampled("gradient of the input", s, input, &plain.input, tolerance, |t| evaluate(t, context))?;
    if let (Some(context), Some(gradient)) = (context, &plain.context) {
        let objective = |t: &Tensor| evaluate(input, Some(t));
        worst = worst.max(sampled("gradient of the context", s, context, gradient, tolerance, objective)?);
    }
    for (param, gradient) in plain.parameters.iter() {
        let zero = param.var().zeros_like()?;
        let value = param.var().as_detached_tensor().copy()?;
        let objective = |t: &Tensor| with_value(param, t, || evaluate(input, context));
        let what = format!("gradient of '{}'", param.name());
        worst = worst.max(sampled(&what, s, &value, gradient.unwrap_or(&zero), tolerance, objective)?);
    }
    Ok(worst)
}

/// Evaluates with a parameter set to `value`, and sets it back.
fn with_value(param: &Param, value: &Tensor, evaluate: impl Fn() -> Result<f64>) -> Result<f64> {
    let before = param.var().as_tensor().copy()?;
    param.set(value)?;
    let result = evaluate();
    param.set(&before)?;
    result
}

/// Compares some entries of `gradient` at `point` with central differences of `objective`.
fn sampled(
    what: &str,
    s: &Subject<'_>,
    point: &Tensor,
    gradient: &Tensor,
    tolerance: f64,
    objective: impl Fn(&Tensor) -> Result<f64>,
) -> Outcome {
    let (start, gradient) = (values(point)?, values(gradient)?);
    let mut order = FlowRng::named(s.check.seed, what).permutation(start.len());
    order.truncate(s.check.entries);
    let mut worst = 0.0_f64;
    for i in order {
        let moved = |step: f64| -> Result<f64> {
            let mut entries = start.clone();
            entries[i] += step;
            objective(&Tensor::from_vec(entries, point.shape(), point.device())?)
        };
        let numerical = (moved(STEP)? - moved(-STEP)?) / (2.0 * STEP);
        worst = worst.max(close_values(&format!("{what} [{i}]"), &[gradient[i]], &[numerical], tolerance)?);
    }
    Ok(worst)
}
