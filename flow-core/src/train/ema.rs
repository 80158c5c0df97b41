//! The exponential moving average of the weights.

use std::collections::BTreeMap;

use candle_core::Tensor;
use serde::{Deserialize, Serialize};

use super::fused::{self, FusedLerp};
use super::range::in_range;
use crate::kernels::accepts;
use crate::param::{Param, ParamStore};
use crate::{Error, Result};

/// Settings of the average.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EmaConfig {
    /// `d` in `[0, 1)`: the average looks back over about `1 / (1 - d)` steps.
    pub decay: f64,
}

impl EmaConfig {
    /// Checks the decay.
    pub fn check(&self) -> Result<()> {
        in_range("ema.decay", self.decay, (0.0..1.0).contains(&self.decay), "in [0, 1)")
    }
}

/// The zero-debiased average `a_t` of all parameters, and of the buffers with them.
///
/// Running averages of batch normalization describe the weights of their time: with averaged weights go averaged
/// statistics, or a model is shifted by how far its weights have come since. Buffers that never change (flags,
/// permutations, signs) stay what they are.
///
/// With `s_t = d s_{t-1} + (1-d) p_t` from `s_0 = 0`, the debiased average is `a_t = s_t / (1 - dᵗ)`
/// (Kingma & Ba 2015, section 3). Kept here directly in its debiased form,
/// `a_t = a_{t-1} + (1-d)/(1-dᵗ) · (p_t - a_{t-1})`, which is the same sequence and whose file can be used
/// as a model without knowing `t`; `a_1 = p_1`.
#[derive(Debug, Clone)]
pub struct Ema {
    config: EmaConfig,
    entries: Vec<(Param, Tensor)>,
    updates: u64,
}

impl Ema {
    /// An average that starts from the present weights and has seen no update.
    pub fn new(config: EmaConfig, store: &ParamStore) -> Result<Self> {
        config.check()?;
        let entry = |p: Param| {
            let value = p.var().as_tensor().copy()?.detach();
            Ok((p, value))
        };
        let entries = store.all().into_iter().map(entry).collect::<Result<_>>()?;
        Ok(Ema { config, entries, updates: 0 })
    }

    /// Number of updates so far, `t`.
    pub fn updates(&self) -> u64 {
        self.updates
    }

    /// Takes the present weights into the average.
    pub fn update(&mut self) -> Result<()> {
        self.updates += 1;
        let decay = self.config.decay;
        // Exactly one for the first update, which forgets the initial weights.
        let weight = (1.0 - decay) / (1.0 - decay.powf(self.updates as f64));
        for (param, average) in &mut self.entries {
            let value = param.var().as_detached_tensor();
            if weight == 1.0 {
                *average = value.copy()?;
            } else if accepts(&value) {
                fused::apply(average, &value, &FusedLerp { weight })?;
            } else {
                *average = (&*average + (value - &*average)?.affine(weight, 0.0)?)?.detach();
            }
        }
        Ok(())
    }

    /// Exchanges weights and averages. Calling it twice changes nothing.
    pub fn swap(&mut self) -> Result<()> {
        for (param, average) in &mut self.entries {
            let weights = param.var().as_tensor().copy()?.detach();
            param.set(average)?;
            *average = weights;
        }
        Ok(())
    }

    /// Runs `f` with the averages in place of the weights, and puts the weights back whatever `f` returns.
    pub fn during<R>(&mut self, f: impl FnOnce() -> Result<R>) -> Result<R> {
        self.swap()?;
        let outcome = f();
        self.swap()?;
        outcome
    }

    /// The averages by name, as views that the next update changes.
    pub fn averages(&self) -> BTreeMap<String, Tensor> {
        self.entries.iter().map(|(param, average)| (param.name().to_string(), average.clone())).collect()
    }

    /// Continues from saved averages after `updates` updates. Entries that the model does not have are ignored.
    ///
    /// # Errors
    /// [`Error::Config`] naming the first missing or misshapen average; nothing is changed then.
    pub fn restore(&mut self, averages: &BTreeMap<String, Tensor>, updates: u64) -> Result<()> {
        let mut restored = Vec::with_capacity(self.entries.len());
        for (param, _) in &self.entries {
            let name = param.name();
            match averages.get(name) {
                Some(a) if a.dims() == param.var().dims() && a.dtype() == param.var().dtype() => {
                    restored.push((param.clone(), a.to_device(param.var().device())?.copy()?));
                }
                Some(a) => {
                    let reason =
                        format!("'{name}' is {:?} {:?}, the model wants {:?}", a.dims(), a.dtype(), param.var().dims());
                    return Err(Error::config("averaged weights", reason));
                }
                None => return Err(Error::config("averaged weights", format!("'{name}' is missing"))),
            }
        }
        self.entries = restored;
        self.updates = updates;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::param::Init;
    use candle_core::{DType, Device};

    #[test]
    fn buffers_are_averaged_and_constant_ones_stay() {
        let store = ParamStore::new(0, DType::F32, &Device::Cpu);
        let root = store.root();
        let p = root.param("p", 1, Init::Const(0.0)).unwrap();
        let at = |v: &[f32]| Tensor::new(v, &Device::Cpu).unwrap();
        let mean = root.buffer("running_mean", &at(&[0.0])).unwrap();
        root.buffer("sign", &at(&[-1.0, 0.1])).unwrap();
        root.buffer("order", &Tensor::new(&[2_u32, 0, 1], &Device::Cpu).unwrap()).unwrap();
        let mut ema = Ema::new(EmaConfig { decay: 0.9 }, &store).unwrap();
        for t in 0..30 {
            p.set(&at(&[t as f32])).unwrap();
            mean.set(&at(&[2.0 * t as f32])).unwrap();
            ema.update().unwrap();
        }
        let averages = ema.averages();
        let first = |name: &str| averages[name].to_vec1::<f32>().unwrap()[0];
        assert!((first("running_mean") - 2.0 * first("p")).abs() < 1e-4, "statistics lag as the weights do");
        assert_eq!(averages["sign"].to_vec1::<f32>().unwrap(), [-1.0, 0.1]);
        assert_eq!(averages["order"].to_vec1::<f32>().unwrap(), [2.0, 0.0, 1.0]);
    }

    #[test]
    fn equals_the_debiased_sum_and_swaps_back() {
        let store = ParamStore::new(0, DType::F64, &Device::Cpu);
        let p = store.root().param("p", 3, Init::Const(100.0)).unwrap();
        let d: f64 = 0.7;
        let mut ema = Ema::new(EmaConfig { decay: d }, &store).unwrap();
        let mut history = Vec::new();
        for t in 1..=40_u32 {
            let x = f64::from(t).sin() * 5.0;
            history.push(x);
            p.set(&Tensor::full(x, 3, &Device::Cpu).unwrap()).unwrap();
            ema.update().unwrap();
            // Independent: the explicit weighted mean with weights d^(t-k).
            let weights: Vec<f64> = (0..history.len()).rev().map(|k| d.powi(k as i32)).collect();
            let mean = history.iter().zip(&weights).map(|(x, w)| x * w).sum::<f64>() / weights.iter().sum::<f64>();
            let got = ema.averages()["p"].to_vec1::<f64>().unwrap()[0];
            assert!((got - mean).abs() < 1e-12, "t = {t}: {got} against {mean}");
        }
        let raw = p.tensor().to_vec1::<f64>().unwrap();
        let averaged = ema.averages()["p"].to_vec1::<f64>().unwrap();
        let inside = ema.during(|| Ok(p.tensor().to_vec1::<f64>()?)).unwrap();
        assert_eq!(inside, averaged);
        assert_eq!(p.tensor().to_vec1::<f64>().unwrap(), raw);
        let failed: Result<()> = ema.during(|| Err(Error::config("test", "fails")));
        assert!(failed.is_err());
        assert_eq!(p.tensor().to_vec1::<f64>().unwrap(), raw, "the weights are back after an error");
        assert_eq!(ema.averages()["p"].to_vec1::<f64>().unwrap(), averaged);
    }
}
