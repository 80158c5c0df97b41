//! The log of a run: `log.jsonl`, one JSON object a line, and an event file for TensorBoard.
//!
//! ```text
//! {"step":10,"kind":"train","time":1763950000.1,"bits_per_dim":4.1,"learning_rate":0.001,"gradient_norm":2.3,"samples_per_second":81.2}
//! {"step":1000,"kind":"validation","time":1763950100.9,"bits_per_dim":3.9}
//! ```

use std::fs::{File, OpenOptions};
use std::io::{BufRead, BufReader, BufWriter, Write};
use std::path::Path;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use serde::de::{MapAccess, Visitor};
use serde::ser::SerializeMap;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::Value;

use super::files::fault;
use super::tensorboard::TensorBoardWriter;
use crate::{Error, Result};

/// Which part of a run a record belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum RecordKind {
    /// A training step.
    Train,
    /// A validation.
    Validation,
}

impl RecordKind {
    fn name(self) -> &'static str {
        match self {
            RecordKind::Train => "train",
            RecordKind::Validation => "validation",
        }
    }
}

/// One line of `log.jsonl`.
#[derive(Debug, Clone, PartialEq)]
pub struct LogRecord {
    /// Finished steps.
    pub step: u64,
    /// Training step or validation.
    pub kind: RecordKind,
    /// Unix time in seconds.
    pub time: f64,
    /// Named values in the order written; what was not finite reads as NaN.
    pub values: Vec<(String, f64)>,
}

impl LogRecord {
    /// A value by name.
    pub fn get(&self, name: &str) -> Option<f64> {
        self.values.iter().find(|(key, _)| key == name).map(|(_, value)| *value)
    }
}

impl Serialize for LogRecord {
    fn serialize<S: Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("step", &self.step)?;
        map.serialize_entry("kind", &self.kind)?;
        map.serialize_entry("time", &self.time)?;
        // The three names above are taken; a metric that has one of them is left to TensorBoard.
        for (name, value) in self.values.iter().filter(|(n, _)| !["step", "kind", "time"].contains(&n.as_str())) {
            map.serialize_entry(name, value)?;
        }
        map.end()
    }
}

impl<'de> Deserialize<'de> for LogRecord {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        struct Record;
        impl<'de> Visitor<'de> for Record {
            type Value = LogRecord;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("an object with step, kind, time and named numbers")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> std::result::Result<LogRecord, A::Error> {
                use serde::de::Error;
                let (mut step, mut kind, mut time, mut values) = (None, None, None, Vec::new());
                while let Some(key) = map.next_key::<String>()? {
                    match key.as_str() {
                        "step" => step = Some(map.next_value()?),
                        "kind" => kind = Some(map.next_value()?),
                        "time" => time = Some(map.next_value()?),
                        _ => values.push((key, map.next_value::<Option<f64>>()?.unwrap_or(f64::NAN))),
                    }
                }
                Ok(LogRecord {
                    step: step.ok_or_else(|| A::Error::missing_field("step"))?,
                    kind: kind.ok_or_else(|| A::Error::missing_field("kind"))?,
                    time: time.ok_or_else(|| A::Error::missing_field("time"))?,
                    values,
                })
            }
        }
        deserializer.deserialize_map(Record)
    }
}

/// Reads a `log.jsonl` for plotting. A last line that is cut short is left out.
///
/// # Errors
/// [`Error::Io`] when the file cannot be read, [`Error::Checkpoint`] with the line number for a malformed line.
pub fn read_log(path: &Path) -> Result<Vec<LogRecord>> {
    let text = std::fs::read_to_string(path).map_err(Error::io(path))?;
    let complete = text.rfind('\n').map_or("", |end| &text[..end]);
    let parse =
        |(i, line): (usize, &str)| serde_json::from_str(line).map_err(|e| fault(path, format!("line {}: {e}", i + 1)));
    complete.lines().enumerate().filter(|(_, line)| !line.is_empty()).map(parse).collect()
}

/// Cuts off everything after `step`, and a last line that a kill left unfinished.
fn truncate_log(path: &Path, step: u64) -> Result<()> {
    let file = match OpenOptions::new().read(true).write(true).open(path) {
        Ok(file) => file,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        Err(e) => return Err(Error::io(path)(e)),
    };
    let mut reader = BufReader::new(&file);
    let (mut keep, mut line) = (0, Vec::new());
    loop {
        line.clear();
        let read = reader.read_until(b'\n', &mut line).map_err(Error::io(path))?;
        let logged = serde_json::from_slice::<Value>(&line).ok().and_then(|v| v.get("step")?.as_u64());
        if !line.ends_with(b"\n") || logged.is_none_or(|logged| logged > step) {
            break;
        }
        keep += read as u64;
    }
    file.set_len(keep).map_err(Error::io(path))
}

/// How long a record may stay in memory.
const FLUSH_EVERY: Duration = Duration::from_secs(2);

/// Both logs of a run, written side by side.
#[derive(Debug)]
pub struct EventLog {
    path: std::path::PathBuf,
    lines: BufWriter<File>,
    board: TensorBoardWriter,
    flushed: Instant,
}

impl EventLog {
    /// Opens the logs in folder `out` to continue after `step`; what was logged later is cut off.
    ///
    /// # Errors
    /// [`Error::Io`] naming the file.
    pub fn open(out: &Path, step: u64) -> Result<Self> {
        std::fs::create_dir_all(out).map_err(Error::io(out))?;
        let path = out.join("log.jsonl");
        truncate_log(&path, step)?;
        let file = OpenOptions::new().create(true).append(true).open(&path).map_err(Error::io(&path))?;
        let board = TensorBoardWriter::open(&out.join("tensorboard"), step)?;
        Ok(EventLog { path, lines: BufWriter::new(file), board, flushed: Instant::now() })
    }

    /// Writes one record. It reaches the disk within seconds or with the next [`EventLog::flush`].
    pub fn record(&mut self, kind: RecordKind, step: u64, values: Vec<(String, f64)>) -> Result<()> {
        let time = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64();
        let tags = values.iter().map(|(name, value)| (format!("{}/{name}", kind.name()), *value as f32));
        self.board.write(time, step, tags)?;
        let mut line = serde_json::to_vec(&LogRecord { step, kind, time, values }).map_err(|e| fault(&self.path, e))?;
        line.push(b'\n');
        self.lines.write_all(&line).map_err(Error::io(&self.path))?;
        if self.flushed.elapsed() > FLUSH_EVERY { self.flush() } else { Ok(()) }
    }

    /// Hands everything to the system.
    pub fn flush(&mut self) -> Result<()> {
        self.flushed = Instant::now();
        self.lines.flush().map_err(Error::io(&self.path))?;
        self.board.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(log: &mut EventLog, step: u64) {
        log.record(RecordKind::Train, step, vec![("loss".into(), step as f64 / 7.0), ("aux".into(), f64::NAN)])
            .unwrap();
    }

    #[test]
    fn a_resumed_log_has_every_step_once() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("log.jsonl");
        let mut log = EventLog::open(folder.path(), 0).unwrap();
        (1..=9).for_each(|step| write(&mut log, step));
        drop(log);
        let mut cut = std::fs::read(&path).unwrap();
        cut.truncate(cut.len() - 5);
        std::fs::write(&path, cut).unwrap();
        assert_eq!(read_log(&path).unwrap().len(), 8, "the unfinished line is left out");
        let mut log = EventLog::open(folder.path(), 6).unwrap();
        (7..=12).for_each(|step| write(&mut log, step));
        drop(log);
        let records = read_log(&path).unwrap();
        assert_eq!(records.iter().map(|r| r.step).collect::<Vec<_>>(), (1..=12).collect::<Vec<_>>());
        assert_eq!(records[4].get("loss"), Some(5.0 / 7.0));
        assert!(records[4].get("aux").unwrap().is_nan());
        assert_eq!(records[4].values[0].0, "loss", "in the order written");
    }

    #[test]
    fn a_malformed_line_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("log.jsonl");
        std::fs::write(&path, "{\"step\":1,\"kind\":\"train\",\"time\":0}\n{\"step\":\n").unwrap();
        let message = read_log(&path).unwrap_err().to_string();
        assert!(message.contains("line 2"), "{message}");
        assert!(matches!(read_log(&folder.path().join("none")), Err(Error::Io { .. })));
    }
}
