//! A model as it was found on disk, whatever its format: geometry, tensors by CoreNet's names, tokenizer.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use openelm::{DType, Encoding, Model, ModelConfig, Tensor, TensorSpec, Tokenizer, tensor_specs};

use crate::FormatError;

/// The formats that models come in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// Hugging Face: `config.json` and safetensors with the prefix `transformer.`.
    HuggingFace,
    /// CoreNet: a `.pt` file with its YAML.
    CoreNet,
    /// MLX: as Hugging Face, perhaps in affine groups; or as CoreNet's own converter writes it.
    Mlx,
    /// GGUF: one file with everything.
    Gguf,
}

impl std::fmt::Display for Format {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Format::HuggingFace => "Hugging Face",
            Format::CoreNet => "CoreNet",
            Format::Mlx => "MLX",
            Format::Gguf => "GGUF",
        })
    }
}

/// Where a model's tokenizer is.
#[derive(Debug, Clone)]
pub enum StoredTokenizer {
    /// In a file beside the weights: `tokenizer.model` or `tokenizer.json`.
    File(PathBuf),
    /// In the weights' own file, put together as a SentencePiece model.
    SentencePiece(Bytes),
}

impl StoredTokenizer {
    /// The tokenizer beside the weights in `folder`, if there is one.
    pub(crate) fn beside(folder: &Path) -> Option<Self> {
        Tokenizer::find(folder).ok().map(StoredTokenizer::File)
    }

    /// The tokenizer, ready to use.
    ///
    /// # Errors
    /// If it is damaged or cannot be read.
    pub fn open(&self) -> Result<Tokenizer, FormatError> {
        Ok(match self {
            StoredTokenizer::File(path) => Tokenizer::open(path)?,
            StoredTokenizer::SentencePiece(bytes) => Tokenizer::from_sentencepiece(bytes)?,
        })
    }
}

/// Where a tensor's bytes are.
#[derive(Debug)]
pub(crate) enum Source {
    /// In a mapped file, or in memory.
    Tensor(Tensor),
    /// In a `.pt` file, read when asked for.
    Pytorch(Box<pytorch_reader::Tensor>, DType),
    /// In two tensors, the rows of one above those of the other.
    Stacked(Tensor, Tensor),
}

/// A model on disk: every tensor that the geometry asks for is there, in the right shape. Tensors are loaded one by one.
#[derive(Debug)]
pub struct StoredModel {
    /// The geometry.
    pub config: ModelConfig,
    /// The format it was found in.
    pub format: Format,
    /// The file or folder.
    pub path: PathBuf,
    /// The files that hold the weights.
    pub files: Vec<PathBuf>,
    /// Its tokenizer, if one was found.
    pub tokenizer: Option<StoredTokenizer>,
    /// What was guessed or is odd about it, in sentences.
    pub notes: Vec<String>,
    /// The `config.json` it came with, where the format has one: it may say more than the geometry.
    pub(crate) config_json: Option<serde_json::Value>,
    pub(crate) sources: HashMap<String, Source>,
}

impl StoredModel {
    /// The tensor of CoreNet's `name`.
    ///
    /// # Errors
    /// If there is no such tensor, or the file cannot be read.
    pub fn tensor(&self, name: &str) -> Result<Tensor, FormatError> {
        let wrong = |reason: String| FormatError::Tensor { name: name.to_owned(), path: self.path.clone(), reason };
        let tensor = match self.sources.get(name).ok_or_else(|| wrong("there is none".to_owned()))? {
            Source::Tensor(tensor) => tensor.clone(),
            Source::Pytorch(tensor, dtype) => {
                let bytes = tensor.read().map_err(FormatError::io(&self.path))?;
                Tensor::new(*dtype, tensor.shape().to_vec(), bytes.into()).map_err(|e| wrong(e.to_string()))?
            }
            Source::Stacked(above, below) => stack(above, below).map_err(|e| wrong(e.to_string()))?,
        };
        // The embedding table may have been cut.
        let rows = self.config.vocab_size;
        let of_vocabulary = matches!(name, "token_embeddings.weight" | "classifier.weight");
        Ok(if of_vocabulary && tensor.shape()[0] > rows { tensor.first_rows(rows) } else { tensor })
    }

    /// How the tensor of CoreNet's `name` is stored, if there is one; of two stacked ones the upper.
    pub fn encoding(&self, name: &str) -> Option<Encoding> {
        Some(match self.sources.get(name)? {
            Source::Tensor(tensor) | Source::Stacked(tensor, _) => tensor.encoding(),
            Source::Pytorch(_, dtype) => Encoding::Float(*dtype),
        })
    }

    /// The tensors that the geometry asks for.
    pub fn specs(&self) -> Vec<TensorSpec> {
        tensor_specs(&self.config)
    }

    /// Bytes of all weights.
    pub fn size(&self) -> usize {
        let size = |spec: &TensorSpec| self.encoding(&spec.name).and_then(|encoding| encoding.bytes_of(&spec.shape));
        self.specs().iter().filter_map(size).sum()
    }

    /// Keeps the first `rows` rows of the vocabulary: CoreNet pads LLaMA's 32000 pieces to 32128.
    ///
    /// # Errors
    /// If it has fewer, or none would be left.
    pub fn trim_vocabulary(&mut self, rows: usize) -> Result<(), FormatError> {
        let found = self.config.vocab_size;
        if rows == 0 || rows > found {
            let reason = format!("the vocabulary has {found} rows and cannot be cut to {rows}");
            return Err(FormatError::Config { path: self.path.clone(), reason });
        }
        self.config.vocab_size = rows;
        if let Some(config) = &mut self.config_json {
            config["vocab_size"] = rows.into();
        }
        Ok(())
    }

    /// The model, ready to run. Mapped tensors stay in their files.
    ///
    /// # Errors
    /// If a tensor cannot be read.
    pub fn into_model(self) -> Result<Model, FormatError> {
        let load = |spec: TensorSpec| Ok((self.tensor(&spec.name)?, spec.name));
        let tensors: Result<HashMap<String, Tensor>, FormatError> =
            self.specs().into_iter().map(load).map(|loaded| loaded.map(|(tensor, name)| (name, tensor))).collect();
        let wrong = |e: openelm::ModelError| FormatError::Config { path: self.path.clone(), reason: e.to_string() };
        Model::new(self.config.clone(), tensors?).map_err(wrong)
    }
}

/// The rows of `above` over those of `below`: their bytes one after the other where they are stored alike, `f32` otherwise.
fn stack(above: &Tensor, below: &Tensor) -> Result<Tensor, openelm::TensorError> {
    let shape = vec![above.shape()[0] + below.shape()[0], above.shape()[1]];
    let joined = || -> Bytes { [&above.bytes()[..], &below.bytes()[..]].concat().into() };
    match (above.encoding(), below.encoding()) {
        (Encoding::Float(dtype), other) if other == Encoding::Float(dtype) => Tensor::new(dtype, shape, joined()),
        (Encoding::Blocks(format), other) if other == Encoding::Blocks(format) => {
            Tensor::blocks(format, shape, joined())
        }
        _ => Tensor::from_f32(shape, [above.to_f32(), below.to_f32()].concat()),
    }
}
