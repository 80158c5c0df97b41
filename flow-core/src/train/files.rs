//! Reading and writing the files of a checkpoint: durable writes, and errors that name file and reason.

use std::collections::{BTreeMap, HashMap};
use std::fs::{self, File};
use std::io::{Read, Write};
use std::path::{Path, PathBuf};

use candle_core::{DType, Device, Tensor};
use safetensors::tensor::{Metadata, TensorView};
use safetensors::{SafeTensorError, SafeTensors};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::{Error, Result};

/// Tensors by name, the content of one safetensors file.
pub(super) type Tensors = BTreeMap<String, Tensor>;

/// An [`Error::Checkpoint`] from its two parts.
pub(super) fn fault(path: impl Into<PathBuf>, reason: impl ToString) -> Error {
    Error::Checkpoint { path: path.into(), reason: reason.to_string() }
}

/// Builds the folder `target` aside, makes it durable and moves it into place.
///
/// Whatever happens, `target` is the old folder, the new one, or (between two renames, mended by
/// [`clean`]) absent with both at hand; never a mixture.
pub(super) fn replace_folder(target: &Path, fill: impl FnOnce(&Path) -> Result<()>) -> Result<()> {
    let (parent, name) = split(target)?;
    fs::create_dir_all(parent).map_err(Error::io(parent))?;
    let fresh = parent.join(format!(".new-{name}"));
    let old = parent.join(format!(".old-{name}"));
    remove_folder(&fresh)?;
    fs::create_dir(&fresh).map_err(Error::io(&fresh))?;
    if let Err(error) = fill(&fresh).and_then(|()| sync_folder(&fresh)) {
        // A full disk must not keep the half that did fit. The first error is the one to report.
        remove_folder(&fresh).ok();
        return Err(error);
    }
    if target.exists() {
        remove_folder(&old)?;
        fs::rename(target, &old).map_err(Error::io(target))?;
    }
    fs::rename(&fresh, target).map_err(Error::io(target))?;
    sync_folder(parent)?;
    remove_folder(&old)
}

/// Mends what a killed [`replace_folder`] left behind in `parent`.
pub(super) fn clean(parent: &Path) -> Result<()> {
    for entry in list(parent)? {
        let name = entry.file_name().and_then(|n| n.to_str()).unwrap_or_default().to_string();
        if let Some(target) = name.strip_prefix(".old-")
            && !parent.join(target).exists()
        {
            fs::rename(&entry, parent.join(target)).map_err(Error::io(&entry))?;
        } else if name.starts_with(".new-") || name.starts_with(".old-") {
            remove_folder(&entry)?;
        }
    }
    Ok(())
}

/// The entries of a folder in name order; none if it does not exist.
pub(super) fn list(folder: &Path) -> Result<Vec<PathBuf>> {
    match fs::read_dir(folder) {
        Ok(entries) => {
            let paths = entries.map(|entry| entry.map(|e| e.path()));
            let mut paths = paths.collect::<std::io::Result<Vec<_>>>().map_err(Error::io(folder))?;
            paths.sort();
            Ok(paths)
        }
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(e) => Err(Error::io(folder)(e)),
    }
}

/// Removes a folder with its content, if it is there.
pub(super) fn remove_folder(folder: &Path) -> Result<()> {
    match fs::remove_dir_all(folder) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => Err(Error::io(folder)(e)),
        _ => Ok(()),
    }
}

fn split(target: &Path) -> Result<(&Path, &str)> {
    match (target.parent(), target.file_name().and_then(|n| n.to_str())) {
        (Some(parent), Some(name)) => Ok((if parent.as_os_str().is_empty() { Path::new(".") } else { parent }, name)),
        _ => Err(fault(target, "is not a folder that can be written")),
    }
}

#[cfg(unix)]
fn sync_folder(folder: &Path) -> Result<()> {
    File::open(folder).and_then(|f| f.sync_all()).map_err(Error::io(folder))
}

/// Other systems offer no way to flush a folder's own entries.
#[cfg(not(unix))]
fn sync_folder(_folder: &Path) -> Result<()> {
    Ok(())
}

/// Writes a file and waits until it is on disk.
fn write_durably(path: &Path, bytes: &[u8]) -> Result<()> {
    let mut file = File::create(path).map_err(Error::io(path))?;
    file.write_all(bytes).and_then(|()| file.sync_all()).map_err(Error::io(path))
}

/// Writes a value as indented JSON.
pub(super) fn write_json(path: &Path, value: &impl Serialize) -> Result<()> {
    let mut text = serde_json::to_string_pretty(value).map_err(|e| fault(path, e))?;
    text.push('\n');
    write_durably(path, text.as_bytes())
}

/// Reads a JSON file.
///
/// # Errors
/// [`Error::Checkpoint`] with the system's reason, or with line and column of the fault.
pub(super) fn read_json<T: DeserializeOwned>(path: &Path) -> Result<T> {
    let bytes = read(path)?;
    if bytes.is_empty() {
        return Err(fault(path, "is empty, expected JSON"));
    }
    serde_json::from_slice(&bytes).map_err(|e| fault(path, format!("cannot be read: {e}")))
}

fn read(path: &Path) -> Result<Vec<u8>> {
    if path.is_dir() {
        return Err(fault(path, "is a folder, expected a file"));
    }
    fs::read(path).map_err(|e| match e.kind() {
        std::io::ErrorKind::NotFound => fault(path, "is missing"),
        _ => fault(path, e),
    })
}

/// Writes tensors as a safetensors file; returns the CRC-32C of its bytes.
pub(super) fn write_tensors(path: &Path, tensors: &Tensors) -> Result<u32> {
    let bytes = to_bytes(path, tensors)?;
    write_durably(path, &bytes)?;
    Ok(crc32c::crc32c(&bytes))
}

/// The content of a safetensors file; `path` is named in errors.
pub(super) fn to_bytes(path: &Path, tensors: &Tensors) -> Result<Vec<u8>> {
    let metadata = HashMap::from([("format".to_string(), "pt".to_string())]);
    safetensors::serialize(tensors.iter(), Some(metadata)).map_err(|e| fault(path, e))
}

/// The inverse of [`to_bytes`].
pub(super) fn from_bytes(path: &Path, bytes: &[u8]) -> Result<Tensors> {
    let file = SafeTensors::deserialize(bytes).map_err(|e| fault(path, explain(&e, bytes.len() as u64)))?;
    file.iter().map(|(name, view)| Ok((name.to_string(), tensor(path, name, &view)?))).collect()
}

/// CRC-32C of all parameters and buffers, by which the same weights are known.
pub(super) fn checksum(store: &crate::ParamStore) -> Result<u32> {
    let mut sum = 0;
    for param in store.all() {
        let one = Tensors::from([(param.name().to_string(), param.var().as_detached_tensor())]);
        sum = crc32c::crc32c_append(sum, &to_bytes(Path::new("weights"), &one)?);
    }
    Ok(sum)
}

/// Reads a safetensors file onto the CPU; returns the CRC-32C of its bytes too.
///
/// # Errors
/// [`Error::Checkpoint`] naming the file and what is wrong with it.
pub(super) fn read_tensors(path: &Path) -> Result<(Tensors, u32)> {
    let bytes = read(path)?;
    Ok((from_bytes(path, &bytes)?, crc32c::crc32c(&bytes)))
}

fn tensor(path: &Path, name: &str, view: &TensorView<'_>) -> Result<Tensor> {
    let dtype = DType::try_from(view.dtype()).map_err(|_| fault(path, format!("'{name}' is {:?}", view.dtype())))?;
    Tensor::from_raw_buffer(view.data(), dtype, view.shape(), &Device::Cpu)
        .map_err(|e| fault(path, format!("'{name}': {e}")))
}

/// Whether a safetensors file is as long as its header says, without reading the tensors.
pub(super) fn check_length(path: &Path) -> Result<()> {
    let mut file = File::open(path).map_err(|e| match e.kind() {
        std::io::ErrorKind::NotFound => fault(path, "is missing"),
        _ => fault(path, e),
    })?;
    let length = file.metadata().map_err(Error::io(path))?.len();
    let too_short = |_| fault(path, explain(&SafeTensorError::HeaderTooSmall, length));
    let mut size = [0u8; 8];
    file.read_exact(&mut size).map_err(too_short)?;
    let header_size = u64::from_le_bytes(size);
    if header_size > length.saturating_sub(8) {
        return Err(fault(path, explain(&SafeTensorError::InvalidHeaderLength, length)));
    }
    let mut header = vec![0u8; header_size as usize];
    file.read_exact(&mut header).map_err(too_short)?;
    let header: Metadata =
        serde_json::from_slice(&header).map_err(|e| fault(path, format!("not a safetensors header: {e}")))?;
    if 8 + header_size + header.data_len() as u64 != length {
        return Err(fault(path, explain(&SafeTensorError::MetadataIncompleteBuffer, length)));
    }
    Ok(())
}

/// The errors that a user meets, in words that say what happened to the file.
fn explain(error: &SafeTensorError, length: u64) -> String {
    match error {
        _ if length == 0 => "is empty, expected safetensors".to_string(),
        SafeTensorError::HeaderTooSmall => format!("is truncated: {length} bytes, the header alone takes more"),
        SafeTensorError::MetadataIncompleteBuffer => {
            format!("is truncated or has extra bytes: {length} bytes do not match its header")
        }
        SafeTensorError::HeaderTooLarge | SafeTensorError::InvalidHeaderLength => {
            format!("is truncated or not a safetensors file: its header is longer than its {length} bytes")
        }
        SafeTensorError::InvalidHeader(_) | SafeTensorError::InvalidHeaderDeserialization(_) => {
            format!("is not a safetensors file: {error}")
        }
        other => format!("is damaged: {other}"),
    }
}
