//! The distribution of the motions of layers, given what was before.

use candle_core::{DType, Device, Tensor};
use flow_core::nn::HiddenActivation;
use flow_core::numerics::host;
use flow_core::numerics::softmax::{log_softmax, log_sum_exp};
use flow_core::{ParamPath, Result};
use rayon::prelude::*;

use super::PriorConfig;
use super::encoder::ScaledPointwise;
use super::latent::{LatentNet, LatentNetConfig};
use super::layers::{Layer, Scene};
use super::motion::Motion;
use super::plane::Vector;

/// How much likelier than a new motion it is at the start, as a logarithm, that a layer goes on as it came.
const GOES_ON: f64 = 1.0;
/// The logarithm of a probability of nothing.
const NEVER: f64 = -1e9;

/// `P(m | past) = Π_l P(m_l | past)` over the layers of a frame: a layer goes on as it came, or takes a new motion:
///
/// `P(m_l) = α_l [m_l = as it came] + (1 - α_l) · P_y(m_ly) P_x(m_lx)`.
///
/// A network over the layer in the frames before, alone, with how it moved at each step, gives `α` and both distributions: its
/// outputs are averaged over the pixels of the layer.
pub(super) struct MotionPrior {
    net: LatentNet,
    out: ScaledPointwise,
    motion: Motion,
    shape: [usize; 3],
    dtype: DType,
    device: Device,
}

impl MotionPrior {
    /// For frames of `shape`.
    pub(super) fn new(
        path: &ParamPath,
        shape: [usize; 3],
        motion: &Motion,
        config: &PriorConfig,
        activation: HiddenActivation,
    ) -> Result<Self> {
        let [channels, height, width] = shape;
        let joined = channels * motion.block * motion.block + 2;
        let net = LatentNetConfig {
            channels: joined,
            steps: motion.memory - 1,
            height: height / motion.block,
            width: width / motion.block,
            hidden: config.width,
            blocks: config.blocks.max(1),
            dilations: config.dilations,
            gated: activation == HiddenActivation::Gated,
        };
        let outputs = 2 + 2 * motion.side();
        let (net, out) = (LatentNet::new(path, &net)?, ScaledPointwise::new(&path.pp("out"), joined, outputs)?);
        let start: Vec<f64> = (0..outputs).map(|i| if i == 0 { GOES_ON } else { 0.0 }).collect();
        out.start(&start)?;
        let (dtype, device) = (path.store().dtype(), path.store().device().clone());
        Ok(MotionPrior { net, out, motion: *motion, shape, dtype, device })
    }

    /// What the network sees of layers, `(L, memory - 1, C·block² + 2, H/block, W/block)`: of every step how a layer looked and
    /// how it came there, zeros before it was found.
    fn seen(&self, layers: &[(&Scene, &Layer)]) -> Result<Tensor> {
        let ([channels, height, width], block) = (self.shape, self.motion.block);
        let (steps, high, wide) = (self.motion.memory - 1, height / block, width / block);
        let (places, joined) = (high * wide, channels * block * block + 2);
        let mut seen = vec![0.0; layers.len() * steps * joined * places];
        seen.par_chunks_exact_mut(steps * joined * places).zip(layers).for_each(|(seen, (scene, layer))| {
            let trail = layer.trail.iter().map(|(motion, image)| (motion, image));
            let all: Vec<_> = trail.chain([(&layer.motion, &layer.image)]).collect();
            let known = all.len().min(steps);
            let steps = seen.chunks_exact_mut(joined * places).skip(steps - known);
            for (out, (motion, image)) in steps.zip(&all[all.len() - known..]) {
                for (i, level) in image.iter().enumerate() {
                    let (channel, y, x) = (i / (height * width), i / width % height, i % width);
                    let within = (channel * block + y % block) * block + x % block;
                    let place = y / block * wide + x / block;
                    out[within * places + place] = (level - scene.ground.common[channel]) / scene.ground.levels;
                }
                for (axis, along) in motion.iter().enumerate() {
                    let channel = (joined - 2 + axis) * places;
                    out[channel..channel + places].fill(*along as f64 / self.motion.reach as f64);
                }
            }
        });
        self.here(seen, &[layers.len(), steps, joined, high, wide])
    }

    /// The share of every place in the average over a layer, `(L, 1, H/block, W/block)`.
    fn shares(&self, layers: &[(&Scene, &Layer)]) -> Result<Tensor> {
        let ([_, height, width], block) = (self.shape, self.motion.block);
        let (high, wide) = (height / block, width / block);
        let mut shares = vec![0.0; layers.len() * high * wide];
        for (shares, (_, layer)) in shares.chunks_exact_mut(high * wide).zip(layers) {
            let each = 1.0 / layer.pixels().count().max(1) as f64;
            layer.pixels().for_each(|p| shares[p / width / block * wide + p % width / block] += each);
        }
        self.here(shares, &[layers.len(), 1, high, wide])
    }

    fn here(&self, values: Vec<f64>, shape: &[usize]) -> Result<Tensor> {
        Ok(Tensor::from_vec(values, shape, &Device::Cpu)?.to_dtype(self.dtype)?.to_device(&self.device)?)
    }

    /// Data-dependent initialisation of the network, if there is a layer.
    pub(super) fn initialize(&self, scenes: &[Scene]) -> Result<()> {
        let layers = layers(scenes);
        if layers.is_empty() {
            return Ok(());
        }
        self.net.initialize(&self.seen(&layers)?).map(drop)
    }

    /// Logarithms of `α` and `1 - α`, `(L, 2)`, and of the distributions of a new motion along each axis, `(L, side)`.
    fn logs(&self, layers: &[(&Scene, &Layer)]) -> Result<[Tensor; 3]> {
        let out = self.out.forward(&self.net.forward(&self.seen(layers)?)?)?;
        let out = out.broadcast_mul(&self.shares(layers)?)?.flatten_from(2)?.sum(2)?;
        let side = self.motion.side();
        let part = |from: usize, count: usize| log_softmax(&out.narrow(1, from, count)?.contiguous()?, 1);
        Ok([part(0, 2)?, part(2, side)?, part(2 + side, side)?])
    }

    /// `ln P` of the motions of the layers of every frame in nats, `(R,)`.
    pub(super) fn log_prob(&self, scenes: &[Scene], motions: &[Vec<Vector>]) -> Result<Tensor> {
        let layers = layers(scenes);
        if layers.is_empty() {
            return self.here(vec![0.0; scenes.len()], &[scenes.len()]);
        }
        let [shares, down, across] = self.logs(&layers)?;
        let taken: Vec<Vector> = motions.iter().flatten().copied().collect();
        let goes_on = |((_, layer), motion): (&(&Scene, &Layer), &Vector)| {
            if layer.motion == *motion { 0.0 } else { NEVER }
        };
        let goes_on: Vec<f64> = layers.iter().zip(&taken).map(goes_on).collect();
        let place = |axis: usize| -> Result<Tensor> {
            let places = taken.iter().map(|motion| motion[axis].saturating_add_unsigned(self.motion.reach) as u32);
            Ok(Tensor::from_vec(places.collect::<Vec<_>>(), (taken.len(), 1), shares.device())?)
        };
        let as_it_came = (shares.narrow(1, 0, 1)? + self.here(goes_on, &[taken.len(), 1])?)?;
        let new = ((shares.narrow(1, 1, 1)? + down.gather(&place(0)?, 1)?)? + across.gather(&place(1)?, 1)?)?;
        let each = log_sum_exp(&Tensor::cat(&[as_it_came, new], 1)?, 1)?.flatten_all()?;
        let frames = scenes.iter().enumerate().flat_map(|(row, scene)| vec![row as u32; scene.layers.len()]);
        let frames = Tensor::from_vec(frames.collect::<Vec<_>>(), taken.len(), each.device())?;
        Ok(self.here(vec![0.0; scenes.len()], &[scenes.len()])?.index_add(&frames, &each, 0)?)
    }

    /// Motions for the layers of every frame: drawn where there are numbers in `[0, 1)`, [`MOST`](super::layers::MOST) for each
    /// frame, or the likeliest ones. Probabilities are raised to the power `1/temperature`.
    pub(super) fn draw(
        &self,
        scenes: &[Scene],
        temperature: f64,
        uniforms: Option<&[f64]>,
    ) -> Result<Vec<Vec<Vector>>> {
        let layers = layers(scenes);
        if layers.is_empty() {
            return Ok(vec![Vec::new(); scenes.len()]);
        }
        let logs = self.logs(&layers)?;
        let [shares, down, across] = [host::numbers(&logs[0])?, host::numbers(&logs[1])?, host::numbers(&logs[2])?];
        let (side, vectors) = (self.motion.side(), self.motion.vectors());
        let mut index = 0;
        let mut of_frame = |(row, scene): (usize, &Scene)| -> Vec<Vector> {
            let of_layer = |(number, layer): (usize, &Layer)| {
                let probability = |motion: &Vector| {
                    let [y, x] = motion.map(|along| along.saturating_add_unsigned(self.motion.reach) as usize);
                    let new = shares[2 * index + 1] + down[index * side + y] + across[index * side + x];
                    new.exp() + if layer.motion == *motion { shares[2 * index].exp() } else { 0.0 }
                };
                let probabilities: Vec<f64> = vectors.iter().map(probability).collect();
                index += 1;
                let uniform = uniforms.map(|uniforms| uniforms[row * super::layers::MOST + number]);
                vectors[choose(&probabilities, temperature, uniform)]
            };
            scene.layers.iter().enumerate().map(of_layer).collect()
        };
        Ok(scenes.iter().enumerate().map(&mut of_frame).collect())
    }
}

/// The layers of all frames, with what is known of these.
fn layers(scenes: &[Scene]) -> Vec<(&Scene, &Layer)> {
    scenes.iter().flat_map(|scene| scene.layers.iter().map(move |layer| (scene, layer))).collect()
}

/// An index by probabilities that are raised to the power `1/temperature`; the likeliest one at zero or without a number in
/// `[0, 1)`.
fn choose(probabilities: &[f64], temperature: f64, uniform: Option<f64>) -> usize {
    let likelier = |best: usize, i: usize| if probabilities[i] > probabilities[best] { i } else { best };
    let likeliest = (0..probabilities.len()).fold(0, likelier);
    let (Some(uniform), true) = (uniform, temperature > 0.0) else { return likeliest };
    let most = probabilities[likeliest];
    let weights: Vec<f64> = probabilities.iter().map(|p| (p / most).powf(1.0 / temperature)).collect();
    let mut left = uniform * weights.iter().sum::<f64>();
    for (i, weight) in weights.iter().enumerate() {
        left -= weight;
        if left < 0.0 {
            return i;
        }
    }
    likeliest
}

#[cfg(test)]
mod tests {
    use candle_core::DType;
    use flow_core::{FlowRng, ParamStore};

    use super::*;

    /// A prior away from its start, and scenes of two layers, one and none.
    fn prior() -> (MotionPrior, Vec<Scene>) {
        let motion = Motion { block: 2, ..Motion::new(1, 3) };
        let store = ParamStore::new(2, DType::F64, &Device::Cpu);
        let config = PriorConfig::new(1, 4);
        let prior = MotionPrior::new(&store.root(), [1, 4, 6], &motion, &config, HiddenActivation::Gated).unwrap();
        let mut rng = FlowRng::seed_from(3);
        for param in store.trainable() {
            let noise = rng.normal(param.tensor().shape(), DType::F64, &Device::Cpu).unwrap();
            param.set(&(param.tensor() + noise.affine(0.4, 0.0).unwrap()).unwrap()).unwrap();
        }
        let scene = |points: &[(usize, isize, f64)]| {
            let frame = |t: isize| {
                let mut frame = vec![0.0; 24];
                points.iter().for_each(|(at, by, level)| frame[at.saturating_add_signed(by * t)] = *level);
                frame
            };
            let frames: Vec<Vec<f64>> = (0..3).map(frame).collect();
            motion.scene(&frames.iter().map(Vec::as_slice).collect::<Vec<_>>(), [1, 4, 6], 16.0)
        };
        let scenes = vec![scene(&[(0, 1, 15.0), (23, -6, 5.0)]), scene(&[(4, 6, 9.0)]), scene(&[])];
        assert_eq!(scenes.iter().map(|scene| scene.layers.len()).collect::<Vec<_>>(), [2, 1, 0]);
        (prior, scenes)
    }

    #[test]
    fn all_motions_together_have_probability_one() {
        let (prior, scenes) = prior();
        let vectors = prior.motion.vectors();
        let mut sums = [0.0; 3];
        for first in &vectors {
            for second in &vectors {
                let motions = [vec![*first, *second], vec![*first], vec![]];
                let logs = prior.log_prob(&scenes, &motions).unwrap().to_vec1::<f64>().unwrap();
                sums.iter_mut().zip(logs).for_each(|(sum, log)| *sum += log.exp());
            }
        }
        for (sum, times) in sums.iter().zip([1.0, 9.0, 81.0]) {
            assert!((sum / times - 1.0).abs() < 1e-9, "{sums:?}");
        }
        assert_eq!(prior.log_prob(&scenes[2..], &[vec![]]).unwrap().to_vec1::<f64>().unwrap(), [0.0]);
        assert_eq!(prior.log_prob(&[], &[]).unwrap().dims(), &[0]);
    }

    #[test]
    fn motions_are_drawn_as_often_as_they_are_likely() {
        let (prior, scenes) = prior();
        let mut rng = FlowRng::seed_from(4);
        let (mut counts, draws) = (std::collections::HashMap::new(), 4_000);
        let many = vec![scenes[0].clone(); draws];
        let uniforms = rng.uniform(super::super::layers::MOST * draws, DType::F64, &Device::Cpu).unwrap();
        let uniforms: Vec<f64> = uniforms.to_vec1().unwrap();
        for motions in prior.draw(&many, 1.0, Some(&uniforms)).unwrap() {
            *counts.entry(motions).or_insert(0.0) += 1.0;
        }
        for (motions, count) in counts {
            let log = prior.log_prob(&scenes[..1], std::slice::from_ref(&motions)).unwrap();
            let expected = log.to_vec1::<f64>().unwrap()[0].exp() * draws as f64;
            assert!((count - expected).abs() < 5.0 * expected.sqrt() + 3.0, "{motions:?}: {count} {expected}");
        }
        let likeliest = prior.draw(&scenes, 1.0, None).unwrap();
        let enough = &uniforms[..3 * super::super::layers::MOST];
        assert_eq!(prior.draw(&scenes, 0.0, Some(enough)).unwrap(), likeliest);
        assert_eq!(likeliest.iter().map(Vec::len).collect::<Vec<_>>(), [2, 1, 0]);
    }

    #[test]
    fn the_gradient_of_a_probability_is_that_of_differences() {
        let (prior, scenes) = prior();
        let motions = [vec![[0, 1], [-1, 1]], vec![[1, 1]], vec![]];
        let score = || prior.log_prob(&scenes, &motions).unwrap().sum_all().unwrap();
        let graph = score().backward().unwrap();
        for param in prior.out.params() {
            let gradient = graph.get(param.var()).unwrap().flatten_all().unwrap().to_vec1::<f64>().unwrap();
            let value = param.tensor().detach().copy().unwrap();
            let shifted = |h: f64| {
                let mut values = value.flatten_all().unwrap().to_vec1::<f64>().unwrap();
                values[0] += h;
                param.set(&Tensor::from_vec(values, value.shape(), &Device::Cpu).unwrap()).unwrap();
                score().to_scalar::<f64>().unwrap()
            };
            let numerical = (shifted(1e-5) - shifted(-1e-5)) / 2e-5;
            param.set(&value).unwrap();
            assert!((gradient[0] - numerical).abs() < 1e-6, "{}: {} {numerical}", param.name(), gradient[0]);
        }
    }
}
