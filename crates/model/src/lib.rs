//! The slim core of OpenELM: what runs on a device.
//!
//! ```text
//! text -> Tokenizer -> ids -> Session, one sequence of an Engine (block by block, keys and values appended to pages) -> logits
//!      -> Sampler -> id -> Detokenizer -> text
//! ```
//!
//! A [`ModelConfig`] says how wide each layer is (layer-wise scaling), a [`Model`] holds checked weights, borrowed from a
//! mapped file where possible, an [`Engine`] runs many [`Sequence`]s of it at a time, and a [`Session`] is one of them. No
//! network, no async, no file formats: those are the business of other crates.

mod adapter;
pub mod block;
mod chat;
mod config;
mod engine;
mod family;
mod forward;
mod generation;
mod geometry;
mod hidden;
mod layout;
mod linear;
mod memory;
mod model;
mod rivals;
pub mod sentencepiece;
mod sequence;
mod session;
mod stack;
mod tensor;
mod tokenizer;
mod weights;

pub use adapter::{Adapter, AdapterError, AdapterModule, AdapterOptions, AdapterWeights, Part, Target, targets};
pub use chat::{ChatError, ChatTemplate, Message};
pub use config::{
    Activation, ConfigError, LayerConfig, ModelConfig, NormKind, NormPlacement, Norms, Precision, QkNorm, RopeScaling,
};
pub use engine::{BlockWorkspace, Engine, EngineError, Feed, Logits, Rows};
pub use family::Family;
pub use forward::{Buffers, Layers, forward};
pub use generation::{
    Finish, Generation, GenerationError, GenerationOptions, NotFinite, Piece, Sampler, SamplingError, SamplingOptions,
    StopStrings, Token, check_finite, generate, log_probability,
};
pub use geometry::{Geometry, Multipliers, make_divisible};
pub use layout::{Role, Site, TensorSpec, initial_deviation, initial_value, layer_roles, sites, tensor_specs};
pub use linear::{Change, Delta, Deltas, Linear, LinearScratch};
pub use memory::{ByteSize, Footprint, MemoryError, available_memory};
pub use model::{Model, ModelError};
/// The arithmetic below this crate: threads and matrices appear in its interface.
pub use openelm_kernels as kernels;
pub use openelm_kernels::attention::CacheType;
pub use sequence::Sequence;
pub use session::Session;
pub use stack::{Loaded, Stack};
pub use tensor::{DType, Encoding, Tensor, TensorError};
pub use tokenizer::{Detokenizer, Tokenizer, TokenizerError};
pub use weights::{LayerWeights, Weights, vector};
