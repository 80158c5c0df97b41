use super::*;
use crate::data::{Missing, Reading, Table};
use crate::{Error, Result};

fn read_as(content: &[u8], reading: &Reading) -> Result<Table> {
    Table::parse("t.csv".as_ref(), content, reading)
}

fn table(content: &str) -> Table {
    read_as(content.as_bytes(), &Reading::default()).unwrap_or_else(|e| panic!("{content:?}: {e}"))
}

fn refused(content: &str) -> String {
    read_as(content.as_bytes(), &Reading::default()).expect_err(content).to_string()
}

fn columns(list: &str) -> Reading {
    Reading { columns: list.split(',').map(String::from).collect(), ..Reading::default() }
}

fn numbers(rows: usize) -> String {
    (0..rows).map(|i| format!("{i},{}\n", 0.5 * i as f64)).collect()
}

#[test]
fn text_with_and_without_names_and_with_any_separator() {
    let plain = table(&numbers(12));
    assert_eq!((plain.columns(), plain.rows(), plain.names()), (2, 12, &[][..]));
    assert_eq!(plain.row(1).unwrap(), [1.0, 0.5]);
    let error = plain.row(12).unwrap_err();
    assert!(matches!(error, Error::Table { .. }) && error.to_string().contains("no row at index 12"), "{error}");
    assert!(plain.row_number(12).is_err());
    for text in [
        numbers(12).replace(',', " ; "),
        numbers(12).replace(',', "\t"),
        numbers(12).replace(',', "  "),
        numbers(12).replace(',', "|"),
        numbers(12).replace('\n', "\r\n"),
        numbers(12).replace('\n', "\r"),
        numbers(12).replace('\n', "\n\n"),
        format!("\u{feff}{}", numbers(12)),
        format!("sep=,\n{}", numbers(12)),
        numbers(12).lines().map(|line| format!("\"{}\"\n", line.replace(',', "\",\""))).collect(),
    ] {
        assert_eq!(table(&text).values(), plain.values(), "{text:?}");
    }
    let named = table(&format!("x,\"y, m\"\n{}", numbers(12)));
    assert_eq!((named.values(), named.names()), (plain.values(), &["x".to_string(), "y, m".to_string()][..]));
}

/// The values that `pandas.read_csv` and `numpy.loadtxt` read from the same text.
#[test]
fn numbers_keep_all_their_digits() {
    let text = "a,b\n5155487.5291,1e-3\n0.1,-2.5E+10\n9007199254740993,.5\n123456789.123456789,1e22\n";
    let read = table(text);
    let expected = [5155487.5291, 0.001, 0.1, -2.5e10, 9007199254740992.0, 0.5, 123456789.12345679, 1e22];
    assert_eq!(read.values(), expected);
    assert_eq!(
        read.notes(),
        ["column 1 ('a'): 1 numbers have more digits than 64 bits hold, first 9007199254740993: rounded"]
    );
}

#[test]
fn quoted_thousands_are_one_cell_and_refused_with_the_remedy() {
    let error = refused("price,b\n\"10,534\",0.76\n\"20,866\",-0.6\n");
    assert!(error.starts_with("t.csv: line 2, column 1: '10,534' under the name 'price'"), "{error}");
    assert!(error.contains("write 10534") && error.contains("thousands=','"), "{error}");
    // The other column is a table of its own.
    let read = read_as(b"price,b\n\"10,534\",0.76\n\"20,866\",-0.6\n", &columns("b")).unwrap();
    assert_eq!(read.values(), [0.76, -0.6]);
    for (text, place, says) in [
        ("a;b\n1,5;2,5\n", "line 2, column 1: '1,5'", "write 1.5, not 1,5"),
        ("1,5;2,5\n1,5;2,5\n", "line 1, column 1: '1,5'", "write 1.5, not 1,5"),
        ("x y\n1,5 2,5\n3,1 4,2\n", "line 2, column 1: '1,5'", "write 1.5, not 1,5"),
        ("x\n1,5\n2,5\n", "line 2: 2 cells", "commas inside numbers"),
        ("Flowers of 2021\na,b\n1,2\n", "line 2: 2 cells", "is it a title? remove it"),
        ("price,b\n10,534,0.7\n20,866,0.6\n", "line 2: 3 cells", "commas inside numbers"),
        ("a;b\n1.234.567;2\n", "line 2, column 1: '1.234.567'", "marks between thousands"),
        ("a;b\n1 234;2\n", "line 2, column 1: '1 234'", "marks between thousands"),
        ("a;b\n1'234;2\n", "line 2, column 1: '1'234'", "marks between thousands"),
        ("10,534,0.7\n20,066,0.6\n", "column 2: three digits in every row", "marks between thousands"),
        ("-10,534\n20,066\n", "column 2: three digits in every row", "marks between thousands"),
    ] {
        let error = refused(text);
        assert!(error.starts_with(&format!("t.csv: {place}")) && error.contains(says), "{text:?}: {error}");
    }
    // Names say how many columns there are, and three digits alone are no thousands.
    assert_eq!(table("a,b\n10,034\n20,866\n").values(), [10.0, 34.0, 20.0, 866.0]);
    assert_eq!(table("10,534\n20,866\n").columns(), 2);
}

#[test]
fn comments_above_numbers_may_name_them() {
    let two = table("# x y\n# second line\n1.0e+01 -2.6e+00\n9.1e+00 -4.2e+00\n");
    assert_eq!((two.values(), two.names()), (&[10.0, -2.6, 9.1, -4.2][..], &[][..]));
    assert_eq!(two.notes(), ["2 lines are comments"]);
    let names = |text: &str| table(text).names().join("/");
    assert_eq!(names("# x y\n1 2\n3 4\n"), "x/y");
    assert_eq!(names("#x,y\n1,2\n3,4\n"), "x/y");
    assert_eq!(names("% made by hand\n1 2\n3 4\n"), "");
    assert_eq!(names("# one two three\nx y\n1 2\n3 4\n"), "x/y");
    assert_eq!(table("1 2\n# break\n3 4\n").rows(), 2);
    // What a spreadsheet could not compute is no comment but a missing value.
    assert!(refused("a,b\n#N/A,5\n1,2\n").contains("1 of 2 rows lacks a value"));
    assert!(refused("1,2\n#DIV/0!,5\n1,2\n").contains("1 of 3 rows lacks a value"));
}

#[test]
fn a_first_line_of_names_is_told_from_a_row() {
    let shape = |text: &str| {
        let read = table(text);
        (read.names().join("/"), read.rows())
    };
    assert_eq!(shape("a,b\n1,2\n"), ("a/b".into(), 1));
    assert_eq!(shape("1,2\n3,4\n"), (String::new(), 2));
    // The year above a column is a number like those below it; asked to, it is a name.
    let years = Reading { header: Header::Yes, ..Reading::default() };
    assert_eq!(read_as(b"2019,2020\n1,2\n", &years).unwrap().names(), ["2019", "2020"]);
    let error = refused("id,2019,2020\n1,5,6\n2,7,8\n");
    assert!(
        error.starts_with("t.csv: line 1: 'id' and '2019' in one line") && error.contains("--header yes or no"),
        "{error}"
    );
    assert_eq!(read_as(b"id,2019\n1,5\n", &years).unwrap().names(), ["id", "2019"]);
    // The first flower is not lost to a line of names that is not there.
    let iris = "5.1,3.5,setosa\n4.9,3.0,setosa\n6.0,2.2,virginica\n";
    let error = refused(iris);
    assert!(error.starts_with("t.csv: line 1, column 3: 'setosa', and text in all 3 rows"), "{error}");
    assert!(error.contains("--columns 1-2"), "{error}");
    assert_eq!(read_as(iris.as_bytes(), &columns("1-2")).unwrap().rows(), 3);
    // A value that is not there is no name.
    assert!(refused("NA,2\n3,4\n").contains("1 of 2 rows lacks a value (column 1: 1, first in line 1, 'NA')"));
    let none = Reading { header: Header::No, ..Reading::default() };
    assert!(read_as(b"a,b\n1,2\n", &none).unwrap_err().to_string().contains("line 1, column 1: 'a'"));
    assert!(refused("a,b\n").contains("no row of numbers under the names in line 1"));
    assert!(refused("x,2\n3,4\n5,6\n").contains("'x' and '2' in one line"));
}

#[test]
fn missing_values_are_counted_and_left_out_on_demand() {
    let text = "a,b,c\n1,2,3\n,5,6\n7,NA,nan\n8,9,10\n11,?,12\n";
    let error = refused(text);
    assert!(
        error.starts_with(
            "t.csv: 3 of 5 rows lack a value (column 1 ('a'): 1, first in line 3, an empty cell; column 2 ('b'): 2, \
             first in line 4, 'NA'; column 3 ('c'): 1, first in line 4, 'nan')"
        ) && error.contains("--missing drop"),
        "{error}"
    );
    let drop = Reading { missing: Missing::Drop, ..Reading::default() };
    let read = read_as(text.as_bytes(), &drop).unwrap();
    assert_eq!(read.values(), [1.0, 2.0, 3.0, 8.0, 9.0, 10.0]);
    assert_eq!((read.row_number(1).unwrap(), read.rows_of_file()), (4, 5));
    assert!(read.notes()[0].starts_with("3 of 5 rows lack a value") && read.notes()[0].ends_with(": left out"));
    // Only the columns that are read have to be whole.
    let read = read_as(text.as_bytes(), &columns("c,a")).unwrap_err().to_string();
    assert!(read.contains("2 of 5 rows lack a value"), "{read}");
    let (text, a) = (b"a,b\n1,\n2,x\n".as_slice(), columns("a"));
    assert_eq!(read_as(text, &a).unwrap().values(), [1.0, 2.0]);
    assert!(refused("1,2\ninf,3\n").contains("line 2, column 1: inf, expected a finite number"));
    assert!(refused("1,2\n1e400,3\n").contains("line 2, column 1: inf"));
}

#[test]
fn columns_are_chosen_by_names_and_numbers() {
    let text = b"id,length,\"width, cm\",species\n7,5.1,3.5,setosa\n8,4.9,3.0,virginica\n";
    let values = |list: &[&str]| {
        let reading = Reading { columns: list.iter().map(ToString::to_string).collect(), ..Reading::default() };
        read_as(text, &reading).map(|read| read.row(0).unwrap().to_vec()).map_err(|e| e.to_string())
    };
    assert_eq!(values(&["length", "1"]).unwrap(), [5.1, 7.0]);
    assert_eq!(values(&["width, cm"]).unwrap(), [3.5]);
    assert_eq!(values(&["1-3"]).unwrap(), [7.0, 5.1, 3.5]);
    for (list, says) in [
        (&["Length"][..], "no column 'Length', expected of the columns column 1 ('id'), column 2 ('length')"),
        (&["5"], "no column '5'"),
        (&["0"], "no column '0'"),
        (&["3-2"], "no column '3-2'"),
        (&["2", "length"], "column 2 ('length') chosen twice"),
        (
            &["species"],
            "line 2, column 4: 'setosa' under the name 'species', and text in all 2 rows, expected a number",
        ),
    ] {
        let error = values(list).unwrap_err();
        assert!(error.contains(says), "{error}");
    }
    let error = read_as(text, &Reading::default()).unwrap_err().to_string();
    assert!(error.contains("--columns 1-3"), "{error}");
    let error = refused("length,width,species\n5.1,3.5,setosa\n4.9,3.0,virginica\n");
    assert!(error.contains("--columns length,width"), "{error}");
    assert!(read_as(b"a,a\n1,2\n", &columns("a")).unwrap_err().to_string().contains("several columns 'a'"));
    assert_eq!(read_as(b"a,a\n1,2\n", &columns("2")).unwrap().values(), [2.0]);
    // A column of the name comes before a column of the number.
    let years = Reading { header: Header::Yes, ..columns("1") };
    assert_eq!(read_as(b"2,1\n10,20\n", &years).unwrap().values(), [20.0]);
}

#[test]
fn an_index_is_no_column_of_data() {
    for (header, name) in [
        (",a,b", "no name"),
        ("Unnamed: 0,a,b", "the name 'Unnamed: 0'"),
        ("\"\",\"a\",\"b\"", "no name"),
        ("index,a,b", "the name 'index'"),
    ] {
        let text = format!("{header}\n0,1.5,2\n1,2.5,3\n2,0.5,4\n");
        let error = refused(&text);
        assert!(
            error.contains(&format!("column 1: {name}, and a count of the rows")) && error.contains("--columns a,b"),
            "{error}"
        );
        assert_eq!(read_as(text.as_bytes(), &columns("a,b")).unwrap().columns(), 2);
        assert_eq!(read_as(text.as_bytes(), &columns("1-3")).unwrap().columns(), 3);
    }
    // Rows that are counted under a name were meant.
    assert_eq!(table("t,a\n0,1.5\n1,2.5\n").columns(), 2);
    let error = refused("a,b\nr1,1,2\nr2,3,4\n");
    assert!(error.contains("line 2: 3 cells, expected 2 as in line 1") && error.contains("write.csv"), "{error}");
}

#[test]
fn separators_at_the_end_of_lines_make_no_column() {
    let read = table("1,2,\n3,4,\n");
    assert_eq!(
        (read.columns(), read.notes()[0].as_str()),
        (2, "the last column is empty, without a name, and left out")
    );
    assert_eq!(table("a,b,\n1,2,\n3,4,\n").columns(), 2);
    assert!(refused("a,b,c\n1,2,\n3,4,\n").contains("2 of 2 rows lack a value"));
}

#[test]
fn faults_are_named_with_their_place() {
    for (content, expected) in [
        ("1,2\n3\n", "t.csv: line 2: 1 cell, expected 2 as in line 1"),
        ("1,2\n3,x\n", "t.csv: line 2, column 2: 'x', expected a number: correct it, or leave such columns out"),
        ("a,b\nc,d\n", "t.csv: line 2, column 1: 'c' under the name 'a'"),
        ("a,b\n1,2\n3,12%\n", "t.csv: line 3, column 2: '12%' under the name 'b'"),
        ("a,b\n1,True\n3,False\n", "'True' under the name 'b', and text in all 2 rows"),
        ("a,b\nm,s\n1,2\n", "t.csv: line 2, column 1: 'm' under the name 'a', expected"),
        ("1,\"2\n3,4\n", "t.csv: line 1: a quotation mark, expected another one"),
        ("", "t.csv: no row of numbers"),
        ("\n# nothing\n\n", "t.csv: no row of numbers"),
        ("<!DOCTYPE html><html>", "a page of the web (HTML)"),
        ("PK\u{3}\u{4}", "t.csv: byte 0: a zip archive (a workbook of a spreadsheet?)"),
        ("1,2\n\0,4\n", "t.csv: byte 4: a byte of zero"),
    ] {
        let error = refused(content);
        assert!(error.contains(expected), "{content:?}: {error}");
    }
    for (bytes, expected) in [
        (&b"1,2\n\xff"[..], "byte 4: no UTF-8 text"),
        (b"gr\xf6\xdfe,b\n1,2\n", "byte 2: no UTF-8 text, expected UTF-8: save it again (iconv -f latin1"),
        (b"\xff\xfe1\0,\0", "byte 0: text in UTF-16"),
        (b"\x1f\x8b\x08", "a gzip archive"),
        (b"\x93NUMPY", "a NumPy array"),
        (b"PAR1", "a Parquet file"),
    ] {
        let error = read_as(bytes, &Reading::default()).unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
    }
    assert!(Table::new(2, vec![1.0; 5]).unwrap_err().to_string().contains("5 numbers, expected whole rows of 2"));
    let error = Table::new(2, vec![1.0, f64::NAN]).unwrap_err().to_string();
    assert!(error.contains("row 1, column 2: NaN"), "{error}");
    let wide = format!("{}\n", vec!["1"; 64].join(","));
    assert!(refused(&wide).contains("64 columns, expected 1 to 63: choose some with --columns"));
    for (ending, says) in
        [("xlsx", "exports"), ("parquet", "parquet"), ("gz", "unpacked"), ("pkl", "to_csv"), ("", ".csv, .tsv")]
    {
        let error = Table::parse(format!("t.{ending}").as_ref(), b"", &Reading::default());
        if let Err(error) = error {
            assert!(error.to_string().contains(says), "{error}");
        }
    }
}

#[test]
fn other_files_are_read_by_the_columns_of_a_run() {
    let folder = tempfile::tempdir().unwrap();
    let run = table("a,b,c\n1,2,3\n").chosen().clone();
    let open = |text: &str, columns: &crate::data::Columns| {
        let path = folder.path().join("new.csv");
        std::fs::write(&path, text).unwrap();
        Table::open_as(&path, columns, &Reading::default()).map_err(|e| e.to_string())
    };
    let read = open("c,x,b,a\n3,9,2,1\n", &run).unwrap();
    assert_eq!((read.values(), read.names().join("/")), (&[1.0, 2.0, 3.0][..], "a/b/c".to_string()));
    assert_eq!(read.notes(), ["columns that the run does not know are left out: column 2 ('x')"]);
    let read = open("1,2,3\n", &run).unwrap();
    assert_eq!((read.values(), read.notes().len()), (&[1.0, 2.0, 3.0][..], 1));
    assert!(open("a,b\n1,2\n", &run).unwrap_err().contains("no column 'c', expected the run's columns"));
    assert!(open("1,2\n", &run).unwrap_err().contains("2 columns, expected the 3 of the run"));
    // Without names the places count: those of the file that the run was made from, or all.
    let some = read_as(b"1,2,3\n", &columns("3,1")).unwrap().chosen().clone();
    assert_eq!(open("1,2,3\n", &some).unwrap().values(), [3.0, 1.0]);
    assert_eq!(open("3,1\n", &some).unwrap().values(), [3.0, 1.0]);
}
