//! Looking into a trained model: layers, latents, rounding errors and identity.

use candle_core::Tensor;
use flow_core::Result;
use flow_core::bijector::{LayerReport, largest};
use flow_core::numerics::host;

use super::ImageModel;

/// The distribution of a latent's entries over a batch; a standard normal has mean 0, std 1, kurtosis 3.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct LatentStatistics {
    /// The mean.
    pub mean: f64,
    /// The standard deviation.
    pub std: f64,
    /// The fourth moment about the mean over the squared variance.
    pub kurtosis: f64,
    /// The greatest absolute value.
    pub largest: f64,
}

impl LatentStatistics {
    /// Over all entries of a tensor, in f64.
    ///
    /// # Errors
    /// A failure of the device.
    pub fn of(latent: &Tensor) -> Result<Self> {
        let values = host::numbers(latent)?;
        let n = values.len().max(1) as f64;
        let mean = values.iter().sum::<f64>() / n;
        let moment = |k: i32| values.iter().map(|v| (v - mean).powi(k)).sum::<f64>() / n;
        let variance = moment(2);
        Ok(LatentStatistics {
            mean,
            std: variance.sqrt(),
            kurtosis: moment(4) / (variance * variance),
            largest: largest(latent)?,
        })
    }
}

/// How far a model's two directions are from inverting each other, in the element type of its weights.
#[derive(Debug, Clone, PartialEq)]
pub struct RoundTrip {
    /// The greatest `|decode(encode(y)) - y|` of the scaled image that the model sees.
    pub image: f64,
    /// The greatest `|encode(decode(z)) - z|` of every latent, finest first.
    pub latents: Vec<f64>,
}

impl ImageModel {
    /// What every layer does to these images, pixels at the centre of their levels, in evaluation mode.
    ///
    /// # Errors
    /// As [`ImageModel::log_prob`].
    pub fn describe(&self, levels: &Tensor, labels: Option<&[u32]>) -> Result<Vec<LayerReport>> {
        let context = self.context(labels, levels.dim(0)?)?;
        let (y, _) = self.preprocess.center(levels)?;
        self.evaluating(|| self.flow().describe(&y, context.as_ref()))
    }

    /// Encodes and decodes these images, and encodes what came back.
    ///
    /// # Errors
    /// As [`ImageModel::log_prob`].
    pub fn round_trip(&self, levels: &Tensor, labels: Option<&[u32]>) -> Result<RoundTrip> {
        let context = self.context(labels, levels.dim(0)?)?;
        let (y, _) = self.preprocess.center(levels)?;
        self.evaluating(|| {
            let (z, _) = self.flow().encode(&y, context.as_ref())?;
            let back = self.flow().decode(&z, context.as_ref())?;
            let (again, _) = self.flow().encode(&back, context.as_ref())?;
            let gaps = z.0.iter().zip(&again.0).map(|(a, b)| largest(&(a - b)?));
            Ok(RoundTrip { image: largest(&(back - y)?)?, latents: gaps.collect::<Result<_>>()? })
        })
    }

    /// A number that tells this model, its configuration and every bit of its weights, from another one.
    ///
    /// No protection against intent.
    ///
    /// # Errors
    /// A failure of the device.
    pub fn fingerprint(&self) -> Result<u64> {
        self.store().fingerprint(&format!("{:?} {:?}", self.config(), self.spec()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{GlowConfig, ImageSpec, ModelConfig, NiceConfig, RealNvpConfig};
    use candle_core::{DType, Device};
    use flow_core::{FlowRng, ParamStore};

    fn images() -> Tensor {
        let noise = FlowRng::seed_from(3).uniform((6, 1, 8, 8), DType::F32, &Device::Cpu).unwrap();
        noise.affine(17.0, 0.0).unwrap().floor().unwrap()
    }

    fn model(config: &ModelConfig, seed: u64) -> ImageModel {
        let store = ParamStore::new(seed, DType::F32, &Device::Cpu);
        let model = ImageModel::new(config, &ImageSpec::new(1, 8, 8, 17).unwrap(), &store).unwrap();
        model.initialize(&images(), None, &mut FlowRng::seed_from(1)).unwrap();
        model
    }

    fn small() -> [ModelConfig; 3] {
        [
            ModelConfig::Glow(GlowConfig { levels: 2, steps: 2, width: 8, ..GlowConfig::default() }),
            ModelConfig::RealNvp(RealNvpConfig { scales: 2, base_width: 4, blocks: 1, ..RealNvpConfig::default() }),
            ModelConfig::Nice(NiceConfig { couplings: 4, hidden_layers: 1, width: 8, ..NiceConfig::default() }),
        ]
    }

    #[test]
    fn every_family_shows_its_layers_and_its_rounding() {
        for (config, layers) in small().iter().zip([14, 3 * 2 + 1 + 3 * 2 + 2 + 4 * 2, 6]) {
            let model = model(config, 0);
            let reports = model.describe(&images(), None).unwrap();
            assert_eq!(reports.len(), layers, "{config:?}");
            assert!(reports.iter().all(|r| r.round_trip.is_none_or(|e| e < 1e-4)), "{reports:?}");
            let trip = model.round_trip(&images(), None).unwrap();
            assert_eq!(trip.latents.len(), model.flow().latent_shapes().len());
            assert!(trip.image < 1e-4 && trip.latents.iter().all(|&e| e < 1e-3), "{config:?} {trip:?}");
        }
    }

    #[test]
    fn a_fingerprint_is_of_configuration_and_weights() {
        let [glow, _, nice] = small();
        let a = model(&glow, 0).fingerprint().unwrap();
        assert_eq!(a, model(&glow, 0).fingerprint().unwrap());
        assert_ne!(a, model(&glow, 1).fingerprint().unwrap());
        assert_ne!(a, model(&nice, 0).fingerprint().unwrap());
        let changed = model(&glow, 0);
        let param = changed.store().trainable().remove(0);
        param.set(&(param.tensor() + 1e-6).unwrap()).unwrap();
        assert_ne!(a, changed.fingerprint().unwrap());
    }

    #[test]
    fn statistics_of_known_numbers() {
        let t = Tensor::new(&[-1.0f32, 1.0, -1.0, 1.0, 3.0, -3.0], &Device::Cpu).unwrap();
        let s = LatentStatistics::of(&t).unwrap();
        let variance: f64 = 22.0 / 6.0;
        assert!(s.mean.abs() < 1e-12 && (s.std - variance.sqrt()).abs() < 1e-12);
        assert!((s.kurtosis - (166.0 / 6.0) / (variance * variance)).abs() < 1e-12 && s.largest == 3.0);
    }
}
