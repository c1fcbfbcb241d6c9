//! The on-disk formats that OpenELM weights come in, read and written: one module per format.
//!
//! Everything is checked before it is used: names, shapes and dtypes of all tensors against the geometry, lengths and
//! offsets against the file. Weights are mapped, not read; nothing from a file is ever executed.

pub mod adapter;
pub mod atomic;
pub mod bundle;
mod chat;
mod compare;
mod convert;
pub mod corenet;
mod encode;
mod error;
mod fingerprint;
mod finite;
mod fused;
pub mod gguf;
pub mod huggingface;
mod inferred;
mod inspect;
mod lfs;
pub mod mlx;
mod open;
mod parts;
mod perplexity;
mod places;
mod shards;
mod stored;
mod streamed;
mod text;
mod tokenizer;
mod whole;

pub use chat::{chat_template, chat_template_at};
pub use compare::{Comparison, compare};
pub use convert::{Target, convert};
pub use encode::encode;
pub use error::FormatError;
pub use fingerprint::{fingerprint, fingerprint_of_adapter};
pub use inspect::{Inspection, StoredFile, TokenizerSummary, inspect};
pub use lfs::refuse_pointer_at;
pub use open::open;
pub use parts::PartName;
pub use perplexity::{Evaluation, Perplexity, PerplexityError, perplexity};
pub use stored::{Format, StoredModel};
pub use tokenizer::{EmbeddedJson, EmbeddedTokenizer, StoredTokenizer};
pub use whole::check_whole;
