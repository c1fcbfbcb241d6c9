//! OpenELM as a library: what an app links.
//!
//! ```text
//! text -> Tokenizer -> ids -> Session (block by block, keys and values appended to the cache) -> logits
//!      -> Sampler -> id -> Detokenizer -> text
//! ```
//!
//! A [`ModelConfig`] says how wide each layer is (layer-wise scaling), a [`Model`] holds checked weights, borrowed from a
//! mapped file where possible, and a [`Session`] runs them. No network, no async, no file formats: those are the business
//! of other crates.

pub mod block;
mod cache;
mod config;
mod generation;
mod geometry;
mod layout;
mod memory;
mod model;
mod session;
mod tensor;
mod tokenizer;
mod weights;

pub use cache::Cache;
pub use config::{Activation, ConfigError, LayerConfig, ModelConfig, NORM_EPS, Precision};
pub use generation::{
    Finish, Generation, GenerationError, GenerationOptions, Sampler, SamplingError, SamplingOptions, StopStrings,
    generate,
};
pub use geometry::{Geometry, Multipliers, make_divisible};
pub use layout::{TensorSpec, initial_deviation, tensor_specs};
pub use memory::{Bytes, Footprint, MemoryError, available_memory};
pub use model::{Model, ModelError};
/// The arithmetic below this crate: threads and matrices appear in its interface.
pub use openelm_kernels as kernels;
pub use openelm_kernels::attention::CacheType;
pub use session::{Session, SessionError};
pub use tensor::{DType, Encoding, Tensor, TensorError};
pub use tokenizer::{Detokenizer, Tokenizer, TokenizerError};
pub use weights::{LayerWeights, Weights};
