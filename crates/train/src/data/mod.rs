//! From shards to batches.

mod batch;

pub use batch::Batch;
