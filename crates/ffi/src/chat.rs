//! Conversations: how they become ids.

use openelm::Conversations;

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

/// The ids of a conversation, and of what begins the next answer.
///
/// # Errors
/// If the template refuses it.
pub fn encode(conversations: &Conversations, messages: Vec<Message>) -> Result<Vec<u32>, OpenElmError> {
    let message = |Message { role, content }| openelm::Message::new(role, content);
    let messages: Vec<_> = messages.into_iter().map(message).collect();
    Ok(conversations.encode(&messages)?)
}
