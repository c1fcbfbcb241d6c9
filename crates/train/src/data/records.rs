//! Rows of files as objects with fields: JSONL, a JSON list of objects, or Parquet.

use std::fmt;
use std::io::BufRead;
use std::path::{Path, PathBuf};

use serde::de::{DeserializeSeed, Error, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::{Map, Value};

use super::content::Content;
use super::lines::Lines;
use super::unpack::unpacked;
use super::{DataError, Format};

/// A row of a file.
#[derive(Debug)]
pub(crate) struct Record {
    /// What it holds.
    pub fields: Map<String, Value>,
    path: PathBuf,
    /// Counted from 1; of a list or a table the row, otherwise the line.
    number: u64,
    is_line: bool,
}

impl Record {
    /// An error in this row.
    pub fn wrong(&self, reason: impl Into<String>) -> DataError {
        wrong(&self.path, self.number, self.is_line, reason.into())
    }
}

fn wrong(path: &Path, number: u64, is_line: bool, reason: String) -> DataError {
    let path = path.to_owned();
    match is_line {
        true => DataError::Line { path, line: number, reason },
        false => DataError::Row { path, row: number, reason },
    }
}

/// Calls `visit` with each row of a file, in order.
///
/// # Errors
/// If a row is no object or the file cannot be read, with the place; and what `visit` reports.
pub(super) fn visit<E: From<DataError>>(
    content: &Content,
    format: Format,
    visit: &mut dyn FnMut(Record) -> Result<(), E>,
) -> Result<(), E> {
    let path = content.path();
    match format {
        Format::Text => {
            let reason = "rows are read from JSONL, JSON lists and Parquet, not from plain text".to_owned();
            Err(DataError::File { path: path.to_owned(), reason }.into())
        }
        #[cfg(feature = "parquet")]
        Format::Parquet => super::parquet::rows(content, &mut |fields, number| {
            visit(Record { fields, path: path.to_owned(), number, is_line: false })
        }),
        #[cfg(not(feature = "parquet"))]
        Format::Parquet => {
            let reason = "this build reads no Parquet; build with the feature \"parquet\"".to_owned();
            Err(DataError::File { path: path.to_owned(), reason }.into())
        }
        Format::Jsonl if begins_as_list(content)? => list(content, visit),
        Format::Jsonl => lines(content, visit),
    }
}

/// Whether the first character that is no white space opens a list.
fn begins_as_list(content: &Content) -> Result<bool, DataError> {
    let mut reader = unpacked(content)?;
    let wrong = |e: std::io::Error| DataError::File { path: content.path().to_owned(), reason: e.to_string() };
    let mark = b"\xef\xbb\xbf";
    loop {
        let bytes = reader.fill_buf().map_err(wrong)?;
        let first = bytes.iter().position(|byte| !byte.is_ascii_whitespace() && !mark.contains(byte));
        match first {
            Some(first) => return Ok(bytes[first] == b'['),
            None if bytes.is_empty() => return Ok(false),
            None => {
                let length = bytes.len();
                reader.consume(length);
            }
        }
    }
}

fn lines<E: From<DataError>>(content: &Content, visit: &mut dyn FnMut(Record) -> Result<(), E>) -> Result<(), E> {
    let mut lines = Lines::open(content)?;
    let mut number = 0;
    while let Some(line) = lines.next()? {
        number += 1;
        let line = line.trim_start_matches('\u{feff}').trim();
        if line.is_empty() {
            continue;
        }
        let fields = serde_json::from_str(line).map_err(|e| lines.wrong(format!("not a JSON object: {e}")))?;
        visit(Record { fields, path: content.path().to_owned(), number, is_line: true })?;
    }
    Ok(())
}

fn list<E: From<DataError>>(content: &Content, visit: &mut dyn FnMut(Record) -> Result<(), E>) -> Result<(), E> {
    let mut reader = unpacked(content)?;
    let path = content.path();
    let broken = |reason: String| DataError::File { path: path.to_owned(), reason };
    if reader.fill_buf().map_err(|e| broken(e.to_string()))?.starts_with(b"\xef\xbb\xbf") {
        reader.consume(3);
    }
    let mut refused = None;
    let mut deserializer = serde_json::Deserializer::from_reader(reader);
    let rows = Rows { visit, path, refused: &mut refused };
    let read = rows.deserialize(&mut deserializer).and_then(|()| deserializer.end());
    match (refused, read) {
        (Some(e), _) => Err(e),
        (None, Err(e)) => Err(broken(format!("not a JSON list of objects: {e}")).into()),
        (None, Ok(())) => Ok(()),
    }
}

/// A list of objects, each handed out before the next is read.
struct Rows<'v, E> {
    visit: &'v mut dyn FnMut(Record) -> Result<(), E>,
    path: &'v Path,
    /// What the visitor reported: the reader of JSON hands no errors but its own through.
    refused: &'v mut Option<E>,
}

impl<'de, E> DeserializeSeed<'de> for Rows<'_, E> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_seq(self)
    }
}

impl<'de, E> Visitor<'de> for Rows<'_, E> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list of objects")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut rows: A) -> Result<(), A::Error> {
        let mut number = 0;
        while let Some(Object(fields)) = rows.next_element()? {
            number += 1;
            if let Err(e) = (self.visit)(Record { fields, path: self.path.to_owned(), number, is_line: false }) {
                *self.refused = Some(e);
                return Err(A::Error::custom("refused"));
            }
        }
        Ok(())
    }
}

#[derive(Deserialize)]
struct Object(Map<String, Value>);
