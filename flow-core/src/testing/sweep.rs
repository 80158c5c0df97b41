//! Single precision against double, where single precision goes wrong: at knots and ends, at denormal numbers, far out.
//!
//! Everything is in two batches for each direction, so that the sweep costs about two passes. The oracle is the same layer
//! with the same parameters in f64, at the same inputs: a number of f32 is one of f64.

use candle_core::{DType, Tensor, Var};

use super::Parameters::{Initial, Randomised};
use super::gradient::Plain;
use super::properties::run;
use super::{Domain, Fault, Outcome, Property, Subject, finite, values};
use crate::Result;
use crate::error::Direction;

pub(super) const ALL: &[Property] = &[
    Property { name: "critical inputs", parameters: &[Initial, Randomised], only: None, check: sweep },
    Property { name: "finite gradients at critical inputs", parameters: &[Randomised], only: None, check: gradients },
];

/// Magnitudes near zero: denormal in f32, the least normal, and some between it and one.
const SMALL: [f64; 6] = [1e-45, 1e-40, f32::MIN_POSITIVE as f64, 1e-20, 1e-7, 1e-3];
/// Critical inputs near zero and at knots, and those with far ones among them.
fn critical(s: &Subject<'_>, domain: Domain) -> [Vec<f64>; 2] {
    let mut near = s.knots();
    match domain {
        Domain::Real => {
            near.push(0.0);
            near.extend(SMALL.iter().chain(&[1.0]).flat_map(|&v| [v, -v]));
            let far = s.case.far;
            let middle = far.min(1e3);
            let far = [near.as_slice(), &[far, -far, middle, -middle]].concat();
            [near, far]
        }
        Domain::Decoded => {
            near.push(0.0);
            near.extend(SMALL.iter().chain(&[1.0]).flat_map(|&v| [v, -v]));
            [near, Vec::new()]
        }
        Domain::Interval(low, high) => {
            let width = high - low;
            near.extend(SMALL.iter().flat_map(|&v| [low + width * v, high - width * v]));
            near.extend([low + 0.5 * width, s.beside(low)[1], s.beside(high)[2]]);
            // What rounds to an end in the precision at hand is outside.
            let rounded = |v: f64| if s.check.dtype == DType::F32 { f64::from(v as f32) } else { v };
            near.retain(|&v| rounded(v) > low && rounded(v) < high);
            [near, Vec::new()]
        }
    }
}

/// Both directions are finite, and in f32 what they are in f64.
fn sweep(s: &Subject<'_>) -> Outcome {
    let mut worst = 0.0_f64;
    for (direction, domain, like) in [(Direction::Encode, s.case.data, &s.x), (Direction::Decode, s.case.latent, &s.z)]
    {
        for critical in critical(s, domain).iter().filter(|c| !c.is_empty()) {
            let (made, context) = s.at(like, critical)?;
            let input = s.input(direction, made, context.as_ref())?;
            let (value, log_det) = run(s.layer.as_ref(), direction, &input, context.as_ref())?;
            finite(&format!("{direction} of critical inputs"), &value)?;
            finite(&format!("{direction} log-determinant at critical inputs"), &log_det)?;
            if s.check.dtype == DType::F64 {
                continue;
            }
            let wide = |t: &Tensor| t.to_dtype(DType::F64);
            let context = context.as_ref().map(wide).transpose()?;
            let (right, log_right) = run(s.double()?.as_ref(), direction, &wide(&input)?, context.as_ref())?;
            let scales = row_scales(&input, &right)?;
            let tolerance = s.tolerance();
            worst = worst.max(near_in_rows(
                &format!("{direction} of"),
                &input,
                &value,
                &right,
                &scales,
                tolerance.round_trip,
            )?);
            let what = format!("{direction} log-determinant at");
            worst = worst.max(near_in_rows(&what, &input, &log_det, &log_right, &scales, tolerance.log_det)?);
        }
    }
    Ok(worst)
}

/// One and the greatest magnitude of each row: what its rounding errors are measured by, since layers add entries up.
fn row_scales(input: &Tensor, value: &Tensor) -> Result<Vec<f64>> {
    let largest = |t: &Tensor| -> Result<Vec<f64>> {
        let (entries, rows) = (values(t)?, t.dim(0)?);
        let row = |row: &[f64]| row.iter().fold(0.0, |a: f64, v| a.max(v.abs()));
        Ok(entries.chunks((entries.len() / rows.max(1)).max(1)).map(row).collect())
    };
    Ok(largest(input)?.iter().zip(largest(value)?).map(|(a, b)| 1.0 + a.max(b)).collect())
}

fn near_in_rows(what: &str, input: &Tensor, got: &Tensor, right: &Tensor, scales: &[f64], tolerance: f64) -> Outcome {
    let (got, right, mut worst) = (values(got)?, values(right)?, 0.0_f64);
    let per_row = (got.len() / scales.len().max(1)).max(1);
    for (i, (g, r)) in got.iter().zip(&right).enumerate() {
        let deviation = (g - r).abs() / scales[i / per_row];
        // A NaN must not pass.
        if deviation.is_nan() || deviation > tolerance {
            let at = values(&input.narrow(0, i / per_row, 1)?)?;
            let expected = format!("{r:.9} ± {:.1e}, as in f64", tolerance * scales[i / per_row]);
            return Err(Fault::differs(format!("{what} {at:?}: {g:.9} at entry {}", i % per_row), expected));
        }
        worst = worst.max(deviation);
    }
    Ok(worst)
}

/// Gradients of both directions are finite there.
fn gradients(s: &Subject<'_>) -> Outcome {
    for (direction, domain, like) in [(Direction::Encode, s.case.data, &s.x), (Direction::Decode, s.case.latent, &s.z)]
    {
        if direction == Direction::Decode && !s.case.decode_differentiable {
            continue;
        }
        let [mut near, far] = critical(s, domain);
        if let Domain::Interval(low, high) = domain {
            // A logarithm's derivative is beyond the largest number where its argument is a denormal one.
            near.retain(|v| (v - low).min(high - v) > 1e-30);
        }
        let (made, context) = s.at(like, if far.is_empty() { &near } else { &far })?;
        let input = s.input(direction, made, context.as_ref())?;
        Plain::at(s, direction, &Var::from_tensor(&input)?, context.as_ref())?.finite()?;
    }
    Ok(0.0)
}
