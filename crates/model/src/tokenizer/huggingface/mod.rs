//! Encoding as a Hugging Face `tokenizer.json` says.
//!
//! ```text
//! text -> added tokens -> normaliser -> added tokens -> pre-tokeniser -> merges -> ids
//! ```
//!
//! What goes beyond the steps that are known here is refused, rather than encoded in another way.

mod bpe;
mod patterns;
mod pretokenizer;

use std::borrow::Cow;
use std::collections::HashMap;

use serde_json::{Map, Value, json};
use unicode_normalization::UnicodeNormalization;

use self::bpe::Bpe;
use self::pretokenizer::{Step, pre_tokenize, steps_of};
use super::added::{AddedToken, AddedTokens, Part};
use super::{Markup, SPACE, TokenizerError, check_length, unusable};

/// The encoder of a `tokenizer.json`.
#[derive(Debug)]
pub(super) struct HuggingFace {
    added: Option<AddedTokens>,
    normalizer: Vec<Rewriting>,
    /// Added tokens that are looked for behind the normaliser.
    added_normalized: Option<AddedTokens>,
    pre_tokenizer: Vec<Step>,
    bpe: Bpe,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Rewriting {
    /// A space, made visible, before the text.
    Prepend,
    /// Spaces made visible.
    Spaces,
    Nfc,
    Nfd,
    Nfkc,
    Nfkd,
}

impl HuggingFace {
    pub fn new(json: &Value) -> Result<Self, TokenizerError> {
        let empty = Map::new();
        let model = json["model"].as_object().unwrap_or(&empty);
        check_model(model)?;
        let mut normalizer = Vec::new();
        rewritings(&json["normalizer"], &mut normalizer)?;
        let mut pre_tokenizer = Vec::new();
        steps_of(&json["pre_tokenizer"], &mut pre_tokenizer)?;
        let vocab = vocab(model)?;
        let mut tokens = added_tokens(json, &vocab)?;
        if vocab.keys().all(|text| tokens.iter().any(|token| token.text == *text)) {
            return Err(unusable("none of its pieces can be a part of a text"));
        }
        let is_byte_level = matches!(pre_tokenizer.last(), Some(Step::ByteLevel { .. }));
        let bpe = Bpe::new(model, &vocab, is_byte_level)?;
        let is_added_token_first = tokens.extract_if(.., |token| !token.normalized).collect();
        for token in &mut tokens {
            token.text = normalize(&normalizer, &token.text).into_owned();
        }
        Ok(Self {
            added: AddedTokens::new(is_added_token_first),
            added_normalized: AddedTokens::new(tokens),
            normalizer,
            pre_tokenizer,
            bpe,
        })
    }

    /// The ids of `text`, in which control tokens are as `markup` says.
    pub fn encode(&self, text: &str, markup: Markup) -> Vec<u32> {
        let mut ids = Vec::with_capacity(text.len() / 3);
        let mut symbols = Vec::new();
        let control = markup != Markup::Plain;
        split(self.added.as_ref(), text, true, control, &mut ids, |text, is_first, ids| {
            let text = normalize(&self.normalizer, text);
            split(self.added_normalized.as_ref(), &text, is_first, control, ids, |text, is_first, ids| {
                let text = markup.plain(text);
                pre_tokenize(&self.pre_tokenizer, &text, is_first, &mut |word| {
                    self.bpe.encode(word, &mut symbols, ids)
                });
            });
        });
        ids
    }
}

/// Looks for added tokens in `text`, and hands over what is between them, with whether it is where the text begins.
fn split(
    added: Option<&AddedTokens>,
    text: &str,
    is_first: bool,
    control: bool,
    ids: &mut Vec<u32>,
    mut put: impl FnMut(&str, bool, &mut Vec<u32>),
) {
    match added {
        _ if text.is_empty() => (),
        None => put(text, is_first, ids),
        Some(added) => added.split(text, control, |part| match part {
            Part::Token(id) => ids.push(id),
            Part::Text { text, is_first: is_begin } => put(text, is_first && is_begin, ids),
        }),
    }
}

fn check_model(model: &Map<String, Value>) -> Result<(), TokenizerError> {
    if model.get("type").is_some_and(|kind| kind != "BPE") {
        return Err(unusable(format_args!("its model is of type {}; only \"BPE\" can be used", model["type"])));
    }
    for key in ["continuing_subword_prefix", "end_of_word_suffix", "dropout"] {
        if model.get(key).is_some_and(|value| !value.is_null() && value != "" && value != 0.0) {
            return Err(unusable(format_args!("its model has {key} = {}, which cannot be used", model[key])));
        }
    }
    Ok(())
}

/// Texts and ids of the model.
fn vocab(model: &Map<String, Value>) -> Result<HashMap<&str, u32>, TokenizerError> {
    let entries = model.get("vocab").and_then(Value::as_object).into_iter().flatten();
    let entries = entries.map(|(text, id)| {
        check_length(text)?;
        let id = id.as_u64().and_then(|id| u32::try_from(id).ok());
        Ok((text.as_str(), id.ok_or_else(|| unusable(format_args!("the piece {text:?} has no id")))?))
    });
    entries.collect()
}

fn added_tokens(json: &Value, vocab: &HashMap<&str, u32>) -> Result<Vec<AddedToken>, TokenizerError> {
    let tokens = json["added_tokens"].as_array().into_iter().flatten().map(|token| {
        let text = token["content"].as_str().filter(|text| !text.is_empty());
        let text = text.ok_or_else(|| unusable("an added token has no text"))?;
        check_length(text)?;
        let id = token["id"].as_u64().and_then(|id| u32::try_from(id).ok());
        let id = id.ok_or_else(|| unusable(format_args!("the added token {text:?} has no id")))?;
        match vocab.get(text) {
            Some(other) if *other != id => {
                Err(unusable(format_args!("the added token {text:?} has the id {id}, but {other} in the vocabulary")))
            }
            _ => Ok(AddedToken::new(token, text, id)),
        }
    });
    tokens.collect()
}

fn rewritings(step: &Value, out: &mut Vec<Rewriting>) -> Result<(), TokenizerError> {
    out.push(match step["type"].as_str() {
        None if step.is_null() => return Ok(()),
        Some("Sequence") => {
            return step["normalizers"].as_array().into_iter().flatten().try_for_each(|step| rewritings(step, out));
        }
        Some("Prepend") if step["prepend"] == SPACE => Rewriting::Prepend,
        Some("Replace") if step["pattern"] == json!({ "String": " " }) && step["content"] == SPACE => Rewriting::Spaces,
        Some("NFC") => Rewriting::Nfc,
        Some("NFD") => Rewriting::Nfd,
        Some("NFKC") => Rewriting::Nfkc,
        Some("NFKD") => Rewriting::Nfkd,
        _ => return Err(unusable(format_args!("its normalizer of type {} is not supported", step["type"]))),
    });
    Ok(())
}

fn normalize<'t>(steps: &[Rewriting], text: &'t str) -> Cow<'t, str> {
    let mut text = Cow::Borrowed(text);
    for step in steps {
        let is_kept = match step {
            Rewriting::Prepend => text.is_empty(),
            Rewriting::Spaces => !text.contains(' '),
            // ASCII is in every normal form.
            _ => text.is_ascii(),
        };
        if is_kept {
            continue;
        }
        text = Cow::Owned(match step {
            Rewriting::Prepend => format!("{SPACE}{text}"),
            Rewriting::Spaces => text.replace(' ', SPACE),
            Rewriting::Nfc => text.nfc().collect(),
            Rewriting::Nfd => text.nfd().collect(),
            Rewriting::Nfkc => text.nfkc().collect(),
            Rewriting::Nfkd => text.nfkd().collect(),
        });
    }
    text
}
