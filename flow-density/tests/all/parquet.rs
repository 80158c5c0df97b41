//! Tables in Parquet, as this crate's tests write them and as pandas and Arrow did.
//!
//! `FLOW_FUZZ=25000 cargo test --workspace --features flow-density/parquet --test all -- parquet` tries as many damaged
//! files.

use std::sync::Arc;

use flow_core::FlowRng;
use flow_core::testing::fuzz;
use flow_density::data::{Missing, Reading, Table};
use parquet::basic::{Compression, GzipLevel, ZstdLevel};
use parquet::data_type::{BoolType, ByteArrayType, DataType, DoubleType, Int64Type};
use parquet::file::properties::WriterProperties;
use parquet::file::writer::{SerializedFileWriter, SerializedRowGroupWriter};
use parquet::schema::parser::parse_message_type;

const SCHEMA: &str =
    "message m { optional double a; required int64 b; required binary kind (UTF8); required boolean c; }";
/// `pandas.DataFrame({"length": [5.1, nan, 4.9], "grade": [1, 2, 3], "kind": ["a", None, "b"]}, index=[4, 5, 6])` by
/// `to_parquet`, pandas 3.1 with pyarrow 26.
const PANDAS: &[u8] = include_bytes!("fixtures/pandas.parquet");
/// A column of each type of numbers by `pyarrow.parquet.write_table(…, compression="zstd")`, pyarrow 26.
const ARROW: &[u8] = include_bytes!("fixtures/arrow.parquet");

fn column<T: DataType>(
    group: &mut SerializedRowGroupWriter<'_, &mut Vec<u8>>,
    values: &[T::T],
    present: Option<&[i16]>,
) {
    let mut column = group.next_column().unwrap().unwrap();
    column.typed::<T>().write_batch(values, present, None).unwrap();
    column.close().unwrap();
}

/// Two groups of three rows, the last without a value for `a`.
fn file(compression: Compression) -> Vec<u8> {
    let schema = Arc::new(parse_message_type(SCHEMA).unwrap());
    let properties = Arc::new(WriterProperties::builder().set_compression(compression).build());
    let mut bytes = Vec::new();
    let mut writer = SerializedFileWriter::new(&mut bytes, schema, properties).unwrap();
    for group in 0..2 {
        let mut rows = writer.next_row_group().unwrap();
        column::<DoubleType>(&mut rows, &[0.5 + f64::from(group), 2.5], Some(&[1, 1, 0]));
        column::<Int64Type>(&mut rows, &[1, (1 << 60) + 1, 3], None);
        column::<ByteArrayType>(&mut rows, &["x".into(), "y z".into(), "x".into()], None);
        column::<BoolType>(&mut rows, &[true, false, true], None);
        rows.close().unwrap();
    }
    writer.close().unwrap();
    bytes
}

/// A column of one row, which has this type.
fn one<T: DataType>(kind: &str, value: T::T) -> Vec<u8> {
    let schema = Arc::new(parse_message_type(&format!("message m {{ required {kind}; required double x; }}")).unwrap());
    let mut bytes = Vec::new();
    let mut writer = SerializedFileWriter::new(&mut bytes, schema, Arc::default()).unwrap();
    let mut rows = writer.next_row_group().unwrap();
    column::<T>(&mut rows, &[value], None);
    column::<DoubleType>(&mut rows, &[0.5], None);
    rows.close().unwrap();
    writer.close().unwrap();
    bytes
}

fn parse(bytes: &[u8], reading: &Reading) -> Result<Table, String> {
    Table::parse("t.parquet".as_ref(), bytes, reading).map_err(|error| error.to_string())
}

fn chosen(columns: &str) -> Reading {
    let columns = columns.split(',').map(String::from).collect();
    Reading { columns, missing: Missing::Drop, ..Reading::default() }
}

fn codecs() -> [Compression; 4] {
    let (gzip, zstd) = (GzipLevel::default(), ZstdLevel::default());
    [Compression::UNCOMPRESSED, Compression::SNAPPY, Compression::GZIP(gzip), Compression::ZSTD(zstd)]
}

#[test]
fn parquet_tables_are_read_right_or_refused() {
    let drop = Reading { missing: Missing::Drop, class: Some("kind".into()), ..Reading::default() };
    for compression in codecs() {
        let bytes = file(compression);
        let table = parse(&bytes, &drop).unwrap();
        assert_eq!(table.names(), ["a", "b", "c"]);
        let exact = ((1_i64 << 60) + 1) as f64;
        assert_eq!(table.values(), [0.5, 1.0, 1.0, 2.5, exact, 0.0, 1.5, 1.0, 1.0, 2.5, exact, 0.0]);
        assert_eq!((table.classes(), table.row_number(2).unwrap()), (&[0, 1, 0, 1][..], 4));
        let notes = table.notes().join("\n");
        assert!(notes.contains("2 of 6 rows lack a value (column 1 ('a'): 2, first in row 3, 'null')"), "{notes}");
        assert!(notes.contains("column 2 ('b'): 2 numbers have more digits than 64 bits hold"), "{notes}");
        let said = parse(&bytes, &Reading::default()).unwrap_err();
        assert!(said.contains("'x' under the name 'kind', and text in all 6 rows"), "{said}");
        let said = parse(&bytes[..bytes.len() - 1], &drop).unwrap_err();
        assert!(
            said.starts_with("t.parquet: no Parquet file, or the beginning of one, expected a whole one"),
            "{said}"
        );
    }
}

#[test]
fn what_pandas_writes_is_read() {
    let table = parse(PANDAS, &chosen("length,grade")).unwrap();
    assert_eq!(table.values(), [5.1, 1.0, 4.9, 3.0]);
    assert_eq!(table.chosen().of, 3, "the index is no column");
    assert!(table.notes().iter().any(|note| note.contains("the index that pandas wrote")), "{:?}", table.notes());
    let classes = parse(PANDAS, &Reading { class: Some("kind".into()), missing: Missing::Drop, ..Reading::default() });
    assert_eq!(classes.unwrap().classes(), [0, 1]);
}

/// Values as the table that was written had them.
#[test]
fn every_type_of_numbers_is_read() {
    let values = |column: &str| parse(ARROW, &chosen(column)).unwrap().values().to_vec();
    assert_eq!(values("u8"), [1.0, 255.0]);
    assert_eq!(values("i8"), [-1.0, -128.0, 3.0]);
    assert_eq!(values("u32"), [1.0, 4294967295.0, 3.0]);
    assert_eq!(values("i64"), [1.0, 1152921504606846977_i64 as f64, 3.0]);
    assert_eq!(values("u64"), [1.0, u64::MAX as f64, 3.0]);
    assert_eq!(values("h"), [1.5, -3.140625, 5.960464477539063e-8]);
    assert_eq!(values("f"), [1.5, 2.5]);
    assert_eq!(values("b"), [1.0, 0.0]);
    assert_eq!(values("d"), [1.1, -2.25]);
    assert_eq!(values("d38"), [123456789012345678901234567890.12, -0.01]);
    assert!(parse(ARROW, &chosen("nul")).unwrap().notes()[0].contains("3 of 3 rows lack a value"));
}

/// Whole numbers that stand for times are no numbers, and are not read as such.
#[test]
fn columns_without_numbers_are_named_with_the_others() {
    for (kind, bytes) in [
        ("timestamps", one::<Int64Type>("int64 when (TIMESTAMP(NANOS,true))", 1)),
        ("timestamps", one::<Int64Type>("int64 when (TIMESTAMP_MILLIS)", 1)),
        ("times", one::<Int64Type>("int64 when (TIME(NANOS,true))", 1)),
        ("dates", one::<parquet::data_type::Int32Type>("int32 when (DATE)", 1)),
        ("bytes", one::<ByteArrayType>("binary when", vec![0xff].into())),
    ] {
        let said = parse(&bytes, &Reading::default()).unwrap_err();
        let expected = format!("t.parquet: row 1, column 1: {kind} under the name 'when', expected a number");
        assert!(said.starts_with(&expected) && said.ends_with("leave such columns out with --columns x"), "{said}");
        assert_eq!(parse(&bytes, &chosen("x")).unwrap().values(), [0.5]);
    }
}

/// Two hundred thousand groups of columns, each in the one before.
#[test]
fn deep_schemas_overflow_no_stack() {
    let group = b"\x35\x00\x18\x01a\x15\x02\x00".repeat(200_000);
    let length = [0xc2, 0x9a, 0x0c];
    let ends: [&[u8]; 2] = [b"\x48\x01r\x15\x02\x00", b"\x15\x0a\x25\x00\x18\x01x\x00"];
    let metadata = [b"\x15\x02\x19\xfc", &length[..], ends[0], &group, ends[1], b"\x16\x02\x19\x0c\x00"].concat();
    let size = u32::try_from(metadata.len()).unwrap().to_le_bytes();
    let bytes = [b"PAR1", &metadata[..], &size, b"PAR1"].concat();
    assert!(parse(&bytes, &Reading::default()).unwrap_err().contains("0 of 1 rows"));
}

/// The decoder panics on a few of them, of which callers see an error.
#[test]
fn damaged_parquet_files_are_read_or_refused() {
    let inputs = fuzz::rounds(400);
    let mut files = codecs().map(file).to_vec();
    files.extend([PANDAS.to_vec(), ARROW.to_vec()]);
    let mut rng = FlowRng::named(inputs.into(), "parquet");
    let reading = Reading { missing: Missing::Drop, class: Some("kind".into()), ..Reading::default() };
    let mut read = 0;
    for _ in 0..inputs {
        let bytes = fuzz::input(&files, &[b"PAR1", &[0xff; 4], &[0; 4]], &mut rng);
        let reading = if rng.below(2) == 0 { &reading } else { &chosen("1") };
        match parse(&bytes, reading) {
            Err(said) => assert!(said.starts_with("t.parquet") && !said.contains('\n'), "{said}"),
            Ok(table) => {
                read += 1;
                assert!(table.values().iter().all(|v| v.is_finite()));
            }
        }
    }
    assert!(read > 0 && read < inputs, "{read} of {inputs} read: damage is noticed, and not all of it deadly");
}
