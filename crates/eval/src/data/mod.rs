//! Documents: found in a folder or on the hub, read from JSONL, JSON or Parquet, compressed or not.

mod documents;
mod find;
#[cfg(feature = "parquet")]
mod parquet;
mod read;

pub use documents::Documents;
pub use find::{HubFiles, OnHub, Sources};
