//! Sums of gradients over ranks, in buckets.

use std::ops::Range;

use candle_core::{DType, Tensor, WithDType};

use super::{Communicator, Summands};
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
    let sizes: Vec<(bool, usize)> = slots
        .iter()
        .map(|(param, _)| {
            let wide = param.dtype() == DType::F64;
            (wide, param.var().elem_count() * if wide { 8 } else { 4 })
        })
        .collect();
    for range in buckets(&sizes, limit) {
        let wide = sizes.get(range.start).is_some_and(|&(wide, _)| wide);
        let bucket = &mut slots[range];
        if wide {
            sum_bucket(bucket, weight, |values| channel.all_reduce_sum(Summands::F64(values)))?;
        } else {
            sum_bucket(bucket, weight, |values| channel.all_reduce_sum(Summands::F32(values)))?;
        }
    }
    Ok(())
}

/// Neighbours of one type whose bytes reach `limit` with the last of them.
fn buckets(sizes: &[(bool, usize)], limit: usize) -> Vec<Range<usize>> {
    let (mut found, mut start, mut bytes) = (Vec::new(), 0, 0);
    for (i, &(wide, size)) in sizes.iter().enumerate() {
        bytes += size;
        let last = sizes.get(i + 1).is_none_or(|&(next, _)| next != wide);
        if last || bytes >= limit {
            found.push(start..i + 1);
            (start, bytes) = (i + 1, 0);
        }
    }
    found
}

fn sum_bucket<T: WithDType>(
    bucket: &mut [(&Param, &mut Option<Tensor>)],
    weight: f64,
    sum: impl FnOnce(&mut [T]) -> Result<()>,
) -> Result<()> {
    let mut flat: Vec<T> = Vec::with_capacity(bucket.iter().map(|(param, _)| param.var().elem_count()).sum());
    for (param, slot) in bucket.iter() {
        match slot.as_ref().filter(|_| weight > 0.0) {
            Some(gradient) => {
                let weighed = gradient.to_dtype(T::DTYPE)?.affine(weight, 0.0)?;
                flat.extend(weighed.flatten_all()?.to_vec1::<T>()?);
            }
            None => flat.resize(flat.len() + param.var().elem_count(), T::zero()),
        }
    }
    sum(&mut flat)?;
    let mut rest = flat.as_slice();
    for (param, slot) in bucket.iter_mut() {
        let (own, others) = rest.split_at(param.var().elem_count());
        rest = others;
        let value = Tensor::from_slice(own, param.var().shape(), &candle_core::Device::Cpu)?;
        **slot = Some(value.to_dtype(param.dtype())?.to_device(param.var().device())?);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buckets_end_where_they_are_full_or_the_type_changes() {
        let sizes = [(false, 40), (false, 80), (false, 4), (true, 8), (true, 800), (false, 4)];
        assert_eq!(buckets(&sizes, 100), [0..2, 2..3, 3..5, 5..6]);
        assert_eq!(buckets(&sizes, 1), [0..1, 1..2, 2..3, 3..4, 4..5, 5..6]);
        assert_eq!(buckets(&sizes, usize::MAX), [0..3, 3..5, 5..6]);
        assert!(buckets(&[], 1).is_empty());
    }
}
