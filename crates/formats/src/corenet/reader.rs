//! Reading `.pt` files: state dicts, averages and training checkpoints.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use openelm_model::{DType, tensor_specs};
use pytorch_reader::{PytorchError, PytorchReader, Tensor};

use super::{general_gpt, nesting};
use crate::inferred::Sizes;
use crate::stored::{Format, Source, StoredModel};
use crate::tokenizer::StoredTokenizer;
use crate::{FormatError, lfs};

/// What CoreNet's own configurations set where none is at hand.
const CONTEXT_LENGTH: usize = 2048;

/// Reads the model at `path`: a `.pt` file, or a folder with one. Its YAML is looked for beside it; without one the geometry
/// is worked out from the shapes.
///
/// # Errors
/// See [`FormatError`].
pub fn read(path: &Path) -> Result<StoredModel, FormatError> {
    let file = if path.is_dir() { weights_in(path)? } else { path.to_owned() };
    let folder = file.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new(".")).to_owned();
    let mut tensors = tensors(&file)?;
    let shapes: HashMap<String, Vec<usize>> =
        tensors.iter().map(|(name, tensor)| (name.clone(), tensor.shape().to_vec())).collect();

    let mut notes = Vec::new();
    let described = general_gpt(&folder)?;
    let architecture = described.as_ref().map(|gpt| gpt.architecture(&folder)).transpose()?.flatten();
    let config = match architecture {
        Some(config) => config,
        None => {
            let context = described.as_ref().map_or(CONTEXT_LENGTH, |gpt| gpt.max_context_length);
            let unknown = || {
                let reason = "its tensors do not tell the geometry; put the YAML it was trained with beside it, and \
                              gpt_config.json if that names an architecture of your own";
                FormatError::Config { path: file.clone(), reason: reason.to_owned() }
            };
            let sizes = Sizes::from_shapes(&shapes, context).ok_or_else(unknown)?;
            let geometry = |source| FormatError::Geometry { path: file.clone(), source };
            notes.push("no configuration was found that describes it: the geometry is that of its shapes".to_owned());
            sizes.into_config().map_err(geometry)?
        }
    };
    let mut sources = HashMap::new();
    for spec in tensor_specs(&config) {
        let wrong = |reason: String| FormatError::Tensor { name: spec.name.clone(), path: file.clone(), reason };
        let expected = &spec.shape;
        let Some(tensor) = tensors.remove(&spec.name) else {
            return Err(wrong(format!("it is missing; expected {expected:?}")));
        };
        if tensor.shape() != expected {
            return Err(wrong(format!("expected {expected:?}, found {:?}", tensor.shape())));
        }
        let Some(dtype) = float(tensor.dtype()) else {
            return Err(wrong(format!("its dtype {:?} cannot be read; F32, F16 and BF16 can", tensor.dtype())));
        };
        sources.insert(spec.name, Source::Pytorch(Box::new(tensor), dtype));
    }
    tensors.retain(|name, _| !name.contains("lora_") && !name.contains("rotary") && !name.contains("inv_freq"));
    if let Some(name) = tensors.into_keys().min() {
        let reason = "the model has no such tensor; does the configuration belong to these weights?".to_owned();
        return Err(FormatError::Tensor { name, path: file, reason });
    }
    Ok(StoredModel {
        config,
        format: Format::CoreNet,
        path: path.to_owned(),
        tokenizer: StoredTokenizer::beside(&folder),
        files: vec![file],
        notes,
        config_json: None,
        generation_config: None,
        maps: Vec::new(),
        sources,
    })
}

/// The float dtype of a dtype of PyTorch.
pub(crate) fn float(dtype: pytorch_reader::DType) -> Option<DType> {
    match dtype {
        pytorch_reader::DType::F32 => Some(DType::F32),
        pytorch_reader::DType::F16 => Some(DType::F16),
        pytorch_reader::DType::BF16 => Some(DType::BF16),
        _ => None,
    }
}

/// The `.pt` file in `folder`: the average or the last checkpoint if there is one, or the only one.
pub(crate) fn weights_in(folder: &Path) -> Result<PathBuf, FormatError> {
    let entries = std::fs::read_dir(folder).map_err(FormatError::io(folder))?;
    let mut files: Vec<PathBuf> = entries.filter_map(|entry| Some(entry.ok()?.path())).collect();
    files.retain(|path| path.extension().is_some_and(|extension| extension == "pt"));
    files.sort();
    for preferred in ["checkpoint_average.pt", "checkpoint_last.pt"] {
        if let Some(file) = files.iter().find(|path| path.ends_with(preferred)) {
            return Ok(file.clone());
        }
    }
    match &files[..] {
        [file] => Ok(file.clone()),
        [] => Err(FormatError::NoModel { path: folder.to_owned(), missing: "a .pt file".to_owned() }),
        several => {
            let reason = format!("holds {} .pt files; name the one you mean", several.len());
            Err(FormatError::Config { path: folder.to_owned(), reason })
        }
    }
}

/// Refuses a file that is damaged or cut.
pub(crate) fn check_whole(path: &Path) -> Result<(), FormatError> {
    tensors(path).map(drop)
}

/// The tensors of a state dict by CoreNet's names, or those of the model in a training checkpoint.
pub(crate) fn tensors(file: &Path) -> Result<HashMap<String, Tensor>, FormatError> {
    let damaged = |e: PytorchError| match e {
        PytorchError::Io(source) => FormatError::Io { path: file.to_owned(), source },
        other => FormatError::Damaged { path: file.to_owned(), kind: "PyTorch", reason: other.to_string() },
    };
    lfs::refuse_pointer_at(file)?;
    Ok(nesting::unwrapped(PytorchReader::new(file).map_err(damaged)?.into_tensors()))
}
