//! The kernels as operations of Candle.

use flow_core::kernels::{Fused, Kept, Real};

use super::kernel::{self, Activations, Gradients, Shape, Transposed, Weights};

/// Parameters as a function of the input `(B, rows, W, inputs)`, the context `(B, rows, W, M)` and the packed weights.
pub(super) struct NetworkOp {
    pub shape: Shape,
    pub batch: usize,
    /// Where a graph keeps the activations for its backward pass; they are computed again where it does not.
    pub kept: Option<Kept>,
}

impl Fused<3> for NetworkOp {
    fn name(&self) -> &'static str {
        "wavenet"
    }

    fn shape(&self) -> candle_core::Shape {
        (self.batch, self.shape.rows(), self.shape.width, self.shape.outputs).into()
    }

    fn forward<T: Real>(&self, [x, context, packed]: [&[T]; 3]) -> candle_core::Result<Vec<T>> {
        let (s, weights) = (&self.shape, Weights::new(&self.shape, packed));
        let mut out = vec![T::ZERO; self.batch * s.params()];
        let mut kept: Vec<Activations<T>> = Vec::new();
        let samples = x.chunks_exact(s.input_len()).zip(context.chunks_exact(s.context_len()));
        for ((x, context), out) in samples.zip(out.chunks_exact_mut(s.params())) {
            kept.extend(kernel::forward(s, &weights, x, context, out, self.kept.is_some()));
        }
        if let Some(place) = &self.kept {
            place.put(kept);
        }
        Ok(out)
    }

    fn backward<T: Real>(
        &self,
        [x, context, packed]: [&[T]; 3],
        grad: &[T],
    ) -> candle_core::Result<[Option<Vec<T>>; 3]> {
        let s = &self.shape;
        let (weights, transposed) = (Weights::new(s, packed), Transposed::new(s, packed));
        let (mut dx, mut dcontext) = (vec![T::ZERO; x.len()], vec![T::ZERO; context.len()]);
        let mut sums = Gradients::new(s);
        let mut kept = self.kept.as_ref().and_then(Kept::take::<Vec<Activations<T>>>).unwrap_or_default().into_iter();
        let operands = x.chunks_exact(s.input_len()).zip(context.chunks_exact(s.context_len()));
        let results = dx.chunks_exact_mut(s.input_len()).zip(dcontext.chunks_exact_mut(s.context_len()));
        for (((x, context), (dx, dcontext)), grad) in operands.zip(results).zip(grad.chunks_exact(s.params())) {
            let activations = match kept.next() {
                Some(kept) => Some(kept),
                None => kernel::forward(s, &weights, x, context, &mut vec![T::ZERO; s.params()], true),
            };
            if let Some(activations) = activations {
                kernel::backward(s, &weights, &transposed, activations, [x, context, grad], [dx, dcontext], &mut sums);
            }
        }
        Ok([Some(dx), Some(dcontext), Some(sums.packed(s))])
    }
}
