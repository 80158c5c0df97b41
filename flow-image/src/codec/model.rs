//! The integer discrete flow as a differentiable model.
//!
//! One level is a learned lifting step on an image of integers: the four pixels of every 2×2 square become
//! four phases, integer couplings `z_b = x_b + ⌊t(x_a)⌉` mix them (Hoogeboom et al. 2019, equation 6), the
//! three phases off the corner are factored out under priors predicted from what is kept, each phase also
//! from those before it, and the kept quarter is the image of the next level. The coarsest image has a
//! prior that knows it in passes of doubling resolution.
//!
//! Rounding is the identity for differentiation (section 3.2 there). A bijection of the integers has no
//! Jacobian: `log p(x)` is the sum of the priors' logarithms.

use candle_core::{Device, Tensor};
use flow_core::{ParamPath, ParamStore};

use super::IdfConfig;
use super::mixture::{MixtureLayout, Support};
use super::net::{ConvNet, NetShape};
use crate::{Error, Result};

/// Offsets in the 2×2 square of the phases in the order of coding: the kept one, then the three factored
/// out. The diagonal comes first; after it both others have all four neighbours known.
pub(super) const PHASES: [[usize; 2]; 4] = [[0, 0], [1, 1], [0, 1], [1, 0]];

/// Channels that tell a network where in the image it is.
pub(super) const COORDINATES: usize = 2;

/// Most values of one image.
const VALUES_MAX: usize = 1 << 28;

/// One level of the pyramid.
pub(super) struct Scale {
    pub(super) couplings: Vec<ConvNet>,
    pub(super) priors: Vec<ConvNet>,
    /// Of the kept phase after the couplings.
    pub(super) kept: Support,
    /// Of the factored-out phases after the couplings.
    pub(super) factored: Support,
}

/// An integer discrete flow over images `(C, H, W)` with values in `0..levels`.
///
/// # Example
/// ```
/// # use candle_core::{DType, Device, Tensor};
/// # use flow_core::ParamStore;
/// # use flow_image::codec::{Idf, IdfConfig, compress, decompress};
/// # fn main() -> flow_image::Result<()> {
/// let store = ParamStore::new(0, DType::F32, &Device::Cpu);
/// let model = Idf::new(&IdfConfig::preset("idf-digits")?, [1, 8, 8], 17, &store)?;
/// let image: Vec<u8> = (0..64).map(|i| i % 17).collect();
/// let archive = compress(&model, &image)?;
/// assert_eq!(decompress(&model, &archive)?, image);
/// # Ok(())
/// # }
/// ```
pub struct Idf {
    pub(super) store: ParamStore,
    pub(super) config: IdfConfig,
    pub(super) shape: [usize; 3],
    pub(super) levels: usize,
    pub(super) layout: MixtureLayout,
    pub(super) scales: Vec<Scale>,
    pub(super) top: ConvNet,
    pub(super) top_support: Support,
}

impl Idf {
    /// A model with fresh parameters in `store`; sides that cannot be halved end the pyramid early, so that
    /// every image size works without padding.
    ///
    /// # Errors
    /// An empty or enormous shape, levels outside `2..=256`, an invalid configuration, or names taken in `store`.
    pub fn new(config: &IdfConfig, shape: [usize; 3], levels: usize, store: &ParamStore) -> Result<Self> {
        config.validate()?;
        let values = shape.iter().try_fold(1usize, |product, &side| product.checked_mul(side));
        if !values.is_some_and(|n| (1..=VALUES_MAX).contains(&n)) {
            return Err(Error::config("idf", format!("needs images of 1 to {VALUES_MAX} values, got {shape:?}")));
        }
        if !(2..=256).contains(&levels) {
            return Err(Error::config("idf levels", format!("must be 2 to 256, got {levels}")));
        }
        let layout = MixtureLayout { channels: shape[0], components: config.components, levels };
        let (mut support, mut size) = (Support { lo: 0, hi: levels as i32 - 1 }, [shape[1], shape[2]]);
        let mut scales = Vec::new();
        while scales.len() < config.scales && size.iter().all(|&n| n >= 4 && n % 2 == 0) {
            let path = store.root().pp(format!("scale{}", scales.len()));
            let scale = Scale::new(&path, config, &layout, support)?;
            support = scale.kept;
            size = size.map(|n| n / 2);
            scales.push(scale);
        }
        let inputs = shape[0] + 2 + COORDINATES;
        let net = NetShape { inputs, width: config.top_width, blocks: config.blocks, outputs: layout.parameters() };
        Ok(Idf {
            top: ConvNet::new(&store.root().pp("top"), net)?,
            top_support: support,
            store: store.clone(),
            config: config.clone(),
            shape,
            levels,
            layout,
            scales,
        })
    }

    /// The parameters.
    pub fn store(&self) -> &ParamStore {
        &self.store
    }

    /// The configuration the model was built from.
    pub fn config(&self) -> &IdfConfig {
        &self.config
    }

    /// `(C, H, W)` of an image.
    pub fn shape(&self) -> [usize; 3] {
        self.shape
    }

    /// The number of grey levels; values are below it.
    pub fn levels(&self) -> usize {
        self.levels
    }

    /// `-log₂ p(x)`, the ideal code length of every image in bits, differentiable.
    ///
    /// # Shapes
    /// - `x`: `(B, C, H, W)` holding integers in `0..levels`; output `(B,)`.
    ///
    /// # Errors
    /// A tensor of another shape.
    pub fn bits(&self, x: &Tensor) -> Result<Tensor> {
        let [c, h, w] = self.shape;
        if x.rank() != 4 || x.dims()[1..] != [c, h, w] {
            let expected = format!("(B, {c}, {h}, {w})");
            return Err(flow_core::Error::Shape { layer: "idf".into(), expected, actual: x.dims().to_vec() }.into());
        }
        let x = x.to_dtype(self.store.dtype())?;
        let (mut image, mut log_prob) = (x.clone(), x.sum((1, 2, 3))?.zeros_like()?);
        for scale in &self.scales {
            let phases = self.couple(scale, split_phases(&image)?)?;
            for (g, net) in scale.priors.iter().enumerate() {
                let params = net.forward(&self.inputs(&phases[..=g])?)?;
                let nats = self.layout.log_prob(&phases[g + 1], &phases[0], &params, scale.factored)?;
                log_prob = (log_prob + nats.sum((1, 2))?)?;
            }
            let [kept, ..] = phases;
            image = kept;
        }
        let log_prob = (log_prob + self.top_log_prob(&image)?)?;
        Ok(log_prob.affine(-1.0 / std::f64::consts::LN_2, 0.0)?)
    }

    /// The couplings of one level, in order.
    fn couple(&self, scale: &Scale, [kept, p, q, r]: [Tensor; 4]) -> Result<[Tensor; 4]> {
        let (mut kept, mut rest) = (kept, Tensor::cat(&[p, q, r], 1)?);
        for (i, net) in scale.couplings.iter().enumerate() {
            let (from, to) = if i.is_multiple_of(2) { (&rest, &mut kept) } else { (&kept, &mut rest) };
            let shift = net.forward(&self.inputs(std::slice::from_ref(from))?)?.affine(self.layout.unit(), 0.0)?;
            let reach = f64::from(reach(self.levels));
            *to = (&*to + round(&shift.clamp(-reach, reach)?)?)?;
        }
        let c = self.shape[0];
        let phase = |g: usize| rest.narrow(1, g * c, c)?.contiguous();
        Ok([kept, phase(0)?, phase(1)?, phase(2)?])
    }

    /// Standardised values and coordinates: what every network sees.
    fn inputs(&self, images: &[Tensor]) -> Result<Tensor> {
        let (b, _, h, w) = images[0].dims4()?;
        let scaled = images.iter().map(|image| self.standardised(image)).collect::<Result<Vec<_>>>()?;
        let place = coordinates([h, w], &images[0])?.broadcast_as((b, COORDINATES, h, w))?;
        Ok(Tensor::cat(&scaled.iter().chain([&place]).collect::<Vec<_>>(), 1)?)
    }

    fn standardised(&self, image: &Tensor) -> Result<Tensor> {
        let (scale, shift) = standardisation(self.levels);
        Ok(image.affine(f64::from(scale), f64::from(shift))?)
    }

    /// `log p` of the coarsest image in nats: all passes at once, each with its own mask of known pixels.
    fn top_log_prob(&self, image: &Tensor) -> Result<Tensor> {
        let (b, c, h, w) = image.dims4()?;
        let passes = interlace([h, w]);
        let n = passes.iter().max().map_or(0, |last| last + 1);
        let mask = |keep: &dyn Fn(usize, usize) -> bool| -> Result<Tensor> {
            let cells = (0..n).flat_map(|g| passes.iter().map(move |&p| (p, g)));
            let values: Vec<f32> = cells.map(|(p, g)| f32::from(u8::from(keep(p, g)))).collect();
            Ok(Tensor::from_vec(values, (n, 1, 1, h, w), &Device::Cpu)?
                .to_device(image.device())?
                .to_dtype(image.dtype())?)
        };
        let (known, now) = (mask(&|p, g| p < g)?, mask(&|p, g| p == g)?);
        let fill = |t: &Tensor, channels: usize| t.broadcast_as((n, b, channels, h, w));
        let values = self.standardised(image)?.unsqueeze(0)?.broadcast_mul(&known)?;
        let place = coordinates([h, w], image)?.unsqueeze(0)?;
        let inputs = Tensor::cat(&[&values, &fill(&known, 1)?, &fill(&now, 1)?, &fill(&place, COORDINATES)?], 2)?;
        let params = self.top.forward(&inputs.reshape((n * b, (), h, w))?)?;
        let repeated = image.unsqueeze(0)?.broadcast_as((n, b, c, h, w))?.reshape((n * b, c, h, w))?;
        let base = repeated.zeros_like()?.affine(1.0, f64::from(top_base(self.levels)))?;
        let nats = self.layout.log_prob(&repeated, &base, &params, self.top_support)?.reshape((n, b, 1, h, w))?;
        Ok(nats.broadcast_mul(&now)?.sum((0, 2, 3, 4))?)
    }
}

impl Scale {
    fn new(path: &ParamPath, config: &IdfConfig, layout: &MixtureLayout, support: Support) -> Result<Self> {
        let (c, rest) = (layout.channels, layout.channels * (PHASES.len() - 1));
        let coupling = |i: usize| {
            let (inputs, outputs) = if i.is_multiple_of(2) { (rest, c) } else { (c, rest) };
            let shape = NetShape { inputs: inputs + COORDINATES, width: config.coupling_width, blocks: 0, outputs };
            ConvNet::new(&path.pp(format!("coupling{i}")), shape)
        };
        let prior = |g: usize| {
            let inputs = c * (g + 1) + COORDINATES;
            let (width, blocks, outputs) = (config.width, config.blocks, layout.parameters());
            ConvNet::new(&path.pp(format!("prior{g}")), NetShape { inputs, width, blocks, outputs })
        };
        let reach = reach(layout.levels);
        let (to_kept, to_rest) = (config.couplings.div_ceil(2) as i32, (config.couplings / 2) as i32);
        Ok(Scale {
            couplings: (0..config.couplings).map(coupling).collect::<Result<_>>()?,
            priors: (0..PHASES.len() - 1).map(prior).collect::<Result<_>>()?,
            kept: support.widened(to_kept * reach),
            factored: support.widened(to_rest * reach),
        })
    }
}

/// The largest magnitude of a coupling's translation: it bounds the support of every latent beforehand.
pub(super) fn reach(levels: usize) -> i32 {
    (levels as i32 / 4).max(1)
}

/// The value around which the coarsest image's mixtures start.
pub(super) fn top_base(levels: usize) -> i32 {
    levels as i32 / 2
}

/// Factor and summand that bring `0..levels` to about `-2..2`.
pub(super) fn standardisation(levels: usize) -> (f32, f32) {
    let scale = 4.0 / levels as f32;
    (scale, -0.5 * (levels as f32 - 1.0) * scale)
}

/// The centre of pixel `i` of `n`, in `(-1, 1)`.
pub(super) fn coordinate(i: usize, n: usize) -> f32 {
    (2 * i + 1) as f32 / n as f32 - 1.0
}

/// Row and column coordinates, `(1, 2, H, W)`, of the type and on the device of `like`.
fn coordinates([h, w]: [usize; 2], like: &Tensor) -> Result<Tensor> {
    let rows = (0..h * w).map(|p| coordinate(p / w, h));
    let values: Vec<f32> = rows.chain((0..h * w).map(|p| coordinate(p % w, w))).collect();
    let plane = Tensor::from_vec(values, (1, COORDINATES, h, w), &Device::Cpu)?;
    Ok(plane.to_device(like.device())?.to_dtype(like.dtype())?)
}

/// `⌊x⌉` with the gradient of the identity.
fn round(x: &Tensor) -> Result<Tensor> {
    Ok((x + (x.round()? - x)?.detach())?)
}

/// `(B, C, 2h, 2w)` as the four phases `(B, C, h, w)` in the order of [`PHASES`].
fn split_phases(x: &Tensor) -> Result<[Tensor; 4]> {
    let (b, c, h, w) = x.dims4()?;
    let squares = x.reshape((b, c, h / 2, 2, w / 2, 2))?;
    let [p, q, r, s] =
        PHASES.map(|[i, j]| squares.narrow(3, i, 1)?.narrow(5, j, 1)?.contiguous()?.reshape((b, c, h / 2, w / 2)));
    Ok([p?, q?, r?, s?])
}

/// The pass in which each pixel of an `h × w` image is coded, row by row.
///
/// Pass zero holds the corner alone; every round halves the grid's spacing in three passes: the centres
/// of its squares, then the centres of their horizontal sides, then of the vertical ones.
pub(super) fn interlace([h, w]: [usize; 2]) -> Vec<usize> {
    let mut pass = vec![0; h * w];
    let (mut spacing, mut next) = (h.max(w).next_power_of_two(), 1);
    while spacing > 1 {
        let half = spacing / 2;
        for [di, dj] in &PHASES[1..] {
            let mut any = false;
            for i in (di * half..h).step_by(spacing) {
                for j in (dj * half..w).step_by(spacing) {
                    (pass[i * w + j], any) = (next, true);
                }
            }
            next += usize::from(any);
        }
        spacing = half;
    }
    pass
}

#[cfg(test)]
mod tests {
    use candle_core::{DType, Var};
    use flow_core::{FlowRng, Gradients};

    use super::*;

    fn model(config: &IdfConfig, shape: [usize; 3], levels: usize) -> Idf {
        Idf::new(config, shape, levels, &ParamStore::new(1, DType::F32, &Device::Cpu)).unwrap()
    }

    fn noise(shape: [usize; 3], levels: usize) -> Tensor {
        let [c, h, w] = shape;
        let uniform = FlowRng::seed_from(5).uniform((2, c, h, w), DType::F32, &Device::Cpu).unwrap();
        (uniform * levels as f64).unwrap().floor().unwrap()
    }

    #[test]
    fn interlacing_reaches_every_pixel_once_and_in_order() {
        assert_eq!(interlace([1, 1]), [0]);
        assert_eq!(interlace([2, 2]), [0, 2, 3, 1]);
        for size in [[7, 7], [1, 5], [3, 8], [4, 4]] {
            let passes = interlace(size);
            let count = passes.iter().max().unwrap() + 1;
            assert!((0..count).all(|g| passes.contains(&g)), "{size:?}");
            assert_eq!(passes.iter().filter(|&&p| p == 0).count(), 1, "{size:?}");
        }
    }

    #[test]
    fn rounding_is_the_identity_for_gradients() {
        let x = Var::new(&[0.3f32, 1.7, -2.4], &Device::Cpu).unwrap();
        let y = round(x.as_tensor()).unwrap();
        assert_eq!(y.to_vec1::<f32>().unwrap(), [0.0, 2.0, -2.0]);
        let gradient = y.sqr().unwrap().sum_all().unwrap().backward().unwrap();
        assert_eq!(gradient.get(&x).unwrap().to_vec1::<f32>().unwrap(), [0.0, 4.0, -4.0]);
    }

    #[test]
    fn every_parameter_receives_a_gradient() {
        let config = IdfConfig { couplings: 3, ..IdfConfig::default() };
        let model = model(&config, [3, 8, 16], 256);
        let mut gradients = Gradients::new(model.store());
        let loss = model.bits(&noise([3, 8, 16], 256)).unwrap().mean_all().unwrap();
        gradients.accumulate(&loss.backward().unwrap()).unwrap();
        for (param, gradient) in gradients.iter() {
            let gradient = gradient.unwrap_or_else(|| panic!("{} has none", param.name()));
            let size = gradient.abs().unwrap().sum_all().unwrap().to_scalar::<f32>().unwrap();
            assert!(size.is_finite() && size > 0.0, "{}: {size}", param.name());
        }
    }

    #[test]
    fn odd_and_tiny_sides_end_the_pyramid() {
        let scales = |shape| model(&IdfConfig { scales: 8, ..IdfConfig::default() }, shape, 4).scales.len();
        assert_eq!(scales([1, 28, 28]), 2);
        assert_eq!(scales([1, 7, 28]), 0);
        assert_eq!(scales([2, 32, 16]), 3);
        assert_eq!(scales([1, 1, 1]), 0);
    }

    #[test]
    fn images_of_another_shape_and_impossible_models_are_refused() {
        let model = model(&IdfConfig::default(), [1, 8, 8], 17);
        assert!(model.bits(&noise([1, 8, 4], 17)).unwrap_err().to_string().contains("(B, 1, 8, 8)"));
        let store = ParamStore::new(1, DType::F32, &Device::Cpu);
        assert!(Idf::new(&IdfConfig::default(), [1, 0, 8], 17, &store).is_err());
        assert!(Idf::new(&IdfConfig::default(), [1, usize::MAX, 8], 17, &store).is_err());
        assert!(Idf::new(&IdfConfig::default(), [1, 8, 8], 257, &store).is_err());
    }
}
