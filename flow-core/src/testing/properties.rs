//! What is asked of values: inverses, log-determinants, shapes, persistence.

use std::collections::BTreeMap;

use candle_core::{DType, Device, Tensor};

use super::Parameters::{Initial, Randomised};
use super::{Fault, Outcome, Property, Subject, close, close_values, finite, jacobian, values};
use crate::error::Direction;
use crate::{Bijector, ParamStore, Result};

const fn property(name: &'static str, check: fn(&Subject<'_>) -> Outcome) -> Property {
    Property { name, parameters: &[Initial, Randomised], only: None, check }
}

pub(super) const ALL: &[Property] = &[
    property("shapes", shapes),
    property("round trip", round_trip),
    property("log-determinants cancel", cancellation),
    property("encode log-determinant", |s| numerical(s, Direction::Encode)),
    property("decode log-determinant", |s| numerical(s, Direction::Decode)),
    property("rows are independent", independence),
    property("data-dependent initialisation", initialisation),
    property("extreme inputs", extremes),
    property("knots", knots),
    property("no rows", no_rows),
    Property { parameters: &[Randomised], ..property("no rows while training", no_rows_in_training) },
    Property { parameters: &[Randomised], ..property("snapshot and restore", persistence) },
];

/// Values keep their shapes, log-determinants are one number per row, and elements are conserved.
fn shapes(s: &Subject<'_>) -> Outcome {
    let batch = s.check.batch;
    let with_batch = |shape: &[usize]| std::iter::once(batch).chain(shape.iter().copied()).collect::<Vec<_>>();
    let ((z, forward), (x, backward)) = (s.encode()?, s.decode()?);
    let pairs = [
        ("encoded value", z.dims(), with_batch(s.layer.latent_shape())),
        ("encode log-determinant", forward.dims(), vec![batch]),
        ("decoded value", x.dims(), with_batch(s.layer.event_shape())),
        ("decode log-determinant", backward.dims(), vec![batch]),
    ];
    for (what, got, expected) in pairs {
        if got != expected {
            return Err(Fault::differs(format!("{what} of shape {got:?}"), format!("{expected:?}")));
        }
    }
    for t in [&z, &forward, &x, &backward] {
        if t.dtype() != s.check.dtype {
            return Err(Fault::differs(format!("{:?}", t.dtype()), format!("{:?}", s.check.dtype)));
        }
    }
    Ok(0.0)
}

fn round_trip(s: &Subject<'_>) -> Outcome {
    let tolerance = s.tolerance().round_trip;
    let context = s.context.as_ref();
    let back = s.layer.decode(&s.encode()?.0, context)?.0;
    let there = s.layer.encode(&s.decode()?.0, context)?.0;
    let data = close("decode(encode(x))", &back, &s.x, tolerance)?;
    Ok(data.max(close("encode(decode(z))", &there, &s.z, tolerance)?))
}

fn cancellation(s: &Subject<'_>) -> Outcome {
    let (z, forward) = s.encode()?;
    let (_, backward) = s.layer.decode(&z, s.context.as_ref())?;
    // Ten times the round trip's: the two are evaluated at points that differ by its error.
    close("decode log-det", &backward, &forward.neg()?, 10.0 * s.tolerance().round_trip)
}

fn numerical(s: &Subject<'_>, direction: Direction) -> Outcome {
    let (input, log_det) = match direction {
        Direction::Encode => (&s.x, s.encode()?.1),
        Direction::Decode => (&s.z, s.decode()?.1),
    };
    let context = s.context.as_ref().map(|c| c.to_dtype(DType::F64)).transpose()?;
    let twin = s.double()?;
    let input = input.to_dtype(DType::F64)?;
    let oracle = jacobian::log_det(twin.as_ref(), direction, &input, context.as_ref(), jacobian::STEP)?;
    close_values("log |det J|", &values(&log_det)?, &oracle, s.tolerance().log_det)
}

/// A row alone gives what it gives in a batch.
fn independence(s: &Subject<'_>) -> Outcome {
    let tolerance = s.tolerance().round_trip;
    let ((z, forward), (x, backward)) = (s.encode()?, s.decode()?);
    let mut worst = 0.0_f64;
    for row in 0..s.check.batch {
        let context = s.context.as_ref().map(|c| c.narrow(0, row, 1)).transpose()?;
        let (z1, f1) = s.layer.encode(&s.x.narrow(0, row, 1)?, context.as_ref())?;
        let (x1, b1) = s.layer.decode(&s.z.narrow(0, row, 1)?, context.as_ref())?;
        for (alone, batch) in [(z1, &z), (f1, &forward), (x1, &x), (b1, &backward)] {
            worst = worst.max(close("row alone", &alone, &batch.narrow(0, row, 1)?, tolerance)?);
        }
    }
    Ok(worst)
}

/// `initialize` returns what `encode` returns with the parameters it has set.
fn initialisation(s: &Subject<'_>) -> Outcome {
    let (z, log_det) = s.layer.initialize(&s.x, s.context.as_ref())?;
    let (again, log_again) = s.encode()?;
    let tolerance = s.tolerance().round_trip;
    let value = close("initialize(x)", &z, &again, tolerance)?;
    Ok(value.max(close("log-det of initialize(x)", &log_det, &log_again, tolerance)?))
}

/// Zeros and far-out values, all alike and in alternation, give finite values and log-determinants.
fn extremes(s: &Subject<'_>) -> Outcome {
    for (direction, domain, like) in [(Direction::Encode, s.case.data, &s.x), (Direction::Decode, s.case.latent, &s.z)]
    {
        let [low, middle, high] = domain.extremes(s.case.reach);
        for pattern in [[low, low], [middle, middle], [high, high], [low, high], [high, middle]] {
            let entries: Vec<f64> = (0..like.elem_count()).map(|i| pattern[i % 2]).collect();
            let input = Tensor::from_vec(entries, like.shape(), &Device::Cpu)?.to_dtype(like.dtype())?;
            let input = s.input(direction, input, s.context.as_ref())?;
            let (value, log_det) = run(s.layer.as_ref(), direction, &input, s.context.as_ref())?;
            finite(&format!("{direction} of {pattern:?}"), &value)?;
            finite(&format!("{direction} log-determinant at {pattern:?}"), &log_det)?;
        }
    }
    Ok(0.0)
}

/// Where the map changes its formula it is finite and one to one.
fn knots(s: &Subject<'_>) -> Outcome {
    let knots = s.knots();
    if knots.is_empty() {
        return Ok(0.0);
    }
    let tolerance = s.tolerance().round_trip;
    let mut worst = 0.0_f64;
    for (direction, back, like) in
        [(Direction::Encode, Direction::Decode, &s.x), (Direction::Decode, Direction::Encode, &s.z)]
    {
        let (input, context) = s.at(like, &knots)?;
        let (value, log_det) = run(s.layer.as_ref(), direction, &input, context.as_ref())?;
        finite(&format!("{direction} at knots"), &value)?;
        finite(&format!("{direction} log-determinant at knots"), &log_det)?;
        let (again, _) = run(s.layer.as_ref(), back, &value, context.as_ref())?;
        worst = worst.max(close(&format!("{back} of {direction} at knots"), &again, &input, tolerance)?);
    }
    Ok(worst)
}

/// A batch without rows gives values and log-determinants without rows.
fn no_rows(s: &Subject<'_>) -> Outcome {
    let (x, z, context) = s.without_rows()?;
    for (direction, input, shape) in
        [(Direction::Encode, x, s.layer.latent_shape()), (Direction::Decode, z, s.layer.event_shape())]
    {
        let (value, log_det) = run(s.layer.as_ref(), direction, &input, context.as_ref())?;
        let expected: Vec<usize> = [&[0], shape].concat();
        if value.dims() != expected || log_det.dims() != [0] {
            let got = format!("{direction} of shapes {:?} and {:?}", value.dims(), log_det.dims());
            return Err(Fault::differs(got, format!("{expected:?} and [0]")));
        }
    }
    Ok(0.0)
}

/// A batch without rows changes neither parameters nor running statistics.
fn no_rows_in_training(s: &Subject<'_>) -> Outcome {
    let before = s.store.snapshot()?;
    let (x, _, context) = s.without_rows()?;
    s.layer.set_training(true);
    s.layer.encode(&x, context.as_ref())?;
    s.layer.encode_taped(&x, context.as_ref())?;
    s.layer.set_training(false);
    unchanged(s, &before, "a batch without rows")
}

/// Every parameter and buffer is what it was.
pub(super) fn unchanged(s: &Subject<'_>, before: &BTreeMap<String, Tensor>, after: &str) -> Outcome {
    for (name, value) in s.store.snapshot()? {
        let Some(old) = before.get(&name) else { continue };
        close(&format!("'{name}' after {after}"), &value, old, 0.0)?;
    }
    Ok(0.0)
}

pub(super) fn run(
    layer: &dyn Bijector,
    direction: Direction,
    input: &Tensor,
    context: Option<&Tensor>,
) -> Result<(Tensor, Tensor)> {
    match direction {
        Direction::Encode => layer.encode(input, context),
        Direction::Decode => layer.decode(input, context),
    }
}

/// A model of another seed that is given the parameters returns the same bits.
fn persistence(s: &Subject<'_>) -> Outcome {
    let store = ParamStore::new(s.check.seed + 1, s.check.dtype, &Device::Cpu);
    let other = s.case.build(&store)?;
    other.set_training(false);
    store.restore(&s.store.snapshot()?)?;
    let context = s.context.as_ref();
    for (direction, input) in [(Direction::Encode, &s.x), (Direction::Decode, &s.z)] {
        let (value, log_det) = run(s.layer.as_ref(), direction, input, context)?;
        let (copied, log_copied) = run(other.as_ref(), direction, input, context)?;
        close(&format!("restored {direction}"), &copied, &value, 0.0)?;
        close(&format!("restored {direction} log-det"), &log_copied, &log_det, 0.0)?;
    }
    Ok(0.0)
}
