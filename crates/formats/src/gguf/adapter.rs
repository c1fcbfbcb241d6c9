//! Adapters for llama.cpp's `--lora`: a file whose `general.type` is `adapter`, with a pair of factors for each tensor of the model.
//!
//! ```text
//! adapter.lora.alpha          one for all; each change is scaled by it over its rank; 0 stands for a scale of 1
//! NAME.lora_a, NAME.lora_b    beside NAME, a matrix of the model: blk.0.attn_q.weight.lora_a
//! ```
//!
//! Rows of B of queries and keys stand in the order in which the family's files have those of the matrix.

use std::collections::{BTreeMap, HashMap};
use std::io::{self, Write};
use std::path::Path;

use bytes::Bytes;
use openelm_kernels::MappedFile;
use openelm_model::{Adapter, AdapterOptions, DType, ModelConfig, Part, Target, Tensor, targets};

use super::names::places;
use super::parse::{Value, parse};
use super::rotation::{interleaved, is_interleaved, untangled_part};
use super::types::{encoding_of, file_type, kind_of};
use super::writer::{Values, put_text};
use super::{ALIGNMENT, MAGIC};
use crate::adapter::{Announced, Layout, Leaf, Member, Settings, assemble, leaves};
use crate::{FormatError, atomic};

/// Reads the adapter in the file at `path`, which must fit `model`.
///
/// # Errors
/// See [`FormatError`]: the message names the file, and the tensor where one is at fault. One that is at work behind certain tokens
/// only (aLoRA) is refused.
pub fn read(path: &Path, model: &ModelConfig) -> Result<Adapter, FormatError> {
    let map = MappedFile::open(path).map_err(FormatError::io(path))?;
    from_bytes(Bytes::from_owner(map), path, model)
}

/// Reads an adapter in memory; `path` is for messages.
///
/// # Errors
/// See [`read`].
pub fn from_bytes(bytes: Bytes, path: &Path, model: &ModelConfig) -> Result<Adapter, FormatError> {
    let damaged = |reason: String| FormatError::Damaged { path: path.to_owned(), kind: "GGUF", reason };
    let wrong = |reason: String| FormatError::Config { path: path.to_owned(), reason };
    let header = parse(&bytes).map_err(damaged)?;
    let text = |key: &str| header.values.get(key).and_then(Value::as_text).unwrap_or("not said");
    let expected =
        [("general.type", "adapter"), ("adapter.type", "lora"), ("general.architecture", model.family.name())];
    if let Some((key, expected)) = expected.into_iter().find(|(key, expected)| text(key) != *expected) {
        return Err(wrong(format!("{key} is {}; an adapter for this model has {expected}", text(key))));
    }
    if header.values.contains_key("adapter.alora.invocation_tokens") {
        return Err(wrong("it is at work behind certain tokens only (aLoRA), which cannot be followed".to_owned()));
    }
    let alpha = header.values.get("adapter.lora.alpha").map_or(Some(0.0), Value::as_f64);
    let alpha = alpha.ok_or_else(|| wrong("adapter.lora.alpha is no number".to_owned()))?;
    let turned = turned(model);
    let mut announced = HashMap::new();
    for info in header.tensors {
        let encoding = encoding_of(info.kind);
        let (name, shape, offset) = (info.name.clone(), info.shape.clone(), info.offset);
        let size = encoding.and_then(|encoding| encoding.bytes_of(&info.shape));
        let head_dim = info.name.strip_suffix(B).filter(|module| turned.contains_key(*module)).map(|_| model.head_dim);
        let file = bytes.clone();
        let dtype = encoding.and_then(|encoding| encoding.dtype());
        let take = move || {
            let end = size.and_then(|size| offset.checked_add(size)).filter(|&end| end <= file.len());
            let end =
                end.ok_or_else(|| io::Error::other(format!("tensor {name} reaches beyond the end of the file")))?;
            let slice = file.slice(offset..end);
            let (Some(head_dim), Some(dtype)) = (head_dim, dtype) else { return Ok(slice) };
            let tensor = Tensor::new(dtype, shape, slice).map_err(io::Error::other)?;
            Ok(untangled_part(&tensor, head_dim).bytes().clone())
        };
        let tensor = Announced { shape: info.shape, dtype, bytes: Box::new(take) };
        if announced.insert(info.name.clone(), tensor).is_some() {
            return Err(damaged(format!("tensor {} is there twice", info.name)));
        }
    }
    let options = AdapterOptions { dropout: 0.0, rs_lora: false, base_model: None };
    let members = |target: &Target| members(model, target);
    let settings_of = |_: &str, rank: usize| {
        let alpha = if alpha == 0.0 { rank as f64 } else { alpha };
        Some(Settings { rank: rank.max(1), alpha, dora: false })
    };
    let modules = assemble(announced, &targets(model), path, &layout(&members), &options, &settings_of)?;
    Adapter::new(model, options, modules).map_err(|e| wrong(e.to_string()))
}

/// Writes `adapter` as the file `target`; `name` is what llama.cpp shows. Where modules are scaled otherwise than alpha over rank,
/// the difference goes into B.
///
/// # Errors
/// If llama.cpp cannot express the adapter (DoRA, or a table that is the output projection as well), a file is there already, or
/// the system cannot write.
pub fn write(target: &Path, name: &str, adapter: &Adapter) -> Result<(), FormatError> {
    if target.exists() {
        return Err(FormatError::Exists { path: target.to_owned() });
    }
    let model = adapter.config();
    let members = |target: &Target| members(model, target);
    let layout = layout(&members);
    let mut leaves = leaves(adapter, &layout)?;
    check_expressible(model, &leaves)?;
    // The first of them decides: for most adapters it is the same for all. None of them can be zero in the file.
    let of_leaf = |leaf: &Leaf<'_>| adapter.options.scale(&leaf.module) * leaf.module.rank() as f32;
    let alpha = leaves.iter().map(of_leaf).find(|&alpha| alpha != 0.0).unwrap_or(1.0);
    let turned = turned(model);
    for leaf in &mut leaves {
        let factor = of_leaf(leaf) / alpha;
        let b = &mut leaf.module.b;
        if factor != 1.0 {
            let values = b.to_f32().iter().map(|b| b * factor).collect();
            *b = Tensor::from_f32(b.shape().to_vec(), values)?;
        }
        if let Some(head_dim) = turned.get(&leaf.name) {
            *b = interleaved(b, *head_dim);
        }
    }
    let tensors: Vec<(String, Tensor, DType)> = leaves.iter().flat_map(|leaf| leaf.tensors(&layout)).collect();
    let header = header(name, model, alpha, &tensors).map_err(|reason| FormatError::Inexpressible { reason })?;
    let written = atomic::write_file(target, |file| {
        file.write_all(&header)?;
        for (_, tensor, _) in &tensors {
            let bytes = tensor.bytes();
            file.write_all(bytes)?;
            file.write_all(&vec![0; bytes.len().next_multiple_of(ALIGNMENT) - bytes.len()])?;
        }
        Ok(())
    });
    written.map_err(FormatError::io(target))
}

fn header(name: &str, model: &ModelConfig, alpha: f32, tensors: &[(String, Tensor, DType)]) -> Result<Vec<u8>, String> {
    let mut values = Values::default();
    values.text("general.architecture", model.family.name());
    values.text("general.type", "adapter");
    values.text("general.name", name);
    values.text("adapter.type", "lora");
    values.float("adapter.lora.alpha", alpha);
    let main = tensors.first().map_or(openelm_model::Encoding::Float(DType::F32), |(_, tensor, _)| tensor.encoding());
    values.size("general.file_type", file_type(main) as usize)?;
    values.size("general.quantization_version", 2)?;
    let (mut infos, mut offset) = (Vec::new(), 0usize);
    for (name, tensor, _) in tensors {
        put_text(&mut infos, name);
        infos.extend((tensor.shape().len() as u32).to_le_bytes());
        // The file has them innermost first.
        tensor.shape().iter().rev().for_each(|&d| infos.extend((d as u64).to_le_bytes()));
        let kind = kind_of(tensor.encoding()).ok_or_else(|| format!("GGUF has no {}", tensor.encoding()))?;
        infos.extend(kind.to_le_bytes());
        infos.extend((offset as u64).to_le_bytes());
        offset += tensor.bytes().len().next_multiple_of(ALIGNMENT);
    }
    let mut out = MAGIC.to_vec();
    out.extend(3u32.to_le_bytes());
    out.extend((tensors.len() as u64).to_le_bytes());
    out.extend(values.count.to_le_bytes());
    out.extend(values.bytes);
    out.extend(infos);
    out.resize(out.len().next_multiple_of(ALIGNMENT), 0);
    Ok(out)
}

fn check_expressible(model: &ModelConfig, leaves: &[Leaf<'_>]) -> Result<(), FormatError> {
    let refused = [
        (leaves.iter().any(|leaf| leaf.module.magnitude.is_some()), "no DoRA; fuse it into the model, or train LoRA"),
        (
            model.tied_embeddings && leaves.iter().any(|leaf| leaf.target.embedding),
            "no adapter of an embedding table that is the output projection as well",
        ),
    ];
    match refused.iter().find(|(found, _)| *found) {
        Some((_, what)) => {
            Err(FormatError::Inexpressible { reason: format!("adapters of llama.cpp (GGUF) know {what}") })
        }
        None => Ok(()),
    }
}

/// Files name the tensor, `.weight` and all.
fn members(model: &ModelConfig, target: &Target) -> Vec<Member> {
    let places = places(model, target.site);
    let names: Vec<String> = places.iter().map(|place| place.name.clone()).collect();
    let members = Member::at(places, target);
    members.into_iter().zip(names).map(|(member, name)| Member { name, ..member }).collect()
}

/// The matrices whose rows files have in the order of neighbours, with the width of their heads: queries and keys.
fn turned(model: &ModelConfig) -> BTreeMap<String, usize> {
    let layers = targets(model).into_iter().filter(|target| is_interleaved(model.family, target.site.role));
    layers
        .flat_map(|target| places(model, target.site).into_iter().take(2))
        .map(|place| (place.name, model.head_dim))
        .collect()
}

const B: &str = ".lora_b";

fn layout<'a>(members: &'a dyn Fn(&Target) -> Vec<Member>) -> Layout<'a> {
    // llama.cpp takes rows of the embedding's A by their ids.
    Layout { members, key: &tensor_name, transposed: |target, part| target.embedding && part == Part::A }
}

fn tensor_name(_: &Target, tensor: &str, part: Part) -> String {
    match part {
        Part::A => format!("{tensor}.lora_a"),
        Part::B => format!("{tensor}{B}"),
        // Nothing has this name: DoRA is refused.
        Part::Magnitude => format!("{tensor}.lora_magnitude"),
    }
}
