//! OpenELM for apps: open a model of any format with its tokenizer, and generate.
//!
//! ```
//! use openelm::{Model, Options};
//!
//! let model = Model::open("../../models/storyteller")?;
//! let mut session = model.session();
//! for piece in session.generate("Once upon a time", Options { max_tokens: 20, ..Options::default() })? {
//!     print!("{}", piece?.text);
//! }
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! A [`Model`] is cheap to clone and can be shared between threads; its [`Session`]s are independent and may be forked. All of
//! them own what they need, so that an app can keep them wherever it likes. What else a tool wants is in the crates below:
//! `openelm-model` (geometry, engine, tokenizer), `openelm-formats` (reading and writing files).

#[cfg(feature = "builtin")]
mod builtin;
mod conversations;
mod error;
mod model;
mod session;

#[cfg(feature = "builtin")]
pub use builtin::{BUILTIN, builtin};
pub use conversations::Conversations;
pub use error::Error;
pub use model::{LoadOptions, Model, stored};
pub use openelm_formats::Format;
pub use openelm_model::{
    CacheType, ChatError, ChatTemplate, Finish, Footprint, Generation, GenerationError, GenerationOptions as Options,
    MemoryError, Message, ModelConfig, Piece, SamplingOptions, Token, Tokenizer, available_memory,
};
pub use session::Session;
