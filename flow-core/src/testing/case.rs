//! A bijector under test: how to build it, and what it takes.

use candle_core::{DType, Device, Tensor};

use super::{Check, Tolerance};
use crate::error::Direction;
use crate::{Bijector, FlowRng, ParamPath, ParamStore, Result};

/// Where a bijector's input or output lives.
#[derive(Debug, Clone, Copy, PartialEq)]
#[non_exhaustive]
pub enum Domain {
    /// The real line: drawn from `N(0, 1)`, extremes at zero and ±1000.
    Real,
    /// An open interval: drawn uniformly from its inner nine tenths, extremes close to its ends.
    Interval(f64, f64),
    /// For data: what latents of the real line decode to, extremes from latents of ±2. For sets that are no product of
    /// intervals.
    Decoded,
}

impl Domain {
    /// `(n, shape…)` points of the domain.
    pub fn draw(self, n: usize, shape: &[usize], dtype: DType, rng: &mut FlowRng) -> Result<Tensor> {
        let dims: Vec<usize> = std::iter::once(n).chain(shape.iter().copied()).collect();
        match self {
            Domain::Real | Domain::Decoded => rng.normal(dims, dtype, &Device::Cpu),
            Domain::Interval(low, high) => {
                let (from, width) = (low + 0.05 * (high - low), 0.9 * (high - low));
                Ok(rng.uniform(dims, dtype, &Device::Cpu)?.affine(width, from)?)
            }
        }
    }

    /// The values at which results must still be finite; `reach` is how far out on the real line.
    pub(super) fn extremes(self, reach: f64) -> [f64; 3] {
        match self {
            Domain::Real => [-reach, 0.0, reach],
            Domain::Decoded => [-DECODED, 0.0, DECODED],
            Domain::Interval(low, high) => {
                let margin = 1e-4 * (high - low);
                [low + margin, 0.5 * (low + high), high - margin]
            }
        }
    }
}

/// How far out the latents lie whose decoded values are taken for extreme data.
const DECODED: f64 = 2.0;

type Build = dyn Fn(&ParamPath) -> Result<Box<dyn Bijector>> + Send + Sync;
type Pattern = dyn Fn(usize, usize) -> bool + Send + Sync;

/// One bijector under test, with what is known about it.
pub struct Case {
    type_name: String,
    label: String,
    build: Box<Build>,
    pub(super) data: Domain,
    pub(super) latent: Domain,
    pub(super) reach: f64,
    pub(super) idle: Vec<String>,
    pub(super) decode_differentiable: bool,
    pub(super) pattern: Option<Box<Pattern>>,
    pub(super) knots: Vec<f64>,
    pub(super) far: f64,
    looser: f64,
    reasons: Vec<String>,
}

impl Case {
    /// A case of the Rust type `type_name`; `label` tells it from other cases of the same type.
    ///
    /// `build` makes the bijector with parameters under the path it is given; it is called several
    /// times with stores of different seeds and precisions.
    pub fn new(
        type_name: &str,
        label: &str,
        build: impl Fn(&ParamPath) -> Result<Box<dyn Bijector>> + Send + Sync + 'static,
    ) -> Self {
        Case {
            type_name: type_name.into(),
            label: label.into(),
            build: Box::new(build),
            data: Domain::Real,
            latent: Domain::Real,
            reach: 1e3,
            idle: Vec::new(),
            decode_differentiable: true,
            pattern: None,
            knots: Vec::new(),
            far: 1e6,
            looser: 1.0,
            reasons: Vec::new(),
        }
    }

    /// Where data and latents live; the real line by default.
    #[must_use]
    pub fn domains(mut self, data: Domain, latent: Domain) -> Self {
        (self.data, self.latent) = (data, latent);
        self
    }

    /// Multiplies all tolerances by `factor`, for a reason that is worth knowing.
    #[must_use]
    pub fn looser(mut self, factor: f64, reason: &str) -> Self {
        self.looser = factor;
        self.because(reason)
    }

    /// The largest magnitude at which results must be finite, when it is not 1000.
    #[must_use]
    pub fn reach(mut self, reach: f64, reason: &str) -> Self {
        self.reach = reach;
        self.because(reason)
    }

    /// The largest magnitude at which single precision must agree with double, when it is not 10⁶.
    #[must_use]
    pub fn far(mut self, far: f64, reason: &str) -> Self {
        self.far = far;
        self.because(reason)
    }

    /// Parameters whose names begin so need no gradient (a conditioner with nothing to transform).
    #[must_use]
    pub fn idle(mut self, prefix: &str, reason: &str) -> Self {
        self.idle.push(prefix.into());
        self.because(reason)
    }

    /// Declares which Jacobian entries of `encode` may differ from zero: `depends(i, j)` says whether
    /// output `i` may depend on input `j` (flat indices). All others are checked to be exactly zero.
    #[must_use]
    pub fn pattern(mut self, depends: impl Fn(usize, usize) -> bool + Send + Sync + 'static) -> Self {
        self.pattern = Some(Box::new(depends));
        self
    }

    /// Inputs at which the map changes its formula, as a spline does at its knots: there, and one step of the last
    /// digit to either side, values and gradients must be finite, decoding must undo encoding, and single precision must
    /// agree with double.
    #[must_use]
    pub fn knots(mut self, knots: &[f64]) -> Self {
        self.knots = knots.to_vec();
        self
    }

    /// Automatic differentiation does not go through `decode`.
    ///
    /// Better to mend the layer: [`Inverse`](crate::Inverse) trains through `decode` and would silently get
    /// wrong gradients. One Newton step in tracked operations after a detached inversion is enough.
    #[must_use]
    pub fn decode_not_differentiable(mut self, reason: &str) -> Self {
        self.decode_differentiable = false;
        self.because(reason)
    }

    /// The Rust type that the case is about.
    pub fn type_name(&self) -> &str {
        &self.type_name
    }

    /// Why the case asks for exceptions, one sentence each.
    pub fn reasons(&self) -> &[String] {
        &self.reasons
    }

    /// Builds the bijector at the root of `store`.
    pub fn build(&self, store: &ParamStore) -> Result<Box<dyn Bijector>> {
        (self.build)(&store.root())
    }

    fn because(mut self, reason: &str) -> Self {
        self.reasons.push(reason.into());
        self
    }
}

impl std::fmt::Display for Case {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}, {}", self.type_name, self.label)
    }
}

/// Which parameters a property is checked with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Parameters {
    /// As constructed.
    Initial,
    /// Moved away by noise.
    Randomised,
}

impl std::fmt::Display for Parameters {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Parameters::Initial => "initial",
            Parameters::Randomised => "randomised",
        })
    }
}

/// A bijector built for one property, with data, latents and a context that fit it.
pub(super) struct Subject<'a> {
    pub(super) case: &'a Case,
    pub(super) check: &'a Check,
    pub(super) store: ParamStore,
    pub(super) layer: Box<dyn Bijector>,
    pub(super) x: Tensor,
    pub(super) z: Tensor,
    pub(super) context: Option<Tensor>,
}

impl<'a> Subject<'a> {
    pub(super) fn build(case: &'a Case, check: &'a Check, parameters: Parameters) -> Result<Self> {
        let store = ParamStore::new(check.seed, check.dtype, &Device::Cpu);
        let layer = case.build(&store)?;
        layer.set_training(false);
        let mut rng = FlowRng::named(check.seed, "testing");
        if parameters == Parameters::Randomised {
            randomise(&store, check.noise, &mut rng)?;
        }
        let drawn = case.data.draw(check.batch, layer.event_shape(), check.dtype, &mut rng)?;
        let z = case.latent.draw(check.batch, layer.latent_shape(), check.dtype, &mut rng)?;
        let context =
            layer.context_shape().map(|c| Domain::Real.draw(check.batch, c, check.dtype, &mut rng)).transpose()?;
        let x = decoded(case.data, layer.as_ref(), drawn, context.as_ref())?;
        Ok(Subject { case, check, store, layer, x, z, context })
    }

    /// The same bijector with the same parameter values in f64.
    pub(super) fn double(&self) -> Result<Box<dyn Bijector>> {
        let store = ParamStore::new(self.check.seed, DType::F64, &Device::Cpu);
        let layer = self.case.build(&store)?;
        layer.set_training(false);
        let values = self.store.snapshot()?;
        let values = values.into_iter().map(|(name, v)| Ok((name, v.to_dtype(DType::F64)?)));
        store.restore(&values.collect::<Result<_>>()?)?;
        Ok(layer)
    }

    pub(super) fn tolerance(&self) -> Tolerance {
        let (t, k) = (self.check.tolerance, self.case.looser);
        Tolerance { round_trip: k * t.round_trip, log_det: k * t.log_det, gradient: k * t.gradient }
    }

    /// `v` and its neighbours above and below in the precision at hand.
    pub(super) fn beside(&self, v: f64) -> [f64; 3] {
        if self.check.dtype == DType::F64 {
            return [v, v.next_up(), v.next_down()];
        }
        let near = v as f32;
        [near, near.next_up(), near.next_down()].map(f64::from)
    }

    /// The knots with their neighbours.
    pub(super) fn knots(&self) -> Vec<f64> {
        self.case.knots.iter().flat_map(|&k| self.beside(k)).collect()
    }

    /// A batch like `like` with as many rows as there are `entries`, which run through it so that every place of the event
    /// meets each of them; and a context for it.
    pub(super) fn at(&self, like: &Tensor, entries: &[f64]) -> Result<(Tensor, Option<Tensor>)> {
        let (rows, event) = (entries.len(), like.elem_count() / like.dim(0)?.max(1));
        let run = (0..rows * event).map(|k| entries[(k / event + k % event) % rows]).collect::<Vec<f64>>();
        let dims: Vec<usize> = [&[rows], &like.dims()[1..]].concat();
        let input = Tensor::from_vec(run, dims, like.device())?.to_dtype(like.dtype())?;
        let cycle: Vec<u32> = (0..rows).map(|row| (row % self.check.batch) as u32).collect();
        let cycle = Tensor::from_vec(cycle, rows, like.device())?;
        let context = self.context.as_ref().map(|c| c.index_select(&cycle, 0)).transpose()?;
        Ok((input, context))
    }

    /// Data, latents and context of the same shapes without rows.
    pub(super) fn without_rows(&self) -> Result<(Tensor, Tensor, Option<Tensor>)> {
        let none = |t: &Tensor| -> Result<Tensor> {
            let dims: Vec<usize> = [&[0], &t.dims()[1..]].concat();
            Ok(Tensor::zeros(dims, t.dtype(), t.device())?)
        };
        Ok((none(&self.x)?, none(&self.z)?, self.context.as_ref().map(none).transpose()?))
    }

    /// The input of a pass in `direction` from numbers that were made for its domain.
    pub(super) fn input(&self, direction: Direction, made: Tensor, context: Option<&Tensor>) -> Result<Tensor> {
        match direction {
            Direction::Encode => decoded(self.case.data, self.layer.as_ref(), made, context),
            Direction::Decode => Ok(made),
        }
    }

    pub(super) fn encode(&self) -> Result<(Tensor, Tensor)> {
        self.layer.encode(&self.x, self.context.as_ref())
    }

    pub(super) fn decode(&self) -> Result<(Tensor, Tensor)> {
        self.layer.decode(&self.z, self.context.as_ref())
    }
}

/// Numbers that were drawn as data, brought into a domain that is known by decoding alone.
pub(super) fn decoded(domain: Domain, layer: &dyn Bijector, drawn: Tensor, context: Option<&Tensor>) -> Result<Tensor> {
    match domain {
        Domain::Decoded => Ok(layer.decode(&drawn, context)?.0.detach()),
        _ => Ok(drawn),
    }
}

/// Adds Gaussian noise of deviation `noise` to every trainable parameter of `store`.
///
/// Initial values are special points, often zero, where wrong gradients and wrong log-determinants
/// look right.
pub fn randomise(store: &ParamStore, noise: f64, rng: &mut FlowRng) -> Result<()> {
    for param in store.trainable() {
        let value = param.var().as_detached_tensor();
        let step = rng.normal(value.shape(), value.dtype(), value.device())?;
        param.set(&(value + step.affine(noise, 0.0)?)?)?;
    }
    Ok(())
}
