//! What layers check of their arguments, and the log-determinants that many of them share.

use candle_core::{DType, Tensor};

use crate::numerics::host;
use crate::{Error, Result};

/// Checks that `x` is `(B, event…)` in single or double precision and returns `B`.
///
/// For layers without parameters, which work in either; a layer with parameters calls [`check_batch_as`].
///
/// # Errors
/// [`Error::Shape`] naming `layer` and both shapes, [`Error::DType`] for another type, integers among them.
pub fn check_batch(layer: &str, x: &Tensor, event: &[usize]) -> Result<usize> {
    let batch = check_shape(layer, x, event)?;
    check_float(layer, x)?;
    Ok(batch)
}

/// Checks that `x` is in single or double precision.
///
/// # Errors
/// [`Error::DType`] naming `layer` and both types.
pub fn check_float(layer: &str, x: &Tensor) -> Result<()> {
    if matches!(x.dtype(), DType::F32 | DType::F64) {
        return Ok(());
    }
    Err(Error::DType { layer: layer.to_string(), expected: "F32 or F64".to_string(), actual: x.dtype() })
}

/// Checks that `x` is `(B, event…)` of the type `dtype` and returns `B`.
///
/// The rule: whoever owns parameters checks for their type ([`Param::dtype`](crate::Param::dtype)).
///
/// # Errors
/// [`Error::Shape`] naming `layer` and both shapes, [`Error::DType`] naming `layer` and both types.
pub fn check_batch_as(layer: &str, x: &Tensor, event: &[usize], dtype: DType) -> Result<usize> {
    let batch = check_shape(layer, x, event)?;
    check_dtype(layer, x, dtype)?;
    Ok(batch)
}

/// Checks that `x` is of the type `dtype`.
///
/// # Errors
/// [`Error::DType`] naming `layer` and both types.
pub fn check_dtype(layer: &str, x: &Tensor, dtype: DType) -> Result<()> {
    if x.dtype() == dtype {
        return Ok(());
    }
    Err(Error::DType { layer: layer.to_string(), expected: format!("{dtype:?}"), actual: x.dtype() })
}

/// Checks that `x` is `(B, event…)`, of whatever type, and returns `B`.
///
/// # Errors
/// [`Error::Shape`] naming `layer` and both shapes.
pub fn check_shape(layer: &str, x: &Tensor, event: &[usize]) -> Result<usize> {
    match x.dims().split_first() {
        Some((&batch, rest)) if rest == event => Ok(batch),
        _ => Err(Error::Shape {
            layer: layer.to_string(),
            expected: format!("(B, {})", event.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")),
            actual: x.dims().to_vec(),
        }),
    }
}

/// Checks that every entry is inside a layer's domain, by a mask `(B, …)` of zeros and ones; a comparison with NaN is zero.
///
/// # Errors
/// [`Error::Domain`] naming the rows that are not, and how many entries are `where_they_are`.
pub fn check_domain(layer: &str, inside: &Tensor, where_they_are: impl Fn() -> String) -> Result<()> {
    let count = inside.elem_count();
    let outside = count - inside.to_dtype(DType::U32)?.sum_all()?.to_scalar::<u32>()? as usize;
    if outside == 0 {
        return Ok(());
    }
    let least = inside.reshape((inside.dim(0)?, ()))?.min(1)?.to_dtype(DType::U8)?.to_vec1::<u8>()?;
    let rows = least.iter().enumerate().filter(|(_, inside)| **inside == 0).map(|(row, _)| row).collect();
    Err(Error::Domain {
        layer: layer.into(),
        rows,
        reason: format!("{outside} of {count} values are {}", where_they_are()),
    })
}

/// The first row of a batch that holds a NaN or an infinity.
pub fn first_non_finite_row(x: &Tensor) -> Result<Option<usize>> {
    let rows = x.dims().first().copied().unwrap_or(0);
    if x.elem_count() == 0 {
        return Ok(None);
    }
    // `0 · x` is zero for finite `x` and NaN otherwise, so that the sums cannot overflow.
    let zeros = host::numbers(&host::wide(&x.reshape((rows, ()))?)?.affine(0.0, 0.0)?.sum(1)?)?;
    Ok(zeros.iter().position(|zero| !zero.is_finite()))
}

/// Checks that a context of shape `(batch, shape…)` and type `dtype` is present, and returns it.
///
/// # Errors
/// [`Error::Context`] when it is missing or has another number of rows, [`Error::Shape`] when it is misshapen,
/// [`Error::DType`] when it is of another type.
pub fn check_context<'a>(
    layer: &str,
    context: Option<&'a Tensor>,
    batch: usize,
    shape: &[usize],
    dtype: DType,
) -> Result<&'a Tensor> {
    let Some(context) = context else {
        let reason = format!("needs a context of shape {:?}, none was given", [&[batch], shape].concat());
        return Err(Error::Context { layer: layer.to_string(), reason });
    };
    let found = check_batch_as(&format!("{layer} (context)"), context, shape, dtype)?;
    if found != batch {
        let reason = format!("the context has {found} rows, the input {batch}");
        return Err(Error::Context { layer: layer.to_string(), reason });
    }
    Ok(context)
}

/// A log-determinant of zero for every sample of `x`, shape `(B,)`.
pub fn zero_log_det(x: &Tensor) -> Result<Tensor> {
    Ok(Tensor::zeros(x.dim(0)?, x.dtype(), x.device())?)
}

/// Sums `t` of shape `(B, …)` over everything but the batch: elementwise log-derivatives → `(B,)`.
pub fn sum_event(t: &Tensor) -> Result<Tensor> {
    if t.rank() == 1 { Ok(t.clone()) } else { Ok(t.flatten_from(1)?.sum(1)?) }
}
