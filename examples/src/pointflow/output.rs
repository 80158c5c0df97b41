//! Where clouds and pictures go.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use anyhow::{Result, bail};
use clap::Args;
use flow_points::Cloud;
use flow_points::io::ply::{self, Encoding, PlyOptions};
use flow_points::io::write_npy;
use flow_points::render::{RenderOptions, contact_sheet, frames, turntable, write_gif, write_png};

use super::common::PROGRAM;
use crate::cli::{check_output, create_folder, refuse};
use crate::plot::{Names, labelled};

/// Frames of a turntable.
const FRAMES: usize = 36;
/// Most columns of a sheet.
pub(super) const WIDEST: usize = 8;

/// Where results go.
#[derive(Args, Debug, Clone)]
pub(super) struct OutputArg {
    /// Folder for PLYs, a contact sheet and a turntable, or one .npy or .ply file [default: flow-out/pointflow-<verb>]
    #[arg(long, value_name = "PATH")]
    out: Option<PathBuf>,
    /// Write text PLYs instead of binary ones
    #[arg(long)]
    ascii: bool,
    /// Write no pictures
    #[arg(long)]
    no_pictures: bool,
}

/// A checked place for results.
pub(super) struct Output {
    path: PathBuf,
    ascii: bool,
    pictures: bool,
}

impl OutputArg {
    /// Checks the place before the work.
    pub(super) fn open(&self, verb: &str) -> Result<Output> {
        let default = || Path::new("flow-out").join(format!("{PROGRAM}-{verb}"));
        let output =
            Output { path: self.out.clone().unwrap_or_else(default), ascii: self.ascii, pictures: !self.no_pictures };
        match output.extension() {
            // Made when there is something to put into it.
            None if output.path.is_file() => {
                bail!("--out {}: expected a folder, found a file", output.path.display())
            }
            None => {}
            Some("npy") => {
                refuse(&[("--ascii", self.ascii)], "for PLY files, an array is binary; leave it out")?;
                check_output(&output.path)?;
            }
            Some("ply") => check_output(&output.path)?,
            Some(other) => bail!("--out {}: expected a folder, .npy or .ply, got .{other}", output.path.display()),
        }
        Ok(output)
    }
}

impl Output {
    /// The ending of a file; a number after a dot is part of a folder's name.
    fn extension(&self) -> Option<&str> {
        self.path.extension().and_then(|e| e.to_str()).filter(|e| !e.bytes().all(|b| b.is_ascii_digit()))
    }

    /// Refuses to write where the data lie: files of the same names would be lost.
    pub(super) fn spare(&self, data: &Path) -> Result<()> {
        let real = |path: &Path| path.canonicalize().ok();
        let folders = [Some(data), data.parent().filter(|_| data.is_file())].into_iter().flatten();
        if real(&self.path).is_some_and(|out| folders.filter_map(real).any(|folder| folder == out)) {
            bail!("--out {}: there the data are, and could be overwritten", self.path.display());
        }
        Ok(())
    }

    /// Refuses a file that holds fewer clouds than there will be.
    pub(super) fn holds(&self, count: usize) -> Result<()> {
        match self.extension() {
            Some("ply") if count != 1 => {
                bail!("--out {}: a .ply file holds one cloud, there are {count}", self.path.display())
            }
            _ => Ok(()),
        }
    }

    /// Writes clouds with a contact sheet and a turntable of the first ones.
    pub(super) fn write(&self, clouds: &[Cloud], names: &[String], provenance: &str) -> Result<PathBuf> {
        const SHOWN: usize = 4;
        self.save(clouds, names, provenance)?;
        if self.pictures && self.extension().is_none() {
            let shown = clouds.iter().take(SHOWN).cloned().collect::<Vec<_>>();
            write_gif(&self.path.join("turntable.gif"), &turntable(&shown, FRAMES, &RenderOptions::default())?)?;
        }
        self.sheet(clouds, columns(clouds.len()), &Names::default())
    }

    /// Writes the clouds of a walk with a strip and an animation of it.
    pub(super) fn write_walk(&self, clouds: &[Cloud], names: &[String], provenance: &str) -> Result<PathBuf> {
        self.save(clouds, names, provenance)?;
        if self.pictures && self.extension().is_none() {
            // There and back, so that the loop has no jump.
            let back = clouds.iter().rev().skip(1).take(clouds.len().saturating_sub(2));
            let there: Vec<Cloud> = clouds.iter().chain(back).cloned().collect();
            write_gif(&self.path.join("walk.gif"), &frames(&there, &RenderOptions::default())?)?;
        }
        self.sheet(clouds, clouds.len().min(WIDEST), &walk_names(clouds.len()))
    }

    /// Writes clouds, and a sheet that shows each, `made` of what was given, beside that.
    pub(super) fn write_pairs(
        &self,
        clouds: &[Cloud],
        pairs: &[Cloud],
        names: &[String],
        made: &str,
        provenance: &str,
    ) -> Result<PathBuf> {
        self.save(clouds, names, provenance)?;
        self.sheet(pairs, WIDEST, &pair_names(made))
    }

    fn save(&self, clouds: &[Cloud], names: &[String], provenance: &str) -> Result<()> {
        let encoding = if self.ascii { Encoding::Ascii } else { Encoding::LittleEndian };
        let mut options = PlyOptions::default();
        options.encoding = encoding;
        options.comments = vec![provenance.to_string()];
        match self.extension() {
            Some("npy") => Ok(write_npy(&self.path, clouds)?),
            Some(_) => {
                self.holds(clouds.len())?;
                Ok(clouds.iter().try_for_each(|one| ply::write(&self.path, one, &options))?)
            }
            None => {
                create_folder(&self.path)?;
                let files = flat(names);
                let write = |(cloud, name): (&Cloud, &String)| {
                    ply::write(&self.path.join(format!("{name}.ply")), cloud, &options)
                };
                clouds.iter().zip(&files).try_for_each(write)?;
                let drawn = names.first().is_some_and(|name| *name == sample_name(0));
                if drawn { self.forget_earlier(clouds.len()) } else { Ok(()) }
            }
        }
    }

    /// Removes what an earlier and longer run has left behind the last sample.
    fn forget_earlier(&self, count: usize) -> Result<()> {
        let files = (count..).map(|i| self.path.join(format!("{}.ply", sample_name(i))));
        Ok(files.take_while(|file| file.exists()).try_for_each(std::fs::remove_file)?)
    }

    fn sheet(&self, clouds: &[Cloud], columns: usize, names: &Names) -> Result<PathBuf> {
        const MOST: usize = 64;
        if !self.pictures || self.extension().is_some() {
            return Ok(self.path.clone());
        }
        let path = self.path.join("sheet.png");
        write_sheet(&path, clouds.get(..MOST.min(clouds.len())).unwrap_or_default(), columns, names)?;
        Ok(path)
    }
}

/// Names of files in one folder, from names that may come from nested ones; what falls together is numbered.
fn flat(names: &[String]) -> Vec<String> {
    let mut taken = BTreeSet::new();
    names
        .iter()
        .map(|name| {
            let plain = name.replace(['/', '\\'], "-");
            let numbered = (2..).map(|k| format!("{plain}-{k}"));
            let free = std::iter::once(plain.clone()).chain(numbered).find(|name| !taken.contains(name));
            let free = free.unwrap_or(plain);
            taken.insert(free.clone());
            free
        })
        .collect()
}

/// Writes a contact sheet with the names of its rows and columns, as far as it has them.
pub(super) fn write_sheet(path: &Path, clouds: &[Cloud], columns: usize, names: &Names) -> Result<()> {
    let options = RenderOptions::default();
    let sheet = contact_sheet(clouds, columns, &options)?;
    let mut names = names.clone();
    names.columns.truncate(clouds.len());
    names.rows.truncate(clouds.len().div_ceil(columns.max(1)));
    Ok(write_png(path, &labelled(sheet, [options.size as usize; 2], &names)?)?)
}

/// The columns of a sheet of pairs.
pub(super) fn pair_names(made: &str) -> Names {
    let columns = ["given", made].into_iter().map(String::from).cycle().take(WIDEST).collect();
    Names { rows: Vec::new(), columns }
}

/// How far each cloud of a walk is from its beginning: above the columns of one row, or beside several.
fn walk_names(count: usize) -> Names {
    let far = |step: usize| 100.0 * step as f64 / count.saturating_sub(1).max(1) as f64;
    if count <= WIDEST {
        return Names { rows: Vec::new(), columns: (0..count).map(|step| format!("{:.0} %", far(step))).collect() };
    }
    let row = |first: usize| format!("{:.0} to {:.0} %", far(first), far((first + WIDEST).min(count) - 1));
    Names { rows: (0..count).step_by(WIDEST).map(row).collect(), columns: Vec::new() }
}

/// The name of a drawn cloud.
pub(super) fn sample_name(index: usize) -> String {
    format!("sample-{index:04}")
}

/// Writes numbered PLYs into a folder.
pub(super) fn write_plys(folder: &Path, clouds: &[Cloud], provenance: &str) -> Result<()> {
    let names: Vec<String> = (0..clouds.len()).map(sample_name).collect();
    create_folder(folder)?;
    Output { path: folder.to_path_buf(), ascii: false, pictures: false }.save(clouds, &names, provenance)
}

/// Columns of a sheet that is about as wide as high.
pub(super) fn columns(count: usize) -> usize {
    ((count as f64).sqrt().ceil() as usize).clamp(1, WIDEST)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sheets_are_named_by_what_they_show() {
        assert_eq!(walk_names(3).columns, ["0 %", "50 %", "100 %"]);
        let long = walk_names(11);
        assert!(long.columns.is_empty());
        assert_eq!(long.rows, ["0 to 70 %", "80 to 100 %"]);
        let folder = tempfile::tempdir().unwrap();
        let clouds = vec![Cloud::new(vec![[0.0, 0.0, 0.0], [1.0, 1.0, 1.0]]); 2];
        let height = |names: &Names| {
            let path = folder.path().join("sheet.png");
            write_sheet(&path, &clouds, WIDEST, names).unwrap();
            image::image_dimensions(path).unwrap()
        };
        let (plain, named) = (height(&Names::default()), height(&pair_names("made")));
        assert!(named.0 == plain.0 && named.1 > plain.1, "{named:?} {plain:?}");
    }

    #[test]
    fn no_two_names_fall_together() {
        let names = ["a/b", "a-b", "a-b-2", "a\\b", "c"].map(String::from);
        assert_eq!(flat(&names), ["a-b", "a-b-2", "a-b-2-2", "a-b-3", "c"]);
    }
}
