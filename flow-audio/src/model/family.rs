//! Either model: what they have in common, and their names.

use flow_core::{Error, Result};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::{Map, Value};

use super::{WaveFlowConfig, WaveGlowConfig};

/// The hyper-parameters of a [`Vocoder`](super::Vocoder).
///
/// As JSON it is the object of the model's own configuration, with `"family": "waveglow"` in a WaveGlow's; without a family
/// it is a WaveFlow's.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum ModelConfig {
    /// Rows, each from those before it: slow to train, small, the better likelihood.
    WaveFlow(WaveFlowConfig),
    /// Groups, mixed and coupled: both directions in one pass, large.
    WaveGlow(WaveGlowConfig),
}

/// The names that [`ModelConfig::preset`] knows.
pub const PRESETS: [&str; 7] = [
    "waveflow-h16-c32",
    "waveflow-h16-c64",
    "waveflow-h16-c96",
    "waveflow-h16-c128",
    "waveflow-h16-c256",
    "waveglow",
    "waveglow-c64",
];

impl ModelConfig {
    /// The configuration of a name; the hop is 256 until [`ModelConfig::for_spectrogram`] changes it.
    ///
    /// `waveglow` is the paper's, `waveglow-c64` the same with 64 channels, which two cores can train.
    ///
    /// # Errors
    /// [`Error::Config`] that lists the names.
    pub fn preset(name: &str) -> Result<Self> {
        let channels = name.strip_prefix("waveflow-h16-c").filter(|_| PRESETS.contains(&name));
        match (name, channels.and_then(|channels| channels.parse().ok())) {
            (_, Some(channels)) => Ok(WaveFlowConfig { channels, ..WaveFlowConfig::default() }.into()),
            ("waveglow", _) => Ok(WaveGlowConfig::default().into()),
            ("waveglow-c64", _) => Ok(WaveGlowConfig { channels: 64, ..WaveGlowConfig::default() }.into()),
            _ => Err(Error::config("preset", format!("'{name}' is none of {}", PRESETS.join(", ")))),
        }
    }

    /// The same for spectrograms of `mels` bands and frames of `hop` samples.
    ///
    /// # Errors
    /// [`Error::Config`] for a hop that the model's upsampling cannot make.
    pub fn for_spectrogram(self, mels: usize, hop: usize) -> Result<Self> {
        Ok(match self {
            ModelConfig::WaveFlow(config) => WaveFlowConfig { mels, ..config }.with_hop(hop)?.into(),
            ModelConfig::WaveGlow(config) => WaveGlowConfig { mels, hop, ..config }.into(),
        })
    }

    /// Samples of a column: the height of a WaveFlow, the group of a WaveGlow. A waveform is whole columns.
    pub fn column(&self) -> usize {
        match self {
            ModelConfig::WaveFlow(config) => config.height,
            ModelConfig::WaveGlow(config) => config.group,
        }
    }

    /// Samples per frame of the spectrogram.
    pub fn hop(&self) -> usize {
        match self {
            ModelConfig::WaveFlow(config) => config.hop(),
            ModelConfig::WaveGlow(config) => config.hop,
        }
    }

    /// Bands of the spectrogram.
    pub fn mels(&self) -> usize {
        match self {
            ModelConfig::WaveFlow(config) => config.mels,
            ModelConfig::WaveGlow(config) => config.mels,
        }
    }

    /// Trainable numbers, counted as they are published.
    pub fn parameter_count(&self) -> usize {
        match self {
            ModelConfig::WaveFlow(config) => config.parameter_count(),
            ModelConfig::WaveGlow(config) => config.parameter_count(),
        }
    }

    /// Why the model has no exact stream; `None` if it has one.
    pub fn refuses_streams(&self) -> Option<&'static str> {
        match self {
            ModelConfig::WaveFlow(config) if config.causal_width => None,
            ModelConfig::WaveFlow(_) => Some("a WaveFlow of the paper sees later samples"),
            ModelConfig::WaveGlow(_) => Some("a WaveGlow sees later samples"),
        }
    }

    /// Checks every size.
    ///
    /// # Errors
    /// [`Error::Config`] naming the first that is out of range.
    pub fn check(&self) -> Result<()> {
        match self {
            ModelConfig::WaveFlow(config) => config.check(),
            ModelConfig::WaveGlow(config) => config.check(),
        }
    }

    /// Checks that the model upsamples by the hop of the spectrograms that it is for.
    ///
    /// # Errors
    /// [`Error::Config`] naming both.
    pub fn check_hop(&self, hop: usize) -> Result<()> {
        match self {
            ModelConfig::WaveFlow(config) => config.check_hop(hop),
            ModelConfig::WaveGlow(config) if config.hop == hop => Ok(()),
            ModelConfig::WaveGlow(config) => {
                Err(Error::config("waveglow hop", format!("is {}, that of the spectrogram {hop}", config.hop)))
            }
        }
    }
}

impl From<WaveFlowConfig> for ModelConfig {
    fn from(config: WaveFlowConfig) -> Self {
        ModelConfig::WaveFlow(config)
    }
}

impl From<WaveGlowConfig> for ModelConfig {
    fn from(config: WaveGlowConfig) -> Self {
        ModelConfig::WaveGlow(config)
    }
}

const FAMILY: &str = "family";

/// A WaveGlow's fields after the word that tells it from a WaveFlow.
#[derive(Serialize)]
struct Named<'a> {
    family: &'static str,
    #[serde(flatten)]
    fields: &'a WaveGlowConfig,
}

impl Serialize for ModelConfig {
    fn serialize<S: Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
        match self {
            ModelConfig::WaveFlow(config) => config.serialize(serializer),
            ModelConfig::WaveGlow(fields) => Named { family: "waveglow", fields }.serialize(serializer),
        }
    }
}

impl<'de> Deserialize<'de> for ModelConfig {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        let mut fields = Map::deserialize(deserializer)?;
        let family = fields.remove(FAMILY);
        let fields = Value::Object(fields);
        let read = match family {
            None => serde_json::from_value(fields).map(ModelConfig::WaveFlow),
            Some(name) if name == "waveflow" => serde_json::from_value(fields).map(ModelConfig::WaveFlow),
            Some(name) if name == "waveglow" => serde_json::from_value(fields).map(ModelConfig::WaveGlow),
            Some(found) => {
                return Err(serde::de::Error::custom(format!(
                    "{FAMILY} must be \"waveflow\" or \"waveglow\", not {found}"
                )));
            }
        };
        read.map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn presets_have_the_published_sizes() {
        let count = |name| ModelConfig::preset(name).unwrap().parameter_count();
        assert_eq!(count("waveflow-h16-c64"), 5_925_074);
        assert_eq!((count("waveflow-h16-c128") as f64 / 1e4).round(), 2234.0);
        assert_eq!((count("waveflow-h16-c256") as f64 / 1e4).round(), 8661.0);
        assert_eq!((count("waveglow") as f64 / 1e5).round(), 879.0);
        for name in PRESETS {
            ModelConfig::preset(name).unwrap().check().unwrap();
        }
        let message = ModelConfig::preset("waveflow-h16-c65").unwrap_err().to_string();
        assert!(message.contains("waveflow-h16-c96") && message.contains("waveglow-c64"), "{message}");
    }

    /// A description without a family is what earlier checkpoints hold.
    #[test]
    fn descriptions_name_the_family_and_are_read_strictly() {
        let read = |text: &str| serde_json::from_str::<ModelConfig>(text);
        let flow = ModelConfig::from(WaveFlowConfig::new(8, 4, 2, 2));
        let text = serde_json::to_string(&flow).unwrap();
        assert!(!text.contains(FAMILY));
        assert_eq!(read(&text).unwrap(), flow);
        let glow = ModelConfig::from(WaveGlowConfig { hop: 100, ..WaveGlowConfig::new(4, 2, 2) });
        let text = serde_json::to_string(&glow).unwrap();
        assert!(text.starts_with(r#"{"family":"waveglow""#), "{text}");
        assert_eq!(read(&text).unwrap(), glow);
        for (text, word) in [
            (r#"{"heigth": 16}"#, "heigth"),
            (r#"{"family": "waveglow", "height": 16}"#, "height"),
            (r#"{"family": "wavenet"}"#, "wavenet"),
            (r#"{"family": 3}"#, "not 3"),
            (r#"[1]"#, "map"),
        ] {
            let message = read(text).unwrap_err().to_string();
            assert!(message.contains(word), "{message}");
        }
    }

    #[test]
    fn hops_are_checked() {
        let glow = ModelConfig::preset("waveglow").unwrap().for_spectrogram(64, 125).unwrap();
        assert_eq!((glow.hop(), glow.mels(), glow.column()), (125, 64, 8));
        let message = glow.check_hop(128).unwrap_err().to_string();
        assert!(message.contains("125") && message.contains("128"), "{message}");
        assert!(ModelConfig::preset("waveflow-h16-c32").unwrap().for_spectrogram(64, 125).is_err());
    }
}
