//! Apache Parquet: the text column alone, row group by row group.

use std::path::PathBuf;

use ::parquet::basic::Type;
use ::parquet::column::reader::{ColumnReader, ColumnReaderImpl};
use ::parquet::data_type::{ByteArray, ByteArrayType};
use ::parquet::file::reader::{FileReader, SerializedFileReader};

use super::DataError;
use super::content::Content;

/// Rows read at a time.
const ROWS: usize = 256;

/// The texts in column `text_key` of a file; rows without a text are passed over.
pub(super) fn documents(
    content: &Content,
    text_key: &str,
) -> Result<impl Iterator<Item = Result<String, DataError>> + Send + use<>, DataError> {
    let mut column = Column::open(content, text_key)?;
    let mut done = false;
    Ok(std::iter::from_fn(move || {
        if done {
            return None;
        }
        let document = column.next().transpose();
        done = matches!(document, None | Some(Err(_)));
        document
    }))
}

struct Column {
    file: SerializedFileReader<Content>,
    path: PathBuf,
    index: usize,
    next_group: usize,
    reader: Option<ColumnReaderImpl<ByteArrayType>>,
    /// Rows read and not yet handed out, the next one last.
    rows: Vec<ByteArray>,
}

impl Column {
    fn open(content: &Content, name: &str) -> Result<Self, DataError> {
        let path = content.path();
        let wrong = |reason: String| DataError::File { path: path.to_owned(), reason };
        let file =
            SerializedFileReader::new(content.clone()).map_err(|e| wrong(format!("not a sound Parquet file: {e}")))?;
        let schema = file.metadata().file_metadata().schema_descr();
        let columns = schema.columns();
        let Some(index) = columns.iter().position(|column| column.path().parts() == [name]) else {
            let names: Vec<String> = columns.iter().map(|column| column.path().string()).collect();
            return Err(wrong(format!("no column {name:?}; there are {}; set text_key", names.join(", "))));
        };
        if columns[index].physical_type() != Type::BYTE_ARRAY || columns[index].max_rep_level() > 0 {
            return Err(wrong(format!("the column {name:?} is not one of texts")));
        }
        Ok(Self { file, path: path.to_owned(), index, next_group: 0, reader: None, rows: Vec::new() })
    }

    fn next(&mut self) -> Result<Option<String>, DataError> {
        let path = self.path.clone();
        let wrong = |reason: String| DataError::File { path: path.clone(), reason };
        loop {
            if let Some(row) = self.rows.pop() {
                let text = std::str::from_utf8(row.data());
                return match text {
                    Ok(text) => Ok(Some(text.to_owned())),
                    Err(e) => Err(wrong(format!("a text in row group {} is not UTF-8: {e}", self.next_group - 1))),
                };
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
            let (mut definition_levels, group) = (Vec::new(), self.next_group - 1);
            let read = reader.read_records(ROWS, Some(&mut definition_levels), None, &mut self.rows);
            let (records, _, _) = read.map_err(|e| wrong(format!("row group {group} cannot be read: {e}")))?;
            if records == 0 {
                self.reader = None;
            }
            self.rows.reverse();
        }
    }
}
