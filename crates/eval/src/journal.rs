//! What is finished: every query that was scored, in memory and, where there is an output folder, in a file there. A run that
//! was interrupted goes on behind the last query in it.

use std::collections::HashMap;
use std::fs::{File, TryLockError};
use std::io::{BufRead, BufReader, BufWriter, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::EvalError;
use crate::metrics::Outcome;
use crate::request::Query;

/// The file's name in the output folder.
const NAME: &str = "requests.jsonl";

type Key = [u8; 16];

/// Finished queries.
#[derive(Default)]
pub struct Journal {
    known: HashMap<Key, Outcome>,
    file: Option<(PathBuf, BufWriter<File>)>,
}

/// The first line of the file.
#[derive(Serialize, Deserialize)]
struct Head {
    model: serde_json::Value,
}

/// A finished query.
#[derive(Serialize, Deserialize)]
struct Line {
    query: String,
    log_likelihood: f64,
    greedy: bool,
}

impl Journal {
    /// The journal in `folder`, of the model that `identity` tells from all others; begins one, and the folder, if there is none.
    ///
    /// # Errors
    /// If it is another model's, if another process writes it, or if it cannot be read or written.
    pub fn open(folder: &Path, identity: &serde_json::Value) -> Result<Self, EvalError> {
        std::fs::create_dir_all(folder).map_err(EvalError::io(folder))?;
        let path = folder.join(NAME);
        let wrong = |reason: &str| EvalError::Results { path: path.clone(), reason: reason.to_owned() };
        let mut file =
            File::options().read(true).append(true).create(true).open(&path).map_err(EvalError::io(&path))?;
        match file.try_lock() {
            Ok(()) => (),
            Err(TryLockError::WouldBlock) => return Err(wrong("another evaluation writes to this folder")),
            Err(TryLockError::Error(e)) => return Err(EvalError::io(&path)(e)),
        }
        let mut known = HashMap::new();
        let mut whole = 0;
        let mut reader = BufReader::new(&file);
        loop {
            let mut line = Vec::new();
            let length = reader.read_until(b'\n', &mut line).map_err(EvalError::io(&path))?;
            if line.last() != Some(&b'\n') {
                break;
            }
            if whole == 0 {
                let head: Head = serde_json::from_slice(&line).map_err(|_| wrong("not a list of finished requests"))?;
                if head.model != *identity {
                    return Err(wrong(
                        "this folder holds results of another model, or of the same with other weights, adapter, \
                        arithmetic or cache; choose another folder",
                    ));
                }
            } else {
                let line: Option<Line> = serde_json::from_slice(&line).ok();
                let Some((key, line)) = line.and_then(|line| Some((parse(&line.query)?, line))) else { break };
                known.insert(key, Outcome { log_likelihood: line.log_likelihood, greedy: line.greedy });
            }
            whole += length as u64;
        }
        // What a process that was killed left half written goes.
        file.set_len(whole).and_then(|()| file.seek(SeekFrom::End(0))).map_err(EvalError::io(&path))?;
        let mut file = BufWriter::new(file);
        if whole == 0 {
            let head = Head { model: identity.clone() };
            serde_json::to_writer(&mut file, &head).map_err(|e| EvalError::io(&path)(e.into()))?;
            file.write_all(b"\n").and_then(|()| file.flush()).map_err(EvalError::io(&path))?;
        }
        Ok(Self { known, file: Some((path, file)) })
    }

    /// Number of queries known.
    pub fn len(&self) -> usize {
        self.known.len()
    }

    /// Whether nothing is known yet.
    pub fn is_empty(&self) -> bool {
        self.known.is_empty()
    }

    /// What is known of `query`.
    pub fn get(&self, query: &Query) -> Option<Outcome> {
        self.known.get(&key(query)).copied()
    }

    /// Keeps what is known of `query` now.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn insert(&mut self, query: &Query, outcome: Outcome) -> Result<(), EvalError> {
        let key = key(query);
        self.known.insert(key, outcome);
        let Some((path, file)) = &mut self.file else { return Ok(()) };
        let Outcome { log_likelihood, greedy } = outcome;
        let line = Line { query: format!("{:032x}", u128::from_be_bytes(key)), log_likelihood, greedy };
        serde_json::to_writer(&mut *file, &line).map_err(|e| EvalError::io(path)(e.into()))?;
        file.write_all(b"\n").map_err(EvalError::io(path))
    }

    /// Hands what was kept to the system, so that it outlives the process.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn flush(&mut self) -> Result<(), EvalError> {
        match &mut self.file {
            Some((path, file)) => file.flush().map_err(EvalError::io(path)),
            None => Ok(()),
        }
    }
}

/// What tells a query from all others.
fn key(query: &Query) -> Key {
    let mut hasher = Sha256::new();
    hasher.update((query.scored as u64).to_le_bytes());
    query.tokens.iter().for_each(|token| hasher.update(token.to_le_bytes()));
    let mut key = [0; 16];
    key.copy_from_slice(&hasher.finalize()[..16]);
    key
}

fn parse(text: &str) -> Option<Key> {
    Some(u128::from_str_radix(text, 16).ok()?.to_be_bytes())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn query(token: u32) -> Query {
        Query { tokens: vec![1, token], scored: 1 }
    }

    #[test]
    fn what_is_finished_outlives_the_process_to_the_bit() {
        let folder = tempfile::tempdir().unwrap();
        let outcome = |x: f64| Outcome { log_likelihood: -x.sqrt() / 3.0, greedy: x > 4.0 };
        let mut journal = Journal::open(folder.path(), &json!({"sha256": "a"})).unwrap();
        for token in 2..9 {
            journal.insert(&query(token), outcome(f64::from(token))).unwrap();
        }
        assert!(Journal::open(folder.path(), &json!({"sha256": "a"})).is_err(), "somebody writes it");
        drop(journal);
        // As a process that is killed leaves it.
        let path = folder.path().join(NAME);
        let text = std::fs::read(&path).unwrap();
        std::fs::write(&path, &text[..text.len() - 20]).unwrap();
        let journal = Journal::open(folder.path(), &json!({"sha256": "a"})).unwrap();
        assert_eq!((journal.len(), journal.get(&query(8))), (6, None));
        assert_eq!(journal.get(&query(7)), Some(outcome(7.0)));
        drop(journal);
        let error = Journal::open(folder.path(), &json!({"sha256": "b"})).err().unwrap().to_string();
        assert!(error.contains("another model"), "{error}");
    }
}
