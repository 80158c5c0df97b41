//! Models in fewer bytes: weights in half precision, for shipping.

use std::path::Path;

use candle_core::{DType, Tensor};

use super::config_file::ConfigFile;
use super::{EMA, MODEL, fault};
use crate::Result;
use crate::train::files::{self, Tensors};

/// The type in which weights lie on disk. Models compute in the type of their [`ParamStore`](crate::ParamStore) whatever this
/// is: what is read is widened, which is exact, so log-determinants are summed in f32 and inverses undo the rounded weights
/// exactly.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Precision {
    /// As they are.
    Full,
    /// Half the bytes of f32: its range with 8 bits of precision, rounding to within 0.4 %.
    Bf16,
    /// Half the bytes of f32: 11 bits of precision, rounding to within 0.05 %, from 6·10⁻⁵ to 65,504.
    F16,
}

/// What was written by [`pack_model`].
#[derive(Debug, Clone, Copy, PartialEq)]
#[non_exhaustive]
pub struct Packed {
    /// Numbers of all tensors.
    pub numbers: usize,
    /// Bytes of the file of weights before.
    pub bytes_before: u64,
    /// And now.
    pub bytes: u64,
    /// The largest change of a number, relative to the largest number of its tensor.
    pub rounding: f64,
    /// Whether these are the averaged weights.
    pub averaged: bool,
}

/// Writes the model of a checkpoint folder anew, atomically, without what only training needs: `config.json` and
/// `model.safetensors`, with the averaged weights if `average` is set and the run kept some.
///
/// Whatever reads checkpoints reads it; a run cannot be resumed from it.
///
/// # Errors
/// [`Error::Checkpoint`](crate::Error::Checkpoint) for a checkpoint that cannot be read, for a folder `to` that holds
/// something else than a model, and for a weight that is beyond the range of f16; [`Error::Io`](crate::Error::Io) naming the
/// path.
pub fn pack_model(from: &Path, to: &Path, average: bool, precision: Precision) -> Result<Packed> {
    let config = ConfigFile::read(from)?;
    let averaged = average && config.is_averaged();
    let name = if averaged { EMA } else { MODEL };
    let source = from.join(name);
    let before = config.read_tensors(from, name)?;
    if to.exists() && !ConfigFile::is_in(to) && !files::list(to)?.is_empty() {
        return Err(fault(to, "holds other files, which would be lost; choose a new folder"));
    }
    let (mut after, mut rounding) = (Tensors::new(), 0.0_f64);
    for (name, value) in &before {
        let (value, change) = rounded(value, precision)?;
        if !change.is_finite() {
            let reason = format!("'{name}' has numbers beyond the range of f16; bf16 holds them");
            return Err(fault(source, reason));
        }
        rounding = rounding.max(change);
        after.insert(name.clone(), value);
    }
    files::replace_folder(to, |aside| {
        let mut packed = ConfigFile::new(config.task.clone(), None, config.data.clone());
        packed.write_tensors(aside, MODEL, &after)?;
        packed.write(aside)
    })?;
    let size = |path: &Path| std::fs::metadata(path).map(|found| found.len()).map_err(crate::Error::io(path));
    Ok(Packed {
        numbers: before.values().map(Tensor::elem_count).sum(),
        bytes_before: size(&source)?,
        bytes: size(&to.join(MODEL))?,
        rounding,
        averaged,
    })
}

/// A tensor in its type on disk, and the largest change relative to its largest number; not finite where the type cannot
/// hold a number.
fn rounded(value: &Tensor, precision: Precision) -> Result<(Tensor, f64)> {
    let dtype = match precision {
        Precision::Bf16 => DType::BF16,
        Precision::F16 => DType::F16,
        Precision::Full => return Ok((value.clone(), 0.0)),
    };
    if !matches!(value.dtype(), DType::F32 | DType::F64) || value.elem_count() == 0 {
        return Ok((value.clone(), 0.0));
    }
    let narrow = value.to_dtype(dtype)?;
    let largest = |t: &Tensor| -> Result<f64> { Ok(t.abs()?.flatten_all()?.max(0)?.to_scalar()?) };
    let wide = value.to_dtype(DType::F64)?;
    let change = largest(&(&wide - narrow.to_dtype(DType::F64)?)?)?;
    let scale = largest(&wide)?;
    Ok((narrow, if change == 0.0 { 0.0 } else { change / scale }))
}

#[cfg(test)]
mod tests {
    use candle_core::Device;

    use super::*;
    use crate::train::{load_config, load_weights, save_model};
    use crate::{Error, Init, ParamStore};

    fn store(values: &[f64]) -> ParamStore {
        let store = ParamStore::new(0, DType::F32, &Device::Cpu);
        let weight = store.root().pp("layer").param("weight", values.len(), Init::Const(0.0)).unwrap();
        weight.set(&Tensor::new(values, &Device::Cpu).unwrap().to_dtype(DType::F32).unwrap()).unwrap();
        store
    }

    fn values(store: &ParamStore) -> Vec<f32> {
        store.all()[0].var().to_vec1().unwrap()
    }

    #[test]
    fn half_precision_is_read_back_rounded_and_nothing_else_is_lost() {
        let dir = tempfile::tempdir().unwrap();
        let (from, to) = (dir.path().join("from"), dir.path().join("to"));
        let numbers = [1.0, -0.337, 3e-5, 1e9, 0.0];
        save_model(&from, &store(&numbers), &serde_json::json!({"width": 3})).unwrap();
        let packed = pack_model(&from, &to, true, Precision::Bf16).unwrap();
        assert!(!packed.averaged && packed.numbers == 5 && packed.bytes < packed.bytes_before, "{packed:?}");
        assert_eq!(load_config(&to).unwrap(), serde_json::json!({"width": 3}));
        let read = store(&[9.0; 5]);
        load_weights(&to, &read, false).unwrap();
        for (got, want) in values(&read).into_iter().zip(numbers) {
            assert!((f64::from(got) - want).abs() <= want.abs() / 256.0, "{got} {want}");
        }
        // Once more changes nothing.
        let again = dir.path().join("again");
        assert_eq!(pack_model(&to, &again, true, Precision::Bf16).unwrap().rounding, 0.0);

        let error = pack_model(&from, &dir.path().join("f16"), true, Precision::F16).unwrap_err();
        assert!(matches!(&error, Error::Checkpoint { reason, .. } if reason.contains("'layer.weight'")), "{error}");
        assert!(!dir.path().join("f16").exists());
    }

    #[test]
    fn a_folder_of_other_things_is_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        let from = dir.path().join("from");
        save_model(&from, &store(&[1.0]), &1).unwrap();
        std::fs::write(dir.path().join("letter"), "dear").unwrap();
        let error = pack_model(&from, dir.path(), true, Precision::Full).unwrap_err();
        assert!(error.to_string().contains("would be lost"), "{error}");
        assert!(dir.path().join("letter").exists());
    }
}
