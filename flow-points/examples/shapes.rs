//! Draws the built-in families: `cargo run --release -p flow-points --example shapes -- shapes.png`.

use flow_points::Cloud;
use flow_points::render::{RenderOptions, contact_sheet, write_png};
use flow_points::shapes::{Family, set};

fn main() -> flow_points::Result<()> {
    let path = std::env::args().nth(1).unwrap_or_else(|| "shapes.png".into());
    let mut shapes = set(&Family::ALL, 0..40, 4096)?;
    // One family a row.
    shapes.sort_by(|a, b| a.0.cmp(&b.0));
    let clouds: Vec<Cloud> = shapes.into_iter().map(|(_, points)| Cloud::new(points)).collect();
    write_png(path.as_ref(), &contact_sheet(&clouds, 8, &RenderOptions::default())?)
}
