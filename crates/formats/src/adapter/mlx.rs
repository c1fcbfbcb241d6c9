//! mlx-lm's layout: `adapter_config.json` beside `adapters.safetensors`, with factors the other way round than elsewhere, one rank
//! and one scale for all modules.

use std::collections::BTreeSet;
use std::path::Path;

use bytes::Bytes;
use openelm_model::{Adapter, AdapterModule, AdapterOptions, ModelConfig, Part, Target, Tensor, targets};
use serde::Deserialize;
use serde_json::{Value, json};

use super::cover::cover;
use super::members::Member;
use super::parts::{self, Layout, Leaf, Settings};
use super::peft::{members, names};
use super::peft_config::number;
use crate::FormatError;
use crate::shards::{self, Entry};
use crate::text;

/// The file by which a folder is known as one of mlx-lm's.
pub(super) const WEIGHTS: &str = "adapters.safetensors";
const CONFIG: &str = "adapter_config.json";

#[derive(Deserialize)]
struct Keys {
    #[serde(default = "lora")]
    fine_tune_type: String,
    lora_parameters: Option<Parameters>,
    model: Option<Value>,
}

#[derive(Deserialize)]
struct Parameters {
    rank: usize,
    scale: f64,
    #[serde(default)]
    dropout: f64,
}

fn lora() -> String {
    "lora".to_owned()
}

/// Reads the adapter in `folder`, which must fit `model`.
///
/// # Errors
/// See [`FormatError`]: the message names the file, and the tensor where one is at fault. mlx-lm's adapter of an embedding table that
/// is the output projection as well is refused: it acts on both sides there.
pub fn read(folder: &Path, model: &ModelConfig) -> Result<Adapter, FormatError> {
    let (config, weights) = (folder.join(CONFIG), folder.join(WEIGHTS));
    let (text, bytes) = parts::read_both(&config, &weights)?;
    parse(&text, &config, bytes, &weights, model)
}

/// Reads an adapter whose two files are in memory; `name` stands for both in messages.
///
/// # Errors
/// See [`read`].
pub fn from_bytes(config: &[u8], weights: Bytes, name: &str, model: &ModelConfig) -> Result<Adapter, FormatError> {
    parse(config, Path::new(name), weights, Path::new(name), model)
}

fn parse(
    text: &[u8],
    config_path: &Path,
    weights: Bytes,
    path: &Path,
    model: &ModelConfig,
) -> Result<Adapter, FormatError> {
    let wrong = |reason: String| FormatError::Config { path: config_path.to_owned(), reason };
    let keys: Keys = serde_json::from_slice(text::plain(text, config_path)?).map_err(|e| wrong(e.to_string()))?;
    let dora = match &keys.fine_tune_type[..] {
        "lora" => false,
        "dora" => true,
        other => return Err(wrong(format!("fine_tune_type is {other:?}; \"lora\" and \"dora\" can be read"))),
    };
    let Some(Parameters { rank, scale, dropout }) = keys.lora_parameters else {
        return Err(wrong("it has no lora_parameters".to_owned()));
    };
    if rank == 0 {
        return Err(wrong("lora_parameters.rank is 0; it must be at least 1".to_owned()));
    }
    let announced = parts::in_safetensors(weights, path)?;
    let base_model = keys.model.as_ref().and_then(Value::as_str).map(str::to_owned);
    let options = AdapterOptions { dropout, rs_lora: false, base_model };
    let members = |target: &Target| members(model, target);
    let settings_of = |_: &str, _| Some(Settings { rank, alpha: scale * rank as f64, dora });
    let modules = parts::assemble(announced, &targets(model), path, &layout(&members), &options, &settings_of)?;
    if model.tied_embeddings && modules.contains_key("token_embeddings") {
        return Err(wrong(
            "it adapts the embedding table, which is the output projection as well: mlx-lm changes both sides with it, \
             adapters here the input side alone"
                .to_owned(),
        ));
    }
    Adapter::new(model, options, modules).map_err(|e| wrong(e.to_string()))
}

/// Writes `adapter` into `folder`, which is made if need be, as mlx-lm 0.31 does. Smaller ranks are filled up with zeros, and scales
/// that differ go into B: what the adapter does stays the same.
///
/// # Errors
/// If an adapter is there already, mlx-lm cannot express it (one kind of adapter for all linear modules, none of a table that is
/// the output projection as well, and no DoRA beside one of an embedding), or the system cannot write.
pub fn write(folder: &Path, adapter: &Adapter) -> Result<(), FormatError> {
    let model = adapter.config();
    let members = |target: &Target| members(model, target);
    let layout = layout(&members);
    let mut leaves = parts::leaves(adapter, &layout)?;
    check_expressible(model, &leaves)?;
    let rank = leaves.iter().map(|leaf| leaf.module.rank()).max().unwrap_or(1);
    let scales = leaves.iter().map(|leaf| adapter.options.scale(&leaf.module));
    let scale = most_common(scales.filter(|&scale| scale != 0.0));
    for leaf in &mut leaves {
        let factor = adapter.options.scale(&leaf.module) / scale;
        leaf.module = filled(&leaf.module, rank, factor);
    }
    let all = names(adapter.targets(), &members);
    let chosen: BTreeSet<&str> = leaves.iter().map(|leaf| leaf.name.as_str()).collect();
    let config = json!({
        "fine_tune_type": if leaves.iter().any(|leaf| leaf.module.magnitude.is_some()) { "dora" } else { "lora" },
        "lora_parameters": {
            "dropout": adapter.options.dropout,
            "keys": cover(all.iter().map(String::as_str), &chosen, within_layer),
            "rank": rank,
            "scale": number(scale.into()),
        },
        "model": adapter.options.base_model,
        "num_layers": model.layers.len(),
    });
    let entries = leaves.iter().flat_map(|leaf| leaf.tensors(&layout)).map(|(name, tensor, dtype)| Entry {
        name,
        dtype: shards::dtype_of(dtype),
        shape: tensor.shape().to_vec(),
        bytes: Box::new(move || Ok(tensor.bytes().clone())),
    });
    let entries: Vec<Entry<'_>> = entries.collect();
    std::fs::create_dir_all(folder).map_err(FormatError::io(folder))?;
    for path in [folder.join(CONFIG), folder.join(WEIGHTS)] {
        if path.exists() {
            return Err(FormatError::Exists { path });
        }
    }
    shards::write_file(&folder.join(WEIGHTS), &entries, None)?;
    // The configuration comes last: without it the folder is no adapter.
    shards::write_json(&folder.join(CONFIG), &config)
}

fn check_expressible(model: &ModelConfig, leaves: &[Leaf<'_>]) -> Result<(), FormatError> {
    let (embedding, dora) =
        (leaves.iter().any(|leaf| leaf.target.embedding), leaves.iter().any(|leaf| leaf.module.magnitude.is_some()));
    let plain = leaves.iter().find(|leaf| leaf.module.magnitude.is_none());
    let reason = match plain {
        _ if embedding && model.tied_embeddings => {
            "mlx-lm's adapter of an embedding table that is the output projection as well acts on both sides; this one acts on the \
             input side alone"
                .to_owned()
        }
        Some(leaf) if dora => {
            format!("mlx-lm has DoRA on all modules of an adapter or on none, but {} has none here", leaf.name)
        }
        _ => return Ok(()),
    };
    Err(FormatError::Inexpressible { reason })
}

/// `module` with the rank `rank`, and B times `factor`.
fn filled(module: &AdapterModule, rank: usize, factor: f32) -> AdapterModule {
    let own = module.rank();
    if (own, factor) == (rank, 1.0) {
        return module.clone();
    }
    let (mut a, b) = (module.a.to_f32(), module.b.to_f32());
    a.resize(a.len() / own * rank, 0.0);
    let zeros = vec![0.0; rank - own];
    let rows = b.chunks_exact(own).flat_map(|row| row.iter().map(|b| b * factor).chain(zeros.iter().copied()));
    let tensor = |shape: Vec<usize>, values: Vec<f32>| {
        Tensor::from_f32(shape, values).unwrap_or_else(|_| unreachable!("a matrix has whole rows"))
    };
    AdapterModule {
        alpha: module.alpha,
        b: tensor(vec![b.len() / own, rank], rows.collect()),
        a: tensor(vec![rank, a.len() / rank], a),
        magnitude: module.magnitude.clone(),
    }
}

/// The value that most have.
fn most_common(values: impl Iterator<Item = f32>) -> f32 {
    let mut counts: Vec<(f32, usize)> = Vec::new();
    for value in values {
        match counts.iter_mut().find(|(known, _)| *known == value) {
            Some((_, count)) => *count += 1,
            None => counts.push((value, 1)),
        }
    }
    counts.into_iter().max_by_key(|(_, count)| *count).map_or(1.0, |(value, _)| value)
}

/// What stands behind the number of the layer, by which mlx-lm means the modules of all layers: `self_attn.q_proj`.
fn within_layer(name: &str) -> &str {
    name.split_once("layers.").and_then(|(_, rest)| rest.split_once('.')).map_or(name, |(_, rest)| rest)
}

fn layout<'a>(members: &'a dyn Fn(&Target) -> Vec<Member>) -> Layout<'a> {
    Layout { members, key: &tensor_name, transposed: |_, part| part != Part::Magnitude }
}

fn tensor_name(_: &Target, module: &str, part: Part) -> String {
    let key = match part {
        Part::A => "lora_a",
        Part::B => "lora_b",
        Part::Magnitude => "m",
    };
    format!("{module}.{key}")
}
