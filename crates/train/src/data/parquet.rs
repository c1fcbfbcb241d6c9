//! Apache Parquet: the text column alone, row group by row group; or whole rows.

use std::path::PathBuf;

use ::parquet::basic::Type;
use ::parquet::column::reader::{ColumnReader, ColumnReaderImpl};
use ::parquet::data_type::{ByteArray, ByteArrayType};
use ::parquet::file::reader::{FileReader, SerializedFileReader};
use ::parquet::record::{Field, Row};
use ::parquet::schema::types::{ColumnDescriptor, SchemaDescriptor};

use serde_json::{Map, Value};

use super::DataError;
use super::content::{Content, Found};

/// Rows read at a time.
const ROWS: usize = 256;
/// Names of columns that a message lists, at most.
const NAMES: usize = 12;

/// The texts in column `text_key` of a file; of a column in a struct the key is `struct.column`. A row that is damaged does not end
/// them.
pub(super) fn documents(
    content: &Content,
    text_key: &str,
) -> Result<impl Iterator<Item = Found> + Send + use<>, DataError> {
    let mut column = Column::open(content, text_key)?;
    let mut done = false;
    Ok(std::iter::from_fn(move || {
        if done {
            return None;
        }
        let document = column.next().transpose();
        done = document.as_ref().is_none_or(|document| document.as_ref().is_err_and(|e| !e.is_one()));
        document
    }))
}

struct Column {
    file: SerializedFileReader<Content>,
    path: PathBuf,
    index: usize,
    /// The level of definition at which a row has a text.
    defined: i16,
    next_group: usize,
    reader: Option<ColumnReaderImpl<ByteArrayType>>,
    /// Rows read and not yet handed out, the next one last.
    rows: Vec<Option<ByteArray>>,
    /// Rows handed out.
    row: u64,
}

impl Column {
    fn open(content: &Content, name: &str) -> Result<Self, DataError> {
        let path = content.path();
        let wrong = |reason: String| DataError::File { path: path.to_owned(), reason };
        let file =
            SerializedFileReader::new(content.clone()).map_err(|e| wrong(format!("not a sound Parquet file: {e}")))?;
        let schema = file.metadata().file_metadata().schema_descr();
        let index = find(schema, name).map_err(wrong)?;
        let defined = schema.column(index).max_def_level();
        let path = path.to_owned();
        Ok(Self { file, path, index, defined, next_group: 0, reader: None, rows: Vec::new(), row: 0 })
    }

    fn next(&mut self) -> Result<Option<Option<String>>, DataError> {
        let path = self.path.clone();
        let wrong = |reason: String| DataError::File { path: path.clone(), reason };
        loop {
            if let Some(row) = self.rows.pop() {
                self.row += 1;
                let Some(bytes) = row else { return Ok(Some(None)) };
                let text = std::str::from_utf8(bytes.data());
                let text =
                    text.map_err(|e| DataError::Row { path, row: self.row, reason: format!("not UTF-8: {e}") })?;
                return Ok(Some(Some(text.to_owned())));
            }
            let Some(reader) = &mut self.reader else {
                if self.next_group == self.file.num_row_groups() {
                    return Ok(None);
                }
                let group = self.file.get_row_group(self.next_group);
                self.next_group += 1;
                match group.and_then(|group| group.get_column_reader(self.index)) {
                    Ok(ColumnReader::ByteArrayColumnReader(reader)) => self.reader = Some(reader),
                    Ok(_) => return Err(wrong("the text column changes its type".to_owned())),
                    Err(e) => return Err(wrong(format!("row group {} cannot be read: {e}", self.next_group - 1))),
                }
                continue;
            };
            let (mut levels, mut texts, group) = (Vec::new(), Vec::new(), self.next_group - 1);
            let read = reader.read_records(ROWS, Some(&mut levels), None, &mut texts);
            let (records, _, _) = read.map_err(|e| wrong(format!("row group {group} cannot be read: {e}")))?;
            if records == 0 {
                self.reader = None;
            }
            let mut texts = texts.into_iter();
            match self.defined {
                // Every row has a text, and none a level.
                0 => self.rows.extend(texts.map(Some)),
                defined => {
                    let row = |&level: &i16| if level == defined { texts.next() } else { None };
                    self.rows.extend(levels.iter().map(row));
                }
            }
            self.rows.reverse();
        }
    }
}

/// Calls `visit` with the fields and the number of each row of a file, in order.
pub(super) fn rows<E: From<DataError>>(
    content: &Content,
    visit: &mut dyn FnMut(Map<String, Value>, u64) -> Result<(), E>,
) -> Result<(), E> {
    let path = content.path();
    let wrong = |e| DataError::File { path: path.to_owned(), reason: format!("not a sound Parquet file: {e}") };
    let file = SerializedFileReader::new(content.clone()).map_err(wrong)?;
    for (row, number) in file.get_row_iter(None).map_err(wrong)?.zip(1..) {
        visit(object(&row.map_err(wrong)?), number)?;
    }
    Ok(())
}

fn object(row: &Row) -> Map<String, Value> {
    row.get_column_iter().map(|(name, field)| (name.clone(), value(field))).collect()
}

/// Texts, numbers, lists and structs; other kinds of values are none that an example could be made of.
fn value(field: &Field) -> Value {
    match field {
        Field::Str(text) => text.as_str().into(),
        Field::Bytes(bytes) => std::str::from_utf8(bytes.data()).map_or(Value::Null, Value::from),
        Field::Bool(value) => (*value).into(),
        Field::Int(value) => (*value).into(),
        Field::Long(value) => (*value).into(),
        Field::Double(value) => (*value).into(),
        Field::Float(value) => f64::from(*value).into(),
        Field::Group(row) => object(row).into(),
        Field::ListInternal(list) => list.elements().iter().map(value).collect(),
        _ => Value::Null,
    }
}

/// The column of texts called `name`, or why there is none.
fn find(schema: &SchemaDescriptor, name: &str) -> Result<usize, String> {
    let columns = schema.columns();
    let called = |column: &ColumnDescriptor| column.path().string();
    let is_text = |column: &ColumnDescriptor| column.physical_type() == Type::BYTE_ARRAY && column.max_rep_level() == 0;
    if let Some(index) = columns.iter().position(|column| called(column) == name) {
        return match is_text(&columns[index]) {
            true => Ok(index),
            false => Err(format!("the column {name:?} is not one of texts")),
        };
    }
    let inside = format!("{name}.");
    let inside = || columns.iter().filter(|column| called(column).starts_with(&inside));
    if inside().any(|column| column.max_rep_level() > 0) && !inside().any(|column| is_text(column)) {
        return Err(format!("the column {name:?} holds lists; a document is one text in each row"));
    }
    let what = if inside().next().is_some() { format!("{name:?} is a struct") } else { format!("no column {name:?}") };
    let mut names: Vec<String> = columns.iter().filter(|column| is_text(column)).map(|column| called(column)).collect();
    if names.is_empty() {
        names = columns.iter().map(|column| called(column)).collect();
    }
    names.truncate(NAMES);
    Err(format!("{what}; there are {}; set text_key", names.join(", ")))
}
