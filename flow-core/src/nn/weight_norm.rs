//! Weight-normalised convolutions.

use candle_core::Tensor;

use super::conv::{ConvGeometry, conv2d};
use crate::Result;
use crate::param::{Init, Param, ParamPath};

/// How a [`WeightNormConv2d`] scales its unit-norm kernels and whether it adds a bias.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct WeightNormOptions {
    /// A learned magnitude for every output; without it kernels keep norm one (before a batch norm).
    pub magnitude: bool,
    /// A bias, zero at the start.
    pub bias: bool,
}

impl WeightNormOptions {
    /// With or without a learned magnitude and a bias.
    pub const fn new(magnitude: bool, bias: bool) -> Self {
        WeightNormOptions { magnitude, bias }
    }
}

/// A convolution with kernels `w_o = g_o · v_o / ‖v_o‖` (Salimans & Kingma 2016).
///
/// `v` starts uniform in `±√(2/C)` and `g_o` at `√(2/C) · √(C·kh·kw / 12)`, as in the RealNVP authors'
/// code.
#[derive(Debug, Clone)]
pub struct WeightNormConv2d {
    direction: Param,
    magnitude: Option<Param>,
    bias: Option<Param>,
    geometry: ConvGeometry,
}

impl WeightNormConv2d {
    /// Parameters `direction` `(O, C, kh, kw)` and, if wanted, `magnitude` and `bias` `(O,)` under `path`.
    ///
    /// # Errors
    /// [`Error::Config`](crate::Error::Config) when a name is taken.
    pub fn new(
        path: &ParamPath,
        channels: usize,
        outputs: usize,
        geometry: ConvGeometry,
        options: WeightNormOptions,
    ) -> Result<Self> {
        let [kh, kw] = geometry.kernel;
        let bound = (2.0 / channels.max(1) as f64).sqrt();
        let magnitude = bound * ((channels * kh * kw) as f64 / 12.0).sqrt();
        let optional = |wanted: bool, name: &str, init: f64| -> Result<Option<Param>> {
            if wanted { path.param(name, outputs, Init::Const(init)).map(Some) } else { Ok(None) }
        };
        Ok(WeightNormConv2d {
            direction: path.param("direction", (outputs, channels, kh, kw), Init::Uniform(bound))?,
            magnitude: optional(options.magnitude, "magnitude", magnitude)?,
            bias: optional(options.bias, "bias", 0.0)?,
            geometry,
        })
    }

    /// The learned magnitudes `g`, `(O,)`, if there are any: what a penalty on the size of the weights is on.
    pub fn magnitude(&self) -> Option<&Param> {
        self.magnitude.as_ref()
    }

    /// The kernels `g · v / ‖v‖`, `(O, C, kh, kw)`.
    pub fn weight(&self) -> Result<Tensor> {
        let v = self.direction.tensor();
        // The constant keeps the gradient finite should a kernel ever be exactly zero.
        let norm = (v.sqr()?.flatten_from(1)?.sum(1)? + 1e-12)?.sqrt()?;
        let scale = match &self.magnitude {
            Some(g) => (g.tensor() / norm)?,
            None => norm.recip()?,
        };
        Ok(v.broadcast_mul(&scale.reshape(((), 1, 1, 1))?)?)
    }

    /// The convolution of `x`, `(B, C, H, W)`.
    ///
    /// # Errors
    /// [`Error::Shape`](crate::Error::Shape) when `x` does not fit.
    pub fn forward(&self, x: &Tensor) -> Result<Tensor> {
        conv2d(x, &self.weight()?, self.bias.as_ref().map(Param::tensor).as_ref(), &self.geometry)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ParamStore;
    use candle_core::{DType, Device};

    #[test]
    fn kernels_have_the_learned_norm() {
        let store = ParamStore::new(3, DType::F64, &Device::Cpu);
        let norms = |name: &str, magnitude: bool| {
            let options = WeightNormOptions { magnitude, bias: false };
            let conv = WeightNormConv2d::new(&store.root().pp(name), 5, 4, ConvGeometry::same(3), options).unwrap();
            let squares = conv.weight().unwrap().sqr().unwrap().flatten_from(1).unwrap().sum(1).unwrap();
            squares.to_vec1::<f64>().unwrap()
        };
        assert!(norms("unit", false).iter().all(|n| (n - 1.0).abs() < 1e-9));
        let expected = 2.0 / 5.0 * 45.0 / 12.0;
        assert!(norms("scaled", true).iter().all(|n| (n - expected).abs() < 1e-9));
    }
}
