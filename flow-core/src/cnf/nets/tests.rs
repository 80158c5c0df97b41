use candle_core::{Device, Var};

use super::*;
use crate::cnf::{FieldActivation, VectorField};
use crate::testing::jacobian::of_map;
use crate::testing::numbers::{distance, normal, store64, values};

const ACTIVATIONS: [FieldActivation; 3] = [FieldActivation::Tanh, FieldActivation::Softplus, FieldActivation::Swish];

/// Both networks with every activation, with a context of two entries and without.
fn fields(dim: usize) -> Vec<Box<dyn VectorField>> {
    let mut fields: Vec<Box<dyn VectorField>> = Vec::new();
    for (i, activation) in ACTIVATIONS.into_iter().enumerate() {
        let path = store64(i as u64).root();
        for context in [None, Some(2)] {
            let name = format!("{context:?}");
            let concat = ConcatConfig { activation, context, ..ConcatConfig::new(&[5, 4]) };
            fields.push(Box::new(Concat::new(&path.pp("concat").pp(&name), dim, &concat).unwrap()));
            let mlp = MlpFieldConfig { activation, context, time_frequencies: i, ..MlpFieldConfig::new(&[6]) };
            fields.push(Box::new(MlpField::new(&path.pp("mlp").pp(&name), dim, &mlp).unwrap()));
        }
    }
    fields
}

fn context_of(field: &dyn VectorField) -> Option<Tensor> {
    field.context_dim().map(|c| normal(9, &[2, c]))
}

#[test]
fn products_and_divergences_are_those_of_the_numerical_jacobian() {
    for field in [fields(1), fields(3)].into_iter().flatten() {
        let (dim, c) = (field.dim(), context_of(field.as_ref()));
        let (t, x) = (Tensor::new(&[0.3, -0.8], &Device::Cpu).unwrap(), normal(1, &[4, dim]));
        let tangents = [normal(2, &[4, dim]), normal(3, &[4, dim])];
        let (value, products) = field.jvp(&t, &x, &tangents, c.as_ref()).unwrap();
        assert!(distance(&value, &field.value(&t, &x, c.as_ref()).unwrap()) < 1e-14);
        let units: Vec<Tensor> = (0..dim)
            .map(|k| {
                let row: Vec<f64> = (0..dim).map(|j| f64::from(u8::from(j == k))).collect();
                Tensor::from_vec(row, (1, dim), &Device::Cpu).unwrap().broadcast_as((4, dim)).unwrap()
            })
            .collect();
        let (_, divergence) = field.divergence(&t, &x, &units, c.as_ref()).unwrap();
        // Entry (i, j) of the Jacobian of the whole batch; rows do not mix.
        let full = of_map(&x, |x| field.value(&t, x, c.as_ref())).unwrap();
        for (v, product) in tangents.iter().zip(&products) {
            let v = values(v);
            for (row, got) in full.iter().zip(values(product)) {
                let expected: f64 = row.iter().zip(&v).map(|(a, b)| a * b).sum();
                assert!((got - expected).abs() < 1e-8, "{}: {got} against {expected}", field.name());
            }
        }
        for (b, got) in values(&divergence).into_iter().enumerate() {
            let expected: f64 = (0..dim).map(|k| full[b * dim + k][b * dim + k]).sum();
            assert!((got - expected).abs() < 1e-8, "{}: divergence {got} against {expected}", field.name());
        }
    }
}

/// The shared part of a layer is the same as one affine layer over concatenated rows.
#[test]
fn concat_layers_are_affine_layers_over_concatenated_rows() {
    let store = store64(3);
    let config = ConcatConfig { context: Some(2), ..ConcatConfig::new(&[5]) };
    let field = Concat::new(&store.root(), 3, &config).unwrap();
    let (t, x, c) = (Tensor::new(&[0.7], &Device::Cpu).unwrap(), normal(1, &[4, 3]), normal(2, &[2, 2]));
    let get = |name: &str| store.get(name).unwrap().tensor();
    let rows = Tensor::cat(&[&c.narrow(0, 0, 1).unwrap(), &c.narrow(0, 0, 1).unwrap()], 0).unwrap();
    let rows = Tensor::cat(&[&rows, &c.narrow(0, 1, 1).unwrap(), &c.narrow(0, 1, 1).unwrap()], 0).unwrap();
    let time = t.reshape((1, 1)).unwrap().broadcast_as((4, 1)).unwrap();
    let mut h = x.clone();
    for i in 0..2 {
        let weight = Tensor::cat(&[get(&format!("{i}.weight")), get(&format!("{i}.shared"))], 0).unwrap();
        let input = Tensor::cat(&[&h, &time, &rows], 1).unwrap();
        h = input.matmul(&weight).unwrap().broadcast_add(&get(&format!("{i}.bias"))).unwrap();
        if i == 0 {
            h = h.tanh().unwrap();
        }
    }
    assert!(distance(&field.value(&t, &x, Some(&c)).unwrap(), &h) < 1e-14);
}

#[test]
fn a_time_for_each_group_is_the_same_as_one_group_after_the_other() {
    for field in fields(2) {
        let c = context_of(field.as_ref());
        let (t, x) = (Tensor::new(&[0.3, -0.8], &Device::Cpu).unwrap(), normal(1, &[6, 2]));
        let both = field.value(&t, &x, c.as_ref()).unwrap();
        for g in 0..2 {
            let c = c.as_ref().map(|c| c.narrow(0, g, 1).unwrap());
            let alone = field.value(&t.narrow(0, g, 1).unwrap(), &x.narrow(0, 3 * g, 3).unwrap(), c.as_ref());
            assert!(distance(&alone.unwrap(), &both.narrow(0, 3 * g, 3).unwrap()) < 1e-14);
        }
    }
}

/// A divergence is an ordinary graph: its gradient is the numerical one, with respect to time as well.
#[test]
fn the_gradient_of_a_divergence_is_the_numerical_one() {
    for field in fields(2) {
        let c = context_of(field.as_ref());
        let probe = [normal(5, &[4, 2])];
        let (t, x) = (Var::new(&[0.4], &Device::Cpu).unwrap(), Var::from_tensor(&normal(1, &[4, 2])).unwrap());
        let weight = normal(6, &[4]);
        let objective = |t: &Tensor, x: &Tensor| -> Result<Tensor> {
            let (_, divergence) = field.divergence(t, x, &probe, c.as_ref())?;
            Ok((divergence * &weight)?.sum(0)?.reshape(1)?)
        };
        let graph = objective(&t, &x).unwrap().backward().unwrap();
        for (var, numerical) in [(&x, of_map(&x, |x| objective(&t, x))), (&t, of_map(&t, |t| objective(t, &x)))] {
            for (got, expected) in values(graph.get(var).unwrap()).into_iter().zip(&numerical.unwrap()[0]) {
                assert!((got - expected).abs() < 1e-8, "{}: {got} against {expected}", field.name());
            }
        }
    }
}

#[test]
fn wrong_arguments_are_refused_by_name() {
    let path = store64(1).root();
    assert!(Concat::new(&path, 0, &ConcatConfig::new(&[3])).is_err());
    assert!(Concat::new(&path, 2, &ConcatConfig::new(&[0])).is_err());
    let with_context = MlpFieldConfig { context: Some(3), ..MlpFieldConfig::new(&[3]) };
    assert!(MlpField::new(&path, 2, &MlpFieldConfig { context: Some(0), ..with_context.clone() }).is_err());
    let field = MlpField::new(&path.pp("f"), 2, &with_context).unwrap();
    let (t, x) = (Tensor::new(&[0.0], &Device::Cpu).unwrap(), normal(1, &[4, 2]));
    let message = |r: Result<Tensor>| r.unwrap_err().to_string();
    assert!(message(field.value(&t, &x, None)).contains("mlp field: needs a context"));
    assert!(message(field.value(&t, &x, Some(&normal(1, &[3, 3])))).contains("do not divide"));
    assert!(message(field.value(&t, &normal(1, &[4, 3]), Some(&normal(1, &[4, 3])))).contains("(B, 2)"));
    let two = Tensor::new(&[0.0, 1.0], &Device::Cpu).unwrap();
    assert!(message(field.value(&two, &x, Some(&normal(1, &[4, 3])))).contains("2 times"));
}
