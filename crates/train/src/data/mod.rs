//! From shards to batches.
//!
//! ```text
//! reader:  files (shuffled per epoch) -> documents, without duplicates
//! workers: filters -> token ids
//! stream:  mix of the sources -> rows of T + 1 -> shuffle buffer -> batches
//! ```
//!
//! Everything is streamed: memory does not grow with the corpus. The position is exact to the row, so that a resumed run
//! sees what an undisturbed one would have seen.

mod batch;
mod config;
mod content;
mod corenet;
mod duplicates;
mod encoder;
mod error;
mod filter;
mod folder;
mod json;
mod jsonl;
mod lines;
#[cfg(feature = "parquet")]
mod parquet;
mod pipeline;
mod reader;
mod records;
mod shards;
#[cfg(feature = "object-store")]
mod store;
mod stream;
#[cfg(test)]
mod tests;
mod text;
mod unpack;

pub use batch::{Batch, Row};
pub use config::{CorpusConfig, Format, OnChange, OnError, Packing, Parity, Source};
pub use encoder::{Counts, Encode};
pub use error::DataError;
pub use reader::documents;
pub(crate) use records::Record;
pub use shards::Shards;
pub use stream::{RowStream, StreamState};
