//! A model's tokenizer, wherever it is, and carrying it along.

use std::io::Write;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use openelm_model::Tokenizer;
use prost::Message;
use sentencepiece_model::ModelProto;
use serde_json::{Value, json};

use crate::{FormatError, atomic, shards};

/// Where a model's tokenizer is.
#[derive(Debug, Clone)]
pub enum StoredTokenizer {
    /// In a file beside the weights, or elsewhere: a SentencePiece model or a `tokenizer.json`.
    File(PathBuf),
    /// In the weights' own file, put together as a SentencePiece model.
    SentencePiece(Bytes),
}

/// Files that other tools want beside a tokenizer's own.
const COMPANIONS: [&str; 6] = [
    "tokenizer.model",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "chat_template.jinja",
];

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

    /// The bytes of the SentencePiece model; `None` if the tokenizer is a `tokenizer.json` alone.
    ///
    /// # Errors
    /// If the file cannot be read.
    pub fn sentencepiece(&self) -> Result<Option<Bytes>, FormatError> {
        match self {
            StoredTokenizer::SentencePiece(bytes) => Ok(Some(bytes.clone())),
            StoredTokenizer::File(path) if is_json(path) => Ok(None),
            StoredTokenizer::File(path) => {
                let file = Tokenizer::find(path)?;
                Ok(Some(std::fs::read(&file).map_err(FormatError::io(&file))?.into()))
            }
        }
    }

    /// Puts the tokenizer into `folder`, with the files that other tools want beside it: without `tokenizer_config.json`
    /// transformers and mlx-lm would not put the token before a text that begins it.
    ///
    /// # Errors
    /// If a file cannot be read or written.
    pub fn copy_into(&self, folder: &Path) -> Result<(), FormatError> {
        self.copy_files_into(folder)?;
        let config = folder.join("tokenizer_config.json");
        match self.sentencepiece()?.as_deref().and_then(llama_config) {
            Some(described) if !config.exists() => shards::write_json(&config, &described),
            _ => Ok(()),
        }
    }

    fn copy_files_into(&self, folder: &Path) -> Result<(), FormatError> {
        let model = folder.join("tokenizer.model");
        match self {
            StoredTokenizer::SentencePiece(bytes) => write(&model, bytes),
            StoredTokenizer::File(path) => {
                let file = Tokenizer::find(path)?;
                let own = if is_json(&file) { folder.join("tokenizer.json") } else { model };
                copy(&file, &own)?;
                let is_companion = file.file_name().is_some_and(|name| COMPANIONS.iter().any(|other| name == *other));
                for name in COMPANIONS.iter().filter(|_| is_companion) {
                    let (from, to) = (file.with_file_name(name), folder.join(name));
                    if from.exists() && !to.exists() {
                        copy(&from, &to)?;
                    }
                }
                Ok(())
            }
        }
    }
}

/// What transformers wants to know of a SentencePiece model like LLaMA's; `None` if it lacks one of the special pieces.
fn llama_config(model: &[u8]) -> Option<Value> {
    let model = ModelProto::decode(model).ok()?;
    let trainer = model.trainer_spec.clone().unwrap_or_default();
    let piece = |id: i32| model.pieces.get(usize::try_from(id).ok()?).map(|piece| piece.piece());
    Some(json!({
        "add_bos_token": true,
        "add_eos_token": false,
        "bos_token": piece(trainer.bos_id())?,
        "clean_up_tokenization_spaces": false,
        "eos_token": piece(trainer.eos_id())?,
        "legacy": false,
        "tokenizer_class": "LlamaTokenizer",
        "unk_token": piece(trainer.unk_id())?,
    }))
}

fn is_json(path: &Path) -> bool {
    path.extension().is_some_and(|extension| extension == "json")
}

fn copy(from: &Path, to: &Path) -> Result<(), FormatError> {
    write(to, &std::fs::read(from).map_err(FormatError::io(from))?)
}

fn write(target: &Path, bytes: &[u8]) -> Result<(), FormatError> {
    atomic::write_file(target, |file| file.write_all(bytes)).map_err(FormatError::io(target))
}
