//! Writing: each file under a temporary name first, then renamed, so that no half-written model is ever found.

use std::path::Path;

use openelm_model::kernels::Threads;
use openelm_model::{DType, Encoding, ModelConfig, Tensor, TensorSpec, sites};
use serde_json::Value;

use super::{config_to_json, places};
use crate::encode::encode;
use crate::places::Cutter;
use crate::shards::{self, Entry, ShardOptions};
use crate::{FormatError, StoredModel};

/// How a model is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WriteOptions {
    /// Element type of all tensors.
    pub dtype: DType,
    /// Largest weights file in bytes; larger models are cut into shards. 0 means a single file.
    pub shard_bytes: usize,
}

/// Writes `config.json` and the weights into `folder`, which is made if need be. Keys of the `config_json` that the model
/// came with survive. `tensor` is asked for one tensor at a time.
///
/// # Errors
/// If a value does not fit the dtype, a model is there already, or the system cannot write.
pub fn write(
    folder: &Path,
    config: &ModelConfig,
    config_json: Option<&Value>,
    tensor: &dyn Fn(&TensorSpec) -> Result<Tensor, FormatError>,
    options: WriteOptions,
    threads: &Threads,
) -> Result<(), FormatError> {
    prepare(folder)?;
    let cutter = Cutter::new(tensor);
    let entries = sites(config).into_iter().flat_map(|site| {
        let (spec, cutter) = (site.spec(config), &cutter);
        places(config, site).into_iter().map(move |place| {
            let spec = spec.clone();
            Entry {
                name: place.name.clone(),
                dtype: shards::dtype_of(options.dtype),
                shape: place.shape(&spec),
                bytes: Box::new(move || {
                    let part = cutter.take(&spec, &place)?;
                    let encoded = encode(&part, Encoding::Float(options.dtype), &spec.name, threads)?;
                    Ok(encoded.bytes().clone())
                }),
            }
        })
    });
    let files = ShardOptions { stem: "model", format: Some("pt"), shard_bytes: options.shard_bytes, index: None };
    shards::write(folder, entries.collect(), &files)?;
    // The configuration comes last: without it the folder is no model.
    shards::write_json(&folder.join("config.json"), &updated_config(config, config_json, options.dtype))
}

/// The same for tensors of the geometry of `model`, which everything else is taken from: what its `config.json` says beyond the
/// geometry, `generation_config.json`, the tokenizer.
///
/// # Errors
/// As [`write()`], and if the tokenizer cannot be copied.
pub fn write_like(
    folder: &Path,
    model: &StoredModel,
    tensor: &dyn Fn(&TensorSpec) -> Result<Tensor, FormatError>,
    options: WriteOptions,
    threads: &Threads,
) -> Result<(), FormatError> {
    let json = model.config_to_carry(options.dtype);
    write(folder, &model.config, Some(&json), tensor, options, threads)?;
    model.carry_along(folder)
}

/// Makes `folder` and refuses it if a model is in it.
pub(crate) fn prepare(folder: &Path) -> Result<(), FormatError> {
    std::fs::create_dir_all(folder).map_err(FormatError::io(folder))?;
    for name in ["config.json", "model.safetensors", "model.safetensors.index.json"] {
        if folder.join(name).exists() {
            return Err(FormatError::Exists { path: folder.join(name) });
        }
    }
    Ok(())
}

/// The `config.json` to write: the one the model came with, if it had one, without its quantisation, and without the names of
/// Python files that stay behind: tools that see those ask whether to run them.
pub(crate) fn updated_config(config: &ModelConfig, config_json: Option<&Value>, dtype: DType) -> Value {
    let Some(Value::Object(keys)) = config_json else { return config_to_json(config, dtype) };
    let mut keys = keys.clone();
    keys.retain(|key, _| !["quantization", "quantization_config", "auto_map"].contains(&key.as_str()));
    // Transformers 5 writes `dtype`, and prefers it to the older name.
    let key = if keys.contains_key("dtype") { "dtype" } else { "torch_dtype" };
    keys.retain(|other, _| key != "dtype" || other != "torch_dtype");
    keys.insert(key.to_owned(), dtype.to_string().into());
    Value::Object(keys)
}
