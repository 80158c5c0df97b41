//! What must be refused, with an error that says what was wrong and nothing spoilt.

use candle_core::{DType, Device, Tensor};

use super::Parameters::{Initial, Randomised};
use super::properties::{run, unchanged};
use super::{Fault, Outcome, Property, Subject, values};
use crate::error::Direction;
use crate::{Error, Result};

const fn property(name: &'static str, check: fn(&Subject<'_>) -> Outcome) -> Property {
    Property { name, parameters: &[Initial], only: None, check }
}

pub(super) const ALL: &[Property] = &[
    property("wrong shapes", wrong_shapes),
    property("wrong contexts", wrong_contexts),
    property("wrong types", wrong_types),
    Property { parameters: &[Randomised], ..property("bad batches to initialise from", bad_starts) },
];

fn wrong_shapes(s: &Subject<'_>) -> Outcome {
    for direction in [Direction::Encode, Direction::Decode] {
        let shape = match direction {
            Direction::Encode => s.layer.event_shape(),
            Direction::Decode => s.layer.latent_shape(),
        };
        let mut wider: Vec<usize> = std::iter::once(s.check.batch).chain(shape.iter().copied()).collect();
        let deeper: Vec<usize> = wider.iter().copied().chain([2]).collect();
        if let Some(last) = wider.last_mut() {
            *last += 1;
        }
        for dims in [wider, deeper, shape.to_vec()] {
            let input = Tensor::full(0.5, dims.as_slice(), &Device::Cpu)?.to_dtype(s.check.dtype)?;
            expect(
                run(s.layer.as_ref(), direction, &input, s.context.as_ref()),
                &format!("{direction} of {dims:?}"),
                |e| matches!(e, Error::Shape { layer, actual, .. } if !layer.is_empty() && *actual == dims),
            )?;
        }
    }
    Ok(0.0)
}

fn wrong_contexts(s: &Subject<'_>) -> Outcome {
    let Some(context) = &s.context else { return Ok(0.0) };
    let fewer = context.narrow(0, 1, s.check.batch - 1)?;
    let deeper = context.unsqueeze(context.rank())?;
    for (direction, input) in [(Direction::Encode, &s.x), (Direction::Decode, &s.z)] {
        for (what, wrong) in [("no context", None), ("too few rows", Some(&fewer)), ("rank", Some(&deeper))] {
            let outcome = run(s.layer.as_ref(), direction, input, wrong);
            expect(
                outcome,
                &format!("{direction} with {what}"),
                |e| matches!(e, Error::Context { layer, .. } | Error::Shape { layer, .. } if !layer.is_empty()),
            )?;
        }
    }
    Ok(0.0)
}

/// Integers are refused, and so is another precision unless the layer works in it: by an error that names the types.
fn wrong_types(s: &Subject<'_>) -> Outcome {
    let other = if s.check.dtype == DType::F64 { DType::F32 } else { DType::F64 };
    for dtype in [DType::U8, DType::U32, DType::I64, DType::BF16, DType::F16, other] {
        // Half precisions cannot be made from all types by all of Candle's kernels, hence the way over f32.
        // Another precision takes every number, integers none below zero.
        let convert = |t: &Tensor| match dtype == other {
            true => t.to_dtype(dtype),
            false => t.abs()?.to_dtype(DType::F32)?.to_dtype(dtype),
        };
        let context = s.context.as_ref().map(convert).transpose()?;
        for (direction, input) in [(Direction::Encode, &s.x), (Direction::Decode, &s.z)] {
            let wrong = convert(input)?;
            let outcome = run(s.layer.as_ref(), direction, &wrong, context.as_ref());
            let works = matches!(&outcome, Ok((v, l)) if dtype == other && [v, l].iter().all(|t| t.dtype() == dtype));
            if !works {
                expect(outcome, &format!("{direction} of {dtype:?}"), is_type_error)?;
            }
            if context.is_some() {
                let outcome = run(s.layer.as_ref(), direction, input, context.as_ref());
                expect(outcome, &format!("{direction} with a context of {dtype:?}"), is_type_error)?;
            }
            if dtype != other && direction == Direction::Encode {
                let call = |what: &str| format!("{what} of {dtype:?}");
                expect(s.layer.initialize(&wrong, context.as_ref()), &call("initialize"), is_type_error)?;
                let taped = s.layer.encode_taped(&wrong, context.as_ref()).map(|(z, log_det, _)| (z, log_det));
                expect(taped, &call("encode_taped"), is_type_error)?;
            }
        }
    }
    Ok(0.0)
}

fn is_type_error(error: &Error) -> bool {
    matches!(error, Error::DType { layer, .. } if !layer.is_empty())
}

/// To initialise from a batch without rows, or with numbers that are not finite, spoils nothing: where the layer would set
/// parameters from it, it returns an error and leaves them as they were.
fn bad_starts(s: &Subject<'_>) -> Outcome {
    let before = s.store.snapshot()?;
    let (none, _, no_context) = s.without_rows()?;
    let spoilt = |value: f64| -> Result<Tensor> {
        let mut entries = values(&s.x)?;
        if let Some(last) = entries.last_mut() {
            *last = value;
        }
        Ok(Tensor::from_vec(entries, s.x.shape(), &Device::Cpu)?.to_dtype(s.x.dtype())?)
    };
    let context = s.context.as_ref();
    for training in [false, true] {
        s.layer.set_training(training);
        for (what, x, context) in [
            ("no rows", none.clone(), no_context.as_ref()),
            ("a NaN", spoilt(f64::NAN)?, context),
            ("an infinity", spoilt(f64::INFINITY)?, context),
        ] {
            let outcome = s.layer.initialize(&x, context);
            unchanged(s, &before, &format!("initialising from {what}"))?;
            if let Err(Error::Tensor(error)) = outcome {
                let got = format!("for initialising from {what} the error '{error}' of Candle");
                return Err(Fault::differs(got, "a value or an error that names the layer"));
            }
        }
    }
    s.layer.set_training(false);
    Ok(0.0)
}

/// The call must fail, with an error that satisfies `right`.
fn expect(outcome: Result<(Tensor, Tensor)>, call: &str, right: impl Fn(&Error) -> bool) -> Outcome {
    let expected = "a shape, context or type error that names the layer";
    match outcome {
        Err(error) if right(&error) => Ok(0.0),
        Err(error) => Err(Fault::differs(format!("for {call} the error '{error}'"), expected)),
        Ok((value, _)) => Err(Fault::differs(format!("for {call} a value of shape {:?}", value.dims()), expected)),
    }
}
