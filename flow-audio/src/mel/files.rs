//! Mel spectrograms in files.
//!
//! A `.npy` file is numbers alone, and numbers do not tell of which convention they are. What is written is therefore an
//! `.npz` file of two arrays: `mel`, 32-bit floats `[mels, frames]`, and `config`, the UTF-8 bytes of the [`MelConfig`] as
//! JSON. In Python:
//!
//! ```python
//! file = numpy.load("x.npz")
//! mel, config = file["mel"], json.loads(bytes(file["config"]))
//! numpy.savez("y.npz", mel=mel, config=numpy.frombuffer(json.dumps(config).encode(), numpy.uint8))
//! ```

use std::io::{Cursor, Write};
use std::path::Path;

use flow_core::files::numpy::unfold;

use super::npy::{self, Matrix};
use super::{Mel, MelConfig};
use crate::{Error, Result};

impl Mel {
    /// Writes an `.npz` file that carries the configuration; complete or not there at all.
    ///
    /// # Errors
    /// A name that does not end in `.npz`, or a failure of the file system.
    pub fn save(&self, path: &Path) -> Result<()> {
        if path.extension().is_none_or(|ending| !ending.eq_ignore_ascii_case("npz")) {
            let reason = "a mel spectrogram is written as .npz, which carries its convention; a bare .npy does not";
            return Err(Error::config(path.display().to_string(), reason));
        }
        let config = serde_json::to_vec(&self.config()).map_err(std::io::Error::from).map_err(Error::io(path))?;
        let axes = [self.mels() as u64, self.frames() as u64];
        let members = [
            ("mel.npy", npy::encode(&axes, self.values()).map_err(Error::io(path))?),
            ("config.npy", npy::encode(&[config.len() as u64], &config).map_err(Error::io(path))?),
        ];
        let mut bytes = Cursor::new(Vec::new());
        let mut zip = zip::ZipWriter::new(&mut bytes);
        for (name, member) in members {
            let options = zip::write::SimpleFileOptions::default()
                .compression_method(zip::CompressionMethod::Stored)
                .last_modified_time(zip::DateTime::default())
                .large_file(member.len() > u32::MAX as usize);
            let written = zip.start_file(name, options).map_err(std::io::Error::from);
            written.and_then(|()| zip.write_all(&member)).map_err(Error::io(path))?;
        }
        zip.finish().map_err(std::io::Error::from).map_err(Error::io(path))?;
        Ok(flow_core::files::atomic_write(path, &bytes.into_inner())?)
    }

    /// Reads an `.npz` file that carries its configuration.
    ///
    /// # Errors
    /// A bare `.npy` file, which does not ([`Mel::load_as`]); a malformed archive; a configuration outside its domain; or
    /// an array that contradicts it.
    pub fn load(path: &Path) -> Result<Self> {
        let bytes = crate::data::kind::read_file(path)?;
        if bytes.starts_with(npy::MAGIC) {
            return Err(Error::WrongKind {
                path: path.into(),
                is: "a bare array, which does not say by which convention its mel spectrogram was computed".into(),
                remedy: "state it (tacotron2, hifi-gan or parakeet), or write an .npz with it".into(),
            });
        }
        archived(path, &bytes)
    }

    /// Reads a spectrogram that has to be of this configuration: an `.npz` file that says so, or a bare `.npy` file
    /// `[mels, frames]` of which the caller states it.
    ///
    /// # Errors
    /// Those of [`Mel::load`]; an archive whose configuration differs, field by field; or a bare array with another
    /// number of bands.
    pub fn load_as(path: &Path, config: &MelConfig) -> Result<Self> {
        let bytes = crate::data::kind::read_file(path)?;
        if bytes.starts_with(npy::MAGIC) {
            return with_config(path, npy::decode(path, &bytes)?, *config);
        }
        let mel = archived(path, &bytes)?;
        mel.expect(config, &path.display().to_string())?;
        Ok(mel)
    }
}

fn archived(path: &Path, bytes: &[u8]) -> Result<Mel> {
    if !bytes.starts_with(b"PK\x03\x04") {
        let found = format!("{:02x?}", bytes.get(..6).unwrap_or(bytes));
        crate::data::kind::refuse_foreign(path, bytes)?;
        return Err(Error::format(path, 0, "an .npz file with the arrays mel and config", found));
    }
    let broken = |e: zip::result::ZipError| Error::format(path, 0, "a readable .npz file", e.to_string());
    let mut zip = zip::ZipArchive::new(Cursor::new(bytes)).map_err(broken)?;
    let config = member(path, &mut zip, "config.npy", bytes.len())?;
    let matrix = member(path, &mut zip, "mel.npy", bytes.len())?;
    let text = npy::decode_bytes(&path.join("config.npy"), &config)?;
    let config: MelConfig = serde_json::from_slice(&text).map_err(|error| {
        let found = error.to_string().replace('\n', " ");
        Error::format(&path.join("config.npy"), 0, "the JSON of a mel configuration", found)
    })?;
    with_config(path, npy::decode(&path.join("mel.npy"), &matrix)?, config)
}

/// The bytes of a member, no more than the archive can hold.
fn member(path: &Path, zip: &mut zip::ZipArchive<Cursor<&[u8]>>, name: &str, length: usize) -> Result<Vec<u8>> {
    let broken = |found: String| Error::format(path, 0, format!("a readable member {name}"), found);
    let file = zip.by_name(name).map_err(|error| broken(error.to_string()))?;
    unfold(file, length).map_err(|error| broken(error.to_string()))
}

fn with_config(path: &Path, matrix: Matrix, config: MelConfig) -> Result<Mel> {
    let Matrix { rows, columns, values } = matrix;
    if rows != config.mels {
        let turned = if columns == config.mels { "; turn it (array.T): bands come first" } else { "" };
        let reason = format!("{rows} x {columns} values, expected {} bands x frames{turned}", config.mels);
        return Err(Error::config(path.display().to_string(), reason));
    }
    Mel::new(config, columns, values).map_err(|error| Error::config(path.display().to_string(), error.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mel::Convention;

    fn some() -> Mel {
        let config = MelConfig { mels: 3, ..MelConfig::hifi_gan() };
        Mel::new(config, 4, (0..12).map(|i| i as f32 - 5.0).collect()).unwrap()
    }

    #[test]
    fn files_carry_the_convention_and_refuse_another() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x.npz");
        let mel = some();
        mel.save(&path).unwrap();
        assert_eq!(Mel::load(&path).unwrap(), mel);
        assert_eq!(Mel::load_as(&path, mel.config()).unwrap(), mel);
        let first = std::fs::read(&path).unwrap();
        mel.save(&path).unwrap();
        assert_eq!(first, std::fs::read(&path).unwrap(), "the same spectrogram is the same file");
        let good = *mel.config();
        for (other, expected) in [
            (good.with_convention(Convention::Tacotron2), "convention hifi-gan against tacotron2"),
            (MelConfig { rate: 44_100, ..good }, "rate 22050 against 44100 Hz"),
            (MelConfig { hop: 200, ..good }, "hop 256 against 200"),
            (MelConfig { high: 11_025.0, ..good }, "high 8000 against 11025 Hz"),
            (MelConfig { low: 20.0, ..good }, "low 0 against 20 Hz"),
            (MelConfig { mels: 80, ..good }, "mels 3 against 80"),
        ] {
            let error = Mel::load_as(&path, &other).unwrap_err().to_string();
            assert!(error.contains(expected) && error.contains("x.npz"), "{error}");
        }
        assert!(mel.save(&folder.path().join("x.npy")).unwrap_err().to_string().contains("carries its convention"));
    }

    #[test]
    fn a_bare_array_is_taken_only_with_its_convention_stated() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x.npy");
        let mel = some();
        std::fs::write(&path, npy::encode(&[3, 4], mel.values()).unwrap()).unwrap();
        let error = Mel::load(&path).unwrap_err().to_string();
        assert!(error.contains("does not say by which convention") && error.contains("state it"), "{error}");
        assert_eq!(Mel::load_as(&path, mel.config()).unwrap(), mel);
        std::fs::write(&path, npy::encode(&[4, 3], mel.values()).unwrap()).unwrap();
        let error = Mel::load_as(&path, mel.config()).unwrap_err().to_string();
        assert!(error.contains("4 x 3 values, expected 3 bands") && error.contains("array.T"), "{error}");
        std::fs::write(&path, npy::encode(&[3, 1], &[0.0, f32::NAN, 0.0]).unwrap()).unwrap();
        assert!(Mel::load_as(&path, mel.config()).unwrap_err().to_string().contains("band 1, frame 0"));
    }
}
