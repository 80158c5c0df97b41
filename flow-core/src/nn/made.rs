//! The masked autoencoder: one network whose output `d` sees only the inputs before `d`.

use candle_core::{Device, Tensor};

use super::{Conditioner, Linear, MlpConfig};
use crate::bijector::{check_batch, check_context};
use crate::param::{Init, ParamPath};
use crate::{Error, Result};

/// A multi-layer perceptron with masked weights: the `P` outputs of dimension `d` depend on
/// `x_0 … x_{d-1}` and on the context, exactly (Germain et al. 2015, arXiv 1502.03509, section 4).
///
/// Inputs have degrees `1 … D`. Hidden degrees repeat in sequence, from 0 with a context and from 1
/// without, up to `D - 1`; a unit sees the units below of no larger degree, an output of dimension
/// degree `d` those of degree below `d`. The context reaches every hidden unit and every output by a
/// weight of its own, so that even the first dimension (the only one, for `D = 1`) depends on it
/// nonlinearly. The output layer starts at zero.
///
/// # Shapes
/// - `x`: `(B, D)`; `context`: `(B, K)`; output `(B, D·P)`, where entry `d·P + p` is parameter `p` of
///   dimension `d`.
#[derive(Debug)]
pub struct Made {
    dims: usize,
    config: MlpConfig,
    layers: Vec<Linear>,
    context: Vec<Linear>,
}

impl Made {
    /// A network over `dims` dimensions that answers `outputs_per_dim` numbers for each.
    ///
    /// # Errors
    /// [`Error::Config`] without dimensions, or for a hidden layer without units.
    pub fn new(path: &ParamPath, dims: usize, outputs_per_dim: usize, config: &MlpConfig) -> Result<Self> {
        config.check("made")?;
        if dims == 0 {
            return Err(Error::config("made", "needs at least one dimension"));
        }
        let mut net = Made { dims, config: config.clone(), layers: Vec::new(), context: Vec::new() };
        let mut below: Vec<usize> = (1..=dims).collect();
        for (i, &width) in config.hidden.iter().enumerate() {
            let degrees = hidden_degrees(width, dims, config.context.is_some());
            let mask = mask(&degrees, &below, |unit, source| source <= unit)?;
            net.push(&path.pp(i), &mask, Linear::uniform_init)?;
            below = degrees;
        }
        let outputs: Vec<usize> = (0..dims * outputs_per_dim).map(|o| o / outputs_per_dim + 1).collect();
        let mask = mask(&outputs, &below, |unit, source| source < unit)?;
        net.push(&path.pp(config.hidden.len()), &mask, |_| Init::Const(0.0))?;
        Ok(net)
    }

    /// One masked layer and the layer that brings the context to its units.
    fn push(&mut self, path: &ParamPath, mask: &Tensor, init: impl Fn(usize) -> Init) -> Result<()> {
        let (outputs, inputs) = mask.dims2()?;
        self.layers.push(Linear::masked(path, mask, init(inputs))?);
        if let Some(k) = self.config.context {
            self.context.push(Linear::new(&path.pp("context"), k, outputs, init(k), false)?);
        }
        Ok(())
    }
}

/// The degrees of `width` hidden units, in sequence so that every degree has its share.
fn hidden_degrees(width: usize, dims: usize, has_context: bool) -> Vec<usize> {
    // Degree 0 sees the context alone; without one it would be a constant.
    let lowest = usize::from(!has_context).min(dims - 1);
    (0..width).map(|unit| lowest + unit % (dims - lowest)).collect()
}

/// `(units, sources)`, one where `sees(unit degree, source degree)`.
fn mask(units: &[usize], sources: &[usize], sees: impl Fn(usize, usize) -> bool) -> Result<Tensor> {
    let entries: Vec<f64> =
        units.iter().flat_map(|&u| sources.iter().map(move |&s| (u, s))).map(|(u, s)| f64::from(sees(u, s))).collect();
    Ok(Tensor::from_vec(entries, (units.len(), sources.len()), &Device::Cpu)?)
}

impl Conditioner for Made {
    fn forward(&self, x: &Tensor, context: Option<&Tensor>) -> Result<Tensor> {
        let batch = check_batch("made", x, &[self.dims])?;
        let context = match self.config.context {
            Some(k) => Some(check_context("made", context, batch, &[k])?),
            None => None,
        };
        let mut h = x.clone();
        for (i, layer) in self.layers.iter().enumerate() {
            h = layer.forward(&h)?;
            if let (Some(c), Some(layer)) = (context, self.context.get(i)) {
                h = (h + layer.forward(c)?)?;
            }
            if i + 1 < self.layers.len() {
                h = self.config.activation.apply(&h)?;
            }
        }
        Ok(h)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::nn::Activation;
    use crate::test_util::{jacobian, normal, perturb, store64, values};

    fn net(dims: usize, per: usize, context: Option<usize>, hidden: &[usize]) -> Made {
        let store = store64(5);
        let config = MlpConfig { hidden: hidden.to_vec(), activation: Activation::Tanh, context };
        let net = Made::new(&store.root(), dims, per, &config).unwrap();
        perturb(&store, 0.7);
        net
    }

    #[test]
    fn outputs_see_exactly_the_dimensions_before_them() {
        for (dims, hidden) in [(1, &[4][..]), (2, &[3]), (3, &[16, 16]), (5, &[16, 9]), (4, &[])] {
            for context in [None, Some(2)] {
                let (net, c) = (net(dims, 3, context, hidden), normal(2, &[1, 2]));
                let slopes = jacobian(&normal(1, &[1, dims]), |x| net.forward(x, Some(&c)));
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
    fn every_output_depends_on_the_whole_context_nonlinearly() {
        for dims in [1, 2, 5] {
            let (net, x) = (net(dims, 2, Some(3), &[12]), normal(1, &[1, dims]));
            let slopes = |seed| jacobian(&normal(seed, &[1, 3]), |c| net.forward(&x, Some(c)));
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
    }
}
