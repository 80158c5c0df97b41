//! Latents on their way: from images, back to images, to files and from files.
//!
//! A latents file is safetensors: `z0`, `z1`, … `(B, …)` in f32, finest first, `labels` `(B,)` in u32 where
//! there are labels, and metadata that names the model, without which latents mean nothing.

use std::collections::{BTreeMap, HashMap};
use std::path::Path;

use anyhow::{Context, Result, anyhow, bail};
use candle_core::{DType, Device, Tensor};
use flow_core::density::Latents;
use flow_image::data::{Dataset, sequential};
use flow_image::io::atomic_write;
use flow_image::model::ImageModel;
use indicatif::ProgressBar;
use safetensors::SafeTensors;

/// Images per batch.
const BATCH: usize = 64;
const FORMAT: &str = "flow latents 1";
const LABELS: &str = "labels";

/// Whitened latents of some images of a set, in the order of `indices`.
pub(super) fn encode_images(
    model: &ImageModel,
    set: &Dataset,
    indices: &[usize],
    bar: &ProgressBar,
) -> Result<Latents> {
    let mut parts = Vec::new();
    for batch in indices.chunks(BATCH) {
        let images = set.batch(batch, model.store().device())?;
        parts.push(model.encode(&images, set.labels_of(batch).as_deref())?.0.0);
        bar.inc(batch.len() as u64);
    }
    let levels = model.flow().latent_shapes().len();
    let level = |i: usize| -> Result<Tensor> {
        let parts: Vec<&Tensor> = parts.iter().filter_map(|p| p.get(i)).collect();
        Ok(Tensor::cat(&parts, 0)?)
    };
    Ok(Latents((0..levels).map(level).collect::<Result<_>>()?))
}

/// The images of latents, bytes `(B, C, H, W)` on the CPU.
pub(super) fn decode_images(
    model: &ImageModel,
    latents: &Latents,
    labels: Option<&[u32]>,
    bar: &ProgressBar,
) -> Result<Tensor> {
    let mut parts = Vec::new();
    for range in sequential(count(latents)?, BATCH) {
        let narrow = |z: &Tensor| z.narrow(0, range.start, range.len())?.contiguous();
        let part = Latents(latents.0.iter().map(narrow).collect::<candle_core::Result<_>>()?);
        let labels = labels.and_then(|l| l.get(range.clone()));
        parts.push(model.decode(&part, labels)?);
        bar.inc(range.len() as u64);
    }
    Ok(Tensor::cat(&parts, 0)?)
}

/// `B`.
pub(super) fn count(latents: &Latents) -> Result<usize> {
    latents.0.first().map_or(Ok(0), |z| Ok(z.dim(0)?))
}

/// Combines two sets of latents level by level.
pub(super) fn combine(
    a: &Latents,
    b: &Latents,
    f: impl Fn(&Tensor, &Tensor) -> candle_core::Result<Tensor>,
) -> Result<Latents> {
    Ok(Latents(a.0.iter().zip(&b.0).map(|(a, b)| f(a, b)).collect::<candle_core::Result<_>>()?))
}

/// What a latents file holds.
pub(super) struct LatentFile {
    pub(super) latents: Latents,
    pub(super) labels: Option<Vec<u32>>,
    /// What the latents are of, in words.
    pub(super) source: String,
}

impl LatentFile {
    /// Writes the file for `model`, complete or not at all.
    pub(super) fn write(&self, path: &Path, model: &ImageModel) -> Result<()> {
        let mut tensors = BTreeMap::new();
        for (i, z) in self.latents.0.iter().enumerate() {
            tensors.insert(format!("z{i}"), z.to_device(&Device::Cpu)?.to_dtype(DType::F32)?.contiguous()?);
        }
        if let Some(labels) = &self.labels {
            tensors.insert(LABELS.into(), Tensor::new(labels.as_slice(), &Device::Cpu)?);
        }
        let metadata = [
            ("format", FORMAT.to_string()),
            ("model", format!("{:016x}", model.fingerprint()?)),
            ("family", model.config().family().to_string()),
            ("images", format!("{} of {} levels", model.spec(), model.spec().levels)),
            ("source", self.source.clone()),
        ];
        let metadata: HashMap<String, String> = metadata.into_iter().map(|(k, v)| (k.to_string(), v)).collect();
        let bytes = safetensors::serialize(tensors.iter(), Some(metadata))
            .with_context(|| format!("{}: cannot be encoded", path.display()))?;
        Ok(atomic_write(path, &bytes)?)
    }

    /// Reads a file that was written for `model`.
    pub(super) fn read(path: &Path, model: &ImageModel) -> Result<Self> {
        let name = path.display();
        if path.is_dir() {
            bail!("{name}: expected a latents file, found a folder");
        }
        let bytes = std::fs::read(path).with_context(|| name.to_string())?;
        let broken = |e| anyhow!("{name}: expected a latents file of `glow encode`, {} bytes: {e}", bytes.len());
        let (_, header) = SafeTensors::read_metadata(&bytes).map_err(broken)?;
        let file = SafeTensors::deserialize(&bytes).map_err(broken)?;
        let metadata = header.metadata().clone().unwrap_or_default();
        let entry = |key: &str| metadata.get(key).cloned().unwrap_or_default();
        if entry("format") != FORMAT {
            bail!("{name}: expected the format \"{FORMAT}\", found \"{}\"", entry("format"));
        }
        let own = format!("{:016x}", model.fingerprint()?);
        if entry("model") != own {
            let (family, images) = (entry("family"), entry("images"));
            bail!("{name}: holds latents of model {} ({family}, {images}), this is model {own}", entry("model"));
        }
        let tensor = |key: &str, dtype: DType| -> Result<Tensor> {
            let view = file.tensor(key).map_err(|e| anyhow!("{name}: {e}"))?;
            let found = DType::try_from(view.dtype()).map_err(|e| anyhow!("{name}: {key}: {e}"))?;
            if found != dtype {
                bail!("{name}: {key}: expected {dtype:?}, found {found:?}");
            }
            Ok(Tensor::from_raw_buffer(view.data(), dtype, view.shape(), &Device::Cpu)?)
        };
        let shapes = model.flow().latent_shapes();
        let level = |(i, shape): (usize, &Vec<usize>)| -> Result<Tensor> {
            let z = tensor(&format!("z{i}"), DType::F32)?;
            if z.dims().get(1..) != Some(shape) || z.elem_count() == 0 {
                bail!("{name}: z{i}: expected (B, {shape:?}), found {:?}", z.dims());
            }
            Ok(z.to_device(model.store().device())?)
        };
        let latents = Latents(shapes.iter().enumerate().map(level).collect::<Result<_>>()?);
        let rows = count(&latents)?;
        let labels = match file.tensor(LABELS) {
            Ok(_) => Some(tensor(LABELS, DType::U32)?.flatten_all()?.to_vec1()?),
            Err(_) => None,
        };
        let even = latents.0.iter().all(|z| z.dim(0).is_ok_and(|n| n == rows));
        if !even || labels.as_ref().is_some_and(|l: &Vec<u32>| l.len() != rows) {
            bail!("{name}: expected as many latents at every level, and labels, as there are images ({rows})");
        }
        Ok(LatentFile { latents, labels, source: entry("source") })
    }
}
