//! Conversations.

use openelm::{ChatTemplate, Tokenizer};

use crate::OpenElmError;

/// One turn of a conversation.
#[derive(Debug, Clone, PartialEq, Eq)]
#[cfg_attr(feature = "uniffi", derive(uniffi::Record))]
pub struct Message {
    /// Who speaks: `system`, `user` or `assistant`.
    pub role: String,
    /// What is said.
    pub content: String,
}

impl From<openelm::ChatError> for OpenElmError {
    fn from(error: openelm::ChatError) -> Self {
        Self::Input(error.to_string())
    }
}

/// The template whose source is given, or OpenELM-Instruct's.
pub(crate) fn template(source: Option<&str>, tokenizer: &Tokenizer) -> Result<ChatTemplate, OpenElmError> {
    let Some(source) = source else { return Ok(ChatTemplate::openelm_instruct()) };
    let spelling = |id: Option<u32>| id.and_then(|id| tokenizer.control_spelling(id)).unwrap_or_default();
    Ok(ChatTemplate::from_source(source, spelling(tokenizer.bos_id()), spelling(tokenizer.eos_id()))?)
}

/// The ids of a conversation, and of what begins the next answer.
pub(crate) fn encode(
    template: &ChatTemplate,
    tokenizer: &Tokenizer,
    messages: Vec<Message>,
) -> Result<Vec<u32>, OpenElmError> {
    let message = |Message { role, content }| openelm::Message::new(role, content);
    let messages: Vec<_> = messages.into_iter().map(message).collect();
    Ok(template.encode(tokenizer, &messages, true)?)
}
