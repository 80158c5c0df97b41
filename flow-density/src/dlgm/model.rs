//! Encoder, posterior and decoder.

use candle_core::{D, DType, Device, Tensor};
use flow_core::autodiff::{Leaves, pair};
use flow_core::kernels::accepts;
use flow_core::nn::{Linear, Maxout};
use flow_core::{FlowRng, Gradients, ParamStore};

use super::bernoulli::{log_likelihood, with_gradient};
use super::config::DlgmConfig;
use super::posterior::{Maps, repeated};
use crate::{Error, Result};

/// `ln 2π`.
const LN_TAU: f64 = 1.837_877_066_409_345_5;

/// `p(z) = N(0, I)`, `p(x | z) = Π_d Bernoulli(x_d; σ(l_d(z)))` and `q(z | x)`, a Gaussian that a flow bends.
///
/// ```text
/// h      = maxout(x)                       encoder, (B, hidden)
/// mean, ln variance = h W + b              D and D
/// context           = h W' + b'            what the maps take
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
    gaussian: Linear,
    maps: Option<Maps>,
    decoder: Maxout,
    logits: Linear,
}

/// What the encoder says of each of `G` images.
#[derive(Debug, Clone)]
pub struct Code {
    /// Mean and log variance behind each other, `(G, 2·latents)`.
    pub gaussian: Tensor,
    /// What the maps take, `(G, context)`; `None` of a Gaussian posterior.
    pub context: Option<Tensor>,
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
        Ok(Dlgm {
            store: store.clone(),
            config: config.clone(),
            encoder: Maxout::new(&root.pp("encoder"), config.pixels(), hidden, pieces)?,
            gaussian: Linear::uniform(&root.pp("gaussian"), hidden, 2 * latents)?,
            maps: Maps::new(&root, config)?,
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

    /// What the encoder says of each image.
    ///
    /// # Errors
    /// Images of another size or type.
    pub fn code(&self, x: &Tensor) -> Result<Code> {
        let h = self.encoder.forward(x)?;
        let context = self.maps.as_ref().map(|maps| maps.context.forward(&h)).transpose()?;
        Ok(Code { gaussian: self.gaussian.forward(&h)?, context })
    }

    /// Draws from the posterior, and `ln q(z | x)`, `(B,)`: each row of `code` makes `B/G` consecutive draws.
    ///
    /// # Errors
    /// Noise whose rows are no multiple of the codes', and a code of another model.
    pub fn draw(&self, code: &Code, noise: &Tensor) -> Result<(Tensor, Tensor)> {
        let (groups, rows) = (code.gaussian.dim(0)?, noise.dim(0)?);
        if groups == 0 || !rows.is_multiple_of(groups) {
            return Err(Error::config("noise", format!("{rows} rows for {groups} codes, which is no multiple")));
        }
        let fits = code.context.as_ref().map(|context| context.dims().first() == Some(&groups));
        if fits != self.maps.as_ref().map(|_| true) {
            return Err(Error::config("code", "is of another model: its context does not fit"));
        }
        let (start, log_q) = self.start(&code.gaussian, noise)?;
        let Some(maps) = &self.maps else { return Ok((start, log_q)) };
        let (z, log_det) = match &code.context {
            Some(context) if !maps.bijector.groups_context() => {
                maps.bijector.encode(&start, Some(&repeated(context, rows)?))?
            }
            context => maps.bijector.encode(&start, context.as_ref())?,
        };
        Ok((z, (log_q - log_det)?))
    }

    /// Draws from the Gaussians, and `ln N(z₀; mean, variance)`, `(B,)`.
    fn start(&self, gaussian: &Tensor, noise: &Tensor) -> Result<(Tensor, Tensor)> {
        let latents = self.config.latents;
        let gaussian = repeated(gaussian, noise.dim(0)?)?;
        let (mean, log_var) = (gaussian.narrow(1, 0, latents)?, gaussian.narrow(1, latents, latents)?);
        let start = (mean + ((log_var.clone() * 0.5)?.exp()? * noise)?)?;
        // (z₀ - mean)²/variance is the square of the noise.
        let log_q = (log_var + noise.sqr()?)?.affine(-0.5, -0.5 * LN_TAU)?.sum(D::Minus1)?;
        Ok((start, log_q))
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
    pub fn terms(&self, x: &Tensor, code: &Code, noise: &Tensor) -> Result<Terms> {
        let (z, log_q) = self.draw(code, noise)?;
        let log_x = log_likelihood(&self.decode(&z)?, &repeated(x, z.dim(0)?)?)?;
        Ok(Terms { log_q, log_x, log_z: log_prior(&z)? })
    }

    /// The terms for one draw of each image, and the gradient of their mean annealed free energy, which is added to
    /// `gradients`.
    ///
    /// On the CPU the affine layers are differentiated by hand: their large gradients are made once and copied nowhere,
    /// and of binary images only the ones are multiplied. The maps pull gradients back as those of a flow do.
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
        if noise.dims() != [x.dim(0)?, self.config.latents] {
            let reason = format!("of shape {:?} for {} images, of which each is drawn once", noise.dims(), x.dim(0)?);
            return Err(Error::config("noise", reason));
        }
        if !accepts(x) {
            return self.backward_by_graph(x, noise, beta, gradients);
        }
        let (h, pieces) = self.encoder.evaluate(x)?;
        // A leaf of its own, before which nothing is tracked.
        let leaf = Leaves::new(&self.gaussian.evaluate(&h)?, None)?;
        let (start, log_start) = self.start(leaf.x(), noise)?;
        let bent = self.maps.as_ref().map(|maps| maps.bend(&h, &start, gradients)).transpose()?;
        let z = bent.as_ref().map_or_else(|| start.detach(), |bent| bent.z.clone());
        let (log_x, from_decoder) = self.decoder_backward(&z, x, -beta, gradients)?;
        // The mean of ln q - β (ln p(x | z) + ln p(z)): ln p(z) has the gradient -z.
        let weight = 1.0 / x.dim(0)?.max(1) as f64;
        let of_z = (from_decoder + (&z * (beta * weight))?)?;
        let (of_start, log_q, of_h) = match (&self.maps, bent) {
            (Some(maps), Some(bent)) => {
                let log_q = (log_start.detach() - &bent.log_det)?;
                let (of_start, of_h) = maps.pull_back(&h, &bent, &of_z, weight, gradients)?;
                (of_start, log_q, Some(of_h))
            }
            _ => (of_z, log_start.detach(), None),
        };
        let objective = ((log_start.sum_all()? * weight)? + pair(&start, &of_start)?)?;
        let (of_gaussian, _) = leaf.pull_back(&objective, gradients)?;
        self.gaussian.pull_back(&h, &of_gaussian, gradients)?;
        let by_gaussian = self.gaussian.pull_back_input(&of_gaussian)?;
        let of_h = of_h.map_or_else(|| Ok(by_gaussian.clone()), |of_h| of_h + &by_gaussian)?;
        self.encoder.linear().pull_back(x, &self.encoder.spread(&pieces, &of_h)?, gradients)?;
        Ok(Terms { log_q, log_x, log_z: log_prior(&z)? })
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
