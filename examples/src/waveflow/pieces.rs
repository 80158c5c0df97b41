//! Waveforms in pieces: the exact stream of a width-causal model, and cross-faded chunks of any other.

use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use clap::Args;
use flow_audio::candle_core::{DType, Tensor};
use flow_audio::mel::Mel;
use flow_audio::metrics::signal_to_noise;
use flow_audio::model::Vocoder;
use flow_audio::trainer::WaveRun;
use flow_core::FlowRng;

use crate::cli::{at_least_one, refuse};

/// In which pieces a waveform is made.
#[derive(Args, Debug)]
pub(super) struct PiecesArg {
    /// Make the waveform this many frames at a time, exactly as the whole at once and in constant memory; only for a model
    /// that was trained with "causal_width"
    #[arg(long, value_name = "FRAMES", conflicts_with = "chunk")]
    stream: Option<usize>,
    /// Make the waveform this many frames at a time, joined by cross-fades: any model, an approximation
    #[arg(long, value_name = "FRAMES")]
    chunk: Option<usize>,
    /// Frames of a cross-fade, and by how much a chunk is computed further on both sides [default: 16]
    #[arg(long, value_name = "FRAMES")]
    overlap: Option<usize>,
    /// Make the whole at once as well and print the signal-to-noise ratio of the pieces against it
    #[arg(long)]
    compare: bool,
}

/// Frames of a cross-fade, unless told.
const OVERLAP: usize = 16;

/// How a waveform is made of a spectrogram.
pub(super) struct Pieces<'a> {
    pub(super) run: &'a WaveRun,
    pub(super) model: &'a Vocoder,
    pub(super) temperature: f64,
}

impl PiecesArg {
    /// Whether the waveform is made whole; refuses flags that say nothing then, or of the other kind of pieces.
    pub(super) fn whole(&self) -> Result<bool> {
        if self.chunk.is_none() {
            refuse(&[("--overlap", self.overlap.is_some())], "is for --chunk; leave it out")?;
        }
        let whole = self.stream.is_none() && self.chunk.is_none();
        if whole {
            refuse(&[("--compare", self.compare)], "is for --stream and --chunk; leave it out")?;
        }
        Ok(whole)
    }

    /// The waveform in pieces, with lines about them on stderr; `name` and `seed` are those of the latent.
    pub(super) fn make(&self, of: &Pieces<'_>, mel: &Mel, seed: u64, name: &str) -> Result<Vec<f32>> {
        let Pieces { run, model, temperature } = *of;
        mel.expect(&run.mel, "spectrogram")?;
        let frames = mel.tensor(model.store().device())?;
        let rng = || FlowRng::named(seed, name);
        let audio = match (self.stream, self.chunk) {
            (Some(piece), _) => self.stream(of, &frames, piece, rng())?,
            (None, chunk) => {
                let (chunk, overlap) = (chunk.unwrap_or(mel.frames()), self.overlap.unwrap_or(OVERLAP));
                at_least_one("--chunk", chunk)?;
                let synthesizer = model.synthesizer()?;
                let width = model.samples(mel.frames()) / model.config().column();
                let z = synthesizer.latent(1, width, temperature, &mut rng())?;
                numbers(&synthesizer.decode_chunked(&z, &frames, chunk, overlap)?)?
            }
        };
        if self.compare {
            let whole = numbers(&model.synthesize(&frames, temperature, &mut rng())?)?;
            let decibels = signal_to_noise(&whole, &audio)?;
            eprintln!("{name}: {decibels:.1} dB of signal to noise against the whole at once");
        }
        Ok(audio)
    }

    fn stream(&self, of: &Pieces<'_>, frames: &Tensor, piece: usize, rng: FlowRng) -> Result<Vec<f32>> {
        at_least_one("--stream", piece)?;
        if let Some(reason) = of.model.config().refuses_streams() {
            bail!(
                "--stream: {reason}; train a WaveFlow with \"causal_width\": true in --config, or give --chunk {piece}, an \
                 approximation"
            );
        }
        let mut stream = of.model.synthesizer()?.stream(of.temperature, rng)?;
        let (all, rate) = (frames.dim(2)?, f64::from(of.run.mel.rate));
        let (mut audio, mut times) = (Vec::new(), Vec::new());
        for start in (0..all).step_by(piece) {
            let begun = Instant::now();
            let made = stream.push(&frames.narrow(2, start, piece.min(all - start))?)?;
            if let Some(made) = made {
                audio.extend(numbers(&made)?);
            }
            times.push(begun.elapsed());
        }
        let (behind, kept) = (stream.look_ahead(), stream.kept());
        if let Some(rest) = stream.finish()? {
            audio.extend(numbers(&rest)?);
        }
        let slowest = times.iter().max().copied().unwrap_or(Duration::ZERO);
        eprintln!(
            "stream: {} pieces of {:.0} ms of sound, the slowest made in {:.0} ms; {:.1} ms behind its spectrogram; {} KiB kept",
            times.len(),
            1e3 * (piece * of.run.mel.hop) as f64 / rate,
            1e3 * slowest.as_secs_f64(),
            1e3 * behind as f64 / rate,
            kept * size_of::<f32>() / 1024
        );
        Ok(audio)
    }
}

fn numbers(audio: &Tensor) -> Result<Vec<f32>> {
    Ok(audio.flatten_all()?.to_dtype(DType::F32)?.to_vec1()?)
}
