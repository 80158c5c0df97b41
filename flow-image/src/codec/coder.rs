//! One image through the entropy coder, in either direction.
//!
//! Encoder and decoder share the walk over the latents ([`FrozenIdf::code_latents`]); only what happens at a symbol
//! differs ([`Symbols`]). They cannot disagree about order or context.

use constriction::stream::queue::{DefaultRangeDecoder, DefaultRangeEncoder};
use constriction::stream::{Decode, Encode};

use super::fixed::{FixedMixture, PRECISION, PixelMixture};
use super::mixture::{MixtureLayout, Support};
use super::model::{COORDINATES, Idf, PHASES, Scale, coordinate, interlace, reach, standardisation, top_base};
use super::net::{Map, PlainNet};
use crate::{Error, Result};

/// What a coder does with one integer and its distribution.
pub(super) trait Symbols {
    /// Writes `value`, or replaces it by the value read.
    fn code(&mut self, model: &FixedMixture, value: &mut i32) -> Result<()>;
}

impl Symbols for DefaultRangeEncoder {
    fn code(&mut self, model: &FixedMixture, value: &mut i32) -> Result<()> {
        // The support covers every value that a checked image can lead to.
        Encode::<PRECISION>::encode_symbol(self, *value, model)
            .map_err(|_| Error::config("idf", format!("the value {value} is outside the model's support")))
    }
}

/// Reads symbols from compressed words.
pub(super) struct Reader(DefaultRangeDecoder);

impl Reader {
    pub(super) fn new(words: Vec<u32>) -> Self {
        match DefaultRangeDecoder::from_compressed(words) {
            Ok(decoder) => Reader(decoder),
        }
    }
}

impl Symbols for Reader {
    fn code(&mut self, model: &FixedMixture, value: &mut i32) -> Result<()> {
        *value = Decode::<PRECISION>::decode_symbol(&mut self.0, model)
            .map_err(|_| Error::config("compressed data", "no symbol has this code"))?;
        Ok(())
    }
}

/// Integers of one image or phase, channel-last.
#[derive(Debug, Clone, PartialEq)]
struct Plane {
    values: Vec<i32>,
    channels: usize,
    size: [usize; 2],
}

impl Plane {
    fn zeros(channels: usize, size: [usize; 2]) -> Self {
        Plane { values: vec![0; channels * size[0] * size[1]], channels, size }
    }

    /// From bytes `(C, H, W)`.
    fn from_planar(bytes: &[u8], [c, h, w]: [usize; 3]) -> Self {
        let value = |k: usize| i32::from(bytes[k % c * h * w + k / c]);
        Plane { values: (0..c * h * w).map(value).collect(), channels: c, size: [h, w] }
    }

    /// To bytes `(C, H, W)`; `None` if a value is not one of `levels`.
    fn to_planar(&self, levels: usize) -> Option<Vec<u8>> {
        let (c, n) = (self.channels, self.size[0] * self.size[1]);
        let value = |k: usize| u8::try_from(self.values[k % n * c + k / n]).ok().filter(|&v| usize::from(v) < levels);
        (0..c * n).map(value).collect()
    }

    fn pixel(&self, index: usize) -> &[i32] {
        &self.values[index * self.channels..][..self.channels]
    }

    fn split(&self) -> [Plane; 4] {
        let [h, w] = [self.size[0] / 2, self.size[1] / 2];
        PHASES.map(|[di, dj]| {
            let pixel = |p: usize| self.pixel((2 * (p / w) + di) * self.size[1] + 2 * (p % w) + dj).iter().copied();
            Plane { values: (0..h * w).flat_map(pixel).collect(), channels: self.channels, size: [h, w] }
        })
    }

    fn merge(phases: &[Plane; 4]) -> Plane {
        let (c, [h, w]) = (phases[0].channels, phases[0].size);
        let mut whole = Plane::zeros(c, [2 * h, 2 * w]);
        for (phase, [di, dj]) in phases.iter().zip(PHASES) {
            for p in 0..h * w {
                let at = ((2 * (p / w) + di) * 2 * w + 2 * (p % w) + dj) * c;
                whole.values[at..at + c].copy_from_slice(phase.pixel(p));
            }
        }
        whole
    }
}

/// The networks of one level, frozen.
struct FrozenScale {
    couplings: Vec<PlainNet>,
    priors: Vec<PlainNet>,
    factored: Support,
}

/// An [`Idf`] with the weights of one moment, ready to code: no tensor library, no threads of its own.
pub(super) struct FrozenIdf {
    shape: [usize; 3],
    levels: usize,
    layout: MixtureLayout,
    scales: Vec<FrozenScale>,
    top: PlainNet,
    top_support: Support,
}

impl FrozenIdf {
    /// # Errors
    /// A parameter that is not finite.
    pub(super) fn new(model: &Idf) -> Result<Self> {
        let freeze = |scale: &Scale| -> Result<FrozenScale> {
            Ok(FrozenScale {
                couplings: scale.couplings.iter().map(|net| net.freeze()).collect::<Result<_>>()?,
                priors: scale.priors.iter().map(|net| net.freeze()).collect::<Result<_>>()?,
                factored: scale.factored,
            })
        };
        Ok(FrozenIdf {
            shape: model.shape,
            levels: model.levels,
            layout: model.layout,
            scales: model.scales.iter().map(freeze).collect::<Result<_>>()?,
            top: model.top.freeze()?,
            top_support: model.top_support,
        })
    }

    /// Codes the image `(C, H, W)`.
    ///
    /// # Errors
    /// Networks whose output is not finite.
    pub(super) fn encode(&self, image: &[u8], symbols: &mut impl Symbols) -> Result<()> {
        let mut kept = Plane::from_planar(image, self.shape);
        let mut latents = Vec::new();
        for scale in &self.scales {
            let mut phases = kept.split();
            for (i, net) in scale.couplings.iter().enumerate() {
                self.couple(net, i, &mut phases, 1)?;
            }
            let [first, rest @ ..] = phases;
            kept = first;
            latents.push((kept.clone(), rest));
        }
        self.code_top(&mut kept, symbols)?;
        for (scale, (kept, rest)) in self.scales.iter().zip(&mut latents).rev() {
            self.code_latents(scale, kept, rest, symbols)?;
        }
        Ok(())
    }

    /// The image `(C, H, W)` that [`FrozenIdf::encode`] coded.
    ///
    /// # Errors
    /// Data that no image leads to.
    pub(super) fn decode(&self, symbols: &mut impl Symbols) -> Result<Vec<u8>> {
        let [c, h, w] = self.shape;
        let size = |scale: usize| [h >> scale, w >> scale];
        let mut kept = Plane::zeros(c, size(self.scales.len()));
        self.code_top(&mut kept, symbols)?;
        for (i, scale) in self.scales.iter().enumerate().rev() {
            let mut rest = std::array::from_fn(|_| Plane::zeros(c, size(i + 1)));
            self.code_latents(scale, &kept, &mut rest, symbols)?;
            kept = self.reassemble(scale, kept, rest)?;
        }
        let damaged = || Error::config("compressed data", format!("decodes to values beyond {} levels", self.levels));
        kept.to_planar(self.levels).ok_or_else(damaged)
    }

    /// Codes the three factored-out phases of a level given the kept one.
    fn code_latents(
        &self,
        scale: &FrozenScale,
        kept: &Plane,
        rest: &mut [Plane; 3],
        symbols: &mut impl Symbols,
    ) -> Result<()> {
        for (g, net) in scale.priors.iter().enumerate() {
            let (known, unknown) = rest.split_at_mut(g);
            let params = net.forward(&self.inputs(&std::iter::once(kept).chain(&*known).collect::<Vec<_>>()))?;
            for p in 0..kept.size[0] * kept.size[1] {
                self.code_pixel(&params, kept.pixel(p), scale.factored, &mut unknown[0], p, symbols)?;
            }
        }
        Ok(())
    }

    fn code_pixel(
        &self,
        params: &Map,
        base: &[i32],
        support: Support,
        target: &mut Plane,
        p: usize,
        symbols: &mut impl Symbols,
    ) -> Result<()> {
        let params = &params.values[p * params.channels..][..params.channels];
        let mut pixel = PixelMixture::new(self.layout, params, base, support);
        for value in &mut target.values[p * target.channels..][..target.channels] {
            let model = pixel.channel();
            symbols.code(&model, value)?;
            pixel.observe(&model, *value);
        }
        Ok(())
    }

    /// Codes the coarsest image, pass by pass.
    fn code_top(&self, image: &mut Plane, symbols: &mut impl Symbols) -> Result<()> {
        let passes = interlace(image.size);
        let base = vec![top_base(self.levels); image.channels];
        for pass in 0..=passes.iter().copied().max().unwrap_or(0) {
            let params = self.top.forward(&self.top_inputs(image, &passes, pass))?;
            for p in (0..passes.len()).filter(|&p| passes[p] == pass) {
                self.code_pixel(&params, &base, self.top_support, image, p, symbols)?;
            }
        }
        Ok(())
    }

    /// Known values, the mask of known pixels, the mask of those to be coded now, and coordinates.
    fn top_inputs(&self, image: &Plane, passes: &[usize], now: usize) -> Map {
        let (c, [h, w]) = (image.channels, image.size);
        let channels = c + 2 + COORDINATES;
        let mut values = Vec::with_capacity(h * w * channels);
        for (p, &pass) in passes.iter().enumerate() {
            let known = pass < now;
            values.extend(image.pixel(p).iter().map(|&v| if known { self.standardised(v) } else { 0.0 }));
            values.extend([f32::from(u8::from(known)), f32::from(u8::from(pass == now))]);
            values.extend([coordinate(p / w, h), coordinate(p % w, w)]);
        }
        Map { values, channels, size: image.size }
    }

    /// Undoes couplings and split of one level: its kept and factored-out phases become its image.
    fn reassemble(&self, scale: &FrozenScale, kept: Plane, [p, q, r]: [Plane; 3]) -> Result<Plane> {
        let mut phases = [kept, p, q, r];
        for (i, net) in scale.couplings.iter().enumerate().rev() {
            self.couple(net, i, &mut phases, -1)?;
        }
        Ok(Plane::merge(&phases))
    }

    /// Adds (`sign = 1`) or removes (`-1`) the translation of coupling `index`.
    fn couple(&self, net: &PlainNet, index: usize, phases: &mut [Plane; 4], sign: i32) -> Result<()> {
        let (kept, rest) = phases.split_at_mut(1);
        let (from, to) = if index.is_multiple_of(2) { (rest, kept) } else { (kept, rest) };
        let shift = net.forward(&self.inputs(&from.iter().collect::<Vec<_>>()))?;
        let (unit, reach) = (self.layout.unit() as f32, reach(self.levels) as f32);
        let channels = self.shape[0];
        for (p, shifts) in shift.values.chunks_exact(shift.channels).enumerate() {
            for (phase, shifts) in to.iter_mut().zip(shifts.chunks_exact(channels)) {
                for (v, s) in phase.values[p * channels..].iter_mut().zip(shifts) {
                    *v += sign * (s * unit).clamp(-reach, reach).round() as i32;
                }
            }
        }
        Ok(())
    }

    /// Standardised values of the planes, one after the other per pixel, then coordinates.
    fn inputs(&self, planes: &[&Plane]) -> Map {
        let size @ [h, w] = planes[0].size;
        let channels = planes.len() * planes[0].channels + COORDINATES;
        let mut values = Vec::with_capacity(h * w * channels);
        for p in 0..h * w {
            values.extend(planes.iter().flat_map(|plane| plane.pixel(p)).map(|&v| self.standardised(v)));
            values.extend([coordinate(p / w, h), coordinate(p % w, w)]);
        }
        Map { values, channels, size }
    }

    fn standardised(&self, v: i32) -> f32 {
        let (scale, shift) = standardisation(self.levels);
        v as f32 * scale + shift
    }
}

#[cfg(test)]
pub(super) mod tests {
    use candle_core::{DType, Device, Tensor};
    use flow_core::{FlowRng, ParamStore};

    use super::super::IdfConfig;
    use super::*;

    /// Adds up ideal code lengths instead of coding.
    struct Tally(f64);

    impl Symbols for Tally {
        fn code(&mut self, model: &FixedMixture, value: &mut i32) -> Result<()> {
            self.0 += model.cost(*value);
            Ok(())
        }
    }

    /// A small model, its parameters moved away from the start by `noise`.
    pub(crate) fn model(shape: [usize; 3], levels: usize, couplings: usize, noise: f64) -> Idf {
        let store = ParamStore::new(7, DType::F32, &Device::Cpu);
        let config =
            IdfConfig { scales: 2, couplings, coupling_width: 8, width: 8, blocks: 1, top_width: 8, components: 3 };
        let model = Idf::new(&config, shape, levels, &store).unwrap();
        let mut rng = FlowRng::seed_from(8);
        for p in store.trainable() {
            let change = rng.normal(p.var().shape(), DType::F32, &Device::Cpu).unwrap();
            p.set(&(p.var().as_tensor() + (change * noise).unwrap()).unwrap()).unwrap();
        }
        model
    }

    pub(crate) fn random_image([c, h, w]: [usize; 3], levels: usize, seed: u64) -> Vec<u8> {
        let mut rng = FlowRng::seed_from(seed);
        (0..c * h * w).map(|_| rng.below(levels) as u8).collect()
    }

    /// Noise of an eighth of the range around the middle: nothing that the coder's floor would make cheaper.
    pub(crate) fn calm_image(shape: [usize; 3], levels: usize, seed: u64) -> Vec<u8> {
        let spread = levels.div_ceil(8);
        random_image(shape, spread, seed).into_iter().map(|v| v + ((levels - spread) / 2) as u8).collect()
    }

    #[test]
    fn splitting_and_merging_are_inverse() {
        let plane = Plane::from_planar(&random_image([2, 4, 6], 256, 0), [2, 4, 6]);
        assert_eq!(Plane::merge(&plane.split()), plane);
        assert_eq!(plane.to_planar(256).unwrap(), random_image([2, 4, 6], 256, 0));
        assert!(plane.to_planar(3).is_none());
    }

    /// Graph and coder are two implementations of one model; they agree up to rounding of a translation.
    #[test]
    fn the_coder_spends_what_the_graph_says() {
        for (shape, levels, couplings, noise) in [
            ([1, 8, 8], 17, 0, 0.05),
            ([3, 16, 24], 256, 2, 0.05),
            ([1, 28, 28], 256, 1, 0.0),
            ([2, 5, 3], 256, 1, 0.1),
        ] {
            let model = model(shape, levels, couplings, noise);
            let image = calm_image(shape, levels, 3);
            let mut tally = Tally(0.0);
            FrozenIdf::new(&model).unwrap().encode(&image, &mut tally).unwrap();
            let [c, h, w] = shape;
            let x: Vec<f32> = image.iter().map(|&v| f32::from(v)).collect();
            let x = Tensor::from_vec(x, (1, c, h, w), &Device::Cpu).unwrap();
            let bits = f64::from(model.bits(&x).unwrap().to_vec1::<f32>().unwrap()[0]);
            assert!((tally.0 / bits - 1.0).abs() < 0.01, "{shape:?}: coder {}, graph {bits}", tally.0);
        }
    }
}
