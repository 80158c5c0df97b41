use candle_core::{DType, Device, Tensor};

use super::*;
use crate::test_util::{check_backprop, check_bijector, distance, normal, perturb, store64, values};
use crate::{FlowRng, Inverse, ParamStore};

const KINDS: [Parametrization; 3] =
    [Parametrization::Plu, Parametrization::Full, Parametrization::Householder { reflections: 3 }];

#[test]
fn inverse_log_det_and_gradients_of_every_parametrization() {
    for kind in KINDS {
        for shape in [&[1][..], &[5], &[3, 2, 2], &[4, 3]] {
            let store = store64(11);
            let layer = InvertibleConv::new(&store.root(), shape, kind).unwrap();
            perturb(&store, 0.2);
            let mut dims = vec![3];
            dims.extend_from_slice(shape);
            let x = normal(5, &dims);
            check_bijector(&layer, &x, None, 1e-9);
            check_backprop(&store, &layer, &x, None);
            // Decoding is differentiable too: nothing may be lost in the inverse.
            check_backprop(&store, &Inverse(layer), &x, None);
        }
    }
}

#[test]
fn starts_as_the_same_rotation_for_plu_and_full() {
    let weight = |kind| InvertibleConv::new(&store64(4).root(), &[6, 2, 2], kind).unwrap().weight().unwrap();
    let (plu, full) = (weight(Parametrization::Plu), weight(Parametrization::Full));
    assert!(distance(&plu, &full) < 1e-14);
    let gram = full.matmul(&full.t().unwrap()).unwrap();
    assert!(distance(&gram, &Tensor::eye(6, DType::F64, &Device::Cpu).unwrap()) < 1e-13);
}

#[test]
fn acts_on_each_pixel_alone() {
    let layer = InvertibleConv::new(&store64(4).root(), &[2, 1, 2], Parametrization::Full).unwrap();
    let w = values(&layer.weight().unwrap());
    let x = Tensor::new(&[[[[1.0, 2.0]], [[3.0, 5.0f64]]]], &Device::Cpu).unwrap();
    let expected = [w[0] + 3.0 * w[1], 2.0 * w[0] + 5.0 * w[1], w[2] + 3.0 * w[3], 2.0 * w[2] + 5.0 * w[3]];
    let found = values(&layer.encode(&x, None).unwrap().0);
    assert!(found.iter().zip(expected).all(|(a, b)| (a - b).abs() < 1e-14), "{found:?} against {expected:?}");
}

#[test]
fn single_precision_round_trip() {
    let store = ParamStore::new(2, DType::F32, &Device::Cpu);
    let layer = InvertibleConv::new(&store.root(), &[48, 4, 4], Parametrization::Plu).unwrap();
    let x = FlowRng::seed_from(1).normal((2, 48, 4, 4), DType::F32, &Device::Cpu).unwrap();
    let z = layer.encode(&x, None).unwrap().0;
    assert!(distance(&layer.decode(&z, None).unwrap().0, &x) < 1e-5);
}

#[test]
fn strided_input_is_read_in_its_own_order() {
    let layer = InvertibleConv::new(&store64(4).root(), &[3, 2, 4], Parametrization::Plu).unwrap();
    let x = normal(8, &[2, 4, 2, 3]).transpose(1, 3).unwrap();
    let copy = x.force_contiguous().unwrap();
    assert!(distance(&layer.encode(&x, None).unwrap().0, &layer.encode(&copy, None).unwrap().0) < 1e-14);
}

#[test]
fn a_singular_matrix_is_an_error_that_names_the_layer() {
    let store = store64(1);
    let layer = InvertibleConv::new(&store.root(), &[2], Parametrization::Full).unwrap();
    store.get("weight").unwrap().set(&Tensor::new(&[[1.0, 2.0], [2.0, 4.0f64]], &Device::Cpu).unwrap()).unwrap();
    let x = normal(1, &[3, 2]);
    for message in [layer.encode(&x, None).unwrap_err().to_string(), layer.decode(&x, None).unwrap_err().to_string()] {
        assert!(message.contains("conv1x1(full)") && message.contains("singular"), "{message}");
    }
    assert!(layer.condition_number().unwrap() > 1e15);
    store.get("weight").unwrap().set(&Tensor::new(&[[1.0, f64::NAN], [2.0, 4.0]], &Device::Cpu).unwrap()).unwrap();
    assert!(matches!(layer.encode(&x, None), Err(Error::NonFinite { .. })));
}

#[test]
fn wrong_arguments_are_refused() {
    let path = store64(1).root();
    assert!(InvertibleConv::new(&path, &[], Parametrization::Plu).is_err());
    assert!(InvertibleConv::new(&path, &[0, 2], Parametrization::Plu).is_err());
    assert!(InvertibleConv::new(&path, &[2], Parametrization::Householder { reflections: 0 }).is_err());
    let layer = InvertibleConv::new(&path, &[2, 2], Parametrization::Plu).unwrap();
    assert!(matches!(layer.encode(&normal(1, &[1, 2, 3]), None), Err(Error::Shape { .. })));
}
