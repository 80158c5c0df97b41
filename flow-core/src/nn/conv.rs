//! Two-dimensional convolution with stride one and a kernel, dilation and padding per axis.

use candle_core::{CpuStorage, CustomOp2, CustomOp3, DType, Layout, Tensor};

use super::kernels::conv::{self as kernel, Plan};
use super::kernels::{Real, accepts, contiguous, dispatch2, read};

use crate::param::{Init, Param, ParamPath};
use crate::{Error, Result};

/// The geometry of a convolution: what Candle's own `conv2d` cannot say per axis.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct ConvGeometry {
    /// Kernel height and width.
    pub kernel: [usize; 2],
    /// Dilation of rows and of columns.
    pub dilation: [usize; 2],
    /// Zeros before and after, for rows and for columns. One-sided padding makes an axis causal.
    pub padding: [[usize; 2]; 2],
}

impl ConvGeometry {
    /// A kernel of this height and width without dilation or padding.
    pub fn new(kernel: [usize; 2]) -> Self {
        ConvGeometry { kernel, dilation: [1; 2], padding: [[0; 2]; 2] }
    }

    /// An odd square kernel whose output has the input's size.
    pub fn same(kernel: usize) -> Self {
        let pad = kernel / 2;
        ConvGeometry { kernel: [kernel; 2], dilation: [1; 2], padding: [[pad, pad]; 2] }
    }

    /// The same with rows and columns this far apart.
    #[must_use]
    pub fn dilation(mut self, dilation: [usize; 2]) -> Self {
        self.dilation = dilation;
        self
    }

    /// The same with this many zeros before and after.
    #[must_use]
    pub fn padding(mut self, padding: [[usize; 2]; 2]) -> Self {
        self.padding = padding;
        self
    }

    /// The output size for an input of height `h` and width `w`, `None` if the kernel does not fit.
    pub fn output(&self, size: [usize; 2]) -> Option<[usize; 2]> {
        let axis = |i: usize| {
            let padded = size[i] + self.padding[i][0] + self.padding[i][1];
            (padded + 1).checked_sub(self.dilation[i] * (self.kernel[i] - 1) + 1).filter(|&n| n > 0)
        };
        Some([axis(0)?, axis(1)?])
    }
}

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
    let (x, weight) = (x.contiguous()?, weight.contiguous()?);
    Ok(match bias {
        Some(bias) => x.apply_op3(&weight, &bias.contiguous()?, ConvOp(plan))?,
        None => x.apply_op2(&weight, ConvOp(plan))?,
    })
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

/// The kernels as a Candle operation, with or without a bias.
struct ConvOp(Plan);

impl ConvOp {
    fn shape(&self) -> candle_core::Shape {
        let p = &self.0;
        (p.batch, p.outputs, p.out[0], p.out[1]).into()
    }

    fn gradients(&self, x: &Tensor, weight: &Tensor, grad: &Tensor) -> candle_core::Result<[Tensor; 3]> {
        match x.dtype() {
            DType::F32 => self.gradients_as::<f32>(x, weight, grad),
            _ => self.gradients_as::<f64>(x, weight, grad),
        }
        .map_err(candle_core::Error::wrap)
    }

    fn gradients_as<T: Real>(&self, x: &Tensor, weight: &Tensor, grad: &Tensor) -> Result<[Tensor; 3]> {
        let (dx, dw, db) = read::<T, _>(x, |x| {
            read::<T, _>(weight, |w| read::<T, _>(grad, |g| Ok(kernel::backward(&self.0, x, w, g))))
        })?;
        let device = x.device();
        Ok([
            Tensor::from_vec(dx, x.shape(), device)?,
            Tensor::from_vec(dw, weight.shape(), device)?,
            Tensor::from_vec(db, self.0.outputs, device)?,
        ])
    }
}

impl CustomOp2 for ConvOp {
    fn name(&self) -> &'static str {
        "flow-conv2d"
    }

    fn cpu_fwd(
        &self,
        x: &CpuStorage,
        xl: &Layout,
        w: &CpuStorage,
        wl: &Layout,
    ) -> candle_core::Result<(CpuStorage, candle_core::Shape)> {
        let plan = &self.0;
        let out = dispatch2(
            "conv2d",
            (x, xl),
            (w, wl),
            |x, w| kernel::forward(plan, x, w, &[]),
            |x, w| kernel::forward(plan, x, w, &[]),
        )?;
        Ok((out, self.shape()))
    }

    fn bwd(
        &self,
        x: &Tensor,
        w: &Tensor,
        _res: &Tensor,
        grad: &Tensor,
    ) -> candle_core::Result<(Option<Tensor>, Option<Tensor>)> {
        let [dx, dw, _] = self.gradients(x, w, grad)?;
        Ok((Some(dx), Some(dw)))
    }
}

impl CustomOp3 for ConvOp {
    fn name(&self) -> &'static str {
        "flow-conv2d-bias"
    }

    fn cpu_fwd(
        &self,
        x: &CpuStorage,
        xl: &Layout,
        w: &CpuStorage,
        wl: &Layout,
        b: &CpuStorage,
        bl: &Layout,
    ) -> candle_core::Result<(CpuStorage, candle_core::Shape)> {
        let plan = &self.0;
        let out = match b {
            CpuStorage::F32(b) => {
                let b = contiguous(b, bl)?;
                dispatch2("conv2d", (x, xl), (w, wl), |x, w| kernel::forward(plan, x, w, b), |_, _| Vec::new())?
            }
            CpuStorage::F64(b) => {
                let b = contiguous(b, bl)?;
                dispatch2("conv2d", (x, xl), (w, wl), |_, _| Vec::new(), |x, w| kernel::forward(plan, x, w, b))?
            }
            _ => candle_core::bail!("conv2d: the bias must be f32 or f64"),
        };
        match (x, b) {
            (CpuStorage::F32(_), CpuStorage::F32(_)) | (CpuStorage::F64(_), CpuStorage::F64(_)) => {}
            _ => candle_core::bail!("conv2d: input and bias must have the same element type"),
        }
        Ok((out, self.shape()))
    }

    fn bwd(
        &self,
        x: &Tensor,
        w: &Tensor,
        _b: &Tensor,
        _res: &Tensor,
        grad: &Tensor,
    ) -> candle_core::Result<(Option<Tensor>, Option<Tensor>, Option<Tensor>)> {
        let [dx, dw, db] = self.gradients(x, w, grad)?;
        Ok((Some(dx), Some(dw), Some(db)))
    }
}

/// The specification of [`conv2d`] in Candle's own operations.
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
    let y = if g.dilation[0] == g.dilation[1] {
        x.contiguous()?.conv2d(&weight.contiguous()?, 0, 1, g.dilation[0], 1)?
    } else {
        // Candle has one dilation for both axes: one convolution per kernel row, each on its own slice.
        let rows = x.dim(2)? - g.dilation[0] * (kh - 1);
        let mut sum: Option<Tensor> = None;
        for u in 0..kh {
            let slice = x.narrow(2, u * g.dilation[0], rows)?.contiguous()?;
            let row = slice.conv2d(&weight.narrow(2, u, 1)?.contiguous()?, 0, 1, g.dilation[1], 1)?;
            sum = crate::reversible::add_optional(sum, Some(row))?;
        }
        sum.ok_or_else(|| Error::config("conv2d", "the kernel has no rows"))?
    };
    match bias {
        Some(b) => Ok(y.broadcast_add(&b.reshape((1, o, 1, 1))?)?),
        None => Ok(y),
    }
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
    use crate::reversible::pair;
    use candle_core::{Device, Var};

    fn gap(a: &Tensor, b: &Tensor) -> f64 {
        let d = (a - b).unwrap().abs().unwrap().flatten_all().unwrap().max(0).unwrap();
        d.to_dtype(DType::F64).unwrap().to_scalar().unwrap()
    }

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
                    assert!(gap(&got, &want) < tolerance, "{g:?}");
                    let cotangent = draw(want.dims());
                    let a = pair(&got, &cotangent).unwrap().backward().unwrap();
                    let b = pair(&want, &cotangent).unwrap().backward().unwrap();
                    for t in [Some(x.as_tensor()), Some(k.as_tensor()), bias].into_iter().flatten() {
                        assert!(gap(a.get(t).unwrap(), b.get(t).unwrap()) < 10.0 * tolerance, "{g:?} gradient");
                    }
                }
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
        assert!(gap(&conv2d(&x, &k, None, &g).unwrap(), &want) < 1e-12);
    }

    #[test]
    fn misfits_are_named() {
        let x = Tensor::zeros((1, 2, 4, 4), DType::F32, &Device::Cpu).unwrap();
        let k = Tensor::zeros((1, 3, 3, 3), DType::F32, &Device::Cpu).unwrap();
        let message = conv2d(&x, &k, None, &ConvGeometry::same(3)).unwrap_err().to_string();
        assert!(message.contains("conv2d") && message.contains("[1, 2, 4, 4]"), "{message}");
    }
}
