//! The first hundred test images of any data set on one picture:
//!
//! ```text
//! cargo run -p flow-image --example contact_sheet -- digits sheet.png
//! ```

use std::path::Path;

use flow_image::io::{GridStyle, Pixels, write_grid};
use flow_image::{OpenOptions, Result, data};

fn main() -> Result<()> {
    let mut arguments = std::env::args().skip(1);
    let source = arguments.next().unwrap_or_else(|| "digits".into());
    let out = arguments.next().unwrap_or_else(|| "sheet.png".into());
    let set = data::open(&source, &OpenOptions::default())?.test;
    let shown: Vec<usize> = (0..set.len().min(100)).collect();
    write_grid(Path::new(&out), &Pixels::from_dataset(&set, &shown)?, &GridStyle::default())?;
    println!("{}: {} test images {:?}, {} levels → {out}", set.source(), set.len(), set.shape(), set.levels());
    Ok(())
}
