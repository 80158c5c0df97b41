//! The networks of the codec, once as a differentiable graph and once as plain sequential arithmetic.
//!
//! A coder whose decoder computes another last bit than its encoder decodes garbage. Matrix products of
//! a tensor library promise no bits: the order of a sum may depend on batch size, threads or CPU. So the
//! graph ([`ConvNet::forward`]) is for training, and [`PlainNet`], frozen from the same weights, is for
//! coding. The plain network uses additions, multiplications and maxima of IEEE 754 in one fixed order and nothing
//! else, which every CPU rounds alike.

use candle_core::{DType, Tensor};
use flow_core::nn::{ConvGeometry, conv2d};
use flow_core::{Init, Param, ParamPath};

use crate::{Error, Result};

/// Accumulators per pixel held in registers at once.
const LANES: usize = 8;
/// Pixels per row processed together.
const PIXELS: usize = 4;

/// A zero-padded `k × k` convolution with bias.
pub(super) struct ConvLayer {
    weight: Param,
    bias: Param,
    kernel: usize,
}

impl ConvLayer {
    fn new(path: &ParamPath, inputs: usize, outputs: usize, kernel: usize, gain: f64) -> Result<Self> {
        let std = gain * (2.0 / (inputs * kernel * kernel) as f64).sqrt();
        Ok(ConvLayer {
            weight: path.param("weight", (outputs, inputs, kernel, kernel), Init::Normal(std))?,
            bias: path.param("bias", outputs, Init::Const(0.0))?,
            kernel,
        })
    }

    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let geometry = ConvGeometry::same(self.kernel);
        Ok(conv2d(x, &self.weight.tensor(), Some(&self.bias.tensor()), &geometry)?)
    }

    fn freeze(&self) -> Result<PlainConv> {
        let (outputs, inputs, _, _) = self.weight.var().dims4()?;
        let weight = host(&self.weight)?;
        let taps = self.kernel * self.kernel;
        let groups = outputs.div_ceil(LANES);
        let mut packed = vec![[0.0; LANES]; groups * taps * inputs];
        for (o, row) in weight.chunks_exact(inputs * taps).enumerate() {
            for (i, taps_of_input) in row.chunks_exact(taps).enumerate() {
                for (t, &w) in taps_of_input.iter().enumerate() {
                    packed[(o / LANES * taps + t) * inputs + i][o % LANES] = w;
                }
            }
        }
        let mut bias = vec![[0.0; LANES]; groups];
        host(&self.bias)?.iter().enumerate().for_each(|(o, &b)| bias[o / LANES][o % LANES] = b);
        Ok(PlainConv { packed, bias, inputs, outputs, kernel: self.kernel })
    }
}

/// The values of a parameter in f32.
///
/// # Errors
/// A value that is not finite, with the parameter's name.
fn host(param: &Param) -> Result<Vec<f32>> {
    let values = param.var().flatten_all()?.to_dtype(DType::F32)?.to_vec1::<f32>()?;
    if values.iter().all(|v| v.is_finite()) {
        return Ok(values);
    }
    Err(flow_core::Error::NonFinite { layer: param.name().into(), what: "parameter".into(), step: None }.into())
}

/// `h = conv₃(x)`, then `h ← h + conv₁(relu(conv₃(relu(h))))` per block, then `conv₁(relu(h))`.
///
/// # Shapes
/// - `(B, C, H, W)` → `(B, P, H, W)`.
pub(super) struct ConvNet {
    first: ConvLayer,
    blocks: Vec<(ConvLayer, ConvLayer)>,
    last: ConvLayer,
}

/// Input channels, hidden channels, residual blocks and output channels of a [`ConvNet`].
#[derive(Debug, Clone, Copy)]
pub(super) struct NetShape {
    pub(super) inputs: usize,
    pub(super) width: usize,
    pub(super) blocks: usize,
    pub(super) outputs: usize,
}

impl ConvNet {
    pub(super) fn new(path: &ParamPath, shape: NetShape) -> Result<Self> {
        let NetShape { inputs, width, blocks, outputs } = shape;
        let block = |i: usize| -> Result<(ConvLayer, ConvLayer)> {
            let path = path.pp(format!("block{i}"));
            // A small second gain keeps the sum over blocks at the scale of one block.
            let gain = 0.5 / (blocks as f64).sqrt();
            Ok((
                ConvLayer::new(&path.pp("a"), width, width, 3, 1.0)?,
                ConvLayer::new(&path.pp("b"), width, width, 1, gain)?,
            ))
        };
        Ok(ConvNet {
            first: ConvLayer::new(&path.pp("first"), inputs, width, 3, 1.0)?,
            blocks: (0..blocks).map(block).collect::<Result<_>>()?,
            // Nearly zero, so that training starts from the distribution that the offsets describe.
            last: ConvLayer::new(&path.pp("last"), width, outputs, 1, 0.05)?,
        })
    }

    pub(super) fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let mut h = self.first.forward(x)?;
        for (a, b) in &self.blocks {
            h = (&h + b.forward(&a.forward(&h.relu()?)?.relu()?)?)?;
        }
        self.last.forward(&h.relu()?)
    }

    /// The same function with the weights of now, for coding.
    pub(super) fn freeze(&self) -> Result<PlainNet> {
        let block = |(a, b): &(ConvLayer, ConvLayer)| Ok((a.freeze()?, b.freeze()?));
        Ok(PlainNet {
            first: self.first.freeze()?,
            blocks: self.blocks.iter().map(block).collect::<Result<_>>()?,
            last: self.last.freeze()?,
        })
    }
}

/// Values of one image, channel-last: `(H, W, C)`.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Map {
    pub(super) values: Vec<f32>,
    pub(super) channels: usize,
    pub(super) size: [usize; 2],
}

impl Map {
    fn relu(&self) -> Map {
        Map { values: self.values.iter().map(|&v| if v > 0.0 { v } else { 0.0 }).collect(), ..*self }
    }

    /// Surrounded by `border` zeros on every side.
    fn padded(&self, border: usize) -> Map {
        let [h, w] = self.size;
        let size = [h + 2 * border, w + 2 * border];
        let mut values = vec![0.0; size[0] * size[1] * self.channels];
        for (i, row) in self.values.chunks_exact(w * self.channels).enumerate() {
            let start = ((i + border) * size[1] + border) * self.channels;
            values[start..start + row.len()].copy_from_slice(row);
        }
        Map { values, channels: self.channels, size }
    }
}

/// A convolution frozen for coding; `packed[group][tap][input]` holds the weights of [`LANES`] outputs.
pub(super) struct PlainConv {
    packed: Vec<[f32; LANES]>,
    bias: Vec<[f32; LANES]>,
    inputs: usize,
    outputs: usize,
    kernel: usize,
}

impl PlainConv {
    fn forward(&self, x: &Map) -> Map {
        let ([h, w], k) = (x.size, self.kernel);
        let padded = x.padded(k / 2);
        let mut y = Map { values: vec![0.0; h * w * self.outputs], channels: self.outputs, size: x.size };
        let per_group = k * k * self.inputs;
        for (group, (weights, bias)) in self.packed.chunks_exact(per_group).zip(&self.bias).enumerate() {
            let lanes = LANES.min(self.outputs - group * LANES);
            for i in 0..h {
                for j in (0..w).step_by(PIXELS) {
                    let count = PIXELS.min(w - j);
                    let sums = self.patch(&padded, weights, *bias, [i, j], count);
                    for (p, sum) in sums.iter().take(count).enumerate() {
                        let at = (i * w + j + p) * self.outputs + group * LANES;
                        y.values[at..at + lanes].copy_from_slice(&sum[..lanes]);
                    }
                }
            }
        }
        y
    }

    /// [`LANES`] outputs at up to [`PIXELS`] neighbours; each sum runs over rows, columns, then inputs.
    fn patch(
        &self,
        padded: &Map,
        weights: &[[f32; LANES]],
        bias: [f32; LANES],
        [i, j]: [usize; 2],
        count: usize,
    ) -> [[f32; LANES]; PIXELS] {
        let (c, k) = (self.inputs, self.kernel);
        let mut sums = [bias; PIXELS];
        for (tap, weights) in weights.chunks_exact(c).enumerate() {
            let start = ((i + tap / k) * padded.size[1] + j + tap % k) * c;
            // A pixel beyond the row's end repeats the last one; its sum is not used.
            let pixel = |p: usize| &padded.values[start + p.min(count - 1) * c..][..c];
            let pixels: [&[f32]; PIXELS] = std::array::from_fn(pixel);
            accumulate(&mut sums, weights, pixels);
        }
        sums
    }
}

#[inline]
fn accumulate(sums: &mut [[f32; LANES]; PIXELS], weights: &[[f32; LANES]], [p, q, r, s]: [&[f32]; PIXELS]) {
    let [mut a, mut b, mut c, mut d] = *sums;
    for ((((w, &p), &q), &r), &s) in weights.iter().zip(p).zip(q).zip(r).zip(s) {
        for l in 0..LANES {
            a[l] += p * w[l];
            b[l] += q * w[l];
            c[l] += r * w[l];
            d[l] += s * w[l];
        }
    }
    *sums = [a, b, c, d];
}

/// A [`ConvNet`] frozen for coding: one image at a time, one thread, one order of operations.
pub(super) struct PlainNet {
    first: PlainConv,
    blocks: Vec<(PlainConv, PlainConv)>,
    last: PlainConv,
}

impl PlainNet {
    /// The network's output.
    ///
    /// # Errors
    /// An output that is not finite: weights so large that no distribution can be built from them.
    pub(super) fn forward(&self, x: &Map) -> Result<Map> {
        let mut h = self.first.forward(x);
        for (a, b) in &self.blocks {
            let step = b.forward(&a.forward(&h.relu()).relu());
            h.values.iter_mut().zip(&step.values).for_each(|(h, s)| *h += s);
        }
        let y = self.last.forward(&h.relu());
        if y.values.iter().all(|v| v.is_finite()) {
            return Ok(y);
        }
        Err(Error::from(flow_core::Error::NonFinite { layer: "idf network".into(), what: "output".into(), step: None }))
    }
}

#[cfg(test)]
mod tests {
    use candle_core::Device;
    use flow_core::{FlowRng, ParamStore};

    use super::*;

    fn channel_last(x: &Tensor) -> Map {
        let (_, c, h, w) = x.dims4().unwrap();
        let values = x.permute((0, 2, 3, 1)).unwrap().flatten_all().unwrap().to_vec1().unwrap();
        Map { values, channels: c, size: [h, w] }
    }

    #[test]
    fn the_plain_network_computes_the_graph() {
        for (shape, size) in [
            (NetShape { inputs: 5, width: 12, blocks: 2, outputs: 17 }, [5, 7]),
            (NetShape { inputs: 1, width: 8, blocks: 0, outputs: 3 }, [1, 1]),
        ] {
            let store = ParamStore::new(3, DType::F32, &Device::Cpu);
            let net = ConvNet::new(&store.root(), shape).unwrap();
            let mut rng = FlowRng::seed_from(4);
            for p in store.trainable() {
                p.set(&rng.normal(p.var().shape(), DType::F32, &Device::Cpu).unwrap()).unwrap();
            }
            let x = rng.normal((1, shape.inputs, size[0], size[1]), DType::F32, &Device::Cpu).unwrap();
            let expected = channel_last(&net.forward(&x).unwrap());
            let actual = net.freeze().unwrap().forward(&channel_last(&x)).unwrap();
            assert_eq!((actual.channels, actual.size), (expected.channels, expected.size));
            let scale = expected.values.iter().fold(1.0f32, |m, v| m.max(v.abs()));
            for (a, e) in actual.values.iter().zip(&expected.values) {
                assert!((a - e).abs() < 1e-5 * scale, "{a} {e}");
            }
        }
    }

    #[test]
    fn weights_without_meaning_are_an_error() {
        let store = ParamStore::new(3, DType::F32, &Device::Cpu);
        let net = ConvNet::new(&store.root(), NetShape { inputs: 1, width: 2, blocks: 0, outputs: 1 }).unwrap();
        let bias = store.get("last.bias").unwrap();
        bias.set(&Tensor::new(&[f32::NAN], &Device::Cpu).unwrap()).unwrap();
        assert!(net.freeze().err().unwrap().to_string().contains("last.bias"));
        bias.set(&Tensor::new(&[f32::MAX], &Device::Cpu).unwrap()).unwrap();
        store.get("last.weight").unwrap().set(&Tensor::full(f32::MAX, (1, 2, 1, 1), &Device::Cpu).unwrap()).unwrap();
        let x = Map { values: vec![9.0; 16], channels: 1, size: [4, 4] };
        assert!(net.freeze().unwrap().forward(&x).is_err());
    }
}
