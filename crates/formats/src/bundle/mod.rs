//! Bundles: a model as a device maps it. A folder with
//!
//! ```text
//! bundle.json     the manifest: geometry, where each tensor lies, every file with its length and SHA-256, what to expect
//! weights.bin     a page that says whose weights they are; then the tensors in the order in which a token meets them:
//!                 quantised matrices in panels, as the kernels read them, vectors in f32
//! tokenizer.model, tokenizer_config.json, chat_template.jinja, …    as the model has them
//! ```
//!
//! What comes outside of the layers, and each layer, begins on a page of 16 KiB, each tensor on a cache line. Nothing is copied or
//! put into another order when a bundle is opened.
//!
//! Lengths of all files, the hashes of all but the weights, and whether manifest and weights belong together are looked at whenever a
//! bundle is opened; the hash of the weights, which asks for reading them whole, by [`verify`] and `openelm inspect`.

mod devices;
mod expected;
mod manifest;
mod plan;
mod reader;
mod writer;

pub use devices::{DEVICES, Device, Known};
pub use expected::{Expected, MemoryAt, RateOn};
pub(crate) use manifest::MANIFEST;
pub use plan::{BundleOptions, BundleWeights, Purpose};
pub use reader::verify;
pub(crate) use reader::{check_weights, read};
pub(crate) use writer::write;

/// The file with the weights.
const WEIGHTS: &str = "weights.bin";
/// How that file begins.
const MAGIC: &[u8; 8] = b"OELMPACK";
/// The version of manifest and weights that is written, and the only one that is read.
const VERSION: u32 = 1;
/// The largest pages of any device: those of Apple's.
const PAGE: u64 = 16 << 10;
/// Where tensors begin within a page.
const LINE: u64 = 64;
