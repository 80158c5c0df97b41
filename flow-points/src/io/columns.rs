//! Which column of a table holds what.

use std::path::Path;

use super::notes::Notes;
use super::words::shortened;

/// What three numbers beside the position are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Content {
    Normals,
    Colors,
    /// To be told from the numbers.
    Unknown,
}

/// The places of what is read in a line.
#[derive(Debug, Clone)]
pub(super) struct Columns {
    pub width: usize,
    pub position: [usize; 3],
    pub normal: Option<[usize; 3]>,
    /// Three more numbers.
    pub more: Option<([usize; 3], Content)>,
    /// Columns that are not read, by name.
    dropped: Vec<String>,
}

/// What programs call a position, a normal and a colour.
const POSITION: [[&str; 3]; 7] = [
    ["x", "y", "z"],
    ["px", "py", "pz"],
    ["pos_x", "pos_y", "pos_z"],
    ["x_coord", "y_coord", "z_coord"],
    ["coord_x", "coord_y", "coord_z"],
    ["points:0", "points:1", "points:2"],
    ["points_0", "points_1", "points_2"],
];
const NORMAL: [[&str; 3]; 3] =
    [["nx", "ny", "nz"], ["normal_x", "normal_y", "normal_z"], ["normalx", "normaly", "normalz"]];
const COLOR: [[&str; 3]; 3] = [["r", "g", "b"], ["red", "green", "blue"], ["rf", "gf", "bf"]];

impl Columns {
    /// From the names of a header.
    pub fn named(names: &[&str]) -> std::result::Result<Columns, String> {
        let plain: Vec<String> = names.iter().map(|name| plain(name)).collect();
        let of = |three: &[&str; 3]| -> Option<[usize; 3]> {
            let at = |wanted: &str| plain.iter().position(|name| name == wanted);
            Some([at(three[0])?, at(three[1])?, at(three[2])?])
        };
        let Some(position) = POSITION.iter().find_map(of) else {
            let found = shortened(&names.join(" "));
            return Err(format!("expected numbers, or names of columns x, y and z, found '{found}'"));
        };
        let (normal, color) = (NORMAL.iter().find_map(of), COLOR.iter().find_map(of));
        let read: Vec<usize> = [Some(position), normal, color].into_iter().flatten().flatten().collect();
        let dropped = names.iter().enumerate().filter(|(i, _)| !read.contains(i)).map(|(_, n)| (*n).to_string());
        Ok(Columns {
            width: names.len(),
            position,
            normal,
            more: color.map(|at| (at, Content::Colors)),
            dropped: dropped.collect(),
        })
    }

    /// Of lines without names; the ending of a file may say what follows the position.
    pub fn of_width(width: usize, path: &Path) -> Option<Columns> {
        let ending = path.extension().and_then(|e| e.to_str()).unwrap_or_default().to_ascii_lowercase();
        let content = match ending.as_str() {
            "xyzn" => Content::Normals,
            "xyzrgb" => Content::Colors,
            _ => Content::Unknown,
        };
        let more = match width {
            3 | 4 => None,
            6 => Some(([3, 4, 5], content)),
            7 => Some(([4, 5, 6], content)),
            _ => return None,
        };
        let dropped = if matches!(width, 4 | 7) { vec!["the fourth, an intensity".into()] } else { vec![] };
        Some(Columns { width, position: [0, 1, 2], normal: None, more, dropped })
    }

    /// Says what is not read.
    pub fn tell(&self, notes: &mut Notes) {
        if !self.dropped.is_empty() {
            notes.say(format!("columns that are not read: {}", self.dropped.join(", ")));
        }
    }
}

/// A name in small letters without what stands around it: `"X [m]"` is `x`.
fn plain(name: &str) -> String {
    let name = name.trim().trim_matches(['"', '\'', '/', '#']).trim();
    let bare = name.split(['[', '(']).next().unwrap_or_default().trim();
    bare.to_lowercase()
}
