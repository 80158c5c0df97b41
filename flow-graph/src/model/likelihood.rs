//! Log-densities of decisions and their gradients, for both kinds of flow.

use flow_core::kernels::Real;

use super::config::Head;
use super::head::tanh;

/// `½ ln 2π`.
const HALF_LN_TAU: f64 = 0.918_938_533_204_672_8;

/// What is to be scored: classes, what was allowed, and the dequantization noise.
pub(crate) struct Choices<'a, T> {
    /// The class of each decision; the number of classes for noise alone.
    pub targets: Vec<u8>,
    /// Allowed classes as bits; the chosen one counts as allowed.
    pub allowed: Vec<u128>,
    /// Uniform in `[0, 1)`, one number per decision and class; empty for a categorical head.
    pub noise: &'a [T],
    /// Number of classes.
    pub classes: usize,
}

/// The parameters of a head as the flow reads them.
pub(crate) struct FlowParams<'a, T> {
    /// Logits, or shifts and raw scales by layer.
    pub output: &'a [T],
    /// Gaussian: the logarithms of the largest log-scales.
    pub log_range: &'a [T],
}

/// The log-density of every decision, in nats.
pub(crate) fn log_probs<T: Real>(head: &Head, params: &FlowParams<'_, T>, choices: &Choices<'_, T>) -> Vec<f64> {
    match head {
        Head::Categorical { .. } => {
            (0..choices.targets.len()).map(|d| categorical(params.output, choices, d, |_, _| ())).collect()
        }
        Head::Gaussian { layers, noise, .. } => {
            let mut maps = AffineMaps::new(*layers, choices.classes, *noise, params);
            (0..choices.targets.len()).map(|d| maps.encode(params, choices, d)).collect()
        }
    }
}

/// The gradient of `Σ_d w_d log p_d` with respect to the output of the network and the ranges.
pub(crate) fn gradient<T: Real>(
    head: &Head,
    params: &FlowParams<'_, T>,
    choices: &Choices<'_, T>,
    weights: &[f64],
) -> (Vec<T>, Vec<T>) {
    let mut d_output = vec![T::ZERO; params.output.len()];
    let mut d_range = vec![0.0; params.log_range.len()];
    match head {
        Head::Categorical { .. } => {
            for (d, (out, &w)) in d_output.chunks_exact_mut(choices.classes).zip(weights).enumerate() {
                categorical(params.output, choices, d, |class, residual| out[class] = T::from_f64(w * residual));
            }
        }
        Head::Gaussian { layers, noise, .. } => {
            let mut maps = AffineMaps::new(*layers, choices.classes, *noise, params);
            for (d, &w) in weights.iter().enumerate() {
                maps.encode(params, choices, d);
                maps.backward(w, (d, weights.len()), &mut d_output, &mut d_range);
            }
        }
    }
    (d_output, d_range.into_iter().map(T::from_f64).collect())
}

/// `log softmax` over the allowed classes at the target; `each` receives `∂/∂logit`.
fn categorical<T: Real>(output: &[T], choices: &Choices<'_, T>, d: usize, mut each: impl FnMut(usize, f64)) -> f64 {
    let (k, target) = (choices.classes, usize::from(choices.targets[d]).min(choices.classes - 1));
    let logits = &output[d * k..(d + 1) * k];
    let allowed = choices.allowed[d] | 1 << target;
    let open = || logits.iter().enumerate().filter(|(c, _)| allowed >> c & 1 == 1).map(|(c, l)| (c, l.to_f64()));
    let largest = open().map(|(_, l)| l).fold(f64::NEG_INFINITY, f64::max);
    let sum: f64 = open().map(|(_, l)| (l - largest).exp()).sum();
    let log_sum = largest + sum.ln();
    open().for_each(|(c, l)| each(c, f64::from(u8::from(c == target)) - (l - log_sum).exp()));
    logits[target].to_f64() - log_sum
}

/// The composed affine maps of one decision.
struct AffineMaps<T> {
    layers: usize,
    classes: usize,
    noise: f64,
    range: Vec<T>,
    /// `x` before each layer and after the last, `(L + 1, K)`.
    x: Vec<T>,
    /// `tanh` of the raw scales, `(L, K)`.
    bounded: Vec<T>,
}

impl<T: Real> AffineMaps<T> {
    fn new(layers: usize, classes: usize, noise: f64, params: &FlowParams<'_, T>) -> Self {
        let range = params.log_range.iter().map(|w| w.exp_bounded()).collect();
        let (x, bounded) = (vec![T::ZERO; (layers + 1) * classes], vec![T::ZERO; layers * classes]);
        AffineMaps { layers, classes, noise, range, x, bounded }
    }

    fn encode(&mut self, params: &FlowParams<'_, T>, choices: &Choices<'_, T>, d: usize) -> f64 {
        let (k, count) = (self.classes, choices.targets.len());
        let noise = &choices.noise[d * k..(d + 1) * k];
        for (x, &u) in self.x.iter_mut().zip(noise) {
            *x = T::from_f64(self.noise) * u;
        }
        if let Some(x) = self.x[..k].get_mut(usize::from(choices.targets[d])) {
            *x += T::from_f64(1.0);
        }
        let mut log_det = 0.0;
        for l in 0..self.layers {
            let row = &params.output[(l * count + d) * 2 * k..][..2 * k];
            let (before, after) = self.x[l * k..(l + 2) * k].split_at_mut(k);
            let bounded = &mut self.bounded[l * k..(l + 1) * k];
            for c in 0..k {
                bounded[c] = tanh(row[k + c]);
                let s = self.range[l] * bounded[c];
                after[c] = (before[c] + row[c]) * s.exp_bounded();
                log_det += s.to_f64();
            }
        }
        let z = &self.x[self.layers * k..];
        log_det - z.iter().map(|z| 0.5 * z.to_f64() * z.to_f64() + HALF_LN_TAU).sum::<f64>()
    }

    /// The gradient of `w·log p` of the decision encoded last.
    fn backward(&self, w: f64, (d, count): (usize, usize), d_output: &mut [T], d_range: &mut [f64]) {
        let (k, w, one) = (self.classes, T::from_f64(w), T::from_f64(1.0));
        let mut dy: Vec<T> = self.x[self.layers * k..].iter().map(|&z| T::ZERO - w * z).collect();
        for l in (0..self.layers).rev() {
            let row = &mut d_output[(l * count + d) * 2 * k..][..2 * k];
            for c in 0..k {
                let bounded = self.bounded[l * k + c];
                let s = self.range[l] * bounded;
                let ds = dy[c] * self.x[(l + 1) * k + c] + w;
                row[k + c] = ds * self.range[l] * (one - bounded * bounded);
                d_range[l] += (ds * s).to_f64();
                dy[c] *= s.exp_bounded();
                row[c] = dy[c];
            }
        }
    }
}
