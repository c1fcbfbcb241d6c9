//! Apple's Hugging Face layout: `config.json` beside `model.safetensors` or its shards; CoreNet's tensor names behind the
//! prefix `transformer.`, the output projection as `lm_head.weight`.

mod config;
mod reader;
mod writer;

pub(crate) use config::geometry_from_json;
pub use config::{config_from_json, config_to_json};
pub(crate) use reader::{assemble, read_named};
pub use reader::{from_bytes, read};
pub use writer::{WriteOptions, write, write_like};
pub(crate) use writer::{prepare, updated_config};

/// CoreNet's name of a tensor, or `None` for buffers that hold nothing learned.
pub(crate) fn corenet_name(name: &str) -> Option<String> {
    if name.contains("inv_freq") || name.contains("rotary") || name.contains("pos_embedding") {
        return None;
    }
    Some(match name {
        "lm_head.weight" => "classifier.weight".to_owned(),
        _ => name.strip_prefix("transformer.").unwrap_or(name).to_owned(),
    })
}

/// The name in this layout of CoreNet's `name`.
pub(crate) fn file_name_of(name: &str) -> String {
    match name {
        "classifier.weight" => "lm_head.weight".to_owned(),
        _ => format!("transformer.{name}"),
    }
}
