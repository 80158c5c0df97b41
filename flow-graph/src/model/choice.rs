//! Choosing a class from the parameters of a decision's flow, and the latents of a choice.

use flow_core::FlowRng;

use super::config::Head;
use super::head::tanh;
use super::quadrature::argmax_probabilities;

/// What one decision's flow is, whatever the head.
#[derive(Debug, Clone)]
pub(crate) enum Law {
    /// Class probabilities.
    Classes(Vec<f64>),
    /// Mean and standard deviation of each entry of the dequantized one-hot vector: all affine maps folded
    /// into one, `z = (x − mean) / deviation`.
    Gaussian { mean: Vec<f64>, deviation: Vec<f64> },
}

/// The output of a head for a list of decisions.
pub(crate) struct Outputs<'a> {
    /// As [`super::head::Pass::output`].
    pub values: &'a [f32],
    /// Number of decisions.
    pub count: usize,
    /// Classes of each.
    pub classes: usize,
    /// Gaussian: logarithms of the largest log-scales.
    pub log_range: &'a [f32],
}

impl Law {
    /// The law of decision `d` at a temperature: the base's standard deviation for a Gaussian head; a categorical one's
    /// probabilities are raised to `1/temperature` instead, its base being uniform.
    pub fn new(head: &Head, outputs: &Outputs<'_>, d: usize, temperature: f64) -> Self {
        let k = outputs.classes;
        match head {
            Head::Categorical { .. } => {
                let logits = &outputs.values[d * k..(d + 1) * k];
                let largest = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
                let mut p: Vec<f64> =
                    logits.iter().map(|&l| (f64::from(l - largest) / temperature.max(1e-6)).exp()).collect();
                let sum: f64 = p.iter().sum();
                p.iter_mut().for_each(|p| *p /= sum);
                Law::Classes(p)
            }
            Head::Gaussian { layers, .. } => {
                let (mut mean, mut log_scale) = (vec![0.0; k], vec![0.0f64; k]);
                for l in 0..*layers {
                    let row = &outputs.values[(l * outputs.count + d) * 2 * k..][..2 * k];
                    let range = f64::from(outputs.log_range[l]).exp();
                    for c in 0..k {
                        mean[c] -= f64::from(row[c]) * (-log_scale[c]).exp();
                        log_scale[c] += range * tanh(f64::from(row[k + c]));
                    }
                }
                let deviation = log_scale.iter().map(|s| temperature * (-s).exp()).collect();
                Law::Gaussian { mean, deviation }
            }
        }
    }

    /// The probability that each class is the answer.
    pub fn probabilities(&self) -> Vec<f64> {
        match self {
            Law::Classes(p) => p.clone(),
            Law::Gaussian { mean, deviation } => argmax_probabilities(mean, deviation),
        }
    }

    /// Draws a class given that it is allowed; returns also how many draws were refused on the way.
    ///
    /// Redrawing until the class is allowed and drawing from the renormalized probabilities are the same law.
    /// A Gaussian head redraws a few times, because a draw is cheaper than the probabilities are.
    ///
    /// `allowed` must have a bit; classes that underflow to zero probability are equally likely among themselves.
    pub fn draw(&self, allowed: u128, rng: &mut FlowRng) -> (u8, usize) {
        const REDRAWS: usize = 16;
        let mut refused = 0;
        if let Law::Gaussian { mean, deviation } = self {
            while refused < REDRAWS {
                let class = argmax(mean.iter().zip(deviation).map(|(m, s)| m + s * rng.next_normal()));
                if allowed >> class & 1 == 1 {
                    return (class, refused);
                }
                refused += 1;
            }
        }
        let p = self.probabilities();
        if let Law::Classes(_) = self {
            // What an unrestricted draw would have done, for the count of refusals alone.
            refused += usize::from(allowed >> pick(&p, u128::MAX, rng.next_uniform()) & 1 == 0);
        }
        (pick(&p, allowed, rng.next_uniform()), refused)
    }

    /// The latents of a choice, appended: the base's variables of which [`Law::decode`] makes the class again.
    pub fn encode(&self, class: u8, noise: f64, rng: &mut FlowRng, latents: &mut Vec<f64>) {
        match self {
            Law::Classes(p) => {
                let order = rising(p);
                let below: f64 = order.iter().take_while(|&&c| c != usize::from(class)).map(|&c| p[c]).sum();
                let own = p.get(usize::from(class)).copied().unwrap_or(0.0);
                latents.push(below + own * (0.25 + 0.5 * rng.next_uniform()));
            }
            Law::Gaussian { mean, deviation } => {
                for (c, (m, s)) in mean.iter().zip(deviation).enumerate() {
                    let x = f64::from(u8::from(c == usize::from(class))) + noise * rng.next_uniform();
                    latents.push((x - m) / s);
                }
            }
        }
    }

    /// The class of the latents at the front of `latents`, which are taken off.
    pub fn decode(&self, latents: &mut &[f64]) -> u8 {
        let wanted = match self {
            Law::Classes(_) => 1,
            Law::Gaussian { mean, .. } => mean.len(),
        };
        let (own, rest) = latents.split_at(wanted.min(latents.len()));
        *latents = rest;
        match self {
            Law::Classes(p) => {
                let mut left = own.first().copied().unwrap_or(0.0);
                let order = rising(p);
                let found = order.iter().find(|&&c| {
                    let inside = left < p[c];
                    left -= p[c];
                    inside
                });
                found.or(order.last()).map_or(0, |&c| c as u8)
            }
            Law::Gaussian { mean, deviation } => {
                argmax(mean.iter().zip(deviation).zip(own).map(|((m, s), z)| m + s * z))
            }
        }
    }
}

/// Classes by rising probability: the bins of the spline, so that rare classes lie near zero, where numbers are
/// dense enough to tell them apart.
fn rising(p: &[f64]) -> Vec<usize> {
    let mut order: Vec<usize> = (0..p.len()).collect();
    order.sort_by(|&a, &b| p[a].total_cmp(&p[b]));
    order
}

fn argmax(values: impl Iterator<Item = f64>) -> u8 {
    let mut best = (0, f64::NEG_INFINITY);
    for (i, v) in values.enumerate() {
        if v > best.1 {
            best = (i, v);
        }
    }
    best.0 as u8
}

/// The allowed class whose interval of the cumulative probabilities holds `u` of their sum.
fn pick(p: &[f64], allowed: u128, u: f64) -> u8 {
    let open = || p.iter().enumerate().filter(|(c, _)| allowed >> c & 1 == 1);
    let total: f64 = open().map(|(_, p)| p).sum();
    if total <= 0.0 || total.is_nan() {
        let count = open().count().max(1);
        return open().nth((u * count as f64) as usize).map_or(0, |(c, _)| c as u8);
    }
    let mut left = u * total;
    let mut last = 0;
    for (class, &p) in open().filter(|(_, p)| **p > 0.0) {
        last = class as u8;
        if left < p {
            return last;
        }
        left -= p;
    }
    last
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn redrawing_and_renormalizing_are_one_law() {
        let law = Law::Gaussian { mean: vec![1.2, 0.9, 0.3, -0.5], deviation: vec![0.4, 0.9, 1.5, 0.2] };
        let allowed = 0b1110;
        let p = law.probabilities();
        let open: f64 = p[1..].iter().sum();
        let mut rng = FlowRng::seed_from(3);
        let (draws, mut counts, mut refused) = (40_000, [0usize; 4], 0);
        for _ in 0..draws {
            let (class, again) = law.draw(allowed, &mut rng);
            counts[usize::from(class)] += 1;
            refused += again;
        }
        assert_eq!(counts[0], 0);
        for class in 1..4 {
            let expected = p[class] / open * f64::from(draws);
            let deviation = (expected * (1.0 - p[class] / open)).sqrt();
            assert!((counts[class] as f64 - expected).abs() < 4.5 * deviation + 1.0, "{class}: {counts:?} {expected}");
        }
        assert!((refused as f64 / f64::from(draws) - (1.0 / open - 1.0)).abs() < 0.05, "{refused}");
    }

    #[test]
    fn latents_give_the_class_back() {
        let mut rng = FlowRng::seed_from(1);
        let laws = [
            Law::Classes(vec![1e-40, 0.5, 1e-20, 0.5]),
            Law::Gaussian { mean: vec![1.0, -40.0, 3.0, 0.0], deviation: vec![1e-3, 2.0, 50.0, 1.0] },
        ];
        for law in &laws {
            for class in 0..4 {
                let mut latents = Vec::new();
                law.encode(class, 0.9, &mut rng, &mut latents);
                let mut rest = latents.as_slice();
                assert_eq!(law.decode(&mut rest), class);
                assert!(rest.is_empty());
            }
        }
    }

    #[test]
    fn an_impossible_law_still_answers_something_allowed() {
        let mut rng = FlowRng::seed_from(2);
        for p in [vec![1.0, 0.0, 0.0], vec![f64::NAN; 3], vec![0.0; 3]] {
            for _ in 0..20 {
                let (class, _) = Law::Classes(p.clone()).draw(0b110, &mut rng);
                assert!(class == 1 || class == 2);
            }
        }
    }
}
