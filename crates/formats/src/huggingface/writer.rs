//! Writing: each file under a temporary name first, then renamed, so that no half-written model is ever found.

use std::borrow::Cow;
use std::io::Write;
use std::path::Path;

use openelm::{DType, ModelConfig, TensorSpec, tensor_specs};
use safetensors::{Dtype, View};
use serde_json::json;

use super::{config_to_json, file_name_of};
use crate::FormatError;
use crate::atomic;
use crate::cast::cast;

/// How a model is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WriteOptions {
    /// Element type of all tensors.
    pub dtype: DType,
    /// Largest weights file in bytes; larger models are cut into shards. 0 means a single file.
    pub shard_bytes: usize,
}

/// Writes `config.json` and the weights into `folder`, which is made if need be. `values` gives a tensor's elements; it is
/// asked for one tensor at a time, twice at most.
///
/// # Errors
/// If a value does not fit the dtype, a model is there already, or the system cannot write.
pub fn write<'a>(
    folder: &Path,
    config: &ModelConfig,
    values: impl Fn(&TensorSpec) -> Cow<'a, [f32]> + Sync,
    options: WriteOptions,
) -> Result<(), FormatError> {
    std::fs::create_dir_all(folder).map_err(FormatError::io(folder))?;
    for name in ["config.json", "model.safetensors", "model.safetensors.index.json"] {
        if folder.join(name).exists() {
            return Err(FormatError::Exists { path: folder.join(name) });
        }
    }
    let specs = tensor_specs(config);
    for spec in &specs {
        check_range(spec, &values(spec), options.dtype)?;
    }
    let shards = shards(&specs, options);
    let mut weight_map = serde_json::Map::new();
    for (i, shard) in shards.iter().enumerate() {
        let file = match shards.len() {
            1 => "model.safetensors".to_owned(),
            count => format!("model-{:05}-of-{count:05}.safetensors", i + 1),
        };
        let tensors = shard.iter().map(|spec| {
            weight_map.insert(file_name_of(&spec.name), json!(file));
            (file_name_of(&spec.name), Source { spec, dtype: options.dtype, values: &values })
        });
        let metadata = Some([("format".to_owned(), "pt".to_owned())].into());
        let target = folder.join(&file);
        let written = atomic::write_path(&target, |path| {
            safetensors::serialize_to_file(tensors, metadata, path).map_err(std::io::Error::other)
        });
        written.map_err(FormatError::io(&target))?;
    }
    if shards.len() > 1 {
        let total: usize = specs.iter().map(|spec| spec.len() * options.dtype.size()).sum();
        let index = json!({ "metadata": { "total_size": total }, "weight_map": weight_map });
        write_json(folder, "model.safetensors.index.json", &index)?;
    }
    // The configuration comes last: without it the folder is no model.
    write_json(folder, "config.json", &config_to_json(config, options.dtype))
}

fn write_json(folder: &Path, name: &str, value: &serde_json::Value) -> Result<(), FormatError> {
    let target = folder.join(name);
    atomic::write_file(&target, |file| writeln!(file, "{value:#}")).map_err(FormatError::io(&target))
}

/// Cuts the tensors, in order, into files of at most `shard_bytes`; a larger tensor has a file of its own.
fn shards(specs: &[TensorSpec], options: WriteOptions) -> Vec<Vec<&TensorSpec>> {
    let limit = if options.shard_bytes == 0 { usize::MAX } else { options.shard_bytes };
    let mut shards: Vec<Vec<&TensorSpec>> = Vec::new();
    let mut room = 0;
    for spec in specs {
        let size = spec.len() * options.dtype.size();
        match shards.last_mut() {
            Some(shard) if size <= room => {
                shard.push(spec);
                room -= size;
            }
            _ => {
                shards.push(vec![spec]);
                room = limit.saturating_sub(size);
            }
        }
    }
    shards
}

fn check_range(spec: &TensorSpec, values: &[f32], dtype: DType) -> Result<(), FormatError> {
    // Beyond this a value rounds to infinity.
    const F16_LIMIT: f32 = 65_520.0;
    if dtype == DType::F16
        && let Some(&value) = values.iter().find(|x| x.is_finite() && x.abs() >= F16_LIMIT)
    {
        return Err(FormatError::Overflow { name: spec.name.clone(), dtype, value });
    }
    Ok(())
}

/// A tensor that is converted when its turn to be written comes.
struct Source<'s, F> {
    spec: &'s TensorSpec,
    dtype: DType,
    values: &'s F,
}

impl<'a, F: Fn(&TensorSpec) -> Cow<'a, [f32]>> View for Source<'_, F> {
    fn dtype(&self) -> Dtype {
        match self.dtype {
            DType::F32 => Dtype::F32,
            DType::F16 => Dtype::F16,
            DType::BF16 => Dtype::BF16,
        }
    }

    fn shape(&self) -> &[usize] {
        &self.spec.shape
    }

    fn data(&self) -> Cow<'_, [u8]> {
        cast(&(self.values)(self.spec), self.dtype).into()
    }

    fn data_len(&self) -> usize {
        self.spec.len() * self.dtype.size()
    }
}
