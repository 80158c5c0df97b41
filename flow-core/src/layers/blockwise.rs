//! Several bijectors side by side, and the one that does nothing.

use candle_core::Tensor;

use crate::bijector::{Bijector, check_batch, zero_log_det};
use crate::error::Direction;
use crate::{Error, FlowRng, Result};

const NAME: &str = "blockwise";

/// One bijector for each part of a vector: the first takes the first entries, and so on; log-determinants add up.
///
/// What gives the parameters of a model, of which each has its own domain, one flow: see
/// [`constraint`](crate::layers::constraint).
///
/// # Shapes
/// - event `(D_1 + … + D_n,)` of parts with events `(D_i,)`.
pub struct Blockwise {
    shape: [usize; 1],
    context_shape: Option<Vec<usize>>,
    parts: Vec<Box<dyn Bijector>>,
}

impl Blockwise {
    /// The parts in the order of the vector.
    ///
    /// # Errors
    /// [`Error::Config`] without parts, for a part over something else than vectors of one length, and for parts that want
    /// different contexts.
    pub fn new(parts: Vec<Box<dyn Bijector>>) -> Result<Self> {
        let (mut total, mut context_shape) = (0, None::<Vec<usize>>);
        for part in &parts {
            let (event, latent) = (part.event_shape(), part.latent_shape());
            let ([length], true) = (event, event == latent) else {
                let reason = format!("is over vectors; {} maps {event:?} to {latent:?}", part.name());
                return Err(Error::config(NAME, reason));
            };
            total += length;
            match (part.context_shape(), &context_shape) {
                (Some(shape), Some(known)) if shape != known => {
                    let reason = format!("{} wants a context {shape:?}, another part {known:?}", part.name());
                    return Err(Error::config(NAME, reason));
                }
                (Some(shape), _) => context_shape = Some(shape.to_vec()),
                (None, _) => {}
            }
        }
        if parts.is_empty() {
            return Err(Error::config(NAME, "needs at least one part"));
        }
        Ok(Blockwise { shape: [total], context_shape, parts })
    }

    /// The parts.
    pub fn parts(&self) -> &[Box<dyn Bijector>] {
        &self.parts
    }

    fn run(
        &self,
        input: &Tensor,
        pass: impl Fn(&dyn Bijector, &Tensor) -> Result<(Tensor, Tensor)>,
    ) -> Result<(Tensor, Tensor)> {
        if check_batch(NAME, input, &self.shape)? == 0 {
            return Ok((input.clone(), zero_log_det(input)?));
        }
        let (mut start, mut values, mut total) = (0, Vec::with_capacity(self.parts.len()), None::<Tensor>);
        for part in &self.parts {
            let length = part.event_shape().iter().product();
            let (value, log_det) = pass(part.as_ref(), &input.narrow(1, start, length)?.contiguous()?)?;
            total = Some(match total {
                None => log_det,
                Some(sum) => (sum + log_det)?,
            });
            values.push(value);
            start += length;
        }
        Ok((Tensor::cat(&values, 1)?, total.map_or_else(|| zero_log_det(input), Ok)?))
    }
}

impl Bijector for Blockwise {
    fn name(&self) -> String {
        let names: Vec<String> = self.parts.iter().map(|part| part.name()).collect();
        format!("{NAME}({})", names.join(", "))
    }

    fn event_shape(&self) -> &[usize] {
        &self.shape
    }

    fn context_shape(&self) -> Option<&[usize]> {
        self.context_shape.as_deref()
    }

    fn analytic(&self, direction: Direction) -> bool {
        self.parts.iter().all(|part| part.analytic(direction))
    }

    fn encode(&self, x: &Tensor, context: Option<&Tensor>) -> Result<(Tensor, Tensor)> {
        self.run(x, |part, x| part.encode(x, context))
    }

    fn decode(&self, z: &Tensor, context: Option<&Tensor>) -> Result<(Tensor, Tensor)> {
        self.run(z, |part, z| part.decode(z, context))
    }

    fn initialize(&self, x: &Tensor, context: Option<&Tensor>) -> Result<(Tensor, Tensor)> {
        self.run(x, |part, x| part.initialize(x, context))
    }

    fn set_training(&self, training: bool) {
        self.parts.iter().for_each(|part| part.set_training(training));
    }

    fn set_noise(&self, rng: &mut FlowRng) {
        self.parts.iter().for_each(|part| part.set_noise(rng));
    }
}

/// `z = x`: a part of [`Blockwise`] that is real already.
///
/// # Shapes
/// - any event.
#[derive(Debug, Clone)]
pub struct Identity {
    shape: Vec<usize>,
}

impl Identity {
    /// Over events of `shape`.
    pub fn new(shape: &[usize]) -> Self {
        Identity { shape: shape.to_vec() }
    }

    fn pass(&self, t: &Tensor) -> Result<(Tensor, Tensor)> {
        check_batch("identity", t, &self.shape)?;
        Ok((t.clone(), zero_log_det(t)?))
    }
}

impl Bijector for Identity {
    fn name(&self) -> String {
        "identity".into()
    }

    fn event_shape(&self) -> &[usize] {
        &self.shape
    }

    fn encode(&self, x: &Tensor, _context: Option<&Tensor>) -> Result<(Tensor, Tensor)> {
        self.pass(x)
    }

    fn decode(&self, z: &Tensor, _context: Option<&Tensor>) -> Result<(Tensor, Tensor)> {
        self.pass(z)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::layers::Scaling;
    use crate::layers::constraint::{Link, Positive};
    use crate::testing::numbers::store64;

    #[test]
    fn parts_that_do_not_fit_are_refused() {
        let image = Scaling::new(&store64(1).root(), &[2, 2]).unwrap();
        for (parts, says) in
            [(Vec::new(), "at least one part"), (vec![Box::new(image) as Box<dyn Bijector>], "over vectors")]
        {
            let error = Blockwise::new(parts).map(drop).unwrap_err().to_string();
            assert!(error.contains(says), "{error}");
        }
        let parts: Vec<Box<dyn Bijector>> =
            vec![Box::new(Identity::new(&[2])), Box::new(Positive::new(&[1], Link::Softplus))];
        let layer = Blockwise::new(parts).unwrap();
        assert_eq!((layer.name().as_str(), layer.event_shape()), ("blockwise(identity, positive)", &[3][..]));
    }
}
