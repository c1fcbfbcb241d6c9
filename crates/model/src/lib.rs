//! OpenELM as a library: what an app links.
//!
//! ```text
//! text -> Tokenizer -> ids -> Session (block by block, keys and values appended to the cache) -> logits
//!      -> Sampler -> id -> Detokenizer -> text
//! ```
//!
//! A [`ModelConfig`] says how wide each layer is (layer-wise scaling), a `Model` holds checked weights, borrowed from a
//! mapped file where possible, and a `Session` runs them. No network, no async, no file formats: those are the business
//! of other crates.

mod config;
mod layout;
mod tensor;

pub use config::{Activation, LayerConfig, ModelConfig, NORM_EPS};
pub use layout::{TensorSpec, tensor_specs};
pub use tensor::{DType, Tensor, TensorError};
