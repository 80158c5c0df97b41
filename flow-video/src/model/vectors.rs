//! The distribution of the motions of a frame, given what was before.

use candle_core::{Device, Tensor};
use flow_core::nn::HiddenActivation;
use flow_core::numerics::host;
use flow_core::numerics::softmax::{log_softmax, log_sum_exp};
use flow_core::{ParamPath, Result};
use rayon::prelude::*;

use super::PriorConfig;
use super::encoder::ScaledPointwise;
use super::latent::{LatentNet, LatentNetConfig};
use super::motion::{CANDIDATES, Fields, Motion, SITUATIONS};

/// One share for each candidate and one for a new motion.
const SHARES: usize = CANDIDATES + 1;
/// How much likelier than all else it is at the start, as a logarithm, that a square goes on as expected.
const AS_EXPECTED: f64 = 3.0;
/// The logarithm of a probability of nothing.
const NEVER: f64 = -1e9;

/// `P(m | past) = Π_b P(m_b | m_{<b}, past)`, square by square along the rows: a square goes on as expected, moves as one of its
/// neighbours, stands still, or takes a new motion:
///
/// `P(m_b) = Σ_k α_bsk [m_b = candidate k] + α_bs0 · P_y(m_by) P_x(m_bx)`.
///
/// The shares `α` of each situation `s`, which says what neighbours do not move as expected, and both distributions are those of
/// a network over the frames before, which sees the squares as channels and the motion that is expected of each.
pub(super) struct MotionPrior {
    net: LatentNet,
    out: ScaledPointwise,
    motion: Motion,
}

impl MotionPrior {
    /// For frames of `shape`, seen `config.past` at a time.
    pub(super) fn new(
        path: &ParamPath,
        [channels, height, width]: [usize; 3],
        motion: &Motion,
        config: &PriorConfig,
        activation: HiddenActivation,
    ) -> Result<Self> {
        let joined = channels * motion.block * motion.block + 2;
        let net = LatentNetConfig {
            channels: joined,
            steps: config.past,
            height: height / motion.block,
            width: width / motion.block,
            hidden: config.width,
            blocks: config.blocks.max(1),
            dilations: config.dilations,
            gated: activation == HiddenActivation::Gated,
        };
        let outputs = SITUATIONS * SHARES + 2 * motion.side();
        let (net, out) = (LatentNet::new(path, &net)?, ScaledPointwise::new(&path.pp("out"), joined, outputs)?);
        let is_expected = |i: usize| i < SITUATIONS * SHARES && i.is_multiple_of(SHARES);
        let start: Vec<f64> = (0..outputs).map(|i| if is_expected(i) { AS_EXPECTED } else { 0.0 }).collect();
        out.start(&start)?;
        Ok(MotionPrior { net, out, motion: *motion })
    }

    /// What the network sees: `past` `(R, n, C·block², H/block, W/block)`, and the expected motions at every step.
    fn seen(&self, past: &Tensor, fields: &[Fields]) -> Result<Tensor> {
        let (rows, steps, _, high, wide) = past.dims5()?;
        let reach = self.motion.reach as f64;
        let mut expected = Vec::with_capacity(rows * 2 * high * wide);
        for field in fields {
            for axis in 0..2 {
                expected.extend(field.expected.iter().map(|m| m[axis] as f64 / reach));
            }
        }
        let expected = Tensor::from_vec(expected, (rows, 1, 2, high, wide), &Device::Cpu)?;
        let expected = expected.to_dtype(past.dtype())?.to_device(past.device())?;
        Ok(Tensor::cat(&[past, &expected.broadcast_as((rows, steps, 2, high, wide))?.contiguous()?], 2)?)
    }

    /// Data-dependent initialisation of the network.
    pub(super) fn initialize(&self, past: &Tensor, fields: &[Fields]) -> Result<()> {
        self.net.initialize(&self.seen(past, fields)?).map(drop)
    }

    /// Logarithms of the shares in every situation, `(R, situations, shares, H/block, W/block)`, and of the distributions of a
    /// new motion along each axis, `(R, side, …)`.
    fn logs(&self, past: &Tensor, fields: &[Fields]) -> Result<[Tensor; 3]> {
        let out = self.out.forward(&self.net.forward(&self.seen(past, fields)?)?)?;
        let (rows, _, high, wide) = out.dims4()?;
        let (all, side) = (SITUATIONS * SHARES, self.motion.side());
        let part = |from: usize, count: usize| Ok::<_, flow_core::Error>(out.narrow(1, from, count)?.contiguous()?);
        let shares = part(0, all)?.reshape((rows, SITUATIONS, SHARES, high, wide))?;
        let of_axis = |from: usize| log_softmax(&part(from, side)?, 1);
        Ok([log_softmax(&shares, 2)?, of_axis(all)?, of_axis(all + side)?])
    }

    /// `ln P` of the motions of every frame in nats, `(R,)`.
    pub(super) fn log_prob(&self, past: &Tensor, fields: &[Fields], motions: &[Vec<[isize; 2]>]) -> Result<Tensor> {
        let [shares, down, across] = self.logs(past, fields)?;
        let (rows, _, _, high, wide) = shares.dims5()?;
        let blocks = high * wide;
        let mut situations = vec![0.0; rows * SITUATIONS * blocks];
        let mut never = vec![NEVER; rows * CANDIDATES * blocks];
        let mut places = [Vec::with_capacity(rows * blocks), Vec::with_capacity(rows * blocks)];
        for (row, (field, motions)) in fields.iter().zip(motions).enumerate() {
            for (block, motion) in motions.iter().enumerate() {
                let situation = field.situation(block, motions);
                situations[(row * SITUATIONS + situation) * blocks + block] = 1.0;
                for (k, candidate) in field.candidates(block, motions).into_iter().enumerate() {
                    if candidate == *motion {
                        never[(row * CANDIDATES + k) * blocks + block] = 0.0;
                    }
                }
                for (axis, places) in places.iter_mut().enumerate() {
                    places.push(motion[axis].saturating_add_unsigned(self.motion.reach) as u32);
                }
            }
        }
        let here = |values: Vec<f64>, count: usize| -> Result<Tensor> {
            let values = Tensor::from_vec(values, (rows, count, high, wide), &Device::Cpu)?;
            Ok(values.to_dtype(shares.dtype())?.to_device(shares.device())?)
        };
        let situations = here(situations, SITUATIONS)?.unsqueeze(2)?;
        let shares = shares.broadcast_mul(&situations)?.sum(1)?;
        let taken = (shares.narrow(1, 0, CANDIDATES)? + here(never, CANDIDATES)?)?;
        let [at_y, at_x] = places.map(|places| Tensor::from_vec(places, (rows, 1, high, wide), shares.device()));
        let new = (shares.narrow(1, CANDIDATES, 1)? + down.gather(&at_y?, 1)?)?;
        let new = (new + across.gather(&at_x?, 1)?)?;
        Ok(log_sum_exp(&Tensor::cat(&[taken, new], 1)?, 1)?.flatten_from(1)?.sum(1)?)
    }

    /// Motions for every frame, square by square: drawn where there are numbers in `[0, 1)`, one for each square of each frame,
    /// or the likeliest ones. Probabilities are raised to the power `1/temperature`.
    pub(super) fn draw(
        &self,
        past: &Tensor,
        fields: &[Fields],
        temperature: f64,
        uniforms: Option<&[f64]>,
    ) -> Result<Vec<Vec<[isize; 2]>>> {
        let logs = self.logs(past, fields)?;
        let blocks = logs[1].dim(2)? * logs[1].dim(3)?;
        let [shares, down, across] = [host::numbers(&logs[0])?, host::numbers(&logs[1])?, host::numbers(&logs[2])?];
        let (side, vectors) = (self.motion.side(), self.motion.vectors());
        let drawn = fields.par_iter().enumerate().map(|(row, field)| {
            let mut motions: Vec<[isize; 2]> = Vec::with_capacity(blocks);
            for block in 0..blocks {
                let of = |logs: &[f64], count: usize, k: usize| logs[(row * count + k) * blocks + block].exp();
                let first = field.situation(block, &motions) * SHARES;
                let share = |k: usize| of(&shares, SITUATIONS * SHARES, first + k);
                let new = share(CANDIDATES);
                let [down, across] =
                    [&down, &across].map(|logs| (0..side).map(|k| of(logs, side, k)).collect::<Vec<_>>());
                let candidates = field.candidates(block, &motions);
                let probability = |motion: &[isize; 2]| {
                    let [y, x] = motion.map(|along| along.saturating_add_unsigned(self.motion.reach) as usize);
                    let taken = candidates.iter().enumerate().filter(|(_, candidate)| *candidate == motion);
                    taken.map(|(k, _)| share(k)).sum::<f64>() + new * down[y] * across[x]
                };
                let probabilities: Vec<f64> = vectors.iter().map(probability).collect();
                let uniform = uniforms.map(|uniforms| uniforms[row * blocks + block]);
                motions.push(vectors[choose(&probabilities, temperature, uniform)]);
            }
            motions
        });
        Ok(drawn.collect())
    }
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

    /// A prior away from its start, frames before, and what they let expect.
    fn prior() -> (MotionPrior, Tensor, Vec<Fields>) {
        let motion = Motion::new(1, 2);
        let store = ParamStore::new(2, DType::F64, &Device::Cpu);
        let mut config = PriorConfig::new(1, 4);
        config.past = 2;
        let prior = MotionPrior::new(&store.root(), [1, 2, 4], &motion, &config, HiddenActivation::Gated).unwrap();
        let mut rng = FlowRng::seed_from(3);
        for param in store.trainable() {
            let noise = rng.normal(param.tensor().shape(), DType::F64, &Device::Cpu).unwrap();
            param.set(&(param.tensor() + noise.affine(0.4, 0.0).unwrap()).unwrap()).unwrap();
        }
        let past = rng.normal((2, 2, 4, 1, 2), DType::F64, &Device::Cpu).unwrap();
        let fields = [[[0, 1], [0, 0]], [[1, -1], [0, 1]]].map(|expected| Fields::expecting(expected.to_vec(), 2));
        (prior, past, fields.into())
    }

    #[test]
    fn all_motions_together_have_probability_one() {
        let (prior, past, fields) = prior();
        let vectors = Motion::new(1, 2).vectors();
        let mut sums = [0.0; 2];
        for first in &vectors {
            for second in &vectors {
                let motions = vec![vec![*first, *second]; 2];
                let logs = prior.log_prob(&past, &fields, &motions).unwrap().to_vec1::<f64>().unwrap();
                sums.iter_mut().zip(logs).for_each(|(sum, log)| *sum += log.exp());
            }
        }
        assert!(sums.iter().all(|sum| (sum - 1.0).abs() < 1e-9), "{sums:?}");
    }

    #[test]
    fn motions_are_drawn_as_often_as_they_are_likely() {
        let (prior, past, fields) = prior();
        let mut rng = FlowRng::seed_from(4);
        let (mut counts, draws) = (std::collections::HashMap::new(), 20_000);
        let many: Vec<Fields> = (0..draws).map(|_| fields[0].clone()).collect();
        let past = past.narrow(0, 0, 1).unwrap().broadcast_as((draws, 2, 4, 1, 2)).unwrap().contiguous().unwrap();
        let uniforms: Vec<f64> = rng.uniform(2 * draws, DType::F64, &Device::Cpu).unwrap().to_vec1().unwrap();
        for motions in prior.draw(&past, &many, 1.0, Some(&uniforms)).unwrap() {
            *counts.entry(motions).or_insert(0.0) += 1.0;
        }
        let one = past.narrow(0, 0, 1).unwrap();
        for (motions, count) in counts {
            let log = prior.log_prob(&one, &fields[..1], std::slice::from_ref(&motions)).unwrap();
            let expected = log.to_vec1::<f64>().unwrap()[0].exp() * draws as f64;
            assert!((count - expected).abs() < 5.0 * expected.sqrt() + 3.0, "{motions:?}: {count} {expected}");
        }
        let likeliest = prior.draw(&one, &fields[..1], 1.0, None).unwrap();
        assert_eq!(prior.draw(&one, &fields[..1], 0.0, Some(&uniforms[..2])).unwrap(), likeliest);
    }

    #[test]
    fn the_gradient_of_a_probability_is_that_of_differences() {
        let (prior, past, fields) = prior();
        let motions = vec![vec![[0, 1], [-1, 1]], vec![[1, 1], [1, 1]]];
        let score = || prior.log_prob(&past, &fields, &motions).unwrap().sum_all().unwrap();
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
