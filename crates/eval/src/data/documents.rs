//! The documents of a split, one line of JSON each.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde_json::Value;

use super::read::read;
use crate::EvalError;
use crate::python::random::Random;

/// The documents of a split. They are kept as text and parsed when they are asked for.
#[derive(Debug)]
pub struct Documents {
    path: PathBuf,
    rows: Vec<Row>,
    /// Each file with its SHA-256.
    files: Vec<(PathBuf, String)>,
}

#[derive(Debug)]
struct Row {
    /// Its place in the file.
    place: usize,
    line: Box<str>,
}

impl Documents {
    /// Reads `files`, which are one after the other, and keeps the documents whose fields are as `condition` says.
    ///
    /// # Errors
    /// If a file cannot be read, a line is no JSON object, or no document is left.
    pub(super) fn open(files: Vec<PathBuf>, condition: &BTreeMap<String, String>) -> Result<Self, EvalError> {
        let (mut rows, mut hashes, mut place) = (Vec::new(), Vec::new(), 0);
        for file in &files {
            let hash = read(file, &mut |line| {
                let wrong = |reason: String| EvalError::Document { path: file.clone(), row: place, reason };
                let document: Value = serde_json::from_str(&line).map_err(|e| wrong(format!("no JSON: {e}")))?;
                let fields = document.as_object().ok_or_else(|| wrong("no JSON object".to_owned()))?;
                if condition.iter().all(|(key, value)| fields.get(key).is_none_or(|field| field == value.as_str())) {
                    rows.push(Row { place, line: line.into() });
                }
                place += 1;
                Ok(())
            })?;
            hashes.push((file.clone(), hash));
        }
        let path = files.into_iter().next().unwrap_or_default();
        if rows.is_empty() {
            let reason = match place {
                0 => "there are no documents in it".to_owned(),
                _ => format!("none of its {place} documents has {condition:?}"),
            };
            return Err(EvalError::Data { path, reason });
        }
        Ok(Self { path, rows, files: hashes })
    }

    /// The file, or the first one.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Each file with its SHA-256.
    pub fn files(&self) -> &[(PathBuf, String)] {
        &self.files
    }

    /// Number of documents.
    pub fn len(&self) -> usize {
        self.rows.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// The document `index`, with its place in the file.
    ///
    /// # Panics
    /// If there are not so many.
    pub fn get(&self, index: usize) -> (usize, Value) {
        let Row { place, line } = &self.rows[index];
        // It was parsed when it was read.
        (*place, serde_json::from_str(line).unwrap_or_default())
    }

    /// Bytes of the document `index`, as a measure of the work it makes.
    pub fn size(&self, index: usize) -> usize {
        self.rows[index].line.len()
    }

    /// Puts them into the order that `random.seed(seed)` and `random.shuffle` give.
    pub fn shuffle(&mut self, seed: u32) {
        Random::new(seed).shuffle(&mut self.rows);
    }

    /// Keeps the first `limit`.
    pub fn limit(&mut self, limit: usize) {
        self.rows.truncate(limit);
    }
}
