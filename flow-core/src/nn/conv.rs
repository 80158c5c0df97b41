//! Two-dimensional convolution with stride one and a kernel, dilation and padding per axis.

use candle_core::{Shape, Tensor};

use super::half::{is_half, round};

pub use crate::kernels::conv::ConvGeometry;
use crate::kernels::conv::{self as kernel, Plan};
use crate::kernels::{Fused, Real, accepts, fuse};
use crate::param::{Init, Param, ParamPath};
use crate::{Error, Result};

/// `y[b, o, i, j] = Σ_{c, u, v} w[o, c, u, v] · x[b, c, i + u·d₀ - p₀, j + v·d₁ - p₁]`, plus a bias.
///
/// # Shapes
/// - `x`: `(B, C, H, W)`; `weight`: `(O, C, kh, kw)`; `bias`: `(O,)`; output `(B, O, H', W')`.
///
/// # Errors
/// [`Error::Shape`] when the channels differ or the kernel does not fit.
pub fn conv2d(x: &Tensor, weight: &Tensor, bias: Option<&Tensor>, geometry: &ConvGeometry) -> Result<Tensor> {
    let Some(plan) = plan(x, weight, bias, geometry)? else {
        return conv2d_composed(x, weight, bias, geometry);
    };
    match bias {
        Some(bias) => fuse(ConvOp(plan), [x, weight, bias]),
        None => fuse(ConvOp(plan), [x, weight]),
    }
}

/// The sizes of a convolution, `None` where the kernels do not apply.
fn plan(x: &Tensor, weight: &Tensor, bias: Option<&Tensor>, geometry: &ConvGeometry) -> Result<Option<Plan>> {
    let ((batch, channels, h, w), (outputs, wc, kh, kw)) = (x.dims4()?, weight.dims4()?);
    let out = geometry.output([h, w]).filter(|_| wc == channels && [kh, kw] == geometry.kernel);
    let Some(out) = out else {
        return Err(Error::Shape {
            layer: "conv2d".into(),
            expected: format!("(B, {wc}, H, W) no smaller than the kernel {:?}", geometry.kernel),
            actual: x.dims().to_vec(),
        });
    };
    if let Some(bias) = bias.filter(|b| b.dims() != [outputs]) {
        let actual = bias.dims().to_vec();
        return Err(Error::Shape { layer: "conv2d (bias)".into(), expected: format!("({outputs})"), actual });
    }
    let fits = accepts(x) && accepts(weight) && batch > 0 && channels > 0 && outputs > 0;
    Ok(fits.then_some(Plan { geometry: *geometry, batch, channels, outputs, size: [h, w], out }))
}

/// The kernels as a function of input and weight, and of a bias where there is one.
struct ConvOp(Plan);

impl ConvOp {
    fn out(&self) -> Shape {
        let p = &self.0;
        (p.batch, p.outputs, p.out[0], p.out[1]).into()
    }
}

impl Fused<2> for ConvOp {
    fn name(&self) -> &'static str {
        "flow-conv2d"
    }

    fn shape(&self) -> Shape {
        self.out()
    }

    fn forward<T: Real>(&self, [x, w]: [&[T]; 2]) -> candle_core::Result<Vec<T>> {
        Ok(kernel::forward(&self.0, x, w, &[]))
    }

    fn backward<T: Real>(&self, [x, w]: [&[T]; 2], grad: &[T]) -> candle_core::Result<[Option<Vec<T>>; 2]> {
        let (dx, dw, _) = kernel::backward(&self.0, x, w, grad);
        Ok([Some(dx), Some(dw)])
    }
}

impl Fused<3> for ConvOp {
    fn name(&self) -> &'static str {
        "flow-conv2d-bias"
    }

    fn shape(&self) -> Shape {
        self.out()
    }

    fn forward<T: Real>(&self, [x, w, b]: [&[T]; 3]) -> candle_core::Result<Vec<T>> {
        Ok(kernel::forward(&self.0, x, w, b))
    }

    fn backward<T: Real>(&self, [x, w, _]: [&[T]; 3], grad: &[T]) -> candle_core::Result<[Option<Vec<T>>; 3]> {
        let (dx, dw, db) = kernel::backward(&self.0, x, w, grad);
        Ok([Some(dx), Some(dw), Some(db)])
    }
}

/// The specification of [`conv2d`] in Candle's own operations; in bf16 where that was asked for
/// ([`set_bf16_convolutions`](super::set_bf16_convolutions)).
pub fn conv2d_composed(x: &Tensor, weight: &Tensor, bias: Option<&Tensor>, g: &ConvGeometry) -> Result<Tensor> {
    let (_, c, h, w) = x.dims4()?;
    let (o, wc, kh, kw) = weight.dims4()?;
    if wc != c || [kh, kw] != g.kernel || g.output([h, w]).is_none() {
        return Err(Error::Shape {
            layer: "conv2d".into(),
            expected: format!("(B, {wc}, H, W) no smaller than the kernel {:?}", g.kernel),
            actual: x.dims().to_vec(),
        });
    }
    let [[top, bottom], [left, right]] = g.padding;
    let x = x.pad_with_zeros(2, top, bottom)?.pad_with_zeros(3, left, right)?;
    let (dtype, half) = (x.dtype(), is_half(&x));
    let (x, weight) = if half { (round(&x)?, &round(weight)?) } else { (x, weight) };
    let y = if x.device().is_metal() {
        by_patches(&x, weight, g)?
    } else if g.dilation[0] == g.dilation[1] {
        x.contiguous()?.conv2d(&weight.contiguous()?, 0, 1, g.dilation[0], 1)?
    } else {
        // Candle has one dilation for both axes: one convolution per kernel row, each on its own slice.
        let rows = x.dim(2)? - g.dilation[0] * (kh - 1);
        let mut sum: Option<Tensor> = None;
        for u in 0..kh {
            let slice = x.narrow(2, u * g.dilation[0], rows)?.contiguous()?;
            let row = slice.conv2d(&weight.narrow(2, u, 1)?.contiguous()?, 0, 1, g.dilation[1], 1)?;
            sum = crate::autodiff::add_optional(sum, Some(row))?;
        }
        sum.ok_or_else(|| Error::config("conv2d", "the kernel has no rows"))?
    };
    let y = y.to_dtype(dtype)?;
    match bias {
        Some(b) => Ok(y.broadcast_add(&b.reshape((1, o, 1, 1))?)?),
        None => Ok(y),
    }
}

/// The convolution of a padded `x` as one product with its patches.
///
/// On Metal, Candle 0.11.1 reads the numbers of a strided kernel as if it were not, and the gradient of a weight is a
/// convolution with such a kernel: it would be wrong without a word.
fn by_patches(x: &Tensor, weight: &Tensor, g: &ConvGeometry) -> Result<Tensor> {
    let ((b, c, h, w), (o, _, kh, kw)) = (x.dims4()?, weight.dims4()?);
    let (rows, columns) = (h - g.dilation[0] * (kh - 1), w - g.dilation[1] * (kw - 1));
    let patch = |tap: usize| {
        let (down, right) = (tap / kw * g.dilation[0], tap % kw * g.dilation[1]);
        x.narrow(2, down, rows)?.narrow(3, right, columns)?.contiguous()?.reshape((b, c, rows * columns))
    };
    let patches = Tensor::cat(&(0..kh * kw).map(patch).collect::<candle_core::Result<Vec<_>>>()?, 1)?;
    let weight = weight.permute((0, 2, 3, 1))?.contiguous()?.reshape((1, o, kh * kw * c))?;
    Ok(weight.broadcast_matmul(&patches)?.reshape((b, o, rows, columns))?)
}

/// A convolution with its parameters `weight` and, if wanted, `bias`.
#[derive(Debug, Clone)]
pub struct Conv2d {
    weight: Param,
    bias: Option<Param>,
    geometry: ConvGeometry,
}

impl Conv2d {
    /// Parameters under `path`; the bias starts at zero.
    pub fn new(
        path: &ParamPath,
        channels: usize,
        outputs: usize,
        geometry: ConvGeometry,
        init: Init,
        with_bias: bool,
    ) -> Result<Self> {
        let [kh, kw] = geometry.kernel;
        Ok(Conv2d {
            weight: path.param("weight", (outputs, channels, kh, kw), init)?,
            bias: if with_bias { Some(path.param("bias", outputs, Init::Const(0.0))?) } else { None },
            geometry,
        })
    }

    /// The convolution of `x`.
    pub fn forward(&self, x: &Tensor) -> Result<Tensor> {
        conv2d(x, &self.weight.tensor(), self.bias.as_ref().map(Param::tensor).as_ref(), &self.geometry)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::FlowRng;
    use crate::autodiff::pair;
    use crate::nn::with_bf16_convolutions;
    use crate::testing::numbers::distance;
    use candle_core::{DType, Device, Var};

    /// `(geometry, B, C, O, H, W)`: square, pointwise, causal, dilated per axis, strips, one pixel.
    fn cases() -> Vec<(ConvGeometry, [usize; 5])> {
        let causal = ConvGeometry { kernel: [2, 3], dilation: [3, 2], padding: [[3, 0], [2, 2]] };
        let valid = ConvGeometry { padding: [[0, 0]; 2], ..ConvGeometry::same(3) };
        let lopsided = ConvGeometry { kernel: [1, 4], dilation: [1, 1], padding: [[0, 0], [3, 0]] };
        vec![
            (ConvGeometry::same(3), [3, 2, 5, 6, 7]),
            (ConvGeometry::same(1), [2, 7, 3, 5, 4]),
            (causal, [2, 3, 4, 9, 8]),
            (valid, [1, 2, 2, 5, 5]),
            (lopsided, [4, 1, 2, 3, 9]),
            (ConvGeometry::same(3), [1, 2, 3, 19, 33]),
            (ConvGeometry::same(5), [9, 1, 1, 1, 1]),
            (ConvGeometry::same(3), [21, 3, 4, 4, 4]),
        ]
    }

    #[test]
    fn fused_equals_composed_values_and_gradients() {
        for (dtype, tolerance) in [(DType::F64, 1e-11), (DType::F32, 1e-4)] {
            let mut rng = FlowRng::seed_from(4);
            for (g, [b, c, o, h, w]) in cases() {
                let mut draw =
                    |shape: &[usize]| Var::from_tensor(&rng.normal(shape, dtype, &Device::Cpu).unwrap()).unwrap();
                let (x, k, bias) = (draw(&[b, c, h, w]), draw(&[o, c, g.kernel[0], g.kernel[1]]), draw(&[o]));
                for bias in [None, Some(bias.as_tensor())] {
                    let want = conv2d_composed(&x, &k, bias, &g).unwrap();
                    let got = conv2d(&x, &k, bias, &g).unwrap();
                    assert!(distance(&got, &want) < tolerance, "{g:?}");
                    let cotangent = draw(want.dims());
                    let a = pair(&got, &cotangent).unwrap().backward().unwrap();
                    let b = pair(&want, &cotangent).unwrap().backward().unwrap();
                    for t in [Some(x.as_tensor()), Some(k.as_tensor()), bias].into_iter().flatten() {
                        assert!(distance(a.get(t).unwrap(), b.get(t).unwrap()) < 10.0 * tolerance, "{g:?} gradient");
                    }
                }
            }
        }
    }

    /// Eight bits of mantissa, in values and in gradients; outside, nothing is rounded.
    #[test]
    fn half_precision_is_near_and_ends() {
        let mut rng = FlowRng::seed_from(6);
        for (g, [b, c, o, h, w]) in cases() {
            let mut draw =
                |shape: &[usize]| Var::from_tensor(&rng.normal(shape, DType::F32, &Device::Cpu).unwrap()).unwrap();
            let (x, k) = (draw(&[b, c, h, w]), draw(&[o, c, g.kernel[0], g.kernel[1]]));
            let want = conv2d_composed(&x, &k, None, &g).unwrap();
            let half = with_bf16_convolutions(|| conv2d_composed(&x, &k, None, &g).unwrap());
            assert_eq!(half.dtype(), DType::F32);
            let size = distance(&want, &want.zeros_like().unwrap());
            let gap = distance(&half, &want);
            assert!(gap > 0.0 && gap < 0.03 * size, "{g:?}: {gap} of {size}");
            let cotangent = draw(want.dims());
            let [a, b] = [&half, &want].map(|y| pair(y, &cotangent).unwrap().backward().unwrap());
            for t in [&x, &k] {
                let (got, want) = (a.get(t).unwrap(), b.get(t).unwrap());
                let size = distance(want, &want.zeros_like().unwrap());
                assert!(distance(got, want) < 0.05 * size, "{g:?} gradient");
            }
            assert_eq!(distance(&conv2d_composed(&x, &k, None, &g).unwrap(), &want), 0.0);
            // The CPU's kernels know nothing of it.
            let plain = conv2d(&x, &k, None, &g).unwrap();
            assert_eq!(distance(&with_bf16_convolutions(|| conv2d(&x, &k, None, &g).unwrap()), &plain), 0.0);
        }
    }

    #[test]
    fn products_with_patches_are_the_same_convolution() {
        let mut rng = FlowRng::seed_from(5);
        for (g, [b, c, o, h, w]) in cases() {
            let mut draw =
                |shape: &[usize]| Var::from_tensor(&rng.normal(shape, DType::F64, &Device::Cpu).unwrap()).unwrap();
            let (x, k) = (draw(&[b, c, h, w]), draw(&[o, c, g.kernel[0], g.kernel[1]]));
            let [[top, bottom], [left, right]] = g.padding;
            let padded = x.pad_with_zeros(2, top, bottom).unwrap().pad_with_zeros(3, left, right).unwrap();
            let (got, want) = (by_patches(&padded, &k, &g).unwrap(), conv2d_composed(&x, &k, None, &g).unwrap());
            assert!(distance(&got, &want) < 1e-11, "{g:?}");
            let cotangent = draw(want.dims());
            let [a, b] = [got, want].map(|y| pair(&y, &cotangent).unwrap().backward().unwrap());
            for t in [&x, &k] {
                assert!(distance(a.get(t).unwrap(), b.get(t).unwrap()) < 1e-10, "{g:?} gradient");
            }
        }
    }

    #[test]
    fn strided_operands_are_taken() {
        let mut rng = FlowRng::seed_from(9);
        let mut draw = |shape: &[usize]| rng.normal(shape, DType::F64, &Device::Cpu).unwrap();
        let (x, k) = (draw(&[3, 6, 5, 2]).transpose(1, 3).unwrap(), draw(&[2, 3, 3, 4]).transpose(0, 3).unwrap());
        let k = k.transpose(1, 2).unwrap().contiguous().unwrap().transpose(1, 2).unwrap().narrow(1, 0, 2).unwrap();
        let k = k.narrow(3, 0, 2).unwrap();
        let g = ConvGeometry { kernel: [3, 2], dilation: [1, 1], padding: [[1, 1], [0, 1]] };
        let want = conv2d_composed(&x.contiguous().unwrap(), &k.contiguous().unwrap(), None, &g).unwrap();
        assert!(distance(&conv2d(&x, &k, None, &g).unwrap(), &want) < 1e-12);
    }

    #[test]
    fn misfits_are_named() {
        let x = Tensor::zeros((1, 2, 4, 4), DType::F32, &Device::Cpu).unwrap();
        let k = Tensor::zeros((1, 3, 3, 3), DType::F32, &Device::Cpu).unwrap();
        let message = conv2d(&x, &k, None, &ConvGeometry::same(3)).unwrap_err().to_string();
        assert!(message.contains("conv2d") && message.contains("[1, 2, 4, 4]"), "{message}");
    }
}
