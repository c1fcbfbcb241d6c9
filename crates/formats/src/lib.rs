//! The on-disk formats that OpenELM weights come in, read and written: one module per format.
//!
//! Everything is checked before it is used: names, shapes and dtypes of all tensors against the geometry, lengths and
//! offsets against the file. Weights are mapped, not read; nothing from a file is ever executed.

pub mod adapter;
pub mod atomic;
mod compare;
mod convert;
pub mod corenet;
mod encode;
mod error;
pub mod gguf;
pub mod huggingface;
mod inferred;
mod inspect;
pub mod mlx;
mod open;
mod shards;
mod stored;
mod streamed;
mod tokenizer;

pub use compare::{Comparison, compare};
pub use convert::{Target, convert};
pub use encode::encode;
pub use error::FormatError;
pub use inspect::{Inspection, StoredFile, TokenizerSummary, inspect};
pub use open::open;
pub use stored::{Format, StoredModel};
pub use tokenizer::StoredTokenizer;
