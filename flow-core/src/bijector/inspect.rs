//! Looking into a model: what every layer does to a batch, in numbers that show where precision is lost.
//!
//! A flow fails numerically in two ways: a scale near zero is divided by when decoding, and a mixing
//! matrix that is nearly singular amplifies rounding errors. [`Bijector::describe`](super::Bijector::describe) shows both, layer by
//! layer, with the round-trip error that they cause.

use candle_core::Tensor;

use crate::Result;
use crate::numerics::host;

/// What one layer does to a batch; [`LayerReport::of`] measures it.
#[derive(Debug, Clone, PartialEq)]
pub struct LayerReport {
    /// Where the layer is, `level0.5`; empty for a bijector on its own.
    pub place: String,
    /// [`Bijector::name`](super::Bijector::name).
    pub name: String,
    /// The least and the greatest factor `|∂z/∂x|` by which an entry is scaled; `None` where entries are
    /// mixed, or only moved.
    pub scale: Option<(f64, f64)>,
    /// The condition number of a mixing matrix.
    pub condition: Option<f64>,
    /// The greatest `|z|`.
    pub largest: f64,
    /// The greatest `|decode(encode(x)) - x|` of this layer alone; `None` without an analytic inverse.
    pub round_trip: Option<f64>,
}

impl LayerReport {
    /// The same report with its place inside `outer`.
    #[must_use]
    pub fn within(mut self, outer: &str) -> Self {
        self.place = if self.place.is_empty() { outer.to_string() } else { format!("{outer}.{}", self.place) };
        self
    }
}

/// The greatest `|t|`; NaN if there is one, zero for an empty tensor.
///
/// # Errors
/// A failure of the device.
pub fn largest(t: &Tensor) -> Result<f64> {
    // A maximum on the device may drop NaN, which is what this is looking for.
    let values = host::numbers(t)?;
    Ok(values.iter().map(|v| v.abs()).fold(0.0, |a, b| if a.is_nan() || b.is_nan() { f64::NAN } else { a.max(b) }))
}

/// The least and the greatest of `exp(log)`; `None` for no numbers.
pub(crate) fn scale_range(logs: impl IntoIterator<Item = f64>) -> Option<(f64, f64)> {
    let scales = logs.into_iter().map(f64::exp);
    scales.map(|s| (s, s)).reduce(|(low, high), (s, _)| (low.min(s), high.max(s)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::layers::{ActNorm, InvertibleConv, Parametrization, Partition, Scaling};
    use crate::testing::smooth_coupling;
    use crate::transformer::{Affine, ScaleBound};
    use crate::{Bijector, Chain, FlowRng, ParamStore};
    use candle_core::{DType, Device};

    fn chain(store: &ParamStore) -> Chain {
        let (root, shape) = (store.root(), [4, 2, 2]);
        let affine = Affine::new(ScaleBound::Sigmoid);
        let partition = Partition::checkerboard(&shape, false).unwrap();
        let inner: Vec<Box<dyn Bijector>> = vec![
            Box::new(InvertibleConv::new(&root.pp("mix"), &shape, Parametrization::Full).unwrap()),
            smooth_coupling(&root.pp("coupling"), &shape, partition, affine, 0).unwrap(),
        ];
        let outer: Vec<Box<dyn Bijector>> = vec![
            Box::new(ActNorm::new(&root.pp("norm"), &shape).unwrap()),
            Box::new(Chain::new(inner).unwrap()),
            Box::new(Scaling::new(&root.pp("scaling"), &shape).unwrap()),
        ];
        Chain::new(outer).unwrap()
    }

    #[test]
    fn every_layer_is_described_in_its_place_with_the_numbers_of_its_parameters() {
        let store = ParamStore::new(0, DType::F64, &Device::Cpu);
        let chain = chain(&store);
        let set = |name: &str, v: Vec<f64>, shape: &[usize]| {
            store.get(name).unwrap().set(&Tensor::from_vec(v, shape, &Device::Cpu).unwrap()).unwrap();
        };
        set("norm.log_scale", vec![0.0, 0.5, -1.0, 0.1], &[4]);
        let diagonal = (0..16).map(|k| if k % 5 == 0 { [8.0, 1.0, 2.0, 0.5][k / 5] } else { 0.0 }).collect();
        set("mix.w", diagonal, &[4, 4]);
        let x = FlowRng::seed_from(1).normal((3, 4, 2, 2), DType::F64, &Device::Cpu).unwrap();
        let _paused = store.no_grad();
        let reports = chain.describe(&x, None).unwrap();
        let places: Vec<&str> = reports.iter().map(|r| r.place.as_str()).collect();
        assert_eq!(places, ["0", "1.0", "1.1", "2"]);
        let near = |a: Option<(f64, f64)>, b: (f64, f64)| {
            let (low, high) = a.unwrap();
            assert!((low - b.0).abs() < 1e-12 && (high - b.1).abs() < 1e-12, "{a:?} {b:?}");
        };
        near(reports[0].scale, ((-3.0f64).exp(), 1.5f64.exp()));
        assert!((reports[1].condition.unwrap() - 16.0).abs() < 1e-9 && reports[1].scale.is_none());
        // A conditioner of zeros scales what it transforms by sigmoid(2), and nothing by one.
        let s = 1.0 / (1.0 + (-2.0f64).exp());
        near(reports[2].scale, (s, s));
        near(reports[3].scale, (1.0, 1.0));
        let last = largest(&chain.encode(&x, None).unwrap().0).unwrap();
        assert!((reports[3].largest - last).abs() < 1e-12);
        assert!(reports.iter().all(|r| r.round_trip.unwrap() < 1e-12));
    }

    #[test]
    fn nan_is_the_largest() {
        let t = Tensor::new(&[1.0f32, f32::NAN, -3.0], &Device::Cpu).unwrap();
        assert!(largest(&t).unwrap().is_nan());
        assert_eq!(largest(&Tensor::new(&[1.0f32, -3.0], &Device::Cpu).unwrap()).unwrap(), 3.0);
    }
}
