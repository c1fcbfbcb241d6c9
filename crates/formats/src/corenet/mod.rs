//! CoreNet's layout: weights as `torch.save` writes them (`.pt`), beside a YAML file that names the architecture.
//!
//! Nothing of a `.pt` file is executed: only what names tensors is understood (see the crate `pytorch-reader`).

mod config;
mod nesting;
mod reader;
mod writer;

pub(crate) use config::{GeneralGpt, general_gpt, model_name, part_of_yaml, yaml_files};
pub use reader::read;
pub(crate) use reader::{float, tensors, weights_in};
pub use writer::write;
pub(crate) use writer::write_state_dict;
