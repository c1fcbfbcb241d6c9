//! CoreNet's layout: weights as `torch.save` writes them (`.pt`), beside a YAML file that names the architecture.
//!
//! Nothing of a `.pt` file is executed: only what names tensors is understood (see the crate `pytorch-reader`).
//!
//! Without the feature `corenet` nothing is known but the architectures.

mod config;
#[cfg(not(feature = "corenet"))]
mod left_out;
#[cfg(feature = "corenet")]
mod nesting;
#[cfg(feature = "corenet")]
mod reader;
#[cfg(feature = "corenet")]
mod writer;
#[cfg(feature = "corenet")]
mod yaml;

pub(crate) use config::{GeneralGpt, model_name};
#[cfg(not(feature = "corenet"))]
pub(crate) use left_out::check_whole;
#[cfg(not(feature = "corenet"))]
pub use left_out::{read, write};
#[cfg(feature = "corenet")]
pub use reader::read;
#[cfg(feature = "corenet")]
pub(crate) use reader::{check_whole, float, tensors, weights_in};
#[cfg(feature = "corenet")]
pub use writer::write;
#[cfg(feature = "corenet")]
pub(crate) use writer::write_state_dict;
#[cfg(feature = "corenet")]
pub(crate) use yaml::{general_gpt, part_of_yaml, yaml_files};
