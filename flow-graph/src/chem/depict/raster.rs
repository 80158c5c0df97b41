//! SVG to PNG, with the font that is built in and none of the system's.

use std::sync::{Arc, OnceLock};

use resvg::tiny_skia::{Pixmap, Transform};
use resvg::usvg::{self, Options, Tree, fontdb};

use crate::{Error, Result};

/// What an SVG asks for: the built-in font, or what the viewer has instead.
pub(super) const FONTS: &str = "Ubuntu, Helvetica, Arial, sans-serif";

/// 64 megapixels take 256 MB; a larger picture is for the SVG.
const MOST_PIXELS: u64 = 1 << 26;

/// Draws an SVG at its own size.
///
/// # Errors
/// A picture of more than 64 megapixels.
pub(super) fn png(svg: &str) -> Result<Vec<u8>> {
    let fault = |reason: String| Error::config("picture", reason);
    let mut options = Options { fontdb: fonts(), ..Options::default() };
    // Every family is the one built in.
    options.font_resolver.select_font = Box::new(|_, database| database.faces().next().map(|face| face.id));
    let tree = Tree::from_str(svg, &options).map_err(|e: usvg::Error| fault(e.to_string()))?;
    let size = tree.size().to_int_size();
    if u64::from(size.width()) * u64::from(size.height()) > MOST_PIXELS {
        let (width, height) = (size.width(), size.height());
        return Err(fault(format!("{width}×{height} is too large for a PNG, write an SVG or fewer molecules")));
    }
    let mut pixels = Pixmap::new(size.width(), size.height()).ok_or_else(|| fault("has no pixels".into()))?;
    resvg::render(&tree, Transform::identity(), &mut pixels.as_mut());
    pixels.encode_png().map_err(|e| fault(e.to_string()))
}

fn fonts() -> Arc<fontdb::Database> {
    static FONTS: OnceLock<Arc<fontdb::Database>> = OnceLock::new();
    let load = || {
        let mut database = fontdb::Database::new();
        database.load_font_data(epaint_default_fonts::UBUNTU_LIGHT.to_vec());
        Arc::new(database)
    };
    FONTS.get_or_init(load).clone()
}
