//! Numbers in f64 between tensors and the CPU, for tensors of every device: Metal has no f64, neither as the type of a
//! tensor that is made there nor to convert to.

use candle_core::{DType, Device, Shape, Tensor};

use crate::Result;

/// All entries, in row-major order.
///
/// # Errors
/// A failure of the device.
pub fn numbers(t: &Tensor) -> Result<Vec<f64>> {
    // A part of an empty tensor begins behind its end, which Candle does not expect.
    if t.elem_count() == 0 {
        return Ok(Vec::new());
    }
    Ok(t.detach().to_device(&Device::Cpu)?.to_dtype(DType::F64)?.flatten_all()?.to_vec1::<f64>()?)
}

/// The sum of all entries, added up in f64.
///
/// # Errors
/// A failure of the device.
pub fn sum(t: &Tensor) -> Result<f64> {
    Ok(wide(&t.detach())?.sum_all()?.to_scalar::<f64>()?)
}

/// The tensor in f64, where it is if there is f64, or else on the CPU; in the graph if it was.
///
/// # Errors
/// A failure of the device.
pub fn wide(t: &Tensor) -> Result<Tensor> {
    let t = if t.device().is_metal() { t.to_device(&Device::Cpu)? } else { t.clone() };
    Ok(t.to_dtype(DType::F64)?)
}

/// A tensor of these numbers, of the type and on the device of another.
///
/// # Errors
/// Another number of numbers than the shape has, and a failure of the device.
pub fn tensor_like(numbers: &[f64], shape: impl Into<Shape>, like: &Tensor) -> Result<Tensor> {
    Ok(Tensor::from_slice(numbers, shape, &Device::Cpu)?.to_dtype(like.dtype())?.to_device(like.device())?)
}

/// A tensor of one number again and again, of a type and on a device.
///
/// # Errors
/// A failure of the device.
pub fn full(number: f64, shape: impl Into<Shape>, dtype: DType, device: &Device) -> Result<Tensor> {
    Ok(Tensor::full(number, shape, &Device::Cpu)?.to_dtype(dtype)?.to_device(device)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_come_and_go() {
        for dtype in [DType::F32, DType::F64] {
            let like = Tensor::zeros(1, dtype, &Device::Cpu).unwrap();
            let t = tensor_like(&[1.5, -2.0, 0.25, 4.0], (2, 2), &like).unwrap();
            assert_eq!((t.dtype(), numbers(&t.t().unwrap()).unwrap()), (dtype, vec![1.5, 0.25, -2.0, 4.0]));
            assert_eq!((sum(&t).unwrap(), wide(&t).unwrap().dtype()), (3.75, DType::F64));
            assert_eq!(numbers(&full(0.5, (2, 1), dtype, &Device::Cpu).unwrap()).unwrap(), [0.5, 0.5]);
            assert!(numbers(&t.narrow(0, 1, 0).unwrap()).unwrap().is_empty());
            assert!(tensor_like(&[1.0], (2, 2), &like).is_err());
        }
    }
}
