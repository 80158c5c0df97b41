//! The fused chain against the composed one, and both against finite differences.

use candle_core::Var;

use super::*;
use crate::autodiff::pair;
use crate::testing::numbers::{distance, normal, relative, store64, values};

/// A pass over rows with parameters.
type Run = fn(&PlanarChain, &Tensor, &Tensor) -> Result<(Tensor, Tensor)>;

/// Both directions, fused and composed.
const RUNS: [(Direction, Run, Run); 2] = [
    (Direction::Encode, |chain, x, params| chain.encode(x, Some(params)), PlanarChain::encode_composed),
    (Direction::Decode, |chain, z, params| chain.decode(z, Some(params)), PlanarChain::decode_composed),
];

/// A random functional of a value and a log-determinant.
fn functional(value: &Tensor, log_det: &Tensor) -> Tensor {
    let sum = pair(value, &normal(7, value.dims())).unwrap() + pair(log_det, &normal(8, log_det.dims())).unwrap();
    sum.unwrap()
}

/// Value, log-determinant and the gradients of the functional of both.
fn passes(run: Run, chain: &PlanarChain, x: &Var, params: &Var) -> [Tensor; 4] {
    let (value, log_det) = run(chain, x.as_tensor(), params.as_tensor()).unwrap();
    let store = functional(&value, &log_det).backward().unwrap();
    let of = |v: &Var| store.get(v).unwrap().clone();
    [value, log_det, of(x), of(params)]
}

/// Rows, groups of them with parameters of their own, dimensions and steps.
const SIZES: [[usize; 4]; 5] = [[6, 6, 5, 9], [6, 3, 8, 2], [40, 1, 3, 17], [1, 1, 1, 1], [12, 4, 19, 3]];

fn operands([rows, groups, dims, steps]: [usize; 4]) -> (PlanarChain, Var, Var) {
    let chain = PlanarChain::amortized(dims, steps).unwrap();
    let x = Var::from_tensor(&normal(1, &[rows, dims])).unwrap();
    let params = Var::from_tensor(&normal(2, &[groups, chain.parameters_per_row()])).unwrap();
    (chain, x, params)
}

#[test]
fn the_fused_chain_is_the_composed_one_for_every_way_to_share_parameters() {
    for size in SIZES {
        let (chain, x, params) = operands(size);
        for (direction, fused, composed) in RUNS {
            let (fused, composed) = (passes(fused, &chain, &x, &params), passes(composed, &chain, &x, &params));
            for (what, (a, b)) in ["value", "log_det", "grad x", "grad params"].iter().zip(fused.iter().zip(&composed))
            {
                let gap = relative(a, b);
                // Where a map is nearly flat its inverse is steep.
                let most = if direction == Direction::Encode { 1e-11 } else { 1e-7 };
                assert!(gap < most, "{what} of {direction:?}, {size:?}: {gap}");
            }
        }
    }
}

/// What a flow does with it: gradients pulled back without a graph of the chain, in both directions, for parameters from
/// a network and for those of a layer.
#[test]
fn gradients_pulled_back_are_those_of_the_graph() {
    for size in SIZES {
        let (chain, x, params) = operands(size);
        let store = store64(3);
        let mut gradients = Gradients::new(&store);
        for (direction, fused, _) in RUNS {
            let [value, log_det, grad_x, grad_params] = passes(fused, &chain, &x, &params);
            let (to, log, context) = (normal(7, value.dims()), normal(8, log_det.dims()), Some(params.as_tensor()));
            let pulled = match direction {
                Direction::Encode => {
                    let tape = Tape::Input(x.as_detached_tensor());
                    chain.backprop(&value.detach(), &tape, context, &to, &log, &mut gradients)
                }
                Direction::Decode => {
                    chain.backprop_decode(&value.detach(), &Tape::Inverse, context, &to, &log, &mut gradients)
                }
            };
            let Pullback { x: reached, grad_x: found, grad_context } = pulled.unwrap();
            assert!(relative(&reached, &x) < 1e-9, "{direction:?}, {size:?}: {}", relative(&reached, &x));
            assert!(relative(&found, &grad_x) < 1e-9, "{direction:?}, {size:?}: {}", relative(&found, &grad_x));
            assert!(relative(&grad_context.unwrap(), &grad_params) < 1e-9, "parameters, {direction:?}, {size:?}");
        }
    }
    let store = store64(3);
    let chain = PlanarChain::new(&store.root().pp("chain"), 4, 3).unwrap();
    let x = normal(1, &[5, 4]);
    let (z, log_det) = chain.encode(&x, None).unwrap();
    let (to, log) = (normal(7, z.dims()), normal(8, log_det.dims()));
    let mut gradients = Gradients::new(&store);
    let tape = Tape::Input(x.clone());
    chain.backprop(&z.detach(), &tape, None, &to, &log, &mut gradients).unwrap();
    let by_graph = functional(&z, &log_det).backward().unwrap();
    for (param, gradient) in gradients.iter() {
        assert!(relative(gradient.unwrap(), by_graph.get(param.var()).unwrap()) < 1e-11, "{}", param.name());
    }
}

#[test]
fn an_image_of_no_row_is_named() {
    let (chain, z, params) = operands([6, 3, 8, 2]);
    let mut entries = values(&z);
    entries[8 * 4 + 1] = f64::INFINITY;
    let z = Tensor::from_vec(entries, (6, 8), z.device()).unwrap();
    let error = chain.decode(&z, Some(params.as_tensor())).unwrap_err();
    assert!(matches!(error, Error::NotInvertible { .. }) && error.rows() == [4], "{error}");
}

/// Far outside of where a network puts them too.
#[test]
fn the_gradient_is_that_of_finite_differences() {
    let chain = PlanarChain::amortized(3, 4).unwrap();
    let x = normal(1, &[4, 3]);
    let params = (normal(2, &[2, chain.parameters_per_row()]) * 1.5).unwrap();
    let [vx, vp] = [&x, &params].map(|t| Var::from_tensor(t).unwrap());
    let moved = |t: &Tensor, i: usize, by: f64| {
        let mut entries = values(t);
        entries[i] += by;
        Tensor::from_vec(entries, t.dims(), t.device()).unwrap()
    };
    for (direction, run, _) in RUNS {
        let [_, _, grad_x, grad_params] = passes(run, &chain, &vx, &vp);
        let value = |x: &Tensor, params: &Tensor| {
            let (z, log_det) = run(&chain, x, params).unwrap();
            functional(&z, &log_det).to_scalar::<f64>().unwrap()
        };
        let step = 1e-6;
        let check = |what: &str, found: &Tensor, at: &dyn Fn(usize, f64) -> f64| {
            for (i, &found) in values(found).iter().enumerate() {
                let slope = (at(i, step) - at(i, -step)) / (2.0 * step);
                let gap = (found - slope).abs();
                assert!(gap < 1e-5 * (1.0 + slope.abs()), "{direction:?}, {what} {i}: {found} {slope}");
            }
        };
        check("x", &grad_x, &|i, by| value(&moved(&x, i, by), &params));
        check("parameter", &grad_params, &|i, by| value(&x, &moved(&params, i, by)));
    }
}

#[test]
fn there_is_a_context_that_moves_nothing() {
    let chain = PlanarChain::amortized(5, 80).unwrap();
    let context = chain.identity(&mut FlowRng::seed_from(4)).unwrap();
    let context = Tensor::from_vec(context, (1, chain.parameters_per_row()), &Device::Cpu).unwrap();
    let x = normal(1, &[7, 5]);
    let (z, log_det) = chain.encode(&x, Some(&context)).unwrap();
    // A hair off: the layer keeps a tiny number away from dividing by zero.
    assert!(distance(&z, &x) < 1e-9 && values(&log_det).iter().all(|l| l.abs() < 1e-9));
}

#[test]
fn single_precision_agrees_with_double() {
    let chain = PlanarChain::amortized(40, 80).unwrap();
    let x = normal(1, &[8, 40]);
    let params = (normal(2, &[8, chain.parameters_per_row()]) * 0.3).unwrap();
    let [x32, p32] = [&x, &params].map(|t| t.to_dtype(candle_core::DType::F32).unwrap());
    let (z, log_det) = chain.encode(&x, Some(&params)).unwrap();
    let (z32, log32) = chain.encode(&x32, Some(&p32)).unwrap();
    assert!(relative(&z32, &z) < 1e-4 && relative(&log32, &log_det) < 1e-4);
}

#[test]
fn shared_parameters_are_those_of_single_layers() {
    let store = store64(3);
    let chain = PlanarChain::new(&store.root().pp("chain"), 4, 3).unwrap();
    let x = normal(1, &[5, 4]);
    let (z, log_det) = chain.encode(&x, None).unwrap();
    let (mut y, mut total, mut layers) = (x.clone(), log_det.zeros_like().unwrap(), Vec::new());
    for k in 0..3 {
        let layer = Planar::new(&store.root().pp(k), 4).unwrap();
        for name in ["u", "w", "b"] {
            let row = store.get(&format!("chain.{name}")).unwrap().var().as_detached_tensor().get(k).unwrap();
            store.get(&format!("{k}.{name}")).unwrap().set(&row).unwrap();
        }
        let (next, log) = layer.encode(&y, None).unwrap();
        (y, total) = (next, (total + log).unwrap());
        layers.push(layer);
    }
    assert!(distance(&z, &y) < 1e-12 && distance(&log_det, &total) < 1e-12);
    let (again, same) = PlanarChain::of_layers(layers).unwrap().encode(&x, None).unwrap();
    assert!(distance(&z, &again) < 1e-14 && distance(&log_det, &same) < 1e-14);
    let unequal = [2, 3].map(|dims| Planar::new(&store.root().pp(dims + 10), dims).unwrap());
    assert!(PlanarChain::of_layers(unequal.into()).is_err() && PlanarChain::of_layers(Vec::new()).is_err());
}

#[test]
fn contexts_that_do_not_fit_are_refused() {
    let chain = PlanarChain::amortized(2, 3).unwrap();
    let x = normal(1, &[4, 2]);
    assert!(matches!(chain.encode(&x, None), Err(Error::Context { .. })));
    assert!(matches!(chain.encode(&x, Some(&normal(2, &[3, 15]))), Err(Error::Context { .. })));
    assert!(matches!(chain.encode(&x, Some(&normal(2, &[4, 14]))), Err(Error::Shape { .. })));
    assert!(chain.encode(&x, Some(&normal(2, &[2, 15]))).is_ok());
    assert!(PlanarChain::amortized(0, 1).is_err() && PlanarChain::amortized(1, 0).is_err());
}
