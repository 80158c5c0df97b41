//! Tables in Parquet, the columnar format of Apache Arrow.

mod cells;
mod contained;

use ::parquet::basic::Compression;
use ::parquet::errors::ParquetError;
use ::parquet::file::metadata::{FileMetaData, RowGroupMetaData};
use ::parquet::file::reader::{FileReader, SerializedFileReader};
use bytes::Bytes;
use cells::Meaning;

use super::fault::{Fault, Read};
use super::raw::{Raw, RawColumn};

/// Cells of a table, at most: a few bytes can stand for any number of equal ones.
const MOST_CELLS: u64 = 1 << 30;
/// What is expected of a file.
const WHOLE: &str = "a whole one, as pandas' to_parquet writes it: write it anew, or as a CSV (to_csv)";
/// What pandas calls the index of a frame that has no name, where it writes it as a column.
const INDEX: &str = "__index_level_";

/// Reads all columns; keeps words, if told, for what may be classes.
///
/// Numbers, decimals and truth values are numbers, nulls and NaN are missing. Text is words, and so are times, lists and
/// other columns that hold no numbers: they are refused where they are chosen.
pub(super) fn read(bytes: &[u8], words: bool) -> Read<Raw> {
    // The decoder recurses into groups of columns, each of which takes a few bytes of the metadata at the end.
    let metadata = match bytes {
        [.., a, b, c, d, b'P', b'A', b'R', b'1'] => u32::from_le_bytes([*a, *b, *c, *d]) as usize,
        _ => return Err(Fault::whole("no Parquet file, or the beginning of one", WHOLE)),
    };
    contained::run(metadata.min(bytes.len()), || decoded(bytes, words)).unwrap_or_else(|| {
        let found = "a Parquet file that is damaged, or made of parts that this reader does not know";
        Err(Fault::whole(found, WHOLE))
    })
}

fn decoded(bytes: &[u8], words: bool) -> Read<Raw> {
    let fault = |error: ParquetError| {
        let said: String = error.to_string().split_whitespace().collect::<Vec<_>>().join(" ");
        Fault::whole(format!("a Parquet file that cannot be read ({said})"), WHOLE)
    };
    let reader = SerializedFileReader::new(Bytes::copy_from_slice(bytes)).map_err(fault)?;
    let metadata = reader.metadata();
    let described = metadata.file_metadata();
    let columns = described.schema_descr().columns();
    let meanings: Vec<Meaning> = columns.iter().map(|column| Meaning::of(column)).collect();
    let rows = u64::try_from(described.num_rows()).unwrap_or(u64::MAX);
    if rows.checked_mul(columns.len().max(1) as u64).is_none_or(|cells| cells > MOST_CELLS) {
        let found = format!("{} rows of {} columns", described.num_rows(), columns.len());
        return Err(Fault::whole(found, format!("at most {MOST_CELLS} cells: split the file")));
    }
    let mut raw = Raw::default();
    for (column, meaning) in columns.iter().zip(&meanings) {
        let (name, kind) = (Some(column.path().string()), meaning.kind());
        raw.columns.push(RawColumn { name, kind, texts: words.then(Vec::new), ..RawColumn::default() });
    }
    for (index, group) in metadata.row_groups().iter().enumerate() {
        check_compression(group)?;
        let reader = reader.get_row_group(index).map_err(fault)?;
        let parts = raw.columns.iter_mut().zip(columns.iter().zip(&meanings));
        for (place, (column, (descriptor, meaning))) in parts.enumerate() {
            let before = column.values.len();
            let wanted = usize::try_from(group.num_rows()).unwrap_or(usize::MAX);
            let end = before.checked_add(wanted).filter(|&end| end as u64 <= rows);
            let end = end.ok_or_else(|| Fault::whole("more rows than the file says that it has", WHOLE))?;
            cells::read(reader.as_ref(), place, descriptor, meaning, end, column).map_err(fault)?;
            if column.values.len() != end {
                let found = format!("{} of {wanted} rows in a part of it", column.values.len() - before);
                return Err(Fault::whole(found, WHOLE));
            }
        }
    }
    if raw.rows() as u64 != rows {
        return Err(Fault::whole(format!("{} of {rows} rows", raw.rows()), WHOLE));
    }
    if rows == 0 {
        return Err(Fault::whole("no row", "at least one"));
    }
    leave_out_index(&mut raw, described);
    Ok(raw)
}

fn check_compression(group: &RowGroupMetaData) -> Read<()> {
    use Compression::{GZIP, SNAPPY, UNCOMPRESSED, ZSTD};
    let known = |codec| matches!(codec, UNCOMPRESSED | SNAPPY | GZIP(_) | ZSTD(_));
    match group.columns().iter().map(|column| column.compression()).find(|&codec| !known(codec)) {
        None => Ok(()),
        Some(codec) => {
            let expected = "Snappy, Zstandard, gzip or no compression (pandas: to_parquet(path, compression='snappy'))";
            let codec = codec.to_string().to_lowercase();
            let codec = codec.split('(').next().unwrap_or(&codec);
            Err(Fault::whole(format!("columns compressed by {codec}"), expected))
        }
    }
}

/// The index of a frame is no data.
fn leave_out_index(raw: &mut Raw, described: &FileMetaData) {
    let pandas = described.key_value_metadata().into_iter().flatten().find(|entry| entry.key == "pandas");
    let pandas = pandas.and_then(|entry| entry.value.as_deref());
    // What is no description by pandas names no index.
    let pandas: serde_json::Value =
        pandas.map_or(serde_json::Value::Null, |text| serde_json::from_str(text).unwrap_or(serde_json::Value::Null));
    let listed: Vec<&str> =
        pandas["index_columns"].as_array().into_iter().flatten().filter_map(|c| c.as_str()).collect();
    let is_index = |column: &RawColumn| {
        column.name.as_deref().is_some_and(|name| name.starts_with(INDEX) || listed.contains(&name))
    };
    if raw.columns.iter().all(is_index) {
        return;
    }
    let (index, columns) = std::mem::take(&mut raw.columns).into_iter().partition::<Vec<_>, _>(is_index);
    raw.columns = columns;
    let unnamed = |column: &RawColumn| column.name.as_deref().is_none_or(|name| name.starts_with(INDEX));
    match &index[..] {
        [] => {}
        index if index.iter().all(unnamed) => {
            raw.notes.push("the index that pandas wrote beside the columns is left out".into());
        }
        index => {
            let names: Vec<&str> = index.iter().filter_map(|column| column.name.as_deref()).collect();
            raw.notes.push(format!(
                "the index that pandas wrote beside the columns is left out: {} (reset_index() makes a column of it)",
                names.join(", ")
            ));
        }
    }
}
