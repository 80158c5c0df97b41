//! Weights from files of other programs, with the weight normalization multiplied out.

use std::collections::{BTreeMap, HashMap};
use std::path::Path;

use candle_core::{Device, Tensor};
use flow_core::{Error, Result};

use super::WaveFlow;

/// Differences that a message names.
const NAMED: usize = 5;

impl WaveFlow {
    /// Takes folded weights from a safetensors file by the names of the PyTorch implementation `upsample_conv.{2i}`,
    /// `flows.{k}.coupling.net.{front_conv.0.conv, res_blocks.{l}.{filter_gate_conv.conv, filter_gate_conv_c, res_skip_conv}}`
    /// and `flows.{k}.coupling.proj_log_s_t.conv`, each with `.weight` and `.bias`.
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
        let mut wanted = BTreeMap::new();
        for (name, target) in &targets {
            let shapes = match target {
                Target::Normed(normed) => normed.shapes(),
                Target::Plain(weight, bias) => [weight.var().dims().to_vec(), bias.var().dims().to_vec()],
            };
            for (part, shape) in ["weight", "bias"].into_iter().zip(shapes) {
                wanted.insert(format!("{name}.{part}"), shape);
            }
        }
        for (name, shape) in &wanted {
            match tensors.get(name) {
                None => faults.push(format!("'{name}' is missing")),
                Some(t) if t.dims() != shape => {
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
        for (name, target) in targets {
            let get = |part: &str| tensors.get(&format!("{name}.{part}"));
            if let (Some(weight), Some(bias)) = (get("weight"), get("bias")) {
                let dtype = self.dtype();
                let (weight, bias) = (weight.to_dtype(dtype)?, bias.to_dtype(dtype)?);
                match target {
                    Target::Normed(normed) => normed.set(&weight, &bias)?,
                    Target::Plain(w, b) => w.set(&weight).and_then(|()| b.set(&bias))?,
                }
            }
        }
        Ok(())
    }

    fn folded_names(&self) -> Vec<(String, Target<'_>)> {
        let mut names = Vec::new();
        for (i, kernel) in self.conditioner.kernels().enumerate() {
            names.push((format!("upsample_conv.{}", 2 * i), Target::Normed(kernel)));
        }
        for (k, step) in self.steps.iter().enumerate() {
            let (net, network) = (format!("flows.{k}.coupling.net"), &step.network);
            names.push((format!("{net}.front_conv.0.conv"), Target::Normed(&network.front)));
            for (l, layer) in network.layers.iter().enumerate() {
                let block = format!("{net}.res_blocks.{l}");
                names.push((format!("{block}.filter_gate_conv.conv"), Target::Normed(&layer.gate)));
                names.push((format!("{block}.filter_gate_conv_c"), Target::Normed(&layer.condition)));
                names.push((format!("{block}.res_skip_conv"), Target::Normed(&layer.out)));
            }
            let head = Target::Plain(&network.head_weight, &network.head_bias);
            names.push((format!("flows.{k}.coupling.proj_log_s_t.conv"), head));
        }
        names
    }
}

/// Where a weight and a bias go.
enum Target<'a> {
    Normed(&'a super::normed::Normed),
    Plain(&'a flow_core::Param, &'a flow_core::Param),
}
