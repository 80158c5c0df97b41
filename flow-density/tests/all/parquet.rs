//! Tables in Parquet, as this crate's tests write them and as pandas did.

use std::sync::Arc;

use flow_core::FlowRng;
use flow_core::testing::fuzz;
use flow_density::data::{Missing, Reading, Table};
use parquet::basic::Compression;
use parquet::data_type::{BoolType, ByteArrayType, DoubleType, Int64Type};
use parquet::file::properties::WriterProperties;
use parquet::file::writer::{SerializedFileWriter, SerializedRowGroupWriter};
use parquet::schema::parser::parse_message_type;

const SCHEMA: &str = "message m { optional double a; required int64 b; required binary kind (UTF8); required boolean c; }";

fn column<T: parquet::data_type::DataType>(
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

fn parse(bytes: &[u8], reading: &Reading) -> Result<Table, String> {
    Table::parse("t.parquet".as_ref(), bytes, reading).map_err(|error| error.to_string())
}

#[test]
fn parquet_tables_are_read_right_or_refused() {
    for compression in [Compression::UNCOMPRESSED, Compression::SNAPPY] {
        let bytes = file(compression);
        let drop = Reading { missing: Missing::Drop, class: Some("kind".into()), ..Reading::default() };
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
        assert!(said.starts_with("t.parquet: a Parquet file that cannot be read"), "{said}");
    }
}

/// `pandas.DataFrame({"length": [5.1, nan, 4.9], "grade": [1, 2, 3], "kind": ["a", None, "b"]}, index=[4, 5, 6])` by
/// `to_parquet`, pandas 2 with pyarrow.
#[test]
fn what_pandas_writes_is_read() {
    let bytes = include_bytes!("fixtures/pandas.parquet");
    let columns = Reading { columns: vec!["length".into(), "grade".into()], missing: Missing::Drop, ..Reading::default() };
    let table = parse(bytes, &columns).unwrap();
    assert_eq!(table.values(), [5.1, 1.0, 4.9, 3.0]);
    assert_eq!(table.chosen().of, 3, "the index is no column");
    assert!(table.notes().iter().any(|note| note.contains("the index that pandas wrote")), "{:?}", table.notes());
    let classes = parse(bytes, &Reading { class: Some("kind".into()), missing: Missing::Drop, ..Reading::default() });
    assert_eq!(classes.unwrap().classes(), [0, 1]);
}

#[test]
fn damaged_parquet_files_are_read_or_refused() {
    let inputs = fuzz::rounds(400);
    let files = [file(Compression::UNCOMPRESSED), file(Compression::SNAPPY)];
    let mut rng = FlowRng::named(inputs.into(), "parquet");
    let reading = Reading { missing: Missing::Drop, class: Some("kind".into()), ..Reading::default() };
    let mut read = 0;
    for _ in 0..inputs {
        let bytes = fuzz::input(&files, &[b"PAR1", &[0xff; 4], &[0; 4]], &mut rng);
        match parse(&bytes, &reading) {
            Err(said) => assert!(said.starts_with("t.parquet") && !said.contains('\n'), "{said}"),
            Ok(table) => {
                read += 1;
                assert!(table.rows() <= 4096 * bytes.len() && table.values().iter().all(|v| v.is_finite()));
            }
        }
    }
    assert!(read < inputs, "damage is noticed");
}
