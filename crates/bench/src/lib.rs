//! How fast a model runs, and how near that is to what the machine can do.
//!
//! ```text
//! Source (a model on disk, or a geometry for random weights) + WeightFormat
//!     -> Subject  written once into a scratch folder, unless the model is measured as it is stored
//!     -> run      for each number of threads: limits, load, prefill, decode, memory; the peer's turn after each of ours
//!     -> Report   rate, limit, share; serialises to JSON
//! ```
//!
//! What a step has to do at least ([`Work`]) over what the machine does at best ([`Limits`]) gives the limit of a rate.
//!
//! ```
//! use openelm_model::{CacheType, ModelConfig};
//! use openelm_bench::{WeightFormat, Work};
//!
//! let config = ModelConfig::openelm_270m();
//! let format: WeightFormat = "q4_0".parse()?;
//! let encoding = |spec: &_| Some(format.encoding_of(spec, config.layers.len()));
//! // A token reads all weights once: 4.5 bits each in Q4_0, 6.6 in the embedding table.
//! assert_eq!(Work::of_tokens(&config, encoding, 1, 0, CacheType::F32).bytes / 1_000_000, 163);
//! # Ok::<(), String>(())
//! ```

mod address_space;
mod error;
mod format;
mod limits;
mod measure;
mod peer;
mod random;
mod report;
mod resident;
mod rounds;
mod subject;
mod work;

pub use error::BenchError;
pub use format::WeightFormat;
pub use limits::{Bound, Limits};
pub use measure::{Options, run};
pub use peer::{Peer, PeerTest};
pub use random::RandomModel;
pub use report::{Measurement, Phase, Report, Run};
pub use resident::Resident;
pub use rounds::{Medians, alternate};
pub use subject::{Opener, Source, Subject};
pub use work::Work;
