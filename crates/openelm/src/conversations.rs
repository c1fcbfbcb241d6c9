//! Conversations, as a model reads them.

use std::sync::Arc;

use openelm_formats::StoredModel;
use openelm_model::{ChatTemplate, Message, Tokenizer};

use crate::Error;

/// How a model reads conversations: by the template that came with it, or one that was given.
pub struct Conversations {
    /// Or the sentence to say when somebody wants to talk: a model without a template can still go on with texts.
    template: Result<ChatTemplate, String>,
    tokenizer: Arc<Tokenizer>,
}

impl Conversations {
    pub(crate) fn new(stored: &StoredModel, source: Option<&str>, tokenizer: Arc<Tokenizer>) -> Result<Self, Error> {
        let template = match source {
            Some(source) => Ok(ChatTemplate::from_source_for(source, &tokenizer)?),
            None => match stored.chat_template(&tokenizer) {
                Ok(Some(template)) => Ok(template),
                Ok(None) => Err(format!("{} has no chat template; give one when it is opened", stored.path.display())),
                Err(e) => Err(e.to_string()),
            },
        };
        Ok(Self { template, tokenizer })
    }

    /// The ids of a conversation from its beginning, and of what begins the next answer.
    ///
    /// # Errors
    /// If the model has no template, or it refuses the conversation.
    pub fn encode(&self, messages: &[Message]) -> Result<Vec<u32>, Error> {
        let template = self.template.as_ref().map_err(|sentence| Error::NoTemplate(sentence.clone()))?;
        Ok(template.encode(&self.tokenizer, messages, true)?)
    }
}
