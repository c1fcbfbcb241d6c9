//! Apache Parquet: rows as JSON.

use std::fs::File;
use std::path::Path;

use ::parquet::file::reader::{FileReader, SerializedFileReader};
use ::parquet::record::{Field, Row};
use serde_json::{Map, Value};

use crate::EvalError;

/// Hands each row of the file at `path` to `sink` as a line of JSON.
pub(super) fn rows(path: &Path, sink: &mut dyn FnMut(&str) -> Result<(), EvalError>) -> Result<(), EvalError> {
    let wrong = |reason: String| EvalError::Data { path: path.to_owned(), reason };
    let file = File::open(path).map_err(EvalError::io(path))?;
    let reader = SerializedFileReader::new(file).map_err(|e| wrong(format!("not a sound Parquet file: {e}")))?;
    let rows = reader.get_row_iter(None).map_err(|e| wrong(format!("its rows cannot be read: {e}")))?;
    for row in rows {
        let row = row.map_err(|e| wrong(format!("its rows cannot be read: {e}")))?;
        sink(&object(&row).to_string())?;
    }
    Ok(())
}

fn object(row: &Row) -> Value {
    Value::Object(row.get_column_iter().map(|(name, field)| (name.clone(), value(field))).collect::<Map<_, _>>())
}

fn value(field: &Field) -> Value {
    match field {
        Field::Null => Value::Null,
        Field::Bool(x) => (*x).into(),
        Field::Byte(x) => (*x).into(),
        Field::Short(x) => (*x).into(),
        Field::Int(x) => (*x).into(),
        Field::Long(x) => (*x).into(),
        Field::UByte(x) => (*x).into(),
        Field::UShort(x) => (*x).into(),
        Field::UInt(x) => (*x).into(),
        Field::ULong(x) => (*x).into(),
        Field::Float16(x) => f32::from(*x).into(),
        Field::Float(x) => (*x).into(),
        Field::Double(x) => (*x).into(),
        Field::Str(text) => text.as_str().into(),
        Field::Group(row) => object(row),
        Field::ListInternal(list) => list.elements().iter().map(value).collect(),
        other => other.to_string().into(),
    }
}
