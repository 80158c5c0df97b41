//! Where a density lies, before a flow is fitted to it.

use candle_core::{DType, Device, Tensor, Var};
use flow_core::autodiff::gradient_or_zero;
use flow_core::numerics::host;
use flow_core::{Bijector, FlowRng, ParamStore};

use super::constrained::{Constraint, domain};
use super::target::LogDensityResult;
use crate::{Error, Result};

/// Draws of a step, the same in all of them.
const DRAWS: usize = 128;
/// Steps.
const STEPS: usize = 400;
/// Draws by which parameters are described.
const SHOWN: usize = 4096;
/// In so many last steps the divergence may fall by no more than this, in nats, where a place was found.
const LATE: usize = 100;
const SETTLED: f64 = 1.0;
/// How a step grows while the sign of its derivative stays, and shrinks when it turns (Riedmiller & Braun 1993).
const GROW: f64 = 1.2;
const SHRINK: f64 = 0.5;
/// The largest change of the logarithm of a deviation in a step.
const MOST: f64 = 1.0;
/// Means and deviations beyond this belong to no density; their squares are far from the end of f32.
const ENDLESS: f64 = 1e15;
/// A mean or a deviation is of order one between these.
const NEAR: f64 = 2.0;
const DEVIATIONS: std::ops::RangeInclusive<f64> = 0.2..=5.0;

/// Where a density lies and how wide it is in each real coordinate, those that [`Constraint::bijector`] makes of the
/// parameters: the normal of independent coordinates that is nearest to it by `KL(q‖p)`.
///
/// A flow begins at zero with deviation one, and moves by no more than the learning rate in a step: what lies at 10, or is as
/// narrow as 0.01, is out of its reach, and importance weights cannot tell, because they know no more than the flow reaches.
/// [`Location::draws`] are what the first layer of a flow of [`constrained`](super::constrained) takes its shift and scale
/// from ([`flow_core::Density::initialize`]); [`VariationalTask::locate`](super::VariationalTask::locate) does both.
///
/// The objective is that of mean-field variational inference with the noise held (Giordano et al. 2018, arXiv 1703.04265,
/// section 2: a deterministic function), made small by steps of the sign of its derivative, which grow while that stays
/// (Riedmiller & Braun 1993): a place 10⁶ deviations away is reached as well as a near one.
#[derive(Debug, Clone, PartialEq)]
pub struct Location {
    /// The mean of each real coordinate.
    pub mean: Vec<f64>,
    /// The deviation of each real coordinate.
    pub deviation: Vec<f64>,
    constraints: Vec<Constraint>,
}

impl Location {
    /// Looks for a density of parameters with these domains; `None` where there is nothing to be found: it is no number at the
    /// start, or goes on growing, or widening, without end, as one without an integral does. Draws are numbers of the type and on the device of `store`, that of the
    /// flow to be fitted; `log_density` is that of [`fit_reverse_kl`](super::fit_reverse_kl).
    ///
    /// # Errors
    /// [`Error::LogDensity`] for a density that fails or returns another shape; [`flow_core::Error::Config`] for numbers that
    /// make no domain.
    pub fn find(
        constraints: &[Constraint],
        log_density: impl Fn(&Tensor) -> LogDensityResult,
        store: &ParamStore,
        rng: &mut FlowRng,
    ) -> Result<Option<Self>> {
        let domain = domain(constraints)?;
        let features = domain.latent_shape().iter().product();
        let noise = opposites(DRAWS, features, rng)?.to_dtype(store.dtype())?.to_device(store.device())?;
        let objective = MeanField { domain: &domain, log_density, noise };
        let Some((mean, logs)) = objective.minimise(features)? else { return Ok(None) };
        let deviation: Vec<f64> = logs.iter().map(|l| l.exp()).collect();
        // In single precision the divergence stops falling where the numbers end, which is no place either.
        let ends = mean.iter().chain(&deviation).all(|value| value.abs() <= ENDLESS);
        Ok(ends.then(|| Location { mean, deviation, constraints: constraints.to_vec() }))
    }

    /// Whether every coordinate is of order one: mean within ±2, deviation from 0.2 to 5. A flow reaches such a density from
    /// where it begins, and begins wide enough to see several modes.
    pub fn is_of_order_one(&self) -> bool {
        self.mean.iter().all(|m| m.abs() <= NEAR) && self.deviation.iter().all(|s| DEVIATIONS.contains(s))
    }

    /// Mean and deviation of each parameter in its domain, by draws of the normal.
    ///
    /// # Errors
    /// A failure of the device.
    pub fn parameters(&self) -> Result<Vec<(f64, f64)>> {
        let store = ParamStore::new(0, DType::F64, &Device::Cpu);
        let draws = self.draws(SHOWN, &store, &mut FlowRng::named(0, "location"))?.t()?.to_vec2::<f64>()?;
        let moments = |column: &Vec<f64>| {
            let n = column.len() as f64;
            let mean = column.iter().sum::<f64>() / n;
            (mean, (column.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / n).sqrt())
        };
        Ok(draws.iter().map(moments).collect())
    }

    /// `count` draws of the normal as parameters in their domains, `(count, D)`, whose real coordinates have exactly the
    /// mean and the deviation that were found.
    ///
    /// # Errors
    /// [`flow_core::Error::Config`] for fewer than four draws; a failure of the device.
    pub fn draws(&self, count: usize, store: &ParamStore, rng: &mut FlowRng) -> Result<Tensor> {
        if count < 4 {
            return Err(Error::config("draws of a location", format!("must be at least 4, got {count}")));
        }
        let noise = opposites(count, self.mean.len(), rng)?;
        let noise = noise.broadcast_div(&noise.sqr()?.mean_keepdim(0)?.sqrt()?)?;
        let y = noise.broadcast_mul(&row(&self.deviation, &noise)?)?.broadcast_add(&row(&self.mean, &noise)?)?;
        let x = domain(&self.constraints)?.decode(&y, None)?.0;
        Ok(x.to_dtype(store.dtype())?.to_device(store.device())?)
    }
}

/// Numbers as a row beside `like`.
fn row(values: &[f64], like: &Tensor) -> Result<Tensor> {
    Ok(Tensor::new(values, &Device::Cpu)?.to_dtype(like.dtype())?.to_device(like.device())?.unsqueeze(0)?)
}

/// Standard normal draws, an even number of them, every one beside its opposite: their mean is zero.
fn opposites(count: usize, features: usize, rng: &mut FlowRng) -> Result<Tensor> {
    let half = rng.normal((count / 2, features), DType::F64, &Device::Cpu)?;
    Ok(Tensor::cat(&[&half, &half.neg()?], 0)?)
}

/// `KL(q‖p)` of a normal with independent coordinates, up to a constant, as a function of its means and the logarithms of its
/// deviations.
struct MeanField<'a, B, F> {
    domain: &'a B,
    log_density: F,
    noise: Tensor,
}

/// A value with its derivatives.
struct Slope {
    value: f64,
    /// By each mean, then by the logarithm of each deviation.
    by: Vec<f64>,
}

impl<B: Bijector, F: Fn(&Tensor) -> LogDensityResult> MeanField<'_, B, F> {
    /// `-mean ln p(T(m + s·ε)) - ln |det T'| - Σ ln s`; `None` where it is no number.
    fn slope(&self, at: &[f64]) -> Result<Option<Slope>> {
        let (mean, logs) = at.split_at(at.len() / 2);
        let (mean, logs) = (Var::from_tensor(&row(mean, &self.noise)?)?, Var::from_tensor(&row(logs, &self.noise)?)?);
        let scaled = self.noise.broadcast_mul(&logs.as_tensor().exp()?)?;
        let y = scaled.broadcast_add(mean.as_tensor())?;
        let (x, log_det) = self.domain.decode(&y, None)?;
        let log_p =
            (self.log_density)(&x).map_err(|e| Error::log_density(format!("failed: {e}"), "ln p of each sample"))?;
        if log_p.dims() != log_det.dims() {
            let found = format!("returned the shape {:?} for {} samples", log_p.dims(), self.noise.dim(0)?);
            return Err(Error::log_density(found, "one number for each sample; sum over the entries"));
        }
        let loss = ((log_p + log_det)?.mean(0)?.neg()? - logs.as_tensor().sum_all()?)?;
        let value = host::sum(&loss)?;
        if !value.is_finite() {
            return Ok(None);
        }
        let store = loss.backward()?;
        let mut by = Vec::with_capacity(at.len());
        for variable in [&mean, &logs] {
            by.extend(
                gradient_or_zero(&store, variable.as_tensor())?
                    .flatten_all()?
                    .to_dtype(DType::F64)?
                    .to_vec1::<f64>()?,
            );
        }
        Ok(by.iter().all(|g| g.is_finite()).then_some(Slope { value, by }))
    }

    /// Means and logarithms of deviations where the divergence is least, of the places visited; `None` if there is no such place.
    fn minimise(&self, features: usize) -> Result<Option<(Vec<f64>, Vec<f64>)>> {
        let start = vec![0.0; 2 * features];
        let Some(mut slope) = self.slope(&start)? else { return Ok(None) };
        let (mut best, mut least) = (start.clone(), slope.value);
        let (mut at, mut steps) = (start, vec![0.1; 2 * features]);
        let mut late = least;
        for done in 0..STEPS {
            if done == STEPS - LATE {
                late = least;
            }
            let moved: Vec<f64> = at.iter().zip(&steps).zip(&slope.by).map(|((a, s), g)| a - s * sign(*g)).collect();
            let Some(next) = self.slope(&moved)? else {
                // Beyond what the density can say: from here again, more carefully.
                steps.iter_mut().for_each(|s| *s *= SHRINK);
                continue;
            };
            for (index, (step, (was, is))) in steps.iter_mut().zip(slope.by.iter().zip(&next.by)).enumerate() {
                let turned = was * is;
                *step *= if turned > 0.0 {
                    GROW
                } else if turned < 0.0 {
                    SHRINK
                } else {
                    1.0
                };
                if index >= features {
                    *step = step.min(MOST);
                }
            }
            (at, slope) = (moved, next);
            if slope.value < least {
                (best, least) = (at.clone(), slope.value);
            }
        }
        if late - least > SETTLED {
            return Ok(None);
        }
        let logs = best.split_off(features);
        Ok(Some((best, logs)))
    }
}

/// The sign, zero of zero.
fn sign(x: f64) -> f64 {
    if x == 0.0 { 0.0 } else { x.signum() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::variational::Problem;

    fn store() -> ParamStore {
        ParamStore::new(0, DType::F64, &Device::Cpu)
    }

    fn find(problem: Problem) -> Location {
        let log_density = |x: &Tensor| problem.log_density(x);
        Location::find(&problem.constraints(), log_density, &store(), &mut FlowRng::seed_from(1)).unwrap().unwrap()
    }

    /// Of a normal the nearest one with independent coordinates has its means, and deviations `1/√Λ_ii`.
    #[test]
    fn a_normal_is_found_wherever_it_lies() {
        let far = [(0.0, 1.0), (10.0, 5.0), (2026.0, 0.5), (-5e6, 0.5), (1e-3, 1e-4), (3e4, 1e6)];
        let (means, deviations): (Vec<f64>, Vec<f64>) = far.into_iter().unzip();
        let log_density = |x: &Tensor| {
            let wide = |v: &[f64]| Tensor::new(v, &Device::Cpu)?.unsqueeze(0);
            x.broadcast_sub(&wide(&means)?)?.broadcast_div(&wide(&deviations)?)?.sqr()?.sum(1)? * -0.5
        };
        let parts = [Constraint::Real(far.len())];
        let found = Location::find(&parts, log_density, &store(), &mut FlowRng::seed_from(3)).unwrap().unwrap();
        for (i, (mean, deviation)) in far.into_iter().enumerate() {
            let (m, s) = (found.mean[i], found.deviation[i]);
            assert!((m - mean).abs() < 0.3 * deviation, "{i}: mean {m} of {mean}");
            assert!((s / deviation).ln().abs() < 0.4, "{i}: deviation {s} of {deviation}");
        }
        assert!(!found.is_of_order_one());
    }

    #[test]
    fn known_problems_are_found() {
        let animals = find(Problem::Bioassay);
        assert!((animals.mean[1] - Problem::Bioassay.known_mean().unwrap().1).abs() < 2.0, "{animals:?}");
        assert!(animals.deviation[1] > 1.5 && !animals.is_of_order_one(), "{animals:?}");
        assert!(find(Problem::Banana).is_of_order_one());
        let many = find(Problem::Gaussian);
        assert!(many.mean.iter().zip(&many.deviation).all(|(m, s)| (m - 1.0).abs() < 0.5 * s), "{many:?}");
    }

    #[test]
    fn what_has_no_integral_has_no_place() {
        let found = |log_density: fn(&Tensor) -> LogDensityResult| {
            Location::find(&[Constraint::Real(2)], log_density, &store(), &mut FlowRng::seed_from(1)).unwrap()
        };
        assert_eq!(found(|x| x.sqr()?.sum(1)), None);
        assert_eq!(found(|x| x.narrow(1, 0, 1)?.sqr()?.neg()?.sum(1)), None);
        assert_eq!(found(|x| (x.log()? - x)?.sum(1)), None);
    }

    #[test]
    fn draws_have_the_moments_and_keep_to_their_domains() {
        let parts = [Constraint::Positive(1), Constraint::Interval { count: 1, low: 0.0, high: 1.0 }];
        let location = Location { mean: vec![40.0, -3.0], deviation: vec![2.0, 0.1], constraints: parts.to_vec() };
        let x = location.draws(64, &store(), &mut FlowRng::seed_from(1)).unwrap();
        let rows = x.to_vec2::<f64>().unwrap();
        assert!(rows.iter().all(|r| r[0] > 0.0 && r[1] > 0.0 && r[1] < 1.0));
        let mean = rows.iter().map(|r| r[0]).sum::<f64>() / 64.0;
        assert!((mean - 40.0).abs() < 0.01, "{mean}");
        assert!(location.draws(3, &store(), &mut FlowRng::seed_from(1)).is_err());
    }
}
