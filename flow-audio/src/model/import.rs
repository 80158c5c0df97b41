//! Weights from files of other programs, with the weight normalization multiplied out.

use std::collections::{BTreeMap, HashMap};
use std::path::Path;

use candle_core::{Device, Tensor};
use flow_core::{Error, Param, Result};

use super::flow::Step;
use super::glow::GlowStep;
use super::normed::Normed;
use super::steps::AnyStep;
use super::upsample::Upsample;
use super::{ModelConfig, Vocoder};

/// Differences that a message names.
const NAMED: usize = 5;

impl Vocoder {
    /// Takes folded weights from a safetensors file by the names of the PyTorch implementations, each with `.weight` and
    /// `.bias`: of a WaveFlow `upsample_conv.{2i}`, `flows.{k}.coupling.net.{front_conv.0.conv, res_blocks.{l}.{filter_gate_conv.conv, filter_gate_conv_c, res_skip_conv}}`
    /// and `flows.{k}.coupling.proj_log_s_t.conv`; of a WaveGlow, as its authors published it, `upsample`, `WN.{k}.{start,
    /// in_layers.{l}, cond_layer, res_skip_layers.{l}, end}` and the matrices `convinv.{k}.conv`, which have no bias.
    ///
    /// # Errors
    /// [`Error::Io`] for a file that cannot be read; [`Error::Checkpoint`] naming missing, unknown and misshapen tensors, and
    /// nothing is changed then.
    pub fn load_folded(&self, path: &Path) -> Result<()> {
        let bytes = std::fs::read(path).map_err(Error::io(path))?;
        let refuse = |reason: String| Error::Checkpoint { path: path.to_path_buf(), reason };
        let tensors = candle_core::safetensors::load_buffer(&bytes, &Device::Cpu).map_err(|e| refuse(e.to_string()))?;
        self.import_folded(&tensors).map_err(|error| match error {
            Error::Config { reason, .. } => refuse(reason),
            other => other,
        })
    }

    /// The same from tensors by name.
    ///
    /// # Errors
    /// [`Error::Config`] naming missing, unknown and misshapen tensors; nothing is changed then.
    pub fn import_folded(&self, tensors: &HashMap<String, Tensor>) -> Result<()> {
        let targets = self.folded_names();
        let mut faults = Vec::new();
        let wanted: BTreeMap<&String, &Vec<usize>> =
            targets.iter().flat_map(|t| &t.parts).map(|(n, s)| (n, s)).collect();
        for (name, shape) in &wanted {
            match tensors.get(*name) {
                None => faults.push(format!("'{name}' is missing")),
                Some(t) if t.dims() != shape.as_slice() => {
                    faults.push(format!("'{name}' has shape {:?}, the model wants {shape:?}", t.dims()));
                }
                Some(t) if !t.dtype().is_float() => faults.push(format!("'{name}' holds {:?}", t.dtype())),
                Some(_) => {}
            }
        }
        let mut unknown: Vec<&String> = tensors.keys().filter(|name| !wanted.contains_key(*name)).collect();
        unknown.sort();
        faults.extend(unknown.into_iter().map(|name| format!("'{name}' is unknown to the model")));
        if !faults.is_empty() {
            let more = faults.len().saturating_sub(NAMED);
            let mut reason = faults[..faults.len().min(NAMED)].join("; ");
            if more > 0 {
                reason += &format!("; and {more} more differences");
            }
            return Err(Error::config("folded weights", reason));
        }
        for target in targets {
            let found = target.parts.iter().filter_map(|(name, _)| tensors.get(name));
            let found = found.map(|t| Ok(t.to_dtype(self.dtype())?)).collect::<Result<Vec<_>>>()?;
            (target.put)(&found)?;
        }
        Ok(())
    }

    fn folded_names(&self) -> Vec<Target<'_>> {
        let mut targets = Vec::new();
        match &self.upsampling {
            Upsample::Staged(conditioner) => {
                let kernels = conditioner.kernels().enumerate();
                targets
                    .extend(kernels.map(|(i, kernel)| Target::normed(format!("upsample_conv.{}", 2 * i), kernel, 4)));
            }
            Upsample::Single(upsample) => {
                targets.push(Target::plain("upsample".into(), &upsample.weight, &upsample.bias));
            }
        }
        for (k, step) in self.steps.iter().enumerate() {
            match (step, &self.config) {
                (AnyStep::Rows(step), _) => rows(&mut targets, k, step),
                (AnyStep::Groups(step), ModelConfig::WaveGlow(config)) => {
                    targets.extend(self.store.get(&format!("flow{k}.mix.w")).map(|matrix| mixing(k, matrix)));
                    groups(&mut targets, k, step, config.group, config.mels);
                }
                (AnyStep::Groups(_), ModelConfig::WaveFlow(_)) => {}
            }
        }
        targets
    }
}

/// The tensors of a flow of WaveFlow.
fn rows<'a>(targets: &mut Vec<Target<'a>>, k: usize, step: &'a Step) {
    let (net, network) = (format!("flows.{k}.coupling.net"), &step.network);
    targets.push(Target::normed(format!("{net}.front_conv.0.conv"), &network.front, 4));
    for (l, layer) in network.layers.iter().enumerate() {
        let block = format!("{net}.res_blocks.{l}");
        targets.push(Target::normed(format!("{block}.filter_gate_conv.conv"), &layer.gate, 4));
        targets.push(Target::normed(format!("{block}.filter_gate_conv_c"), &layer.condition, 4));
        targets.push(Target::normed(format!("{block}.res_skip_conv"), &layer.out, 4));
    }
    let name = format!("flows.{k}.coupling.proj_log_s_t.conv");
    targets.push(Target::plain(name, &network.head_weight, &network.head_bias));
}

/// The matrix of a flow of WaveGlow.
fn mixing<'a>(k: usize, matrix: Param) -> Target<'a> {
    let dims = matrix.var().dims().to_vec();
    let parts = vec![(format!("convinv.{k}.conv.weight"), vec![dims[0], dims[1], 1])];
    Target { parts, put: Box::new(move |found| found.iter().try_for_each(|w| matrix.set(&w.squeeze(2)?))) }
}

/// The other tensors of a flow of WaveGlow. There all layers' conditions are one convolution, whose inputs are numbered by band
/// and then by place in the group; and shifts come before log-scales.
fn groups<'a>(targets: &mut Vec<Target<'a>>, k: usize, step: &'a GlowStep, group: usize, mels: usize) {
    let (net, network) = (format!("WN.{k}"), &step.network);
    targets.push(Target::normed(format!("{net}.start"), &network.front, 3));
    for (l, layer) in network.layers.iter().enumerate() {
        targets.push(Target::normed(format!("{net}.in_layers.{l}"), &layer.gate, 3));
        targets.push(Target::normed(format!("{net}.res_skip_layers.{l}"), &layer.out, 3));
    }
    let wide = network.layers.first().map_or(0, |layer| layer.condition.shapes()[0][0]);
    let all = wide * network.layers.len();
    let name = format!("{net}.cond_layer");
    targets.push(Target {
        parts: vec![(format!("{name}.weight"), vec![all, mels * group, 1]), (format!("{name}.bias"), vec![all])],
        put: Box::new(move |found| {
            let [weight, bias] = found else { return Ok(()) };
            let weight = weight.reshape((all, mels, group))?.transpose(1, 2)?.contiguous()?;
            let weight = weight.reshape((all, group * mels, 1, 1))?;
            let layers = network.layers.iter().enumerate();
            for (l, layer) in layers {
                layer.condition.set(&weight.narrow(0, l * wide, wide)?, &bias.narrow(0, l * wide, wide)?)?;
            }
            Ok(())
        }),
    });
    let [outputs, channels] = [0, 1].map(|i| network.head_weight.var().dims()[i]);
    let name = format!("{net}.end");
    targets.push(Target {
        parts: vec![(format!("{name}.weight"), vec![outputs, channels, 1]), (format!("{name}.bias"), vec![outputs])],
        put: Box::new(move |found| {
            let [weight, bias] = found else { return Ok(()) };
            let swapped = |t: &Tensor| -> Result<Tensor> {
                let half = outputs / 2;
                Ok(Tensor::cat(&[t.narrow(0, half, half)?, t.narrow(0, 0, half)?], 0)?)
            };
            network.head_weight.set(&swapped(weight)?.unsqueeze(3)?)?;
            network.head_bias.set(&swapped(bias)?)
        }),
    });
}

/// Takes tensors.
type Put<'a> = Box<dyn Fn(&[Tensor]) -> Result<()> + 'a>;

/// Where some tensors go.
struct Target<'a> {
    /// Their names and shapes.
    parts: Vec<(String, Vec<usize>)>,
    /// Takes them, in that order.
    put: Put<'a>,
}

impl<'a> Target<'a> {
    /// A weight-normalised kernel, given in `rank` dimensions.
    fn normed(name: String, normed: &'a Normed, rank: usize) -> Self {
        let [kernel, bias] = normed.shapes();
        let mut given = kernel.clone();
        // A kernel of one row is given without that dimension.
        if rank == 3 {
            given.remove(2);
        }
        Target {
            parts: vec![(format!("{name}.weight"), given), (format!("{name}.bias"), bias)],
            put: Box::new(move |found| match found {
                [weight, bias] => normed.set(&weight.reshape(kernel.as_slice())?, bias),
                _ => Ok(()),
            }),
        }
    }

    fn plain(name: String, weight: &'a Param, bias: &'a Param) -> Self {
        let dims = |param: &Param| param.var().dims().to_vec();
        Target {
            parts: vec![(format!("{name}.weight"), dims(weight)), (format!("{name}.bias"), dims(bias))],
            put: Box::new(move |found| match found {
                [w, b] => weight.set(w).and_then(|()| bias.set(b)),
                _ => Ok(()),
            }),
        }
    }
}
