//! What a corpus is made of.

use serde::{Deserialize, Serialize};

use super::DataError;

/// A corpus: files and what to do with their documents.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CorpusConfig {
    /// Where the documents are.
    pub sources: Vec<Source>,
    /// Shortest document in characters, counted as CoreNet counts: in lower case, without ASCII punctuation, white space
    /// run together. 0 keeps all.
    #[serde(default)]
    pub min_characters: usize,
    /// Shortest document in tokens, BOS and EOS included. 0 keeps all.
    #[serde(default)]
    pub min_tokens: usize,
    /// Rows among which the next one is drawn; 0 keeps the order of the files. Each takes 4 bytes per token of memory.
    #[serde(default = "default_shuffle_buffer")]
    pub shuffle_buffer: usize,
    /// Whether a token may attend to the documents before its own in the row.
    #[serde(default)]
    pub packing: Packing,
    /// Whether documents whose text occurred before, to the byte, are left out. Costs a pass over the corpus at the start.
    #[serde(default)]
    pub deduplicate: bool,
    /// What to do with a document or a file that is damaged.
    #[serde(default)]
    pub on_error: OnError,
    /// What to do when a run goes on and a file is not what it was.
    #[serde(default)]
    pub on_change: OnChange,
    /// How long an object store that does not answer is asked again before the run stops with its state saved, in seconds.
    #[serde(default = "default_retry_seconds")]
    pub retry_seconds: u64,
    /// Another project's pipeline in the place of this one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parity: Option<Parity>,
    /// Threads that turn text into token ids ahead of the trainer; the rows do not depend on it.
    #[serde(default = "default_workers")]
    pub workers: usize,
}

impl CorpusConfig {
    /// All documents of `sources`, in packed rows.
    pub fn new(sources: Vec<Source>) -> Self {
        Self {
            sources,
            min_characters: 0,
            min_tokens: 0,
            shuffle_buffer: default_shuffle_buffer(),
            packing: Packing::default(),
            deduplicate: false,
            on_error: OnError::default(),
            on_change: OnChange::default(),
            retry_seconds: default_retry_seconds(),
            parity: None,
            workers: default_workers(),
        }
    }

    /// Rows that the shuffle buffer holds: CoreNet's pipeline has none.
    pub(crate) fn buffered_rows(&self) -> usize {
        if self.parity.is_some() { 0 } else { self.shuffle_buffer }
    }

    /// Whether the sources are mixed by weights.
    ///
    /// # Errors
    /// If only some have a weight, or one is not a positive number.
    pub(super) fn is_weighted(&self) -> Result<bool, DataError> {
        let weights: Vec<f64> = self.sources.iter().filter_map(|source| source.weight).collect();
        let wrong = |reason: String| Err(DataError::Weights { reason });
        if let Some(weight) = weights.iter().find(|&&weight| !(weight > 0.0 && weight.is_finite())) {
            return wrong(format!("a weight is {weight}; it must be a positive number"));
        }
        if self.parity.is_some() && !weights.is_empty() {
            return wrong("CoreNet's pipeline knows no weights; take them out or leave parity away".to_owned());
        }
        match weights.len() {
            0 => Ok(false),
            given if given == self.sources.len() => Ok(true),
            given => wrong(format!("{given} of {} sources have a weight; give all of them one", self.sources.len())),
        }
    }
}

/// How documents share a row.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Packing {
    /// Tokens attend to everything before them in the row.
    #[default]
    Joined,
    /// Tokens attend to their own document only.
    Separate,
}

/// What to do with a document or a file that is damaged.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OnError {
    /// The run stops with its state saved.
    #[default]
    Stop,
    /// A line or a row that is damaged is passed over, or the rest of a file that cannot be read further; both are counted.
    Skip,
}

/// What to do when a run goes on and a file is not what it was.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OnChange {
    /// The run is refused.
    #[default]
    Stop,
    /// It goes on at the same place of the files as they are; there must be as many as before.
    Accept,
}

/// Whose pipeline is followed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Parity {
    /// CoreNet: one row per piece of at most 2048 words, cut or padded; files shuffled as its Python does.
    CoreNet,
}

fn default_workers() -> usize {
    1
}

fn default_retry_seconds() -> u64 {
    180
}

fn default_shuffle_buffer() -> usize {
    1024
}

/// Files of one kind.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Source {
    /// A file, a pattern such as `shards/*.jsonl.zst` or `books/**/*.md`, or a folder, of which all files are read whose names
    /// tell a format; relative to the current folder. With the
    /// feature `object-store` also a URL: `s3://bucket/shards/*.parquet`, `gs://...`, or `https://...` without a pattern. With
    /// `file_id_range` it holds `{file_id}`, or `{file_id:05d}` for five digits.
    pub path: String,
    /// The numbers that stand for `{file_id}`: from the first up to, not including, the second.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub file_id_range: Option<[u64; 2]>,
    /// Share of the tokens that come from here, relative to the other sources' weights; sources without weights are read
    /// as one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub weight: Option<f64>,
    /// Key or column that holds a document's text; `doc.text` is `text` in the object or struct `doc`.
    #[serde(default = "default_text_key")]
    pub text_key: String,
    /// What the files are, where their names do not say it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub format: Option<Format>,
}

impl Source {
    /// The files that match `path`, their format told by their names, their texts under `text`.
    pub fn new(path: impl Into<String>) -> Self {
        Self { path: path.into(), file_id_range: None, weight: None, text_key: default_text_key(), format: None }
    }
}

fn default_text_key() -> String {
    "text".to_owned()
}

/// What a file's documents look like. Each but Parquet may be compressed by gzip or zstd.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Format {
    /// Plain text, cut into documents at blank lines.
    Text,
    /// One JSON object per line.
    Jsonl,
    /// Apache Parquet.
    Parquet,
}
