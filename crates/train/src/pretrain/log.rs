//! What a run writes down: one JSON object per line.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use openelm_formats::atomic;
use serde::{Deserialize, Serialize};

/// One line of the log.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Entry {
    /// An update.
    Step(StepEntry),
    /// A measurement on a validation corpus.
    Validation(ValidationEntry),
    /// A text that the model wrote.
    Sample(SampleEntry),
}

/// An update.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct StepEntry {
    /// Updates made, this one included.
    pub step: u64,
    /// Tokens learnt from so far.
    pub tokens: u64,
    /// Times the corpus was read to its end.
    pub epoch: u64,
    /// Cross-entropy of this update's tokens before the update, in nats per token.
    pub loss: f64,
    /// Learning rate of the update.
    pub lr: f64,
    /// Global norm of the gradients before clipping.
    pub gradient_norm: f64,
    /// Rate since the entry before.
    pub tokens_per_second: f64,
}

/// A measurement on a validation corpus.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ValidationEntry {
    /// Updates made.
    pub step: u64,
    /// Name of the corpus.
    #[serde(default = "only_corpus")]
    pub corpus: String,
    /// Mean cross-entropy in nats per token.
    pub validation_loss: f64,
    /// Tokens measured.
    pub validation_tokens: u64,
}

/// What a log without names means.
fn only_corpus() -> String {
    "validation".to_owned()
}

/// A text that the model wrote.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SampleEntry {
    /// Updates made.
    pub step: u64,
    /// What the text begins with.
    pub prompt: String,
    /// What the model wrote behind it.
    pub text: String,
}

impl Entry {
    /// Updates made at the time.
    pub fn step(&self) -> u64 {
        match self {
            Entry::Step(entry) => entry.step,
            Entry::Validation(entry) => entry.step,
            Entry::Sample(entry) => entry.step,
        }
    }
}

/// The file `log.jsonl` of a run.
pub(super) struct Log {
    path: PathBuf,
    file: File,
}

impl Log {
    /// Opens the log of a run that goes on from `step`. Later entries are removed: those updates are made again.
    pub fn open(path: PathBuf, step: u64) -> io::Result<Self> {
        if path.exists() {
            // The last line may be cut off; it is then of an update that is made again.
            let kept: Vec<Entry> = read(&path)?.into_iter().filter(|entry| entry.step() <= step).collect();
            atomic::write_file(&path, |file| {
                for entry in &kept {
                    serde_json::to_writer(&mut *file, entry)?;
                    file.write_all(b"\n")?;
                }
                Ok(())
            })?;
        }
        let file = OpenOptions::new().create(true).append(true).open(&path)?;
        Ok(Self { path, file })
    }

    /// Adds a line.
    pub fn add(&mut self, entry: &Entry) -> io::Result<()> {
        let mut line = serde_json::to_vec(entry)?;
        line.push(b'\n');
        self.file.write_all(&line)
    }

    /// Waits until everything added is on the disk.
    pub fn sync(&self) -> io::Result<()> {
        self.file.sync_data()
    }

    /// All entries so far.
    pub fn entries(&self) -> io::Result<Vec<Entry>> {
        read(&self.path)
    }
}

/// The entries of the log at `path`, up to the first line that is none.
pub(crate) fn read(path: &Path) -> io::Result<Vec<Entry>> {
    let bytes = std::fs::read(path)?;
    Ok(String::from_utf8_lossy(&bytes).lines().map_while(|line| serde_json::from_str(line).ok()).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_resumed_log_forgets_what_is_done_again() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("log.jsonl");
        let entry = |step| {
            let (corpus, validation_loss) = ("books".to_owned(), 1.0 / step as f64);
            Entry::Validation(ValidationEntry { step, corpus, validation_loss, validation_tokens: 7 })
        };
        let mut log = Log::open(path.clone(), 0).unwrap();
        for step in 1..=5 {
            log.add(&entry(step)).unwrap();
        }
        std::fs::OpenOptions::new().append(true).open(&path).unwrap().write_all(b"{\"step\": 6, \"valid").unwrap();
        let mut log = Log::open(path, 3).unwrap();
        log.add(&entry(4)).unwrap();
        assert_eq!(log.entries().unwrap(), [1, 2, 3, 4].map(entry));
    }
}
