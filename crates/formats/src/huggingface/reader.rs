//! Reading: a folder's files, mapped; or the two files of a small model from memory.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::{Path, PathBuf};

use bytes::Bytes;
use openelm::{DType, Model, ModelConfig, Tensor, tensor_specs};
use openelm_kernels::MappedFile;
use safetensors::{Dtype, SafeTensors};
use serde::Deserialize;

use super::{config_from_json, corenet_name, file_name_of};
use crate::FormatError;

/// A model as it was found: every tensor that the geometry asks for is there, in the right shape.
#[derive(Debug)]
pub struct Loaded {
    /// The geometry.
    pub config: ModelConfig,
    /// Tensors by CoreNet's names, their bytes still in the file.
    pub tensors: HashMap<String, Tensor>,
    path: PathBuf,
}

impl Loaded {
    /// The model, ready to run.
    ///
    /// # Errors
    /// If a tensor does not fit the geometry.
    pub fn into_model(self) -> Result<Model, FormatError> {
        let Self { config, tensors, path } = self;
        Model::new(config, tensors).map_err(|e| FormatError::Config { path, reason: e.to_string() })
    }
}

/// Reads the model in `folder`.
///
/// # Errors
/// See [`FormatError`]: the message names the file, and the tensor where one is at fault.
pub fn read(folder: &Path) -> Result<Loaded, FormatError> {
    let config_path = folder.join("config.json");
    let config_text = match std::fs::read(&config_path) {
        Ok(text) => text,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound && folder.exists() => {
            return Err(FormatError::NoModel { path: folder.to_owned(), missing: "config.json".to_owned() });
        }
        Err(e) => return Err(FormatError::io(&config_path)(e)),
    };
    let config = config_from_json(&config_text, &config_path)?;
    let mut tensors = Tensors::new(&config);
    for path in weight_files(folder)? {
        let map = MappedFile::open(&path).map_err(FormatError::io(&path))?;
        tensors.add(Bytes::from_owner(map), &path)?;
    }
    tensors.finish(config, folder)
}

/// Reads a model whose `config.json` and `model.safetensors` are in memory; `name` stands for the file in messages.
///
/// # Errors
/// See [`FormatError`].
pub fn from_bytes(config: &[u8], weights: Bytes, name: &str) -> Result<Loaded, FormatError> {
    let path = Path::new(name);
    let config = config_from_json(config, path)?;
    let mut tensors = Tensors::new(&config);
    tensors.add(weights, path)?;
    tensors.finish(config, path)
}

/// `model.safetensors`, or the shards that its index names.
fn weight_files(folder: &Path) -> Result<BTreeSet<PathBuf>, FormatError> {
    #[derive(Deserialize)]
    struct Index {
        weight_map: BTreeMap<String, String>,
    }
    let single = folder.join("model.safetensors");
    let index_path = folder.join("model.safetensors.index.json");
    if !index_path.exists() {
        if !single.exists() {
            return Err(FormatError::NoModel { path: folder.to_owned(), missing: "model.safetensors".to_owned() });
        }
        return Ok(BTreeSet::from([single]));
    }
    let text = std::fs::read(&index_path).map_err(FormatError::io(&index_path))?;
    let wrong = |reason: String| FormatError::Config { path: index_path.clone(), reason };
    let index: Index = serde_json::from_slice(&text).map_err(|e| wrong(e.to_string()))?;
    let mut files = BTreeSet::new();
    for file in index.weight_map.values() {
        // A shard lies beside its index: anything else could make us open a file of someone's choosing.
        if Path::new(file).file_name().is_none_or(|name| name != file.as_str()) {
            return Err(wrong(format!("names the shard {file:?}; shards lie in the folder of their index")));
        }
        let path = folder.join(file);
        if !path.exists() {
            return Err(FormatError::NoModel { path: folder.to_owned(), missing: file.clone() });
        }
        files.insert(path);
    }
    Ok(files)
}

/// Collects the tensors of one model from its files.
struct Tensors {
    expected: HashMap<String, Vec<usize>>,
    found: HashMap<String, Tensor>,
    tied: bool,
}

impl Tensors {
    fn new(config: &ModelConfig) -> Self {
        let expected = tensor_specs(config).into_iter().map(|spec| (spec.name, spec.shape)).collect();
        Self { expected, found: HashMap::new(), tied: config.tied_embeddings }
    }

    fn add(&mut self, bytes: Bytes, path: &Path) -> Result<(), FormatError> {
        let damaged = |reason: String| FormatError::Damaged { path: path.to_owned(), reason };
        if bytes.is_empty() {
            return Err(damaged("it is empty".to_owned()));
        }
        let file = SafeTensors::deserialize(&bytes).map_err(|e| damaged(e.to_string()))?;
        for (name, view) in file.iter() {
            let wrong = |reason: String| FormatError::Tensor { name: name.to_owned(), path: path.to_owned(), reason };
            let Some(corenet) = corenet_name(name) else { continue };
            let Some(shape) = self.expected.get(&corenet) else {
                if corenet == "classifier.weight" && self.tied {
                    continue;
                }
                return Err(wrong(
                    "the model has no such tensor; does config.json belong to these weights?".to_owned(),
                ));
            };
            if view.shape() != shape {
                return Err(wrong(format!("expected {shape:?}, found {:?}", view.shape())));
            }
            let dtype = match view.dtype() {
                Dtype::F32 => DType::F32,
                Dtype::F16 => DType::F16,
                Dtype::BF16 => DType::BF16,
                other => return Err(wrong(format!("its dtype {other:?} cannot be read; F32, F16 and BF16 can"))),
            };
            let tensor = Tensor::new(dtype, shape.clone(), bytes.slice_ref(view.data()));
            let tensor = tensor.map_err(|e| wrong(e.to_string()))?;
            if self.found.insert(corenet, tensor).is_some() {
                return Err(wrong("it is in another file too".to_owned()));
            }
        }
        Ok(())
    }

    fn finish(self, config: ModelConfig, path: &Path) -> Result<Loaded, FormatError> {
        for spec in tensor_specs(&config) {
            if !self.found.contains_key(&spec.name) {
                let reason = format!("it is missing; expected {:?}", spec.shape);
                return Err(FormatError::Tensor { name: file_name_of(&spec.name), path: path.to_owned(), reason });
            }
        }
        Ok(Loaded { config, tensors: self.found, path: path.to_owned() })
    }
}
