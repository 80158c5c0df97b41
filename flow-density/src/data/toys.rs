//! Classic densities in the plane, with exact densities and entropies.
//!
//! Generators and scales are those of FFJORD's `toy_data.py` (Grathwohl et al. 2019), but that angles are drawn where
//! it spaces them evenly: every toy is a set of independent points of a density that can be written down.

use std::f64::consts::{PI, TAU};

use flow_core::FlowRng;
use rayon::prelude::*;

/// Nodes of the quadrature along a curve.
const NODES: usize = 1000;

/// A density in the plane.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Toy {
    /// Eight Gaussians on a circle.
    EightGaussians,
    /// Eight squares of a chess board, uniform.
    Checkerboard,
    /// Two half circles that interlock.
    Moons,
    /// Five bent arms.
    Pinwheel,
    /// Two spiral arms.
    TwoSpirals,
    /// Four thin concentric rings.
    Rings,
    /// A rolled-up band.
    Swissroll,
    /// Two thick concentric rings.
    Circles,
}

/// What is spread around the points of a curve.
#[derive(Debug, Clone, Copy)]
enum Blur {
    /// A Gaussian of this deviation.
    Gaussian(f64),
    /// A Gaussian of the first deviation after a uniform square of this half-width.
    Square(f64, f64),
}

impl Blur {
    /// The density at an offset from the point.
    fn density(self, [x, y]: [f64; 2]) -> f64 {
        match self {
            Blur::Gaussian(s) => (-(x * x + y * y) / (2.0 * s * s)).exp() / (TAU * s * s),
            Blur::Square(s, half) => {
                let scale = s * std::f64::consts::SQRT_2;
                let side = |v: f64| (libm::erf((v + half) / scale) - libm::erf((v - half) / scale)) / (4.0 * half);
                side(x) * side(y)
            }
        }
    }

    fn draw(self, rng: &mut FlowRng) -> [f64; 2] {
        let mut one = || match self {
            Blur::Gaussian(s) => s * rng.next_normal(),
            Blur::Square(s, half) => s * rng.next_normal() + half * (2.0 * rng.next_uniform() - 1.0),
        };
        let x = one();
        [x, one()]
    }
}

impl Toy {
    /// Every toy.
    pub const ALL: [Toy; 8] = [
        Toy::EightGaussians,
        Toy::Checkerboard,
        Toy::Moons,
        Toy::Pinwheel,
        Toy::TwoSpirals,
        Toy::Rings,
        Toy::Swissroll,
        Toy::Circles,
    ];

    /// The toy of this name, in whatever case; `None` if there is none.
    pub fn named(name: &str) -> Option<Self> {
        Toy::ALL.into_iter().find(|toy| toy.name().eq_ignore_ascii_case(name))
    }

    /// Its name, `8gaussians`.
    pub fn name(self) -> &'static str {
        match self {
            Toy::EightGaussians => "8gaussians",
            Toy::Checkerboard => "checkerboard",
            Toy::Moons => "moons",
            Toy::Pinwheel => "pinwheel",
            Toy::TwoSpirals => "2spirals",
            Toy::Rings => "rings",
            Toy::Swissroll => "swissroll",
            Toy::Circles => "circles",
        }
    }

    /// The differential entropy in nats: no density can do better on average.
    ///
    /// `ln 32` for the checkerboard, quadrature of the exact density for the others.
    pub fn entropy(self) -> f64 {
        match self {
            Toy::EightGaussians => 2.83188,
            Toy::Checkerboard => 32.0_f64.ln(),
            Toy::Moons => 2.39388,
            Toy::Pinwheel => 2.31779,
            Toy::TwoSpirals => 2.64543,
            Toy::Rings => 2.62318,
            Toy::Swissroll => 2.66964,
            Toy::Circles => 3.26814,
        }
    }

    /// `n` independent points.
    pub fn sample(self, n: usize, rng: &mut FlowRng) -> Vec<[f64; 2]> {
        let draw = |_, rng: &mut FlowRng| Ok::<_, std::convert::Infallible>(self.draw(rng));
        rng.per_row(n, draw).unwrap_or_else(|never| match never {})
    }

    /// `n` independent points in f32, one after the other.
    pub fn rows(self, n: usize, rng: &mut FlowRng) -> Vec<f32> {
        self.sample(n, rng).iter().flatten().map(|&v| v as f32).collect()
    }

    fn draw(self, rng: &mut FlowRng) -> [f64; 2] {
        match self {
            Toy::Checkerboard => {
                let x = 4.0 * rng.next_uniform() - 2.0;
                let y = rng.next_uniform() - 2.0 * rng.below(2) as f64 + x.floor().rem_euclid(2.0);
                [2.0 * x, 2.0 * y]
            }
            Toy::Pinwheel => {
                let (along, across) = (1.0 + 0.3 * rng.next_normal(), 0.1 * rng.next_normal());
                let (sin, cos) = arm(rng.below(5), along).sin_cos();
                [2.0 * (along * cos - across * sin), 2.0 * (along * sin + across * cos)]
            }
            _ => {
                let (curves, blur) = self.curves();
                let [x, y] = self.point(rng.below(curves), rng.next_uniform());
                let [dx, dy] = blur.draw(rng);
                [x + dx, y + dy]
            }
        }
    }

    /// The number of curves (or points) that the toy is spread around, each with the same weight.
    fn curves(self) -> (usize, Blur) {
        match self {
            Toy::EightGaussians => (8, Blur::Gaussian(0.5 / 1.414)),
            Toy::Moons => (2, Blur::Gaussian(0.2)),
            Toy::TwoSpirals => (2, Blur::Square(0.1, 0.25 / 3.0)),
            Toy::Rings => (4, Blur::Gaussian(0.08)),
            Toy::Circles => (2, Blur::Gaussian(0.24)),
            Toy::Swissroll => (1, Blur::Gaussian(0.2)),
            Toy::Checkerboard | Toy::Pinwheel => (0, Blur::Gaussian(1.0)),
        }
    }

    /// The point of a curve at `u` uniform in `[0, 1)`.
    fn point(self, curve: usize, u: f64) -> [f64; 2] {
        let polar = |radius: f64, angle: f64| [radius * angle.cos(), radius * angle.sin()];
        match self {
            Toy::EightGaussians => polar(4.0 / 1.414, TAU * curve as f64 / 8.0),
            Toy::Rings => polar(3.0 - 0.75 * curve as f64, TAU * u),
            Toy::Circles => polar(if curve == 0 { 3.0 } else { 1.5 }, TAU * u),
            Toy::Moons => {
                let [x, y] = polar(1.0, PI * u);
                let [x, y] = if curve == 0 { [x, y] } else { [1.0 - x, 0.5 - y] };
                [2.0 * x - 1.0, 2.0 * y - 0.2]
            }
            Toy::TwoSpirals => {
                let turn = 3.0 * PI * u.sqrt();
                let sign = if curve == 0 { 1.0 } else { -1.0 };
                // The square that is spread around each point starts at the point in the original.
                [sign * (0.25 - turn * turn.cos()) / 3.0, sign * (0.25 + turn * turn.sin()) / 3.0]
            }
            Toy::Swissroll => {
                let turn = 1.5 * PI * (1.0 + 2.0 * u);
                polar(turn / 5.0, turn)
            }
            Toy::Checkerboard | Toy::Pinwheel => [0.0, 0.0],
        }
    }

    /// `ln p` of every point, minus infinity where there is no mass.
    pub fn log_density(self, points: &[[f64; 2]]) -> Vec<f64> {
        let (curves, blur) = self.curves();
        let nodes = if self == Toy::EightGaussians { 1 } else { NODES };
        let node = |k: usize| self.point(k / nodes, ((k % nodes) as f64 + 0.5) / nodes as f64);
        let nodes: Vec<[f64; 2]> = (0..curves * nodes).map(node).collect();
        let density = |&[x, y]: &[f64; 2]| match self {
            Toy::Checkerboard => checkerboard(x, y),
            Toy::Pinwheel => pinwheel(x, y),
            _ => nodes.iter().map(|[a, b]| blur.density([x - a, y - b])).sum::<f64>() / nodes.len() as f64,
        };
        points.par_iter().map(|p| density(p).ln()).collect()
    }
}

fn checkerboard(x: f64, y: f64) -> f64 {
    let inside = x.abs() <= 4.0 && y.abs() <= 4.0;
    let dark = ((0.5 * x).floor() + (0.5 * y).floor()).rem_euclid(2.0) == 0.0;
    if inside && dark { 1.0 / 32.0 } else { 0.0 }
}

/// The angle of an arm of the pinwheel where it is `along` from the middle.
fn arm(label: usize, along: f64) -> f64 {
    TAU * label as f64 / 5.0 + 0.25 * along.exp()
}

/// The sum over all points of the unbent arms that are bent to `(x, y)`, each with the density there over the factor
/// `|1 - ¼eᵃ·b|` by which bending stretches areas.
fn pinwheel(x: f64, y: f64) -> f64 {
    const PARTS: usize = 200;
    let (x, y) = (0.5 * x, 0.5 * y);
    let (low, high) = (1.0 - 7.0 * 0.3, 1.0 + 7.0 * 0.3);
    let mut sum = 0.0;
    for label in 0..5 {
        let turned = |along: f64| {
            let (sin, cos) = arm(label, along).sin_cos();
            [x * cos + y * sin, y * cos - x * sin]
        };
        let excess = |along: f64| turned(along)[0] - along;
        let at = |k: usize| low + (high - low) * k as f64 / PARTS as f64;
        let values: Vec<f64> = (0..=PARTS).map(|k| excess(at(k))).collect();
        for k in (0..PARTS).filter(|&k| (values[k] > 0.0) != (values[k + 1] > 0.0)) {
            let along = bisect(excess, at(k), at(k + 1));
            let across = turned(along)[1];
            let log = -0.5 * (((along - 1.0) / 0.3).powi(2) + (across / 0.1).powi(2));
            sum += log.exp() / (TAU * 0.3 * 0.1) / (1.0 - 0.25 * along.exp() * across).abs();
        }
    }
    // Five arms of equal weight; the scale by two stretches areas by four.
    sum / 20.0
}

fn bisect(f: impl Fn(f64) -> f64, mut low: f64, mut high: f64) -> f64 {
    let rises = f(high) > 0.0;
    for _ in 0..50 {
        let middle = 0.5 * (low + high);
        if (f(middle) > 0.0) == rises { high = middle } else { low = middle }
    }
    0.5 * (low + high)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Midpoints of a grid over `[-5, 5]²` and the area that each stands for.
    fn grid(side: usize) -> (Vec<[f64; 2]>, f64) {
        let at = |i: usize| 10.0 * ((i as f64 + 0.5) / side as f64 - 0.5);
        let points = (0..side * side).map(|k| [at(k % side), at(k / side)]).collect();
        (points, 100.0 / (side * side) as f64)
    }

    #[test]
    fn densities_add_up_to_one_and_have_the_stated_entropies() {
        for toy in Toy::ALL {
            // The thin rings need a fine grid.
            let (points, area) = grid(if toy == Toy::Rings { 200 } else { 120 });
            let logs = toy.log_density(&points);
            let total: f64 = logs.iter().map(|l| l.exp() * area).sum();
            assert!((total - 1.0).abs() < 2e-3, "{}: ∫ p = {total}", toy.name());
            let entropy: f64 = -logs.iter().filter(|l| l.is_finite()).map(|l| l.exp() * l * area).sum::<f64>();
            assert!((entropy - toy.entropy()).abs() < 5e-3, "{}: {entropy}", toy.name());
        }
    }

    /// The mean of `-ln p` over samples is the entropy if samples and density are of the same toy.
    #[test]
    fn samples_come_from_the_densities() {
        for toy in Toy::ALL {
            let n = 3000;
            let points = toy.sample(n, &mut FlowRng::named(1, toy.name()));
            let logs = toy.log_density(&points);
            let mean = -logs.iter().sum::<f64>() / n as f64;
            let variance = logs.iter().map(|l| (l + mean).powi(2)).sum::<f64>() / n as f64;
            let error = (variance / n as f64).sqrt();
            assert!((mean - toy.entropy()).abs() < 4.0 * error + 1e-3, "{}: {mean} ± {error}", toy.name());
        }
    }
}
