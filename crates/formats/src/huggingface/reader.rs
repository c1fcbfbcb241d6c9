//! Reading: a folder's files, mapped; or the two files of a small model from memory.

use std::collections::HashMap;
use std::path::Path;

use bytes::Bytes;
use openelm_model::kernels::quant::AffineFormat;
use openelm_model::{Family, ModelConfig, Role, Site, Stack, Tensor, sites};
use safetensors::Dtype;
use serde_json::Value;

use super::config_from_json;
use super::names::{known_name, places};
use crate::shards::{self, RawTensor, Shards};
use crate::stored::{Format, Source, StoredModel};
use crate::tokenizer::StoredTokenizer;
use crate::{FormatError, text};

/// Reads the model in `folder`: as Apple published it, or as mlx-lm wrote it.
///
/// # Errors
/// See [`FormatError`]: the message names the file, and the tensor where one is at fault.
pub fn read(folder: &Path) -> Result<StoredModel, FormatError> {
    read_named(folder, None)
}

/// Reads the model in `folder` whose weights are in the file `named`, if one is.
pub(crate) fn read_named(folder: &Path, named: Option<&Path>) -> Result<StoredModel, FormatError> {
    let config_path = folder.join("config.json");
    if folder.exists() && !config_path.exists() {
        return Err(FormatError::NoModel { path: folder.to_owned(), missing: "config.json".to_owned() });
    }
    let config_text = text::read(&config_path)?;
    let config = config_from_json(&config_text, &config_path)?;
    let json: Value = serde_json::from_slice(&config_text).unwrap_or_default();
    check_quantisation(&json, &config_path)?;
    let mut notes = Vec::new();
    let files = shards::named_or_in(folder, "model", named, &mut notes)?;
    let Shards { tensors, format, maps } = shards::read(&files)?;
    let is_mlx = format.as_deref() == Some("mlx") || json.get("quantization").is_some();
    Ok(StoredModel {
        sources: assemble(&config, tensors, folder)?,
        maps,
        config,
        format: if is_mlx { Format::Mlx } else { Format::HuggingFace },
        path: named.unwrap_or(folder).to_owned(),
        files: files.into_iter().collect(),
        tokenizer: StoredTokenizer::beside(folder),
        notes,
        config_json: Some(json),
        generation_config: generation_config(folder)?,
    })
}

/// The `generation_config.json` in `folder`, if there is one.
pub(crate) fn generation_config(folder: &Path) -> Result<Option<Value>, FormatError> {
    let path = folder.join("generation_config.json");
    if !path.exists() {
        return Ok(None);
    }
    let text = text::read(&path)?;
    let wrong = |e| FormatError::Config { path, reason: format!("not JSON: {e}") };
    serde_json::from_slice(&text).map(Some).map_err(wrong)
}

/// Refuses matrices that are quantised in another way than MLX's affine groups, by the name that the configuration gives it.
fn check_quantisation(json: &Value, path: &Path) -> Result<(), FormatError> {
    let said = ["quantization", "quantization_config"].map(|key| json.get(key));
    // MLX describes single modules within; transformers names other tools' methods.
    let modules = said.iter().flatten().filter_map(|said| said.as_object()).flat_map(|keys| keys.values());
    for described in said.iter().flatten().copied().chain(modules) {
        for key in ["mode", "quant_method"] {
            if let Some(method) = described.get(key).and_then(Value::as_str)
                && method != "affine"
            {
                let reason = format!(
                    "its matrices are quantised as {method}, which cannot be read; MLX's affine groups of 2 to 8 bits can"
                );
                return Err(FormatError::Config { path: path.to_owned(), reason });
            }
        }
    }
    Ok(())
}

/// Reads a model whose `config.json` and `model.safetensors` are in memory; `name` stands for the file in messages.
///
/// # Errors
/// See [`FormatError`].
pub fn from_bytes(config: &[u8], weights: Bytes, name: &str) -> Result<StoredModel, FormatError> {
    let path = Path::new(name);
    let json = serde_json::from_slice(text::plain(config, path)?).ok();
    let config = config_from_json(config, path)?;
    let mut raw = HashMap::new();
    shards::add(&mut raw, weights, path)?;
    Ok(StoredModel {
        sources: assemble(&config, raw, path)?,
        maps: Vec::new(),
        config,
        format: Format::HuggingFace,
        path: path.to_owned(),
        files: Vec::new(),
        tokenizer: None,
        notes: Vec::new(),
        config_json: json,
        generation_config: None,
    })
}

/// The tensors that `config` asks for, by CoreNet's names; `folder` is for messages.
pub(crate) fn assemble(
    config: &ModelConfig,
    raw: HashMap<String, RawTensor>,
    folder: &Path,
) -> Result<HashMap<String, Source>, FormatError> {
    let mut raw: HashMap<String, (String, RawTensor)> = raw
        .into_iter()
        .filter_map(|(name, tensor)| Some((known_name(config.family, &name)?, (name, tensor))))
        .collect();
    share_network(config, &mut raw);
    let mut sources = HashMap::new();
    for site in sites(config) {
        let spec = site.spec(config);
        let places = places(config, site).into_iter();
        let parts = places.map(|place| take(&mut raw, &place.name, &place.shape(&spec), folder));
        let mut parts = parts.collect::<Result<Vec<Tensor>, FormatError>>()?;
        let source = match parts.len() {
            1 => Source::Tensor(parts.remove(0)),
            _ => Source::Stacked(Stack::new(parts)),
        };
        sources.insert(spec.name, source);
    }
    if config.tied_embeddings {
        raw.remove("lm_head.weight");
    }
    match raw.into_values().min_by(|a, b| a.0.cmp(&b.0)) {
        Some((name, RawTensor { path, .. })) => {
            let reason = "the model has no such tensor; does config.json belong to these weights?".to_owned();
            Err(FormatError::Tensor { name, path, reason })
        }
        None => Ok(sources),
    }
}

/// MobiLlama's layers have one feed-forward network, which a file may hold once: in the first layer, then.
fn share_network(config: &ModelConfig, raw: &mut HashMap<String, (String, RawTensor)>) {
    let names = |layer: usize| {
        [Role::Proj1, Role::Proj2].map(|role| places(config, Site::of_layer(layer, role))).into_iter().flatten()
    };
    let others = (1..config.layers.len()).flat_map(names);
    if config.family != Family::Llama || others.clone().any(|place| raw.contains_key(&place.name)) {
        return;
    }
    for layer in 1..config.layers.len() {
        for (first, other) in names(0).zip(names(layer)) {
            if let Some(shared) = raw.get(&first.name).cloned() {
                raw.insert(other.name, shared);
            }
        }
    }
}

/// Takes the tensor `name` of `shape` from `raw`, with its scales and biases if it is quantised.
fn take(
    raw: &mut HashMap<String, (String, RawTensor)>,
    name: &str,
    shape: &[usize],
    folder: &Path,
) -> Result<Tensor, FormatError> {
    let Some((found, tensor)) = raw.remove(name) else {
        let reason = format!("it is missing; expected {shape:?}");
        return Err(FormatError::Tensor { name: name.to_owned(), path: folder.to_owned(), reason });
    };
    let base = name.strip_suffix("weight");
    let mut group = |part: &str| raw.remove(&format!("{}{part}", base?));
    let path = tensor.path.clone();
    let tensor = match [group("scales"), group("biases")] {
        [Some((_, scales)), Some((_, biases))] => affine(shape, tensor, scales, biases),
        [Some((_, scales)), None] => Err(format!(
            "it has scales ({:?}) without biases, as in MLX's modes mxfp4, nvfp4 and mxfp8, which cannot be read; \
             affine groups can",
            scales.dtype
        )),
        _ => float(shape, tensor),
    };
    tensor.map_err(|reason| FormatError::Tensor { name: found, path, reason })
}

fn float(shape: &[usize], raw: RawTensor) -> Result<Tensor, String> {
    if raw.shape != shape {
        return Err(format!("expected {shape:?}, found {:?}", raw.shape));
    }
    let Some(dtype) = shards::float(raw.dtype) else {
        return Err(format!("its dtype {:?} cannot be read; F32, F16 and BF16 can", raw.dtype));
    };
    Tensor::new(dtype, raw.shape, raw.bytes).map_err(|e| e.to_string())
}

/// Bits and group follow from the shapes: `[rows, columns * bits / 32]` words and `[rows, columns / group]` scales.
fn affine(shape: &[usize], words: RawTensor, scales: RawTensor, biases: RawTensor) -> Result<Tensor, String> {
    let &[rows, columns] = shape else { return Err("a vector cannot be quantised".to_owned()) };
    let (&[word_rows, word_columns], &[_, groups]) = (&words.shape[..], &scales.shape[..]) else {
        return Err(format!("expected matrices, found {:?} with scales {:?}", words.shape, scales.shape));
    };
    let format = AffineFormat::new(word_columns * 32 / columns.max(1), columns / groups.max(1));
    let Some(format) = format.filter(|_| words.dtype == Dtype::U32 && word_rows == rows) else {
        return Err(format!(
            "{:?} {:?} with scales {:?} make no {shape:?} matrix; known are 2, 3, 4, 5, 6 and 8 bits in affine groups \
             of 32, 64 and 128",
            words.dtype, words.shape, scales.shape
        ));
    };
    let dtype = shards::float(scales.dtype).filter(|_| biases.dtype == scales.dtype && biases.shape == scales.shape);
    let Some(dtype) = dtype else {
        return Err("its scales and biases are not of one shape and float dtype".to_owned());
    };
    Tensor::affine(format, dtype, shape.to_vec(), words.bytes, scales.bytes, biases.bytes).map_err(|e| e.to_string())
}
