//! What a run writes down: one JSON object per line.

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use openelm_formats::atomic;
use serde::{Deserialize, Deserializer, Serialize};

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
    /// What there is to tell of an update beside its loss.
    Metrics(MetricsEntry),
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
    #[serde(deserialize_with = "number_or_null")]
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
    /// Mean cross-entropy in nats per token; `null` in the file where it is no finite number.
    #[serde(deserialize_with = "number_or_null")]
    pub validation_loss: f64,
    /// Tokens measured.
    pub validation_tokens: u64,
    /// What else there is to tell of it, by names.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub validation_metrics: BTreeMap<String, f64>,
}

/// JSON has no other word than `null` for what is no finite number.
fn number_or_null<'de, D: Deserializer<'de>>(deserializer: D) -> Result<f64, D::Error> {
    Ok(Option::deserialize(deserializer)?.unwrap_or(f64::NAN))
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

/// What there is to tell of an update beside its loss: means over what it was made from.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct MetricsEntry {
    /// Updates made, this one included.
    pub step: u64,
    /// By their names; what is no finite number is left out.
    pub metrics: BTreeMap<String, f64>,
}

impl Entry {
    /// Updates made at the time.
    pub fn step(&self) -> u64 {
        match self {
            Entry::Step(entry) => entry.step,
            Entry::Validation(entry) => entry.step,
            Entry::Sample(entry) => entry.step,
            Entry::Metrics(entry) => entry.step,
        }
    }
}

/// The file `log.jsonl` of a run.
pub(super) struct Log {
    path: PathBuf,
    file: File,
}

impl Log {
    /// Opens the log of a run that goes on from `step`; gives the numbers of the lines that were no entries as well. These are
    /// removed, and so are later entries: those updates are made again. Of a run that begins anew none is kept.
    pub fn open(path: PathBuf, step: u64) -> io::Result<(Self, Vec<usize>)> {
        let mut broken = Vec::new();
        if path.exists() {
            let kept: Vec<Entry>;
            (kept, broken) = read(&path)?;
            atomic::write_file(&path, |file| {
                for entry in kept.iter().filter(|entry| step > 0 && entry.step() <= step) {
                    serde_json::to_writer(&mut *file, entry)?;
                    file.write_all(b"\n")?;
                }
                Ok(())
            })?;
        }
        let file = OpenOptions::new().create(true).append(true).open(&path)?;
        Ok((Self { path, file }, broken))
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
        Ok(read(&self.path)?.0)
    }
}

/// The entries of the log at `path`, and the numbers of the lines, counted from 1, that are none. A last line that was cut off
/// is not one of these: the update it tells of is made again.
pub(crate) fn read(path: &Path) -> io::Result<(Vec<Entry>, Vec<usize>)> {
    let bytes = std::fs::read(path)?;
    let (mut entries, mut broken) = (Vec::new(), Vec::new());
    for (number, line) in (1..).zip(bytes.split_inclusive(|&byte| byte == b'\n')) {
        match serde_json::from_slice(line) {
            Ok(entry) => entries.push(entry),
            Err(_) if line.ends_with(b"\n") => broken.push(number),
            Err(_) => {}
        }
    }
    Ok((entries, broken))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn validation(step: u64) -> Entry {
        let (corpus, validation_loss) = ("books".to_owned(), 1.0 / step as f64);
        let validation_metrics = BTreeMap::new();
        Entry::Validation(ValidationEntry { step, corpus, validation_loss, validation_tokens: 7, validation_metrics })
    }

    fn append(path: &Path, text: &[u8]) {
        OpenOptions::new().append(true).open(path).unwrap().write_all(text).unwrap();
    }

    #[test]
    fn a_resumed_log_forgets_what_is_done_again_and_tells_of_what_it_cannot_read() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("log.jsonl");
        let (mut log, broken) = Log::open(path.clone(), 0).unwrap();
        assert!(broken.is_empty());
        log.add(&validation(1)).unwrap();
        append(&path, b"a disk's \xff nonsense\n");
        (2..=5).for_each(|step| log.add(&validation(step)).unwrap());
        append(&path, b"{\"step\": 6, \"valid");
        let (mut log, broken) = Log::open(path.clone(), 3).unwrap();
        assert_eq!(broken, [2]);
        log.add(&validation(4)).unwrap();
        assert_eq!(log.entries().unwrap(), [1, 2, 3, 4].map(validation));
        assert!(Log::open(path.clone(), 4).unwrap().1.is_empty(), "told once");
        assert!(
            Log::open(path, 0).unwrap().0.entries().unwrap().is_empty(),
            "a run that begins anew measures its start anew"
        );
    }

    #[test]
    fn a_loss_that_is_no_number_stays_in_the_log() {
        let folder = tempfile::tempdir().unwrap();
        let (mut log, _) = Log::open(folder.path().join("log.jsonl"), 0).unwrap();
        let (corpus, validation_loss) = ("books".to_owned(), f64::INFINITY);
        let Entry::Validation(entry) = validation(1) else { unreachable!() };
        log.add(&Entry::Validation(ValidationEntry { corpus, validation_loss, ..entry })).unwrap();
        log.add(&validation(2)).unwrap();
        let entries = log.entries().unwrap();
        assert!(matches!(&entries[0], Entry::Validation(entry) if entry.validation_loss.is_nan()), "{entries:?}");
        assert_eq!(entries[1], validation(2));
    }
}
