//! MLX's layout. mlx-lm's is Hugging Face's with `format = mlx` in the metadata, with matrices in affine groups if
//! `config.json` says so; CoreNet's own converter (its example `open_elm`) writes CoreNet's names into `weights.safetensors`
//! beside the YAML's part `general_gpt` as `config.json`.

use std::collections::HashMap;
use std::path::Path;
use std::rc::Rc;
use std::sync::Mutex;

use bytes::Bytes;
use openelm_model::kernels::Threads;
use openelm_model::kernels::quant::AffineFormat;
use openelm_model::{DType, Encoding, ModelConfig, Tensor, TensorSpec, sites, tensor_specs};
use safetensors::Dtype;
use serde_json::{Value, json};

use crate::corenet::GeneralGpt;
use crate::encode::encode;
use crate::huggingface::{assemble, corenet_name, places, prepare, updated_config};
use crate::inferred::Sizes;
use crate::places::Cutter;
use crate::shards::{self, Entry, ShardOptions, Shards};
use crate::stored::{Format, StoredModel};
use crate::tokenizer::StoredTokenizer;
use crate::{FormatError, text};

/// mlx-lm cuts models into files of this size.
const SHARD_BYTES: usize = 5 << 30;

/// Reads a folder that CoreNet's own converter wrote; its weights are in the file `named`, if one is.
///
/// # Errors
/// See [`FormatError`].
pub(crate) fn read_corenet(folder: &Path, named: Option<&Path>) -> Result<StoredModel, FormatError> {
    let config_path = folder.join("config.json");
    let text = text::read(&config_path)?;
    let wrong = |reason: String| FormatError::Config { path: config_path.clone(), reason };
    let general_gpt: GeneralGpt = serde_json::from_slice(&text).map_err(|e| wrong(e.to_string()))?;
    let mut notes = Vec::new();
    let files = shards::named_or_in(folder, "weights", named, &mut notes)?;
    let Shards { tensors, maps, .. } = shards::read(&files)?;
    let config = match general_gpt.architecture_in_table() {
        Some(config) => config,
        None => {
            // Quantised matrices have other shapes; the converter leaves the embedding as it is.
            let shapes = tensors.iter().filter_map(|(name, tensor)| Some((corenet_name(name)?, tensor.shape.clone())));
            let sizes = Sizes::from_shapes(&shapes.collect(), general_gpt.max_context_length);
            notes.push("the architecture has no known name: the geometry is that of the shapes".to_owned());
            let name = &general_gpt.model_name;
            let sizes = sizes.ok_or_else(|| wrong(format!("no architecture is known by the name {name:?}")))?;
            sizes.into_config().map_err(|source| FormatError::Geometry { path: config_path.clone(), source })?
        }
    };
    Ok(StoredModel {
        sources: assemble(&config, tensors, folder)?,
        maps,
        config,
        format: Format::Mlx,
        path: named.unwrap_or(folder).to_owned(),
        files: files.into_iter().collect(),
        tokenizer: StoredTokenizer::beside(folder),
        notes,
        config_json: None,
        generation_config: None,
    })
}

/// Writes a model as mlx-lm does, in `dtype`, with matrices (the embedding table too) in affine groups if a format is given
/// and their rows fill whole groups. Tensors are asked for one at a time.
///
/// # Errors
/// If a value does not fit the dtype, no matrix fills whole groups, a model is there already, or the system cannot write.
pub fn write(
    folder: &Path,
    config: &ModelConfig,
    config_json: Option<&Value>,
    tensor: &dyn Fn(&TensorSpec) -> Result<Tensor, FormatError>,
    dtype: DType,
    quantised: Option<AffineFormat>,
    threads: &Threads,
) -> Result<(), FormatError> {
    prepare(folder)?;
    let specs = tensor_specs(config);
    let parameters: usize = specs.iter().map(TensorSpec::len).sum();
    let (groups, cutter) = (Groups::default(), Cutter::new(tensor));
    let mut entries = Vec::new();
    let mut total = 0;
    if let Some(AffineFormat { group, .. }) = quantised
        && !specs.iter().any(|spec| is_quantised(spec, group))
    {
        let reason = format!("no matrix has rows of whole groups of {group}; choose smaller groups or floats");
        return Err(FormatError::Inexpressible { reason });
    }
    let placed = sites(config).into_iter().flat_map(|site| {
        let spec = site.spec(config);
        places(config, site).into_iter().map(move |place| (spec.clone(), place))
    });
    for (spec, place) in placed {
        let shape = place.shape(&spec);
        let encoding = match quantised {
            Some(format) if is_quantised(&spec, format.group) => Encoding::Affine(format, dtype),
            _ => Encoding::Float(dtype),
        };
        total += encoding.bytes_of(&shape).unwrap_or_default();
        let (name, cutter) = (place.name.clone(), &cutter);
        let make = move || encode(&cutter.take(&spec, &place)?, encoding, &spec.name, threads);
        let (Encoding::Affine(format, _), &[rows, columns]) = (encoding, &shape[..]) else {
            let dtype = shards::dtype_of(dtype);
            entries.push(Entry { name, dtype, shape, bytes: Box::new(move || Ok(make()?.bytes().clone())) });
            continue;
        };
        let base = name.trim_end_matches("weight").to_owned();
        let (groups, make, name) = (&groups, Rc::new(make), Rc::new(name));
        let entry = |suffix: &str, dtype, width, bytes| Entry {
            name: format!("{base}{suffix}"),
            dtype,
            shape: vec![rows, width],
            bytes,
        };
        let float = shards::dtype_of(dtype);
        let of = || (name.clone(), make.clone());
        let (key, made) = of();
        let numbers = move || Ok(groups.keep(&key, made()?));
        entries.push(entry("weight", Dtype::U32, columns * format.bits / 32, Box::new(numbers)));
        let (key, made) = of();
        let scales = move || groups.get(&key, &*made).map(|(scales, _)| scales);
        entries.push(entry("scales", float, columns / format.group, Box::new(scales)));
        let (key, made) = of();
        let biases = move || groups.get(&key, &*made).map(|(_, biases)| biases);
        entries.push(entry("biases", float, columns / format.group, Box::new(biases)));
    }
    let index = json!({ "total_size": total, "total_parameters": parameters });
    let files = ShardOptions { stem: "model", format: Some("mlx"), shard_bytes: SHARD_BYTES, index: Some(index) };
    shards::write(folder, entries, &files)?;
    let mut written = updated_config(config, config_json, dtype);
    if let Some(AffineFormat { bits, group }) = quantised {
        let quantization = json!({ "group_size": group, "bits": bits, "mode": "affine" });
        written["quantization"] = quantization.clone();
        written["quantization_config"] = quantization;
    }
    if let Value::Object(keys) = &mut written {
        keys.sort_keys();
    }
    shards::write_json(&folder.join("config.json"), &written)
}

/// Whether mlx-lm quantises a tensor: matrices whose rows fill whole groups.
fn is_quantised(spec: &TensorSpec, group: usize) -> bool {
    matches!(spec.shape[..], [_, columns] if columns.is_multiple_of(group))
}

/// Scales and biases of matrices whose numbers are written: a few hundredths of the model, kept so that a matrix is quantised
/// once, whatever the order in which its parts are asked for.
#[derive(Default)]
struct Groups(Mutex<HashMap<String, (Bytes, Bytes)>>);

impl Groups {
    /// Keeps the scales and biases of `tensor` and gives its numbers.
    fn keep(&self, name: &str, tensor: Tensor) -> Bytes {
        if let (Some((scales, biases)), Ok(mut kept)) = (tensor.scales_and_biases(), self.0.lock()) {
            kept.insert(name.to_owned(), (scales.clone(), biases.clone()));
        }
        tensor.bytes().clone()
    }

    fn get(&self, name: &str, make: &dyn Fn() -> Result<Tensor, FormatError>) -> Result<(Bytes, Bytes), FormatError> {
        let kept = self.0.lock().ok().and_then(|kept| kept.get(name).cloned());
        match kept {
            Some(kept) => Ok(kept),
            None => {
                self.keep(name, make()?);
                self.0
                    .lock()
                    .ok()
                    .and_then(|kept| kept.get(name).cloned())
                    .ok_or_else(|| FormatError::Inexpressible { reason: format!("tensor {name} has no scales") })
            }
        }
    }
}
