//! CoreNet's layout: a `.pt` file with the adapter's tensors, alone or beside the model's, and the YAML that made them.

use std::collections::HashMap;
use std::io::Write;
use std::path::Path;

use openelm_model::kernels::Threads;
use openelm_model::{Adapter, ModelConfig, Part, Target, TensorSpec, targets};

use super::CORENET_WEIGHTS as WEIGHTS;
use super::corenet_config::{Config, to_yaml};
use super::members::Member;
use super::parts::{self, Announced, Layout};
use crate::corenet::{float, tensors, weights_in, write_state_dict};
use crate::{FormatError, atomic};

/// The name that CoreNet's configurations give their adapter.
pub(super) const ADAPTER_NAME: &str = "lora";

/// Reads the adapter at `path`, which must fit `model`: a `.pt` file, or a folder with one. Tensors of the model in the same
/// file are passed over. The YAML that the adapter was trained with is looked for beside it. Without one, an adapter of rank 32
/// is taken to have the settings of CoreNet's published configurations, with which the released ones were made.
///
/// # Errors
/// See [`FormatError`]: the message names the file, and the tensor where one is at fault.
pub fn read(path: &Path, model: &ModelConfig) -> Result<Adapter, FormatError> {
    let file = if path.is_dir() { weights_in(path)? } else { path.to_owned() };
    let folder = file.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let announced = tensors(&file)?.into_iter().filter(|(name, _)| name.contains(".lora_")).map(|(name, tensor)| {
        let (shape, dtype) = (tensor.shape().to_vec(), float(tensor.dtype()));
        (name, Announced { shape, dtype, bytes: Box::new(move || tensor.read().map(Into::into)) })
    });
    let announced: HashMap<String, Announced<'_>> = announced.collect();
    let targets = targets(model);
    let wrong = |reason: &str| FormatError::Config { path: file.clone(), reason: reason.to_owned() };
    if announced.is_empty() {
        return Err(wrong("it holds no adapter: none of its tensors is called lora_A or the like"));
    }
    let mut notes = Vec::new();
    let config = match Config::find(folder, &targets)? {
        Some(config) => config,
        None if is_published(&announced) => {
            notes.push("no YAML with model.lora lies beside it: alpha 32 and dropout 0.1 are CoreNet's own".to_owned());
            Config::published(&targets, announced.keys().any(|name| name.contains(".lora_magnitude_vector.")))
        }
        None => {
            return Err(wrong(
                "no YAML with model.lora lies beside it, which says what alpha is; put the one that it was trained with there",
            ));
        }
    };
    let layout = Layout {
        members: &|target| Member::whole(target.name.clone(), target),
        key: &|target, _, part| tensor_name(target, part, &config.adapter_name),
        transposed: |_, _| false,
    };
    let settings_of = |name: &str, _| config.settings.get(name).copied();
    let modules = parts::assemble(announced, &targets, &file, &layout, &config.options, &settings_of)?;
    let mut adapter = Adapter::new(model, config.options, modules).map_err(|e| wrong(&e.to_string()))?;
    adapter.notes = notes;
    Ok(adapter)
}

/// Whether the ranks are those of CoreNet's published configurations.
fn is_published(tensors: &HashMap<String, Announced<'_>>) -> bool {
    let mut inner = tensors.iter().filter(|(name, _)| name.contains("_A."));
    inner.all(|(_, tensor)| tensor.shape.first() == Some(&Config::PUBLISHED_RANK))
}

/// Writes `adapter.pt`, with the adapter's tensors alone, and the part `model.lora` of a recipe as `adapter.yaml` into
/// `folder`, which is made if need be.
///
/// # Errors
/// If an adapter is there already, or the system cannot write.
pub fn write(folder: &Path, adapter: &Adapter) -> Result<(), FormatError> {
    std::fs::create_dir_all(folder).map_err(FormatError::io(folder))?;
    let (weights, yaml) = (folder.join(WEIGHTS), folder.join("adapter.yaml"));
    for path in [&weights, &yaml] {
        if path.exists() {
            return Err(FormatError::Exists { path: path.clone() });
        }
    }
    let text = to_yaml(adapter)?;
    let mut specs = Vec::new();
    let mut by_name = HashMap::new();
    for (target, part, tensor, dtype) in adapter.tensors() {
        let name = tensor_name(target, part, ADAPTER_NAME);
        by_name.insert(name.clone(), tensor);
        specs.push((TensorSpec { name, shape: tensor.shape().to_vec() }, dtype));
    }
    let tensor = |spec: &TensorSpec| Ok(by_name[&spec.name].clone());
    write_state_dict(&weights, "adapter", &specs, &tensor, &Threads::single())?;
    // The configuration comes last: without it nothing says what alpha is.
    atomic::write_file(&yaml, |file| file.write_all(text.as_bytes())).map_err(FormatError::io(&yaml))
}

fn tensor_name(target: &Target, part: Part, adapter: &str) -> String {
    let (key, weight) = target.key(part);
    format!("{}.{key}.{adapter}{}", target.name, if weight { ".weight" } else { "" })
}
