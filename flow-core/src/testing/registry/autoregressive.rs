//! Autoregressive flows, in the fast direction (MAF) and inverted (IAF), and couplings of perceptrons.

use crate::layers::{Coupling, MaskedAutoregressive, Partition};
use crate::nn::{Activation, Mlp, MlpConfig};
use crate::testing::Case;
use crate::transformer::{Additive, Affine, LogisticMixture, RationalQuadraticSpline, ScaleBound, Transformer};
use crate::{Bijector, Chain, Inverse, ParamPath, Result};

const ALONE: &str = "a lone entry depends on nothing: only the output's bias is left";

pub(super) fn cases() -> Vec<Case> {
    let affine = || Ok(Affine::new(ScaleBound::SoftClamp(2.0)));
    let mut cases = Vec::new();
    let lone = both("affine, D = 1", 1, None, affine);
    cases.extend(lone.map(|c| c.idle("0", ALONE).idle("1", ALONE).idle("2.weight", ALONE)));
    for d in [3, 4] {
        cases.extend(both(&format!("affine, D = {d}"), d, None, affine));
    }
    cases.extend(both("additive", 3, None, || Ok(Additive)));
    cases.extend(both("affine (sigmoid) with context", 3, Some(2), || Ok(Affine::new(ScaleBound::Sigmoid))));
    cases.extend(both("spline", 3, None, || RationalQuadraticSpline::new(4, 3.0)));
    cases.extend(both("logistic mixture", 2, None, || LogisticMixture::new(2)));
    cases.push(Case::new("Coupling", "perceptron with context", |p| {
        let config = MlpConfig::new(&[6, 5]).activation(Activation::Tanh).context(2);
        let net = Mlp::new(&p.pp("net"), 2, 4, &config)?;
        let transformer = Affine::new(ScaleBound::SoftClamp(2.0));
        let coupling = Coupling::new(&[4], Partition::Channels { swap: false }, transformer, net)?;
        Ok(Box::new(coupling.with_context(&[2])))
    }));
    cases.push(Case::new("Chain", "MAF, then IAF", move |p| {
        let layers: Vec<Box<dyn Bijector>> =
            vec![maf(&p.pp("a"), 3, None, affine()?)?, Box::new(Inverse(maf(&p.pp("b"), 3, None, affine()?)?))];
        Ok(Box::new(Chain::new(layers)?))
    }));
    cases
}

/// MAF and IAF with one transformer; both Jacobians are lower triangular.
fn both<T: Transformer + 'static>(
    name: &str,
    dims: usize,
    context: Option<usize>,
    transformer: impl Fn() -> Result<T> + Clone + Send + Sync + 'static,
) -> [Case; 2] {
    let again = transformer.clone();
    [
        Case::new("MaskedAutoregressive", name, move |p| maf(p, dims, context, transformer()?)).pattern(|i, j| j <= i),
        Case::new("Inverse", &format!("IAF, {name}"), move |p| Ok(Box::new(Inverse(maf(p, dims, context, again()?)?))))
            .pattern(|i, j| j <= i),
    ]
}

fn maf<T: Transformer + 'static>(
    p: &ParamPath,
    dims: usize,
    context: Option<usize>,
    transformer: T,
) -> Result<Box<dyn Bijector>> {
    let config = MlpConfig { hidden: vec![7, 6], activation: Activation::Tanh, context };
    Ok(Box::new(MaskedAutoregressive::new(p, dims, transformer, &config)?))
}
