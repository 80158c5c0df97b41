//! The masked autoencoder: one network whose output `d` sees only the inputs before `d`.

use std::ops::Range;

use candle_core::{D, DType, Device, Tensor};

use super::{Activation, Conditioner, Linear, MlpConfig};
use crate::bijector::{check_batch_as, check_context};
use crate::param::{Init, ParamPath};
use crate::{Error, Result};

/// A multi-layer perceptron with masked weights: the `P` outputs of dimension `d` depend on
/// `x_0 … x_{d-1}` and on the context, exactly (Germain et al. 2015, arXiv 1502.03509, section 4).
///
/// Inputs have degrees `1 … D`. Hidden degrees repeat in sequence, from 0 with a context and from 1
/// without, up to `D - 1`; a unit sees the units below of no larger degree, an output of
/// degree `d` those of degree below `d`. The context reaches every hidden unit and every output by a
/// weight of its own, so that even the first dimension (the only one, for `D = 1`) depends on it
/// nonlinearly. The output layer starts as [`MlpConfig::output_bound`] says.
///
/// # Shapes
/// - `x`: `(B, D)`; `context`: `(B, K)`; output `(B, D·P)`, where entry `d·P + p` is parameter `p` of
///   dimension `d`.
#[derive(Debug)]
pub struct Made {
    dims: usize,
    per_dim: usize,
    config: MlpConfig,
    layers: Vec<Linear>,
    context: Vec<Linear>,
}

impl Made {
    /// A network over `dims` dimensions that returns `outputs_per_dim` numbers for each, with parameters
    /// `0.weight`, `0.bias`, `0.context.weight`, … under `path`.
    ///
    /// # Errors
    /// [`Error::Config`] without dimensions or outputs, or for a hidden layer without units.
    pub fn new(path: &ParamPath, dims: usize, outputs_per_dim: usize, config: &MlpConfig) -> Result<Self> {
        config.check("made")?;
        if config.waves > 0 {
            return Err(Error::config("made waves", "are for networks of couplings; set them to 0"));
        }
        if dims == 0 || outputs_per_dim == 0 {
            return Err(Error::config("made", "needs at least one dimension and one output for each"));
        }
        let (layers, context) = (Vec::new(), Vec::new());
        let mut net = Made { dims, per_dim: outputs_per_dim, config: config.clone(), layers, context };
        let mut below: Vec<usize> = (1..=dims).collect();
        for (i, &width) in config.hidden.iter().enumerate() {
            let degrees = hidden_degrees(width, dims, config.context.is_some());
            let mask = mask(&below, &degrees, |source, unit| source <= unit)?;
            net.push(&path.pp(i), &mask, |inputs| config.activation.init(inputs))?;
            below = degrees;
        }
        let outputs: Vec<usize> = (0..dims * outputs_per_dim).map(|o| o / outputs_per_dim + 1).collect();
        let mask = mask(&below, &outputs, |source, unit| source < unit)?;
        net.push(&path.pp(config.hidden.len()), &mask, |_| config.output_init())?;
        Ok(net)
    }

    /// One masked layer and the layer that brings the context to its units.
    fn push(&mut self, path: &ParamPath, mask: &Tensor, init: impl Fn(usize) -> Init) -> Result<()> {
        let (inputs, outputs) = mask.dims2()?;
        self.layers.push(Linear::masked(path, mask, init(inputs))?);
        if let Some(k) = self.config.context {
            self.context.push(Linear::new(&path.pp("context"), k, outputs, init(k), false)?);
        }
        Ok(())
    }

    /// The element type of the parameters.
    pub(crate) fn dtype(&self) -> DType {
        self.layers[0].dtype()
    }

    /// Masks the weights and adds the context to the biases: what passes over one batch share.
    ///
    /// # Errors
    /// [`Error::Context`] or [`Error::Shape`] when the context is missing or does not fit `batch` rows.
    pub(crate) fn prepare(&self, batch: usize, context: Option<&Tensor>) -> Result<Prepared> {
        let context = match self.config.context {
            Some(k) => Some(check_context("made", context, batch, &[k], self.dtype())?),
            None => None,
        };
        let mut layers = Vec::with_capacity(self.layers.len());
        for (i, layer) in self.layers.iter().enumerate() {
            let weight = layer.weight()?;
            let bias = layer.bias_or_zero()?;
            let offset = match (context, self.context.get(i)) {
                (Some(c), Some(layer)) => layer.forward(c)?.broadcast_add(&bias)?,
                _ => bias,
            };
            layers.push((weight, offset));
        }
        Ok(Prepared { per_dim: self.per_dim, activation: self.config.activation, layers })
    }
}

/// The weights and offsets of a [`Made`] for one batch and its context, the offsets `(N,)` without one and `(B, N)` with it.
pub(crate) struct Prepared {
    per_dim: usize,
    activation: Activation,
    layers: Vec<(Tensor, Tensor)>,
}

impl Prepared {
    /// The outputs `(B, n·P)` of the `n` dimensions in `dims`, given at least the inputs before the last of
    /// them, `(B, d)`: a prefix of `x` is enough, since no output sees what follows.
    pub(crate) fn outputs(&self, known: &Tensor, dims: Range<usize>) -> Result<Tensor> {
        let (first, count) = (dims.start * self.per_dim, dims.len() * self.per_dim);
        let mut h = known.contiguous()?;
        for (i, (weight, offset)) in self.layers.iter().enumerate() {
            let last = i + 1 == self.layers.len();
            let (weight, offset) = if last {
                (weight.narrow(1, first, count)?, offset.narrow(D::Minus1, first, count)?)
            } else {
                (weight.clone(), offset.clone())
            };
            let seen = h.dim(1)?;
            let activation = (!last).then_some(self.activation);
            h = super::dense(&h, &weight.narrow(0, 0, seen)?, Some(&offset), activation)?;
        }
        Ok(h)
    }
}

/// The degrees of `width` hidden units, in sequence so that every degree has its share.
///
/// Fewer units than degrees are spread evenly up to the largest degree, or the last inputs would
/// be seen by no unit and condition nothing.
fn hidden_degrees(width: usize, dims: usize, has_context: bool) -> Vec<usize> {
    // Degree 0 sees the context alone; without one it would be a constant.
    let lowest = usize::from(!has_context).min(dims - 1);
    let count = dims - lowest;
    let step = |unit: usize| if width < count { (unit + 1) * count / width - 1 } else { unit % count };
    (0..width).map(|unit| lowest + step(unit)).collect()
}

/// `(sources, units)`, one where `seen(source degree, unit degree)`.
fn mask(sources: &[usize], units: &[usize], seen: impl Fn(usize, usize) -> bool) -> Result<Tensor> {
    let entries: Vec<f64> =
        sources.iter().flat_map(|&s| units.iter().map(move |&u| (s, u))).map(|(s, u)| f64::from(seen(s, u))).collect();
    Ok(Tensor::from_vec(entries, (sources.len(), units.len()), &Device::Cpu)?)
}

impl Conditioner for Made {
    fn context_shape(&self) -> Option<&[usize]> {
        self.config.context_shape()
    }

    fn forward(&self, x: &Tensor, context: Option<&Tensor>) -> Result<Tensor> {
        let batch = check_batch_as("made", x, &[self.dims], self.dtype())?;
        self.prepare(batch, context)?.outputs(x, 0..self.dims)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::FlowRng;
    use crate::testing::jacobian::of_map;
    use crate::testing::numbers::{distance, normal, store64, values};
    use crate::testing::randomise;

    fn net(dims: usize, per: usize, context: Option<usize>, hidden: &[usize]) -> Made {
        let store = store64(5);
        let config = MlpConfig { context, ..MlpConfig::new(hidden).activation(Activation::Tanh) };
        let net = Made::new(&store.root(), dims, per, &config).unwrap();
        randomise(&store, 0.7, &mut FlowRng::seed_from(1)).unwrap();
        net
    }

    #[test]
    fn outputs_see_exactly_the_dimensions_before_them() {
        for (dims, hidden) in [(1, &[4][..]), (2, &[3]), (3, &[16, 16]), (5, &[16, 9]), (4, &[])] {
            for context in [None, Some(2)] {
                let (net, c) = (net(dims, 3, context, hidden), normal(2, &[1, 2]));
                let slopes = of_map(&normal(1, &[1, dims]), |x| net.forward(x, Some(&c))).unwrap();
                assert_eq!(slopes.len(), dims * 3);
                for (output, row) in slopes.iter().enumerate() {
                    for (input, &slope) in row.iter().enumerate() {
                        let seen = input < output / 3;
                        assert_eq!(slope != 0.0, seen, "D = {dims}, output {output}, input {input}: {slope}");
                    }
                }
            }
        }
    }

    #[test]
    fn narrow_layers_lose_no_input() {
        for (dims, hidden) in [(5, &[1][..]), (7, &[3, 2]), (6, &[4, 8])] {
            for context in [None, Some(2)] {
                let (net, c) = (net(dims, 2, context, hidden), normal(2, &[1, 2]));
                let slopes = of_map(&normal(1, &[1, dims]), |x| net.forward(x, Some(&c))).unwrap();
                // The last dimension sees all the others, and no output sees its own input.
                assert!(slopes[2 * dims - 1][..dims - 1].iter().all(|&s| s != 0.0), "D = {dims}, {hidden:?}");
                let own = slopes.iter().enumerate().flat_map(|(o, row)| row[o / 2..].to_vec());
                assert!(own.into_iter().all(|s| s == 0.0), "D = {dims}, {hidden:?}");
            }
        }
    }

    #[test]
    fn a_prefix_of_the_input_is_enough() {
        for hidden in [&[][..], &[6], &[6, 4]] {
            let (net, x, c) = (net(4, 3, Some(2), hidden), normal(1, &[3, 4]), normal(2, &[3, 2]));
            let all = net.forward(&x, Some(&c)).unwrap();
            let prepared = net.prepare(3, Some(&c)).unwrap();
            for d in 0..4 {
                let one = prepared.outputs(&x.narrow(1, 0, d).unwrap(), d..d + 1).unwrap();
                assert!(distance(&one, &all.narrow(1, 3 * d, 3).unwrap()) < 1e-14, "{hidden:?}, dimension {d}");
            }
        }
    }

    #[test]
    fn every_output_depends_on_the_whole_context_nonlinearly() {
        for dims in [1, 2, 5] {
            let (net, x) = (net(dims, 2, Some(3), &[12]), normal(1, &[1, dims]));
            let slopes = |seed| of_map(&normal(seed, &[1, 3]), |c| net.forward(&x, Some(c))).unwrap();
            let (here, there) = (slopes(2), slopes(3));
            assert!(here.iter().flatten().all(|&s| s != 0.0));
            assert!(here.iter().flatten().zip(there.iter().flatten()).all(|(a, b)| (a - b).abs() > 1e-6));
        }
    }

    #[test]
    fn fresh_networks_answer_zero_and_bad_arguments_are_refused() {
        let path = store64(5).root();
        let made = Made::new(&path, 3, 2, &MlpConfig::new(&[8]).context(2)).unwrap();
        let out = made.forward(&normal(1, &[4, 3]), Some(&normal(2, &[4, 2]))).unwrap();
        assert_eq!(out.dims(), [4, 6]);
        assert!(values(&out).iter().all(|&v| v == 0.0));
        assert!(matches!(made.forward(&normal(1, &[4, 3]), None), Err(Error::Context { .. })));
        assert!(matches!(made.forward(&normal(1, &[4, 2]), None), Err(Error::Shape { .. })));
        assert!(Made::new(&path, 0, 2, &MlpConfig::new(&[8])).is_err());
        assert!(Made::new(&path, 2, 2, &MlpConfig::new(&[8]).waves(1)).is_err());
        assert!(Made::new(&path, 2, 0, &MlpConfig::new(&[8])).is_err());
        let spread = Made::new(&path.pp("spread"), 3, 2, &MlpConfig::new(&[8]).output_bound(0.1)).unwrap();
        let out = values(&spread.forward(&normal(1, &[4, 3]), None).unwrap());
        assert!(out.iter().any(|&v| v != 0.0));
    }
}
