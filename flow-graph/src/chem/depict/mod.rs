//! Pictures of molecules: coordinates in the plane, and grids of drawings with captions.

mod drawing;
mod label;
mod raster;
mod style;

use std::fmt::Write;
use std::path::Path;

use chematic::{depict, perception, smiles};

use super::convert::{guarded, to_chematic};
use crate::molecule::Molecule;
use crate::{Error, Result};

/// Width of a cell and height of its drawing, in pixels.
const CELL: (f64, f64) = (300.0, 270.0);
/// Room around a drawing.
const MARGIN: f64 = 14.0;
const CAPTION_SIZE: f64 = 15.0;
const CAPTION_LINE: f64 = 20.0;
/// Room between the captions and the next row.
const ROW_GAP: f64 = 12.0;
/// Characters that fit in a line of a caption.
const CAPTION_LENGTH: usize = 30;
/// Lines that a long line of a caption takes, at most.
const CAPTION_LINES: usize = 5;

/// Coordinates of the atoms in the plane, `y` upwards, with bonds of about 1.5 (Å), as RDKit lays them out.
///
/// # Errors
/// [`Error::Chemistry`] for a molecule without atoms, or an exceeded valence.
pub fn layout(molecule: &Molecule) -> Result<Vec<(f64, f64)>> {
    const BOND: f64 = 1.5;
    let graph = to_chematic(molecule)?;
    let exact = guarded("layout", || smiles::rdkit_2d_coords(&graph));
    if let Ok(Ok(places)) = exact
        && places.len() == molecule.len()
        && places.iter().flatten().all(|c| c.is_finite())
    {
        return Ok(places.into_iter().map(|[x, y]| (x, y)).collect());
    }
    // RDKit's rules do not cover everything (hydrogens as atoms); these are coarser and do.
    let coarse = guarded("layout", || depict::compute_layout(&graph))?;
    let scale = BOND / depict::BOND_LEN;
    let places: Vec<_> = coarse.coords.iter().map(|p| (p.x * scale, -p.y * scale)).collect();
    if places.len() != molecule.len() || places.iter().any(|(x, y)| !x.is_finite() || !y.is_finite()) {
        return Err(Error::Chemistry("no layout for this molecule".into()));
    }
    Ok(places)
}

/// Rings as lists of atoms; none where they cannot be found.
fn rings(molecule: &Molecule) -> Vec<Vec<usize>> {
    let bonds: Vec<_> = molecule.bonds().map(|(a, b, _)| (a, b, true)).collect();
    guarded("rings", || perception::rdkit_sssr(molecule.len(), &bonds)).ok().flatten().unwrap_or_default()
}

/// Draws molecules in a grid, each over its caption, and writes the picture.
///
/// The extension decides: `.svg`, or `.png` with 300 pixels a cell. A caption may have several lines; long
/// ones go on in the next, and end in a mark where more than five would be needed. The file is complete or not there at all.
///
/// # Errors
/// Another extension, no molecules or no columns, a molecule without a [`layout`], a PNG too large to
/// draw, or a failure of the file system.
pub fn write_grid(path: impl AsRef<Path>, cells: &[(&Molecule, String)], columns: usize) -> Result<()> {
    let path = path.as_ref();
    let extension = path.extension().and_then(|e| e.to_str()).unwrap_or_default().to_ascii_lowercase();
    let bytes = match extension.as_str() {
        "svg" => grid_svg(cells, columns)?.into_bytes(),
        "png" => raster::png(&grid_svg(cells, columns)?)?,
        _ => return Err(Error::File { path: path.into(), reason: "a picture ends in .svg or .png".into() }),
    };
    Ok(flow_core::files::atomic_write(path, &bytes)?)
}

/// The picture of [`write_grid`] as the text of an SVG.
///
/// # Errors
/// No molecules or no columns, or a molecule without a [`layout`].
pub fn grid_svg(cells: &[(&Molecule, String)], columns: usize) -> Result<String> {
    if cells.is_empty() || columns == 0 {
        return Err(Error::config("grid", format!("{} molecules in {columns} columns draw nothing", cells.len())));
    }
    let columns = columns.min(cells.len());
    let captions: Vec<Vec<String>> =
        cells.iter().map(|(_, caption)| caption.lines().flat_map(wrapped).collect()).collect();
    let lines = captions.iter().map(Vec::len).max().unwrap_or(0);
    let row = CELL.1 + CAPTION_LINE * lines as f64 + ROW_GAP;
    let (width, height) = (CELL.0 * columns as f64, row * cells.len().div_ceil(columns) as f64);
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{width}\" height=\"{height}\" \
         viewBox=\"0 0 {width} {height}\" font-family=\"{}\">\n<rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n",
        raster::FONTS
    );
    for (index, ((molecule, _), caption)) in cells.iter().zip(&captions).enumerate() {
        let corner = (CELL.0 * (index % columns) as f64, row * (index / columns) as f64);
        let places = layout(molecule)?;
        let drawing =
            drawing::draw(molecule, &places, &rings(molecule), (CELL.0 - MARGIN * 2.0, CELL.1 - MARGIN * 2.0));
        // Writing to a string cannot fail.
        let _ = writeln!(svg, "<g transform=\"translate({} {})\">", corner.0 + CELL.0 / 2.0, corner.1 + CELL.1 / 2.0);
        svg.push_str(&drawing);
        for (line, text) in caption.iter().enumerate() {
            let y = CELL.1 / 2.0 + CAPTION_SIZE + CAPTION_LINE * line as f64;
            let _ = writeln!(
                svg,
                "<text y=\"{y}\" font-size=\"{CAPTION_SIZE}\" text-anchor=\"middle\" fill=\"#222222\">{}</text>",
                escaped(text)
            );
        }
        svg.push_str("</g>\n");
    }
    svg.push_str("</svg>\n");
    Ok(svg)
}

/// A line of a caption in pieces that fit.
fn wrapped(line: &str) -> Vec<String> {
    let letters: Vec<char> = line.chars().collect();
    let mut pieces: Vec<String> = letters.chunks(CAPTION_LENGTH).map(|piece| piece.iter().collect()).collect();
    if pieces.len() > CAPTION_LINES {
        pieces.truncate(CAPTION_LINES);
        if let Some(last) = pieces.last_mut() {
            last.pop();
            last.push('…');
        }
    }
    pieces
}

/// Text that may stand in XML.
fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '&' => out.push_str("&amp;"),
            c if c.is_control() => out.push(' '),
            c => out.push(c),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_captions_go_on_in_the_next_line() {
        assert_eq!(wrapped("CCO"), ["CCO"]);
        let long = "C".repeat(CAPTION_LENGTH) + "NO";
        assert_eq!(wrapped(&long), ["C".repeat(CAPTION_LENGTH), "NO".into()]);
        let endless = wrapped(&"C".repeat(1000));
        assert!(endless.len() == CAPTION_LINES && endless[CAPTION_LINES - 1].ends_with("C…"), "{endless:?}");
        let molecule = crate::smiles::parse("CCO").unwrap();
        let svg = grid_svg(&[(&molecule, format!("{long}\nQED 0.5"))], 1).unwrap();
        assert!([&long[..CAPTION_LENGTH], "NO", "QED 0.5"].iter().all(|line| svg.contains(&format!(">{line}</text>"))));
    }
}
