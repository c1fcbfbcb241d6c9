//! GGUF, the format of llama.cpp: one file with metadata, tokenizer and tensors, some of them quantised in blocks.
//!
//! ```text
//! "GGUF", version, number of tensors, number of keys
//! keys and values                (parse)        openelm.* -> geometry (metadata), tokenizer.ggml.* -> tokenizer
//! names, shapes, types, offsets  (parse)        blk.N.* -> CoreNet's names (names)
//! tensors, each aligned
//! ```

mod metadata;
mod names;
mod parse;
mod reader;
mod tokenizer;
mod types;
mod writer;

pub use reader::{from_bytes, read};
pub use writer::{Quantisation, write};

/// The first bytes of every file.
pub(crate) const MAGIC: &[u8; 4] = b"GGUF";
/// Tensors lie on multiples of this unless `general.alignment` says otherwise.
const ALIGNMENT: usize = 32;
