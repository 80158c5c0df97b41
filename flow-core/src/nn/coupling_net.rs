//! The coupling network of the Glow authors' code: 3×3 → 1×1 → 3×3 convolutions.

use candle_core::{DType, Tensor};

use super::statistics::whitening;
use super::zero_conv::{edge_conv, norm};
use super::{Conditioner, Evaluation};
use crate::kernels::coupling_net::{self as kernel, Folded, Shape};
use crate::kernels::{Fused, Real, accepts, fuse};
use crate::param::{Init, Param, ParamPath};
use crate::{Error, Gradients, Result};

/// `h₁ = relu(an(conv₃(x)))`, `h₂ = relu(an(conv₁(h₁)))`, `out = conv₃(h₂) · exp(3 l)`.
///
/// As in the authors' code and unlike most ports: activation normalization `(· + b)·exp(3 l)` with
/// data-dependent initialisation follows both hidden convolutions, every 3×3 convolution sees one more
/// channel that is one on the zero padding and zero inside (the edge indicator), and the last
/// convolution starts at zero, so that the coupling starts as the identity up to a constant
/// (Kingma & Dhariwal 2018, sections 3.3 and B).
///
/// On the CPU one fused kernel computes the whole network; [`CouplingNet::composed`] is its
/// specification and the path of other devices.
///
/// # Shapes
/// - `x`: `(B, C, H, W)`; output `(B, O, H, W)`.
#[derive(Debug)]
pub struct CouplingNet {
    shape: Shape,
    params: [Param; 9],
}

/// Standard deviation of the hidden weights at the start.
const WEIGHT_STD: f64 = 0.05;

impl CouplingNet {
    /// A network from `inputs` to `outputs` channels with two hidden layers of `hidden` channels, over
    /// samples of `height × width`.
    ///
    /// # Errors
    /// [`Error::Config`] when a size is zero.
    pub fn new(
        path: &ParamPath,
        inputs: usize,
        hidden: usize,
        outputs: usize,
        [height, width]: [usize; 2],
    ) -> Result<Self> {
        let shape = Shape { inputs, hidden, outputs, height, width };
        if [inputs, hidden, outputs, height, width].contains(&0) {
            return Err(Error::config("coupling network", format!("no size may be zero: {shape:?}")));
        }
        let zero = Init::Const(0.0);
        let params = [
            path.param("w1", (hidden, inputs + 1, 3, 3), Init::Normal(WEIGHT_STD))?,
            path.param("b1", hidden, zero)?,
            path.param("l1", hidden, zero)?,
            path.param("w2", (hidden, hidden), Init::Normal(WEIGHT_STD))?,
            path.param("b2", hidden, zero)?,
            path.param("l2", hidden, zero)?,
            path.param("w3", (outputs, hidden + 1, 3, 3), zero)?,
            path.param("b3", outputs, zero)?,
            path.param("l3", outputs, zero)?,
        ];
        Ok(CouplingNet { shape, params })
    }

    fn check(&self, x: &Tensor) -> Result<()> {
        let s = &self.shape;
        crate::bijector::check_batch_as("coupling network", x, &[s.inputs, s.height, s.width], self.params[0].dtype())
            .map(drop)
    }

    /// The same network in Candle's operations.
    pub fn composed(&self, x: &Tensor) -> Result<Tensor> {
        self.check(x)?;
        let [w1, b1, l1, w2, b2, l2, w3, b3, l3] = self.params.each_ref().map(Param::tensor);
        let h = norm(&edge_conv(x, &w1)?, &b1, &l1)?.relu()?;
        let h = norm(&pointwise(&h, &w2)?, &b2, &l2)?.relu()?;
        norm(&edge_conv(&h, &w3)?, &b3, &l3)
    }

    /// All parameters one after the other: the second argument of the fused operation.
    fn packed(&self) -> Result<Tensor> {
        let flat: Vec<Tensor> =
            self.params.iter().map(|p| p.tensor().flatten_all()).collect::<candle_core::Result<_>>()?;
        Ok(Tensor::cat(&flat, 0)?)
    }

    fn fused_evaluation<'a, T: Real>(&'a self, x: &Tensor) -> Result<Evaluation<'a>> {
        let s = self.shape;
        let packed: Vec<T> = {
            let mut flat = Vec::with_capacity(s.parameter_lengths().iter().sum());
            for p in &self.params {
                flat.extend(p.var().flatten_all()?.to_vec1::<T>()?);
            }
            flat
        };
        let (input, batch): (Vec<T>, usize) = (x.flatten_all()?.to_vec1::<T>()?, x.dim(0)?);
        let folded = Folded::new(&s, &packed);
        let (out, hidden) = kernel::forward(&s, &folded, &input, true);
        let device = x.device().clone();
        let value = Tensor::from_vec(out, (batch, s.outputs, s.height, s.width), &device)?;
        let pullback = move |cotangent: &Tensor, gradients: &mut Gradients| {
            let Some(hidden) = hidden else {
                return Err(Error::config("coupling network", "its activations were not kept"));
            };
            let cotangent = cotangent.flatten_all()?.to_vec1::<T>()?;
            let (grad_x, grad) = kernel::backward(&s, &packed, &folded, &input, &hidden, &cotangent);
            let grad = Tensor::from_vec(grad, packed.len(), &device)?;
            let mut start = 0;
            for p in &self.params {
                let len = p.var().elem_count();
                gradients.add(p, &grad.narrow(0, start, len)?.reshape(p.var().shape())?)?;
                start += len;
            }
            Ok((Tensor::from_vec(grad_x, (batch, s.inputs, s.height, s.width), &device)?, None))
        };
        Ok(Evaluation { value, pullback: Box::new(pullback) })
    }
}

/// A 1×1 convolution as a matrix product.
fn pointwise(x: &Tensor, weight: &Tensor) -> Result<Tensor> {
    let (b, c, h, w) = x.dims4()?;
    Ok(weight.unsqueeze(0)?.broadcast_matmul(&x.reshape((b, c, h * w))?)?.reshape((b, (), h, w))?)
}

/// Sets bias and log-scale so that `(pre + b)·exp(3 l)` has mean 0 and deviation 1 per channel.
fn set_norm(pre: &Tensor, bias: &Param, log_scale: &Param) -> Result<Tensor> {
    let (b, l) = whitening("coupling net", pre)?;
    bias.set(&b)?;
    log_scale.set(&l)?;
    norm(pre, &bias.tensor(), &log_scale.tensor())
}

impl Conditioner for CouplingNet {
    fn forward(&self, x: &Tensor, _context: Option<&Tensor>) -> Result<Tensor> {
        self.check(x)?;
        if !accepts(x) {
            return self.composed(x);
        }
        fuse(FusedNet { sizes: self.shape, batch: x.dim(0)? }, [x, &self.packed()?])
    }

    fn initialize(&self, x: &Tensor, context: Option<&Tensor>) -> Result<Tensor> {
        self.check(x)?;
        let [w1, b1, l1, w2, b2, l2, ..] = &self.params;
        let h = set_norm(&edge_conv(x, &w1.tensor())?, b1, l1)?.relu()?;
        set_norm(&pointwise(&h, &w2.tensor())?, b2, l2)?;
        self.forward(x, context)
    }

    fn evaluate<'a>(&'a self, x: &Tensor, context: Option<&Tensor>) -> Result<Evaluation<'a>> {
        self.check(x)?;
        match (x.device().is_cpu(), x.dtype()) {
            (true, DType::F32) => self.fused_evaluation::<f32>(x),
            (true, DType::F64) => self.fused_evaluation::<f64>(x),
            _ => super::evaluate_by_graph(self, x, context),
        }
    }
}

/// The fused network as a function of `x` and the packed parameters.
///
/// The backward pass recomputes the hidden activations: keeping them would make the memory of plain
/// back-propagation grow with depth times width for a quarter less arithmetic.
struct FusedNet {
    sizes: Shape,
    batch: usize,
}

impl Fused<2> for FusedNet {
    fn name(&self) -> &'static str {
        "coupling-net"
    }

    fn shape(&self) -> candle_core::Shape {
        (self.batch, self.sizes.outputs, self.sizes.height, self.sizes.width).into()
    }

    fn forward<T: Real>(&self, [x, packed]: [&[T]; 2]) -> candle_core::Result<Vec<T>> {
        Ok(kernel::forward(&self.sizes, &Folded::new(&self.sizes, packed), x, false).0)
    }

    fn backward<T: Real>(&self, [x, packed]: [&[T]; 2], grad: &[T]) -> candle_core::Result<[Option<Vec<T>>; 2]> {
        let folded = Folded::new(&self.sizes, packed);
        let (_, hidden) = kernel::forward(&self.sizes, &folded, x, true);
        let Some(hidden) = hidden else { candle_core::bail!("coupling-net: activations were not kept") };
        let (dx, dw) = kernel::backward(&self.sizes, packed, &folded, x, &hidden, grad);
        Ok([Some(dx), Some(dw)])
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::autodiff::pair;
    use crate::param::ParamStore;
    use crate::testing::numbers::relative;
    use crate::{FlowRng, Gradients};
    use candle_core::{Device, Var};

    /// A network with every parameter away from zero, and a batch.
    fn net(dtype: DType, sizes: [usize; 5], batch: usize) -> (ParamStore, CouplingNet, Tensor, Tensor) {
        let [c, hidden, o, h, w] = sizes;
        let store = ParamStore::new(3, dtype, &Device::Cpu);
        let net = CouplingNet::new(&store.root(), c, hidden, o, [h, w]).unwrap();
        let mut rng = FlowRng::seed_from(5);
        for p in store.all() {
            let noise = rng.normal(p.var().shape(), dtype, &Device::Cpu).unwrap().affine(0.2, 0.0).unwrap();
            p.set(&(p.tensor() + noise).unwrap()).unwrap();
        }
        let x = rng.normal((batch, c, h, w), dtype, &Device::Cpu).unwrap();
        let cotangent = rng.normal((batch, o, h, w), dtype, &Device::Cpu).unwrap();
        (store, net, x, cotangent)
    }

    fn largest(t: &Tensor) -> f64 {
        t.abs().unwrap().flatten_all().unwrap().max(0).unwrap().to_dtype(DType::F64).unwrap().to_scalar().unwrap()
    }

    /// Sizes that exercise every border case: one pixel, one row, odd, several blocks and chunks.
    const CASES: [([usize; 5], usize); 6] = [
        ([2, 5, 3, 1, 1], 3),
        ([1, 4, 2, 1, 5], 2),
        ([3, 8, 6, 4, 4], 5),
        ([6, 32, 12, 16, 16], 3),
        ([24, 20, 48, 4, 4], 17),
        ([2, 16, 2, 5, 7], 9),
    ];

    #[test]
    fn fused_equals_composed_values_and_gradients() {
        for (dtype, tolerance) in [(DType::F64, 1e-10), (DType::F32, 1e-3)] {
            for (sizes, batch) in CASES {
                let (store, net, x, cotangent) = net(dtype, sizes, batch);
                let var = Var::from_tensor(&x).unwrap();
                let spec = net.composed(&var).unwrap();
                let wanted = pair(&spec, &cotangent).unwrap().backward().unwrap();
                // The reversible path …
                let mut grads = Gradients::new(&store);
                let evaluation = net.evaluate(&x, None).unwrap();
                assert!(relative(&evaluation.value, &spec) < tolerance, "{sizes:?} value");
                let (grad_x, _) = (evaluation.pullback)(&cotangent, &mut grads).unwrap();
                // … and the operation inside an ordinary graph.
                let op = pair(&net.forward(&var, None).unwrap(), &cotangent).unwrap().backward().unwrap();
                for got in [&grad_x, op.get(&var).unwrap()] {
                    assert!(relative(got, wanted.get(&var).unwrap()) < tolerance, "{sizes:?} input gradient");
                }
                for p in store.trainable() {
                    let want = wanted.get(p.var().as_tensor()).unwrap();
                    for got in [grads.get(&p).unwrap(), op.get(p.var().as_tensor()).unwrap()] {
                        assert!(relative(got, want) < tolerance, "{sizes:?} {} {}", p.name(), relative(got, want));
                    }
                }
            }
        }
    }

    #[test]
    fn gradients_are_those_of_finite_differences() {
        let (store, net, x, cotangent) = net(DType::F64, [3, 6, 4, 3, 4], 4);
        let mut grads = Gradients::new(&store);
        let (grad_x, _) = (net.evaluate(&x, None).unwrap().pullback)(&cotangent, &mut grads).unwrap();
        let objective = |x: &Tensor| -> f64 {
            pair(&net.evaluate(x, None).unwrap().value, &cotangent).unwrap().to_scalar().unwrap()
        };
        let step = 1e-6;
        let nudge = |t: &Tensor, k: usize, by: f64| {
            let mut v: Vec<f64> = t.flatten_all().unwrap().to_vec1().unwrap();
            v[k] += by;
            Tensor::from_vec(v, t.shape(), &Device::Cpu).unwrap()
        };
        let analytic: Vec<f64> = grad_x.flatten_all().unwrap().to_vec1().unwrap();
        for k in (0..x.elem_count()).step_by(7) {
            let slope = (objective(&nudge(&x, k, step)) - objective(&nudge(&x, k, -step))) / (2.0 * step);
            assert!((slope - analytic[k]).abs() < 1e-6 * (1.0 + slope.abs()), "x[{k}]: {slope} {}", analytic[k]);
        }
        for p in store.trainable() {
            let value = p.tensor().copy().unwrap().detach();
            let analytic: Vec<f64> = grads.get(&p).unwrap().flatten_all().unwrap().to_vec1().unwrap();
            for k in (0..value.elem_count()).step_by(11) {
                p.set(&nudge(&value, k, step)).unwrap();
                let up = objective(&x);
                p.set(&nudge(&value, k, -step)).unwrap();
                let slope = (up - objective(&x)) / (2.0 * step);
                p.set(&value).unwrap();
                assert!((slope - analytic[k]).abs() < 1e-5 * (1.0 + slope.abs()), "{}[{k}]", p.name());
            }
        }
    }

    #[test]
    fn results_do_not_depend_on_the_number_of_threads() {
        let (store, net, x, cotangent) = net(DType::F32, [3, 16, 6, 8, 8], 16);
        let run = |threads: usize| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            pool.install(|| {
                let mut grads = Gradients::new(&store);
                let e = net.evaluate(&x, None).unwrap();
                let value: Vec<f32> = e.value.flatten_all().unwrap().to_vec1().unwrap();
                (e.pullback)(&cotangent, &mut grads).unwrap();
                (value, grads.flatten().unwrap())
            })
        };
        assert_eq!(run(1), run(3));
    }

    #[test]
    fn initialisation_normalises_the_hidden_layers() {
        let (_, net, x, _) = net(DType::F64, [3, 16, 6, 8, 8], 16);
        net.initialize(&x, None).unwrap();
        let [w1, b1, l1, ..] = &net.params;
        let pre = norm(&edge_conv(&x, &w1.tensor()).unwrap(), &b1.tensor(), &l1.tensor()).unwrap();
        let (mean, std) = crate::nn::statistics::channel_moments(&pre).unwrap();
        assert!(largest(&mean) < 1e-9 && largest(&(std - 1.0).unwrap()) < 1e-4);
    }
}
