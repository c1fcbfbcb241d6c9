//! What every other language sees of OpenELM. Swift and Kotlin get it through UniFFI (feature `uniffi`); C and Python are thin
//! layers over the same handles.
//!
//! ```text
//! Model ── Session ── generate ──> Generation
//!                                    next()   <── Channel (a few pieces) <── a thread: prompt, then piece by piece
//!                                    cancel()     pause() resume()
//! ```
//!
//! - Handles own what they need and may be used by several threads: short calls wait for each other; a session that is
//!   generating refuses other work until its text has ended or was cancelled.
//! - Errors are values: [`OpenElmError`] holds the sentence that the command would print. A panic becomes one too.
//! - However a generation ends, its session holds the prompt and the tokens that were handed out.
//! - [`Model::release_memory`] gives back caches and packed weights; what is used again comes back by itself.
//!
//! ```
//! use openelm_ffi::{GenerationOptions, LoadOptions, Model};
//!
//! let model = Model::open("../../models/storyteller".into(), LoadOptions::default())?;
//! let session = model.session()?;
//! let options = GenerationOptions { max_tokens: 20, ..GenerationOptions::default() };
//! let generation = session.generate("Once upon a time".into(), options)?;
//! while let Some(piece) = generation.next()? {
//!     print!("{}", piece.text);
//! }
//! # Ok::<(), openelm_ffi::OpenElmError>(())
//! ```

mod channel;
pub mod chat;
mod error;
mod generation;
mod model;
mod options;
mod session;
mod slot;

pub use chat::Message;
pub use error::{OpenElmError, guard};
pub use generation::{Finish, Generation, Piece, Token};
pub use model::{Description, Footprint, Model, footprint, free_memory, verify_bundle, version};
pub use options::{CacheType, GenerationOptions, LoadOptions};
pub use session::Session;

#[cfg(feature = "uniffi")]
uniffi::setup_scaffolding!("openelm");
