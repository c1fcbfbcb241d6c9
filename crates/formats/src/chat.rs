//! The chat template that comes with a model.

use std::path::Path;

use openelm_model::{ChatTemplate, Family, Tokenizer};
use serde_json::Value;

use crate::{FormatError, StoredModel, open, text};

/// How the model at `path`, of any format, reads conversations; `None` if it does not say.
///
/// # Errors
/// If the model cannot be read, has no tokenizer of its own, or its template is none.
pub fn chat_template(path: &Path) -> Result<Option<ChatTemplate>, FormatError> {
    let model = open(path)?;
    model.chat_template(&model.open_tokenizer()?)
}

impl StoredModel {
    /// How the model reads conversations, with its `tokenizer`: by the template that comes with it; OpenELM's, which come with none,
    /// by the one that Apple tuned them with.
    ///
    /// # Errors
    /// If the template cannot be read or is none.
    pub fn chat_template(&self, tokenizer: &Tokenizer) -> Result<Option<ChatTemplate>, FormatError> {
        let source = self.tokenizer.as_ref().map(|stored| stored.chat_template()).transpose()?.flatten();
        let Some(source) = source else {
            return Ok((self.config.family == Family::OpenElm).then(ChatTemplate::openelm_instruct));
        };
        template(&source, tokenizer, &self.path).map(Some)
    }
}

/// The template in the Jinja file at `path`, for a model with this `tokenizer`.
///
/// # Errors
/// If it cannot be read or is no template.
pub fn chat_template_at(path: &Path, tokenizer: &Tokenizer) -> Result<ChatTemplate, FormatError> {
    let source = String::from_utf8(text::read(path)?);
    let wrong = |_| FormatError::Config { path: path.to_owned(), reason: "it is not UTF-8".to_owned() };
    template(&source.map_err(wrong)?, tokenizer, path)
}

/// `source` with the texts of the tokens that begin and end a text; `path` is for messages.
fn template(source: &str, tokenizer: &Tokenizer, path: &Path) -> Result<ChatTemplate, FormatError> {
    let template = ChatTemplate::from_source_for(source, tokenizer);
    template.map_err(|source| FormatError::ChatTemplate { path: path.to_owned(), source })
}

/// The source of the template beside the file of a tokenizer: a file of its own, or a key of `tokenizer_config.json`.
pub(crate) fn beside(tokenizer: &Path) -> Result<Option<String>, FormatError> {
    let damaged = |path: &Path, reason: &str| FormatError::Config { path: path.to_owned(), reason: reason.to_owned() };
    let own = tokenizer.with_file_name("chat_template.jinja");
    if own.exists() {
        let source = String::from_utf8(text::read(&own)?);
        return source.map(Some).map_err(|_| damaged(&own, "it is not UTF-8"));
    }
    let config = tokenizer.with_file_name("tokenizer_config.json");
    if !config.exists() {
        return Ok(None);
    }
    let json: Value = serde_json::from_slice(&text::read(&config)?).map_err(|e| damaged(&config, &e.to_string()))?;
    Ok(match &json["chat_template"] {
        Value::Null => None,
        Value::String(source) => Some(source.clone()),
        // Several by name, as some older models have them.
        Value::Array(named) => {
            let default = named.iter().find(|entry| entry["name"] == "default");
            default.and_then(|entry| entry["template"].as_str()).map(str::to_owned)
        }
        _ => return Err(damaged(&config, "chat_template is neither a text nor a list of named ones")),
    })
}
