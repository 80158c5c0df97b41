//! Fields with closed forms, and an objective whose gradients are compared.

use candle_core::{DType, Device, Tensor, Var};
use flow_core::autodiff::{gradient_or_zero, pair};
use flow_core::cnf::ode::{Method, SolveOptions, Stepping};
use flow_core::cnf::{Cnf, CnfConfig, Concat, ConcatConfig, FieldActivation, MlpField, MlpFieldConfig, VectorField};
use flow_core::testing::randomise;
use flow_core::{Bijector, FlowRng, Gradients, Param, ParamPath, ParamStore, Result};

pub fn store(seed: u64) -> ParamStore {
    ParamStore::new(seed, DType::F64, &Device::Cpu)
}

pub fn normal(seed: u64, dims: &[usize]) -> Tensor {
    FlowRng::seed_from(seed).normal(dims, DType::F64, &Device::Cpu).unwrap()
}

pub fn values(t: &Tensor) -> Vec<f64> {
    t.detach().flatten_all().unwrap().to_vec1().unwrap()
}

/// The largest absolute difference; panics on differing shapes and on NaN.
pub fn distance(a: &Tensor, b: &Tensor) -> f64 {
    assert_eq!(a.dims(), b.dims());
    values(a).iter().zip(values(b)).fold(0.0, |worst, (x, y)| {
        let d = (x - y).abs();
        assert!(d.is_finite(), "{x} against {y}");
        worst.max(d)
    })
}

pub fn fixed(method: Method, steps: usize) -> SolveOptions {
    SolveOptions::new(method, Stepping::fixed(steps))
}

pub fn concat(store: &ParamStore, dim: usize, context: Option<usize>) -> Concat {
    let config = ConcatConfig::new(&[8, 8]).context(context);
    Concat::new(&store.root().pp("field"), dim, &config).unwrap()
}

pub fn mlp(path: &ParamPath, dim: usize, context: Option<usize>) -> MlpField {
    let activation = FieldActivation::Softplus;
    let config = MlpFieldConfig::new(&[10]).context(context).activation(activation).time_frequencies(1);
    MlpField::new(&path.pp("field"), dim, &config).unwrap()
}

/// `f(t, x) = A x`.
pub enum LinearField {
    Learned(Param),
    Constant(Tensor),
}

impl LinearField {
    /// With `Aᵀ` a parameter.
    pub fn new<const D: usize>(path: &ParamPath, matrix: &[[f64; D]; D]) -> Self {
        let LinearField::Constant(matrix) = Self::constant(matrix) else { unreachable!() };
        LinearField::Learned(path.param_from("matrix", &matrix).unwrap())
    }

    /// Without parameters.
    pub fn constant<const D: usize>(matrix: &[[f64; D]; D]) -> Self {
        LinearField::Constant(Tensor::new(matrix, &Device::Cpu).unwrap().t().unwrap().contiguous().unwrap())
    }

    fn transposed(&self) -> Tensor {
        match self {
            LinearField::Learned(param) => param.tensor(),
            LinearField::Constant(matrix) => matrix.clone(),
        }
    }
}

impl VectorField for LinearField {
    fn name(&self) -> String {
        "linear".into()
    }
    fn dim(&self) -> usize {
        self.transposed().dims()[0]
    }
    fn value(&self, _t: &Tensor, x: &Tensor, _context: Option<&Tensor>) -> Result<Tensor> {
        Ok(x.matmul(&self.transposed())?)
    }
    fn jvp(&self, t: &Tensor, x: &Tensor, v: &[Tensor], c: Option<&Tensor>) -> Result<(Tensor, Vec<Tensor>)> {
        Ok((self.value(t, x, c)?, v.iter().map(|v| self.value(t, v, c)).collect::<Result<_>>()?))
    }
}

/// `f(t, x) = a x` before `jump`, `b x` from then on.
pub struct Jumping {
    pub before: Param,
    pub after: Param,
    pub jump: f64,
}

impl VectorField for Jumping {
    fn name(&self) -> String {
        "jumping".into()
    }
    fn dim(&self) -> usize {
        2
    }
    fn value(&self, t: &Tensor, x: &Tensor, _context: Option<&Tensor>) -> Result<Tensor> {
        let jump = Tensor::full(self.jump, 1, &Device::Cpu)?.to_dtype(t.dtype())?;
        let early = t.detach().lt(&jump)?.to_vec1::<u8>()?[0] == 1;
        let rate = if early { &self.before } else { &self.after };
        Ok(x.broadcast_mul(&rate.tensor())?)
    }
    fn jvp(&self, t: &Tensor, x: &Tensor, v: &[Tensor], c: Option<&Tensor>) -> Result<(Tensor, Vec<Tensor>)> {
        Ok((self.value(t, x, c)?, v.iter().map(|v| self.value(t, v, c)).collect::<Result<_>>()?))
    }
}

/// `exp(t A)` by its series; `|t A|` is of the order of one here, and 40 terms are exact.
pub fn expm<const D: usize>(matrix: &[[f64; D]; D], t: f64) -> Tensor {
    let scaled = Tensor::new(matrix, &Device::Cpu).unwrap().affine(t, 0.0).unwrap();
    let mut term = Tensor::eye(D, DType::F64, &Device::Cpu).unwrap();
    let mut sum = term.clone();
    for k in 1..40 {
        term = term.matmul(&scaled).unwrap().affine(1.0 / f64::from(k), 0.0).unwrap();
        sum = (sum + &term).unwrap();
    }
    sum
}

/// `⟨z, a⟩ + ⟨log_det, b⟩` of six points in two groups, with fixed random `a` and `b`.
pub struct Objective {
    pub store: ParamStore,
    pub cnf: Cnf<Concat>,
    pub x: Tensor,
    pub context: Option<Tensor>,
    grad_z: Tensor,
    grad_log_det: Tensor,
}

/// The gradients of an [`Objective`] with respect to `x`, the context and every parameter.
pub struct Found(Vec<(String, Tensor)>);

impl Found {
    pub fn distance(&self, other: &Found) -> f64 {
        assert_eq!(self.0.len(), other.0.len());
        self.0.iter().zip(&other.0).map(|((_, a), (_, b))| distance(a, b)).fold(0.0, f64::max)
    }

    pub fn norm(&self) -> f64 {
        self.0.iter().flat_map(|(_, t)| values(t)).map(|v| v * v).sum::<f64>().sqrt()
    }
}

impl Objective {
    pub fn new(config: CnfConfig) -> Self {
        let store = store(11);
        let field = ConcatConfig::new(&[5]).context(2);
        let field = Concat::new(&store.root().pp("field"), 2, &field).unwrap();
        let cnf = Cnf::new(&store.root(), field, config).unwrap();
        randomise(&store, 0.3, &mut FlowRng::seed_from(12)).unwrap();
        Objective {
            store,
            cnf,
            x: normal(1, &[6, 2]),
            context: Some(normal(2, &[2, 2])),
            grad_z: normal(3, &[6, 2]),
            grad_log_det: normal(4, &[6]),
        }
    }

    pub fn encode(&self) -> (Tensor, Tensor) {
        self.cnf.encode(&self.x, self.context.as_ref()).unwrap()
    }

    /// By one graph over all steps.
    pub fn plain(&self) -> Found {
        let x = Var::from_tensor(&self.x).unwrap();
        let context = Var::from_tensor(self.context.as_ref().unwrap()).unwrap();
        let (z, log_det) = self.cnf.encode(&x, Some(context.as_tensor())).unwrap();
        let objective = pair(&z, &self.grad_z).unwrap().add(&pair(&log_det, &self.grad_log_det).unwrap()).unwrap();
        let graph = objective.backward().unwrap();
        let mut gradients = Gradients::new(&self.store);
        gradients.accumulate(&graph).unwrap();
        self.collect(gradient_or_zero(&graph, &x).unwrap(), gradient_or_zero(&graph, &context).unwrap(), &gradients)
    }

    /// By the flow's own backward pass, which must also give the input back.
    pub fn backprop(&self) -> Found {
        let context = self.context.as_ref();
        let (z, tape) = {
            let _paused = self.store.no_grad();
            let (z, _, tape) = self.cnf.encode_taped(&self.x, context).unwrap();
            (z, tape)
        };
        let mut gradients = Gradients::new(&self.store);
        let back = self.cnf.backprop(&z, &tape, context, &self.grad_z, &self.grad_log_det, &mut gradients).unwrap();
        assert!(distance(&back.x, &self.x) < 1e-6);
        self.collect(back.grad_x, back.grad_context.unwrap(), &gradients)
    }

    fn collect(&self, x: Tensor, context: Tensor, gradients: &Gradients) -> Found {
        let mut found = vec![("x".to_string(), x), ("context".to_string(), context)];
        found.extend(gradients.iter().map(|(param, g)| (param.name().to_string(), g.unwrap().clone())));
        Found(found)
    }

    /// The objective with its penalties, without a graph.
    fn value(&self, x: &Tensor, context: &Tensor) -> f64 {
        let _paused = self.store.no_grad();
        let (z, log_det) = self.cnf.encode(x, Some(context)).unwrap();
        let penalties = self.cnf.penalties(x, Some(context)).unwrap();
        let weights = self.cnf.config().regularization;
        let kinetic = penalties.kinetic.affine(weights.kinetic, 0.0).unwrap();
        let jacobian = penalties.jacobian.affine(weights.jacobian, 0.0).unwrap();
        let log_det = ((log_det - kinetic).unwrap() - jacobian).unwrap();
        scalar(&pair(&z, &self.grad_z).unwrap()) + scalar(&pair(&log_det, &self.grad_log_det).unwrap())
    }

    /// The worst deviation of `found` from central differences, relative to `1 + |slope|`.
    pub fn differs_from_numerical(&self, found: &Found) -> f64 {
        let (mut worst, h) = (0.0_f64, 1e-5);
        let context = self.context.as_ref().unwrap();
        for (name, gradient) in &found.0 {
            let param = self.store.get(name);
            let start = match (name.as_str(), &param) {
                ("x", _) => self.x.clone(),
                ("context", _) => context.clone(),
                (_, param) => param.as_ref().unwrap().var().as_tensor().copy().unwrap(),
            };
            for (i, got) in values(gradient).into_iter().enumerate() {
                let at = |step: f64| {
                    let mut moved = values(&start);
                    moved[i] += step;
                    let moved = Tensor::from_vec(moved, start.shape(), &Device::Cpu).unwrap();
                    match (name.as_str(), &param) {
                        ("x", _) => self.value(&moved, context),
                        ("context", _) => self.value(&self.x, &moved),
                        (_, param) => {
                            let param = param.as_ref().unwrap();
                            param.set(&moved).unwrap();
                            let value = self.value(&self.x, context);
                            param.set(&start).unwrap();
                            value
                        }
                    }
                };
                let slope = (at(h) - at(-h)) / (2.0 * h);
                worst = worst.max((slope - got).abs() / (1.0 + slope.abs()));
            }
        }
        worst
    }
}

pub fn scalar(t: &Tensor) -> f64 {
    values(t)[0]
}
