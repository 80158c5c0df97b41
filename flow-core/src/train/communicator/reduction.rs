//! Sums of gradients over ranks, in buckets.

use std::ops::Range;

use candle_core::{DType, Tensor};

use super::Communicator;
use crate::{Gradients, Param, Result};

/// Replaces gradients by `Σ_r weight_r · g_r` over the ranks, in name order and in the type of the parameters, `limit`
/// bytes or a little more at a time. A rank of weight zero adds nothing, whatever its gradients hold.
///
/// Types narrower than f32 are summed in f32.
pub(in crate::train) fn sum_weighed(
    channel: &dyn Communicator,
    gradients: &mut Gradients,
    weight: f64,
    limit: usize,
) -> Result<()> {
    let mut slots: Vec<(&Param, &mut Option<Tensor>)> = gradients.slots().collect();
    let sizes: Vec<(DType, usize)> = slots
        .iter()
        .map(|(param, _)| {
            let dtype = if param.dtype() == DType::F64 { DType::F64 } else { DType::F32 };
            (dtype, param.var().elem_count() * dtype.size_in_bytes())
        })
        .collect();
    for range in buckets(&sizes, limit) {
        let Some(&(dtype, _)) = sizes.get(range.start) else { continue };
        sum_bucket(channel, &mut slots[range], weight, dtype)?;
    }
    Ok(())
}

/// Neighbours of one type whose bytes reach `limit` with the last of them.
fn buckets(sizes: &[(DType, usize)], limit: usize) -> Vec<Range<usize>> {
    let (mut found, mut start, mut bytes) = (Vec::new(), 0, 0);
    for (i, &(dtype, size)) in sizes.iter().enumerate() {
        bytes += size;
        let last = sizes.get(i + 1).is_none_or(|&(next, _)| next != dtype);
        if last || bytes >= limit {
            found.push(start..i + 1);
            (start, bytes) = (i + 1, 0);
        }
    }
    found
}

fn sum_bucket(
    channel: &dyn Communicator,
    bucket: &mut [(&Param, &mut Option<Tensor>)],
    weight: f64,
    dtype: DType,
) -> Result<()> {
    let own = |(param, slot): &(&Param, &mut Option<Tensor>)| match slot.as_ref().filter(|_| weight > 0.0) {
        Some(gradient) => gradient.detach().to_dtype(dtype)?.affine(weight, 0.0)?.flatten_all(),
        None => Tensor::zeros(param.var().elem_count(), dtype, param.var().device()),
    };
    let flat = bucket.iter().map(own).collect::<candle_core::Result<Vec<_>>>()?;
    let sum = channel.all_reduce_tensor(&Tensor::cat(&flat, 0)?)?;
    let mut start = 0;
    for (param, slot) in bucket.iter_mut() {
        let count = param.var().elem_count();
        // A part of the bucket would keep all of it in memory, and be written to together with its neighbours.
        let value = sum.narrow(0, start, count)?.force_contiguous()?.reshape(param.var().shape())?;
        **slot = Some(value.to_dtype(param.dtype())?);
        start += count;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buckets_end_where_they_are_full_or_the_type_changes() {
        let (narrow, wide) = (DType::F32, DType::F64);
        let sizes = [(narrow, 40), (narrow, 80), (narrow, 4), (wide, 8), (wide, 800), (narrow, 4)];
        assert_eq!(buckets(&sizes, 100), [0..2, 2..3, 3..5, 5..6]);
        assert_eq!(buckets(&sizes, 1), [0..1, 1..2, 2..3, 3..4, 4..5, 5..6]);
        assert_eq!(buckets(&sizes, usize::MAX), [0..3, 3..5, 5..6]);
        assert!(buckets(&[], 1).is_empty());
    }
}
