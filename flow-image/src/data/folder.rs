//! A folder of pictures.
//!
//! PNG, JPEG, WebP, BMP, TIFF, GIF and PPM files are found recursively, in the order of their names. The first sub-folder
//! of a picture's path is its class; a `labels.csv` in the folder adds yes/no attributes. Pictures are decoded in
//! parallel, and the result does not depend on the number of threads.

use std::path::{Path, PathBuf};

use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use super::picture::{LOOKED_FOR, Lost, Picture, decode, is_picture};
use super::{Attributes, Dataset, is_default, some_of};
use crate::{Error, Result};

const LABELS: &str = "labels.csv";
/// The same by its own name and by those that CelebA's tables have; the first that is there is read.
const TABLES: [&str; 3] = [LABELS, "list_attr_celeba.csv", "list_attr_celeba.txt"];

/// Deeper folders are a loop or a mistake.
const MAX_DEPTH: usize = 16;

/// Whether pictures become one channel or three.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Channels {
    /// One if no picture has a coloured pixel, else three.
    #[default]
    Auto,
    /// One: luma (Rec. 709).
    Gray,
    /// Three: red, green, blue.
    Rgb,
}

/// The size that pictures are brought to: the largest centred crop of that aspect, then resampled.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Resize {
    /// Rows.
    pub height: u32,
    /// Columns.
    pub width: u32,
}

impl Resize {
    /// To `height` rows and `width` columns.
    pub fn new(height: u32, width: u32) -> Self {
        Resize { height, width }
    }

    /// Whether there can be pictures of this size.
    ///
    /// # Errors
    /// A side of zero or above 4096.
    pub fn check(self) -> Result<()> {
        if [self.height, self.width].iter().all(|side| (1..=4096).contains(side)) {
            return Ok(());
        }
        Err(Error::config("resize", format!("sides must be 1 to 4096, got {}x{}", self.height, self.width)))
    }
}

impl From<u32> for Resize {
    /// A square.
    fn from(side: u32) -> Self {
        Resize { height: side, width: side }
    }
}

/// How a folder of pictures becomes a data set.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct FolderOptions {
    /// Crop and resample; without it all pictures must have one size.
    pub resize: Option<Resize>,
    /// Colour or not.
    pub channels: Channels,
    /// Leave out, and count, pictures that cannot be decoded, rather than refusing the folder.
    #[serde(skip_serializing_if = "is_default")]
    pub skip_broken: bool,
}

impl FolderOptions {
    /// Pictures of this size, as they are if `None`, and colour.
    pub fn new(resize: Option<Resize>, channels: Channels) -> Self {
        FolderOptions { resize, channels, skip_broken: false }
    }

    /// The same options, with pictures that cannot be decoded left out and counted.
    #[must_use]
    pub fn skipping_broken(mut self, skip: bool) -> Self {
        self.skip_broken = skip;
        self
    }
}

/// All pictures under a folder. Transparency is ignored and counted, an EXIF rotation is applied.
///
/// Links to files are followed, links to folders are not. Pictures beside two or more sub-folders of pictures belong to no
/// class and are left out, as torchvision's `ImageFolder` does; beside a single sub-folder they leave the set without
/// labels. What is left out, and what of the files is lost, stands in [`Dataset::notes`].
///
/// # Errors
/// No picture, one that cannot be decoded (named) unless they are skipped, two of different sizes without `resize` (both
/// named), more pictures beside the sub-folders than in them, or a malformed `labels.csv`.
pub fn read(folder: &Path, options: &FolderOptions) -> Result<Dataset> {
    if let Some(resize) = options.resize {
        resize.check()?;
    }
    let mut found = Found::default();
    collect(folder, 0, &mut found)?;
    let mut files = std::mem::take(&mut found.pictures);
    if files.is_empty() {
        return Err(Error::NoData { path: folder.into(), looked_for: LOOKED_FOR.into() });
    }
    let mut notes = found.notes(folder);
    notes.extend(leave_out_loose(folder, &mut files)?);
    let (files, pictures) = decode_all(folder, files, options, &mut notes)?;
    notes.extend(losses(folder, &files, &pictures));
    let mut set = assemble(folder, &files, pictures, options)?;
    let names: Vec<String> = files.iter().map(|path| relative_name(folder, path)).collect();
    if let Some((labels, classes)) = classes(&names) {
        set = set.with_labels(labels, classes)?;
    }
    let mut tables = TABLES.map(|name| folder.join(name)).into_iter().filter(|table| table.exists());
    if let Some(table) = tables.next() {
        let (attributes, said) = Attributes::read_csv(&table, &names)?;
        notes.extend(said);
        notes.extend(tables.map(|other| format!("{} is read, not {}", table.display(), other.display())));
        if let Some(attributes) = attributes {
            set = set.with_attributes(attributes)?;
        }
    }
    Ok(set.with_names(names)?.with_notes(notes))
}

/// What lies in a folder.
#[derive(Default)]
struct Found {
    pictures: Vec<PathBuf>,
    /// Files that are no pictures by their names.
    others: Vec<PathBuf>,
    hidden: usize,
    /// Links to folders.
    links: Vec<PathBuf>,
}

impl Found {
    /// What is not read, in words.
    fn notes(&self, folder: &Path) -> Vec<String> {
        let names =
            |paths: &[PathBuf]| some_of(&paths.iter().map(|path| relative_name(folder, path)).collect::<Vec<_>>());
        let mut notes = Vec::new();
        let at = folder.display();
        if !self.others.is_empty() {
            notes.push(format!("{at}: {} files are no pictures: {}", self.others.len(), names(&self.others)));
        }
        if self.hidden > 0 {
            notes.push(format!("{at}: {} hidden files or folders were not looked at", self.hidden));
        }
        if !self.links.is_empty() {
            let count = self.links.len();
            notes.push(format!("{at}: {count} links to folders were not followed: {}", names(&self.links)));
        }
        notes
    }
}

/// Pictures below `folder`, files and sub-folders in the order of their names, hidden ones left out.
fn collect(folder: &Path, depth: usize, found: &mut Found) -> Result<()> {
    if depth > MAX_DEPTH {
        let reason = format!("folders are nested deeper than {MAX_DEPTH}");
        return Err(Error::config(folder.display().to_string(), reason));
    }
    let entries = std::fs::read_dir(folder).map_err(Error::io(folder))?;
    let mut entries = entries.collect::<std::io::Result<Vec<_>>>().map_err(Error::io(folder))?;
    entries.sort_by_key(std::fs::DirEntry::file_name);
    for entry in entries {
        let path = entry.path();
        let kind = entry.file_type().map_err(Error::io(&path))?;
        if entry.file_name().to_string_lossy().starts_with('.') {
            found.hidden += 1;
        } else if kind.is_dir() {
            collect(&path, depth + 1, found)?;
        } else if kind.is_symlink() && path.is_dir() {
            found.links.push(path);
        } else if is_picture(&path) {
            found.pictures.push(path);
        } else if depth > 0 || !TABLES.iter().any(|table| entry.file_name() == *table) {
            found.others.push(path);
        }
    }
    Ok(())
}

/// The path below the folder with `/` between its parts.
fn relative_name(folder: &Path, path: &Path) -> String {
    let relative = path.strip_prefix(folder).unwrap_or(path);
    relative.components().map(|part| part.as_os_str().to_string_lossy()).collect::<Vec<_>>().join("/")
}

/// Takes pictures away that lie beside the folders of two or more classes, and says so.
fn leave_out_loose(folder: &Path, files: &mut Vec<PathBuf>) -> Result<Option<String>> {
    let (loose, inside): (Vec<PathBuf>, Vec<PathBuf>) =
        files.iter().cloned().partition(|path| path.parent() == Some(folder));
    let names: Vec<String> = inside.iter().map(|path| relative_name(folder, path)).collect();
    let folders = classes(&names).map_or(0, |(_, classes)| classes.len());
    if loose.is_empty() || folders == 0 {
        return Ok(None);
    }
    let (at, count) = (folder.display(), loose.len());
    let examples = some_of(&loose.iter().map(|path| relative_name(folder, path)).collect::<Vec<_>>());
    if folders == 1 {
        let class = names[0].split_once('/').map_or("", |(class, _)| class);
        return Ok(Some(format!("{at}: {count} pictures lie beside the folder {class}: no classes are read")));
    }
    if count > inside.len() {
        let reason = format!(
            "{count} pictures beside the folders of {folders} classes, {} in them ({examples}); \
             move them into a class, or name the folder of the classes alone",
            inside.len()
        );
        return Err(Error::config(at.to_string(), reason));
    }
    *files = inside;
    Ok(Some(format!("{at}: {count} pictures beside the {folders} class folders belong to none, left out: {examples}")))
}

/// All pictures, or those that can be decoded.
fn decode_all(
    folder: &Path,
    files: Vec<PathBuf>,
    options: &FolderOptions,
    notes: &mut Vec<String>,
) -> Result<(Vec<PathBuf>, Vec<Picture>)> {
    // All of them, so that the error is that of the first broken one and not of the fastest thread.
    let decoded: Vec<Result<Picture>> = files.par_iter().map(|path| decode(path, options)).collect();
    if !options.skip_broken {
        return Ok((files, decoded.into_iter().collect::<Result<_>>()?));
    }
    let (mut kept, mut pictures, mut broken, mut first) = (Vec::new(), Vec::new(), Vec::new(), None);
    for (path, outcome) in files.into_iter().zip(decoded) {
        match outcome {
            Ok(picture) => {
                kept.push(path);
                pictures.push(picture);
            }
            Err(error) => {
                broken.push(relative_name(folder, &path));
                first = first.or(Some(error));
            }
        }
    }
    match first {
        Some(error) if kept.is_empty() => return Err(error),
        Some(error) => notes.push(format!(
            "{}: {} broken pictures were left out: {}; the first: {}",
            folder.display(),
            broken.len(),
            some_of(&broken),
            error.without_remedy()
        )),
        None => {}
    }
    Ok((kept, pictures))
}

/// What the bytes of pictures do not have any more, a sentence for each kind.
fn losses(folder: &Path, files: &[PathBuf], pictures: &[Picture]) -> Vec<String> {
    type IsLost = fn(&Lost) -> bool;
    let kinds: [(IsLost, &str); 3] = [
        (|lost| lost.transparency, "have transparent pixels; transparency was dropped, the colours under it kept"),
        (|lost| lost.depth, "have 16 bits a channel and were rounded to 8"),
        (|lost| lost.frames, "have several frames or pages, of which the first is read"),
    ];
    let mut notes = Vec::new();
    for (is_lost, words) in kinds {
        let concerned = files.iter().zip(pictures).filter(|(_, picture)| is_lost(&picture.lost));
        let names: Vec<String> = concerned.map(|(path, _)| relative_name(folder, path)).collect();
        if !names.is_empty() {
            let (at, count, all) = (folder.display(), names.len(), files.len());
            notes.push(format!("{at}: {count} of {all} pictures {words}: {}", some_of(&names)));
        }
    }
    notes
}

/// The first sub-folder of each name as its class; `None` unless every picture has one.
fn classes(names: &[String]) -> Option<(Vec<u32>, Vec<String>)> {
    let of_picture: Vec<&str> =
        names.iter().map(|name| name.split_once('/').map(|(class, _)| class)).collect::<Option<_>>()?;
    let mut classes = of_picture.clone();
    classes.sort_unstable();
    classes.dedup();
    let labels = of_picture.iter().map(|class| classes.partition_point(|c| c < class) as u32).collect();
    Some((labels, classes.into_iter().map(String::from).collect()))
}

/// Pictures `[H, W, C]` of one size as a data set `[N, C, H, W]`.
fn assemble(folder: &Path, files: &[PathBuf], pictures: Vec<Picture>, options: &FolderOptions) -> Result<Dataset> {
    let size = |p: &Picture| (p.height, p.width);
    let channels = pictures.iter().map(|p| p.channels).max().unwrap_or(1);
    let (height, width) = pictures.first().map_or((0, 0), size);
    if let Some(other) = pictures.iter().position(|p| size(p) != (height, width)) {
        let found = &pictures[other];
        let reason =
            format!("{height}x{width} against {}x{}; bring them to one size with --resize", found.height, found.width);
        return Err(Error::Mismatch { first: files[0].clone(), second: files[other].clone(), reason });
    }
    let mut images = Vec::with_capacity(pictures.len() * channels * height * width);
    for picture in pictures {
        for channel in 0..channels {
            images.extend(picture.values.iter().skip(channel.min(picture.channels - 1)).step_by(picture.channels));
        }
    }
    let resized = if options.resize.is_some() { format!(", resized to {height}x{width}") } else { String::new() };
    Dataset::new(images, [channels, height, width], 256, format!("{}{resized}", folder.display()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use image::{GrayImage, Luma, Rgb, RgbImage};

    fn rgb(path: &Path, width: u32, height: u32, pixel: impl Fn(u32, u32) -> [u8; 3]) {
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        RgbImage::from_fn(width, height, |x, y| Rgb(pixel(x, y))).save(path).unwrap();
    }

    #[test]
    fn pictures_become_channels_first_with_classes_in_order() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path();
        rgb(&root.join("b/0.png"), 3, 2, |x, y| [x as u8, 10 + y as u8, 20]);
        rgb(&root.join("a/deep/1.webp"), 3, 2, |_, _| [1, 2, 3]);
        GrayImage::from_pixel(3, 2, Luma([9])).save(root.join("a/2.png")).unwrap();
        std::fs::write(root.join("a/.hidden.png"), b"junk").unwrap();
        std::fs::write(root.join("notes.txt"), b"junk").unwrap();
        std::fs::write(root.join("labels.csv"), "file,hat\na/2.png,1\nb/0.png,0\na/deep/1.webp,1\n").unwrap();
        let set = read(root, &FolderOptions::default()).unwrap();
        assert_eq!((set.len(), set.shape()), (3, [3, 2, 3]));
        assert_eq!(set.image(0).unwrap(), [9; 18]);
        assert_eq!(set.image(1).unwrap(), [[1; 6], [2; 6], [3; 6]].concat());
        assert_eq!(set.image(2).unwrap(), [0, 1, 2, 0, 1, 2, 10, 10, 10, 11, 11, 11, 20, 20, 20, 20, 20, 20]);
        assert_eq!((set.labels().unwrap(), set.class_names()), (&[0, 0, 1][..], &["a".to_string(), "b".into()][..]));
        assert_eq!(set.attributes().unwrap().column("hat").unwrap(), [Some(true), Some(true), Some(false)]);
    }

    /// CelebA as it is given out: a count, the names of the attributes without one for the file, and blanks between cells.
    #[test]
    fn the_table_of_celeba_is_read_as_it_is_given_out() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path();
        for name in ["000001.jpg", "000002.jpg"] {
            rgb(&root.join(name), 2, 2, |_, _| [7; 3]);
        }
        let put = |name: &str, text: &str| std::fs::write(root.join(name), text).unwrap();
        put("list_attr_celeba.txt", "2\nBald Male \n000001.jpg -1  1\n000002.jpg  1  1\n");
        let set = read(root, &FolderOptions::default()).unwrap();
        assert_eq!(set.attributes().unwrap().names(), ["Bald", "Male"]);
        assert_eq!(set.attributes().unwrap().column("Bald").unwrap(), [Some(false), Some(true)]);
        assert!(set.notes().is_empty(), "{:?}", set.notes());
        put("list_attr_celeba.txt", "2\nBald Male \n000001.jpg -1  1\n000002.jpg  1\n");
        let error = read(root, &FolderOptions::default()).unwrap_err().to_string();
        assert!(error.contains("list_attr_celeba.txt") && error.contains("line 4"), "{error}");
        put("list_attr_celeba.csv", "image_id,Bald\n000001.jpg,1\n000002.jpg,-1\n");
        let set = read(root, &FolderOptions::default()).unwrap();
        assert_eq!(set.attributes().unwrap().column("Bald").unwrap(), [Some(true), Some(false)]);
        assert!(set.notes()[0].contains("csv is read, not ") && set.notes()[0].ends_with(".txt"), "{:?}", set.notes());
    }

    #[test]
    fn gray_by_content_unless_told_otherwise() {
        let folder = tempfile::tempdir().unwrap();
        rgb(&folder.path().join("x.png"), 2, 2, |x, _| [x as u8; 3]);
        let channels =
            |channels| read(folder.path(), &FolderOptions { channels, ..FolderOptions::default() }).unwrap().shape()[0];
        assert_eq!((channels(Channels::Auto), channels(Channels::Rgb), channels(Channels::Gray)), (1, 3, 1));
        assert!(read(folder.path(), &FolderOptions::default()).unwrap().labels().is_none());
    }

    #[test]
    fn resizing_crops_the_centre_first() {
        let folder = tempfile::tempdir().unwrap();
        // Red sides, blue middle: the square crop of a 12x4 picture is its middle.
        rgb(&folder.path().join("wide.png"), 12, 4, |x, _| if (4..8).contains(&x) { [0, 0, 200] } else { [255, 0, 0] });
        rgb(&folder.path().join("tall.png"), 4, 12, |_, y| if (4..8).contains(&y) { [0, 0, 200] } else { [255, 0, 0] });
        let options = FolderOptions { resize: Some(2.into()), ..FolderOptions::default() };
        let set = read(folder.path(), &options).unwrap();
        assert_eq!(set.shape(), [3, 2, 2]);
        for image in 0..2 {
            assert_eq!(set.image(image).unwrap(), [0, 0, 0, 0, 0, 0, 0, 0, 200, 200, 200, 200]);
        }
        let error = read(folder.path(), &FolderOptions::default()).unwrap_err().to_string();
        assert!(error.contains("tall.png") && error.contains("wide.png") && error.contains("4x12"), "{error}");
        let zero = FolderOptions { resize: Some(0.into()), ..options };
        assert!(read(folder.path(), &zero).unwrap_err().to_string().contains("resize"));
    }

    #[test]
    fn the_order_does_not_depend_on_threads() {
        let folder = tempfile::tempdir().unwrap();
        for i in 0..40u8 {
            rgb(&folder.path().join(format!("{i:02}.png")), 1, 1, |_, _| [i; 3]);
        }
        assert_eq!(read(folder.path(), &FolderOptions::default()).unwrap().images(), (0..40).collect::<Vec<u8>>());
    }
}
