//! Many planar flows as one layer, with parameters of their own or from a network.

use candle_core::{DType, Device, Tensor};

use super::amortized::{check_parameters, spread};
use super::planar::{NAME as STEP, Planar, START_PLACES, START_WIDTH, TINY};
use super::sylvester::{SLACK, TanhRoot};
use crate::autodiff::pair;
use crate::bijector::{
    Bijector, Pullback, Tape, backprop_decode_locally, backprop_locally, check_batch_as, zero_log_det,
};
use crate::error::Direction;
use crate::kernels::planar::{Inverted, PlanarSteps, Pulled};
use crate::kernels::{Real, accepts, fuse, gradients as kernel_gradients, read};
use crate::numerics::host;
use crate::numerics::softmax::log_sigmoid;
use crate::param::{Init, Param, ParamPath};
use crate::{Error, FlowRng, Gradients, Result};

const NAME: &str = "planar chain";

/// `K` planar maps one after the other, `x ← x + û_k·tanh(w_kᵀx + b_k)`, with the constraint and the log-determinant of
/// [`Planar`](super::Planar) (Rezende & Mohamed 2015, arXiv 1505.05770, equations 10 to 13 and appendix A.1).
///
/// On the CPU the chain is one operation, forward and backward: its arithmetic is small, and as `K` layers of a dozen
/// tensor operations each it is overhead that takes the time.
///
/// # Amortized
/// The parameters belong to the layer ([`PlanarChain::new`], [`PlanarChain::of_layers`]), or are the context ([`PlanarChain::amortized`]): then a
/// network gives every row, or every few consecutive rows, a chain of its own, which is how the paper makes flows the
/// posteriors of a model with a latent for each data point (section 4). Amortized parameters have the order `u_1`, `w_1`,
/// `b_1`, `u_2`, …
///
/// # Directions
/// As for [`Planar`](super::Planar): encode is the closed form, decode solves for each step and row by Newton's method
/// inside a bracket. A posterior draws from its base and *encodes*.
///
/// # Shapes
/// - event `(D,)`; context `(K·(2D + 1),)` if amortized, which may have fewer rows than the batch
///   ([`Bijector::groups_context`]), ignored otherwise.
#[derive(Debug)]
pub struct PlanarChain {
    shape: [usize; 1],
    steps: usize,
    width: [usize; 1],
    own: Option<Own>,
}

/// Parameters that all rows share.
#[derive(Debug)]
enum Own {
    /// `u` and `w`, `(K, D)`, and `b`, `(K, 1)`.
    Stacked { u: Param, w: Param, b: Param },
    /// Those of layers.
    Layers(Vec<Planar>),
}

impl Own {
    /// In the order of amortized ones, `(1, K·(2D + 1))`.
    fn row(&self) -> Result<Tensor> {
        let row = match self {
            Own::Stacked { u, w, b } => Tensor::cat(&[u.tensor(), w.tensor(), b.tensor()], 1)?,
            Own::Layers(layers) => {
                let all: Vec<_> = layers.iter().flat_map(Planar::parameters).map(Param::tensor).collect();
                Tensor::cat(&all, 0)?
            }
        };
        Ok(row.reshape((1, ()))?)
    }
}

impl PlanarChain {
    /// `steps` maps of vectors of length `dims`, with parameters `u`, `w` and `b` under `path`, which start like those of
    /// [`Planar`](super::Planar).
    ///
    /// # Errors
    /// [`Error::Config`] without dimensions or steps.
    pub fn new(path: &ParamPath, dims: usize, steps: usize) -> Result<Self> {
        let chain = Self::amortized(dims, steps)?;
        let own = Own::Stacked {
            u: path.param("u", (steps, dims), Init::Normal(0.1))?,
            w: path.param("w", (steps, dims), Init::Normal(START_WIDTH / (dims as f64).sqrt()))?,
            b: path.param("b", (steps, 1), Init::Uniform(START_PLACES))?,
        };
        Ok(PlanarChain { own: Some(own), ..chain })
    }

    /// The maps of these layers one after the other, with their parameters: what they are together, in one operation.
    ///
    /// # Errors
    /// [`Error::Config`] without layers, or for layers over vectors of different lengths.
    pub fn of_layers(layers: Vec<Planar>) -> Result<Self> {
        let lengths: Vec<usize> = layers.iter().map(|layer| layer.event_shape()[0]).collect();
        let dims = lengths.first().copied().unwrap_or(0);
        if lengths.iter().any(|&length| length != dims) {
            return Err(Error::config(NAME, format!("layers over vectors of one length are needed, got {lengths:?}")));
        }
        Ok(PlanarChain { own: Some(Own::Layers(layers)), ..Self::amortized(dims, lengths.len())? })
    }

    /// `steps` maps of vectors of length `dims` whose parameters are the context.
    ///
    /// # Errors
    /// [`Error::Config`] without dimensions or steps.
    pub fn amortized(dims: usize, steps: usize) -> Result<Self> {
        if dims == 0 || steps == 0 {
            let reason = format!("needs at least one dimension and one step, got {dims} and {steps}");
            return Err(Error::config(NAME, reason));
        }
        Ok(PlanarChain { shape: [dims], steps, width: [steps * (2 * dims + 1)], own: None })
    }

    /// `K·(2D + 1)`: how many parameters a row has.
    pub fn parameters_per_row(&self) -> usize {
        self.width[0]
    }

    /// Parameters by which every map is the identity, in the order of amortized ones: `w` and `b` drawn as those of
    /// [`Planar`] begin, and `u` along `w` where the constraint makes zero of it, `wᵀu = ln(e^(1 - 10⁻³) - 1)`.
    ///
    /// With `u = 0` a map contracts along `w`, and many of them leave little of what they are given. A network whose last
    /// layer begins with this bias and small weights makes posteriors that begin as their base, however many maps there are.
    pub fn identity(&self, rng: &mut FlowRng) -> Result<Vec<f64>> {
        let dims = self.shape[0];
        let directions = rng.normal((self.steps, dims), DType::F64, &Device::Cpu)?.to_vec2::<f64>()?;
        let places = rng.uniform(self.steps, DType::F64, &Device::Cpu)?.to_vec1::<f64>()?;
        let along = (1.0 - SLACK).exp_m1().ln();
        let mut parameters = Vec::with_capacity(self.width[0]);
        for (direction, place) in directions.into_iter().zip(places) {
            let w: Vec<f64> = direction.into_iter().map(|w| w * START_WIDTH / (dims as f64).sqrt()).collect();
            let square = w.iter().map(|w| w * w).sum::<f64>() + TINY;
            parameters.extend(w.iter().map(|w| along * w / square));
            parameters.extend(w);
            parameters.push(START_PLACES * (2.0 * place - 1.0));
        }
        Ok(parameters)
    }

    /// The parameters, `(G, K·(2D + 1))`, where `x` and they fit each other, and the number of rows.
    fn check(&self, x: &Tensor, context: Option<&Tensor>) -> Result<(Tensor, usize)> {
        if let Some(own) = &self.own {
            let params = own.row()?;
            let batch = check_batch_as(NAME, x, &self.shape, params.dtype())?;
            return Ok((params, batch));
        }
        let (batch, context) = check_parameters(NAME, x, &self.shape, context, &self.width)?;
        Ok((context.clone(), batch))
    }

    fn kernel(&self, rows: usize, groups: usize) -> PlanarSteps {
        PlanarSteps { rows, dims: self.shape[0], steps: self.steps, groups, slack: SLACK, tiny: TINY }
    }

    /// The chain in operations of Candle: what the fused one is held against, and the path of other devices.
    fn encode_composed(&self, x: &Tensor, params: &Tensor) -> Result<(Tensor, Tensor)> {
        let (mut z, mut total) = (x.clone(), zero_log_det(x)?);
        for k in 0..self.steps {
            let step = Step::of(params, k, x)?;
            let (bump, log_det) = step.bump(&step.height(&z)?.tanh()?)?;
            (z, total) = ((z + bump)?, (total + log_det)?);
        }
        Ok((z, total))
    }

    /// As [`PlanarChain::encode_composed`], of the inverse.
    fn decode_composed(&self, z: &Tensor, params: &Tensor) -> Result<(Tensor, Tensor)> {
        let (mut x, mut total) = (z.clone(), zero_log_det(z)?);
        for k in (0..self.steps).rev() {
            let step = Step::of(params, k, z)?;
            let height = TanhRoot { layer: STEP, slope: &step.slope }.solve(&step.height(&x)?)?;
            let (bump, log_det) = step.bump(&height.tanh()?)?;
            (x, total) = ((x - bump)?, (total - log_det)?);
        }
        Ok((x, total))
    }

    /// Rows and log-determinants of what the kernels return, `(B, D + 1)`.
    fn apart(&self, both: &Tensor) -> Result<(Tensor, Tensor)> {
        let dims = self.shape[0];
        Ok((both.narrow(1, 0, dims)?.contiguous()?, both.narrow(1, dims, 1)?.squeeze(1)?.contiguous()?))
    }

    /// Refuses rows without an inverse, whose log-determinants are no numbers.
    fn check_found(&self, log_det: &Tensor) -> Result<()> {
        let found = host::numbers(log_det)?;
        let rows: Vec<usize> = (0..found.len()).filter(|&row| found[row].is_nan()).collect();
        if rows.is_empty() {
            return Ok(());
        }
        let reason = "no row has this image; are input and parameters finite?".into();
        Err(Error::NotInvertible { layer: NAME.into(), direction: Direction::Decode, rows, reason })
    }

    /// The gradients of a pass's value and of its log-determinants, beside each other, `(B, D + 1)`.
    fn cotangents(&self, x: &Tensor, grad_value: &Tensor, grad_log_det: &Tensor) -> Result<Tensor> {
        let rows = x.dim(0)?;
        let fits = grad_value.dims() == x.dims() && grad_log_det.dims() == [rows];
        if !fits || grad_value.dtype() != x.dtype() || grad_log_det.dtype() != x.dtype() {
            let expected = format!("{:?} and [{rows}] of {:?}", x.dims(), x.dtype());
            let actual = [grad_value.dims(), grad_log_det.dims()].concat();
            return Err(Error::Shape { layer: format!("{NAME} (gradients)"), expected, actual });
        }
        Ok(Tensor::cat(&[grad_value, &grad_log_det.unsqueeze(1)?], 1)?.detach())
    }

    /// What is done with the gradient of the parameters: where they are the layer's own it is added to `gradients`, else it
    /// is that of the context.
    fn hand_on(&self, grad_params: Tensor, gradients: &mut Gradients) -> Result<Option<Tensor>> {
        let Some(own) = &self.own else { return Ok(Some(grad_params)) };
        gradients.accumulate(&pair(&own.row()?, &grad_params)?.backward()?)?;
        Ok(None)
    }

    /// The images of the rows `x`, and the gradients of the inverse there for that of its value, `(B, D + 1)`.
    fn pull_back_inverse<T: Real>(&self, x: &Tensor, params: &Tensor, grad: &Tensor) -> Result<[Tensor; 3]> {
        let steps = self.kernel(x.dim(0)?, params.dim(0)?);
        let Pulled { z, grad_z, grad_params } = read::<T, _>(x, |x| {
            read::<T, _>(params, |params| read::<T, _>(grad, |grad| Ok(steps.pull_back_inverse([x, params], grad))))
        })?;
        let like = |values: Vec<T>, of: &Tensor| Tensor::from_vec(values, of.dims(), of.device());
        Ok([like(z, x)?, like(grad_z, x)?, like(grad_params, params)?])
    }
}

/// The constrained parameters of one map, for every row: `w` and `û`, `(B, D)`, `b` and `wᵀû`, `(B,)`.
struct Step {
    w: Tensor,
    u: Tensor,
    b: Tensor,
    slope: Tensor,
}

impl Step {
    fn of(params: &Tensor, k: usize, x: &Tensor) -> Result<Self> {
        let (rows, dims) = x.dims2()?;
        let start = k * (2 * dims + 1);
        let part = |at: usize, len: usize| spread(params, rows, start + at, len);
        let (u, w, b) = (part(0, dims)?, part(dims, dims)?, part(2 * dims, 1)?.squeeze(1)?);
        let along = (&w * &u)?.sum_keepdim(1)?;
        // ln(1 + eᵃ) = -ln σ(-a).
        let wanted = (log_sigmoid(&along.neg()?)?.neg()? - (1.0 - SLACK))?;
        let shift = ((wanted - &along)? / (w.sqr()?.sum_keepdim(1)? + TINY)?)?;
        let u = (u + w.broadcast_mul(&shift)?)?;
        let slope = (&w * &u)?.sum(1)?;
        Ok(Step { w, u, b, slope })
    }

    /// `wᵀx + b`, `(B,)`.
    fn height(&self, x: &Tensor) -> Result<Tensor> {
        Ok(((x * &self.w)?.sum(1)? + &self.b)?)
    }

    /// `û·h`, `(B, D)`, and `ln(1 + wᵀû·(1 - h²))`, `(B,)`.
    fn bump(&self, h: &Tensor) -> Result<(Tensor, Tensor)> {
        let log = ((h.sqr()?.affine(-1.0, 1.0)? * &self.slope)? + 1.0)?.log()?;
        Ok((self.u.broadcast_mul(&h.unsqueeze(1)?)?, log))
    }
}

impl Bijector for PlanarChain {
    fn name(&self) -> String {
        format!("{NAME} of {}", self.steps)
    }

    fn event_shape(&self) -> &[usize] {
        &self.shape
    }

    fn context_shape(&self) -> Option<&[usize]> {
        self.own.is_none().then_some(&self.width)
    }

    fn groups_context(&self) -> bool {
        self.own.is_none()
    }

    fn analytic(&self, direction: Direction) -> bool {
        direction == Direction::Encode
    }

    fn encode(&self, x: &Tensor, context: Option<&Tensor>) -> Result<(Tensor, Tensor)> {
        let (params, rows) = self.check(x, context)?;
        if rows == 0 {
            return Ok((x.clone(), zero_log_det(x)?));
        }
        if !(accepts(x) && accepts(&params)) {
            return self.encode_composed(x, &params);
        }
        self.apart(&fuse(self.kernel(rows, params.dim(0)?), [x, &params])?)
    }

    fn decode(&self, z: &Tensor, context: Option<&Tensor>) -> Result<(Tensor, Tensor)> {
        let (params, rows) = self.check(z, context)?;
        if rows == 0 {
            return Ok((z.clone(), zero_log_det(z)?));
        }
        if !(accepts(z) && accepts(&params)) {
            return self.decode_composed(z, &params);
        }
        let both = fuse(Inverted::new(self.kernel(rows, params.dim(0)?)), [z, &params])?;
        let (x, log_det) = self.apart(&both)?;
        self.check_found(&log_det)?;
        Ok((x, log_det))
    }

    /// Without a graph of the chain: the gradient of parameters that are the context is as large as themselves, and is made
    /// once.
    fn backprop(
        &self,
        z: &Tensor,
        tape: &Tape,
        context: Option<&Tensor>,
        grad_z: &Tensor,
        grad_log_det: &Tensor,
        gradients: &mut Gradients,
    ) -> Result<Pullback> {
        let Tape::Input(x) = tape else {
            return backprop_locally(self, z, tape, context, grad_z, grad_log_det, gradients);
        };
        let (params, rows) = self.check(x, context)?;
        if rows == 0 || !(accepts(x) && accepts(&params)) {
            return backprop_locally(self, z, tape, context, grad_z, grad_log_det, gradients);
        }
        let grad = self.cotangents(x, grad_z, grad_log_det)?;
        let operands = [&x.detach().contiguous()?, &params.detach().contiguous()?];
        let pulled = kernel_gradients(self.kernel(rows, params.dim(0)?), operands, &grad)?;
        let [Some(grad_x), Some(grad_params)] = pulled else {
            return Err(Error::config(NAME, "the kernel returned no gradients"));
        };
        Ok(Pullback { x: x.detach(), grad_x, grad_context: self.hand_on(grad_params, gradients)? })
    }

    /// In closed form, since the row that was found is at hand.
    fn backprop_decode(
        &self,
        x: &Tensor,
        tape: &Tape,
        context: Option<&Tensor>,
        grad_x: &Tensor,
        grad_log_det: &Tensor,
        gradients: &mut Gradients,
    ) -> Result<Pullback> {
        let (params, rows) = self.check(x, context)?;
        let known = matches!(tape, Tape::Inverse | Tape::Input(_));
        if rows == 0 || !known || !(accepts(x) && accepts(&params)) {
            return backprop_decode_locally(self, x, tape, context, grad_x, grad_log_det, gradients);
        }
        let grad = self.cotangents(x, grad_x, grad_log_det)?;
        let [z, grad_z, grad_params] = match x.dtype() {
            DType::F64 => self.pull_back_inverse::<f64>(x, &params, &grad)?,
            _ => self.pull_back_inverse::<f32>(x, &params, &grad)?,
        };
        Ok(Pullback { x: z, grad_x: grad_z, grad_context: self.hand_on(grad_params, gradients)? })
    }
}

#[cfg(test)]
#[path = "planar_chain_tests.rs"]
mod tests;
