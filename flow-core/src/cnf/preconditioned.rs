//! A field that knows the straight part of the velocity.

use candle_core::Tensor;

use super::field::squared_error_of_values;
use super::{VectorField, groups};
use crate::Result;
use crate::autodiff::pair;

/// A field plus, if it has an end time `T`, the linear velocity that matches Gaussian data of zero mean and unit variance.
///
/// On the path `x_t = (1 - s)·x + s·ε` with `s = t/T` the best linear guess of its velocity `(ε - x)/T` from `x_t` is
///
/// `a(s)·x_t/T`, `a(s) = (2s - 1)/(s² + (1 - s)²)`.
///
/// What is left for the network is bounded at the end of the noise, where a network of bounded nonlinearities would
/// otherwise have to return `x` itself. It is the preconditioning of Karras et al. 2022 (arXiv 2206.00364, section 5) for the velocity of flow matching.
///
/// # Shapes
/// As for every [`VectorField`].
#[derive(Debug)]
pub struct Preconditioned<F> {
    field: F,
    end_time: Option<f64>,
}

impl<F: VectorField> Preconditioned<F> {
    /// `field` with the linear part for paths that end at `end_time`; without it where that is `None`.
    pub fn new(field: F, end_time: Option<f64>) -> Self {
        Preconditioned { field, end_time }
    }

    /// The factor of every row, `(B, 1)`.
    fn rate(&self, t: &Tensor, x: &Tensor) -> Result<Option<Tensor>> {
        let Some(end_time) = self.end_time else { return Ok(None) };
        let (rows, count) = (x.dim(0)?, t.elem_count());
        let per_group = groups("preconditioned field", rows, count)?;
        let s = (t / end_time)?;
        let variance = (s.sqr()? + s.affine(-1.0, 1.0)?.sqr()?)?;
        let rate = (s.affine(2.0, -1.0)? / variance)?.affine(1.0 / end_time, 0.0)?;
        Ok(Some(rate.reshape((count, 1))?.broadcast_as((count, per_group))?.reshape((rows, 1))?))
    }
}

fn scaled(v: &Tensor, rate: &Tensor) -> Result<Tensor> {
    Ok(v.broadcast_mul(rate)?)
}

impl<F: VectorField> VectorField for Preconditioned<F> {
    fn name(&self) -> String {
        self.field.name()
    }

    fn dim(&self) -> usize {
        self.field.dim()
    }

    fn context_dim(&self) -> Option<usize> {
        self.field.context_dim()
    }

    fn needs_no_pieces(&self, x: &Tensor) -> bool {
        self.field.needs_no_pieces(x)
    }

    fn value(&self, t: &Tensor, x: &Tensor, context: Option<&Tensor>) -> Result<Tensor> {
        let value = self.field.value(t, x, context)?;
        match self.rate(t, x)? {
            Some(rate) => Ok((value + scaled(x, &rate)?)?),
            None => Ok(value),
        }
    }

    fn jvp(&self, t: &Tensor, x: &Tensor, v: &[Tensor], context: Option<&Tensor>) -> Result<(Tensor, Vec<Tensor>)> {
        let (value, products) = self.field.jvp(t, x, v, context)?;
        let Some(rate) = self.rate(t, x)? else { return Ok((value, products)) };
        let add = |(product, v): (Tensor, &Tensor)| Ok((product + scaled(v, &rate)?)?);
        let products = products.into_iter().zip(v).map(add).collect::<Result<_>>()?;
        Ok(((value + scaled(x, &rate)?)?, products))
    }

    fn pairing(
        &self,
        t: &Tensor,
        x: &Tensor,
        v: &[Tensor],
        context: Option<&Tensor>,
        cotangents: &[Tensor],
    ) -> Result<(Tensor, Tensor)> {
        let (mut objective, value) = self.field.pairing(t, x, v, context, cotangents)?;
        let Some(rate) = self.rate(t, x)? else { return Ok((objective, value)) };
        for (argument, cotangent) in [x].into_iter().chain(v).zip(cotangents) {
            objective = (objective + pair(&scaled(argument, &rate)?, cotangent)?)?;
        }
        Ok((objective, (value + scaled(&x.detach(), &rate.detach())?)?))
    }

    fn squared_error(&self, t: &Tensor, x: &Tensor, context: Option<&Tensor>, target: &Tensor) -> Result<Tensor> {
        let Some(rate) = self.rate(t, x)? else { return self.field.squared_error(t, x, context, target) };
        if x.track_op() || t.track_op() {
            return squared_error_of_values(self, t, x, context, target);
        }
        // The linear part is fixed: what the network should return is the rest.
        self.field.squared_error(t, x, context, &(target - scaled(x, &rate)?)?)
    }
}

#[cfg(test)]
mod tests {
    use candle_core::{DType, Device, Var};

    use super::*;
    use crate::ParamStore;
    use crate::cnf::ode::{Method, SolveOptions, Stepping, solve};
    use crate::cnf::{ConcatSquash, ConcatSquashConfig};
    use crate::testing::numbers::{distance, normal};

    const END_TIME: f64 = 2.0;

    fn field(store: &ParamStore) -> Preconditioned<ConcatSquash> {
        let inner = ConcatSquash::new(&store.root(), 2, Some(3), &ConcatSquashConfig::new(&[6, 5])).unwrap();
        Preconditioned::new(inner, Some(END_TIME))
    }

    /// Two groups of three rows.
    fn setting() -> (Tensor, Tensor, Tensor, Vec<Tensor>, Vec<Tensor>) {
        let t = Tensor::new(&[0.3, 1.7], &Device::Cpu).unwrap();
        let vectors = |seeds: [u64; 2]| seeds.map(|seed| normal(seed, &[6, 2])).to_vec();
        (
            t,
            normal(1, &[6, 2]),
            normal(2, &[2, 3]),
            vectors([3, 4]),
            [vectors([5, 6]), vec![normal(7, &[6, 2])]].concat(),
        )
    }

    #[test]
    fn products_are_those_of_finite_differences() {
        let field = field(&ParamStore::new(0, DType::F64, &Device::Cpu));
        let (t, x, z, v, _) = setting();
        let (value, products) = field.jvp(&t, &x, &v, Some(&z)).unwrap();
        let at = |by: f64, v: &Tensor| field.value(&t, &(&x + (v * by).unwrap()).unwrap(), Some(&z)).unwrap();
        assert!(distance(&value, &at(0.0, &v[0])) < 1e-12);
        for (v, product) in v.iter().zip(&products) {
            let numeric = ((at(1e-5, v) - at(-1e-5, v)).unwrap() / 2e-5).unwrap();
            assert!(distance(&numeric, product) < 1e-8);
        }
    }

    #[test]
    fn one_sweep_agrees_with_values_and_products() {
        let store = ParamStore::new(0, DType::F64, &Device::Cpu);
        let field = field(&store);
        let (t, x, z, v, c) = setting();
        let (t, moving) = (Var::from_tensor(&t).unwrap(), Var::from_tensor(&x).unwrap());
        let (value, products) = field.jvp(&t, &moving, &v, Some(&z)).unwrap();
        let terms = [&value].into_iter().chain(&products).zip(&c).map(|(a, b)| pair(a, b).unwrap());
        let wanted = terms.reduce(|a, b| (a + b).unwrap()).unwrap();
        let (found, detached) = field.pairing(&t, &moving, &v, Some(&z), &c).unwrap();
        assert!(distance(&found, &wanted) < 1e-10 && distance(&detached, &value) < 1e-12);
        let errors = |x: &Tensor, t: &Tensor| {
            let found = field.squared_error(t, x, Some(&z), &c[0]).unwrap();
            let value = field.value(t, x, Some(&z)).unwrap();
            (found, (value - &c[0]).unwrap().sqr().unwrap().sum_all().unwrap())
        };
        let moved = errors(&moving, &t);
        for (found, wanted) in [(found, wanted), moved, errors(&x, &t.as_detached_tensor())] {
            assert!(distance(&found, &wanted) < 1e-10);
            let (a, b) = (found.backward().unwrap(), wanted.backward().unwrap());
            let arguments = [moving.as_tensor(), t.as_tensor()].into_iter().cloned();
            for tensor in store.trainable().iter().map(|p| p.var().as_tensor().clone()).chain(arguments) {
                match (a.get(&tensor), b.get(&tensor)) {
                    (Some(a), Some(b)) => assert!(distance(a, b) < 1e-9),
                    (a, b) => assert_eq!(a.is_some(), b.is_some()),
                }
            }
        }
    }

    /// The linear part alone moves a standard normal through narrower ones back to itself: every point returns.
    #[test]
    fn gaussian_data_are_matched_without_a_network() {
        let store = ParamStore::new(0, DType::F64, &Device::Cpu);
        let field = field(&store);
        store.trainable().iter().for_each(|p| p.set(&p.tensor().zeros_like().unwrap()).unwrap());
        let (x, z) = (normal(1, &[6, 2]), normal(2, &[2, 3]));
        let mut velocity = |t: f64, x: &Tensor| field.value(&Tensor::new(&[t], &Device::Cpu).unwrap(), x, Some(&z));
        let options = SolveOptions { method: Method::Rk4, stepping: Stepping::fixed(40), ..SolveOptions::default() };
        let half = solve(&mut velocity, &x, [END_TIME, 0.5 * END_TIME], &options).unwrap().y;
        assert!(distance(&half, &(&x * 0.5_f64.sqrt()).unwrap()) < 1e-6);
        let data = solve(&mut velocity, &half, [0.5 * END_TIME, 0.0], &options).unwrap().y;
        assert!(distance(&data, &x) < 1e-6);
    }
}
