//! Where models come from: the Hugging Face hub, and the files that Apple published with CoreNet; and the data sets of evaluations.
//! The only crate that uses the network.
//!
//! ```text
//! text ── Name::parse ──> Name ── pull ──> folder ── openelm_formats::open ──> model
//!                          │         what is fetched: repository (what there is), select (what of it), download (one file)
//!                          └─ resolve ──> the same folder, later, without the network
//! ```
//!
//! Repositories go to the cache that Hugging Face's own tools share (`$HF_HOME/hub`), Apple's files to
//! `$HF_HOME/openelm/corenet`. A file has its name only when it is whole and checked; until then it lies beside, and the next
//! attempt goes on where the last one ended.
//!
//! ```no_run
//! use openelm_hub::{Name, PullOptions, Settings, pull};
//!
//! let settings = Settings::from_environment()?;
//! let folder = pull(&Name::parse("openelm-270m")?, &PullOptions::default(), &settings, &mut |_| {})?;
//! let model = openelm_formats::open(&folder)?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod cache;
mod check;
mod client;
mod corenet;
mod data_set;
mod download;
mod error;
mod event;
mod lock;
mod name;
mod part;
mod pull;
mod repository;
mod resolve;
mod select;
mod settings;
mod tokenizer;

pub use corenet::CoreNetModel;
pub use data_set::pull_split;
pub use error::HubError;
pub use event::{Event, OnEvent};
pub use glob::Pattern;
pub use name::{Name, Repository};
pub use pull::{PullOptions, pull};
pub use resolve::resolve;
pub use settings::{Patience, Settings};
pub use tokenizer::TokenizerChoice;
