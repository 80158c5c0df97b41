//! Batch normalization as a flow layer.

use candle_core::Tensor;

use crate::bijector::{Bijector, LayerReport, Pullback, Tape, backprop_locally, check_batch_as, scale_range};
use crate::layers::Partition;
use crate::layers::coupling::check_mask;
use crate::nn::statistics::{BatchStatistics, Moments, from_rows, to_rows};
use crate::numerics::host;
use crate::param::{Init, Param, ParamPath};
use crate::{Error, Gradients, Result};

/// `z = (x - μ) / √(σ² + 1e-4)` per channel, and `log |det| = -½ Σ ln(σ² + 1e-4)` over the entries.
///
/// Dinh et al. 2017, section 3.7. In training `μ` and `σ²` are the batch's, and gradients flow through
/// them: the log-determinant is that of one sample with the statistics held fixed, as in the paper. In
/// evaluation they are running averages (decay .1), saved with the model. Decoding always takes the
/// running averages, since a latent has no batch statistics: call [`Bijector::set_training`] with
/// `false` before comparing encode and decode. Reversible back-propagation keeps the batch's statistics,
/// `2C` numbers, in its tape.
///
/// # Shapes
/// - event `(C, …)`, statistics `(C,)`.
#[derive(Debug)]
pub struct BatchNorm {
    shape: Vec<usize>,
    /// Ones where entries are normalised, `(C, 1, P)`; `None` for all.
    mask: Option<Tensor>,
    statistics: BatchStatistics,
    affine: Option<Affine>,
}

/// A learned scale `e^g` and shift per channel.
#[derive(Debug)]
struct Affine {
    log_gamma: Param,
    beta: Param,
}

impl BatchNorm {
    /// Normalises every entry of events of `shape`; buffers under `path`, no parameters.
    ///
    /// # Errors
    /// [`Error::Config`] for an event without channels.
    pub fn new(path: &ParamPath, shape: &[usize]) -> Result<Self> {
        let Some(&channels) = shape.first() else {
            return Err(Error::config("batch norm", "needs an event with at least one dimension"));
        };
        let statistics = BatchStatistics::new(path, channels)?;
        Ok(BatchNorm { shape: shape.to_vec(), mask: None, statistics, affine: None })
    }

    /// Normalises only what a coupling with this partition has transformed; statistics are taken over
    /// those entries alone (the authors' code counts the others as zeros).
    ///
    /// # Errors
    /// [`Error::Config`] when the partition is not one of this event.
    pub fn on_transformed(mut self, partition: &Partition) -> Result<Self> {
        let statistics = self.statistics.running()?.mean;
        let (dtype, device) = (statistics.dtype(), statistics.device());
        let channels = self.shape[0];
        let mask = match partition {
            Partition::Mask(kept) => {
                check_mask("batch norm mask", kept, &self.shape)?;
                host::wide(kept)?.affine(-1.0, 1.0)?
            }
            Partition::Channels { swap } => {
                let (kept, moved) = (channels.div_ceil(2), channels / 2);
                let transformed = if *swap { 0..moved } else { kept..channels };
                let ones: Vec<f32> = (0..channels).map(|c| f32::from(u8::from(transformed.contains(&c)))).collect();
                let mut dims = vec![1; self.shape.len()];
                dims[0] = channels;
                Tensor::from_vec(ones, dims, &candle_core::Device::Cpu)?.broadcast_as(self.shape.as_slice())?
            }
        };
        let mask = mask.to_dtype(dtype)?.to_device(device)?.contiguous()?;
        self.mask = Some(mask.reshape((channels, 1, ()))?);
        Ok(self)
    }

    /// Follows the normalisation by `z ↦ e^g z + β` with learned `log_gamma` and `beta` (zero) per channel.
    ///
    /// # Errors
    /// [`Error::Config`] when a name is taken.
    pub fn with_affine(mut self, path: &ParamPath) -> Result<Self> {
        let channels = self.shape[0];
        self.affine = Some(Affine {
            log_gamma: path.param("log_gamma", channels, Init::Const(0.0))?,
            beta: path.param("beta", channels, Init::Const(0.0))?,
        });
        Ok(self)
    }

    /// `ln` of the total scale and the shift after it, `(C, 1, 1)` each.
    fn log_scale_and_shift(&self, moments: &Moments) -> Result<(Tensor, Option<Tensor>)> {
        let normalising = moments.std()?.log()?.neg()?;
        let Some(Affine { log_gamma, beta }) = &self.affine else { return Ok((normalising, None)) };
        let shape = (self.shape[0], 1, 1);
        Ok(((normalising + log_gamma.tensor().reshape(shape)?)?, Some(beta.tensor().reshape(shape)?)))
    }

    /// `Σ ln scale` over the normalised entries of one sample, for all samples, times `sign`.
    fn log_det(&self, log_scale: &Tensor, batch: usize, sign: f64) -> Result<Tensor> {
        let sum = match &self.mask {
            Some(mask) => mask.sum_keepdim(2)?.mul(log_scale)?.sum_all()?,
            None => log_scale.sum_all()?.affine(self.shape[1..].iter().product::<usize>() as f64, 0.0)?,
        };
        Ok(sum.affine(sign, 0.0)?.reshape(1)?.broadcast_as(batch)?)
    }

    /// `changed` where entries are normalised, `original` elsewhere.
    fn select(&self, changed: Tensor, original: &Tensor) -> Result<Tensor> {
        Ok(match &self.mask {
            None => changed,
            Some(mask) => (changed.broadcast_mul(mask)? + original.broadcast_mul(&mask.affine(-1.0, 1.0)?)?)?,
        })
    }

    fn normalise(&self, x: &Tensor, moments: &Moments, rows: &Tensor) -> Result<(Tensor, Tensor)> {
        let (log_scale, shift) = self.log_scale_and_shift(moments)?;
        let mut z = rows.broadcast_sub(&moments.mean)?.broadcast_mul(&log_scale.exp()?)?;
        if let Some(shift) = shift {
            z = z.broadcast_add(&shift)?;
        }
        Ok((from_rows(&self.select(z, rows)?, x)?, self.log_det(&log_scale, x.dim(0)?, 1.0)?))
    }

    fn restore(&self, z: &Tensor, moments: &Moments) -> Result<(Tensor, Tensor)> {
        let (log_scale, shift) = self.log_scale_and_shift(moments)?;
        let rows = to_rows(z)?;
        let centred = match shift {
            Some(shift) => rows.broadcast_sub(&shift)?,
            None => rows.clone(),
        };
        let x = centred.broadcast_mul(&log_scale.neg()?.exp()?)?.broadcast_add(&moments.mean)?;
        Ok((from_rows(&self.select(x, &rows)?, z)?, self.log_det(&log_scale, z.dim(0)?, -1.0)?))
    }
}

impl Bijector for BatchNorm {
    fn name(&self) -> String {
        "batch norm".into()
    }

    fn event_shape(&self) -> &[usize] {
        &self.shape
    }

    fn encode(&self, x: &Tensor, _context: Option<&Tensor>) -> Result<(Tensor, Tensor)> {
        check_batch_as("batch norm", x, &self.shape, self.statistics.dtype())?;
        let rows = to_rows(x)?;
        self.normalise(x, &self.statistics.of(&rows, self.mask.as_ref())?, &rows)
    }

    fn decode(&self, z: &Tensor, _context: Option<&Tensor>) -> Result<(Tensor, Tensor)> {
        check_batch_as("batch norm", z, &self.shape, self.statistics.dtype())?;
        self.restore(z, &self.statistics.running()?)
    }

    fn set_training(&self, training: bool) {
        self.statistics.set_training(training);
    }

    fn describe(&self, x: &Tensor, context: Option<&Tensor>) -> Result<Vec<LayerReport>> {
        let (log_scale, _) = self.log_scale_and_shift(&self.statistics.running()?)?;
        let logs = host::numbers(&log_scale)?;
        Ok(vec![LayerReport { scale: scale_range(logs), ..LayerReport::of(self, x, context)? }])
    }

    fn encode_taped(&self, x: &Tensor, _context: Option<&Tensor>) -> Result<(Tensor, Tensor, Tape)> {
        check_batch_as("batch norm", x, &self.shape, self.statistics.dtype())?;
        let rows = to_rows(x)?;
        let moments = self.statistics.of(&rows, self.mask.as_ref())?;
        let (z, log_det) = self.normalise(x, &moments, &rows)?;
        Ok((z, log_det, Tape::Saved(vec![moments.mean.detach(), moments.variance.detach()])))
    }

    /// Inverts with the statistics of the tape, then differentiates one local graph from the input on,
    /// the statistics included.
    fn backprop(
        &self,
        z: &Tensor,
        tape: &Tape,
        context: Option<&Tensor>,
        grad_z: &Tensor,
        grad_log_det: &Tensor,
        gradients: &mut Gradients,
    ) -> Result<Pullback> {
        check_batch_as("batch norm", z, &self.shape, self.statistics.dtype())?;
        let saved = if let Tape::Saved(saved) = tape { saved.as_slice() } else { &[] };
        let [mean, variance] = saved else {
            return Err(Error::config("batch norm", "was given the tape of another bijector"));
        };
        let x = {
            let _paused = gradients.no_grad();
            self.restore(z, &Moments { mean: mean.clone(), variance: variance.clone() })?.0
        };
        backprop_locally(self, z, &Tape::Input(x), context, grad_z, grad_log_det, gradients)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::autodiff::pair;
    use crate::testing::numbers::distance;
    use crate::{FlowRng, ParamStore};
    use candle_core::{DType, Device, Var};

    fn store() -> ParamStore {
        ParamStore::new(0, DType::F64, &Device::Cpu)
    }

    fn batch() -> Tensor {
        let x = FlowRng::seed_from(2).normal((3, 4, 2, 2), DType::F64, &Device::Cpu).unwrap();
        x.affine(2.0, 1.5).unwrap()
    }

    fn variants(store: &ParamStore) -> Vec<BatchNorm> {
        let shape = [4, 2, 2];
        let new = |name: &str| BatchNorm::new(&store.root().pp(name), &shape).unwrap();
        let board = Partition::checkerboard(&shape, true).unwrap();
        vec![
            new("plain"),
            new("affine").with_affine(&store.root().pp("affine")).unwrap(),
            new("board").on_transformed(&board).unwrap().with_affine(&store.root().pp("board")).unwrap(),
            new("channels").on_transformed(&Partition::Channels { swap: true }).unwrap(),
        ]
    }

    /// Reversible back-propagation, which inverts with the tape's statistics, against one ordinary graph.
    #[test]
    fn training_gradients_flow_through_the_batch_statistics() {
        let store = store();
        let mut rng = FlowRng::seed_from(5);
        for norm in variants(&store) {
            let x = Var::from_tensor(&batch()).unwrap();
            let (z, log_det) = norm.encode(x.as_tensor(), None).unwrap();
            let grad_z = rng.normal(z.shape(), DType::F64, &Device::Cpu).unwrap();
            let grad_log = rng.normal(3, DType::F64, &Device::Cpu).unwrap();
            let objective = pair(&z, &grad_z).unwrap().add(&pair(&log_det, &grad_log).unwrap()).unwrap();
            let graph = objective.backward().unwrap();
            let mut plain = Gradients::new(&store);
            plain.accumulate(&graph).unwrap();

            let (z, _, tape) = {
                let _paused = store.no_grad();
                norm.encode_taped(&batch(), None).unwrap()
            };
            let mut local = Gradients::new(&store);
            let pulled = norm.backprop(&z, &tape, None, &grad_z, &grad_log, &mut local).unwrap();
            assert!(distance(&pulled.x, &batch()) < 1e-12);
            assert!(distance(&pulled.grad_x, graph.get(&x).unwrap()) < 1e-12);
            for ((_, a), (_, b)) in local.iter().zip(plain.iter()) {
                assert_eq!(a.is_some(), b.is_some());
                assert!(a.zip(b).is_none_or(|(a, b)| distance(a, b) < 1e-12));
            }
        }
    }

    #[test]
    fn the_input_gradient_is_the_numerical_one() {
        let norm = BatchNorm::new(&store().root(), &[4, 2, 2]).unwrap();
        let objective = |x: &Tensor| {
            let (z, log_det) = norm.encode(x, None).unwrap();
            let z = (z.sqr().unwrap() * z.sin().unwrap()).unwrap().sum_all().unwrap();
            (z + log_det.sum_all().unwrap()).unwrap()
        };
        let x = Var::from_tensor(&batch()).unwrap();
        let grads = objective(x.as_tensor()).backward().unwrap();
        let gradient = grads.get(&x).unwrap().flatten_all().unwrap().to_vec1::<f64>().unwrap();
        let direction = FlowRng::seed_from(9).normal(x.shape(), DType::F64, &Device::Cpu).unwrap();
        let at = |h: f64| {
            let moved = (x.as_tensor() + direction.affine(h, 0.0).unwrap()).unwrap().detach();
            objective(&moved).to_scalar::<f64>().unwrap()
        };
        let numerical = (at(1e-5) - at(-1e-5)) / 2e-5;
        let along = direction.flatten_all().unwrap().to_vec1::<f64>().unwrap();
        let analytic: f64 = gradient.iter().zip(&along).map(|(a, b)| a * b).sum();
        assert!((numerical - analytic).abs() < 1e-6 * numerical.abs().max(1.0), "{numerical} {analytic}");
    }

    #[test]
    fn masks_of_other_numbers_or_shapes_are_refused() {
        let mask = |entries: &[f64]| Partition::Mask(Tensor::new(entries, &Device::Cpu).unwrap());
        let wrong: [&[f64]; 5] = [&[0.5, 1.0], &[f64::NAN, 1.0], &[-1.0, 0.0], &[2.0, 0.0], &[1.0, 0.0, 1.0]];
        for entries in wrong {
            let outcome = BatchNorm::new(&store().root(), &[2]).unwrap().on_transformed(&mask(entries));
            assert!(matches!(outcome, Err(Error::Config { .. })), "{entries:?}");
        }
        BatchNorm::new(&store().root(), &[2]).unwrap().on_transformed(&mask(&[0.0, 1.0])).unwrap();
    }

    #[test]
    fn what_is_not_finite_never_enters_the_running_averages() {
        let store = store();
        let norm = BatchNorm::new(&store.root(), &[2]).unwrap();
        norm.encode(&Tensor::new(&[[1.0, 2.0], [3.0, 5.0]], &Device::Cpu).unwrap(), None).unwrap();
        let averages =
            || ["running_mean", "running_variance"].map(|n| store.get(n).unwrap().var().to_vec1::<f64>().unwrap());
        let before = averages();
        for bad in [f64::NAN, f64::INFINITY, 1e200] {
            let x = Tensor::new(&[[1.0, bad], [3.0, 4.0]], &Device::Cpu).unwrap();
            norm.encode(&x, None).unwrap();
            assert_eq!(averages(), before, "{bad}");
        }
    }

    #[test]
    fn statistics_see_only_transformed_entries() {
        let (store, shape) = (store(), [1, 2, 2]);
        let board = Partition::checkerboard(&shape, false).unwrap();
        let norm = BatchNorm::new(&store.root(), &shape).unwrap().on_transformed(&board).unwrap();
        let x = Tensor::new(&[[[[100.0, 1.0], [3.0, -100.0]]]], &Device::Cpu).unwrap();
        let (z, log_det) = norm.encode(&x, None).unwrap();
        let std = (1.0f64 + 1e-4).sqrt();
        let z = z.flatten_all().unwrap().to_vec1::<f64>().unwrap();
        let expected = [100.0, -1.0 / std, 1.0 / std, -100.0];
        assert!(z.iter().zip(expected).all(|(a, b)| (a - b).abs() < 1e-12), "{z:?}");
        assert!((log_det.to_vec1::<f64>().unwrap()[0] + 2.0 * std.ln()).abs() < 1e-12);
    }

    #[test]
    fn running_averages_move_once_per_step_in_both_modes() {
        let store = store();
        let norm = BatchNorm::new(&store.root(), &[4, 2, 2]).unwrap();
        let running = || store.get("running_mean").unwrap().tensor().to_vec1::<f64>().unwrap()[0];
        norm.encode(&batch(), None).unwrap();
        let once = running();
        assert!(once.abs() > 1e-3);

        store.get("running_mean").unwrap().set(&Tensor::zeros(4, DType::F64, &Device::Cpu).unwrap()).unwrap();
        let (z, log_det, tape) = {
            let _paused = store.no_grad();
            norm.encode_taped(&batch(), None).unwrap()
        };
        assert_eq!(running(), 0.0);
        norm.backprop(&z, &tape, None, &z, &log_det, &mut Gradients::new(&store)).unwrap();
        assert!((running() - once).abs() < 1e-12);
    }
}
