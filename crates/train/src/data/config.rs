//! What a corpus is made of.

use serde::{Deserialize, Serialize};

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
}

fn default_shuffle_buffer() -> usize {
    1024
}

/// Files of one kind.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Source {
    /// A file or a pattern such as `shards/*.jsonl.zst` or `books/**/*.md`; relative to the current folder.
    pub path: String,
    /// Key or column that holds a document's text.
    #[serde(default = "default_text_key")]
    pub text_key: String,
    /// What the files are, where their names do not say it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub format: Option<Format>,
}

fn default_text_key() -> String {
    "text".to_owned()
}

/// What a file's documents look like. Each but Parquet may be compressed, with `.gz` or `.zst` at the end of its name.
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
