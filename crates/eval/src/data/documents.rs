//! The documents of a split, one line of JSON each.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufWriter, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use serde_json::Value;

use super::read::read;
use crate::EvalError;
use crate::python::random::Random;

/// The documents of a split. In memory are their places alone: the lines are in a temporary file, whatever they were read from, and
/// are parsed when they are asked for.
#[derive(Debug)]
pub struct Documents {
    path: PathBuf,
    rows: Vec<Row>,
    /// The lines of the rows. The file has no name and goes with this.
    lines: File,
    /// Each file with its SHA-256.
    files: Vec<(PathBuf, String)>,
}

#[derive(Debug, Clone, Copy)]
struct Row {
    /// Its place in the file it was read from.
    place: usize,
    /// Where its line begins.
    begin: u64,
    /// Bytes of its line.
    length: usize,
}

impl Documents {
    /// Reads `files`, which are one after the other, and keeps the documents whose fields are as `condition` says.
    ///
    /// # Errors
    /// If a file cannot be read, a line is no JSON object, no document is left, or there is no room for a copy.
    pub(super) fn open(files: Vec<PathBuf>, condition: &BTreeMap<String, String>) -> Result<Self, EvalError> {
        let (mut rows, mut hashes, mut place, mut begin) = (Vec::new(), Vec::new(), 0, 0);
        let mut lines = BufWriter::new(tempfile::tempfile().map_err(EvalError::io(&std::env::temp_dir()))?);
        for file in &files {
            let hash = read(file, &mut |line| {
                let wrong = |reason: String| EvalError::Document { path: file.clone(), row: place, reason };
                let document: Value = serde_json::from_str(line).map_err(|e| wrong(format!("no JSON: {e}")))?;
                let fields = document.as_object().ok_or_else(|| wrong("no JSON object".to_owned()))?;
                if condition.iter().all(|(key, value)| fields.get(key).is_none_or(|field| field == value.as_str())) {
                    lines.write_all(line.as_bytes()).map_err(EvalError::io(&std::env::temp_dir()))?;
                    rows.push(Row { place, begin, length: line.len() });
                    begin += line.len() as u64;
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
        let lines = lines.into_inner().map_err(|e| EvalError::io(&std::env::temp_dir())(e.into_error()))?;
        Ok(Self { path, rows, lines, files: hashes })
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
    /// # Errors
    /// If the copy of it cannot be read.
    ///
    /// # Panics
    /// If there are not so many.
    pub fn get(&self, index: usize) -> Result<(usize, Value), EvalError> {
        let Row { place, begin, length } = self.rows[index];
        let mut line = vec![0; length];
        let mut lines = &self.lines;
        lines
            .seek(SeekFrom::Start(begin))
            .and_then(|_| lines.read_exact(&mut line))
            .map_err(EvalError::io(&std::env::temp_dir()))?;
        let wrong = |e: serde_json::Error| EvalError::Document {
            path: self.path.clone(),
            row: place,
            reason: format!("its copy among the temporary files was changed: {e}"),
        };
        Ok((place, serde_json::from_slice(&line).map_err(wrong)?))
    }

    /// Bytes of the document `index`, as a measure of the work it makes.
    pub fn size(&self, index: usize) -> usize {
        self.rows[index].length
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

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn open(name: &str, text: &str, condition: &[(&str, &str)]) -> Result<Documents, EvalError> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(name);
        std::fs::write(&path, text).unwrap();
        let condition = condition.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
        Documents::open(vec![path], &condition)
    }

    #[test]
    fn documents_outlive_their_file_in_the_order_asked_for() {
        let rows: Vec<Value> =
            (0..9).map(|i| json!({"of": if i % 2 == 0 { "a" } else { "b" }, "text": "ü".repeat(i), "i": i})).collect();
        let lines: String = rows.iter().map(|row| format!("{row}\n")).collect();
        let array = serde_json::to_string_pretty(&rows).unwrap();
        for (name, text) in [("a.jsonl", format!("\u{feff}{lines}")), ("a.json", format!("\u{feff}{array}\n"))] {
            let mut documents = open(name, &text, &[("of", "b")]).unwrap();
            let all = |documents: &Documents| -> Vec<(usize, Value)> {
                (0..documents.len()).map(|index| documents.get(index).unwrap()).collect()
            };
            let expected: Vec<(usize, Value)> = [1, 3, 5, 7].map(|i| (i, rows[i].clone())).into();
            assert_eq!(all(&documents), expected, "{name}");
            documents.shuffle(3);
            let mut shuffled = all(&documents);
            assert_ne!(shuffled, expected, "{name}");
            shuffled.sort_by_key(|(place, _)| *place);
            assert_eq!(shuffled, expected, "{name}");
            documents.limit(2);
            assert_eq!(documents.len(), 2);
        }
    }

    #[test]
    fn an_array_that_is_cut_off_or_holds_something_else_is_refused() {
        for (text, expected) in [
            (r#"[{"i": 0}, {"i": "#, "no JSON array"),
            (r#"{"i": 0}"#, "no JSON array"),
            (r#"[{"i": 0}] 1"#, "no JSON array"),
            (r#"[{"i": 0}, 1]"#, "document 2: no JSON object"),
            ("[]", "there are no documents in it"),
        ] {
            let error = open("a.json", text, &[]).unwrap_err().to_string();
            assert!(error.contains(expected), "{text}: {error}");
        }
    }
}
