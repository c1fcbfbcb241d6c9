//! From shards to batches.
//!
//! ```text
//! files (shuffled per epoch) -> documents -> filters -> token ids -> rows of T + 1 -> shuffle buffer -> batches
//! ```
//!
//! Everything is streamed: memory does not grow with the corpus. The position is exact to the row, so that a resumed run
//! sees what an undisturbed one would have seen.

mod batch;
mod config;
mod error;
mod filter;
mod jsonl;
mod lines;
#[cfg(feature = "parquet")]
mod parquet;
mod shards;
mod stream;
#[cfg(test)]
mod tests;
mod text;

pub use batch::Batch;
pub use config::{CorpusConfig, Format, Source};
pub use error::DataError;
pub use shards::{Shards, documents};
pub use stream::{Counts, RowStream, StreamState};
