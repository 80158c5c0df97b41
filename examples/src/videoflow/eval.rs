//! `videoflow eval`.

use std::path::PathBuf;

use anyhow::Result;
use clap::Args;
use flow_core::FlowRng;
use flow_core::files::atomic_write;
use flow_core::numerics::plus_minus;
use flow_video::metrics::{Curves, Evaluation, Protocol, evaluate};
use indicatif::ProgressBar;

use super::common::{DataArg, DrawArg, enough, load, places, takes};
use crate::cli::{CheckpointArg, DeviceArg, at_least_one, check_output, counted, create_parent};
use crate::plot::{Look, Series, loss_curve};

/// Measure likelihood, predictions, diversity and calibration on held-out clips
#[derive(Args, Debug)]
#[command(after_help = "\
bits/dim = -log2 P(frame | true frames before it) / D: an upper bound from uniform noise, the mean over the predicted frames
and clips. PSNR (dB) and SSIM (11x11 Gaussian windows) compare drawn futures with what happened: the best of --futures,
chosen for each clip and each measure by its mean over the frames, with standard errors over clips, beside two guesses that need no model. Calibration: latents
minus their predicted mean, divided by their predicted deviation, are standard normal where the model is right.

Examples:
  videoflow eval
  videoflow eval --checkpoint runs/mnist --data smmnist_test.npy --split all --context 5 --frames 15 --futures 100 --count 20
  videoflow eval --report report.json --plot best.png")]
pub(super) struct EvalArgs {
    #[command(flatten)]
    checkpoint: CheckpointArg,
    #[command(flatten)]
    data: DataArg,
    /// Number of clips, from the first
    #[arg(long, default_value_t = 32)]
    count: usize,
    /// Frames that are given [default: those of the run]
    #[arg(long)]
    context: Option<usize>,
    /// Frames that are predicted [default: those of the run's recipe]
    #[arg(long)]
    frames: Option<usize>,
    /// Futures of each clip
    #[arg(long, default_value_t = 10)]
    futures: usize,
    #[command(flatten)]
    draw: DrawArg,
    /// Also write everything to this file, as JSON
    #[arg(long, value_name = "FILE")]
    report: Option<PathBuf>,
    /// Also draw PSNR over time to this file
    #[arg(long, value_name = "FILE")]
    plot: Option<PathBuf>,
    #[command(flatten)]
    device: DeviceArg,
}

impl EvalArgs {
    pub(super) fn run(self) -> Result<()> {
        for (flag, value) in [("--count", self.count), ("--futures", self.futures)] {
            at_least_one(flag, value)?;
        }
        for (flag, value) in [("--context", self.context), ("--frames", self.frames)] {
            at_least_one(flag, value.unwrap_or(1))?;
        }
        self.report.iter().chain(&self.plot).try_for_each(|path| check_output(path))?;
        let device = self.device.open()?;
        let (run, model) = load(&self.checkpoint, &device)?;
        let (context, horizon) = (self.context.unwrap_or(run.context), self.frames.unwrap_or(run.horizon));
        enough(&run, context)?;
        let set = self.data.clips(&self.checkpoint, &run, context + horizon)?;
        let clips = takes(&set, &places(&set, &[], self.count)?, context + horizon, &device)?;
        let mut protocol = Protocol::new(context, horizon, self.futures);
        protocol.temperatures = self.draw.temperatures(&run);
        let bar = ProgressBar::new(clips.len() as u64).with_message("clips");
        let mut rng = FlowRng::named(self.draw.seed, "eval");
        let result = evaluate(&model, &clips, &protocol, &mut rng, |done| bar.set_position(done as u64))?;
        bar.finish_and_clear();
        print(&result, run.spec.dims(), set.source());
        if let Some(path) = &self.report {
            create_parent(path)?;
            atomic_write(path, (serde_json::to_string_pretty(&result)? + "\n").as_bytes())?;
        }
        if let Some(path) = &self.plot {
            create_parent(path)?;
            let curve = |name: &str, curves: &Curves| {
                let points = curves.psnr.iter().enumerate().map(|(t, &v)| (t as f64 + 1.0, v)).collect();
                Series::new(name, points, Look::Marked)
            };
            let series = [
                curve(&format!("best of {}", self.futures), &result.best),
                curve("mean of the futures", &result.mean),
                curve("last frame again", &result.copy_last),
                curve("black", &result.black),
            ];
            loss_curve(&series, "Predictions", "frames ahead", "PSNR (dB)", path)?;
        }
        Ok(())
    }
}

fn errors(psnr: f64, ssim: f64) -> String {
    if psnr.is_nan() { plus_minus(psnr, 2) } else { format!("± {psnr:.2}, {ssim:.4}") }
}

fn print(result: &Evaluation, dims: usize, source: &str) {
    let Protocol { context, horizon, futures, temperatures, .. } = &result.protocol;
    let (mean, error) = result.bits_per_dim;
    let (error, clips) = (plus_minus(error, 4), counted(result.clips, "clip"));
    println!("{mean:.4} {error} bits/dim over {clips} (D = {dims} a frame); {source}");
    let frames: Vec<String> = result.bits_of_frames.iter().map(|bits| format!("{bits:.3}")).collect();
    println!("  by frame      {}", frames.join(" "));
    println!("{context} given frames, {horizon} predicted, {futures} futures at temperature {temperatures:?}:");
    println!("{:<34}{:>8}  {:>7}", "", "PSNR dB", "SSIM");
    let row = |name: &str, curves: &Curves| {
        let (psnr, ssim) = curves.means();
        println!("  {name:<32}{psnr:>8.2}  {ssim:>7.4}");
    };
    for best in &result.best_of {
        let ((psnr, psnr_error), (ssim, ssim_error)) = (best.psnr, best.ssim);
        let name = format!("best of {}", best.futures);
        println!("  {name:<32}{psnr:>8.2}  {ssim:>7.4}   {}", errors(psnr_error, ssim_error));
    }
    row("mean of the futures", &result.mean);
    row("last given frame again", &result.copy_last);
    row("black frames", &result.black);
    for margin in &result.margins {
        let ((psnr, psnr_error), (ssim, ssim_error)) = (margin.psnr, margin.ssim);
        let name = format!("best of {futures} less {}", margin.over);
        println!("  {name:<32}{psnr:>+8.2}  {ssim:>+7.4}   {}, clip by clip", errors(psnr_error, ssim_error));
    }
    println!("  neighbouring futures differ by {:.2} levels (root mean square)", result.diversity);
    println!("calibration of latents (true model: mean 0, deviation 1, every tenth 0.100):");
    for level in &result.calibration {
        let tenths: Vec<String> = level.tenths.iter().map(|share| format!("{share:.3}")).collect();
        let (mean, deviation, tenths) = (level.mean, level.deviation, tenths.join(" "));
        println!("  level {}  mean {mean:+.3}  deviation {deviation:.3}  tenths {tenths}", level.level);
    }
}
