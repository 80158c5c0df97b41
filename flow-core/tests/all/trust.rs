//! Is Candle right? Finite differences of every primitive that this workspace differentiates.
//!
//! Candle's gradients have had silent faults, most of them on operands that are not contiguous. Each
//! primitive is therefore checked in f64 with every operand contiguous, transposed, narrowed and
//! broadcast: its value against the same call on copies, its gradients against central differences.
//! The last tests document faults that we work around: they fail when Candle mends them.

use candle_core::{D, DType, Device, Result, Tensor, Var};
use flow_core::FlowRng;

/// How an operand lies in memory.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Layout {
    Contiguous,
    Transposed,
    Narrowed,
    Broadcast,
}

use Layout::{Broadcast, Contiguous, Narrowed, Transposed};

impl Layout {
    const ALL: [Layout; 4] = [Contiguous, Transposed, Narrowed, Broadcast];

    /// The shape of the memory behind an operand of shape `dims`.
    fn backing(self, dims: &[usize]) -> Vec<usize> {
        let mut dims = dims.to_vec();
        match self {
            Contiguous => {}
            Transposed => dims.reverse(),
            Narrowed => *dims.last_mut().unwrap() += 2,
            Broadcast => dims[0] = 1,
        }
        dims
    }

    /// The operand of shape `dims`, as a view of its memory.
    fn view(self, backing: &Tensor, dims: &[usize]) -> Result<Tensor> {
        match self {
            Contiguous => Ok(backing.clone()),
            Transposed => backing.permute((0..dims.len()).rev().collect::<Vec<_>>()),
            Narrowed => backing.narrow(D::Minus1, 1, dims[dims.len() - 1]),
            Broadcast => backing.broadcast_as(dims),
        }
    }
}

/// Where operands are drawn from.
#[derive(Debug, Clone, Copy)]
enum Range {
    /// `±[0.3, 1.3)`: away from the kinks of `abs` and `relu`.
    Signed,
    /// `[0.3, 1.3)`.
    Positive,
}

fn draw(dims: &[usize], range: Range, rng: &mut FlowRng) -> Tensor {
    let magnitude = rng.uniform(dims, DType::F64, &Device::Cpu).unwrap().affine(1.0, 0.3).unwrap();
    match range {
        Range::Positive => magnitude,
        Range::Signed => {
            let sign = rng.normal(dims, DType::F64, &Device::Cpu).unwrap().ge(0.0).unwrap();
            (magnitude * sign.to_dtype(DType::F64).unwrap().affine(2.0, -1.0).unwrap()).unwrap()
        }
    }
}

fn flat(t: &Tensor) -> Vec<f64> {
    t.flatten_all().unwrap().to_vec1::<f64>().unwrap()
}

type Function<'a> = &'a dyn Fn(&[Tensor]) -> Result<Tensor>;

/// Checks `f` of operands of these shapes, in every combination of layouts.
fn trust(name: &str, shapes: &[&[usize]], range: Range, f: Function<'_>) {
    let mut rng = FlowRng::named(1, name);
    for combination in 0..Layout::ALL.len().pow(shapes.len() as u32) {
        let layouts: Vec<Layout> =
            (0..shapes.len()).map(|i| Layout::ALL[combination / Layout::ALL.len().pow(i as u32) % 4]).collect();
        let vars: Vec<Var> = shapes
            .iter()
            .zip(&layouts)
            .map(|(dims, layout)| Var::from_tensor(&draw(&layout.backing(dims), range, &mut rng)).unwrap())
            .collect();
        check(&format!("{name} {layouts:?}"), &vars, shapes, &layouts, f, &mut rng);
    }
}

fn check(name: &str, vars: &[Var], shapes: &[&[usize]], layouts: &[Layout], f: Function<'_>, rng: &mut FlowRng) {
    let operands = |at: &dyn Fn(usize) -> Tensor| -> Vec<Tensor> {
        (0..shapes.len()).map(|i| layouts[i].view(&at(i), shapes[i]).unwrap()).collect()
    };
    let views = operands(&|i| vars[i].as_tensor().clone());
    let value = f(&views).unwrap_or_else(|e| panic!("{name}: {e}"));
    let copies: Vec<Tensor> = views.iter().map(|v| v.force_contiguous().unwrap()).collect();
    close(&flat(&value), &flat(&f(&copies).unwrap()), 1e-13, &format!("{name}: value on views against copies"));

    let weight = rng.normal(value.shape(), DType::F64, &Device::Cpu).unwrap();
    let graph = (&value * &weight).unwrap().sum_all().unwrap().backward().unwrap();
    for (i, var) in vars.iter().enumerate() {
        let gradient = graph.get(var).unwrap_or_else(|| panic!("{name}: operand {i} has no gradient"));
        let start = flat(var);
        let objective = |entries: Vec<f64>| {
            let moved = Tensor::from_vec(entries, var.shape(), &Device::Cpu).unwrap();
            let views = operands(&|j| if j == i { moved.clone() } else { vars[j].as_detached_tensor() });
            let copies: Vec<Tensor> = views.iter().map(|v| v.force_contiguous().unwrap()).collect();
            (f(&copies).unwrap() * &weight).unwrap().sum_all().unwrap().to_scalar::<f64>().unwrap()
        };
        let numerical: Vec<f64> = (0..start.len())
            .map(|k| {
                let moved = |step: f64| {
                    let mut entries = start.clone();
                    entries[k] += step;
                    objective(entries)
                };
                (moved(1e-5) - moved(-1e-5)) / 2e-5
            })
            .collect();
        close(&flat(gradient), &numerical, 1e-7, &format!("{name}: gradient of operand {i}"));
    }
}

fn close(got: &[f64], expected: &[f64], tolerance: f64, what: &str) {
    assert_eq!(got.len(), expected.len(), "{what}");
    for (g, e) in got.iter().zip(expected) {
        assert!((g - e).abs() <= tolerance * (1.0 + e.abs()), "{what}: {g}, expected {e}");
    }
}

const SHAPE: &[usize] = &[2, 3, 2];

#[test]
fn elementwise_functions() {
    type Unary = fn(&Tensor) -> Result<Tensor>;
    let signed: [(&str, Unary); 13] = [
        ("affine", |x| x.affine(-1.7, 0.4)),
        ("neg", Tensor::neg),
        ("exp", Tensor::exp),
        ("tanh", Tensor::tanh),
        ("silu", Tensor::silu),
        ("abs", Tensor::abs),
        ("sqr", Tensor::sqr),
        ("recip", Tensor::recip),
        ("relu", Tensor::relu),
        ("minimum", |x| x.minimum(0.1)),
        ("maximum", |x| x.maximum(-0.1)),
        ("clamp", |x| x.clamp(-0.8, 0.7)),
        ("sin and cos", |x| x.sin()? + x.cos()?),
    ];
    for (name, f) in signed {
        trust(name, &[SHAPE], Range::Signed, &|t| f(&t[0]));
    }
    let positive: [(&str, Unary); 3] = [("log", Tensor::log), ("sqrt", Tensor::sqrt), ("powf", |x| x.powf(1.7))];
    for (name, f) in positive {
        trust(name, &[SHAPE], Range::Positive, &|t| f(&t[0]));
    }
}

#[test]
fn two_operands_of_one_shape() {
    trust("add", &[SHAPE, SHAPE], Range::Signed, &|t| &t[0] + &t[1]);
    trust("sub", &[SHAPE, SHAPE], Range::Signed, &|t| &t[0] - &t[1]);
    trust("mul", &[SHAPE, SHAPE], Range::Signed, &|t| &t[0] * &t[1]);
    trust("div", &[SHAPE, SHAPE], Range::Signed, &|t| &t[0] / &t[1]);
    trust("minimum", &[SHAPE, SHAPE], Range::Signed, &|t| t[0].minimum(&t[1]));
    trust("maximum", &[SHAPE, SHAPE], Range::Signed, &|t| t[0].maximum(&t[1]));
    let mask = Tensor::new(&[1_u8, 0, 0, 1, 1, 0, 0, 1, 0, 0, 1, 1], &Device::Cpu).unwrap().reshape(SHAPE).unwrap();
    trust("where_cond", &[SHAPE, SHAPE], Range::Signed, &|t| mask.where_cond(&t[0], &t[1]));
    let strided = mask.reshape((2, 2, 3)).unwrap().transpose(1, 2).unwrap();
    trust("where_cond, strided mask", &[SHAPE, SHAPE], Range::Signed, &|t| strided.where_cond(&t[0], &t[1]));
    // One tensor used twice gets both gradients.
    trust("x·x + x", &[SHAPE], Range::Signed, &|t| (&t[0] * &t[0])? + &t[0]);
}

#[test]
fn broadcasting() {
    let pairs: [[&[usize]; 2]; 4] =
        [[&[2, 3, 2], &[3, 1]], [&[2, 3, 2], &[2, 1, 1]], [&[2, 1, 2], &[1, 3, 1]], [&[3, 2], &[1, 1]]];
    for pair in pairs {
        trust("broadcast_add", &pair, Range::Signed, &|t| t[0].broadcast_add(&t[1]));
        trust("broadcast_sub", &pair, Range::Signed, &|t| t[0].broadcast_sub(&t[1]));
        trust("broadcast_mul", &pair, Range::Signed, &|t| t[0].broadcast_mul(&t[1]));
        trust("broadcast_div", &pair, Range::Signed, &|t| t[0].broadcast_div(&t[1]));
    }
    trust("broadcast_as", &[&[3, 1]], Range::Signed, &|t| t[0].broadcast_as((2, 3, 4)));
}

#[test]
fn reductions() {
    for dim in 0..3 {
        trust("sum", &[SHAPE], Range::Signed, &|t| t[0].sum(dim));
        trust("sum_keepdim", &[SHAPE], Range::Signed, &|t| t[0].sum_keepdim(dim));
        trust("mean", &[SHAPE], Range::Signed, &|t| t[0].mean(dim));
        trust("mean_keepdim", &[SHAPE], Range::Signed, &|t| t[0].mean_keepdim(dim));
        trust("cumsum", &[SHAPE], Range::Signed, &|t| t[0].cumsum(dim));
    }
    trust("sum over two", &[SHAPE], Range::Signed, &|t| t[0].sum((0, 2)));
    trust("sum_all", &[SHAPE], Range::Signed, &|t| t[0].sum_all());
    trust("mean_all", &[SHAPE], Range::Signed, &|t| t[0].mean_all());
}

#[test]
fn matrix_products() {
    trust("matmul", &[&[3, 4], &[4, 2]], Range::Signed, &|t| t[0].matmul(&t[1]));
    trust("matmul by a transpose", &[&[3, 4], &[2, 4]], Range::Signed, &|t| t[0].matmul(&t[1].t()?));
    // The rule for more than two dimensions: copies, or broadcast_matmul.
    trust("batched matmul of copies", &[&[2, 3, 4], &[2, 4, 2]], Range::Signed, &|t| {
        t[0].contiguous()?.matmul(&t[1].contiguous()?)
    });
    trust("broadcast_matmul", &[&[2, 3, 4], &[4, 2]], Range::Signed, &|t| t[0].broadcast_matmul(&t[1]));
    trust("broadcast_matmul from the left", &[&[3, 4], &[2, 4, 2]], Range::Signed, &|t| t[0].broadcast_matmul(&t[1]));
}

#[test]
fn convolution() {
    for dilation in [1, 2] {
        let shapes: [&[usize]; 2] = [&[2, 2, 5, 4], &[3, 2, 3, 2]];
        trust("conv2d", &shapes, Range::Signed, &|t| t[0].conv2d(&t[1], 0, 1, dilation, 1));
    }
    trust("1×1 conv2d", &[&[2, 2, 3, 2], &[3, 2, 1, 1]], Range::Signed, &|t| t[0].conv2d(&t[1], 0, 1, 1, 1));
    trust("one row conv2d", &[&[2, 2, 1, 6], &[2, 2, 1, 3]], Range::Signed, &|t| t[0].conv2d(&t[1], 0, 1, 2, 1));
}

#[test]
fn rearrangements() {
    for dim in 0..3 {
        trust("cat", &[SHAPE, SHAPE], Range::Signed, &|t| Tensor::cat(&[&t[0], &t[1]], dim));
        trust("stack", &[SHAPE, SHAPE], Range::Signed, &|t| Tensor::stack(&[&t[0], &t[1]], dim));
        trust("pad_with_zeros", &[SHAPE], Range::Signed, &|t| t[0].pad_with_zeros(dim, 1, 2));
        trust("narrow", &[SHAPE], Range::Signed, &|t| t[0].narrow(dim, 1, 1));
        trust("narrow and squeeze", &[SHAPE], Range::Signed, &|t| t[0].narrow(dim, 0, 1)?.squeeze(dim));
        trust("unsqueeze", &[SHAPE], Range::Signed, &|t| t[0].unsqueeze(dim));
        let index = Tensor::new(&[1_u32, 0, 1, 1], &Device::Cpu).unwrap();
        trust("index_select of a copy", &[SHAPE], Range::Signed, &|t| t[0].contiguous()?.index_select(&index, dim));
    }
    trust("reshape", &[SHAPE], Range::Signed, &|t| t[0].reshape((3, 4)));
    trust("flatten_from", &[SHAPE], Range::Signed, &|t| t[0].flatten_from(1));
    trust("transpose", &[SHAPE], Range::Signed, &|t| t[0].transpose(0, 2));
    trust("permute", &[SHAPE], Range::Signed, &|t| t[0].permute((2, 0, 1)));
    trust("permute, reshape", &[SHAPE], Range::Signed, &|t| t[0].permute((2, 0, 1))?.reshape((4, 3)));
    trust("contiguous", &[SHAPE], Range::Signed, &|t| t[0].transpose(0, 1)?.contiguous());
    trust("repeat", &[SHAPE], Range::Signed, &|t| t[0].repeat((2, 1, 3)));
}

/// The gather of a spline's bin: indices along the last dimension.
#[test]
fn gathering() {
    let index = Tensor::new(&[[[1_u32], [0], [1]], [[0], [0], [1]]], &Device::Cpu).unwrap();
    trust("gather of a copy", &[SHAPE], Range::Signed, &|t| t[0].contiguous()?.gather(&index, 2));
}

const MENDED: &str = "Candle has mended this fault: the workaround can go, and so can this test";

fn gradient(f: impl Fn(&Tensor) -> Result<Tensor>, at: &Tensor) -> Vec<f64> {
    let var = Var::from_tensor(at).unwrap();
    let graph = f(var.as_tensor()).unwrap().backward().unwrap();
    flat(graph.get(&var).unwrap())
}

fn differ(a: &[f64], b: &[f64]) -> bool {
    a.len() != b.len() || a.iter().zip(b).any(|(a, b)| (a - b).abs() > 1e-6)
}

/// `conv1d`'s backward multiplies by a kernel whose copy it has just made and ignores: we use `conv2d`
/// with a kernel of one row.
#[test]
fn still_wrong_conv1d_weight_gradient() {
    let mut rng = FlowRng::seed_from(1);
    let weight = draw(&[2, 3, 3], Range::Signed, &mut rng);
    for (batch, wrong) in [(1, false), (2, true)] {
        let x = draw(&[batch, 3, 8], Range::Signed, &mut rng);
        let cotangent = draw(&[batch, 2, 6], Range::Signed, &mut rng);
        let one = gradient(|w| (x.conv1d(w, 0, 1, 1, 1)? * &cotangent)?.sum_all(), &weight);
        let image = x.unsqueeze(2).unwrap();
        let two =
            gradient(|w| (image.conv2d(&w.unsqueeze(2)?, 0, 1, 1, 1)?.squeeze(2)? * &cotangent)?.sum_all(), &weight);
        assert_eq!(differ(&one, &two), wrong, "conv1d with batch {batch}: {MENDED}");
    }
}

/// A diverged network looks healthy behind a `relu`: nothing here uses it to check for NaN.
#[test]
fn still_wrong_relu_swallows_nan() {
    let nan = Tensor::new(&[f32::NAN], &Device::Cpu).unwrap();
    assert_eq!(nan.relu().unwrap().to_vec1::<f32>().unwrap(), [0.0], "relu(NaN): {MENDED}");
}

/// Equal maxima get the whole gradient each: log-sum-exp detaches its maximum.
#[test]
fn still_wrong_max_of_ties() {
    let x = Tensor::new(&[[2.0_f64, 2.0, 1.0]], &Device::Cpu).unwrap();
    assert_eq!(gradient(|x| x.max(1)?.sum_all(), &x), [1.0, 1.0, 0.0], "max of ties: {MENDED}");
}

/// A transposed batch times a matrix shared by the batch: `contiguous` first.
#[test]
fn still_wrong_matmul_of_a_transposed_batch() {
    let mut rng = FlowRng::seed_from(2);
    let x = draw(&[2, 4, 3], Range::Signed, &mut rng).transpose(1, 2).unwrap();
    let weight = draw(&[4, 2], Range::Signed, &mut rng).broadcast_as((2, 4, 2)).unwrap();
    let wrong = flat(&x.matmul(&weight).unwrap());
    let right = flat(&x.contiguous().unwrap().matmul(&weight.contiguous().unwrap()).unwrap());
    assert!(differ(&wrong, &right), "matmul of a transposed batch: {MENDED}");
}

/// `unfold` records itself as a reshape, which permutes the gradient: squeezes are reshape and permute.
#[test]
fn still_wrong_unfold_gradient() {
    let x = Tensor::arange(0.0_f64, 8.0, &Device::Cpu).unwrap().reshape((4, 2)).unwrap();
    let weight = Tensor::arange(0.0_f64, 8.0, &Device::Cpu).unwrap();
    let found = gradient(|x| (x.unfold(0, 2, 2)?.flatten_all()? * &weight)?.sum_all(), &x);
    assert!(differ(&found, &[0.0, 2.0, 1.0, 3.0, 4.0, 6.0, 5.0, 7.0]), "unfold: {MENDED}");
}

/// `scatter` hands the overwritten entries a gradient all the same.
#[test]
fn still_wrong_scatter_gradient() {
    let x = Tensor::zeros(4, DType::F64, &Device::Cpu).unwrap();
    let index = Tensor::new(&[1_u32, 3], &Device::Cpu).unwrap();
    let source = Tensor::new(&[5.0_f64, 6.0], &Device::Cpu).unwrap();
    let found = gradient(|x| x.scatter(&index, &source, 0)?.sum_all(), &x);
    assert!(differ(&found, &[1.0, 0.0, 1.0, 0.0]), "scatter: {MENDED}");
}
