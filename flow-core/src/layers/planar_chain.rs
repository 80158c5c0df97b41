//! Many planar flows as one layer, with parameters of their own or from a network.

use candle_core::{DType, Device, Tensor};

use super::amortized::{check_parameters, spread};
use super::planar::{NAME as STEP, Planar, START_PLACES, START_WIDTH, TINY};
use super::sylvester::{SLACK, TanhRoot};
use crate::bijector::{Bijector, Pullback, Tape, backprop_locally, check_batch_as, zero_log_det};
use crate::error::Direction;
use crate::kernels::planar::PlanarSteps;
use crate::kernels::{accepts, fuse, gradients as kernel_gradients};
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
        let dims = self.shape[0];
        let both = fuse(self.kernel(rows, params.dim(0)?), [x, &params])?;
        Ok((both.narrow(1, 0, dims)?.contiguous()?, both.narrow(1, dims, 1)?.squeeze(1)?.contiguous()?))
    }

    fn decode(&self, z: &Tensor, context: Option<&Tensor>) -> Result<(Tensor, Tensor)> {
        let (params, rows) = self.check(z, context)?;
        let (mut x, mut total) = (z.clone(), zero_log_det(z)?);
        if rows == 0 {
            return Ok((x, total));
        }
        for k in (0..self.steps).rev() {
            let step = Step::of(&params, k, z)?;
            let height = TanhRoot { layer: STEP, slope: &step.slope }.solve(&step.height(&x)?)?;
            let (bump, log_det) = step.bump(&height.tanh()?)?;
            (x, total) = ((x - bump)?, (total - log_det)?);
        }
        Ok((x, total))
    }

    /// Without a graph where the parameters are the context: its gradient is as large as itself, and is made once.
    fn backprop(
        &self,
        z: &Tensor,
        tape: &Tape,
        context: Option<&Tensor>,
        grad_z: &Tensor,
        grad_log_det: &Tensor,
        gradients: &mut Gradients,
    ) -> Result<Pullback> {
        if let (Tape::Input(x), None) = (tape, &self.own) {
            let (params, rows) = self.check(x, context)?;
            if rows > 0 && accepts(x) && accepts(&params) {
                let grad = Tensor::cat(&[grad_z, &grad_log_det.unsqueeze(1)?], 1)?;
                let (x, params) = (x.detach().contiguous()?, params.detach().contiguous()?);
                let chain = self.kernel(rows, params.dim(0)?);
                let [Some(grad_x), grad_context] = kernel_gradients(chain, [&x, &params], &grad.detach())? else {
                    return Err(Error::config(NAME, "the kernel returned no gradient of its input"));
                };
                return Ok(Pullback { x, grad_x, grad_context });
            }
        }
        backprop_locally(self, z, tape, context, grad_z, grad_log_det, gradients)
    }
}

#[cfg(test)]
mod tests {
    use candle_core::Var;

    use super::*;
    use crate::autodiff::pair;
    use crate::testing::numbers::{distance, normal, relative, store64, values};

    /// Value, log-determinant and the gradients of a random functional of both, fused or composed.
    fn passes(chain: &PlanarChain, x: &Var, params: &Var, fused: bool) -> [Tensor; 4] {
        let encoded = match fused {
            true => chain.encode(x.as_tensor(), Some(params.as_tensor())),
            false => chain.encode_composed(x.as_tensor(), params.as_tensor()),
        };
        let (z, log_det) = encoded.unwrap();
        let objective = pair(&z, &normal(7, z.dims())).unwrap() + pair(&log_det, &normal(8, log_det.dims())).unwrap();
        let store = objective.unwrap().backward().unwrap();
        let of = |v: &Var| store.get(v).unwrap().clone();
        [z, log_det, of(x), of(params)]
    }

    #[test]
    fn the_fused_chain_is_the_composed_one_for_every_way_to_share_parameters() {
        for (rows, groups, dims, steps) in [(6, 6, 5, 9), (6, 3, 8, 2), (40, 1, 3, 17), (1, 1, 1, 1), (12, 4, 19, 3)] {
            let chain = PlanarChain::amortized(dims, steps).unwrap();
            let x = Var::from_tensor(&normal(1, &[rows, dims])).unwrap();
            let params = Var::from_tensor(&normal(2, &[groups, chain.parameters_per_row()])).unwrap();
            let (fused, composed) = (passes(&chain, &x, &params, true), passes(&chain, &x, &params, false));
            for (what, (a, b)) in ["z", "log_det", "grad x", "grad params"].iter().zip(fused.iter().zip(&composed)) {
                assert!(relative(a, b) < 1e-11, "{what} of {rows} rows in {groups} groups: {}", relative(a, b));
            }
        }
    }

    #[test]
    fn there_is_a_context_that_moves_nothing() {
        let chain = PlanarChain::amortized(5, 80).unwrap();
        let context = chain.identity(&mut FlowRng::seed_from(4)).unwrap();
        let context = Tensor::from_vec(context, (1, chain.parameters_per_row()), &Device::Cpu).unwrap();
        let x = normal(1, &[7, 5]);
        let (z, log_det) = chain.encode(&x, Some(&context)).unwrap();
        // A hair off: the layer keeps a tiny number away from dividing by zero.
        assert!(distance(&z, &x) < 1e-9 && values(&log_det).iter().all(|l| l.abs() < 1e-9));
    }

    /// Far outside of where a network puts them too.
    #[test]
    fn the_gradient_is_that_of_finite_differences() {
        let (rows, groups, dims, steps) = (4, 2, 3, 4);
        let chain = PlanarChain::amortized(dims, steps).unwrap();
        let x = normal(1, &[rows, dims]);
        let params = (normal(2, &[groups, chain.parameters_per_row()]) * 1.5).unwrap();
        let [vx, vp] = [&x, &params].map(|t| Var::from_tensor(t).unwrap());
        let [_, _, grad_x, grad_params] = passes(&chain, &vx, &vp, true);
        let value = |x: &Tensor, params: &Tensor| {
            let (z, log_det) = chain.encode(x, Some(params)).unwrap();
            let sum = pair(&z, &normal(7, z.dims())).unwrap() + pair(&log_det, &normal(8, log_det.dims())).unwrap();
            sum.unwrap().to_scalar::<f64>().unwrap()
        };
        let moved = |t: &Tensor, i: usize, by: f64| {
            let mut entries = values(t);
            entries[i] += by;
            Tensor::from_vec(entries, t.dims(), t.device()).unwrap()
        };
        let step = 1e-5;
        for (i, &found) in values(&grad_x).iter().enumerate() {
            let slope = (value(&moved(&x, i, step), &params) - value(&moved(&x, i, -step), &params)) / (2.0 * step);
            assert!((found - slope).abs() < 1e-6 * (1.0 + slope.abs()), "x {i}: {found} {slope}");
        }
        for (i, &found) in values(&grad_params).iter().enumerate() {
            let slope = (value(&x, &moved(&params, i, step)) - value(&x, &moved(&params, i, -step))) / (2.0 * step);
            assert!((found - slope).abs() < 1e-6 * (1.0 + slope.abs()), "parameter {i}: {found} {slope}");
        }
    }

    #[test]
    fn single_precision_agrees_with_double() {
        let chain = PlanarChain::amortized(40, 80).unwrap();
        let x = normal(1, &[8, 40]);
        let params = (normal(2, &[8, chain.parameters_per_row()]) * 0.3).unwrap();
        let [x32, p32] = [&x, &params].map(|t| t.to_dtype(candle_core::DType::F32).unwrap());
        let (z, log_det) = chain.encode(&x, Some(&params)).unwrap();
        let (z32, log32) = chain.encode(&x32, Some(&p32)).unwrap();
        assert!(relative(&z32, &z) < 1e-4 && relative(&log32, &log_det) < 1e-4);
    }

    #[test]
    fn shared_parameters_are_those_of_single_layers() {
        let store = store64(3);
        let chain = PlanarChain::new(&store.root().pp("chain"), 4, 3).unwrap();
        let x = normal(1, &[5, 4]);
        let (z, log_det) = chain.encode(&x, None).unwrap();
        let (mut y, mut total, mut layers) = (x.clone(), log_det.zeros_like().unwrap(), Vec::new());
        for k in 0..3 {
            let layer = Planar::new(&store.root().pp(k), 4).unwrap();
            for name in ["u", "w", "b"] {
                let row = store.get(&format!("chain.{name}")).unwrap().var().as_detached_tensor().get(k).unwrap();
                store.get(&format!("{k}.{name}")).unwrap().set(&row).unwrap();
            }
            let (next, log) = layer.encode(&y, None).unwrap();
            (y, total) = (next, (total + log).unwrap());
            layers.push(layer);
        }
        assert!(distance(&z, &y) < 1e-12 && distance(&log_det, &total) < 1e-12);
        let (again, same) = PlanarChain::of_layers(layers).unwrap().encode(&x, None).unwrap();
        assert!(distance(&z, &again) < 1e-14 && distance(&log_det, &same) < 1e-14);
        let unequal = [2, 3].map(|dims| Planar::new(&store.root().pp(dims + 10), dims).unwrap());
        assert!(PlanarChain::of_layers(unequal.into()).is_err() && PlanarChain::of_layers(Vec::new()).is_err());
    }

    #[test]
    fn contexts_that_do_not_fit_are_refused() {
        let chain = PlanarChain::amortized(2, 3).unwrap();
        let x = normal(1, &[4, 2]);
        assert!(matches!(chain.encode(&x, None), Err(Error::Context { .. })));
        assert!(matches!(chain.encode(&x, Some(&normal(2, &[3, 15]))), Err(Error::Context { .. })));
        assert!(matches!(chain.encode(&x, Some(&normal(2, &[4, 14]))), Err(Error::Shape { .. })));
        assert!(chain.encode(&x, Some(&normal(2, &[2, 15]))).is_ok());
        assert!(PlanarChain::amortized(0, 1).is_err() && PlanarChain::amortized(1, 0).is_err());
    }
}
