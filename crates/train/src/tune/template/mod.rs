//! How an example becomes token ids, of which it is known who said them: by a template that is built in ([`named`]), or by a chat
//! template ([`chat`]), which is a file's or the model's own.

mod chat;
mod choice;
mod named;

use openelm_formats::{StoredModel, chat_template_at};
use openelm_model::{ChatTemplate, Family, Message, Tokenizer};

pub use choice::TemplateChoice;
pub(super) use named::Part;
pub use named::TemplateName;

use super::error::TuneError;
use super::example::Text;

/// A template.
#[derive(Debug, Clone)]
pub(super) enum Template {
    Named(TemplateName),
    Chat(ChatTemplate),
}

impl Template {
    /// The ids of `text`, and who said each.
    ///
    /// # Errors
    /// In words, if the template has no place for it or refuses it.
    pub fn encode(&self, text: &Text, tokenizer: &Tokenizer) -> Result<Vec<(u32, Part)>, String> {
        match self {
            Self::Named(name) => Ok(named::encode(&name.pieces(text)?, tokenizer)),
            Self::Chat(template) => chat::encode(template, text, tokenizer),
        }
    }

    /// The ids of a prompt that asks for an answer to `message`.
    ///
    /// # Errors
    /// As [`Template::encode`].
    pub fn prompt(&self, message: &str, tokenizer: &Tokenizer) -> Result<Vec<u32>, String> {
        match self {
            Self::Named(name) => name.prompt(message, tokenizer),
            Self::Chat(template) => {
                template.encode(tokenizer, &[Message::user(message)], true).map_err(|e| e.to_string())
            }
        }
    }
}

/// The templates of a run.
pub(super) enum Templates {
    /// One for all examples.
    One(Template),
    /// What suits each kind of example; for conversations this.
    ByKind(Template),
}

impl Templates {
    /// What a recipe chooses for the model `stored`.
    ///
    /// # Errors
    /// If a template cannot be read, or the model has none.
    pub fn of(choice: Option<&TemplateChoice>, stored: &StoredModel, tokenizer: &Tokenizer) -> Result<Self, TuneError> {
        Ok(match choice {
            Some(TemplateChoice::Named(name)) => Self::One(Template::Named(*name)),
            Some(TemplateChoice::Model) => Self::One(own(stored, tokenizer)?.ok_or_else(|| {
                let expected =
                    format!("{} has no chat template; choose one of {}, or a file", stored.path.display(), words());
                TuneError::Value { key: "data.template", value: "\"model\"".to_owned(), expected }
            })?),
            Some(TemplateChoice::File(path)) if !path.exists() => {
                let expected =
                    format!("there is no such file; built in are {}, and \"model\" is the model's own", words());
                return Err(TuneError::Value {
                    key: "data.template",
                    value: format!("{:?}", path.display().to_string()),
                    expected,
                });
            }
            Some(TemplateChoice::File(path)) => Self::One(Template::Chat(chat_template_at(path, tokenizer)?)),
            None => Self::ByKind(own(stored, tokenizer)?.unwrap_or(Template::Named(TemplateName::OpenelmInstruct))),
        })
    }

    /// The template for `text`.
    pub fn for_text(&self, text: &Text) -> Template {
        match (self, text) {
            (Self::One(template), _) | (Self::ByKind(template), Text::Conversation(_)) => template.clone(),
            (Self::ByKind(_), Text::Instruction { .. }) => Template::Named(TemplateName::Alpaca),
            (Self::ByKind(_), Text::Completion { .. }) => Template::Named(TemplateName::Plain),
        }
    }
}

/// How the model itself reads conversations, if it says so.
fn own(stored: &StoredModel, tokenizer: &Tokenizer) -> Result<Option<Template>, TuneError> {
    let comes_along = match &stored.tokenizer {
        Some(tokenizer) => tokenizer.chat_template()?.is_some(),
        None => false,
    };
    if !comes_along {
        return Ok((stored.config.family == Family::OpenElm).then_some(Template::Named(TemplateName::OpenelmInstruct)));
    }
    Ok(stored.chat_template(tokenizer)?.map(Template::Chat))
}

fn words() -> String {
    TemplateName::ALL.map(|name| format!("{:?}", name.word())).join(", ")
}
