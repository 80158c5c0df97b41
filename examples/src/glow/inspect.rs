//! `glow inspect`.

use anyhow::Result;
use clap::Args;
use flow_core::bijector::LayerReport;
use flow_core::density::Latents;
use flow_image::model::{LatentStatistics, RoundTrip};

use super::common::{DataArg, Part, images_for, load};
use crate::cli::{CheckpointArg, DeviceArg, at_least_one};

/// Scales beyond this, or below its inverse, lose three of seven digits in one layer.
const EXTREME_SCALE: f64 = 1e3;
/// As much for a mixing matrix.
const EXTREME_CONDITION: f64 = 1e3;
/// A round trip worse than this can change a pixel of 256 levels (half a level is 0.002).
const EXTREME_ROUND_TRIP: f64 = 1e-3;
/// Whitened latents that are wider, or narrower by as much, are not what the model samples from.
const EXTREME_STD: f64 = 2.0;

/// Look for numerical trouble: scales, condition numbers, latents, rounding errors
#[derive(Args, Debug)]
#[command(after_help = "\
One line per layer with the range of its scales |dz/dx| over the batch, the condition number of its matrix, its largest
output and the rounding error of its own round trip; then the whitened latents (mean 0, std 1, kurtosis 3 under a
Gaussian) and the round-trip error of the whole model in f32. Lines marked with ! are extreme.

Examples:
  glow inspect
  glow inspect --checkpoint runs/cifar --data cifar-10-batches-bin --count 256")]
pub(super) struct InspectArgs {
    #[command(flatten)]
    checkpoint: CheckpointArg,
    #[command(flatten)]
    data: DataArg,
    /// Which part of the data
    #[arg(long, value_enum, default_value_t = Part::Test)]
    split: Part,
    /// Images in the batch
    #[arg(long, default_value_t = 64)]
    count: usize,
    #[command(flatten)]
    device: DeviceArg,
}

impl InspectArgs {
    pub(super) fn run(self) -> Result<()> {
        at_least_one("--count", self.count)?;
        let device = self.device.open()?;
        let (run, model) = load(&self.checkpoint, &device)?;
        let set = images_for(&run, &self.data.data, self.split)?;
        let indices: Vec<usize> = (0..self.count.min(set.len())).collect();
        let images = set.batch(&indices, &device)?;
        let labels = set.labels_of(&indices);
        let layers = model.describe(&images, labels.as_deref())?;
        let (latents, _) = model.encode(&images, labels.as_deref())?;
        let trip = model.round_trip(&images, labels.as_deref())?;
        let flagged = print_layers(&layers) + print_latents(&latents, &trip)?;
        println!(
            "{} layers on {} images: {flagged} extreme values; round trip of the image {:.1e}",
            layers.len(),
            indices.len(),
            trip.image
        );
        Ok(())
    }
}

/// The mark in front of a line.
fn mark(extreme: bool) -> char {
    if extreme { '!' } else { ' ' }
}

/// Prints a table; returns the number of extreme lines.
fn print_layers(layers: &[LayerReport]) -> usize {
    println!("  {:12} {:30} {:>21} {:>10} {:>10} {:>10}", "place", "layer", "scales", "condition", "max |z|", "error");
    let or_dash = |value: Option<String>| value.unwrap_or_else(|| "-".into());
    for r in layers {
        let scale = or_dash(r.scale.map(|(low, high)| format!("{low:.3e}..{high:.3e}")));
        let condition = or_dash(r.condition.map(|c| format!("{c:.1}")));
        let error = or_dash(r.round_trip.map(|e| format!("{e:.1e}")));
        let (place, name, largest) = (&r.place, &r.name, r.largest);
        println!(
            "{} {place:12} {name:30} {scale:>21} {condition:>10} {largest:>10.2} {error:>10}",
            mark(is_extreme(r))
        );
    }
    layers.iter().filter(|r| is_extreme(r)).count()
}

/// Whether one of a layer's numbers is out of bounds, or not a number.
fn is_extreme(layer: &LayerReport) -> bool {
    let inside = |value: f64, bound: f64| value < bound;
    let scale = layer.scale.is_none_or(|(low, high)| inside(1.0 / low, EXTREME_SCALE) && inside(high, EXTREME_SCALE));
    let condition = layer.condition.is_none_or(|c| inside(c, EXTREME_CONDITION));
    let error = layer.round_trip.is_none_or(|e| inside(e, EXTREME_ROUND_TRIP));
    !(scale && condition && error && layer.largest.is_finite())
}

fn print_latents(latents: &Latents, trip: &RoundTrip) -> Result<usize> {
    println!("  {:12} {:>10} {:>10} {:>10} {:>10} {:>10}", "latent", "mean", "std", "kurtosis", "max |z|", "error");
    let mut flagged = 0;
    for (i, (z, error)) in latents.0.iter().zip(&trip.latents).enumerate() {
        let s = LatentStatistics::of(z)?;
        let fine = (1.0 / EXTREME_STD..EXTREME_STD).contains(&s.std) && *error < EXTREME_ROUND_TRIP;
        flagged += usize::from(!fine);
        println!(
            "{} z{i:<11} {:>10.3} {:>10.3} {:>10.2} {:>10.2} {error:>10.1e}",
            mark(!fine),
            s.mean,
            s.std,
            s.kurtosis,
            s.largest
        );
    }
    if trip.image >= EXTREME_ROUND_TRIP || trip.image.is_nan() {
        flagged += 1;
    }
    Ok(flagged)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn extremes_and_nan_are_flagged_and_nothing_else() {
        let calm = LayerReport {
            place: "0".into(),
            name: "layer".into(),
            scale: Some((0.1, 10.0)),
            condition: Some(5.0),
            largest: 4.0,
            round_trip: Some(1e-6),
        };
        assert!(!is_extreme(&calm));
        assert!(!is_extreme(&LayerReport { scale: None, condition: None, round_trip: None, ..calm.clone() }));
        for bad in [
            LayerReport { scale: Some((1e-4, 1.0)), ..calm.clone() },
            LayerReport { scale: Some((0.5, f64::INFINITY)), ..calm.clone() },
            LayerReport { scale: Some((f64::NAN, 1.0)), ..calm.clone() },
            LayerReport { condition: Some(1e5), ..calm.clone() },
            LayerReport { round_trip: Some(f64::NAN), ..calm.clone() },
            LayerReport { largest: f64::NAN, ..calm.clone() },
        ] {
            assert!(is_extreme(&bad), "{bad:?}");
        }
    }
}
