//! The on-disk formats that OpenELM weights come in, read and written: one module per format.
//!
//! Everything is checked before it is used: names, shapes and dtypes of all tensors against the geometry, lengths and
//! offsets against the file. Weights are mapped, not read; nothing from a file is ever executed.

pub mod atomic;
mod cast;
mod error;
pub mod huggingface;

pub use error::FormatError;
