//! What the files beside a tokenizer say of it.

use std::io::ErrorKind;
use std::path::Path;

use serde_json::Value;

use super::{Tokenizer, TokenizerError, unusable};

/// What concerns encoding and generating in `tokenizer_config.json`, `generation_config.json` and `config.json`.
#[derive(Debug, Default)]
pub(super) struct Companions {
    adds_bos: Option<bool>,
    bos: Option<String>,
    eos: Option<String>,
    ends: Vec<u32>,
}

impl Companions {
    /// Reads what is beside `tokenizer`.
    pub fn of(tokenizer: &Path) -> Result<Self, TokenizerError> {
        let read = |name: &str| read(&tokenizer.with_file_name(name));
        let config = read("tokenizer_config.json")?;
        let text = |token: &Value| token.as_str().or(token["content"].as_str()).map(str::to_owned);
        let mut ends = Vec::new();
        for name in ["generation_config.json", "config.json"] {
            let id = &read(name)?["eos_token_id"];
            let ids = id.as_array().map(Vec::as_slice).unwrap_or(std::slice::from_ref(id));
            ends.extend(ids.iter().filter_map(Value::as_u64).filter_map(|id| u32::try_from(id).ok()));
        }
        Ok(Self {
            adds_bos: config["add_bos_token"].as_bool(),
            bos: text(&config["bos_token"]),
            eos: text(&config["eos_token"]),
            ends,
        })
    }

    /// `tokenizer` with all that.
    pub fn complete(self, mut tokenizer: Tokenizer) -> Tokenizer {
        let names = &tokenizer.vocabulary.names;
        let id = |name: Option<String>| names.get(&name?).copied();
        let (bos, eos) = (id(self.bos), id(self.eos));
        tokenizer.vocabulary.bos = bos.or(tokenizer.vocabulary.bos);
        if let Some(eos) = eos {
            tokenizer.vocabulary.eos = Some(eos);
            tokenizer.ends = vec![eos];
        }
        let adds_bos = self.adds_bos.unwrap_or(tokenizer.adds_bos);
        tokenizer.with_ends(self.ends).with_bos(adds_bos)
    }
}

/// The file at `path`; null if there is none.
fn read(path: &Path) -> Result<Value, TokenizerError> {
    let text = match std::fs::read(path) {
        Err(e) if e.kind() == ErrorKind::NotFound => return Ok(Value::Null),
        text => text.map_err(|source| TokenizerError::Io { path: path.to_owned(), source })?,
    };
    let text = text.strip_prefix(b"\xef\xbb\xbf").unwrap_or(&text);
    serde_json::from_slice(text).map_err(|e| unusable(format_args!("not JSON: {e}")).at(path))
}

/// Whether the `post_processor` of a `tokenizer.json` puts a token before a text; without any it is not said, and taken for so.
pub(super) fn template_begins_with_token(step: &Value) -> bool {
    match step["type"].as_str() {
        None => true,
        Some("TemplateProcessing") => !step["single"][0]["SpecialToken"].is_null(),
        Some("Sequence") => step["processors"].as_array().into_iter().flatten().any(template_begins_with_token),
        Some(_) => false,
    }
}
