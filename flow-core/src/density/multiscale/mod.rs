//! Multi-scale flows: part of the latent is factored out at every level.
//!
//! Level `i` maps `x_i` to `h_i = f_i(x_i)`; all levels but the last split `h_i` along its first
//! dimension into a kept part, the next level's input, and a factored-out part with its own prior
//! conditioned on the kept one (Dinh et al. 2017, section 3.6; Kingma & Dhariwal 2018, section 3).
//! There are several latents, so this is a type of its own and not a [`Bijector`].

mod density;
mod latent;

use candle_core::Tensor;
pub use latent::{Factors, LatentPriors};

use super::context::{Declared, Door, reduce_gradient};
use super::flow::{Scored, plain_backward, refuse_non_finite_rows, reversible_or};
use super::reversible::Backprop;
use crate::autodiff::{Leaves, add_optional, pair};
use crate::bijector::{Bijector, LayerReport, Tape};
use crate::distribution::{Distribution, check_temperature};
use crate::param::ParamStore;
use crate::{Error, FlowRng, Gradients, Result};

const NAME: &str = "multi-scale flow";

/// One level: a bijector, and for all but the last level the prior of what is factored out.
pub struct Level {
    /// The bijector of this level (squeeze included).
    pub flow: Box<dyn Bijector>,
    /// The density of the factored-out part given the kept part; `None` at the top.
    ///
    /// Its event is `(C - k, …)` where `h` is `(C, …)` and the next level takes `(k, …)`. A prior that
    /// ignores its context (plain Gaussian, RealNVP) is fine.
    pub split: Option<Box<dyn Distribution>>,
}

/// What a level factors out, with its density.
type Factored<'a> = Option<(&'a dyn Distribution, Tensor)>;

impl Level {
    /// What goes on to the next level of `h`, and what is factored out.
    fn halves(&self, h: Tensor) -> Result<(Tensor, Factored<'_>)> {
        let Some(split) = self.split.as_deref() else { return Ok((h, None)) };
        let out = split.event_shape()[0];
        let kept = h.dim(1)? - out;
        let part = h.narrow(1, kept, out)?.contiguous()?;
        Ok((h.narrow(1, 0, kept)?.contiguous()?, Some((split, part))))
    }
}

/// The latents of a batch, whitened: with a Gaussian prior each entry is `N(0, 1)` under the model.
///
/// One type for encode, decode and interpolation; finest level first, the top latent last.
#[derive(Debug, Clone)]
pub struct Latents(pub Vec<Tensor>);

/// What the reversible encode leaves behind: raw latents, tapes, log-determinant.
struct Encoded {
    out: Vec<Tensor>,
    top: Tensor,
    tapes: Vec<Tape>,
    log_det: Tensor,
}

/// An extra objective on the top latent (a class loss): per-sample values, shape `(B,)`.
pub type TopObjective<'a> = &'a dyn Fn(&Tensor) -> Result<Tensor>;

/// A stack of [`Level`]s with a top prior.
pub struct MultiScale {
    store: ParamStore,
    door: Door,
    levels: Vec<Level>,
    top: Box<dyn Distribution>,
}

impl MultiScale {
    /// Checks that levels, splits and the top prior fit together.
    ///
    /// # Errors
    /// [`Error::Config`] naming the first level that does not, or parts that want different contexts.
    pub fn new(store: &ParamStore, levels: Vec<Level>, top: Box<dyn Distribution>) -> Result<Self> {
        let count = levels.len();
        if count == 0 {
            return Err(Error::config("multi-scale", "needs at least one level"));
        }
        for (i, level) in levels.iter().enumerate() {
            let given = level.flow.latent_shape().to_vec();
            let (kept, wanted) = match (&level.split, levels.get(i + 1)) {
                (Some(split), Some(next)) => {
                    let mut kept = given.clone();
                    kept[0] = given[0].saturating_sub(split.event_shape()[0]);
                    (kept, next.flow.event_shape().to_vec())
                }
                (None, None) => (given.clone(), top.event_shape().to_vec()),
                _ => {
                    let reason = "every level but the last needs a split prior, the last has none";
                    return Err(Error::config(format!("level {i}"), reason));
                }
            };
            if kept != wanted {
                let reason = format!("passes on {kept:?}, but what follows takes {wanted:?}");
                return Err(Error::config(format!("level {i}"), reason));
            }
        }
        let flows = levels.iter().map(|l| &l.flow).map(|flow| Declared {
            name: flow.name(),
            shape: flow.context_shape(),
            grouped: flow.groups_context(),
        });
        let prior = Declared { name: top.name(), shape: top.context_shape(), grouped: false };
        let door = Door::new(NAME, levels[0].flow.event_shape(), store, flows.chain([prior]))?;
        Ok(MultiScale { store: store.clone(), door, levels, top })
    }

    /// The levels, finest first.
    pub fn levels(&self) -> &[Level] {
        &self.levels
    }

    /// The prior of the top latent.
    pub fn top(&self) -> &dyn Distribution {
        self.top.as_ref()
    }

    /// Latent shapes, finest first.
    pub fn latent_shapes(&self) -> Vec<Vec<usize>> {
        self.levels
            .iter()
            .map(|l| match &l.split {
                Some(s) => s.event_shape().to_vec(),
                None => l.flow.latent_shape().to_vec(),
            })
            .collect()
    }

    /// Whitened latents and `log p(x)`.
    ///
    /// # Errors
    /// [`Error::Shape`] when `x` does not fit.
    pub fn encode(&self, x: &Tensor, context: Option<&Tensor>) -> Result<(Latents, Tensor)> {
        let _paused = self.store.no_grad();
        let context = self.door.admit(x, context)?;
        let context = context.as_ref();
        let mut latents = Vec::with_capacity(self.levels.len());
        let (log_prob, top) = self.score(x, context, None, |split, out, kept| {
            latents.push(split.whiten(out, Some(kept))?);
            Ok(())
        })?;
        latents.push(self.top.whiten(&top, context)?);
        Ok((Latents(latents), log_prob))
    }

    /// The data of whitened latents: the exact inverse of [`MultiScale::encode`].
    ///
    /// # Errors
    /// [`Error::Config`] for a wrong number of latents, [`Error::Shape`] for misshapen ones.
    pub fn decode(&self, latents: &Latents, context: Option<&Tensor>) -> Result<Tensor> {
        if latents.0.len() != self.levels.len() {
            let reason = format!("{} given, the model has {} levels", latents.0.len(), self.levels.len());
            return Err(Error::config("latents", reason));
        }
        let _paused = self.store.no_grad();
        let rows = latents.0.first().map_or(Ok(0), |latent| latent.dim(0))?;
        let context = self.door.admit_context(rows, context)?;
        let context = context.as_ref();
        let mut parts = latents.0.iter().rev();
        self.generate(context, |prior, kept, _level| match parts.next() {
            Some(noise) => prior.color(noise, kept),
            None => Err(Error::config("latents", "too few")),
        })
    }

    /// [`Bijector::describe`] of every level, places prefixed with `level0`, `level1`, …
    ///
    /// # Errors
    /// As [`MultiScale::encode`].
    pub fn describe(&self, x: &Tensor, context: Option<&Tensor>) -> Result<Vec<LayerReport>> {
        let _paused = self.store.no_grad();
        let context = self.door.admit(x, context)?;
        let context = context.as_ref();
        let (mut x, mut reports) = (x.clone(), Vec::new());
        for (i, level) in self.levels.iter().enumerate() {
            let layers = level.flow.describe(&x, context)?;
            reports.extend(layers.into_iter().map(|r| r.within(&format!("level{i}"))));
            if level.split.is_some() {
                x = level.halves(level.flow.encode(&x, context)?.0)?.0;
            }
        }
        Ok(reports)
    }

    /// Samples with one temperature per level, finest first.
    ///
    /// # Errors
    /// [`Error::Config`] when the number of temperatures is not the number of levels.
    pub fn sample_with(
        &self,
        n: usize,
        context: Option<&Tensor>,
        temperatures: &[f64],
        rng: &mut FlowRng,
    ) -> Result<Tensor> {
        if temperatures.len() != self.levels.len() {
            let reason = format!("{} given, the model has {} levels", temperatures.len(), self.levels.len());
            return Err(Error::config("temperatures", reason));
        }
        temperatures.iter().try_for_each(|&t| check_temperature(NAME, t))?;
        let _paused = self.store.no_grad();
        let context = self.door.admit_context(n, context)?.map(|c| c.detach());
        let x =
            self.generate(context.as_ref(), |prior, kept, level| prior.sample(n, kept, temperatures[level], rng))?;
        self.store.check_untracked(NAME, &[&x])?;
        Ok(x)
    }

    /// Like [`crate::Density::log_prob_backward`] with an extra per-sample objective on the top latent, to
    /// which the same weights apply. Also returns that objective's values.
    pub fn backward_with(
        &self,
        x: &Tensor,
        context: Option<&Tensor>,
        weight: &Tensor,
        extra: Option<TopObjective<'_>>,
        mode: Backprop,
        gradients: &mut Gradients,
    ) -> Result<(Scored, Option<Tensor>)> {
        let (x, given) = (&x.detach(), context);
        let context = self.door.admit(x, given)?.map(|c| c.detach());
        let context = context.as_ref();
        let bonus = std::cell::RefCell::new(None);
        let head = |top: &Tensor, log_p: Tensor| -> Result<Tensor> {
            let Some(extra) = extra else { return Ok(log_p) };
            let value = extra(top)?;
            *bonus.borrow_mut() = Some(value.detach());
            Ok((log_p + value)?)
        };
        let plain = |gradients: &mut Gradients| {
            let f = |x: &Tensor, c: Option<&Tensor>| {
                let (log_prob, top) = self.score(x, c, None, |_, _, _| Ok(()))?;
                head(&top, log_prob)
            };
            plain_backward(f, x, context, weight, gradients)
        };
        let mut scored = match mode {
            Backprop::Plain => plain(gradients)?,
            Backprop::Reversible => {
                let top_head = |top: &Tensor, c: Option<&Tensor>| head(top, self.top.log_prob(top, c)?);
                reversible_or(x, gradients, |g| self.reversible(x, context, weight, None, &top_head, g), plain)?
            }
        };
        refuse_non_finite_rows(x, &scored)?;
        let bonus = bonus.into_inner();
        if let Some(bonus) = &bonus {
            scored.log_prob = (scored.log_prob - bonus)?;
        }
        scored.grad_context = reduce_gradient(scored.grad_context, given)?;
        Ok((scored, bonus))
    }

    /// `log p(x)` and the raw top latent, with the flow's own priors or others in their place; `visit` sees every
    /// factored-out part with its kept part.
    fn score(
        &self,
        x: &Tensor,
        context: Option<&Tensor>,
        priors: Option<&dyn LatentPriors>,
        mut visit: impl FnMut(&dyn Distribution, &Tensor, &Tensor) -> Result<()>,
    ) -> Result<(Tensor, Tensor)> {
        let mut x = x.clone();
        let mut total: Option<Tensor> = None;
        for (i, level) in self.levels.iter().enumerate() {
            let (h, mut term) = level.flow.encode(&x, context)?;
            let (kept, factored) = level.halves(h)?;
            if let Some((split, out)) = factored {
                term = (term + split_log_prob(priors, split, i, &out, &kept)?)?;
                visit(split, &out, &kept)?;
            }
            x = kept;
            total = add_optional(total, Some(term))?;
        }
        let top = match priors {
            Some(priors) => priors.log_prob(self.levels.len() - 1, &x, None)?,
            None => self.top.log_prob(&x, context)?,
        };
        let log_prob = add_optional(total, Some(top))?;
        let log_prob = log_prob.ok_or_else(|| Error::config("multi-scale", "has no level"))?;
        Ok((log_prob, x))
    }

    /// Decodes from the top; `draw` gives each level's latent from its prior and kept part.
    fn generate(
        &self,
        context: Option<&Tensor>,
        mut draw: impl FnMut(&dyn Distribution, Option<&Tensor>, usize) -> Result<Tensor>,
    ) -> Result<Tensor> {
        let last = self.levels.len() - 1;
        let mut h = draw(self.top.as_ref(), context, last)?;
        for (i, level) in self.levels.iter().enumerate().rev() {
            if let Some(split) = &level.split {
                let out = draw(split.as_ref(), Some(&h), i)?;
                h = Tensor::cat(&[&h, &out], 1)?;
            }
            h = level.flow.decode(&h, context)?.0;
        }
        Ok(h)
    }

    fn encode_taped(&self, x: &Tensor, context: Option<&Tensor>) -> Result<Encoded> {
        let (mut out, mut tapes) = (Vec::new(), Vec::with_capacity(self.levels.len()));
        let mut log_det: Option<Tensor> = None;
        let mut top = x.clone();
        for level in &self.levels {
            let (h, term, tape) = level.flow.encode_taped(&top, context)?;
            tapes.push(tape);
            log_det = add_optional(log_det, Some(term))?;
            let (kept, factored) = level.halves(h)?;
            out.extend(factored.map(|(_, part)| part));
            top = kept;
        }
        let log_det = log_det.ok_or_else(|| Error::config("multi-scale", "has no level"))?;
        Ok(Encoded { out, top, tapes, log_det })
    }

    fn reversible(
        &self,
        x: &Tensor,
        context: Option<&Tensor>,
        weight: &Tensor,
        priors: Option<&dyn LatentPriors>,
        top_head: &dyn Fn(&Tensor, Option<&Tensor>) -> Result<Tensor>,
        gradients: &mut Gradients,
    ) -> Result<(Scored, Tensor)> {
        let Encoded { mut out, top, tapes, log_det } = {
            let _paused = self.store.no_grad();
            let encoded = self.encode_taped(x, context)?;
            self.store.check_untracked(NAME, &[&encoded.top, &encoded.log_det])?;
            encoded
        };
        let scored = plain_backward(top_head, &top, context, weight, gradients)?;
        let mut log_prob = (scored.log_prob + log_det)?;
        let (mut h, mut grad, mut grad_context) = (top, scored.grad_x, scored.grad_context);
        for (i, (level, tape)) in self.levels.iter().zip(&tapes).enumerate().rev() {
            if let Some(split) = &level.split {
                let factored = out.pop().ok_or_else(|| Error::config("multi-scale", "lost a latent"))?;
                let leaves = Leaves::new(&factored, Some(&h))?;
                let kept = leaves.context().unwrap_or(&h);
                let term = split_log_prob(priors, split.as_ref(), i, leaves.x(), kept)?;
                let objective = pair(&term, weight)?;
                gradients.check_variables(&objective, &leaves.inputs())?;
                let (grad_factored, grad_kept) = leaves.pull_back(&objective, gradients)?;
                log_prob = (log_prob + term.detach())?;
                let grad_kept = add_optional(Some(grad), grad_kept)?;
                grad = Tensor::cat(&grad_kept.iter().chain([&grad_factored]).collect::<Vec<_>>(), 1)?;
                h = Tensor::cat(&[&h, &factored], 1)?;
            }
            let below = level.flow.backprop(&h, tape, context, &grad, weight, gradients)?;
            (h, grad) = (below.x, below.grad_x);
            grad_context = add_optional(grad_context, below.grad_context)?;
        }
        Ok((Scored { log_prob, grad_x: grad, grad_context, fell_back: false }, h))
    }
}

/// The density of a factored-out part by its own prior, or by another in its place.
fn split_log_prob(
    priors: Option<&dyn LatentPriors>,
    own: &dyn Distribution,
    level: usize,
    latent: &Tensor,
    kept: &Tensor,
) -> Result<Tensor> {
    match priors {
        Some(priors) => priors.log_prob(level, latent, Some(kept)),
        None => own.log_prob(latent, Some(kept)),
    }
}
