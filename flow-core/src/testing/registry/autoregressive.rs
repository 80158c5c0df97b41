//! Autoregressive flows, in the fast direction (MAF) and inverted (IAF), and couplings of perceptrons.

use super::couplings::spline_knots;
use crate::layers::{Coupling, MaskedAutoregressive, Partition};
use crate::nn::{Activation, Mlp, MlpConfig};
use crate::testing::Case;
use crate::transformer::{Additive, Affine, LogisticMixture, RationalQuadraticSpline, ScaleBound, Transformer};
use crate::{Bijector, Chain, Inverse, ParamPath, Result};

const ALONE: &str = "a lone entry sees no input: the masks hide the first weight";

pub(super) fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for d in [1, 3, 4] {
        for context in [None, Some(2)] {
            cases.extend(both("affine", d, context, affine));
            cases.extend(both("additive", d, context, || Ok(Additive)));
        }
    }
    cases.extend(both("affine (sigmoid)", 3, Some(2), || Ok(Affine::new(ScaleBound::Sigmoid))));
    for (d, context) in [(1, Some(2)), (3, None), (3, Some(2))] {
        let spline = both("spline", d, context, || RationalQuadraticSpline::new(4, 3.0));
        cases.extend(spline.map(|case| case.knots(&spline_knots(4, 3.0))));
        cases.extend(both("logistic mixture", d, context, || LogisticMixture::new(3)));
    }
    cases.extend(networks());
    cases.push(Case::new("Chain", "MAF, then IAF", move |p| {
        let layers: Vec<Box<dyn Bijector>> =
            vec![maf(&p.pp("a"), 3, None, affine()?)?, Box::new(Inverse(maf(&p.pp("b"), 3, None, affine()?)?))];
        Ok(Box::new(Chain::new(layers)?))
    }));
    cases.extend(perceptrons());
    cases
}

fn affine() -> Result<Affine> {
    Ok(Affine::new(ScaleBound::SoftClamp(2.0)))
}

/// Networks without a hidden layer, narrower than the event, and with other activations.
fn networks() -> Vec<Case> {
    let networks = [
        ("no hidden layer", MlpConfig::new(&[])),
        ("no hidden layer, with context", MlpConfig::new(&[]).context(2)),
        ("narrower than the event", MlpConfig::new(&[2]).activation(Activation::Tanh)),
        ("silu", MlpConfig::new(&[6]).activation(Activation::Silu).context(1)),
        ("relu, last layer not zero", MlpConfig::new(&[8]).output_bound(0.1)),
    ];
    let case = |(label, config): (&str, MlpConfig)| {
        Case::new("MaskedAutoregressive", label, move |p| {
            Ok(Box::new(MaskedAutoregressive::new(p, 5, affine()?, &config)?))
        })
        .pattern(|i, j| j <= i)
    };
    networks.into_iter().map(case).collect()
}

/// Couplings whose conditioner is an [`Mlp`], with every activation, on both kinds of partition.
fn perceptrons() -> Vec<Case> {
    let mut cases = Vec::new();
    for activation in [Activation::Tanh, Activation::Silu, Activation::Relu] {
        for context in [None, Some(2)] {
            let config = MlpConfig { context, ..MlpConfig::new(&[6, 5]).activation(activation) };
            let label = format!("perceptron, {activation:?}{}", and_context(context));
            let halves = || Ok(Partition::Channels { swap: true });
            let alternating = || Partition::alternating(3, false);
            cases.push(perceptron(&format!("{label}, halves"), 5, halves, affine, config.clone()));
            cases.push(perceptron(&format!("{label}, mask"), 3, alternating, affine, config));
        }
    }
    let config = MlpConfig::new(&[6]).activation(Activation::Tanh);
    let spline = || RationalQuadraticSpline::new(4, 3.0);
    cases.push(perceptron("perceptron, spline, mask", 4, || Partition::alternating(4, true), spline, config));
    cases
}

fn perceptron<T: Transformer + 'static>(
    label: &str,
    dims: usize,
    partition: fn() -> Result<Partition>,
    transformer: fn() -> Result<T>,
    config: MlpConfig,
) -> Case {
    Case::new("Coupling", label, move |p| {
        let (partition, transformer) = (partition()?, transformer()?);
        let inputs = Coupling::<T, Mlp>::input_channels(dims, &partition);
        let outputs = Coupling::<T, Mlp>::output_channels(dims, &partition, &transformer);
        let coupling =
            Coupling::new(&[dims], partition, transformer, Mlp::new(&p.pp("net"), inputs, outputs, &config)?)?;
        Ok(match config.context {
            Some(k) => Box::new(coupling.with_context(&[k])),
            None => Box::new(coupling),
        })
    })
}

fn and_context(context: Option<usize>) -> &'static str {
    if context.is_some() { " with context" } else { "" }
}

/// MAF and IAF with one transformer; both Jacobians are lower triangular.
fn both<T: Transformer + 'static>(
    name: &str,
    dims: usize,
    context: Option<usize>,
    transformer: impl Fn() -> Result<T> + Clone + Send + Sync + 'static,
) -> [Case; 2] {
    let (again, label) = (transformer.clone(), format!("{name}{}, D = {dims}", and_context(context)));
    [
        Case::new("MaskedAutoregressive", &label, move |p| maf(p, dims, context, transformer()?)),
        Case::new("Inverse", &format!("IAF, {label}"), move |p| {
            Ok(Box::new(Inverse(maf(p, dims, context, again()?)?)))
        }),
    ]
    .map(|case| if dims == 1 { case.idle("0.weight", ALONE) } else { case })
    .map(|case| case.pattern(|i, j| j <= i))
}

fn maf<T: Transformer + 'static>(
    p: &ParamPath,
    dims: usize,
    context: Option<usize>,
    transformer: T,
) -> Result<Box<dyn Bijector>> {
    let config = MlpConfig { context, ..MlpConfig::new(&[7, 6]).activation(Activation::Tanh) };
    Ok(Box::new(MaskedAutoregressive::new(p, dims, transformer, &config)?))
}
