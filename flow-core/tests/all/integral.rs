//! Densities add up to one, and the kit notices when a layer lies.

use crate::common::{affine, vector_coupling};
use candle_core::{DType, Device, Tensor};
use flow_core::distribution::{Distribution, GaussianMixture, LearnedLogistic, StandardGaussian};
use flow_core::layers::{
    ActNorm, BatchNorm, InvertibleConv, Logit, MaskedAutoregressive, Parametrization, Permute, Planar, Radial, Scaling,
    Sylvester,
};
use flow_core::nn::{Activation, MlpConfig};
use flow_core::testing::quadrature::total_probability;
use flow_core::testing::{Case, Check, randomise};
use flow_core::transformer::{Additive, LogisticMixture, RationalQuadraticSpline};
use flow_core::{Bijector, Chain, Density, Flow, FlowRng, Inverse, ParamPath, ParamStore, Result};

type Layers = Result<Vec<Box<dyn Bijector>>>;

/// `∫ p = 1 ± 1e-3` for a flow over the plane with randomised parameters.
fn adds_up(
    layers: impl Fn(&ParamPath) -> Layers,
    base: impl Fn(&ParamPath) -> Result<Box<dyn Distribution>>,
    bounds: [f64; 2],
) {
    for seed in 0..2 {
        let store = ParamStore::new(seed, DType::F64, &Device::Cpu);
        let chain = Chain::new(layers(&store.root()).unwrap()).unwrap();
        let flow = Flow::new(&store, chain, base(&store.root().pp("base")).unwrap()).unwrap();
        randomise(&store, 0.3, &mut FlowRng::seed_from(seed)).unwrap();
        flow.set_training(false);
        let context = Tensor::new(&[[0.4_f64, -0.9]], &Device::Cpu).unwrap();
        let context = flow.bijector().context_shape().map(|_| &context);
        let total = total_probability(&flow, context, bounds, 600).unwrap();
        assert!((total - 1.0).abs() < 1e-3, "∫ p = {total} with seed {seed}");
    }
}

fn gaussian(_: &ParamPath) -> Result<Box<dyn Distribution>> {
    Ok(Box::new(StandardGaussian::new(&[2], DType::F64, &Device::Cpu)))
}

#[test]
fn affine_couplings() {
    adds_up(
        |p| Ok(vec![affine(p, "a", 2, false)?, affine(p, "b", 2, true)?, affine(p, "c", 2, false)?]),
        gaussian,
        [-25.0, 25.0],
    );
}

#[test]
fn affine_couplings_with_context() {
    adds_up(
        |p| {
            let coupling = |name, swap| vector_coupling(p, name, 2, swap, crate::common::soft_affine(), 2);
            Ok(vec![coupling("a", false)?, coupling("b", true)?])
        },
        gaussian,
        [-25.0, 25.0],
    );
}

#[test]
fn spline_couplings() {
    adds_up(
        |p| {
            let coupling =
                |name, swap, bins| vector_coupling(p, name, 2, swap, RationalQuadraticSpline::new(bins, 3.0)?, 0);
            Ok(vec![coupling("a", false, 6)?, coupling("b", true, 4)?])
        },
        gaussian,
        [-8.0, 8.0],
    );
}

#[test]
fn logistic_mixture_couplings_with_context() {
    adds_up(
        |p| {
            let coupling = |name, swap| vector_coupling(p, name, 2, swap, LogisticMixture::new(3)?, 2);
            Ok(vec![coupling("a", false)?, coupling("b", true)?])
        },
        gaussian,
        [-40.0, 40.0],
    );
}

#[test]
fn additive_couplings_with_scaling_and_a_logistic_base() {
    adds_up(
        |p| {
            let coupling = |name, swap| vector_coupling(p, name, 2, swap, Additive, 0);
            Ok(vec![coupling("a", false)?, coupling("b", true)?, Box::new(Scaling::new(&p.pp("s"), &[2])?)])
        },
        |p| Ok(Box::new(LearnedLogistic::new(p, &[2])?)),
        [-60.0, 60.0],
    );
}

#[test]
fn normalisations_with_a_mixture_base() {
    adds_up(
        |p| {
            let norms: Vec<Box<dyn Bijector>> = vec![
                Box::new(ActNorm::new(&p.pp("act"), &[2])?),
                Box::new(BatchNorm::new(&p.pp("batch"), &[2])?.with_affine(&p.pp("batch"))?),
                affine(p, "coupling", 2, true)?,
            ];
            Ok(norms)
        },
        |p| Ok(Box::new(GaussianMixture::new(p, &[2], 4, 2.0)?)),
        [-60.0, 60.0],
    );
}

#[test]
fn invertible_convolutions_and_permutations() {
    adds_up(
        |p| {
            let conv = |name, kind| InvertibleConv::new(&p.pp(name), &[2], kind);
            let layers: Vec<Box<dyn Bijector>> = vec![
                Box::new(ActNorm::new(&p.pp("norm"), &[2])?),
                Box::new(conv("plu", Parametrization::Plu)?),
                affine(p, "a", 2, false)?,
                Box::new(Inverse(conv("full", Parametrization::Full)?)),
                affine(p, "b", 2, true)?,
                Box::new(conv("householder", Parametrization::Householder { reflections: 2 })?),
                Box::new(Permute::reverse(&p.pp("reverse"), &[2])?),
            ];
            Ok(layers)
        },
        gaussian,
        [-60.0, 60.0],
    );
}

#[test]
fn planar_radial_and_sylvester_flows_and_their_inverses() {
    adds_up(
        |p| {
            Ok(vec![
                Box::new(Planar::new(&p.pp("a"), 2)?),
                Box::new(Radial::new(&p.pp("b"), 2)?),
                Box::new(Sylvester::new(&p.pp("c"), 2, 2)?),
                Box::new(Inverse(Planar::new(&p.pp("d"), 2)?)),
                Box::new(Inverse(Radial::new(&p.pp("e"), 2)?)),
            ])
        },
        gaussian,
        [-25.0, 25.0],
    );
}

#[test]
fn inverted_couplings() {
    adds_up(
        |p| Ok(vec![Box::new(Inverse(affine(p, "a", 2, false)?)), affine(p, "b", 2, true)?]),
        gaussian,
        [-25.0, 25.0],
    );
}

/// Two autoregressive layers over the plane, the second in the other order.
fn autoregressive(p: &ParamPath, config: &MlpConfig, inverse: bool) -> Layers {
    let layer = |name: &str| -> Result<Box<dyn Bijector>> {
        let maf = MaskedAutoregressive::new(&p.pp(name), 2, crate::common::soft_affine(), config)?;
        Ok(if inverse { Box::new(Inverse(maf)) } else { Box::new(maf) })
    };
    Ok(vec![layer("a")?, Box::new(Permute::reverse(&p.pp("turn"), &[2])?), layer("b")?])
}

#[test]
fn masked_autoregressive_flows() {
    let config = MlpConfig::new(&[6, 6]).activation(Activation::Tanh);
    adds_up(|p| autoregressive(p, &config, false), gaussian, [-25.0, 25.0]);
    adds_up(|p| autoregressive(p, &config.clone().context(2), false), gaussian, [-25.0, 25.0]);
}

#[test]
fn inverse_autoregressive_flows() {
    let config = MlpConfig::new(&[6, 6]).activation(Activation::Tanh);
    adds_up(|p| autoregressive(p, &config, true), gaussian, [-25.0, 25.0]);
    adds_up(|p| autoregressive(p, &config.clone().context(2), true), gaussian, [-25.0, 25.0]);
}

#[test]
fn a_density_on_the_unit_square() {
    adds_up(
        |p| Ok(vec![Box::new(Logit::new(&[2], 0.0)?), affine(p, "a", 2, false)?, affine(p, "b", 2, true)?]),
        gaussian,
        [0.0, 1.0],
    );
}

/// What a [`Liar`] gets wrong.
#[derive(Clone, Copy, PartialEq)]
enum Lie {
    /// The sign of both log-determinants: they still cancel.
    Sign,
    /// A missing factor, one dimension counted out of two; they still cancel.
    Factor,
    /// One number for the whole batch.
    BatchSum,
    /// Decoding is a little off.
    Inverse,
    /// A row's value depends on the other rows.
    Leak,
    /// The gradient of the parameter is cut off.
    Detached,
    /// A wrong shape is processed.
    Shapeless,
    /// An infinity far out.
    Overflow,
    /// A backward pass of half the gradient.
    Backprop,
    /// A little of the first entry in the second, too little for a determinant to show.
    Mixing,
    /// Not a number at one, and nowhere else.
    Knot,
    /// Panics on a batch without rows.
    Panic,
    /// Integers and the other precision are converted in silence.
    Casting,
}

/// `z = x · exp(s)` over two entries, right but for one [`Lie`].
struct Liar {
    inner: Scaling,
    scale: flow_core::Param,
    lie: Lie,
}

impl Liar {
    fn new(path: &ParamPath, lie: Lie) -> Result<Self> {
        let inner = Scaling::new(path, &[2])?;
        let scale = path.store().get("log_scale").expect("Scaling has the parameter 'log_scale'");
        Ok(Liar { inner, scale, lie })
    }

    fn twist(&self, (value, log_det): (Tensor, Tensor)) -> Result<(Tensor, Tensor)> {
        let log_det = match self.lie {
            Lie::Sign => log_det.neg()?,
            Lie::Factor => log_det.affine(0.5, 0.0)?,
            Lie::BatchSum => log_det.sum_all()?,
            _ => log_det,
        };
        let value = match self.lie {
            Lie::Leak => value.broadcast_add(&value.mean_keepdim(0)?.affine(1e-3, 0.0)?)?,
            Lie::Mixing => {
                let shear = Tensor::new(&[[1.0, 1e-12], [0.0, 1.0]], &Device::Cpu)?;
                value.matmul(&shear)?
            }
            Lie::Overflow => (&value + value.affine(0.01, 0.0)?.powf(400.0)?.affine(1e-300, 0.0)?)?,
            _ => value,
        };
        Ok(if self.lie == Lie::Detached { (value.detach(), log_det.detach()) } else { (value, log_det) })
    }
}

impl Bijector for Liar {
    fn name(&self) -> String {
        "liar".into()
    }
    fn event_shape(&self) -> &[usize] {
        &[2]
    }
    fn encode(&self, x: &Tensor, context: Option<&Tensor>) -> Result<(Tensor, Tensor)> {
        if self.lie == Lie::Shapeless && x.dims() != [x.dims()[0], 2] {
            return Ok((x.clone(), x.flatten_all()?));
        }
        assert!(self.lie != Lie::Panic || x.dims()[0] > 0, "there are no rows");
        let x = &if self.lie == Lie::Casting { x.to_dtype(self.scale.dtype())? } else { x.clone() };
        let mut encoded = self.inner.encode(x, context)?;
        if self.lie == Lie::Knot {
            let from_one = x.affine(1.0, -1.0)?;
            // Zero over zero at the knot, one elsewhere.
            encoded.0 = (encoded.0 * from_one.div(&from_one)?)?;
        }
        if self.lie == Lie::Detached {
            encoded.0 = x.broadcast_mul(&self.scale.tensor().exp()?.detach())?;
        }
        self.twist(encoded)
    }
    fn decode(&self, z: &Tensor, context: Option<&Tensor>) -> Result<(Tensor, Tensor)> {
        let (x, log_det) = self.inner.decode(z, context)?;
        let x = if self.lie == Lie::Inverse { x.affine(1.0 + 1e-4, 0.0)? } else { x };
        self.twist((x, log_det))
    }
    fn backprop(
        &self,
        z: &Tensor,
        tape: &flow_core::Tape,
        context: Option<&Tensor>,
        grad_z: &Tensor,
        grad_log_det: &Tensor,
        gradients: &mut flow_core::Gradients,
    ) -> Result<flow_core::Pullback> {
        let right = flow_core::bijector::backprop_locally(self, z, tape, context, grad_z, grad_log_det, gradients)?;
        let factor = if self.lie == Lie::Backprop { 0.5 } else { 1.0 };
        Ok(flow_core::Pullback { grad_x: right.grad_x.affine(factor, 0.0)?, ..right })
    }
}

#[test]
fn the_kit_catches_every_lie() {
    let lies = [
        (Lie::Sign, "log-determinant"),
        (Lie::Factor, "log-determinant"),
        (Lie::BatchSum, "shapes"),
        (Lie::Inverse, "round trip"),
        (Lie::Leak, "round trip"),
        (Lie::Detached, "every parameter is trained"),
        (Lie::Shapeless, "wrong shapes"),
        (Lie::Overflow, "extreme inputs"),
        (Lie::Backprop, "backprop"),
        (Lie::Mixing, "pattern"),
        (Lie::Knot, "knots"),
        (Lie::Panic, "no rows"),
        (Lie::Casting, "wrong types"),
    ];
    for (lie, property) in lies {
        let case = Case::new("Liar", property, move |p| Ok(Box::new(Liar::new(p, lie)?)));
        // The scaling acts on each entry alone.
        let case = case.pattern(|i, j| i == j).knots(&[1.0]);
        let failure = Check::f64().run(&case).expect_err(property);
        assert!(failure.property.contains(property), "expected '{property}' to fail, got: {failure}");
        assert!(failure.bijector.contains("Liar"), "{failure}");
        assert_eq!(failure.got.contains("panic: there are no rows"), lie == Lie::Panic, "{failure}");
    }
}

#[test]
fn a_wrong_log_determinant_does_not_add_up_to_one() {
    let store = ParamStore::new(0, DType::F64, &Device::Cpu);
    let liar = Liar::new(&store.root(), Lie::Factor).unwrap();
    randomise(&store, 0.5, &mut FlowRng::seed_from(0)).unwrap();
    let flow = Flow::new(&store, liar, StandardGaussian::new(&[2], DType::F64, &Device::Cpu)).unwrap();
    let total = total_probability(&flow, None, [-25.0, 25.0], 400).unwrap();
    assert!((total - 1.0).abs() > 1e-2, "∫ p = {total} in spite of a wrong log-determinant");
}
