//! The archive: a header that says which model made it, then blocks that are coded independently.
//!
//! All numbers are little-endian.
//!
//! | bytes | header |
//! |---|---|
//! | 8 | `FLOWZIP1` |
//! | 4 | version: 1, or 2 where names of the images follow the header |
//! | 12 | channels, height, width |
//! | 4 | grey levels |
//! | 4 | images per block |
//! | 8 | number of images |
//! | 8 | fingerprint of the model |
//! | 4 | CRC-32C of everything before |
//!
//! | bytes | block |
//! |---|---|
//! | 4 | number of 32-bit words that follow the block's own header |
//! | 4 | CRC-32C of the images' bytes |
//! | 4 | CRC-32C of the two fields before and the words |
//! | … | the words of the range coder |
//!
//! Every byte is under a checksum, and the decoded pixels have one of their own: a damaged archive or another
//! model is an error with its position, never a wrong image.

use std::path::Path;

use flow_core::hash::Fnv;
use rayon::prelude::*;

use super::coder::{FrozenIdf, Reader};
use super::model::Idf;
use super::names;
use crate::data::read_file;
use crate::io::atomic_write;
use crate::{Error, Result};

const MAGIC: &[u8; 8] = b"FLOWZIP1";
/// Archives without names, and with them; everything else is the same.
const VERSION: u32 = 1;
const VERSION_NAMED: u32 = 2;
const HEADER: usize = 52;
const BLOCK_HEADER: usize = 12;
/// Images that share one run of the range coder. More of them cost less overhead (about ten bytes per run)
/// and give fewer threads something to do.
const BLOCK: usize = 64;
/// Most images per block that a reader accepts: what a forged header can make it allocate at once.
const BLOCK_MAX: usize = 1024;

/// What the header of an archive says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ArchiveInfo {
    /// Channels, height and width.
    pub shape: [usize; 3],
    /// Number of grey levels.
    pub levels: usize,
    /// Number of images.
    pub count: usize,
    /// [`fingerprint`] of the model that made the archive, and that alone can read it.
    pub fingerprint: u64,
    /// Whether the archive has the names of the images.
    pub named: bool,
    block: usize,
}

/// What an archive holds.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Restored {
    /// The images `[N, C, H, W]`.
    pub images: Vec<u8>,
    /// The name of each, where the archive has names.
    pub names: Option<Vec<String>>,
}

/// A number that depends on every weight and hyper-parameter of the model.
///
/// 64-bit FNV-1a over the configuration and all parameters: two trained models differ in it, but it is no
/// defence against somebody who wants them to agree.
///
/// # Errors
/// A failure to read the parameters.
pub fn fingerprint(model: &Idf) -> Result<u64> {
    let described = serde_json::to_vec(&(model.config(), model.shape(), model.levels()));
    let described = described.map_err(|error| Error::config("idf configuration", error.to_string()))?;
    let mut hash = Fnv::new().bytes(&described);
    // Byte by byte, unlike `ParamStore::fingerprint`: archives that exist carry this number.
    for param in model.store().all() {
        hash = hash.bytes(param.name().as_bytes());
        let values = param.var().flatten_all()?.to_dtype(candle_core::DType::F32)?.to_vec1::<f32>()?;
        hash = values.iter().fold(hash, |hash, v| hash.bytes(&v.to_le_bytes()));
    }
    Ok(hash.value())
}

/// The archive of images `[N, C, H, W]`, each value below the model's levels.
///
/// Uses all threads of the global rayon pool; the bytes do not depend on their number.
///
/// # Errors
/// A length that is no whole number of images, a value beyond the levels, or weights that are not finite.
pub fn compress(model: &Idf, images: &[u8]) -> Result<Vec<u8>> {
    compress_named(model, images, None)
}

/// As [`compress`], with the names of the images where there are some: relative paths with `/` between their parts.
///
/// # Errors
/// Those of [`compress`]; another number of names than of images, a name twice, or one that leads out of the folder that
/// it will be restored into.
pub fn compress_named(model: &Idf, images: &[u8], names: Option<&[String]>) -> Result<Vec<u8>> {
    let size: usize = model.shape().iter().product();
    if !images.len().is_multiple_of(size) {
        let reason = format!("{} bytes are no whole number of images of shape {:?}", images.len(), model.shape());
        return Err(Error::config("images to compress", reason));
    }
    if let Some(at) = images.iter().position(|&v| usize::from(v) >= model.levels()) {
        let reason = format!("value {} at index {at} is not below the model's {} levels", images[at], model.levels());
        return Err(Error::config("images to compress", reason));
    }
    let frozen = FrozenIdf::new(model)?;
    let blocks: Vec<Vec<u8>> =
        images.par_chunks(BLOCK * size).map(|block| encode_block(&frozen, block, size)).collect::<Result<_>>()?;
    let count = images.len() / size;
    let mut archive = header(model, count, names.is_some())?;
    if let Some(given) = names {
        if given.len() != count {
            return Err(Error::config("names", format!("{} for {count} images", given.len())));
        }
        archive.extend(names::encode(given)?);
    }
    blocks.iter().for_each(|block| archive.extend_from_slice(block));
    Ok(archive)
}

fn header(model: &Idf, count: usize, named: bool) -> Result<Vec<u8>> {
    let mut bytes = MAGIC.to_vec();
    let [c, h, w] = model.shape();
    for (what, value) in [("channels", c), ("height", h), ("width", w), ("levels", model.levels()), ("block", BLOCK)] {
        if bytes.len() == MAGIC.len() {
            bytes.extend(if named { VERSION_NAMED } else { VERSION }.to_le_bytes());
        }
        let value =
            u32::try_from(value).map_err(|_| Error::config(what, format!("{value} does not fit an archive")))?;
        bytes.extend(value.to_le_bytes());
    }
    bytes.extend((count as u64).to_le_bytes());
    bytes.extend(fingerprint(model)?.to_le_bytes());
    bytes.extend(crc32c::crc32c(&bytes).to_le_bytes());
    Ok(bytes)
}

fn encode_block(model: &FrozenIdf, images: &[u8], size: usize) -> Result<Vec<u8>> {
    let mut encoder = constriction::stream::queue::DefaultRangeEncoder::new();
    for image in images.chunks_exact(size) {
        model.encode(image, &mut encoder)?;
    }
    let words: Vec<u32> = encoder.into();
    let count = u32::try_from(words.len()).map_err(|_| Error::config("block", "exceeds the archive's 16 GiB"))?;
    let mut bytes = [count.to_le_bytes(), crc32c::crc32c(images).to_le_bytes(), [0; 4]].concat();
    bytes.extend(words.iter().flat_map(|word| word.to_le_bytes()));
    let check = block_check(&bytes);
    bytes[8..BLOCK_HEADER].copy_from_slice(&check.to_le_bytes());
    Ok(bytes)
}

/// CRC-32C of a block without the field that holds it.
fn block_check(block: &[u8]) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c(&block[..8]), &block[BLOCK_HEADER..])
}

/// Reads little-endian numbers and remembers where it is.
struct Cursor<'a> {
    source: &'a Path,
    bytes: &'a [u8],
    position: usize,
}

impl<'a> Cursor<'a> {
    fn take(&mut self, length: usize, what: &str) -> Result<&'a [u8]> {
        let rest = &self.bytes[self.position..];
        if rest.len() < length {
            let expected = format!("{what} of {length} bytes");
            return Err(Error::format(self.source, self.position, expected, format!("the end after {}", rest.len())));
        }
        self.position += length;
        Ok(&rest[..length])
    }

    fn u32(&mut self, what: &str) -> Result<u32> {
        let mut word = [0; 4];
        word.copy_from_slice(self.take(4, what)?);
        Ok(u32::from_le_bytes(word))
    }

    fn u64(&mut self, what: &str) -> Result<u64> {
        Ok(u64::from(self.u32(what)?) | u64::from(self.u32(what)?) << 32)
    }

    fn fail<T>(&self, position: usize, expected: impl Into<String>, found: impl Into<String>) -> Result<T> {
        Err(Error::format(self.source, position, expected, found))
    }
}

/// The header of an archive; `source` names the file in messages.
///
/// # Errors
/// [`Error::Format`] for bytes that are no archive, for one of another version and for a damaged header.
pub fn info(bytes: &[u8], source: &Path) -> Result<ArchiveInfo> {
    read_header(&mut Cursor { source, bytes, position: 0 })
}

fn read_header(cursor: &mut Cursor<'_>) -> Result<ArchiveInfo> {
    if cursor.take(MAGIC.len(), "the mark of an archive")? != MAGIC {
        return cursor.fail(0, "'FLOWZIP1'", "other bytes");
    }
    let version = cursor.u32("the version")?;
    if ![VERSION, VERSION_NAMED].contains(&version) {
        let expected = format!("version {VERSION} or {VERSION_NAMED}");
        return cursor.fail(8, expected, format!("version {version}"));
    }
    let mut number = |what| cursor.u32(what).map(|v| v as usize);
    let shape = [number("the channels")?, number("the height")?, number("the width")?];
    let (levels, block) = (number("the levels")?, number("the images per block")?);
    let (count, fingerprint) = (cursor.u64("the number of images")?, cursor.u64("the fingerprint")?);
    let check = crc32c::crc32c(&cursor.bytes[..cursor.position]);
    let stored = cursor.u32("the header's checksum")?;
    if stored != check {
        return cursor.fail(HEADER - 4, format!("checksum {stored:08x} over the header"), format!("{check:08x}"));
    }
    let count = usize::try_from(count).ok().filter(|_| (1..=BLOCK_MAX).contains(&block));
    match count {
        Some(count) => Ok(ArchiveInfo { shape, levels, count, fingerprint, named: version == VERSION_NAMED, block }),
        None => cursor.fail(28, format!("at most {BLOCK_MAX} images per block"), format!("{block}")),
    }
}

/// One block as it lies in the archive.
struct Block<'a> {
    position: usize,
    images: usize,
    pixels: u32,
    words: &'a [u8],
}

fn read_block<'a>(cursor: &mut Cursor<'a>, images: usize) -> Result<Block<'a>> {
    let position = cursor.position;
    let words = cursor.u32("the length of a block")? as usize;
    let pixels = cursor.u32("the checksum of a block's images")?;
    let stored = cursor.u32("the checksum of a block")?;
    let words = cursor.take(words.saturating_mul(4), "a block")?;
    let check = block_check(&cursor.bytes[position..cursor.position]);
    if stored != check {
        return cursor.fail(position, format!("checksum {stored:08x} over the block"), format!("{check:08x}"));
    }
    Ok(Block { position, images, pixels, words })
}

/// The images `[N, C, H, W]` of an archive that [`compress`] made with the same model.
///
/// # Errors
/// See [`decompress_from`].
pub fn decompress(model: &Idf, bytes: &[u8]) -> Result<Vec<u8>> {
    decompress_from(model, bytes, Path::new("archive"))
}

/// [`decompress`] with the name of the file for messages.
///
/// # Errors
/// [`Error::Format`] with the position: no archive, another version, another model or image shape, a
/// damaged or missing part, bytes after the end.
pub fn decompress_from(model: &Idf, bytes: &[u8], source: &Path) -> Result<Vec<u8>> {
    Ok(restore(model, bytes, source)?.images)
}

/// As [`decompress_from`], with the names of the images where the archive has some.
///
/// # Errors
/// Those of [`decompress_from`]; names that are damaged or lead out of the folder that they are restored into.
pub fn restore(model: &Idf, bytes: &[u8], source: &Path) -> Result<Restored> {
    let mut cursor = Cursor { source, bytes, position: 0 };
    let info = read_header(&mut cursor)?;
    check_model(model, &info, &cursor)?;
    let names = if info.named { Some(read_names(&mut cursor, info.count)?) } else { None };
    let mut blocks = Vec::new();
    let mut left = info.count;
    while left > 0 {
        let images = left.min(info.block);
        blocks.push(read_block(&mut cursor, images)?);
        left -= images;
    }
    if cursor.position < bytes.len() {
        let extra = bytes.len() - cursor.position;
        return cursor.fail(cursor.position, "the end of the archive", format!("{extra} more bytes"));
    }
    let frozen = FrozenIdf::new(model)?;
    let images: Vec<Vec<u8>> =
        blocks.par_iter().map(|block| decode_block(&frozen, block, source)).collect::<Result<_>>()?;
    Ok(Restored { images: images.concat(), names })
}

fn read_names(cursor: &mut Cursor<'_>, count: usize) -> Result<Vec<String>> {
    let position = cursor.position;
    let length = cursor.u32("the length of the names")? as usize;
    let stored = cursor.u32("the checksum of the names")?;
    let deflated = cursor.take(length, "the names")?;
    let check = crc32c::crc32c(deflated);
    if stored != check {
        return cursor.fail(position, format!("checksum {stored:08x} over the names"), format!("{check:08x}"));
    }
    names::decode(cursor.source, position, deflated, count)
}

/// Writes the archive of `images` to `path`, which holds either all of it or what it held before; returns
/// its length in bytes.
///
/// # Errors
/// Those of [`compress`], and failures of the file system.
pub fn write_archive(model: &Idf, images: &[u8], path: &Path) -> Result<usize> {
    write_named_archive(model, images, None, path)
}

/// As [`write_archive`], with the names of the images where there are some.
///
/// # Errors
/// Those of [`compress_named`], and failures of the file system.
pub fn write_named_archive(model: &Idf, images: &[u8], names: Option<&[String]>, path: &Path) -> Result<usize> {
    let archive = compress_named(model, images, names)?;
    atomic_write(path, &archive)?;
    Ok(archive.len())
}

/// The images `[N, C, H, W]` of the archive at `path`.
///
/// # Errors
/// Those of [`decompress_from`], and failures of the file system.
pub fn read_archive(model: &Idf, path: &Path) -> Result<Vec<u8>> {
    decompress_from(model, &read_file(path)?, path)
}

/// The images of the archive at `path` with their names.
///
/// # Errors
/// Those of [`restore`], and failures of the file system.
pub fn restore_archive(model: &Idf, path: &Path) -> Result<Restored> {
    restore(model, &read_file(path)?, path)
}

fn check_model(model: &Idf, info: &ArchiveInfo, cursor: &Cursor<'_>) -> Result<()> {
    if (info.shape, info.levels) != (model.shape(), model.levels()) {
        let describe = |shape: [usize; 3], levels: usize| format!("images {shape:?} with {levels} levels");
        return cursor.fail(12, describe(model.shape(), model.levels()), describe(info.shape, info.levels));
    }
    let own = fingerprint(model)?;
    if info.fingerprint != own {
        let other = format!("one made by model {:016x}", info.fingerprint);
        return cursor.fail(40, format!("an archive made by this model, {own:016x}"), other);
    }
    Ok(())
}

fn decode_block(model: &FrozenIdf, block: &Block<'_>, source: &Path) -> Result<Vec<u8>> {
    let words = block.words.chunks_exact(4).map(|w| u32::from_le_bytes([w[0], w[1], w[2], w[3]])).collect();
    let mut reader = Reader::new(words);
    let fault = |found: String| Error::format(source, block.position, "a block of this model", found);
    let mut images = Vec::new();
    for _ in 0..block.images {
        images.extend(model.decode(&mut reader).map_err(|error| fault(error.to_string()))?);
    }
    let check = crc32c::crc32c(&images);
    if check == block.pixels {
        return Ok(images);
    }
    Err(fault(format!("images with checksum {check:08x} instead of {:08x}", block.pixels)))
}
