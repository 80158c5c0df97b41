//! A flow: a bijector and the density of its latent. What can be trained by maximum likelihood.

use candle_core::Tensor;

use super::context::{Declared, Door, reduce_gradient};
use super::reversible::{self, Backprop, DRIFT_TOLERANCE};
use crate::autodiff::{Leaves, add_optional, pair};
use crate::bijector::{Bijector, first_non_finite_row};
use crate::distribution::{Distribution, check_temperature};
use crate::nn::is_half;
use crate::numerics::host;
use crate::param::ParamStore;
use crate::{Error, FlowRng, Gradients, Result};

/// A scored batch with the gradient of the objective with respect to its input.
#[derive(Debug, Clone)]
pub struct Scored {
    /// `log p(x)` in nats, `(B,)`, detached.
    pub log_prob: Tensor,
    /// Gradient with respect to `x`.
    pub grad_x: Tensor,
    /// Gradient with respect to the context, where there is one.
    pub grad_context: Option<Tensor>,
    /// Whether reversible back-propagation was asked for, but drifted and was replaced by the plain one.
    pub fell_back: bool,
}

/// A model with an exact density: everything the training engine and the metrics need.
pub trait Density: Send + Sync {
    /// The parameters.
    fn store(&self) -> &ParamStore;

    /// The shape of one sample, without the batch dimension.
    fn event_shape(&self) -> &[usize];

    /// `log p(x | context)` in nats, `(B,)`, tracked for differentiation unless tracking is paused.
    ///
    /// A context has one row for each sample, or one for all of them.
    ///
    /// # Errors
    /// [`Error::Shape`] and [`Error::DType`] for what does not fit the model, [`Error::Context`] for a context that
    /// the model does not take, that is missing, or that has another number of rows.
    fn log_prob(&self, x: &Tensor, context: Option<&Tensor>) -> Result<Tensor>;

    /// Data-dependent initialisation from one batch.
    ///
    /// # Errors
    /// For a batch from which it cannot be done (no rows, numbers that are not finite); nothing is changed then.
    fn initialize(&self, x: &Tensor, context: Option<&Tensor>) -> Result<()>;

    /// Switches batch statistics (training) or running averages (evaluation).
    fn set_training(&self, training: bool);

    /// As [`Bijector::set_noise`]: call it before each training step of a model with stochastic estimates.
    fn set_noise(&self, _rng: &mut FlowRng) {}

    /// Gradients of `Σ_b weight_b · log p(x_b | context_b)`, added to `gradients`.
    ///
    /// `weight` has shape `(B,)`; `-1/B` everywhere minimises the mean negative log-likelihood.
    fn log_prob_backward(
        &self,
        x: &Tensor,
        context: Option<&Tensor>,
        weight: &Tensor,
        mode: Backprop,
        gradients: &mut Gradients,
    ) -> Result<Scored>;

    /// `n` samples at `temperature`, detached.
    ///
    /// A context has `n` rows, one for each sample, or one for all of them.
    ///
    /// # Errors
    /// [`Error::Context`] and [`Error::Shape`] as for [`Density::log_prob`].
    fn sample(&self, n: usize, context: Option<&Tensor>, temperature: f64, rng: &mut FlowRng) -> Result<Tensor>;
}

/// `p(x) = p_base(f(x)) · |det ∂f/∂x|`.
///
/// # Example
/// ```
/// # use candle_core::{DType, Device};
/// # use flow_core::{Density, Flow, FlowRng, ParamStore};
/// # use flow_core::distribution::StandardGaussian;
/// # use flow_core::layers::ActNorm;
/// # fn main() -> flow_core::Result<()> {
/// let store = ParamStore::new(0, DType::F32, &Device::Cpu);
/// let flow = Flow::new(&store, ActNorm::new(&store.root(), &[2])?, StandardGaussian::new(&[2], DType::F32, &Device::Cpu))?;
/// let x = flow.sample(4, None, 1.0, &mut FlowRng::seed_from(1))?;
/// assert_eq!(flow.log_prob(&x, None)?.dims(), &[4]);
/// # Ok(())
/// # }
/// ```
pub struct Flow<B, D> {
    store: ParamStore,
    door: Door,
    bijector: B,
    base: D,
}

impl<B: Bijector, D: Distribution> Flow<B, D> {
    /// Joins a bijector and a base density over its latent, whose parameters live in `store`.
    ///
    /// # Errors
    /// [`Error::Config`] when the latent and the base have different shapes, or want different contexts. That a
    /// parameter lives in another store shows in the first pass: [`Density::initialize`],
    /// [`Density::log_prob_backward`] and sampling return [`Error::Config`] then.
    pub fn new(store: &ParamStore, bijector: B, base: D) -> Result<Self> {
        if bijector.latent_shape() != base.event_shape() {
            return Err(Error::config(
                "flow",
                format!("the bijector gives {:?}, the base is over {:?}", bijector.latent_shape(), base.event_shape()),
            ));
        }
        let context = bijector.context_shape();
        let parts = [
            Declared { name: bijector.name(), shape: context, grouped: bijector.groups_context() },
            Declared { name: base.name(), shape: base.context_shape(), grouped: false },
        ];
        let door = Door::new("flow", bijector.event_shape(), store, parts)?;
        Ok(Flow { store: store.clone(), door, bijector, base })
    }

    /// The bijector.
    pub fn bijector(&self) -> &B {
        &self.bijector
    }

    /// The base density.
    pub fn base(&self) -> &D {
        &self.base
    }

    /// Which batches and contexts are let in.
    pub(super) fn door(&self) -> &Door {
        &self.door
    }

    /// Samples together with their `log p`, in one pass, detached: [`Reparameterized`](super::Reparameterized) has those
    /// that can be differentiated; the context is that of [`Density::sample`].
    pub fn sample_and_log_prob(
        &self,
        n: usize,
        context: Option<&Tensor>,
        temperature: f64,
        rng: &mut FlowRng,
    ) -> Result<(Tensor, Tensor)> {
        let _paused = self.store.no_grad();
        check_temperature("flow", temperature)?;
        let context = self.door.admit_context(n, context)?.map(|c| c.detach());
        let context = context.as_ref();
        let z = self.base.sample(n, context, temperature, rng)?;
        let (x, log_det) = self.bijector.decode(&z, context)?;
        let log_prob = (self.base.log_prob(&z, context)? - log_det)?;
        self.store.check_untracked("flow", &[&x, &log_prob])?;
        Ok((x, log_prob))
    }
}

impl<B: Bijector, D: Distribution> Flow<B, D> {
    /// Scores and the reconstructed input.
    fn reversible(
        &self,
        x: &Tensor,
        context: Option<&Tensor>,
        weight: &Tensor,
        gradients: &mut Gradients,
    ) -> Result<(Scored, Tensor)> {
        let (z, log_det, tape) = {
            let _paused = self.store.no_grad();
            let (z, log_det, tape) = self.bijector.encode_taped(x, context)?;
            self.store.check_untracked("flow", &[&z, &log_det])?;
            (z, log_det, tape)
        };
        let head = plain_backward(|z, c| self.base.log_prob(z, c), &z, context, weight, gradients)?;
        let below = self.bijector.backprop(&z, &tape, context, &head.grad_x, weight, gradients)?;
        let grad_context = add_optional(head.grad_context, below.grad_context)?;
        let log_prob = (head.log_prob + log_det)?;
        Ok((Scored { log_prob, grad_x: below.grad_x, grad_context, fell_back: false }, below.x))
    }
}

impl<B: Bijector, D: Distribution> Density for Flow<B, D> {
    fn store(&self) -> &ParamStore {
        &self.store
    }

    fn event_shape(&self) -> &[usize] {
        self.bijector.event_shape()
    }

    fn log_prob(&self, x: &Tensor, context: Option<&Tensor>) -> Result<Tensor> {
        let context = self.door.admit(x, context)?;
        let context = context.as_ref();
        let (z, log_det) = self.bijector.encode(x, context)?;
        Ok((self.base.log_prob(&z, context)? + log_det)?)
    }

    fn initialize(&self, x: &Tensor, context: Option<&Tensor>) -> Result<()> {
        let _paused = self.store.no_grad();
        let (x, context) = (&x.detach(), self.door.admit(x, context)?.map(|c| c.detach()));
        all_or_nothing(&self.store, || {
            let (z, log_det) = self.bijector.initialize(x, context.as_ref())?;
            self.store.check_untracked("flow", &[&z, &log_det])
        })
    }

    fn set_training(&self, training: bool) {
        self.bijector.set_training(training);
    }

    fn set_noise(&self, rng: &mut FlowRng) {
        self.bijector.set_noise(rng);
    }

    fn log_prob_backward(
        &self,
        x: &Tensor,
        context: Option<&Tensor>,
        weight: &Tensor,
        mode: Backprop,
        gradients: &mut Gradients,
    ) -> Result<Scored> {
        let (x, given) = (&x.detach(), context);
        let context = self.door.admit(x, given)?.map(|c| c.detach());
        let context = context.as_ref();
        let plain =
            |gradients: &mut Gradients| plain_backward(|x, c| self.log_prob(x, c), x, context, weight, gradients);
        let scored = match mode {
            Backprop::Plain => plain(gradients)?,
            Backprop::Reversible => reversible_or(x, gradients, |g| self.reversible(x, context, weight, g), plain)?,
        };
        refuse_non_finite_rows(x, &scored)?;
        let grad_context = reduce_gradient(scored.grad_context, given)?;
        Ok(Scored { grad_context, ..scored })
    }

    fn sample(&self, n: usize, context: Option<&Tensor>, temperature: f64, rng: &mut FlowRng) -> Result<Tensor> {
        let _paused = self.store.no_grad();
        check_temperature("flow", temperature)?;
        let context = self.door.admit_context(n, context)?.map(|c| c.detach());
        let context = context.as_ref();
        let z = self.base.sample(n, context, temperature, rng)?;
        let x = self.bijector.decode(&z, context)?.0;
        self.store.check_untracked("flow", &[&x])?;
        Ok(x)
    }
}

/// Runs a data-dependent initialisation; if it fails, parameters and buffers are what they were before it.
pub(crate) fn all_or_nothing(store: &ParamStore, initialize: impl FnOnce() -> Result<()>) -> Result<()> {
    let before = store.snapshot()?;
    let outcome = initialize();
    if outcome.is_err() {
        store.restore(&before)?;
    }
    outcome
}

/// A score that is not finite because a row of the data is not: skipping the step would not mend it.
///
/// # Errors
/// [`Error::NonFiniteRow`] naming the row of the batch.
pub(crate) fn refuse_non_finite_rows(x: &Tensor, scored: &Scored) -> Result<()> {
    let total = host::sum(&scored.log_prob)?;
    match if total.is_finite() { None } else { first_non_finite_row(x)? } {
        Some(row) => Err(Error::NonFiniteRow { what: "the batch".into(), row }),
        None => Ok(()),
    }
}

/// Whether a reversible walk has come back to where it began, for all who take the step together: layers that look at the rows
/// of others need them to take the same way.
pub(crate) fn is_near(x: &Tensor, reconstructed: &Tensor, gradients: &Gradients) -> Result<bool> {
    // Written so that NaN is rejected.
    let near = reversible::drift(x, reconstructed)? <= DRIFT_TOLERANCE;
    match gradients.store().peers() {
        None => Ok(near),
        Some(peers) => Ok(peers.gather(&[f64::from(u8::from(near))])?.concat().iter().all(|&near| near > 0.0)),
    }
}

/// Takes the reversible result if its reconstruction of `x` is close enough, else the plain one.
///
/// Gradients of a rejected attempt never reach `gradients`. Where convolutions round to bf16 there is no attempt.
pub(crate) fn reversible_or(
    x: &Tensor,
    gradients: &mut Gradients,
    reversible: impl FnOnce(&mut Gradients) -> Result<(Scored, Tensor)>,
    plain: impl FnOnce(&mut Gradients) -> Result<Scored>,
) -> Result<Scored> {
    if is_half(x) {
        return plain(gradients);
    }
    let mut attempt = gradients.attempt();
    let (scored, reconstructed) = reversible(&mut attempt)?;
    if is_near(x, &reconstructed, gradients)? {
        gradients.merge(&attempt)?;
        return Ok(scored);
    }
    drop(scored);
    attempt.give_up();
    Ok(Scored { fell_back: true, ..plain(gradients)? })
}

/// Differentiates `Σ weight · f(x, context)` through one ordinary graph.
pub(crate) fn plain_backward(
    f: impl Fn(&Tensor, Option<&Tensor>) -> Result<Tensor>,
    x: &Tensor,
    context: Option<&Tensor>,
    weight: &Tensor,
    gradients: &mut Gradients,
) -> Result<Scored> {
    let leaves = Leaves::new(x, context)?;
    let value = f(leaves.x(), leaves.context())?;
    let objective = pair(&value, weight)?;
    gradients.check_variables(&objective, &leaves.inputs())?;
    let (grad_x, grad_context) = leaves.pull_back(&objective, gradients)?;
    Ok(Scored { log_prob: value.detach(), grad_x, grad_context, fell_back: false })
}

#[cfg(test)]
mod tests {
    use candle_core::{DType, Device};

    use super::*;
    use crate::distribution::StandardGaussian;
    use crate::layers::{ActNorm, Coupling, Partition};
    use crate::nn::Conditioner;
    use crate::param::{Init, Param};
    use crate::transformer::{Affine, ScaleBound};
    use crate::{Bijector, Chain};

    /// Nothing is reconstructed where roundings to eight bits would flip.
    #[test]
    fn half_precision_is_differentiated_plainly() {
        let store = ParamStore::new(1, DType::F32, &Device::Cpu);
        let x = Tensor::zeros((2, 3), DType::F32, &Device::Cpu).unwrap();
        let one = || Scored {
            log_prob: x.get_on_dim(1, 0).unwrap(),
            grad_x: x.clone(),
            grad_context: None,
            fell_back: false,
        };
        let mut walks = 0;
        let mut score = || {
            let walk = |_: &mut Gradients| {
                walks += 1;
                Ok((one(), x.clone()))
            };
            reversible_or(&x, &mut Gradients::new(&store), walk, |_| Ok(one())).unwrap()
        };
        assert!(!crate::nn::with_bf16_convolutions(&mut score).fell_back);
        score();
        assert_eq!(walks, 1);
    }

    /// The same shift and raw scale for every sample.
    struct Constant(Param);

    impl Conditioner for Constant {
        fn forward(&self, x: &Tensor, _context: Option<&Tensor>) -> Result<Tensor> {
            Ok(self.0.tensor().unsqueeze(0)?.broadcast_add(&x.zeros_like()?)?)
        }
    }

    /// A coupling with this raw scale, then a shift by one.
    fn shrinking(raw: f64) -> (ParamStore, Flow<Chain, StandardGaussian>) {
        let store = ParamStore::new(0, DType::F32, &Device::Cpu);
        let root = store.root();
        let params = root.param("params", 2, Init::Const(0.0)).unwrap();
        params.set(&Tensor::new(&[0.0, raw], &Device::Cpu).unwrap()).unwrap();
        let affine = Affine::new(ScaleBound::Sigmoid);
        let swap = Partition::Channels { swap: false };
        let coupling = Coupling::new(&[3], swap, affine, Constant(params)).unwrap();
        let norm = ActNorm::new(&root.pp("norm"), &[3]).unwrap();
        norm.params().0.set(&Tensor::ones(3, DType::F32, &Device::Cpu).unwrap()).unwrap();
        let layers: Vec<Box<dyn Bijector>> = vec![Box::new(coupling), Box::new(norm)];
        let base = StandardGaussian::new(&[3], DType::F32, &Device::Cpu);
        (store.clone(), Flow::new(&store, Chain::new(layers).unwrap(), base).unwrap())
    }

    fn gradients(raw: f64, mode: Backprop) -> (Vec<f32>, bool) {
        let (store, flow) = shrinking(raw);
        let x = FlowRng::seed_from(1).normal((4, 3), DType::F32, &Device::Cpu).unwrap();
        let mut gradients = Gradients::new(&store);
        let weight = Tensor::ones(4, DType::F32, &Device::Cpu).unwrap();
        let scored = flow.log_prob_backward(&x, None, &weight, mode, &mut gradients).unwrap();
        (gradients.flatten().unwrap(), scored.fell_back)
    }

    #[test]
    fn a_reconstruction_that_lost_its_digits_is_noticed() {
        let ((reversible, fell_back), (plain, _)) =
            (gradients(0.0, Backprop::Reversible), gradients(0.0, Backprop::Plain));
        assert!(!fell_back);
        assert!(reversible.iter().zip(&plain).all(|(a, b)| (a - b).abs() < 1e-4), "{reversible:?} {plain:?}");
        // Scaled by e^-38 and shifted by one, nothing of the third entry is left in f32.
        let (reversible, fell_back) = gradients(-40.0, Backprop::Reversible);
        assert!(fell_back);
        assert_eq!(reversible, gradients(-40.0, Backprop::Plain).0);
    }
}
