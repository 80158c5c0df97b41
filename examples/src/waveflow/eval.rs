//! `waveflow eval`.

use anyhow::Result;
use clap::Args;
use flow_audio::data::Segments;
use flow_audio::mel::griffin_lim;
use flow_audio::metrics::{
    PesqBand, bits_per_sample, flac_bits_per_sample, mel_cepstral_distortion, multi_resolution_stft, pesq,
};
use flow_audio::trainer::log_prob_of;
use flow_core::FlowRng;
use flow_core::numerics::{mean_and_error, plus_minus};

use super::common::{DataArg, DrawArg, load};
use crate::cli::{CheckpointArg, DeviceArg, Part, at_least_one};

/// Rounds of Griffin and Lim's algorithm, the usual number.
const ROUNDS: usize = 60;

/// Measure likelihood and copies of held-out clips
#[derive(Args, Debug)]
#[command(after_help = "\
Nats per sample are those of the density on [-1, 1] at the integers plus uniform noise; in bits of a 16-bit sample, 15 - nats / ln 2,
they bound a code length given the spectrogram. Copies are compared with their recordings, beside those of Griffin and Lim's
algorithm at the same spectrogram, which needs no model: multi-resolution STFT distance, mel-cepstral distortion (dB), and PESQ,
a predicted opinion from 1 (bad) to 4.6 (wide band from 16 kHz on, narrow band below, which are not comparable).

Examples:
  waveflow eval
  waveflow eval --checkpoint runs/lj --data test/ --split all --segments 200 --copies 8")]
pub(super) struct EvalArgs {
    #[command(flatten)]
    checkpoint: CheckpointArg,
    #[command(flatten)]
    data: DataArg,
    /// Which part of the data
    #[arg(long, value_enum, default_value_t = Part::Test)]
    split: Part,
    /// Segments to score, from the first
    #[arg(long, default_value_t = 64)]
    segments: usize,
    /// Clips to copy, from the first; 0 leaves copies out
    #[arg(long, default_value_t = 4)]
    copies: usize,
    #[command(flatten)]
    draw: DrawArg,
    #[command(flatten)]
    device: DeviceArg,
}

impl EvalArgs {
    pub(super) fn run(self) -> Result<()> {
        at_least_one("--segments", self.segments)?;
        if self.copies == 0 {
            self.draw.refuse("for copies, of which --copies 0 makes none; leave it out")?;
        }
        let (run, model) = load(&self.checkpoint, &self.device.open()?)?;
        let set = Segments::new(&self.data.clips(&self.checkpoint, &run, self.split)?, &run.mel, run.segment)?;
        set.notes().iter().for_each(|note| eprintln!("note: {note}"));
        let nats = log_prob_of(&model, &set, self.segments, &mut FlowRng::named(0, "eval"))?;
        let (mean, error) = mean_and_error(&nats);
        println!(
            "log-likelihood {mean:.4} {} nats/sample over {} of {} segments of {} samples, {:.3} bits of a 16-bit sample",
            plus_minus(error, 4),
            nats.len(),
            set.len(),
            set.samples(),
            bits_per_sample(mean, 16)
        );
        let scored = set.scored(nats.len());
        println!(
            "FLAC: {:.3} bits of a 16-bit sample of the same segments, which are given no spectrogram",
            flac_bits_per_sample(&scored, run.mel.rate)?
        );
        let speaker = self.draw.speaker(&run, &model)?;
        let mut rows: [[Vec<f64>; 3]; 2] = Default::default();
        let mut unscored = Vec::new();
        for clip in 0..self.copies.min(set.clips()) {
            let (name, samples, mel) = set.whole(clip)?;
            let guess = griffin_lim(&mel, ROUNDS, &mut FlowRng::named(0, name))?;
            for (row, copy) in rows.iter_mut().zip([speaker.speak(&mel, name)?, guess]) {
                let both = samples.len().min(copy.len());
                let (truth, copy) = (&samples[..both], &copy[..both]);
                row[0].push(multi_resolution_stft(truth, copy)?.total());
                row[1].push(mel_cepstral_distortion(&run.mel.spectrogram(truth)?, &run.mel.spectrogram(copy)?)?);
                match pesq(truth, copy, run.mel.rate) {
                    Ok(score) => row[2].push(score),
                    Err(error) => unscored.push(format!("{name}: {error}")),
                }
            }
        }
        if let Some(first) = unscored.first() {
            eprintln!("note: {} copies without PESQ, {first}", unscored.len());
        }
        if rows[0][0].is_empty() {
            return Ok(());
        }
        let band = if PesqBand::of(run.mel.rate) == PesqBand::Wide { "PESQ (wide)" } else { "PESQ (narrow)" };
        println!("{:<16}{:>15}  {:>21}  {band:>15}", "copies", "STFT distance", "cepstral distortion");
        for (name, row) in ["this model", "Griffin-Lim"].into_iter().zip(&rows) {
            let [(stft, stft_error), (cepstral, cepstral_error)] = [mean_and_error(&row[0]), mean_and_error(&row[1])];
            let opinion = match mean_and_error(&row[2]) {
                _ if row[2].is_empty() => "-".to_string(),
                (opinion, error) => format!("{opinion:.2} {}", plus_minus(error, 2)),
            };
            let (stft_error, cepstral_error) = (plus_minus(stft_error, 3), plus_minus(cepstral_error, 2));
            println!("{name:<16}{stft:>8.3} {stft_error}  {cepstral:>11.2} {cepstral_error} dB  {opinion:>15}");
        }
        Ok(())
    }
}
