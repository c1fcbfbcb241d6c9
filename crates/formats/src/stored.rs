//! A model as it was found on disk, whatever its format: geometry, tensors by CoreNet's names, tokenizer.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use openelm_kernels::quant::BlockFormat;
use openelm_kernels::{Heads, MappedFile, Packed, Threads};
use openelm_model::{DType, Encoding, Loaded, Model, ModelConfig, Stack, Tensor, TensorSpec, Tokenizer, tensor_specs};

use serde_json::Value;

use crate::fused::{self, Fusion};
use crate::tokenizer::StoredTokenizer;
use crate::{FormatError, corenet, gguf, huggingface, shards};

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
    /// A bundle: a folder as a device maps it.
    Bundle,
}

impl std::fmt::Display for Format {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Format::HuggingFace => "Hugging Face",
            Format::CoreNet => "CoreNet",
            Format::Mlx => "MLX",
            Format::Gguf => "GGUF",
            Format::Bundle => "bundle",
        })
    }
}

/// Where a tensor's bytes are.
#[derive(Debug)]
pub(crate) enum Source {
    /// In a mapped file, or in memory.
    Tensor(Tensor),
    /// In a `.pt` file, read when asked for.
    #[cfg(feature = "corenet")]
    Pytorch(Box<pytorch_reader::Tensor>, DType),
    /// In a mapped file, in panels that were made of such blocks.
    Panels(BlockFormat, Arc<Packed>),
    /// In several tensors, the rows of one above those of the next.
    Stacked(Stack),
    /// The same, where queries and keys lie in the order of llama.cpp's rotation, pairs side by side.
    Interleaved(Stack, Heads),
    /// Somewhere, and changed by adapters when asked for.
    Fused(Box<Source>, Arc<Fusion>),
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
    pub(crate) config_json: Option<Value>,
    /// The `generation_config.json` beside it.
    pub(crate) generation_config: Option<Value>,
    pub(crate) sources: HashMap<String, Source>,
    /// The files as far as they are mapped.
    pub(crate) maps: Vec<MappedFile>,
}

impl StoredModel {
    /// The tensor of CoreNet's `name`.
    ///
    /// # Errors
    /// If there is no such tensor, or the file cannot be read.
    pub fn tensor(&self, name: &str) -> Result<Tensor, FormatError> {
        Ok(self.stack(name)?.joined())
    }

    /// The same in the parts that it is stored in.
    fn stack(&self, name: &str) -> Result<Stack, FormatError> {
        match self.sources.get(name) {
            Some(source) => self.read(name, source),
            None => {
                let (name, path, reason) = (name.to_owned(), self.path.clone(), "there is none".to_owned());
                Err(FormatError::Tensor { name, path, reason })
            }
        }
    }

    fn read(&self, name: &str, source: &Source) -> Result<Stack, FormatError> {
        let wrong = |reason: String| FormatError::Tensor { name: name.to_owned(), path: self.path.clone(), reason };
        let tensor = match source {
            Source::Fused(base, fusion) => return Ok(fusion.apply(&self.read(name, base)?.joined()).into()),
            Source::Tensor(tensor) => tensor.clone(),
            #[cfg(feature = "corenet")]
            Source::Pytorch(tensor, dtype) => {
                let bytes = tensor.read().map_err(FormatError::io(&self.path))?;
                Tensor::new(*dtype, tensor.shape().to_vec(), bytes.into()).map_err(|e| wrong(e.to_string()))?
            }
            Source::Panels(format, packed) => {
                let shape = vec![packed.rows(), packed.columns()];
                Tensor::blocks(*format, shape, packed.unpacked(*format).into()).map_err(|e| wrong(e.to_string()))?
            }
            Source::Stacked(parts) => return Ok(parts.clone()),
            Source::Interleaved(parts, heads) => return Ok(gguf::untangled(parts, *heads)),
        };
        // The embedding table may have been cut.
        let rows = self.config.vocab_size;
        let of_vocabulary = matches!(name, "token_embeddings.weight" | "classifier.weight");
        Ok(if of_vocabulary && tensor.shape()[0] > rows { tensor.first_rows(rows) } else { tensor }.into())
    }

    /// How the tensor of CoreNet's `name` is stored, if there is one; of several stacked ones the uppermost.
    pub fn encoding(&self, name: &str) -> Option<Encoding> {
        Some(match self.sources.get(name)? {
            Source::Tensor(tensor) => tensor.encoding(),
            Source::Stacked(parts) | Source::Interleaved(parts, _) => parts.parts()[0].encoding(),
            #[cfg(feature = "corenet")]
            Source::Pytorch(_, dtype) => Encoding::Float(*dtype),
            Source::Panels(format, _) => Encoding::Blocks(*format),
            Source::Fused(..) => fused::ENCODING,
        })
    }

    /// The tensors that the geometry asks for.
    pub fn specs(&self) -> Vec<TensorSpec> {
        tensor_specs(&self.config)
    }

    /// The `config.json` to write it with: its own, or one whose special tokens are those of its tokenizer.
    pub(crate) fn config_to_carry(&self, dtype: DType) -> Value {
        if let Some(json) = &self.config_json {
            return json.clone();
        }
        let mut json = huggingface::config_to_json(&self.config, dtype);
        if let Some(Ok(tokenizer)) = self.tokenizer.as_ref().map(StoredTokenizer::open) {
            json["bos_token_id"] = tokenizer.bos_id().into();
            json["eos_token_id"] = match tokenizer.eos_ids() {
                [] => Value::Null,
                &[id] => id.into(),
                several => several.into(),
            };
        }
        json
    }

    /// Puts what lies beside the weights into `folder`: the tokenizer, and how to generate.
    pub(crate) fn carry_along(&self, folder: &Path) -> Result<(), FormatError> {
        if let Some(generation_config) = &self.generation_config {
            shards::write_json(&folder.join("generation_config.json"), generation_config)?;
        }
        self.tokenizer.as_ref().map_or(Ok(()), |tokenizer| tokenizer.copy_into(folder))
    }

    /// The name under which Apple released this geometry, for example `OpenELM-270M`; `None` for any other.
    pub fn released_name(&self) -> Option<&'static str> {
        corenet::model_name(&self.config)
    }

    /// What it is called: as Apple released it, otherwise as its folder, or its file without the ending.
    pub fn name(&self) -> String {
        let own = if self.path.is_dir() { self.path.file_name() } else { self.path.file_stem() };
        let own = || own.map(|name| name.to_string_lossy().into_owned());
        self.released_name().map(str::to_owned).or_else(own).unwrap_or_else(|| "OpenELM".to_owned())
    }

    /// Every encoding with the number of tensors and of elements that are in it, in the order of the tensors.
    pub fn encodings(&self) -> Vec<(Encoding, usize, usize)> {
        let mut found: Vec<(Encoding, usize, usize)> = Vec::new();
        let mut count = |encoding: Encoding, size: usize| match found.iter_mut().find(|(known, ..)| *known == encoding)
        {
            Some((_, tensors, elements)) => (*tensors, *elements) = (*tensors + 1, *elements + size),
            None => found.push((encoding, 1, size)),
        };
        for spec in self.specs() {
            match (self.sources.get(&spec.name), self.encoding(&spec.name)) {
                (Some(Source::Stacked(parts) | Source::Interleaved(parts, _)), _) => {
                    parts.parts().iter().for_each(|part| count(part.encoding(), part.shape().iter().product()));
                }
                (_, Some(encoding)) => count(encoding, spec.len()),
                (_, None) => (),
            }
        }
        found
    }

    /// How most of the elements are stored.
    pub fn main_encoding(&self) -> Encoding {
        let most = self.encodings().into_iter().max_by_key(|(.., elements)| *elements);
        most.map_or(Encoding::Float(DType::F32), |(encoding, ..)| encoding)
    }

    /// Lets go of the pages of mapped files: what was read no longer counts as this process's memory.
    pub fn release(&self) {
        self.maps.iter().for_each(MappedFile::release);
    }

    /// Bytes of all weights.
    pub fn size(&self) -> usize {
        let size = |spec: &TensorSpec| match self.sources.get(&spec.name)? {
            Source::Stacked(parts) | Source::Interleaved(parts, _) => {
                Some(parts.parts().iter().map(Tensor::size).sum())
            }
            Source::Panels(_, packed) => Some(packed.size()),
            _ => self.encoding(&spec.name).and_then(|encoding| encoding.bytes_of(&spec.shape)),
        };
        self.specs().iter().filter_map(size).sum::<usize>()
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

    /// The tokenizer that comes with the model.
    ///
    /// # Errors
    /// If there is none, it cannot be read, or it is another model's.
    pub fn open_tokenizer(&self) -> Result<Tokenizer, FormatError> {
        let missing = || FormatError::NoTokenizer { path: self.path.clone(), what: "" };
        let tokenizer = self.tokenizer.as_ref().ok_or_else(missing)?.open()?;
        self.check_vocabulary(&tokenizer)?;
        Ok(tokenizer)
    }

    /// Whether the model has a row for each piece of `tokenizer`. Fewer pieces than rows are common: vocabularies are padded.
    ///
    /// # Errors
    /// If there are more pieces.
    pub fn check_vocabulary(&self, tokenizer: &Tokenizer) -> Result<(), FormatError> {
        let (pieces, rows) = (tokenizer.vocab_size(), self.config.vocab_size);
        if pieces > rows {
            return Err(FormatError::Vocabulary { path: self.path.clone(), pieces, rows });
        }
        Ok(())
    }

    /// The model, ready to run fast: quantised matrices are packed for the integer kernels (see [`Model::packing`]), one after
    /// the other, and their pages given back. A bundle's stay where they are mapped.
    ///
    /// # Errors
    /// If a tensor cannot be read.
    pub fn into_packed_model(self, threads: &Threads) -> Result<Model, FormatError> {
        let model = Model::packing(self.config.clone(), threads, |spec| {
            self.release();
            self.loaded(spec)
        });
        self.release();
        model
    }

    /// The tensor of `spec`, in panels where a file has it so.
    fn loaded(&self, spec: &TensorSpec) -> Result<Loaded, FormatError> {
        match self.sources.get(&spec.name) {
            // Of a vocabulary that was cut the panels have too many rows.
            Some(Source::Panels(_, packed)) if packed.rows() == spec.shape[0] => Ok(Loaded::Packed(packed.clone())),
            _ => Ok(self.stack(&spec.name)?.into()),
        }
    }

    /// The model, ready to run. Mapped tensors stay in their files.
    ///
    /// # Errors
    /// If a tensor cannot be read.
    pub fn into_model(self) -> Result<Model, FormatError> {
        let load = |spec: TensorSpec| Ok((self.stack(&spec.name)?, spec.name));
        let tensors: Result<HashMap<String, Stack>, FormatError> =
            self.specs().into_iter().map(load).map(|loaded| loaded.map(|(tensor, name)| (name, tensor))).collect();
        Ok(Model::new(self.config.clone(), tensors?)?)
    }
}
