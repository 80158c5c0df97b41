//! Conditioner networks, and what they are built of.
//!
//! Composed Candle operations are the specification and the path for CUDA and Metal; on the CPU the
//! same functions take fused [`kernels`](crate::kernels). Tests assert that both agree, values and
//! gradients.

use candle_core::Tensor;

mod batch_norm;
mod conv;
mod coupling_net;
mod half;
mod linear;
mod made;
mod maxout;
mod mlp;
pub(crate) mod statistics;
mod weight_norm;
mod zero_conv;

pub use batch_norm::BatchNorm;
pub use conv::{Conv2d, ConvGeometry, conv2d, conv2d_composed};
pub use coupling_net::{CouplingNet, HiddenActivation};
pub use half::set_bf16_convolutions;
#[cfg(test)]
pub(crate) use half::with_bf16_convolutions;
pub(crate) use half::{is_half, round};
pub use linear::Linear;
pub use made::Made;
pub use maxout::{Chosen, Maxout};
pub use mlp::{Activation, Mlp, MlpConfig};
pub use statistics::{RunningStatistics, column_moments, whitening};
pub use weight_norm::{WeightNormConv2d, WeightNormOptions};
pub use zero_conv::ZeroConv;

use crate::autodiff::{Leaves, pair};
use crate::kernels::dense::Dense;
use crate::kernels::product::Product;
use crate::kernels::{Size, accepts, fuse};
use crate::{Gradients, Result};

/// `X·W` for `X` of shape `(M, K)` and `W` of shape `(K, N)`, with any strides.
///
/// Candle's own product reads the operating system's description of the processor at every call to choose a number of
/// threads, a tenth of a millisecond on two cores and more on many, unless `RAYON_NUM_THREADS` is set, and clears its result
/// before it writes it. On the CPU this one is computed by our kernels, or, if it is large, by the crate that Candle has its
/// products from; its sums do not depend on the number of threads. With the features `mkl` and `accelerate` large products are
/// Candle's, which gives them to those libraries.
///
/// # Errors
/// Candle's error for operands that are no matrices, do not fit each other, or differ in type or device.
pub fn matmul(x: &Tensor, w: &Tensor) -> Result<Tensor> {
    match (x.dims(), w.dims()) {
        (&[m, k], &[inner, n])
            if k == inner && x.dtype() == w.dtype() && accepts(x) && accepts(w) && !is_for_blas([m, k, n]) =>
        {
            let ((x, x_transposed), (w, w_transposed)) = (as_it_lies(x)?, as_it_lies(w)?);
            fuse(Product { size: Size { m, k, n }, x_transposed, w_transposed }, [&x, &w])
        }
        // Candle's product reads matrices and their transposes as they lie.
        (&[_, _], &[_, _]) => {
            let readable = |(t, transposed): (Tensor, bool)| if transposed { t.t() } else { t.contiguous() };
            Ok(readable(as_it_lies(x)?)?.matmul(&readable(as_it_lies(w)?)?)?)
        }
        _ => Ok(x.contiguous()?.matmul(&w.contiguous()?)?),
    }
}

/// Whether the product is one that a library for it was asked to do.
fn is_for_blas([m, k, n]: [usize; 3]) -> bool {
    cfg!(any(feature = "mkl", feature = "accelerate")) && Product::new(Size { m, k, n }).is_large()
}

/// A matrix and false, or, for a view of a transpose, what it views and true: nothing is copied then.
fn as_it_lies(t: &Tensor) -> Result<(Tensor, bool)> {
    let across = t.t()?;
    Ok(if !t.is_contiguous() && across.is_contiguous() { (across, true) } else { (t.clone(), false) })
}

/// `a(X·W + b)`: [`matmul`] with a bias, of shape `(N,)` or one for each row, `(M, N)`, and a nonlinearity.
pub(crate) fn dense(x: &Tensor, w: &Tensor, bias: Option<&Tensor>, activation: Option<Activation>) -> Result<Tensor> {
    if let (&[m, k], &[inner, n], Some(bias)) = (x.dims(), w.dims(), bias) {
        let alike = [w, bias].iter().all(|t| t.dtype() == x.dtype() && accepts(t)) && accepts(x);
        let fits = k == inner && (bias.dims() == [n] || bias.dims() == [m, n]);
        if alike && fits && !is_for_blas([m, k, n]) {
            return fuse(Dense::new(Size { m, k, n }, activation), [x, w, bias]);
        }
    }
    let y = matmul(x, w)?;
    let y = match bias {
        Some(bias) => y.broadcast_add(bias)?,
        None => y,
    };
    match activation {
        Some(activation) => activation.apply(&y),
        None => Ok(y),
    }
}

/// A network that turns the untouched half of a coupling, or a context, into parameters.
///
/// # Shapes
/// - input `(B, C, …)`; output `(B, P·C′, …)`, where the transformer of `C′` channels takes `P`
///   parameters each, and output channel `P·c + p` is parameter `p` of channel `c`.
pub trait Conditioner: Send + Sync {
    /// The shape of one context sample, `None` if the network takes no context.
    fn context_shape(&self) -> Option<&[usize]> {
        None
    }

    /// The network's output.
    fn forward(&self, x: &Tensor, context: Option<&Tensor>) -> Result<Tensor>;

    /// Data-dependent initialisation from one batch; returns the output with the new parameters.
    fn initialize(&self, x: &Tensor, context: Option<&Tensor>) -> Result<Tensor> {
        self.forward(x, context)
    }

    /// Switches batch statistics on or to their running averages.
    fn set_training(&self, _training: bool) {}

    /// One evaluation that can be differentiated afterwards: reversible back-propagation inverts a
    /// coupling with the value and then sends the gradient of that same value back.
    fn evaluate<'a>(&'a self, x: &Tensor, context: Option<&Tensor>) -> Result<Evaluation<'a>> {
        evaluate_by_graph(self, x, context)
    }
}

/// The default of [`Conditioner::evaluate`]: a local graph, differentiated by Candle.
pub fn evaluate_by_graph<'a, C: Conditioner + ?Sized>(
    net: &'a C,
    x: &Tensor,
    context: Option<&Tensor>,
) -> Result<Evaluation<'a>> {
    let leaves = Leaves::new(x, context)?;
    let graph = net.forward(leaves.x(), leaves.context())?;
    let value = graph.detach();
    let pullback =
        move |cotangent: &Tensor, gradients: &mut Gradients| leaves.pull_back(&pair(&graph, cotangent)?, gradients);
    Ok(Evaluation { value, pullback: Box::new(pullback) })
}

impl<C: Conditioner + ?Sized> Conditioner for Box<C> {
    fn context_shape(&self) -> Option<&[usize]> {
        (**self).context_shape()
    }
    fn forward(&self, x: &Tensor, context: Option<&Tensor>) -> Result<Tensor> {
        (**self).forward(x, context)
    }
    fn initialize(&self, x: &Tensor, context: Option<&Tensor>) -> Result<Tensor> {
        (**self).initialize(x, context)
    }
    fn set_training(&self, training: bool) {
        (**self).set_training(training);
    }
    fn evaluate<'a>(&'a self, x: &Tensor, context: Option<&Tensor>) -> Result<Evaluation<'a>> {
        (**self).evaluate(x, context)
    }
}

/// What sends a cotangent of a conditioner's output back: gradients of its input and of its context,
/// parameter gradients going to the [`Gradients`] it is given.
pub type ConditionerPullback<'a> = Box<dyn FnOnce(&Tensor, &mut Gradients) -> Result<(Tensor, Option<Tensor>)> + 'a>;

/// A conditioner's value, detached, with the means to differentiate it once.
pub struct Evaluation<'a> {
    /// The output.
    pub value: Tensor,
    /// The vector-Jacobian product of the evaluation.
    pub pullback: ConditionerPullback<'a>,
}
