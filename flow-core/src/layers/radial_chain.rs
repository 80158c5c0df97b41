//! Many radial flows as one layer, with parameters of their own or from a network.

use candle_core::Tensor;

use super::amortized::{check_parameters, spread};
use super::radial::Ball;
use crate::bijector::{Bijector, check_batch_as, zero_log_det};
use crate::error::Direction;
use crate::param::{Init, Param, ParamPath};
use crate::{Error, Result};

const NAME: &str = "radial chain";

/// `K` radial maps one after the other, each that of [`Radial`](super::Radial) (Rezende & Mohamed 2015, arXiv 1505.05770,
/// equation 14 and appendix A.2).
///
/// # Amortized
/// The parameters belong to the layer ([`RadialChain::new`]), or are the context ([`RadialChain::amortized`]): step by step
/// the centre and the raw `α` and `β`, of which zeros make the identity.
///
/// # Directions
/// As for [`Radial`](super::Radial): encode is the closed form, decode a root for each step and row. A posterior draws from
/// its base and *encodes*.
///
/// # Shapes
/// - event `(D,)`; context `(K·(D + 2),)` if amortized, which may have fewer rows than the batch
///   ([`Bijector::groups_context`]), ignored otherwise.
#[derive(Debug)]
pub struct RadialChain {
    shape: [usize; 1],
    steps: usize,
    width: [usize; 1],
    own: Option<Own>,
}

/// Parameters that all rows share: `(K, D)`, and `(K, 1)` twice.
#[derive(Debug)]
struct Own {
    centre: Param,
    alpha: Param,
    beta: Param,
}

impl RadialChain {
    /// `steps` maps of vectors of length `dims`, with parameters `centre`, `alpha` and `beta` under `path`, which start like
    /// those of [`Radial`](super::Radial).
    ///
    /// # Errors
    /// [`Error::Config`] without dimensions or steps.
    pub fn new(path: &ParamPath, dims: usize, steps: usize) -> Result<Self> {
        let chain = Self::amortized(dims, steps)?;
        let own = Own {
            centre: path.param("centre", (steps, dims), Init::Normal(1.0))?,
            alpha: path.param("alpha", (steps, 1), Init::Uniform(1.0))?,
            beta: path.param("beta", (steps, 1), Init::Uniform(1.0))?,
        };
        Ok(RadialChain { own: Some(own), ..chain })
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
        Ok(RadialChain { shape: [dims], steps, width: [steps * (dims + 2)], own: None })
    }

    /// `K·(D + 2)`: how many parameters a row has.
    pub fn parameters_per_row(&self) -> usize {
        self.width[0]
    }

    /// The maps in encode order, each with a row of parameters for every row of `x`, or with one for all.
    fn balls(&self, x: &Tensor, context: Option<&Tensor>) -> Result<Vec<Ball>> {
        let dims = self.shape[0];
        if let Some(Own { centre, alpha, beta }) = &self.own {
            check_batch_as(NAME, x, &self.shape, alpha.dtype())?;
            let (centre, alpha, beta) = (centre.tensor(), alpha.tensor(), beta.tensor());
            let ball = |k| Ball::new(centre.narrow(0, k, 1)?, &alpha.get(k)?, &beta.get(k)?);
            return (0..self.steps).map(ball).collect();
        }
        let (rows, params) = check_parameters(NAME, x, &self.shape, context, &self.width)?;
        let ball = |k| {
            let start = k * (dims + 2);
            let raw = |at: usize| -> Result<Tensor> { Ok(spread(params, rows, start + dims + at, 1)?.squeeze(1)?) };
            Ball::new(spread(params, rows, start, dims)?, &raw(0)?, &raw(1)?)
        };
        (0..self.steps).map(ball).collect()
    }
}

impl Bijector for RadialChain {
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
        let (mut z, mut total) = (x.clone(), zero_log_det(x)?);
        for ball in self.balls(x, context)? {
            let (next, log_det) = ball.encode(&z)?;
            (z, total) = (next, (total + log_det)?);
        }
        Ok((z, total))
    }

    fn decode(&self, z: &Tensor, context: Option<&Tensor>) -> Result<(Tensor, Tensor)> {
        let (mut x, mut total) = (z.clone(), zero_log_det(z)?);
        for ball in self.balls(z, context)?.iter().rev() {
            let (next, log_det) = ball.decode(&x)?;
            (x, total) = (next, (total + log_det)?);
        }
        Ok((x, total))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::layers::Radial;
    use crate::testing::numbers::{distance, normal, store64};

    #[test]
    fn zeros_are_the_identity_and_shared_parameters_are_those_of_single_layers() {
        let chain = RadialChain::amortized(4, 3).unwrap();
        let x = normal(1, &[6, 4]);
        let zeros = Tensor::zeros((2, chain.parameters_per_row()), x.dtype(), x.device()).unwrap();
        let (z, log_det) = chain.encode(&x, Some(&zeros)).unwrap();
        assert!(distance(&z, &x) < 1e-14 && distance(&log_det, &log_det.zeros_like().unwrap()) < 1e-14);

        let store = store64(3);
        let own = RadialChain::new(&store.root().pp("chain"), 4, 2).unwrap();
        let (mut y, mut total) = (x.clone(), log_det.zeros_like().unwrap());
        let (mut rows, names) = (Vec::new(), ["centre", "alpha", "beta"]);
        for k in 0..2 {
            let layer = Radial::new(&store.root().pp(k), 4).unwrap();
            for name in names {
                let row = store.get(&format!("chain.{name}")).unwrap().var().as_detached_tensor().get(k).unwrap();
                store.get(&format!("{k}.{name}")).unwrap().set(&row).unwrap();
                rows.push(row);
            }
            let (next, log) = layer.encode(&y, None).unwrap();
            (y, total) = (next, (total + log).unwrap());
        }
        let (z, log_det) = own.encode(&x, None).unwrap();
        assert!(distance(&z, &y) < 1e-12 && distance(&log_det, &total) < 1e-12);
        // The same parameters as a context for all rows.
        let context = Tensor::cat(&rows, 0).unwrap().unsqueeze(0).unwrap();
        let amortized = RadialChain::amortized(4, 2).unwrap();
        let (z, log_det) = amortized.encode(&x, Some(&context)).unwrap();
        assert!(distance(&z, &y) < 1e-12 && distance(&log_det, &total) < 1e-12);
    }
}
