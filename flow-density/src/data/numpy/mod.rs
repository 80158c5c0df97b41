//! NumPy arrays, alone and in archives.

use std::io::{Cursor, Read as _};

use flow_core::files::numpy::{self, Header, Literal, Scalar, member_name, shown, unfold};
use zip::ZipArchive;

use super::fault::{Fault, Read};
use super::raw::{Raw, RawColumn};

/// Bytes that hold the header of any array that is a table.
const HEADER: u64 = 1 << 20;

/// Reads an array `[N, D]`, `[N]` as one column, or a structured array `[N]` with a name for each column.
pub(super) fn array(bytes: &[u8]) -> Read<Raw> {
    let (header, rest) = Header::parse(bytes).map_err(fault)?;
    let (rows, fields) = fields(&header)?;
    let width: usize = fields.iter().map(|field| field.scalar.size()).sum();
    let Some(needed) = rows.checked_mul(width).filter(|&n| n <= isize::MAX as usize) else {
        return Err(Fault::whole(format!("{} bytes of numbers", rest.len()), too_few(&header)));
    };
    if needed != rest.len() {
        return Err(Fault::whole(format!("{} bytes of numbers", rest.len()), too_few(&header)));
    }
    if rows == 0 || fields.is_empty() {
        return Err(Fault::whole(format!("an array of shape {}", shown(&header.shape)), "at least one number"));
    }
    let by_columns = header.fortran && matches!(header.descr, Literal::Text(_));
    let mut start = 0;
    let mut raw = Raw::default();
    for Field { name, scalar } in fields {
        // Fields of a record and columns in C order lie in each row, columns in Fortran order after each other.
        let (first, step) = if by_columns { (start * rows, scalar.size()) } else { (start, width) };
        let read: Vec<(f64, bool)> =
            (0..rows).map(|row| first + row * step).map(|at| scalar.read(&rest[at..at + scalar.size()])).collect();
        let mut column = RawColumn::of_numbers(name, read.iter().map(|(value, _)| *value).collect());
        let rounded = read.iter().enumerate().filter(|(_, (_, exact))| !exact);
        rounded.for_each(|(row, (value, _))| column.rounded.add(row, &value.to_string()));
        raw.columns.push(column);
        start += scalar.size();
    }
    Ok(raw)
}

/// A column of an array.
struct Field {
    name: Option<String>,
    scalar: Scalar,
}

/// The number of rows and the columns that a header declares.
fn fields(header: &Header) -> Read<(usize, Vec<Field>)> {
    /// More than this is no table, and reserving them would be the header's word alone.
    const MOST: usize = 1 << 20;
    let shape = || format!("an array of shape {}", shown(&header.shape));
    match (&header.descr, &header.shape[..]) {
        (Literal::Text(descr), &[rows, columns]) => {
            let scalar = Scalar::of(descr).map_err(fault)?;
            if columns > MOST {
                return Err(Fault::whole(shape(), "rows and columns"));
            }
            Ok((rows, (0..columns).map(|_| Field { name: None, scalar }).collect()))
        }
        (Literal::Text(descr), &[rows]) => {
            Ok((rows, vec![Field { name: None, scalar: Scalar::of(descr).map_err(fault)? }]))
        }
        (Literal::List(parts), &[rows] | &[rows, 1]) => {
            let field = |part: &Literal| match part {
                Literal::List(pair) => match &pair[..] {
                    [Literal::Text(name), Literal::Text(descr)] => {
                        let scalar = Scalar::of(descr)
                            .map_err(fault)
                            .map_err(|fault| fault.within(&format!("field '{name}'")))?;
                        Ok(Field { name: Some(name.clone()), scalar })
                    }
                    _ => Err(Fault::whole("a field that is an array or a record itself", "a number in each field")),
                },
                _ => Err(Fault::whole("not an NPY file", "a name and a type for each field")),
            };
            Ok((rows, parts.iter().map(field).collect::<Read<_>>()?))
        }
        _ => Err(Fault::whole(shape(), "rows and columns: save it with reshape(len(x), -1)")),
    }
}

/// What is wrong with an array that is a table otherwise, and what to do.
fn fault(fault: numpy::Fault) -> Fault {
    let numpy::Fault::Elements { descr } = fault else {
        return Fault::whole(
            format!("not an NPY file ({} at byte {})", fault.found(), fault.offset()),
            fault.expected(),
        );
    };
    let kind = descr.trim_start_matches(['<', '>', '=', '|']).as_bytes().first();
    let expected = match kind {
        Some(b'U' | b'S') => "numbers: these are words",
        Some(b'O') => "numbers: save them with astype('float64')",
        Some(b'c') => "real numbers: save real and imaginary parts as columns",
        Some(b'M' | b'm') => "numbers: save times with astype('float64')",
        Some(b'f' | b'g') => "floats of 2, 4 or 8 bytes: save them with astype('float64')",
        _ => "floats of 2, 4 or 8 bytes, integers or truth values",
    };
    // The file's own text: a line feed in it would end the message.
    Fault::whole(format!("numbers of type '{}'", descr.escape_debug()), expected)
}

fn too_few(header: &Header) -> String {
    format!("as many as a shape of {} and its type need", shown(&header.shape))
}

/// An array of an archive, before it is read.
struct Member {
    index: usize,
    name: String,
    header: Read<Header>,
}

impl Member {
    /// The rows of an array that is a table.
    fn rows(&self) -> Option<usize> {
        self.header.as_ref().ok().and_then(|header| fields(header).ok()).map(|(rows, _)| rows)
    }

    fn is_vector(&self) -> bool {
        self.header.as_ref().is_ok_and(|h| h.shape.len() == 1 && matches!(h.descr, Literal::Text(_)))
    }

    fn shown(&self) -> String {
        let shape = self.header.as_ref().map_or("no table".into(), |header| shown(&header.shape));
        format!("'{}' {shape}", self.name)
    }
}

/// Reads the array of this name, or the only one that is a table; vectors of one length are columns of their names.
pub(super) fn archive(bytes: &[u8], wanted: Option<&str>) -> Read<Raw> {
    let none =
        |e: zip::result::ZipError| Fault::whole(format!("not an NPZ archive ({e})"), "the output of numpy.savez");
    let mut archive = ZipArchive::new(Cursor::new(bytes)).map_err(none)?;
    let members = members(&mut archive)?;
    let listed = || members.iter().map(Member::shown).collect::<Vec<_>>().join(", ");
    let tables: Vec<&Member> = members.iter().filter(|member| member.rows().is_some()).collect();
    if let Some(wanted) = wanted {
        return match members.iter().find(|member| member.name == wanted) {
            Some(member) => read(&mut archive, bytes.len(), member),
            None => Err(Fault::whole(format!("no array '{wanted}'"), format!("one of {}", listed()))),
        };
    }
    match tables[..] {
        [one] => {
            let mut raw = read(&mut archive, bytes.len(), one)?;
            if members.len() > 1 {
                let others: Vec<String> =
                    members.iter().filter(|other| other.index != one.index).map(Member::shown).collect();
                raw.notes.push(format!("array '{}' is read, and left out: {}", one.name, others.join(", ")));
            }
            Ok(raw)
        }
        [] if members.len() == 1 => read(&mut archive, bytes.len(), &members[0]),
        [] => Err(Fault::whole("no array of rows and columns", format!("one among {}", listed()))),
        [first, ..] => {
            let columns = tables.iter().all(|member| member.is_vector() && member.rows() == first.rows());
            if !(columns && tables.len() == members.len()) {
                let expected = format!("one: choose with --array among {}", listed());
                return Err(Fault::whole(format!("{} arrays", members.len()), expected));
            }
            let mut raw = Raw::default();
            for member in tables {
                let column = read(&mut archive, bytes.len(), member)?.columns.into_iter().next();
                let none = || Fault::whole(format!("array '{}' without a column", member.name), "a vector".to_string());
                let column = column.ok_or_else(none)?;
                raw.columns.push(RawColumn { name: Some(member.name.clone()), ..column });
            }
            Ok(raw)
        }
    }
}

/// The arrays of an archive with their headers.
fn members(archive: &mut ZipArchive<Cursor<&[u8]>>) -> Read<Vec<Member>> {
    let mut members = Vec::new();
    for index in 0..archive.len() {
        let broken =
            |name: String, e: String| Fault::whole(format!("member '{name}' cannot be read ({e})"), "an array");
        let member = archive.by_index(index).map_err(|e| broken(index.to_string(), e.to_string()))?;
        let file = member.name().to_string();
        let name = member_name(&file).map_err(|odd| Fault::whole(odd, "names without control characters"))?;
        if name == file {
            continue;
        }
        let name = name.to_string();
        let mut start = Vec::new();
        member.take(HEADER).read_to_end(&mut start).map_err(|e| broken(file, e.to_string()))?;
        members.push(Member { index, name, header: Header::parse(&start).map(|(header, _)| header).map_err(fault) });
    }
    match members.is_empty() {
        true => Err(Fault::whole("an archive without arrays", "the output of numpy.savez")),
        false => Ok(members),
    }
}

/// Reads a member of an archive of `length` bytes.
fn read(archive: &mut ZipArchive<Cursor<&[u8]>>, length: usize, member: &Member) -> Read<Raw> {
    let Member { index, name, .. } = member;
    let broken = |e: String| Fault::whole(format!("array '{name}' cannot be read ({e})"), "a whole archive");
    let member = archive.by_index(*index).map_err(|e| broken(e.to_string()))?;
    let content = unfold(member, length).map_err(|e| broken(e.to_string()))?;
    array(&content).map_err(|fault| fault.within(&format!("array '{name}'")))
}

#[cfg(test)]
mod tests;
