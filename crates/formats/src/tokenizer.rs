//! A model's tokenizer, wherever it is, and carrying it along.

use std::io::Write;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use openelm_model::sentencepiece::{ModelProto, ModelType, Type};
use openelm_model::{Tokenizer, TokenizerError};
use prost::Message;
use serde_json::{Value, json};

use crate::{FormatError, atomic, chat, lfs, shards};

/// Where a model's tokenizer is.
#[derive(Debug, Clone)]
pub enum StoredTokenizer {
    /// In a file beside the weights, or elsewhere: a SentencePiece model or a `tokenizer.json`.
    File(PathBuf),
    /// In the weights' own file, put together as a SentencePiece model.
    SentencePiece(EmbeddedTokenizer),
    /// In the weights' own file, put together as a `tokenizer.json`.
    HuggingFace(EmbeddedJson),
}

/// A `tokenizer.json`, with what such a file does not say itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EmbeddedJson {
    /// The text of the file.
    pub json: Bytes,
    /// The token that begins a text.
    pub bos: Option<u32>,
    /// The token that ends a text.
    pub eos: Option<u32>,
    /// Whether a prompt begins with BOS.
    pub adds_bos: bool,
    /// Tokens that end a text beside the model's own.
    pub ends: Vec<u32>,
    /// The source of the model's chat template.
    pub chat_template: Option<String>,
}

impl EmbeddedJson {
    /// The tokenizer, ready to use.
    ///
    /// # Errors
    /// If it is of a kind that is not supported.
    pub fn open(&self) -> Result<Tokenizer, TokenizerError> {
        let tokenizer = Tokenizer::from_tokenizer_json(&self.json)?.with_boundaries(self.bos, self.eos);
        Ok(tokenizer.with_bos(self.adds_bos).with_ends(self.ends.iter().copied()))
    }

    /// What transformers wants to know of it.
    fn config(&self) -> Result<Value, TokenizerError> {
        let tokenizer = self.open()?;
        let spelling = |id: Option<u32>| tokenizer.control_spelling(id?);
        Ok(json!({
            "add_bos_token": self.adds_bos,
            "bos_token": spelling(self.bos),
            "clean_up_tokenization_spaces": false,
            "eos_token": spelling(self.eos),
            "tokenizer_class": "PreTrainedTokenizerFast",
        }))
    }
}

/// A SentencePiece model, with what such a model does not say itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EmbeddedTokenizer {
    /// The bytes of a `tokenizer.model`.
    pub model: Bytes,
    /// Whether a prompt begins with BOS.
    pub adds_bos: bool,
    /// Tokens that end a text beside the model's own.
    pub ends: Vec<u32>,
    /// The source of the model's chat template.
    pub chat_template: Option<String>,
}

impl EmbeddedTokenizer {
    /// The tokenizer, ready to use.
    ///
    /// # Errors
    /// If it is of a kind that is not supported.
    pub fn open(&self) -> Result<Tokenizer, TokenizerError> {
        let tokenizer = Tokenizer::from_sentencepiece(&self.model)?;
        Ok(tokenizer.with_bos(self.adds_bos).with_ends(self.ends.iter().copied()))
    }
}

impl From<EmbeddedTokenizer> for StoredTokenizer {
    fn from(embedded: EmbeddedTokenizer) -> Self {
        StoredTokenizer::SentencePiece(embedded)
    }
}

impl From<Bytes> for EmbeddedTokenizer {
    /// The model alone: prompts begin with BOS.
    fn from(model: Bytes) -> Self {
        Self { model, adds_bos: true, ends: Vec::new(), chat_template: None }
    }
}

/// The tokenizer in `file`.
fn open_file(file: &Path) -> Result<Tokenizer, FormatError> {
    lfs::refuse_pointer_at(file)?;
    Ok(Tokenizer::open(file)?)
}

/// Files that other tools want beside a tokenizer's own.
const COMPANIONS: [&str; 7] = [
    "tokenizer.model",
    "tokenizer.json",
    "tokenizer_config.json",
    "generation_config.json",
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
            StoredTokenizer::File(path) => open_file(&Tokenizer::find(path)?)?,
            StoredTokenizer::SentencePiece(embedded) => embedded.open()?,
            StoredTokenizer::HuggingFace(embedded) => embedded.open()?,
        })
    }

    /// The same with everything in memory: a file becomes what it holds.
    ///
    /// # Errors
    /// If a file cannot be read or is no tokenizer.
    pub(crate) fn embedded(&self) -> Result<Self, FormatError> {
        let StoredTokenizer::File(path) = self else { return Ok(self.clone()) };
        if let Some(embedded) = self.sentencepiece()? {
            return Ok(StoredTokenizer::SentencePiece(embedded));
        }
        let file = Tokenizer::find(path)?;
        let tokenizer = open_file(&file)?;
        Ok(StoredTokenizer::HuggingFace(EmbeddedJson {
            json: std::fs::read(&file).map_err(FormatError::io(&file))?.into(),
            bos: tokenizer.bos_id(),
            eos: tokenizer.eos_id(),
            adds_bos: tokenizer.adds_bos(),
            ends: tokenizer.eos_ids().to_vec(),
            chat_template: self.chat_template()?,
        }))
    }

    /// The source of the chat template that comes with it; `None` if there is none.
    ///
    /// # Errors
    /// If a file cannot be read or is not what its name says.
    pub fn chat_template(&self) -> Result<Option<String>, FormatError> {
        match self {
            StoredTokenizer::SentencePiece(embedded) => Ok(embedded.chat_template.clone()),
            StoredTokenizer::HuggingFace(embedded) => Ok(embedded.chat_template.clone()),
            StoredTokenizer::File(path) => chat::beside(&Tokenizer::find(path)?),
        }
    }

    /// The SentencePiece model; `None` if the tokenizer is a `tokenizer.json` alone.
    ///
    /// # Errors
    /// If a file cannot be read or is no tokenizer.
    pub fn sentencepiece(&self) -> Result<Option<EmbeddedTokenizer>, FormatError> {
        match self {
            StoredTokenizer::SentencePiece(embedded) => Ok(Some(embedded.clone())),
            StoredTokenizer::HuggingFace(_) => Ok(None),
            StoredTokenizer::File(path) => {
                let file = Tokenizer::find(path)?;
                if is_json(&file) {
                    return Ok(None);
                }
                let tokenizer = open_file(&file)?;
                let model = std::fs::read(&file).map_err(FormatError::io(&file))?.into();
                let ends = tokenizer.eos_ids().to_vec();
                let chat_template = self.chat_template()?;
                Ok(Some(EmbeddedTokenizer { model, adds_bos: tokenizer.adds_bos(), ends, chat_template }))
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
        match self.sentencepiece()?.as_ref().and_then(llama_config) {
            Some(described) if !config.exists() => shards::write_json(&config, &described),
            _ => Ok(()),
        }
    }

    fn copy_files_into(&self, folder: &Path) -> Result<(), FormatError> {
        let model = folder.join("tokenizer.model");
        match self {
            StoredTokenizer::SentencePiece(embedded) => {
                if !embedded.ends.is_empty() {
                    write_ends(folder, &embedded.open()?)?;
                }
                write_chat_template(folder, embedded.chat_template.as_deref())?;
                write(&model, &embedded.model)
            }
            StoredTokenizer::HuggingFace(embedded) => {
                write_ends(folder, &embedded.open()?)?;
                write_chat_template(folder, embedded.chat_template.as_deref())?;
                shards::write_json(&folder.join("tokenizer_config.json"), &embedded.config()?)?;
                write(&folder.join("tokenizer.json"), &embedded.json)
            }
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

/// What transformers wants to know of a SentencePiece model like LLaMA's; `None` of another, or without the special pieces.
fn llama_config(embedded: &EmbeddedTokenizer) -> Option<Value> {
    let model = ModelProto::decode(&*embedded.model).ok()?;
    beyond_llama(&model).is_none().then_some(())?;
    let trainer = model.trainer_spec.clone().unwrap_or_default();
    let piece = |id: i32| model.pieces.get(usize::try_from(id).ok()?).map(|piece| piece.piece());
    Some(json!({
        "add_bos_token": embedded.adds_bos,
        "add_eos_token": false,
        "bos_token": piece(trainer.bos_id())?,
        "clean_up_tokenization_spaces": false,
        "eos_token": piece(trainer.eos_id())?,
        "legacy": false,
        "tokenizer_class": "LlamaTokenizer",
        "unk_token": piece(trainer.unk_id())?,
    }))
}

/// What of a model goes beyond LLaMA's, so that tools that take it for one would encode in another way.
pub(crate) fn beyond_llama(model: &ModelProto) -> Option<&'static str> {
    let trainer = model.trainer_spec.clone().unwrap_or_default();
    let normalizer = model.normalizer_spec.clone().unwrap_or_default();
    let has_user_defined = model.pieces.iter().any(|piece| piece.r#type() == Type::UserDefined);
    let found = [
        (trainer.model_type() != ModelType::Bpe, "another model than byte-pair encoding"),
        (!trainer.byte_fallback(), "no bytes for unknown characters"),
        (trainer.treat_whitespace_as_suffix(), "spaces behind words"),
        (!normalizer.precompiled_charsmap().is_empty(), "rules for normalising text"),
        (normalizer.remove_extra_whitespaces(), "removal of extra spaces"),
        (!normalizer.escape_whitespaces(), "plain spaces"),
        (
            has_user_defined && normalizer.add_dummy_prefix(),
            "pieces that are never cut, behind which others put a space",
        ),
    ];
    found.into_iter().find_map(|(is_so, what)| is_so.then_some(what))
}

fn write_ends(folder: &Path, tokenizer: &Tokenizer) -> Result<(), FormatError> {
    shards::write_json(&folder.join("generation_config.json"), &json!({ "eos_token_id": tokenizer.eos_ids() }))
}

fn write_chat_template(folder: &Path, source: Option<&str>) -> Result<(), FormatError> {
    source.map_or(Ok(()), |source| write(&folder.join("chat_template.jinja"), source.as_bytes()))
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
