//! Clips that are made rather than read: as many as are wanted, of which everything is known.
//!
//! | generator | what moves | what is random after the first frame |
//! |---|---|---|
//! | [`MovingDigits`] | handwritten digits in a black frame | new velocities at the walls, or nothing |
//! | [`Shapes`] | one coloured circle, square or triangle | one of eight directions: exactly three bits a clip |
//!
//! The same seed gives the same bytes, on any number of threads, and clip `i` of a part is the same however many clips
//! there are.

mod moving_digits;
mod shapes;

pub use moving_digits::{Bounce, MovingDigits, Sprites};
pub use shapes::Shapes;

use super::{Clip, Clips};
use crate::Result;

/// The generators' rate: nothing depends on it but how fast a viewer shows the frames.
const FPS: f64 = 10.0;

/// `count` clips of a part, made on all threads; none make an empty part of the same shape as `like`.
fn made(count: usize, source: String, clip: impl Fn(usize) -> Result<Clip> + Sync + Send) -> Result<Clips> {
    use rayon::prelude::*;
    let clips = (0..count.max(1)).into_par_iter().map(clip).collect::<Result<Vec<_>>>()?;
    let set = Clips::new(clips, source)?;
    if count == 0 { set.subset([]) } else { Ok(set) }
}
