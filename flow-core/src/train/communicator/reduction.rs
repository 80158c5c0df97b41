//! Sums of gradients over ranks, in buckets.

use std::ops::Range;

use candle_core::{DType, Tensor};

use super::Communicator;
use crate::{Gradients, Param, Result};

/// Into how many buckets a model is divided at least, unless they would be smaller than what a message costs.
const PARTS: usize = 8;
const LEAST: usize = 1 << 18;

/// Parameters with their gradients; nothing is zero.
#[derive(Debug)]
pub(super) struct Bucket(pub(super) Vec<(Param, Option<Tensor>)>);

/// The type in which a gradient is summed: types narrower than f32 in f32.
fn wide(param: &Param) -> DType {
    if param.dtype() == DType::F64 { DType::F64 } else { DType::F32 }
}

/// Which gradients go together, by their numbers in name order, and in which order: from the last name to the first, which is about how
/// the backward pass of a flow finishes them.
///
/// It depends on the model alone, so that sums have the same bits in a run that was interrupted and in one that was not.
#[derive(Debug)]
pub(in crate::train) struct Plan(pub(super) Vec<Vec<usize>>);

impl Plan {
    /// Buckets of one type each that hold `limit` bytes or a little more; less of a small model, so that a part of it can go while
    /// the rest is made.
    pub(in crate::train) fn new(params: &[Param], limit: usize) -> Self {
        let size = |param: &Param| (wide(param), param.var().elem_count() * wide(param).size_in_bytes());
        let sizes: Vec<_> = params.iter().rev().map(size).collect();
        let total: usize = sizes.iter().map(|&(_, bytes)| bytes).sum();
        let (limit, last) = (limit.min((total / PARTS).max(LEAST)), params.len());
        Plan(ranges(&sizes, limit).into_iter().map(|range| range.map(|i| last - 1 - i).collect()).collect())
    }
}

/// Replaces gradients, which are means over `weight` samples on this rank, by those over the `total` samples of all ranks, in the type
/// of the parameters. A rank of weight zero adds nothing, whatever its gradients hold.
pub(in crate::train) fn sum_weighed(
    channel: &dyn Communicator,
    gradients: &mut Gradients,
    [weight, total]: [f64; 2],
    limit: usize,
) -> Result<()> {
    let params: Vec<Param> = gradients.iter().map(|(param, _)| param.clone()).collect();
    for members in Plan::new(&params, limit).0 {
        let mut slots: Vec<_> = gradients.slots().collect();
        let mut parts = Vec::with_capacity(members.len());
        for &i in &members {
            if let Some((param, slot)) = slots.get_mut(i) {
                parts.push(((*param).clone(), slot.take()));
            }
        }
        let sum = sum_of_bucket(channel, Bucket(parts), weight)?;
        put_back(gradients, &members, &sum, total)?;
    }
    Ok(())
}

/// Neighbours of one type whose bytes reach `limit` with the last of them.
fn ranges(sizes: &[(DType, usize)], limit: usize) -> Vec<Range<usize>> {
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

/// `Σ_r weight_r · g_r` over the ranks, one gradient behind the other.
pub(super) fn sum_of_bucket(channel: &dyn Communicator, Bucket(parts): Bucket, weight: f64) -> Result<Tensor> {
    let own = |(param, gradient): (Param, Option<Tensor>)| match gradient.filter(|_| weight > 0.0) {
        Some(gradient) => gradient.detach().to_dtype(wide(&param))?.affine(weight, 0.0)?.flatten_all(),
        None => Tensor::zeros(param.var().elem_count(), wide(&param), param.var().device()),
    };
    let flat = parts.into_iter().map(own).collect::<candle_core::Result<Vec<_>>>()?;
    channel.all_reduce_tensor(&Tensor::cat(&flat, 0)?)
}

/// Cuts a bucket's sum into the gradients of these numbers, as means over `total` samples.
pub(super) fn put_back(gradients: &mut Gradients, members: &[usize], sum: &Tensor, total: f64) -> Result<()> {
    let mut slots: Vec<_> = gradients.slots().collect();
    let mut start = 0;
    for &i in members {
        let Some((param, slot)) = slots.get_mut(i) else { continue };
        let count = param.var().elem_count();
        // A part of the bucket would keep all of it in memory, and be written to together with its neighbours; this is a copy.
        let value = sum.narrow(0, start, count)?.affine(1.0 / total, 0.0)?.reshape(param.var().shape())?;
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
        assert_eq!(ranges(&sizes, 100), [0..2, 2..3, 3..5, 5..6]);
        assert_eq!(ranges(&sizes, 1), [0..1, 1..2, 2..3, 3..4, 4..5, 5..6]);
        assert_eq!(ranges(&sizes, usize::MAX), [0..3, 3..5, 5..6]);
        assert!(ranges(&[], 1).is_empty());
    }
}
