//! A run that is killed, at any moment and more than once, ends in the same bits as one that is not.

use super::{TINY, glow};
use crate::shared::killed_runs_end_in_the_same_bits;

#[test]
fn killed_runs_end_in_the_bits_of_an_undisturbed_one() {
    killed_runs_end_in_the_same_bits(500, |folder, out, steps| {
        let mut command = glow(folder);
        command.args(["train", "--out", out, "--steps", steps, "--checkpoint-every", "40", "--validate-every", "100"]);
        command.args(TINY).args(["--ema", "0.99", "--test-images", "20"]);
        command
    });
}
