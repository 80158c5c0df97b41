//! Masked autoregressive flow, generic over the transformer.

use candle_core::Tensor;

use crate::Result;
use crate::bijector::{Bijector, check_batch_as, check_context, sum_event, zero_log_det};
use crate::error::Direction;
use crate::nn::{Conditioner, Made, MlpConfig};
use crate::param::ParamPath;
use crate::transformer::Transformer;

/// `z_d = τ(x_d; θ_d(x_0 … x_{d-1}, context))` and `log |det| = Σ_d ln |∂τ/∂x_d|`, the Jacobian being
/// triangular (Papamakarios et al. 2017, arXiv 1705.07057, section 3.1).
///
/// # Cost
/// Encode is one pass of the [`Made`] network, decode `D` passes, one per dimension, for which weights
/// are masked and the context is multiplied once.
/// `Inverse(MaskedAutoregressive)` is the inverse autoregressive flow (IAF): fast sampling, slow
/// likelihood.
///
/// # Shapes
/// - event `(D,)`; context `(K,)` if the configuration names one.
pub struct MaskedAutoregressive<T> {
    shape: [usize; 1],
    context_shape: Option<[usize; 1]>,
    transformer: T,
    net: Made,
}

impl<T: Transformer> MaskedAutoregressive<T> {
    /// A layer over vectors of length `dims`; the network's parameters lie directly under `path`.
    ///
    /// # Errors
    /// [`Error::Config`](crate::Error::Config) without dimensions, or for a hidden layer without units.
    pub fn new(path: &ParamPath, dims: usize, transformer: T, config: &MlpConfig) -> Result<Self> {
        transformer.check()?;
        let net = Made::new(path, dims, transformer.params_per_element(), config)?;
        Ok(MaskedAutoregressive { shape: [dims], context_shape: config.context.map(|k| [k]), transformer, net })
    }

    /// The transformer.
    pub fn transformer(&self) -> &T {
        &self.transformer
    }

    fn check(&self, x: &Tensor, context: Option<&Tensor>) -> Result<usize> {
        let dtype = self.net.dtype();
        let batch = check_batch_as(&self.name(), x, &self.shape, dtype)?;
        if let Some(shape) = &self.context_shape {
            check_context(&self.name(), context, batch, shape, dtype)?;
        }
        Ok(batch)
    }

    /// The parameters `(B, D, P)` of every dimension.
    fn params(&self, x: &Tensor, context: Option<&Tensor>) -> Result<Tensor> {
        let per = self.transformer.params_per_element();
        Ok(self.net.forward(x, context)?.reshape((x.dim(0)?, self.shape[0], per))?)
    }
}

impl<T: Transformer> Bijector for MaskedAutoregressive<T> {
    fn name(&self) -> String {
        format!("autoregressive({})", self.transformer.name())
    }

    fn event_shape(&self) -> &[usize] {
        &self.shape
    }

    fn context_shape(&self) -> Option<&[usize]> {
        self.context_shape.as_ref().map(<[usize; 1]>::as_slice)
    }

    fn analytic(&self, direction: Direction) -> bool {
        direction == Direction::Encode
    }

    fn encode(&self, x: &Tensor, context: Option<&Tensor>) -> Result<(Tensor, Tensor)> {
        if self.check(x, context)? == 0 {
            return Ok((x.clone(), zero_log_det(x)?));
        }
        let (z, log) = self.transformer.encode(x, &self.params(x, context)?)?;
        Ok((z, sum_event(&log)?))
    }

    fn decode(&self, z: &Tensor, context: Option<&Tensor>) -> Result<(Tensor, Tensor)> {
        let (batch, dims, per) = (self.check(z, context)?, self.shape[0], self.transformer.params_per_element());
        if batch == 0 {
            return Ok((z.clone(), zero_log_det(z)?));
        }
        let (mut columns, mut logs) = (Vec::with_capacity(dims), Vec::with_capacity(dims));
        let net = self.net.prepare(batch, context)?;
        for d in 0..dims {
            let known = if d == 0 { z.narrow(1, 0, 0)? } else { Tensor::cat(&columns, 1)? };
            let params = net.outputs(&known, d..d + 1)?.reshape((batch, 1, per))?;
            let (x, log) = self.transformer.decode(&z.narrow(1, d, 1)?.contiguous()?, &params)?;
            columns.push(x);
            logs.push(log);
        }
        Ok((Tensor::cat(&columns, 1)?, sum_event(&Tensor::cat(&logs, 1)?)?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::distribution::StandardGaussian;
    use crate::layers::{Coupling, InvertibleConv, Parametrization, Partition, Permute};
    use crate::nn::{Activation, Mlp};
    use crate::testing::jacobian::of_map;
    use crate::testing::numbers::{distance, normal, store64, values};
    use crate::testing::randomise;
    use crate::transformer::{Additive, Affine, LogisticMixture, RationalQuadraticSpline, ScaleBound};
    use crate::{Backprop, Chain, Density, Error, Flow, FlowRng, Gradients, Inverse, ParamStore};

    fn layer<T: Transformer>(dims: usize, transformer: T, context: Option<usize>) -> MaskedAutoregressive<T> {
        let store = store64(9);
        let config = MlpConfig { context, ..MlpConfig::new(&[7]).activation(Activation::Tanh) };
        let layer = MaskedAutoregressive::new(&store.root(), dims, transformer, &config).unwrap();
        randomise(&store, 0.4, &mut FlowRng::seed_from(1)).unwrap();
        layer
    }

    #[test]
    fn the_jacobian_is_exactly_triangular() {
        let layer = layer(5, Affine::new(ScaleBound::SoftClamp(2.0)), None);
        let encode = of_map(&normal(1, &[1, 5]), |x| Ok(layer.encode(x, None)?.0)).unwrap();
        let decode = of_map(&normal(1, &[1, 5]), |z| Ok(layer.decode(z, None)?.0)).unwrap();
        for j in [encode, decode] {
            for (row, column) in (0..5).flat_map(|r| (0..5).map(move |c| (r, c))) {
                assert_eq!(j[row][column] != 0.0, column <= row, "entry ({row}, {column})");
            }
        }
    }

    /// Every layer and transformer of this crate that acts on vectors, in one flow with a context.
    fn mixed_flow(store: &ParamStore) -> Flow<Chain, StandardGaussian> {
        let (path, bound) = (store.root(), ScaleBound::SoftClamp(2.0));
        let config = MlpConfig::new(&[6]).activation(Activation::Tanh).context(2);
        let spline = RationalQuadraticSpline::new(3, 4.0).unwrap();
        let mixture = LogisticMixture::new(2).unwrap();
        let net = Mlp::new(&path.pp("d"), 3, 2 * mixture.params_per_element(), &config).unwrap();
        let halves = Partition::Channels { swap: true };
        let maf = |name: &str| MaskedAutoregressive::new(&path.pp(name), 5, Affine::new(bound), &config).unwrap();
        let layers: Vec<Box<dyn Bijector>> = vec![
            Box::new(MaskedAutoregressive::new(&path.pp("a"), 5, spline, &config).unwrap()),
            Box::new(InvertibleConv::new(&path.pp("b"), &[5], Parametrization::Plu).unwrap()),
            Box::new(Inverse(maf("c"))),
            Box::new(Coupling::new(&[5], halves, mixture, net).unwrap().with_context(&[2])),
            Box::new(Permute::random(&path.pp("e"), &[5]).unwrap()),
            Box::new(maf("f")),
        ];
        let base = StandardGaussian::new(&[5], store.dtype(), store.device());
        Flow::new(store, Chain::new(layers).unwrap(), base).unwrap()
    }

    #[test]
    fn reversible_and_plain_gradients_agree_and_reach_every_parameter() {
        let store = store64(4);
        let flow = mixed_flow(&store);
        randomise(&store, 0.3, &mut FlowRng::seed_from(1)).unwrap();
        let (x, c, weight) = (normal(1, &[4, 5]), normal(2, &[4, 2]), normal(3, &[4]));
        let run = |mode| {
            let mut gradients = Gradients::new(&store);
            let scored = flow.log_prob_backward(&x, Some(&c), &weight, mode, &mut gradients).unwrap();
            (scored, gradients)
        };
        let ((plain, reference), (scored, gradients)) = (run(Backprop::Plain), run(Backprop::Reversible));
        assert!(distance(&scored.log_prob, &plain.log_prob) < 1e-9);
        assert!(distance(&scored.grad_x, &plain.grad_x) < 1e-7);
        assert!(distance(&scored.grad_context.unwrap(), &plain.grad_context.unwrap()) < 1e-7);
        for ((param, ours), (_, theirs)) in gradients.iter().zip(reference.iter()) {
            let (ours, theirs) = (ours.unwrap(), theirs.unwrap());
            assert!(distance(ours, theirs) < 1e-7, "{}", param.name());
            assert!(values(ours).iter().any(|&g| g != 0.0), "{} gets no gradient", param.name());
        }
    }

    #[test]
    fn only_encoding_is_fast_and_bad_arguments_are_refused() {
        let layer = layer(3, Additive, Some(2));
        assert!(layer.analytic(Direction::Encode) && !layer.analytic(Direction::Decode));
        assert!(matches!(layer.encode(&normal(1, &[2, 3]), None), Err(Error::Context { .. })));
        assert!(matches!(layer.decode(&normal(1, &[2, 4]), None), Err(Error::Shape { .. })));
        assert!(MaskedAutoregressive::new(&store64(1).root(), 0, Additive, &MlpConfig::new(&[3])).is_err());
    }
}
