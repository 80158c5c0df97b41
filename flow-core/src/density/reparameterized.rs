//! Samples that can be differentiated: what fits a flow to a density instead of to data.
//!
//! `x = f⁻¹(z)` with `z = b(ε)` of noise `ε` that knows of no parameter (Kingma & Welling 2014, arXiv 1312.6114, section
//! 2.4; Rezende & Mohamed 2015, arXiv 1505.05770, section 3): an expectation over the flow's own samples has a gradient
//! that samples estimate. Back-propagation walks through decoding as it does through encoding in maximum likelihood,
//! layer by layer from the result, with memory that does not grow with depth.

use candle_core::Tensor;

use super::context::reduce_gradient;
use super::flow::is_near;
use super::flow::{Density, Flow};
use super::reversible::Backprop;
use crate::autodiff::{Leaves, add_optional, gradient_or_zero, pair};
use crate::bijector::{Bijector, Tape};
use crate::distribution::Distribution;
use crate::{Error, FlowRng, Gradients, Result};

/// Samples with their scores, detached, and what is needed to send gradients back through them: of
/// [`Reparameterized::draw`].
pub struct Drawn {
    /// The samples, `(B, event…)`.
    pub x: Tensor,
    /// `log q(x)` in nats, `(B,)`.
    pub log_prob: Tensor,
    /// The context as it was given.
    context: Option<Tensor>,
    /// The generator as it was before the draw, to draw the same noise again.
    rng: FlowRng,
    replay: Replay,
}

enum Replay {
    /// One ordinary graph.
    Graph { context: Option<Leaves>, x: Tensor, log_prob: Tensor },
    /// The latent, and what the layers keep of decoding.
    Walk { z: Tensor, tape: Tape },
}

/// What came of [`Reparameterized::draw_backward`].
#[derive(Debug)]
pub struct DrawGradient {
    /// The gradient with respect to the context, where there is one.
    pub grad_context: Option<Tensor>,
    /// Whether reversible back-propagation was asked for, but drifted and was replaced by the plain one.
    pub fell_back: bool,
}

/// A density whose samples are differentiable functions of its parameters.
pub trait Reparameterized: Density {
    /// `n` samples at temperature 1 and their `log q`, `(n,)`, both tracked: an objective made of them by tensor
    /// operations has the gradient of the objective's expectation.
    ///
    /// This is one ordinary graph, whose memory is proportional to depth; [`Reparameterized::draw`] and
    /// [`Reparameterized::draw_backward`] do the same in memory that is not.
    ///
    /// ```
    /// # use candle_core::{DType, Device};
    /// # use flow_core::{Flow, FlowRng, ParamStore, Reparameterized};
    /// # use flow_core::distribution::StandardGaussian;
    /// # use flow_core::layers::ActNorm;
    /// # fn main() -> flow_core::Result<()> {
    /// let store = ParamStore::new(0, DType::F32, &Device::Cpu);
    /// let base = StandardGaussian::new(&[2], DType::F32, &Device::Cpu);
    /// let q = Flow::new(&store, ActNorm::new(&store.root(), &[2])?, base)?;
    /// // KL(q‖p) up to a constant, for p ∝ exp(-|x|²/8).
    /// let (x, log_q) = q.rsample_and_log_prob(100, None, &mut FlowRng::seed_from(1))?;
    /// let loss = (log_q + x.sqr()?.sum(1)?.affine(0.125, 0.0)?)?.mean(0)?;
    /// assert!(loss.backward()?.get(store.trainable()[0].var()).is_some());
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`Error::Config`] for a base density whose draws cannot be differentiated; those of [`Density::sample`].
    fn rsample_and_log_prob(&self, n: usize, context: Option<&Tensor>, rng: &mut FlowRng) -> Result<(Tensor, Tensor)>;

    /// `n` samples at temperature 1 with their scores, detached, to be followed by [`Reparameterized::draw_backward`].
    ///
    /// # Errors
    /// Those of [`Reparameterized::rsample_and_log_prob`].
    fn draw(&self, n: usize, context: Option<&Tensor>, mode: Backprop, rng: &mut FlowRng) -> Result<Drawn>;

    /// Gradients of `⟨grad_x, x⟩ + ⟨grad_log_prob, log q(x)⟩` as a function of the parameters, by way of the samples as
    /// well, added to `gradients`.
    ///
    /// # Errors
    /// [`Error::Shape`] for gradients of other shapes than samples and scores; what the layers return.
    fn draw_backward(
        &self,
        drawn: Drawn,
        grad_x: &Tensor,
        grad_log_prob: &Tensor,
        gradients: &mut Gradients,
    ) -> Result<DrawGradient>;
}

impl<B: Bijector, D: Distribution> Flow<B, D> {
    /// Samples and scores as one graph; the context has been admitted.
    fn graph(&self, n: usize, context: Option<&Tensor>, rng: &mut FlowRng) -> Result<(Tensor, Tensor)> {
        let z = self.base().rsample(n, context, rng)?;
        let (x, log_det) = self.bijector().decode(&z, context)?;
        let log_prob = (self.base().log_prob(&z, context)? - log_det)?;
        Ok((x, log_prob))
    }

    fn tracked(&self, n: usize, context: Option<&Tensor>, rng: &mut FlowRng) -> Result<(Tensor, Tensor, Replay)> {
        let leaf = self.door().admit_context(n, context)?.map(|c| Leaves::new(&c, None)).transpose()?;
        let (x, log_prob) = self.graph(n, leaf.as_ref().map(Leaves::x), rng)?;
        let detached = (x.detach(), log_prob.detach());
        Ok((detached.0, detached.1, Replay::Graph { context: leaf, x, log_prob }))
    }

    fn taped(&self, n: usize, context: Option<&Tensor>, rng: &mut FlowRng) -> Result<(Tensor, Tensor, Replay)> {
        let _paused = self.store().no_grad();
        let context = self.door().admit_context(n, context)?.map(|c| c.detach());
        let z = self.base().rsample(n, context.as_ref(), rng)?;
        let (x, log_det, tape) = self.bijector().decode_taped(&z, context.as_ref())?;
        let log_prob = (self.base().log_prob(&z, context.as_ref())? - log_det)?;
        self.store().check_untracked("flow", &[&x, &log_prob])?;
        Ok((x, log_prob, Replay::Walk { z, tape }))
    }

    /// The gradient through one graph, with respect to the context too.
    fn graph_backward(
        &self,
        (x, log_prob): (&Tensor, &Tensor),
        context: Option<&Leaves>,
        (grad_x, grad_log_prob): (&Tensor, &Tensor),
        gradients: &mut Gradients,
    ) -> Result<Option<Tensor>> {
        let objective = (pair(x, grad_x)? + pair(log_prob, grad_log_prob)?)?;
        let inputs: Vec<&Tensor> = context.iter().map(|c| c.x()).collect();
        gradients.check_variables(&objective, &inputs)?;
        if !objective.track_op() {
            return Ok(None);
        }
        let store = objective.backward()?;
        gradients.accumulate(&store)?;
        context.map(|c| gradient_or_zero(&store, c.x())).transpose()
    }

    /// The gradient layer by layer from the samples back, and the latent that this came to.
    fn walk_backward(
        &self,
        drawn: &Drawn,
        (z, tape): (&Tensor, &Tape),
        (grad_x, grad_log_prob): (&Tensor, &Tensor),
        gradients: &mut Gradients,
    ) -> Result<(Option<Tensor>, Tensor)> {
        let n = drawn.x.dim(0)?;
        let context = self.door().admit_context(n, drawn.context.as_ref())?.map(|c| c.detach());
        // log q(x) = log b(z) - log|det| of decoding.
        let against = grad_log_prob.neg()?;
        let walked = self.bijector().backprop_decode(&drawn.x, tape, context.as_ref(), grad_x, &against, gradients)?;
        let leaf = context.as_ref().map(|c| Leaves::new(c, None)).transpose()?;
        let given = leaf.as_ref().map(Leaves::x);
        let noise = self.base().rsample(n, given, &mut drawn.rng.clone())?;
        let score = self.base().log_prob(&noise, given)?;
        let of_base =
            self.graph_backward((&noise, &score), leaf.as_ref(), (&walked.grad_x, grad_log_prob), gradients)?;
        let reached = if walked.x.dims() == z.dims() { walked.x } else { walked.x.reshape(z.shape())? };
        Ok((add_optional(walked.grad_context, of_base)?, reached))
    }
}

impl<B: Bijector, D: Distribution> Reparameterized for Flow<B, D> {
    fn rsample_and_log_prob(&self, n: usize, context: Option<&Tensor>, rng: &mut FlowRng) -> Result<(Tensor, Tensor)> {
        let context = self.door().admit_context(n, context)?;
        self.graph(n, context.as_ref(), rng)
    }

    fn draw(&self, n: usize, context: Option<&Tensor>, mode: Backprop, rng: &mut FlowRng) -> Result<Drawn> {
        let before = rng.clone();
        let (x, log_prob, replay) = match mode {
            Backprop::Plain => self.tracked(n, context, rng)?,
            Backprop::Reversible => self.taped(n, context, rng)?,
        };
        Ok(Drawn { x, log_prob, context: context.map(Tensor::detach), rng: before, replay })
    }

    fn draw_backward(
        &self,
        drawn: Drawn,
        grad_x: &Tensor,
        grad_log_prob: &Tensor,
        gradients: &mut Gradients,
    ) -> Result<DrawGradient> {
        for (what, got, of) in
            [("gradient of samples", grad_x, &drawn.x), ("gradient of log q", grad_log_prob, &drawn.log_prob)]
        {
            if got.dims() != of.dims() {
                let (layer, expected) = (format!("flow ({what})"), format!("{:?}", of.dims()));
                return Err(Error::Shape { layer, expected, actual: got.dims().to_vec() });
            }
        }
        let cotangents = (grad_x, grad_log_prob);
        let given = drawn.context.as_ref();
        if let Replay::Walk { z, tape } = &drawn.replay {
            let mut attempt = gradients.attempt();
            let (grad_context, reached) = self.walk_backward(&drawn, (z, tape), cotangents, &mut attempt)?;
            if is_near(z, &reached, gradients)? {
                gradients.merge(&attempt)?;
                return Ok(DrawGradient { grad_context: reduce_gradient(grad_context, given)?, fell_back: false });
            }
            attempt.give_up();
        }
        let (fell_back, replay) = match drawn.replay {
            graph @ Replay::Graph { .. } => (false, graph),
            Replay::Walk { .. } => (true, self.tracked(drawn.x.dim(0)?, given, &mut drawn.rng.clone())?.2),
        };
        let grad_context = match &replay {
            Replay::Graph { context, x, log_prob } => {
                self.graph_backward((x, log_prob), context.as_ref(), cotangents, gradients)?
            }
            Replay::Walk { .. } => None,
        };
        Ok(DrawGradient { grad_context: reduce_gradient(grad_context, given)?, fell_back })
    }
}

#[cfg(test)]
mod tests {
    use candle_core::{DType, Device};

    use super::*;
    use crate::distribution::{ConditionalGaussian, DiagonalGaussian, GaussianMixture, StandardGaussian};
    use crate::layers::{ActNorm, Coupling, InvertibleConv, MaskedAutoregressive, Parametrization, Partition, Planar};
    use crate::nn::{Activation, Mlp, MlpConfig};
    use crate::testing::numbers::{distance, normal, store64, values};
    use crate::testing::randomise;
    use crate::transformer::{Affine, RationalQuadraticSpline, ScaleBound, Transformer};
    use crate::{Chain, Inverse, ParamStore};

    /// Layers that are closed in both directions and in either, with and without a context, over a base with one.
    fn flow(store: &ParamStore) -> Flow<Chain, Box<dyn Distribution>> {
        let (path, config) = (store.root(), MlpConfig::new(&[6]).activation(Activation::Tanh).context(2));
        let spline = RationalQuadraticSpline::new(3, 4.0).unwrap();
        let net = Mlp::new(&path.pp("a"), 2, spline.params_per_element(), &config).unwrap();
        let affine = Affine::new(ScaleBound::SoftClamp(2.0));
        let layers: Vec<Box<dyn Bijector>> = vec![
            Box::new(Coupling::new(&[3], Partition::Channels { swap: true }, spline, net).unwrap()),
            Box::new(ActNorm::new(&path.pp("b"), &[3]).unwrap()),
            Box::new(Inverse(MaskedAutoregressive::new(&path.pp("c"), 3, affine, &config).unwrap())),
            Box::new(Inverse(Planar::new(&path.pp("d"), 3).unwrap())),
            Box::new(InvertibleConv::new(&path.pp("e"), &[3], Parametrization::Plu).unwrap()),
            Box::new(Planar::new(&path.pp("f"), 3).unwrap()),
        ];
        let net = Mlp::new(&path.pp("base"), 2, 6, &MlpConfig::new(&[4])).unwrap();
        let base: Box<dyn Distribution> = Box::new(ConditionalGaussian::new(&[3], &[2], net));
        let flow = Flow::new(store, Chain::new(layers).unwrap(), base).unwrap();
        randomise(store, 0.3, &mut FlowRng::seed_from(1)).unwrap();
        flow
    }

    /// A bent objective of samples and scores, and its gradients with respect to both.
    fn objective(x: &Tensor, log_q: &Tensor) -> (f64, Tensor, Tensor) {
        let leaves = Leaves::new(x, Some(log_q)).unwrap();
        let (x, log_q) = (leaves.x(), leaves.context().unwrap());
        let value = (x.sin().unwrap().sum_all().unwrap() + log_q.sqr().unwrap().sum_all().unwrap()).unwrap();
        let store = value.backward().unwrap();
        let gradients = (gradient_or_zero(&store, x).unwrap(), gradient_or_zero(&store, log_q).unwrap());
        (value.to_scalar().unwrap(), gradients.0, gradients.1)
    }

    #[test]
    fn both_ways_give_the_gradient_that_finite_differences_give() {
        let store = store64(3);
        let (flow, context) = (flow(&store), normal(2, &[1, 2]));
        let rng = FlowRng::seed_from(7);
        let run = |mode| {
            let drawn = flow.draw(6, Some(&context), mode, &mut rng.clone()).unwrap();
            let (_, grad_x, grad_log_q) = objective(&drawn.x, &drawn.log_prob);
            let mut gradients = Gradients::new(&store);
            let back = flow.draw_backward(drawn, &grad_x, &grad_log_q, &mut gradients).unwrap();
            assert!(!back.fell_back);
            (gradients, back.grad_context.unwrap())
        };
        let ((plain, c), (walked, d)) = (run(Backprop::Plain), run(Backprop::Reversible));
        assert!(distance(&c, &d) < 1e-7 && c.dims() == [1, 2]);
        let value = || {
            let _paused = store.no_grad();
            let (x, log_q) = flow.rsample_and_log_prob(6, Some(&context), &mut rng.clone()).unwrap();
            objective(&x, &log_q).0
        };
        for ((param, a), (_, b)) in plain.iter().zip(walked.iter()) {
            let (a, b) = (a.unwrap(), b.unwrap());
            assert!(distance(a, b) < 1e-7, "{}", param.name());
            let start = param.var().as_tensor().copy().unwrap();
            let at =
                (0..start.elem_count()).max_by(|&i, &j| values(a)[i].abs().total_cmp(&values(a)[j].abs())).unwrap();
            let moved = |step: f64| {
                let mut entries = values(&start);
                entries[at] += step;
                param.set(&Tensor::from_vec(entries, start.shape(), &Device::Cpu).unwrap()).unwrap();
                let value = value();
                param.set(&start).unwrap();
                value
            };
            let numerical = (moved(1e-5) - moved(-1e-5)) / 2e-5;
            let got = values(a)[at];
            assert!((got - numerical).abs() < 1e-5 * (1.0 + got.abs()), "{}: {got} {numerical}", param.name());
            assert!(got != 0.0, "{} gets no gradient", param.name());
        }
    }

    #[test]
    fn scores_are_those_of_the_density() {
        let store = store64(3);
        let (flow, context) = (flow(&store), normal(2, &[4, 2]));
        for mode in [Backprop::Plain, Backprop::Reversible] {
            let drawn = flow.draw(4, Some(&context), mode, &mut FlowRng::seed_from(1)).unwrap();
            assert!(!drawn.x.track_op() && !drawn.log_prob.track_op());
            assert!(distance(&drawn.log_prob, &flow.log_prob(&drawn.x, Some(&context)).unwrap()) < 1e-8);
        }
        let none =
            flow.draw(0, Some(&context.narrow(0, 0, 0).unwrap()), Backprop::Reversible, &mut FlowRng::seed_from(1));
        let none = none.unwrap();
        let (x, log_q) = (none.x.clone(), none.log_prob.clone());
        flow.draw_backward(none, &x, &log_q, &mut Gradients::new(&store)).unwrap();
    }

    #[test]
    fn what_cannot_be_differentiated_or_does_not_fit_is_refused() {
        let store = store64(3);
        let norm = |name: &str| ActNorm::new(&store.root().pp(name), &[2]).unwrap();
        let mixture = GaussianMixture::new(&store.root().pp("mixture"), &[2], 3, 1.0).unwrap();
        let flow = Flow::new(&store, norm("a"), mixture).unwrap();
        let error = flow.rsample_and_log_prob(3, None, &mut FlowRng::seed_from(1)).unwrap_err().to_string();
        assert!(error.contains("mixture of 3 gaussians") && error.contains("cannot be differentiated"), "{error}");
        let base = StandardGaussian::new(&[2], DType::F64, &Device::Cpu);
        let flow = Flow::new(&store, norm("b"), base).unwrap();
        let drawn = flow.draw(3, None, Backprop::Reversible, &mut FlowRng::seed_from(1)).unwrap();
        let (x, wrong) = (drawn.x.clone(), normal(1, &[2]));
        let outcome = flow.draw_backward(drawn, &x, &wrong, &mut Gradients::new(&store));
        assert!(matches!(outcome, Err(Error::Shape { .. })));
        let theirs = store64(4);
        let base = DiagonalGaussian::new(&theirs.root(), &[2]).unwrap();
        let flow = Flow::new(&store, norm("c"), base).unwrap();
        assert!(flow.draw(3, None, Backprop::Reversible, &mut FlowRng::seed_from(1)).is_err());
    }
}
