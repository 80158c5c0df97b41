//! The flow of a vector field as a bijector.

mod bijector;

use std::sync::{Mutex, MutexGuard, PoisonError};

use candle_core::Tensor;

use super::direct::Record;
use super::dynamics::{Channels, Dynamics, End};
use super::ode::{self, RowStep, RowTimes, SolveOptions, Statistics, Step};
use super::{CnfConfig, Divergence, EndTime, Probe, Regularization, VectorField, groups};
use crate::bijector::{check_batch_as, zero_log_det};
use crate::error::Direction;
use crate::numerics::host;
use crate::param::{Init, Param, ParamPath, ParamStore};
use crate::{Error, FlowRng, Result};

/// A continuous normalizing flow: `z = x(T)` where `dx/dt = f(t, x; c)` and `x(0)` is the data.
///
/// `log |det ∂z/∂x| = ∫ tr ∂f/∂x dt` along the way (Chen et al. 2018, theorem 1; Grathwohl et al. 2019). Encoding
/// runs from 0 to `T`, decoding from `T` to 0.
///
/// # Shapes
/// - event `(D,)`; a context is `(G, C)`, where `G` divides the batch `B`: each row serves `B/G` consecutive rows of
///   `x`. A gradient with respect to the context has the context's shape.
///
/// # Gradients
/// With tracking on, `encode` and `decode` build one graph over all steps. [`Bijector::backprop`](crate::Bijector::backprop)
/// does what [`OdeGradient`](super::OdeGradient) says; both are the gradients of the same discrete map, whose steps are held fixed.
///
/// # Randomness
/// Hutchinson's probe is a function of the generator given to [`Bijector::set_noise`](crate::Bijector::set_noise) and of the shape of the batch,
/// so that encoding, decoding and back-propagation of one batch share it. Without that call it never changes: call it
/// once per training step.
pub struct Cnf<F> {
    field: F,
    name: String,
    event: [usize; 1],
    context: Option<[usize; 1]>,
    config: CnfConfig,
    end: Option<Param>,
    store: ParamStore,
    noise: Mutex<FlowRng>,
    statistics: Mutex<LastSolves>,
}

/// What the last solves cost.
#[derive(Default)]
struct LastSolves {
    forward: Vec<Statistics>,
    adjoint: Statistics,
}

/// The penalties of [`Regularization`] for each sample, `(B,)`, without their weights.
#[derive(Debug, Clone)]
pub struct Penalties {
    /// `∫ |f|²/D dt`.
    pub kinetic: Tensor,
    /// `∫ |∂f/∂x|²/D dt`.
    pub jacobian: Tensor,
}

impl<F: VectorField> Cnf<F> {
    /// The flow of `field`; a learned end time adds the parameter `sqrt_end_time` under `path`.
    ///
    /// # Errors
    /// [`Error::Config`] for an end time that is not positive, or a negative penalty.
    pub fn new(path: &ParamPath, field: F, config: CnfConfig) -> Result<Self> {
        let name = format!("cnf({})", field.name());
        config.check(&name)?;
        let end = match config.end_time {
            EndTime::Fixed(_) => None,
            EndTime::Learned { initial } => Some(path.param("sqrt_end_time", 1, Init::Const(initial.sqrt()))?),
        };
        Ok(Cnf {
            event: [field.dim()],
            context: field.context_dim().map(|c| [c]),
            field,
            // Not of the store's seed: a model that is given another's parameters gives the same bits.
            noise: Mutex::new(FlowRng::named(0, &format!("{} {name}", path.prefix()))),
            name,
            config,
            end,
            store: path.store().clone(),
            statistics: Mutex::default(),
        })
    }

    /// The field.
    pub fn field(&self) -> &F {
        &self.field
    }

    /// The configuration.
    pub fn config(&self) -> &CnfConfig {
        &self.config
    }

    /// `T`.
    ///
    /// # Errors
    /// A failure of the device.
    pub fn end_time(&self) -> Result<f64> {
        Ok(match (&self.end, self.config.end_time) {
            (Some(root), _) => host::sum(root.var())?.powi(2),
            (None, EndTime::Fixed(end) | EndTime::Learned { initial: end }) => end,
        })
    }

    /// What the last encode or decode cost; of steps per group, the group with the most evaluations.
    pub fn statistics(&self) -> Statistics {
        let last = lock(&self.statistics);
        last.forward.iter().max_by_key(|s| s.evaluations).cloned().unwrap_or_default()
    }

    /// What the last encode or decode cost, for each group, or once if all rows shared their steps.
    pub fn group_statistics(&self) -> Vec<Statistics> {
        lock(&self.statistics).forward.clone()
    }

    /// What the last backward solve of [`OdeGradient::Adjoint`](super::OdeGradient::Adjoint) cost.
    pub fn adjoint_statistics(&self) -> Statistics {
        lock(&self.statistics).adjoint
    }

    /// The penalties of encoding `x`, tracked unless tracking is paused; whatever their weights.
    ///
    /// # Errors
    /// As [`Bijector::encode`](crate::Bijector::encode).
    pub fn penalties(&self, x: &Tensor, context: Option<&Tensor>) -> Result<Penalties> {
        let dynamics = self.dynamics(x, context, Channels { kinetic: true, jacobian: true }, None)?;
        let state = self.solve(&dynamics, x, Direction::Encode, None)?;
        let [_, _, kinetic, jacobian] = state.as_slice() else { return Err(self.broken_state()) };
        Ok(Penalties { kinetic: kinetic.flatten_all()?, jacobian: jacobian.flatten_all()? })
    }

    /// Where `x`, `(B, D)`, is at each of `times`: a picture of the flow.
    ///
    /// Encoding starts with `x` at time 0, decoding at `T`; `times` lie in `[0, T]`, ascending or descending like the
    /// direction. All rows share their steps.
    ///
    /// # Errors
    /// [`Error::Config`] for times out of order or range, else as [`Bijector::encode`](crate::Bijector::encode).
    pub fn trajectory(
        &self,
        x: &Tensor,
        times: &[f64],
        direction: Direction,
        context: Option<&Tensor>,
    ) -> Result<Vec<Tensor>> {
        let dynamics = self.dynamics(x, context, self.channels(), None)?;
        let end = dynamics.end.value;
        let (from, sign) = if direction == Direction::Encode { (0.0, 1.0) } else { (end, -1.0) };
        let ordered = times.windows(2).all(|pair| (pair[1] - pair[0]) * sign > 0.0);
        if !ordered || times.iter().any(|t| !(0.0..=end).contains(t)) {
            let reason = format!("{times:?} do not run through [0, {end}] in the order of {direction}");
            return Err(Error::config(format!("{} times", self.name), reason));
        }
        let Some(&first) = times.first() else { return Ok(Vec::new()) };
        let prepend = usize::from(first != from);
        let scaled: Vec<f64> = [from].iter().take(prepend).chain(times).map(|t| t / end).collect();
        if scaled.len() == 1 {
            return Ok(vec![x.clone()]);
        }
        let mut rates = |s: f64, x: &Tensor| dynamics.value(&[s], x);
        let (states, statistics) = ode::solve_at(&mut rates, x, &scaled, &self.options(end))?;
        lock(&self.statistics).forward = vec![statistics];
        Ok(states.into_iter().skip(prepend).collect())
    }

    /// The penalties that have a weight.
    fn channels(&self) -> Channels {
        let Regularization { kinetic, jacobian } = self.config.regularization;
        Channels { kinetic: kinetic != 0.0, jacobian: jacobian != 0.0 }
    }

    /// Checks the arguments and gathers what stays the same over a solve; a probe is drawn unless one is given.
    fn dynamics(
        &self,
        x: &Tensor,
        context: Option<&Tensor>,
        channels: Channels,
        probe: Option<&Tensor>,
    ) -> Result<Dynamics<'_, F>> {
        let batch = check_batch_as(&self.name, x, &self.event, self.store.dtype())?;
        let context = match (self.context, context) {
            (None, _) => None,
            (Some(shape), Some(context)) => {
                let name = format!("{} (context)", self.name);
                let count = check_batch_as(&name, context, &shape, self.store.dtype())?;
                groups(&self.name, batch, count)?;
                Some(context.clone())
            }
            (Some([width]), None) => {
                let reason = format!("needs a context of shape (G, {width}), none was given");
                return Err(Error::Context { layer: self.name.clone(), reason });
            }
        };
        let rows = match (self.config.per_group_steps, &context) {
            (false, _) => 1,
            (true, Some(context)) => context.dim(0)?,
            (true, None) => batch,
        };
        let tangents = match (self.config.divergence, probe) {
            (Divergence::Exact, _) => unit_vectors(x)?,
            (Divergence::Hutchinson(_), Some(probe)) => vec![probe.clone()],
            (Divergence::Hutchinson(kind), None) => vec![self.probe(kind, x)?],
        };
        let learned = self.end.as_ref().map(|root| root.tensor().sqr()).transpose()?;
        let end = End { value: self.end_time()?, learned };
        let jumps = self.options(end.value).jump_times;
        Ok(Dynamics { field: &self.field, tangents, context, end, jumps, channels, rows })
    }

    /// The random vectors of this batch shape under the current noise, `(B, D)`.
    fn probe(&self, kind: Probe, x: &Tensor) -> Result<Tensor> {
        let mut rng = lock(&self.noise).clone();
        match kind {
            Probe::Gaussian => rng.normal(x.shape(), x.dtype(), x.device()),
            Probe::Rademacher => {
                let uniform = rng.uniform(x.shape(), x.dtype(), x.device())?;
                Ok(uniform.ge(0.5)?.to_dtype(x.dtype())?.affine(2.0, -1.0)?)
            }
        }
    }

    /// The solver's options in scaled time.
    fn options(&self, end: f64) -> SolveOptions {
        self.config.solver.scaled(1.0 / end)
    }

    /// Solves from one end to the other and keeps the accepted steps if `records` is given.
    fn solve(
        &self,
        dynamics: &Dynamics<'_, F>,
        x: &Tensor,
        direction: Direction,
        records: Option<&mut Vec<Record>>,
    ) -> Result<Vec<Tensor>> {
        let span = if direction == Direction::Encode { [0.0, 1.0] } else { [1.0, 0.0] };
        let (start, options) = (dynamics.start(&x.contiguous()?)?, self.options(dynamics.end.value));
        let mut records = records;
        let mut keep = |record: &dyn Fn() -> Result<Record>| {
            records.as_mut().map_or(Ok(()), |records| record().map(|record| records.push(record)))
        };
        let (state, statistics) = if self.config.per_group_steps {
            let mut rates = |at: &RowTimes<'_>, state: &Vec<Tensor>| dynamics.select(at.rows)?.state_rates(at.t, state);
            let mut record = |step: RowStep<'_, Vec<Tensor>>| keep(&|| Record::of_rows(&step));
            let solution = ode::solve_rows_recorded(&mut rates, &start, span, &options, &mut record)?;
            (solution.y, solution.statistics)
        } else {
            let mut rates = |s: f64, state: &Vec<Tensor>| dynamics.state_rates(&[s], state);
            let mut record = |step: Step<'_, Vec<Tensor>>| keep(&|| Record::of(&step));
            let solution = ode::solve_recorded(&mut rates, &start, span, &options, &mut record)?;
            (solution.y, vec![solution.statistics])
        };
        lock(&self.statistics).forward = statistics;
        Ok(state)
    }

    /// The value and the log-determinant at the end of a solve, the latter with the penalties' gradient.
    fn finish(&self, state: &[Tensor], direction: Direction) -> Result<(Tensor, Tensor)> {
        let [x, log_det, penalties @ ..] = state else { return Err(self.broken_state()) };
        let mut log_det = log_det.flatten_all()?;
        if self.store.tracking() {
            let Regularization { kinetic, jacobian } = self.config.regularization;
            let weights = [kinetic, jacobian].into_iter().filter(|w| *w != 0.0);
            // Backward in time their integrals come out negative.
            let sign = if direction == Direction::Encode { 1.0 } else { -1.0 };
            for (integral, weight) in penalties.iter().zip(weights) {
                let penalty = integral.flatten_all()?.affine(sign * weight, 0.0)?;
                // Zero with the gradient of minus the penalty.
                log_det = (log_det + (penalty.detach() - &penalty)?)?;
            }
        }
        Ok((x.reshape(((), self.event[0]))?, log_det))
    }

    /// Whether `x` has no rows: then there is nothing to solve, and no error that a step could be measured by.
    fn is_empty(&self, x: &Tensor) -> Result<bool> {
        Ok(check_batch_as(&self.name, x, &self.event, self.store.dtype())? == 0)
    }

    fn transport(&self, x: &Tensor, context: Option<&Tensor>, direction: Direction) -> Result<(Tensor, Tensor)> {
        if self.is_empty(x)? {
            return Ok((x.clone(), zero_log_det(x)?));
        }
        let dynamics = self.dynamics(x, context, self.channels(), None)?;
        self.finish(&self.solve(&dynamics, x, direction, None)?, direction)
    }

    fn broken_state(&self) -> Error {
        Error::config(&self.name, "the solver returned a state of another shape")
    }
}

/// The `D` unit vectors, each for all rows of `x`.
fn unit_vectors(x: &Tensor) -> Result<Vec<Tensor>> {
    let identity = Tensor::eye(x.dim(1)?, x.dtype(), x.device())?;
    (0..x.dim(1)?).map(|k| Ok(identity.narrow(0, k, 1)?.broadcast_as(x.shape())?.contiguous()?)).collect()
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Values are replaced whole, so a panic elsewhere cannot leave them half-written.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
