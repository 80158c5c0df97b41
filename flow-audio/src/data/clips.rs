//! A set of clips in memory.

use flow_core::hash::Fnv;
use flow_core::train::Fingerprint;

use super::Clip;
use super::kind::some_of;
use crate::{Error, Result};

/// Clips of one rate, of the same or different lengths.
#[derive(Debug, Clone, PartialEq)]
pub struct Clips {
    clips: Vec<Clip>,
    rate: u32,
    notes: Vec<String>,
    source: String,
}

impl Clips {
    /// A set of clips; `source` says where they come from.
    ///
    /// # Errors
    /// No clip, or clips of different rates (both are named).
    pub fn new(clips: Vec<Clip>, source: impl Into<String>) -> Result<Self> {
        let source = source.into();
        let Some(first) = clips.first() else { return Err(Error::config(source, "there is no clip")) };
        if let Some(other) = clips.iter().find(|clip| clip.rate() != first.rate()) {
            let reason = format!(
                "{} Hz in {} but {} Hz in {}; bring them to one rate: name a spectrogram with --mel, and --resample",
                first.rate(),
                first.name(),
                other.rate(),
                other.name()
            );
            return Err(Error::config(source, reason));
        }
        let rate = first.rate();
        Ok(Clips { clips, rate, notes: Vec::new(), source })
    }

    /// The same clips with more to tell about how they were read.
    #[must_use]
    pub fn with_notes(mut self, notes: impl IntoIterator<Item = String>) -> Self {
        self.notes.extend(notes);
        self
    }

    /// The same clips described by another text.
    #[must_use]
    pub fn with_source(mut self, source: impl Into<String>) -> Self {
        self.source = source.into();
        self
    }

    /// Number of clips.
    pub fn len(&self) -> usize {
        self.clips.len()
    }

    /// Whether there are no clips, as in a part that nothing was held out for.
    pub fn is_empty(&self) -> bool {
        self.clips.is_empty()
    }

    /// Samples a second, of every clip.
    pub fn rate(&self) -> u32 {
        self.rate
    }

    /// The clips in their order.
    pub fn iter(&self) -> impl Iterator<Item = &Clip> {
        self.clips.iter()
    }

    /// One clip, if there are so many.
    pub fn get(&self, index: usize) -> Option<&Clip> {
        self.clips.get(index)
    }

    /// What was left out, mixed down, clipped or resampled in reading, a sentence for each.
    pub fn notes(&self) -> &[String] {
        &self.notes
    }

    /// Where the clips come from and what has been done to them.
    pub fn source(&self) -> &str {
        &self.source
    }

    /// Samples of all clips together.
    pub fn samples(&self) -> usize {
        self.clips.iter().map(Clip::len).sum()
    }

    /// Seconds of all clips together.
    pub fn seconds(&self) -> f64 {
        self.samples() as f64 / f64::from(self.rate)
    }

    /// Copies of the clips at `indices`, in that order.
    ///
    /// # Errors
    /// An index beyond the end.
    pub fn subset(&self, indices: impl IntoIterator<Item = usize>) -> Result<Self> {
        let beyond = |index| Error::config("clip index", format!("{index} of {} ({})", self.len(), self.source));
        let clip = |index: usize| self.clips.get(index).cloned().ok_or_else(|| beyond(index));
        let clips = indices.into_iter().map(clip).collect::<Result<_>>()?;
        Ok(Clips { clips, notes: self.notes.clone(), source: self.source.clone(), rate: self.rate })
    }

    /// All clips of several sets behind each other, described as the first one.
    ///
    /// # Errors
    /// No set, or sets of different rates.
    pub fn concat(sets: Vec<Clips>) -> Result<Self> {
        let mut sets = sets.into_iter();
        let Some(mut all) = sets.next() else { return Err(Error::config("clips", "there are none to join")) };
        for set in sets {
            if set.rate != all.rate {
                let reason = format!("{} Hz but {} Hz in {}", set.rate, all.rate, all.source);
                return Err(Error::config(set.source, reason));
            }
            all.clips.extend(set.clips);
            let new: Vec<String> = set.notes.into_iter().filter(|note| !all.notes.contains(note)).collect();
            all.notes.extend(new);
        }
        Ok(all)
    }

    /// Without the clips of fewer than `samples` samples, which are named in the notes.
    ///
    /// # Errors
    /// No clip that is long enough.
    pub fn at_least(self, samples: usize) -> Result<Self> {
        let what = format!("have fewer than {samples} samples");
        let length = |clip: &Clip| format!("{} ({})", clip.name(), clip.len());
        self.without(|clip| clip.len() < samples, &what, length)
    }

    /// Without silent clips ([`Clip::is_silent`]), which are named in the notes.
    ///
    /// # Errors
    /// No clip that is heard.
    pub fn heard(self) -> Result<Self> {
        self.without(Clip::is_silent, "are silent (no sample above -60 dB of full scale)", |clip| {
            clip.name().to_string()
        })
    }

    fn without(mut self, is_out: impl Fn(&Clip) -> bool, what: &str, name: impl Fn(&Clip) -> String) -> Result<Self> {
        let all = self.clips.len();
        let (out, kept): (Vec<Clip>, Vec<Clip>) = std::mem::take(&mut self.clips).into_iter().partition(is_out);
        let names: Vec<String> = out.iter().map(name).collect();
        if kept.is_empty() && all > 0 {
            return Err(Error::config(self.source, format!("all {all} clips {what}: {}", some_of(&names))));
        }
        let note =
            format!("{}: {} of {all} clips {what} and were left out: {}", self.source, out.len(), some_of(&names));
        Ok(Clips { clips: kept, ..self }.with_notes((!out.is_empty()).then_some(note)))
    }

    /// A sentence for each thing that happened to some of the clips on their way from the files.
    pub(super) fn told(&self) -> Vec<String> {
        let all = self.len();
        let count = |what: &str, is: &dyn Fn(&Clip) -> bool| {
            let names: Vec<&str> = self.iter().filter(|clip| is(clip)).map(Clip::name).collect();
            let note = || format!("{}: {} of {all} clips {what}: {}", self.source, names.len(), some_of(&names));
            (!names.is_empty()).then(note)
        };
        let beyond: usize = self.iter().map(|clip| clip.facts().beyond).sum();
        let runs: usize = self.iter().map(Clip::full_scale_runs).sum();
        let rates = count(&format!("were resampled to {} Hz", self.rate), &|c| c.facts().resampled_from.is_some());
        let aggregated = [
            count("have several channels, which were mixed to one", &|clip| clip.facts().channels > 1),
            rates,
            count(&format!("have samples beyond full scale, {beyond} in all, which were clipped"), &|clip| {
                clip.facts().beyond > 0
            }),
            count(&format!("were recorded too loud, with {runs} runs of samples at full scale"), &|clip| {
                clip.full_scale_runs() > 0
            }),
        ];
        let others = self.iter().flat_map(|clip| clip.facts().other.iter().map(move |note| (clip.name(), note)));
        let mut by_note: Vec<(&str, Vec<&str>)> = Vec::new();
        for (name, note) in others {
            match by_note.iter_mut().find(|(said, _)| said == note) {
                Some((_, names)) => names.push(name),
                None => by_note.push((note, vec![name])),
            }
        }
        let other = |(note, names): &(&str, Vec<&str>)| format!("{}: {note}", some_of(names));
        aggregated.into_iter().flatten().chain(by_note.iter().map(other)).collect()
    }

    /// By what a run knows its data again.
    pub fn fingerprint(&self) -> Fingerprint {
        Fingerprint::new("clips").part("all", self.len(), self.hash())
    }

    /// A hash of the clips in their order: their rate, lengths and samples.
    pub(super) fn hash(&self) -> Fnv {
        self.clips.iter().fold(Fnv::new().words([self.rate]), |hash, clip| {
            hash.words([clip.len() as u32]).words(clip.samples().iter().map(|x| x.to_bits()))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn clip(name: &str, level: f32, count: usize) -> Clip {
        Clip::new(name, 8000, vec![level; count], 16).unwrap()
    }

    #[test]
    fn short_and_silent_clips_are_left_out_by_name() {
        let all = vec![clip("a", 0.1, 10), clip("b", 0.0, 20), clip("c", 0.1, 30), clip("d", 5e-4, 30)];
        let set = Clips::new(all, "x").unwrap();
        let heard = set.clone().heard().unwrap();
        assert_eq!((heard.len(), heard.samples()), (2, 40));
        assert!(heard.notes()[0].contains("2 of 4 clips are silent") && heard.notes()[0].ends_with("b, d"));
        let long = heard.at_least(11).unwrap();
        assert!(long.len() == 1 && long.notes()[1].contains("1 of 2 clips have fewer than 11 samples"));
        assert!(long.at_least(31).unwrap_err().to_string().contains("all 1 clips"));
        assert!(set.clone().at_least(1).unwrap().notes().is_empty());
        assert!(set.subset([1, 3]).unwrap().heard().is_err());
    }

    #[test]
    fn rates_must_agree_and_the_remedy_is_named() {
        let other = Clip::new("b", 22_050, vec![0.1; 5], 16).unwrap();
        let error = Clips::new(vec![clip("a", 0.1, 5), other], "x").unwrap_err().to_string();
        assert!(error.contains("8000 Hz in a but 22050 Hz in b") && error.contains("--resample"), "{error}");
    }

    #[test]
    fn the_fingerprint_knows_samples_lengths_and_order() {
        let set = Clips::new(vec![clip("a", 0.1, 5), clip("b", 0.2, 5)], "x").unwrap();
        let print = set.fingerprint();
        assert_eq!(print, Clips::new(vec![clip("c", 0.1, 5), clip("d", 0.2, 5)], "y").unwrap().fingerprint());
        assert_ne!(print, set.subset([1, 0]).unwrap().fingerprint());
        assert_ne!(print, Clips::new(vec![clip("a", 0.1, 5), clip("b", 0.2, 6)], "x").unwrap().fingerprint());
    }
}
