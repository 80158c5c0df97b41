//! A mixture of diagonal Gaussians with everything learned.

use candle_core::{Device, Tensor};

use crate::bijector::check_batch_as;
use crate::distribution::{Distribution, HALF_LN_2PI, batched, check_temperature};
use crate::numerics::host;
use crate::numerics::softmax::{log_softmax, log_sum_exp};
use crate::param::{Init, Param, ParamPath};
use crate::{Error, FlowRng, Result};

/// `p(z) = Σ_k w_k N(z; μ_k, diag σ_k²)` with `w = softmax(logits)`.
///
/// A base density with several modes spares the bijector the tearing apart of one blob. Means start
/// at random, because components that start alike stay alike.
///
/// # Shapes
/// - `z`: `(B, event…)`; parameters `logits (K,)`, `means` and `log_stds` `(K, D)`.
#[derive(Debug, Clone)]
pub struct GaussianMixture {
    shape: Vec<usize>,
    logits: Param,
    means: Param,
    log_stds: Param,
}

impl GaussianMixture {
    /// `components` Gaussians over events of `shape`, with means drawn from `N(0, spread²)`, unit
    /// deviations and equal weights; parameters `logits`, `means` and `log_stds` under `path`.
    ///
    /// # Errors
    /// [`Error::Config`] for no component, or when a name is taken.
    pub fn new(path: &ParamPath, shape: &[usize], components: usize, spread: f64) -> Result<Self> {
        if components == 0 {
            return Err(Error::config("gaussian mixture", "needs at least one component"));
        }
        let size: usize = shape.iter().product();
        Ok(GaussianMixture {
            shape: shape.to_vec(),
            logits: path.param("logits", components, Init::Const(0.0))?,
            means: path.param("means", (components, size), Init::Normal(spread))?,
            log_stds: path.param("log_stds", (components, size), Init::Const(0.0))?,
        })
    }

    /// The number of components.
    pub fn components(&self) -> usize {
        self.logits.var().elem_count()
    }

    /// `ln w_k + ln N(z; μ_k, σ_k)` of every component, `(B, K)`.
    fn joint(&self, z: &Tensor) -> Result<Tensor> {
        let rows = z.flatten_from(1)?.unsqueeze(1)?;
        let log_stds = self.log_stds.tensor();
        let noise = rows.broadcast_sub(&self.means.tensor())?.broadcast_mul(&log_stds.neg()?.exp()?)?;
        let quadratic = noise.sqr()?.affine(-0.5, -HALF_LN_2PI)?;
        let normal = quadratic.broadcast_sub(&log_stds)?.sum(2)?;
        Ok(normal.broadcast_add(&log_softmax(&self.logits.tensor(), 0)?)?)
    }

    /// The posterior `p(k | z)`, `(B, K)`: which component a latent belongs to.
    ///
    /// # Errors
    /// [`Error::Shape`] when `z` does not fit.
    pub fn responsibilities(&self, z: &Tensor) -> Result<Tensor> {
        check_batch_as("gaussian mixture", z, &self.shape, self.means.dtype())?;
        let joint = self.joint(z)?;
        Ok(joint.broadcast_sub(&log_sum_exp(&joint, 1)?)?.exp()?)
    }

    /// `n` component indices drawn from the weights.
    fn choose(&self, n: usize, rng: &mut FlowRng) -> Result<Vec<u32>> {
        let weights = log_softmax(&self.logits.var().as_detached_tensor(), 0)?.exp()?;
        let weights = host::numbers(&weights)?;
        let last = weights.len().saturating_sub(1);
        let draw = |_| {
            let mut rest = rng.next_uniform();
            // The last component takes what rounding leaves over.
            let found = weights.iter().position(|w| {
                rest -= w;
                rest < 0.0
            });
            found.unwrap_or(last) as u32
        };
        Ok((0..n).map(draw).collect())
    }
}

impl Distribution for GaussianMixture {
    fn name(&self) -> String {
        format!("mixture of {} gaussians", self.components())
    }
    fn event_shape(&self) -> &[usize] {
        &self.shape
    }
    fn log_prob(&self, z: &Tensor, _context: Option<&Tensor>) -> Result<Tensor> {
        check_batch_as("gaussian mixture", z, &self.shape, self.means.dtype())?;
        Ok(log_sum_exp(&self.joint(z)?, 1)?.squeeze(1)?)
    }
    /// The component is drawn by inverting the CDF of the weights. The temperature multiplies the
    /// deviation within each component; weights and means stay, so that 0 gives the modes.
    fn sample(&self, n: usize, _context: Option<&Tensor>, temperature: f64, rng: &mut FlowRng) -> Result<Tensor> {
        check_temperature(&self.name(), temperature)?;
        let (means, log_stds) = (self.means.tensor(), self.log_stds.tensor());
        let chosen = Tensor::from_vec(self.choose(n, rng)?, n, &Device::Cpu)?.to_device(means.device())?;
        let noise = rng.normal((n, means.dim(1)?), means.dtype(), means.device())?;
        let scale = log_stds.index_select(&chosen, 0)?.exp()?.affine(temperature, 0.0)?;
        let rows = ((noise * scale)? + means.index_select(&chosen, 0)?)?;
        Ok(rows.reshape(batched(n, &self.shape))?)
    }
}

#[cfg(test)]
mod tests {
    use candle_core::DType;

    use super::*;
    use crate::ParamStore;
    use crate::testing::distribution as check;

    fn example() -> (ParamStore, GaussianMixture) {
        let store = ParamStore::new(3, DType::F64, &Device::Cpu);
        let d = GaussianMixture::new(&store.root(), &[1], 3, 1.0).unwrap();
        let set = |name: &str, values: &[f64], column: bool| {
            let t = Tensor::new(values, &Device::Cpu).unwrap();
            let t = if column { t.unsqueeze(1).unwrap() } else { t };
            store.get(name).unwrap().set(&t).unwrap();
        };
        set("logits", &[0.2, -0.5, 0.9], false);
        set("means", &[-2.0, 0.5, 3.0], true);
        set("log_stds", &[-0.3, 0.2, -1.0], true);
        (store, d)
    }

    #[test]
    fn is_a_density_with_its_moments_and_gradients() {
        let (store, d) = example();
        check::integrates_to_one(&d, [-20.0, 20.0]);
        let weights: Vec<f64> = [0.2_f64, -0.5, 0.9].iter().map(|l| l.exp()).collect();
        let total: f64 = weights.iter().sum();
        let parts = weights.iter().zip([-2.0_f64, 0.5, 3.0]).zip([-0.3_f64, 0.2, -1.0]);
        let (mut mean, mut second) = (0.0, 0.0);
        for ((w, m), l) in parts {
            mean += w / total * m;
            second += w / total * (m * m + (2.0 * l).exp());
        }
        check::moments(&d, 1.0, &[mean], (second - mean * mean).sqrt());
        check::gradients(&d, &store, &[-2.5, 0.0, 1.3, 6.0]);
    }

    #[test]
    fn equal_components_share_the_gradient() {
        let store = ParamStore::new(3, DType::F64, &Device::Cpu);
        let d = GaussianMixture::new(&store.root(), &[1], 2, 0.0).unwrap();
        check::gradients(&d, &store, &[-1.0, 0.0, 2.0]);
    }

    #[test]
    fn at_temperature_zero_only_the_means_are_left() {
        let (_, d) = example();
        let z = d.sample(200, None, 0.0, &mut FlowRng::seed_from(1)).unwrap().flatten_all().unwrap();
        let z = z.to_vec1::<f64>().unwrap();
        assert!(z.iter().all(|v| [-2.0, 0.5, 3.0].contains(v)));
        assert!([-2.0, 0.5, 3.0].iter().all(|m| z.contains(m)));
    }

    #[test]
    fn responsibilities_add_up_and_pick_the_near_component() {
        let (_, d) = example();
        let r = d.responsibilities(&Tensor::new(&[[3.0_f64], [-4.0]], &Device::Cpu).unwrap()).unwrap();
        let r = r.to_vec2::<f64>().unwrap();
        assert!(r.iter().all(|row| (row.iter().sum::<f64>() - 1.0).abs() < 1e-12));
        assert!(r[0][2] > 0.9 && r[1][0] > 0.9);
    }

    #[test]
    fn far_away_it_is_finite() {
        let (_, d) = example();
        let log = d.log_prob(&Tensor::new(&[[1e3_f64], [-1e3]], &Device::Cpu).unwrap(), None).unwrap();
        assert!(log.to_vec1::<f64>().unwrap().iter().all(|v| v.is_finite()));
    }
}
