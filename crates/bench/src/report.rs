//! What was measured.

use serde::Serialize;

use crate::limits::{Bound, Limits};

/// All measurements of a benchmark.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Report {
    /// Rounds whose medians the rates are.
    pub rounds: usize,
    /// How keys and values are stored.
    pub cache: String,
    /// The machine's limits for each number of threads.
    pub limits: Vec<Limits>,
    /// One run for each model and number of threads.
    pub runs: Vec<Run>,
}

/// One model on one number of threads.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Run {
    /// Weight format.
    pub weights: String,
    /// Bytes of all weights.
    pub weight_bytes: u64,
    /// Parameters in all.
    pub parameters: u64,
    /// Those of the adapters at work beside them, without what they have on the embedding table.
    pub adapter_parameters: u64,
    /// Number of threads.
    pub threads: usize,
    /// Format of the weights that the peer was given.
    pub peer_weights: Option<String>,
    /// Seconds from opening the file, which is in the system's page cache, to a session that is ready.
    pub load_seconds: f64,
    /// The most memory that this process had at a time, pages of mapped files included; `None` where the system does not say.
    pub peak_memory_bytes: Option<u64>,
    /// The most of it that was found to be this process's own: without pages of files.
    pub private_memory_bytes: Option<u64>,
    /// The rates.
    pub measurements: Vec<Measurement>,
}

/// What a measurement was of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Phase {
    /// All tokens at once, with the logits of the last one.
    Prefill,
    /// Token after token.
    Decode,
    /// Token after token of several sequences together.
    Batch,
}

/// A rate and its limit.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Measurement {
    /// What was measured.
    pub phase: Phase,
    /// Tokens of the prompt, or generated ones.
    pub tokens: usize,
    /// Tokens in the cache before.
    pub cached: usize,
    /// Sequences that are decoded together.
    pub sequences: usize,
    /// The rate, of all sequences: the median of all rounds.
    pub tokens_per_second: f64,
    /// The rate that the machine's limits allow.
    pub limit_tokens_per_second: f64,
    /// What sets the limit.
    pub bound: Bound,
    /// Rate over limit.
    pub share: f64,
    /// Seconds from a new session with the prompt to the logits of the first token; of a prefill.
    pub first_token_seconds: Option<f64>,
    /// The peer's rate.
    pub peer_tokens_per_second: Option<f64>,
    /// Our rate over the peer's.
    pub ratio: Option<f64>,
}
