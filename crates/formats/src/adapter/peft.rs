//! PEFT's layout: `adapter_config.json` beside `adapter_model.safetensors`.

use std::collections::HashMap;
use std::path::Path;

use bytes::Bytes;
use openelm_model::{Adapter, ModelConfig, Part, Target, targets};

use super::members::Member;
use super::parts::{self, Layout};
use super::peft_config::{Config, to_json};
use crate::FormatError;
use crate::huggingface::places;
use crate::shards::{self, Entry};
use crate::text;

/// The file that makes a folder an adapter of PEFT's.
pub(super) const CONFIG: &str = "adapter_config.json";
const WEIGHTS: &str = "adapter_model.safetensors";

/// Reads the adapter in `folder`, which must fit `model`. Keys of the configuration that are not known do not stop it: a later
/// PEFT may have added them. They are named in the notes if they switch something on.
///
/// # Errors
/// See [`FormatError`]: the message names the file, and the tensor where one is at fault. What changes the arithmetic of LoRA
/// or the base model (such as `lora_bias`, or an initialisation by PiSSA) is refused.
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
    let targets = targets(model);
    let wrong = |reason: String| FormatError::Config { path: config_path.to_owned(), reason };
    let members = |target: &Target| members(model, target);
    let names = names(&targets, &members);
    let config = Config::parse(text::plain(text, config_path)?, &names).map_err(wrong)?;
    let announced = parts::in_safetensors(weights, path)?;
    let layout = Layout { members: &members, key: &tensor_name, transposed: |_, _| false };
    let settings_of = |name: &str, _| config.settings.get(name).copied();
    let modules = parts::assemble(announced, &targets, path, &layout, &config.options, &settings_of)?;
    let mut adapter = Adapter::new(model, config.options, modules).map_err(|e| wrong(e.to_string()))?;
    adapter.notes = config.notes;
    Ok(adapter)
}

/// Writes `adapter` into `folder`, which is made if need be, as PEFT 0.21 does.
///
/// # Errors
/// If an adapter is there already, PEFT cannot express it (it has one kind of adapter for all modules: no DoRA on linear
/// modules beside LoRA on the embedding), or the system cannot write.
pub fn write(folder: &Path, adapter: &Adapter) -> Result<(), FormatError> {
    let members = |target: &Target| members(adapter.config(), target);
    let layout = Layout { members: &members, key: &tensor_name, transposed: |_, _| false };
    let leaves = parts::leaves(adapter, &layout)?;
    let config = to_json(adapter, &leaves, &names(adapter.targets(), &members))?;
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
    let metadata = HashMap::from([("format".to_owned(), "pt".to_owned())]);
    shards::write_file(&folder.join(WEIGHTS), &entries, Some(metadata))?;
    // The configuration comes last: without it the folder is no adapter.
    shards::write_json(&folder.join(CONFIG), &config)
}

/// The modules of the Hugging Face model, on which PEFT works, that `target` is.
pub(super) fn members(model: &ModelConfig, target: &Target) -> Vec<Member> {
    Member::at(places(model, target.site), target)
}

/// The names of the members of all `targets`.
pub(super) fn names(targets: &[Target], members: &dyn Fn(&Target) -> Vec<Member>) -> Vec<String> {
    targets.iter().flat_map(members).map(|member| member.name).collect()
}

fn tensor_name(target: &Target, module: &str, part: Part) -> String {
    let (key, weight) = target.key(part);
    format!("base_model.model.{module}.{key}{}", if weight { ".weight" } else { "" })
}
