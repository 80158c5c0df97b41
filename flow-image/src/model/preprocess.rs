//! From integer levels to the continuous variable that a flow models, and back.
//!
//! A density of continuous data on integers can be made arbitrarily high, so uniform noise `u ∈ [0, 1)` is
//! added (Uria et al. 2013; Theis et al. 2016): `E_u log p(x + u)` is a lower bound of the discrete
//! model's `log P(x)`. Log-determinants below are those of `x + u ↦ y`, so that `log p(y) + log |det|` is
//! that bound for every number of levels.

use candle_core::{DType, Device, Tensor};
use flow_core::bijector::check_shape;
use flow_core::density::dequantize;
use flow_core::layers::Logit;
use flow_core::numerics::host;
use flow_core::{Bijector, Error, FlowRng, Result};
use serde::{Deserialize, Serialize};

use super::ImageSpec;

/// What a family of models does to `x + u` before its first layer.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum PixelScaling {
    /// `y = (x + u) / levels - ½`, in `[-½, ½)`: Glow.
    Centered,
    /// `y = (x + u) / levels`, in `[0, 1)`: NICE.
    Unit,
    /// `y = logit(α + (1 - 2α)(x + u) / levels)`: RealNVP.
    Logit(f64),
}

/// [`PixelScaling`] for one image size.
#[derive(Debug, Clone)]
pub struct Preprocess {
    spec: ImageSpec,
    shift: f64,
    logit: Option<Logit>,
    dtype: DType,
    device: Device,
}

impl Preprocess {
    /// The map for images of `spec` into tensors of `dtype` on `device`.
    ///
    /// # Errors
    /// [`Error::Config`] for an `α` outside `(0, ½)`.
    pub fn new(scaling: PixelScaling, spec: &ImageSpec, dtype: DType, device: &Device) -> Result<Self> {
        let (shift, logit) = match scaling {
            PixelScaling::Centered => (-0.5, None),
            PixelScaling::Unit => (0.0, None),
            PixelScaling::Logit(alpha) if alpha > 0.0 => (0.0, Some(Logit::new(&spec.event_shape(), alpha)?)),
            PixelScaling::Logit(alpha) => {
                return Err(Error::config("logit alpha", format!("must be > 0, got {alpha}")));
            }
        };
        Ok(Preprocess { spec: *spec, shift, logit, dtype, device: device.clone() })
    }

    /// `y` with uniform noise, and the log-determinant `(B,)` of `x + u ↦ y`.
    ///
    /// # Errors
    /// [`Error::Shape`] for another size, [`Error::Config`] for values that are not levels.
    pub fn dequantize(&self, levels: &Tensor, rng: &mut FlowRng) -> Result<(Tensor, Tensor)> {
        let unit = dequantize::uniform(&self.on_cpu(levels)?, self.levels(), self.dtype, rng)?;
        self.scale(&unit.to_device(&self.device)?)
    }

    /// `y` at the centre of every level's cell (`u = ½`): no randomness, and [`Preprocess::quantize`]
    /// gives back the same levels.
    ///
    /// # Errors
    /// As [`Preprocess::dequantize`].
    pub fn center(&self, levels: &Tensor) -> Result<(Tensor, Tensor)> {
        let levels = self.on_cpu(levels)?.to_dtype(DType::F32)?;
        let unit = (&levels + 0.5)?.affine(1.0 / f64::from(self.levels()), 0.0)?;
        let same = dequantize::quantize(&unit, self.levels())?.to_dtype(DType::F32)?.eq(&levels)?;
        let same = same.to_dtype(DType::U32)?.sum_all()?.to_scalar::<u32>()? as usize;
        if same != levels.elem_count() {
            let (wrong, top) = (levels.elem_count() - same, self.levels() - 1);
            let reason = format!("{wrong} of {} values are no integers in 0..={top}", levels.elem_count());
            return Err(Error::config("pixel levels", reason));
        }
        self.scale(&unit.to_dtype(self.dtype)?.to_device(&self.device)?)
    }

    /// The levels of continuous `y`, as bytes on the CPU: the floor of `x + u`, clamped to `0 … levels - 1`.
    ///
    /// # Errors
    /// [`Error::NonFinite`] when `y` holds a NaN or an infinity, which a byte would hide.
    pub fn quantize(&self, y: &Tensor) -> Result<Tensor> {
        let zero = (y.detach() * 0.0)?.sum_all()?.to_dtype(DType::F32)?.to_scalar::<f32>()?;
        if zero != 0.0 {
            return Err(Error::NonFinite { layer: "image model".into(), what: "sample".into(), step: None });
        }
        let unit = match &self.logit {
            Some(logit) => logit.decode(y, None)?.0,
            None => y.affine(1.0, -self.shift)?,
        };
        Ok(dequantize::quantize(&unit.to_device(&Device::Cpu)?, self.levels())?.to_dtype(DType::U8)?)
    }

    /// `(x + u) / levels` to `y`, with the log-determinant of `x + u ↦ y`: for noise that was drawn elsewhere.
    ///
    /// # Errors
    /// [`Error::Domain`] for numbers outside `[0, 1]` where `y` is a logit.
    pub fn scale(&self, unit: &Tensor) -> Result<(Tensor, Tensor)> {
        let constant = -(self.spec.dims() as f64) * f64::from(self.levels()).ln();
        Ok(match &self.logit {
            None => {
                let log_det = host::full(constant, unit.dim(0)?, self.dtype, &self.device)?;
                (unit.affine(1.0, self.shift)?, log_det)
            }
            Some(logit) => {
                let (y, log_det) = logit.encode(unit, None)?;
                (y, log_det.affine(1.0, constant)?)
            }
        })
    }

    fn on_cpu(&self, levels: &Tensor) -> Result<Tensor> {
        check_shape("image model", levels, &self.spec.event_shape())?;
        Ok(levels.to_device(&Device::Cpu)?)
    }

    fn levels(&self) -> u32 {
        self.spec.levels as u32
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn values(t: &Tensor) -> Vec<f64> {
        t.to_dtype(DType::F64).unwrap().flatten_all().unwrap().to_vec1().unwrap()
    }

    fn all_levels(levels: usize) -> (ImageSpec, Tensor) {
        let x: Vec<u8> = (0..levels).map(|v| v as u8).collect();
        (ImageSpec::new(1, 1, levels, levels).unwrap(), Tensor::from_vec(x, (1, 1, 1, levels), &Device::Cpu).unwrap())
    }

    #[test]
    fn every_level_survives_centre_and_noise() {
        for levels in [2, 3, 17, 32, 256] {
            let (spec, x) = all_levels(levels);
            for scaling in [PixelScaling::Centered, PixelScaling::Unit, PixelScaling::Logit(0.05)] {
                let map = Preprocess::new(scaling, &spec, DType::F32, &Device::Cpu).unwrap();
                let (y, _) = map.center(&x).unwrap();
                assert_eq!(values(&map.quantize(&y).unwrap()), values(&x), "{scaling:?} {levels}");
                let (y, _) = map.dequantize(&x, &mut FlowRng::seed_from(1)).unwrap();
                assert_eq!(values(&map.quantize(&y).unwrap()), values(&x), "{scaling:?} {levels}");
            }
        }
    }

    #[test]
    fn log_determinants_are_those_of_the_map_from_levels() {
        let (spec, x) = all_levels(17);
        for scaling in [PixelScaling::Centered, PixelScaling::Unit, PixelScaling::Logit(0.05)] {
            let map = Preprocess::new(scaling, &spec, DType::F64, &Device::Cpu).unwrap();
            let x = (x.to_dtype(DType::F64).unwrap() + 0.5).unwrap();
            let at = |h: f64| values(&map.scale(&x.affine(1.0 / 17.0, h / 17.0).unwrap()).unwrap().0);
            let numerical: f64 = at(1e-5).iter().zip(at(-1e-5)).map(|(a, b)| ((a - b) / 2e-5).ln()).sum();
            let log_det = values(&map.center(&(x - 0.5).unwrap()).unwrap().1)[0];
            assert!((log_det - numerical).abs() < 1e-6, "{scaling:?}: {log_det} {numerical}");
        }
    }

    #[test]
    fn refuses_what_is_not_an_image_of_the_specification() {
        let (spec, x) = all_levels(17);
        let map = Preprocess::new(PixelScaling::Unit, &spec, DType::F32, &Device::Cpu).unwrap();
        let bright = (x.to_dtype(DType::F32).unwrap() + 1.0).unwrap();
        assert!(map.center(&bright).unwrap_err().to_string().contains("1 of 17 values are no integers in 0..=16"));
        assert!(map.dequantize(&bright, &mut FlowRng::seed_from(1)).is_err());
        assert!(map.center(&x.narrow(3, 0, 4).unwrap()).is_err());
        let logit = Preprocess::new(PixelScaling::Logit(0.05), &spec, DType::F32, &Device::Cpu).unwrap();
        for bad in [f32::NAN, f32::INFINITY] {
            let y = Tensor::full(bad, (1, 1, 1, 17), &Device::Cpu).unwrap();
            assert!(matches!(map.quantize(&y), Err(Error::NonFinite { .. })));
            assert!(matches!(logit.quantize(&y), Err(Error::NonFinite { .. })));
        }
        assert!(Preprocess::new(PixelScaling::Logit(0.0), &spec, DType::F32, &Device::Cpu).is_err());
    }
}
