//! The layouts of Hugging Face: `config.json` beside `model.safetensors` or its shards. Apple's for OpenELM has CoreNet's tensor
//! names behind the prefix `transformer.`, the output projection as `lm_head.weight`; that of Llama and its neighbours stores
//! queries, keys and values apart, and gate and up.

mod config;
mod names;
mod neighbours;
mod reader;
mod writer;

#[cfg(feature = "corenet")]
pub(crate) use config::geometry_from_json;
pub use config::{config_from_json, config_to_json};
pub(crate) use names::{corenet_name, places};
pub(crate) use reader::{assemble, generation_config, read_named};
pub use reader::{from_bytes, read};
pub use writer::{WriteOptions, write, write_like};
pub(crate) use writer::{prepare, updated_config};
