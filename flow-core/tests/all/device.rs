//! What runs on the CPU by hand-written kernels runs elsewhere by Candle's operations, with the same results.

use flow_core::autodiff::gradient_or_zero;
use flow_core::candle_core::{DType, Device, Var};
use flow_core::cnf::matching::{FlowMatching, Pairing};
use flow_core::cnf::ode::{Method, SolveOptions, Stepping};
use flow_core::cnf::{
    Cnf, CnfConfig, Concat, ConcatConfig, ConcatSquash, ConcatSquashConfig, Divergence, EmbeddingConfig,
    FieldActivation, Gate, MlpField, MlpFieldConfig, OdeGradient, Preconditioned, Probe, Regularization, VectorField,
};
use flow_core::distribution::{
    ConditionalGaussian, DiagonalGaussian, Distribution, GaussianMixture, LearnedLogistic, StandardGaussian,
    StandardLogistic, Uniform,
};
use flow_core::layers::{ActNorm, Coupling, Partition};
use flow_core::nn::{CouplingNet, Maxout, Mlp, MlpConfig};
use flow_core::testing::{
    Comparison, Elsewhere, Found, all_on_second_device, in_composed_operations, randomise, registry,
};
use flow_core::train::{EmaConfig, FitOptions, Rule, fit};
use flow_core::transformer::{Affine, ScaleBound};
use flow_core::{Chain, Density, Flow, FlowRng, Gradients, ParamPath, ParamStore, Result};

/// How close numbers of a type must be: a few hundred times its rounding.
fn tolerance(dtype: DType) -> f64 {
    if dtype == DType::F64 { 1e-9 } else { 1e-4 }
}

const ALL: [Comparison; 6] = [
    ("bijectors", bijectors),
    ("distributions", distributions),
    ("vector fields", vector_fields),
    ("continuous flows", continuous_flows),
    ("networks", networks),
    ("training", training),
];

#[test]
fn composed_bijectors() {
    bijectors(&Elsewhere::Composed);
}

#[test]
fn all_else_composed() {
    in_composed_operations(&ALL[1..]);
}

#[test]
fn all_on_a_second_device() {
    all_on_second_device("flow-core", &ALL);
}

/// Compares in every float type there is.
#[track_caller]
fn hold(elsewhere: &Elsewhere, what: &str, f: impl Fn(&Device, DType) -> Result<Found>) {
    for &dtype in elsewhere.dtypes() {
        elsewhere.hold(&format!("{what}, {dtype:?}"), tolerance(dtype), |device| f(device, dtype));
    }
}

/// Reports all failures at once: one operation that is missing tends to break several layers.
fn bijectors(elsewhere: &Elsewhere) {
    let mut failures = Vec::new();
    for &dtype in elsewhere.dtypes() {
        let cases = registry::all();
        failures.extend(cases.iter().filter_map(|c| elsewhere.check(c, dtype, tolerance(dtype)).err()));
    }
    let lines: Vec<String> = failures.iter().map(ToString::to_string).collect();
    assert!(failures.is_empty(), "{} cases fail:\n{}", lines.len(), lines.join("\n"));
}

/// How to build something, by its name.
type Builder<T> = (&'static str, fn(&ParamPath) -> Result<T>);

type AnyDistribution = Box<dyn Distribution>;

fn distributions(elsewhere: &Elsewhere) {
    let kinds: [Builder<AnyDistribution>; 7] = [
        ("standard gaussian", |p| Ok(Box::new(StandardGaussian::new(&[3], p.store().dtype(), p.store().device())))),
        ("diagonal gaussian", |p| Ok(Box::new(DiagonalGaussian::new(p, &[3])?))),
        ("conditional gaussian", |p| {
            let net = Mlp::new(p, 2, 6, &MlpConfig::new(&[5]))?;
            Ok(Box::new(ConditionalGaussian::new(&[3], &[2], net)))
        }),
        ("standard logistic", |p| Ok(Box::new(StandardLogistic::new(&[3], p.store().dtype(), p.store().device())))),
        ("learned logistic", |p| Ok(Box::new(LearnedLogistic::new(p, &[3])?))),
        ("mixture", |p| Ok(Box::new(GaussianMixture::new(p, &[3], 4, 1.0)?))),
        ("uniform", |p| Ok(Box::new(Uniform::new(&[3], -9.0, 9.0, p.store().dtype(), p.store().device())?))),
    ];
    for (what, build) in kinds {
        hold(elsewhere, what, |device, dtype| {
            let store = ParamStore::new(1, dtype, device);
            let distribution = build(&store.root())?;
            let mut rng = FlowRng::seed_from(2);
            randomise(&store, 0.2, &mut rng)?;
            let z = Var::from_tensor(&rng.normal((5, 3), dtype, device)?)?;
            let context = distribution.context_shape().map(|_| rng.normal((5, 2), dtype, device)).transpose()?;
            let context = context.as_ref();
            let log_prob = distribution.log_prob(z.as_tensor(), context)?;
            let mut found = Found::default().tensor("log_prob", &log_prob)?;
            if log_prob.track_op() {
                let graph = log_prob.sum_all()?.backward()?;
                let mut gradients = Gradients::new(&store);
                gradients.accumulate(&graph)?;
                found = found.tensor("of z", &gradient_or_zero(&graph, &z)?)?.gradients(&gradients)?;
            }
            let drawn = distribution.sample(5, context, 0.8, &mut FlowRng::seed_from(3))?;
            let white = distribution.whiten(&z.detach(), context)?;
            let back = distribution.color(&white, context)?;
            found.tensor("samples", &drawn)?.tensor("whitened", &white)?.tensor("coloured", &back)
        });
    }
}

type AnyField = Box<dyn VectorField>;

const FIELDS: [Builder<AnyField>; 5] = [
    ("concat", |p| Ok(Box::new(Concat::new(p, 3, &ConcatConfig::new(&[8, 8]).context(Some(2)))?))),
    ("mlp", |p| {
        let config = MlpFieldConfig::new(&[10]).context(Some(2)).activation(FieldActivation::Softplus);
        Ok(Box::new(MlpField::new(p, 3, &config.time_frequencies(1))?))
    }),
    ("concat-squash", |p| Ok(Box::new(ConcatSquash::new(p, 3, Some(2), &ConcatSquashConfig::new(&[8, 9]))?))),
    ("embedded concat-squash", |p| {
        let config = ConcatSquashConfig::new(&[8, 9]).activation(FieldActivation::Swish).gate(Gate::Linear);
        let config = config.embedding(EmbeddingConfig::new(&[6]).frequencies(2));
        Ok(Box::new(ConcatSquash::new(p, 3, Some(2), &config)?))
    }),
    ("preconditioned", |p| {
        let config = ConcatSquashConfig::new(&[8]).activation(FieldActivation::Softplus);
        Ok(Box::new(Preconditioned::new(ConcatSquash::new(p, 3, Some(2), &config)?, Some(1.0))))
    }),
];

/// Values, products with the Jacobian, and the objectives whose gradients kernels compute in one sweep.
fn vector_fields(elsewhere: &Elsewhere) {
    for (what, build) in FIELDS {
        hold(elsewhere, what, |device, dtype| {
            let store = ParamStore::new(1, dtype, device);
            let field = build(&store.root())?;
            let mut rng = FlowRng::seed_from(2);
            randomise(&store, 0.2, &mut rng)?;
            let mut draw = |dims: &[usize]| rng.normal(dims, dtype, device);
            let (t, x) = (Var::from_tensor(&draw(&[2])?)?, Var::from_tensor(&draw(&[6, 3])?)?);
            let c = Var::from_tensor(&draw(&[2, 2])?)?;
            let (v, w, target) = ([draw(&[6, 3])?], [draw(&[6, 3])?, draw(&[6, 3])?], draw(&[6, 3])?);
            let (t, x, context) = (t.as_tensor(), x.as_tensor(), Some(c.as_tensor()));
            let (value, products) = field.jvp(t, x, &v, context)?;
            let (pairing, _) = field.pairing(t, x, &v, context, &w)?;
            let error = field.squared_error(t, x, context, &target)?;
            let divergence = field.divergence(t, x, &v, context)?.1.sqr()?.sum_all()?;
            let plain = field.value(t, x, context)?;
            let mut found = Found::default().tensor("value", &plain)?.tensor("value with products", &value)?;
            found = found.tensor("product", &products[0])?;
            let products = (value.sqr()?.sum_all()? + products[0].sqr()?.sum_all()?)?;
            for (what, objective) in
                [("products", products), ("pairing", pairing), ("error", error), ("divergence", divergence)]
            {
                let graph = objective.backward()?;
                let mut gradients = Gradients::new(&store);
                gradients.accumulate(&graph)?;
                let mut of = Found::default().tensor("objective", &objective)?;
                for (what, input) in [("t", t), ("x", x), ("context", &c)] {
                    of = of.tensor(&format!("of {what}"), &gradient_or_zero(&graph, input)?)?;
                }
                found = found.and(what, of.gradients(&gradients)?);
            }
            Ok(found)
        });
    }
}

fn continuous_flows(elsewhere: &Elsewhere) {
    let fixed = SolveOptions::new(Method::Rk4, Stepping::fixed(4));
    // So tight that what rounding changes about the steps is not seen in the results.
    let adaptive = |tolerance| SolveOptions::new(Method::Dopri5, Stepping::adaptive(tolerance, tolerance));
    let adjoint = || OdeGradient::Adjoint { solver: None, seminorm: true };
    let configs = |dtype: DType| {
        let tight = if dtype == DType::F64 { 1e-11 } else { 1e-6 };
        [
            ("direct", CnfConfig::new(fixed.clone())),
            ("adjoint", CnfConfig::new(fixed.clone()).gradient(adjoint())),
            ("penalised", CnfConfig::new(fixed.clone()).regularization(Regularization::new(0.1, 0.2))),
            ("probed", CnfConfig::new(fixed.clone()).divergence(Divergence::Hutchinson(Probe::Gaussian))),
            ("adaptive", CnfConfig::new(adaptive(tight))),
            ("rows apart", CnfConfig::new(adaptive(tight)).per_group_steps(true)),
        ]
    };
    for (kind, (what, _)) in configs(DType::F64).into_iter().enumerate() {
        hold(elsewhere, what, |device, dtype| {
            let store = ParamStore::new(1, dtype, device);
            let [_, _, (_, field), ..] = FIELDS;
            let (_, config) = configs(dtype)[kind].clone();
            let cnf = Cnf::new(&store.root(), field(&store.root().pp("field"))?, config)?;
            let flow = Flow::new(&store, cnf, StandardGaussian::new(&[3], dtype, device))?;
            let mut rng = FlowRng::seed_from(2);
            randomise(&store, 0.2, &mut rng)?;
            let (x, c) = (rng.normal((4, 3), dtype, device)?, rng.normal((4, 2), dtype, device)?);
            flow.set_noise(&mut FlowRng::seed_from(5));
            Found::default().density(&flow, &x, Some(&c))
        });
    }
    hold(elsewhere, "flow matching", |device, dtype| {
        let store = ParamStore::new(1, dtype, device);
        let [_, _, (_, field), ..] = FIELDS;
        let field = field(&store.root())?;
        let mut rng = FlowRng::seed_from(2);
        let (x, c) = (rng.normal((8, 3), dtype, device)?, rng.normal((4, 2), dtype, device)?);
        let matching = FlowMatching::new(Pairing::MinibatchOt { block: 8 });
        let loss = matching.loss(&*field, &x, Some(&c), 4, &mut rng)?;
        let mut gradients = Gradients::new(&store);
        gradients.accumulate(&loss.backward()?)?;
        Found::default().tensor("loss", &loss)?.gradients(&gradients)
    });
}

fn networks(elsewhere: &Elsewhere) {
    hold(elsewhere, "maxout", |device, dtype| {
        let store = ParamStore::new(1, dtype, device);
        let net = Maxout::new(&store.root(), 5, 4, 3)?;
        let x = Var::from_tensor(&FlowRng::seed_from(2).normal((6, 5), dtype, device)?)?;
        let y = net.forward(x.as_tensor())?;
        let graph = y.sqr()?.sum_all()?.backward()?;
        let mut gradients = Gradients::new(&store);
        gradients.accumulate(&graph)?;
        Found::default().tensor("units", &y)?.tensor("of x", &gradient_or_zero(&graph, &x)?)?.gradients(&gradients)
    });
    hold(elsewhere, "coupling network", |device, dtype| {
        use flow_core::nn::Conditioner;
        let store = ParamStore::new(1, dtype, device);
        let net = CouplingNet::new(&store.root(), 3, 7, 4, [5, 4])?;
        randomise(&store, 0.2, &mut FlowRng::seed_from(2))?;
        let x = FlowRng::seed_from(3).normal((2, 3, 5, 4), dtype, device)?;
        let evaluation = net.evaluate(&x, None)?;
        let mut gradients = Gradients::new(&store);
        let (of_x, _) = (evaluation.pullback)(&evaluation.value.detach(), &mut gradients)?;
        let first = net.initialize(&x, None)?;
        let found = Found::default().tensor("value", &evaluation.value)?.tensor("of x", &of_x)?;
        found.gradients(&gradients)?.tensor("initialised", &first)?.params(&store)
    });
}

/// Twenty steps of each rule with everything that the engine does to weights. A step of Adam turns the sign of a gradient
/// near zero into a whole step, so that rounding grows over steps: hence a thousandth.
fn training(elsewhere: &Elsewhere) {
    for rule in [Rule::AdamW, Rule::Adamax] {
        let train = |device: &Device| -> Result<Found> {
            let store = ParamStore::new(1, DType::F32, device);
            let net = |i: usize| Mlp::new(&store.root().pp(i), 2, 4, &MlpConfig::new(&[8]));
            let coupling = |i: usize| {
                let part = Partition::Channels { swap: i == 1 };
                Coupling::new(&[4], part, Affine::new(ScaleBound::SoftClamp(2.0)), net(i)?)
            };
            let (norm, first, second) = (ActNorm::new(&store.root().pp("norm"), &[4])?, coupling(0)?, coupling(1)?);
            let chain = Chain::new(vec![Box::new(norm), Box::new(first), Box::new(second)])?;
            let flow = Flow::new(&store, chain, StandardGaussian::new(&[4], DType::F32, device))?;
            // Data may stay on the CPU.
            let x = FlowRng::seed_from(2).normal((64, 4), DType::F32, &Device::Cpu)?.affine(2.0, 1.0)?;
            let options = FitOptions::new(20).batch(16).learning_rate(1e-2).validation(&x, None).engine(|engine| {
                engine.optimizer.rule = rule;
                engine.optimizer.weight_decay = if rule == Rule::AdamW { 0.01 } else { 0.0 };
                (engine.clip_norm, engine.ema) = (Some(0.5), Some(EmaConfig { decay: 0.9 }));
                (engine.log_every, engine.validate_every) = (1, Some(10));
            });
            let fit = fit(&flow, &x, options)?;
            let found = Found::default().numbers("losses", fit.curve.iter().map(|point| point.loss));
            found.params(&store)
        };
        elsewhere.compare(&format!("{rule:?}"), 1e-3, train).unwrap_or_else(|failure| panic!("{failure}"));
    }
}
