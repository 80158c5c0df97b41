//! Every builder under flow-core's test kit: one, two and five dimensions, with and without a context.

use candle_core::{DType, Device};
use flow_core::cnf::ode::{Method, SolveOptions, Stepping};
use flow_core::cnf::{CnfConfig, EndTime};
use flow_core::testing::{Case, Check};
use flow_core::{Bijector, ParamStore};
use flow_density::model::{
    Continuous, Mixing, TransformerConfig, cnf, maf, matching, nsf_autoregressive, nsf_coupling, planar, radial,
    realnvp, sylvester,
};

const ALONE: &str = "a lone entry sees no input: the masks hide the first weight";
const SIGN: &str = "a reflection of the line is its sign, whatever the vector";
const UPPER: &str = "a triangle of one row has nothing above its diagonal";

/// A case whose `build` is a builder's `bijector`.
macro_rules! case {
    ($name:expr, $dims:expr, $context:expr, $builder:expr) => {{
        let builder = $builder.context($context);
        Case::new($name, &format!("D = {}, K = {}", $dims, $context), move |path| {
            let bijector = builder.bijector(path).map_err(flow_core::Error::from)?;
            Ok(Box::new(bijector) as Box<dyn Bijector>)
        })
    }};
}

fn idle(case: Case, names: &[&str], reason: &str) -> Case {
    let layers = ["layer00", "layer01", "layer02"];
    layers
        .iter()
        .flat_map(|layer| names.iter().map(move |name| format!("{layer}.{name}")))
        .fold(case, |case, name| case.idle(&name, reason))
}

/// Those with a network for each transform.
fn conditioned(dims: usize, context: usize) -> Vec<Case> {
    let mixture = TransformerConfig::logistic_mixture(2);
    let cases = vec![
        case!("maf", dims, context, maf(dims).transforms(2).hidden(&[7, 6])),
        case!("maf, mixed by a matrix", dims, context, maf(dims).transforms(2).hidden(&[7]).mixing(Mixing::Plu)),
        case!("maf of mixtures", dims, context, maf(dims).transforms(1).hidden(&[7]).transformer(mixture))
            .looser(100.0, "mixtures are inverted by iteration, and a chain of layers adds errors up"),
        case!("autoregressive splines", dims, context, nsf_autoregressive(dims).transforms(2).hidden(&[7])),
        case!("realnvp", dims, context, realnvp(dims).transforms(2).hidden(&[7, 6])),
        case!("maf, random order", dims, context, maf(dims).transforms(2).hidden(&[5]).mixing(Mixing::Random)),
        case!("coupled splines", dims, context, nsf_coupling(dims).transforms(2).hidden(&[7]))
            .looser(100.0, "steep and flat pieces in a row amplify errors, those of numerical Jacobians too"),
    ];
    let waves = [
        case!("realnvp with waves", dims, context, realnvp(dims).transforms(2).hidden(&[7]).waves(3)),
        case!("coupled splines with waves", dims, context, nsf_coupling(dims).transforms(2).hidden(&[7]).waves(2))
            .looser(100.0, "as coupled splines"),
    ];
    match dims {
        1 => cases.into_iter().map(|case| idle(case, &["net.0.weight"], ALONE)).collect(),
        _ => cases.into_iter().chain(waves).collect(),
    }
}

fn bumps(dims: usize, context: usize) -> Vec<Case> {
    let sylvester = case!("sylvester", dims, context, sylvester(dims).transforms(2).hidden(&[4]));
    vec![
        case!("planar", dims, context, planar(dims).transforms(3).hidden(&[4])),
        case!("radial", dims, context, radial(dims).transforms(3).hidden(&[4])),
        if dims == 1 { idle(idle(sylvester, &["v"], SIGN), &["r"], UPPER) } else { sylvester },
    ]
}

/// Two steps of order eight over a short time: both directions agree to the kit's tolerance, at little cost.
pub(crate) fn precise(flow: Continuous) -> Continuous {
    let solver = SolveOptions::new(Method::Dopri8, Stepping::fixed(2));
    flow.hidden(&[4]).config(CnfConfig::new(solver).end_time(EndTime::Fixed(0.15)))
}

fn continuous(dims: usize, context: usize) -> Vec<Case> {
    vec![
        case!("cnf", dims, context, precise(cnf(dims))),
        case!("matching", dims, context, precise(matching(dims)).input_gain(1.0)),
    ]
}

/// In double precision in one, two and five dimensions; in single precision in two, since the layers have been held to it
/// one by one.
fn hold(cases: impl Fn(usize, usize) -> Vec<Case>) {
    hold_in(&Check::f64(), &[1, 2, 5], &cases);
    hold_in(&Check::f32(), &[2], &cases);
}

fn hold_in(check: &Check, dims: &[usize], cases: impl Fn(usize, usize) -> Vec<Case>) {
    let sizes = dims.iter().flat_map(|&dims| [0, 2].map(|context| (dims, context)));
    let cases: Vec<Case> = sizes.flat_map(|(dims, context)| cases(dims, context)).collect();
    let failures: Vec<String> = cases.iter().filter_map(|c| check.run(c).err()).map(|f| f.to_string()).collect();
    assert!(failures.is_empty(), "{} of {} cases fail:\n{}", failures.len(), cases.len(), failures.join("\n"));
}

#[test]
fn builders_with_networks_hold() {
    hold(conditioned);
}

#[test]
fn bumps_hold() {
    hold(bumps);
}

#[test]
fn continuous_flows_hold() {
    hold(continuous);
}

#[test]
fn numbers_that_make_no_flow_are_named() {
    let store = || ParamStore::new(0, DType::F32, &Device::Cpu);
    let refused = [
        (maf(0).build(&store()).err(), "features: must be at least 1"),
        (planar(2).transforms(0).build(&store()).err(), "transforms: must be at least 1"),
        (planar(2).width(2).build(&store()).err(), "width: is for Sylvester flows"),
        (sylvester(2).width(3).build(&store()).err(), "1 to 2"),
        (realnvp(2).hidden(&[8, 0]).build(&store()).err(), "hidden widths"),
        (nsf_coupling(2).transformer(TransformerConfig::spline(1)).build(&store()).err(), "spline bins"),
        (cnf(0).build(&store()).err(), "no width may be zero"),
        (cnf(2).input_gain(0.0).build(&store()).err(), "input_gain"),
    ];
    for (error, expected) in refused {
        let error = error.expect(expected).to_string();
        assert!(error.contains(expected), "{error}");
    }
}
