//! Two-dimensional convolution with stride one and a kernel, dilation and padding per axis.

use candle_core::Tensor;

use crate::param::{Init, Param, ParamPath};
use crate::{Error, Result};

/// The geometry of a convolution: what Candle's own `conv2d` cannot say per axis.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ConvGeometry {
    /// Kernel height and width.
    pub kernel: [usize; 2],
    /// Dilation of rows and of columns.
    pub dilation: [usize; 2],
    /// Zeros before and after, for rows and for columns. One-sided padding makes an axis causal.
    pub padding: [[usize; 2]; 2],
}

impl ConvGeometry {
    /// An odd square kernel whose output has the input's size.
    pub fn same(kernel: usize) -> Self {
        let pad = kernel / 2;
        ConvGeometry { kernel: [kernel; 2], dilation: [1; 2], padding: [[pad, pad]; 2] }
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
    conv2d_composed(x, weight, bias, geometry)
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
