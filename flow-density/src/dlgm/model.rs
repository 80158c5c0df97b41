//! Encoder, posterior and decoder.

use candle_core::{D, DType, Device, Tensor};
use flow_core::autodiff::{Leaves, pair};
use flow_core::kernels::accepts;
use flow_core::nn::{Linear, Maxout};
use flow_core::{Bijector, FlowRng, Gradients, ParamStore};

use super::bernoulli::{log_likelihood, with_gradient};
use super::config::DlgmConfig;
use super::posterior::{begin, maps, repeated};
use crate::{Error, Result};

/// `ln 2π`.
const LN_TAU: f64 = 1.837_877_066_409_345_5;

/// `p(z) = N(0, I)`, `p(x | z) = Π_d Bernoulli(x_d; σ(l_d(z)))` and `q(z | x)`, a Gaussian that a flow bends.
///
/// ```text
/// h      = maxout(x)                       encoder, (B, hidden)
/// mean, ln variance, context = h W + b     D, D, and what the maps take
/// z₀     = mean + √variance · noise        noise ~ N(0, I)
/// z      = the maps of z₀, given the context
/// ln q(z | x) = ln N(z₀; mean, variance) - ln |det ∂z/∂z₀|
/// l(z)   = maxout(z) W + b                 decoder
/// ```
///
/// The **free energy** `F = E[ln q(z | x) - ln p(x | z) - ln p(z)]` is an upper bound of `-ln p(x)` (Rezende & Mohamed 2015,
/// arXiv 1505.05770, equations 15 and 20); training minimises it.
///
/// # Shapes
/// - `x`: `(B, height · width)` zeros and ones; noise and `z`: `(B, latents)`.
pub struct Dlgm {
    store: ParamStore,
    config: DlgmConfig,
    encoder: Maxout,
    code: Linear,
    maps: Option<Box<dyn Bijector>>,
    decoder: Maxout,
    logits: Linear,
}

/// The three parts of the free energy for each draw, `(B,)`: it is `log_q - log_x - log_z`.
#[derive(Debug, Clone)]
pub struct Terms {
    /// `ln q(z | x)`.
    pub log_q: Tensor,
    /// `ln p(x | z)`.
    pub log_x: Tensor,
    /// `ln p(z)`.
    pub log_z: Tensor,
}

impl Terms {
    /// The mean over draws of `log_q - β·(log_x + log_z)`: the free energy for `β = 1`, annealed below it.
    ///
    /// # Errors
    /// A failure of the device.
    pub fn free_energy(&self, beta: f64) -> Result<Tensor> {
        let joint = ((&self.log_x + &self.log_z)? * beta)?;
        Ok((&self.log_q - joint)?.mean_all()?)
    }
}

impl Dlgm {
    /// A model with parameters under the root of `store`, all affine layers uniform in `±1/√inputs` at the start, and posteriors
    /// of planar maps nearly their Gaussians.
    ///
    /// # Errors
    /// Those of [`DlgmConfig::check`].
    pub fn new(store: &ParamStore, config: &DlgmConfig) -> Result<Self> {
        config.check()?;
        let (root, &DlgmConfig { latents, hidden, pieces, .. }) = (store.root(), config);
        let maps = maps(&root.pp("posterior"), config)?;
        let (maps, start) = maps.map_or((None, None), |maps| (Some(maps.bijector), maps.start));
        let context = maps.as_ref().and_then(|maps| maps.context_shape()).map_or(0, |shape| shape.iter().product());
        let code = Linear::uniform(&root.pp("code"), hidden, 2 * latents + context)?;
        if let Some(start) = start {
            begin(&root.pp("code"), 2 * latents, &start)?;
        }
        Ok(Dlgm {
            store: store.clone(),
            config: config.clone(),
            encoder: Maxout::new(&root.pp("encoder"), config.pixels(), hidden, pieces)?,
            code,
            maps,
            decoder: Maxout::new(&root.pp("decoder"), latents, hidden, pieces)?,
            logits: Linear::uniform(&root.pp("logits"), hidden, config.pixels())?,
        })
    }

    /// The parameters.
    pub fn store(&self) -> &ParamStore {
        &self.store
    }

    /// The hyper-parameters.
    pub fn config(&self) -> &DlgmConfig {
        &self.config
    }

    /// The standard normal numbers of `rows` draws.
    ///
    /// # Errors
    /// A failure of the device.
    pub fn noise(&self, rows: usize, rng: &mut FlowRng) -> Result<Tensor> {
        Ok(rng.normal((rows, self.config.latents), self.store.dtype(), self.store.device())?)
    }

    /// What the encoder says of each image: mean, log variance and context behind each other.
    ///
    /// # Errors
    /// Images of another size or type.
    pub fn code(&self, x: &Tensor) -> Result<Tensor> {
        Ok(self.code.forward(&self.encoder.forward(x)?)?)
    }

    /// Draws from the posterior, and `ln q(z | x)`, `(B,)`: each row of `code` makes `B/G` consecutive draws.
    ///
    /// # Errors
    /// Noise whose rows are no multiple of the codes'.
    pub fn draw(&self, code: &Tensor, noise: &Tensor) -> Result<(Tensor, Tensor)> {
        let (groups, rows) = (code.dim(0)?, noise.dim(0)?);
        if groups == 0 || !rows.is_multiple_of(groups) {
            return Err(Error::config("noise", format!("{rows} rows for {groups} codes, which is no multiple")));
        }
        let (gaussian, context) = self.parts(code)?;
        self.draw_of(&gaussian, &context, noise)
    }

    /// Mean and log variance, and what the maps take.
    fn parts(&self, code: &Tensor) -> Result<(Tensor, Tensor)> {
        let (latents, width) = (self.config.latents, code.dim(1)?);
        let context = code.narrow(1, 2 * latents, width - 2 * latents)?.contiguous()?;
        Ok((code.narrow(1, 0, 2 * latents)?.contiguous()?, context))
    }

    fn draw_of(&self, gaussian: &Tensor, context: &Tensor, noise: &Tensor) -> Result<(Tensor, Tensor)> {
        let (latents, rows) = (self.config.latents, noise.dim(0)?);
        let gaussian = repeated(gaussian, rows)?;
        let (mean, log_var) = (gaussian.narrow(1, 0, latents)?, gaussian.narrow(1, latents, latents)?);
        let start = (mean + ((log_var.clone() * 0.5)?.exp()? * noise)?)?;
        // (z₀ - mean)²/variance is the square of the noise.
        let log_q = (log_var + noise.sqr()?)?.affine(-0.5, -0.5 * LN_TAU)?.sum(D::Minus1)?;
        let Some(maps) = &self.maps else { return Ok((start, log_q)) };
        let context = if maps.groups_context() { context.clone() } else { repeated(context, rows)? };
        let (z, log_det) = maps.encode(&start, Some(&context))?;
        Ok((z, (log_q - log_det)?))
    }

    /// The logits of the pixels' probabilities, `(B, height · width)`.
    ///
    /// # Errors
    /// Latents of another length or type.
    pub fn decode(&self, z: &Tensor) -> Result<Tensor> {
        Ok(self.logits.forward(&self.decoder.forward(z)?)?)
    }

    /// The probabilities of the pixels for draws from the prior, scaled by `temperature`: `(count, height · width)`.
    ///
    /// # Errors
    /// A failure of the device.
    pub fn sample(&self, count: usize, temperature: f64, rng: &mut FlowRng) -> Result<Tensor> {
        let _paused = self.store.no_grad();
        self.probabilities(&(self.noise(count, rng)? * temperature)?)
    }

    /// The probabilities of the pixels of each image for one draw from its posterior.
    ///
    /// # Errors
    /// Images of another size or type.
    pub fn reconstruct(&self, x: &Tensor, rng: &mut FlowRng) -> Result<Tensor> {
        let _paused = self.store.no_grad();
        let (z, _) = self.draw(&self.code(x)?, &self.noise(x.dim(0)?, rng)?)?;
        self.probabilities(&z)
    }

    fn probabilities(&self, z: &Tensor) -> Result<Tensor> {
        Ok(((self.decode(z)?.neg()?.exp()? + 1.0)?.recip())?)
    }

    /// The terms of the free energy for one draw or several of each image, in the graph: as many draws of each as `noise`
    /// has rows for one of `x`.
    ///
    /// # Errors
    /// Operands that do not fit.
    pub fn terms(&self, x: &Tensor, code: &Tensor, noise: &Tensor) -> Result<Terms> {
        let (z, log_q) = self.draw(code, noise)?;
        let log_x = log_likelihood(&self.decode(&z)?, &repeated(x, z.dim(0)?)?)?;
        Ok(Terms { log_q, log_x, log_z: log_prior(&z)? })
    }

    /// The terms for one draw of each image, and the gradient of their mean annealed free energy, which is added to
    /// `gradients`.
    ///
    /// On the CPU the affine layers are differentiated by hand: their large gradients are made once and copied nowhere,
    /// and of binary images only the ones are multiplied. What is between encoder and decoder goes through the graph.
    ///
    /// # Errors
    /// Operands that do not fit.
    pub fn free_energy_backward(
        &self,
        x: &Tensor,
        noise: &Tensor,
        beta: f64,
        gradients: &mut Gradients,
    ) -> Result<Terms> {
        if !accepts(x) {
            return self.backward_by_graph(x, noise, beta, gradients);
        }
        let (h, pieces) = self.encoder.evaluate(x)?;
        // Leaves of their own: the gradient of a part of a tensor would be one of all of it.
        let (gaussian, context) = self.parts(&self.code.evaluate(&h)?)?;
        let leaves = Leaves::new(&gaussian, self.maps.as_ref().map(|_| &context))?;
        let (z, log_q) = self.draw_of(leaves.x(), leaves.context().unwrap_or(&context), noise)?;
        let log_z = log_prior(&z)?;
        let (log_x, from_decoder) = self.decoder_backward(&z.detach(), x, -beta, gradients)?;
        let rows = x.dim(0)?.max(1) as f64;
        let between = ((&log_q - (&log_z * beta)?)?.sum_all()? / rows)?;
        let (of_gaussian, of_context) = leaves.pull_back(&(between + pair(&z, &from_decoder)?)?, gradients)?;
        let of_code = match of_context {
            Some(of_context) => Tensor::cat(&[of_gaussian, of_context], 1)?,
            None => of_gaussian,
        };
        self.code.pull_back(&h, &of_code, gradients)?;
        let of_h = self.encoder.spread(&pieces, &self.code.pull_back_input(&of_code)?)?;
        self.encoder.linear().pull_back(x, &of_h, gradients)?;
        Ok(Terms { log_q: log_q.detach(), log_x, log_z: log_z.detach() })
    }

    /// `ln p(x | z)`, and the gradient of its mean times `weight`: with respect to `z` it is returned.
    fn decoder_backward(
        &self,
        z: &Tensor,
        x: &Tensor,
        weight: f64,
        gradients: &mut Gradients,
    ) -> Result<(Tensor, Tensor)> {
        let (h, pieces) = self.decoder.evaluate(z)?;
        let (log_x, residual) = with_gradient(&self.logits.evaluate(&h)?, x)?;
        let of_logits = (residual * (weight / x.dim(0)?.max(1) as f64))?;
        self.logits.pull_back(&h, &of_logits, gradients)?;
        let of_h = self.decoder.spread(&pieces, &self.logits.pull_back_input(&of_logits)?)?;
        self.decoder.linear().pull_back(z, &of_h, gradients)?;
        Ok((log_x, self.decoder.linear().pull_back_input(&of_h)?))
    }

    /// The same through Candle's graph: the specification, and the path of other devices.
    pub(super) fn backward_by_graph(
        &self,
        x: &Tensor,
        noise: &Tensor,
        beta: f64,
        gradients: &mut Gradients,
    ) -> Result<Terms> {
        let terms = self.terms(x, &self.code(x)?, noise)?;
        gradients.accumulate(&terms.free_energy(beta)?.backward()?)?;
        let Terms { log_q, log_x, log_z } = terms;
        Ok(Terms { log_q: log_q.detach(), log_x: log_x.detach(), log_z: log_z.detach() })
    }
}

/// `ln N(z; 0, I)` of each row.
fn log_prior(z: &Tensor) -> Result<Tensor> {
    Ok(z.sqr()?.affine(-0.5, -0.5 * LN_TAU)?.sum(D::Minus1)?)
}

/// All entries in f64 on the host.
pub(super) fn host(t: &Tensor) -> Result<Vec<f64>> {
    Ok(t.to_device(&Device::Cpu)?.to_dtype(DType::F64)?.flatten_all()?.to_vec1()?)
}
