//! Event files that TensorBoard opens: scalar summaries in TFRecord framing.
//!
//! A record is `length: u64`, `masked_crc(length)`, `data`, `masked_crc(data)`, all little-endian, where
//! the checksum is CRC-32C, rotated right by 15 bits and offset. The data is a protocol-buffer `Event`.

use std::fs::{File, OpenOptions};
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use prost::Message;

use super::files::list;
use crate::{Error, Result};

/// `tensorflow.Event`, as far as it is used here.
#[derive(Clone, PartialEq, Message)]
struct Event {
    #[prost(double, tag = "1")]
    wall_time: f64,
    #[prost(int64, tag = "2")]
    step: i64,
    #[prost(string, optional, tag = "3")]
    file_version: Option<String>,
    #[prost(message, optional, tag = "5")]
    summary: Option<Summary>,
}

/// `tensorflow.Summary`.
#[derive(Clone, PartialEq, Message)]
struct Summary {
    #[prost(message, repeated, tag = "1")]
    value: Vec<Value>,
}

/// `tensorflow.Summary.Value`.
#[derive(Clone, PartialEq, Message)]
struct Value {
    #[prost(string, tag = "1")]
    tag: String,
    /// Optional because a member of a `oneof` is written even when it is zero.
    #[prost(float, optional, tag = "2")]
    simple_value: Option<f32>,
}

/// The checksum of a TFRecord: CRC-32C, rotated and offset so that it can be stored beside its own data.
fn masked_crc(data: &[u8]) -> u32 {
    crc32c::crc32c(data).rotate_right(15).wrapping_add(0xa282_ead8)
}

fn frame(data: &[u8]) -> Vec<u8> {
    let length = (data.len() as u64).to_le_bytes();
    let mut record = Vec::with_capacity(data.len() + 16);
    record.extend_from_slice(&length);
    record.extend_from_slice(&masked_crc(&length).to_le_bytes());
    record.extend_from_slice(data);
    record.extend_from_slice(&masked_crc(data).to_le_bytes());
    record
}

/// Splits the first record off `bytes`: its data and the rest. `None` for a damaged or unfinished record.
fn unframe(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (length, rest) = bytes.split_first_chunk::<8>()?;
    let (length_crc, rest) = rest.split_first_chunk::<4>()?;
    let size = usize::try_from(u64::from_le_bytes(*length)).ok()?;
    let (data, rest) = rest.split_at_checked(size)?;
    let (data_crc, rest) = rest.split_first_chunk::<4>()?;
    let intact =
        u32::from_le_bytes(*length_crc) == masked_crc(length) && u32::from_le_bytes(*data_crc) == masked_crc(data);
    intact.then_some((data, rest))
}

/// The intact events at the start of a file, each with the number of bytes up to its end.
fn events(bytes: &[u8]) -> impl Iterator<Item = (usize, Event)> + '_ {
    let mut rest = bytes;
    std::iter::from_fn(move || {
        let (data, tail) = unframe(rest)?;
        rest = tail;
        Some((bytes.len() - rest.len(), Event::decode(data).ok()?))
    })
}

/// A scalar read back from an event file.
#[derive(Debug, Clone, PartialEq)]
pub struct ScalarEvent {
    /// The step.
    pub step: i64,
    /// The tag, `train/loss`.
    pub tag: String,
    /// The value.
    pub value: f32,
}

/// All scalars of one event file, up to the first damaged or unfinished record.
///
/// # Errors
/// [`Error::Io`] when the file cannot be read.
pub fn read_tensorboard(path: &Path) -> Result<Vec<ScalarEvent>> {
    let bytes = std::fs::read(path).map_err(Error::io(path))?;
    let scalars = |event: Event| {
        let values = event.summary.unwrap_or_default().value.into_iter();
        values.map(move |v| ScalarEvent { step: event.step, tag: v.tag, value: v.simple_value.unwrap_or_default() })
    };
    Ok(events(&bytes).flat_map(|(_, event)| scalars(event)).collect())
}

/// Cuts an event file off at the first event after `step` and at the first damaged record.
fn truncate(path: &Path, step: u64) -> Result<()> {
    let bytes = std::fs::read(path).map_err(Error::io(path))?;
    let kept = events(&bytes).take_while(|(_, event)| event.step <= step as i64).last().map_or(0, |(end, _)| end);
    let file = OpenOptions::new().write(true).open(path).map_err(Error::io(path))?;
    file.set_len(kept as u64).map_err(Error::io(path))
}

/// Writes one event file.
#[derive(Debug)]
pub struct TensorBoardWriter {
    path: PathBuf,
    file: BufWriter<File>,
}

impl TensorBoardWriter {
    /// Opens a new event file in `folder`; older ones there lose what they hold after `step`.
    ///
    /// # Errors
    /// [`Error::Io`] naming the file.
    pub fn open(folder: &Path, step: u64) -> Result<Self> {
        std::fs::create_dir_all(folder).map_err(Error::io(folder))?;
        let is_events =
            |p: &PathBuf| p.file_name().is_some_and(|n| n.to_string_lossy().starts_with("events.out.tfevents"));
        let older: Vec<PathBuf> = list(folder)?.into_iter().filter(is_events).collect();
        older.iter().try_for_each(|path| truncate(path, step))?;
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        // TensorBoard reads files in the order of their names; the counter tells runs of one second apart.
        let name = format!("events.out.tfevents.{:010}.{:04}", now.as_secs(), older.len());
        let path = folder.join(name);
        let file = OpenOptions::new().create(true).append(true).open(&path).map_err(Error::io(&path))?;
        let mut writer = TensorBoardWriter { path, file: BufWriter::new(file) };
        let version = Some("brain.Event:2".to_string());
        writer.append(&Event { wall_time: now.as_secs_f64(), step: 0, file_version: version, summary: None })?;
        Ok(writer)
    }

    /// Writes the scalars of one step.
    pub fn write(&mut self, time: f64, step: u64, scalars: impl Iterator<Item = (String, f32)>) -> Result<()> {
        let value = scalars.map(|(tag, value)| Value { tag, simple_value: Some(value) }).collect();
        let summary = Some(Summary { value });
        self.append(&Event { wall_time: time, step: step as i64, file_version: None, summary })
    }

    /// Hands everything to the system.
    pub fn flush(&mut self) -> Result<()> {
        self.file.flush().map_err(Error::io(&self.path))
    }

    fn append(&mut self, event: &Event) -> Result<()> {
        self.file.write_all(&frame(&event.encode_to_vec())).map_err(Error::io(&self.path))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// CRC-32C bit by bit from its polynomial, independent of the crate.
    fn crc_bitwise(data: &[u8]) -> u32 {
        !data.iter().fold(!0u32, |crc, &byte| {
            (0..8).fold(crc ^ u32::from(byte), |c, _| if c & 1 == 1 { (c >> 1) ^ 0x82f6_3b78 } else { c >> 1 })
        })
    }

    #[test]
    fn checksums_match_the_published_vectors() {
        // RFC 3720, appendix B.4.
        assert_eq!(crc_bitwise(&[0; 32]), 0x8a91_36aa);
        assert_eq!(crc32c::crc32c(&[0xff; 32]), 0x62a8_ab43);
        assert_eq!(masked_crc(b"foo"), crc_bitwise(b"foo").rotate_left(17).wrapping_add(0xa282_ead8));
        // The first twelve bytes of every event file whose first record has 24 bytes.
        assert_eq!(frame(&[0; 24])[..12], [0x18, 0, 0, 0, 0, 0, 0, 0, 0xa3, 0x7f, 0x4b, 0x22]);
    }

    /// Reads the framing and the wire format by hand.
    #[test]
    fn files_read_back_by_independent_code() {
        let folder = tempfile::tempdir().unwrap();
        let mut writer = TensorBoardWriter::open(folder.path(), 0).unwrap();
        writer.write(1.5, 3, [("a".to_string(), 0.25f32), ("b".to_string(), 0.0)].into_iter()).unwrap();
        writer.flush().unwrap();
        let bytes = std::fs::read(&writer.path).unwrap();
        let mut records = Vec::new();
        let mut at = 0;
        while at < bytes.len() {
            let size = u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap()) as usize;
            let crc = u32::from_le_bytes(bytes[at + 12 + size..at + 16 + size].try_into().unwrap());
            let data = &bytes[at + 12..at + 12 + size];
            assert_eq!(crc, crc_bitwise(data).rotate_left(17).wrapping_add(0xa282_ead8));
            records.push(data.to_vec());
            at += 16 + size;
        }
        assert!(records[0].ends_with(b"\x1a\x0dbrain.Event:2"));
        let mut expected = vec![0x09];
        expected.extend(1.5f64.to_le_bytes());
        expected.extend([0x10, 3, 0x2a, 20]);
        expected.extend([0x0a, 8, 0x0a, 1, b'a', 0x15, 0, 0, 0x80, 0x3e]);
        expected.extend([0x0a, 8, 0x0a, 1, b'b', 0x15, 0, 0, 0, 0]);
        assert_eq!(records[1], expected);
    }

    #[test]
    fn a_resumed_folder_has_every_step_once() {
        let folder = tempfile::tempdir().unwrap();
        for (from, to) in [(0, 8), (5, 11)] {
            let mut writer = TensorBoardWriter::open(folder.path(), from).unwrap();
            for step in from + 1..=to {
                writer.write(0.0, step, std::iter::once(("x".to_string(), step as f32))).unwrap();
            }
            writer.file.write_all(b"half a record").unwrap();
        }
        let files = list(folder.path()).unwrap();
        assert_eq!(files.len(), 2);
        let steps: Vec<i64> = files.iter().flat_map(|f| read_tensorboard(f).unwrap()).map(|s| s.step).collect();
        assert_eq!(steps, (1..=11).collect::<Vec<_>>());
    }
}
