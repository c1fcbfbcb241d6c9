//! A text that a model goes on with, as other languages hold it.

use std::sync::Arc;

use crate::channel::Channel;
use crate::generation::{Generation, Prompt};
use crate::model::Loader;
use crate::slot::Slot;
use crate::{GenerationOptions, Message, OpenElmError, chat, guard};

/// A conversation with a model: it remembers what it has read and written, and goes on from there.
#[cfg_attr(feature = "uniffi", derive(uniffi::Object))]
pub struct Session {
    loader: Arc<Loader>,
    slot: Arc<Slot>,
}

impl Session {
    pub(crate) fn new(loader: Arc<Loader>, session: openelm::Session, adapter: Option<String>) -> Arc<Self> {
        let slot = loader.slot(session, adapter);
        Arc::new(Self { loader, slot })
    }

    fn begin(&self, prompt: Prompt, options: GenerationOptions) -> Result<Arc<Generation>, OpenElmError> {
        guard(|| {
            let options: openelm::Options = options.into();
            options.sampling.validate().map_err(openelm::GenerationError::from)?;
            let channel = Arc::new(Channel::default());
            let lease = self.slot.borrow(&self.loader, Some(channel.clone()))?;
            Generation::spawn(lease, channel, prompt, options)
        })
    }

    fn with<T>(&self, work: impl FnOnce(&mut openelm::Session) -> T) -> Result<T, OpenElmError> {
        guard(|| Ok(work(&mut *self.slot.borrow(&self.loader, None)?)))
    }
}

#[cfg_attr(feature = "uniffi", uniffi::export)]
impl Session {
    /// Reads `prompt` and writes on behind it, on a thread of its own. The session is busy until the text has ended or was
    /// cancelled.
    ///
    /// # Errors
    /// If the options make no sense or the session is busy. What is wrong with the prompt, [`Generation::next`] says.
    pub fn generate(&self, prompt: String, options: GenerationOptions) -> Result<Arc<Generation>, OpenElmError> {
        self.begin(Prompt::Text(prompt), options)
    }

    /// [`Session::generate`] behind token ids.
    ///
    /// # Errors
    /// As there.
    pub fn generate_from_tokens(
        &self,
        prompt: Vec<u32>,
        options: GenerationOptions,
    ) -> Result<Arc<Generation>, OpenElmError> {
        self.begin(Prompt::Tokens(prompt), options)
    }

    /// Answers the last of `messages`, a conversation from its beginning. What the session holds of it already is not read again;
    /// what it holds beyond is forgotten.
    ///
    /// # Errors
    /// If the chat template refuses the conversation; otherwise as [`Session::generate`].
    pub fn chat(&self, messages: Vec<Message>, options: GenerationOptions) -> Result<Arc<Generation>, OpenElmError> {
        let ids = guard(|| chat::encode(&self.loader.conversations, messages))?;
        self.begin(Prompt::Whole(ids), options)
    }

    /// Another session that begins with the same text. What was computed of it is shared.
    ///
    /// # Errors
    /// If the session is busy.
    pub fn fork(&self) -> Result<Arc<Session>, OpenElmError> {
        let fork = self.with(|session| session.fork())?;
        Ok(Self::new(self.loader.clone(), fork, self.slot.adapter().cloned()))
    }

    /// The text so far.
    ///
    /// # Errors
    /// If the session is busy.
    pub fn text(&self) -> Result<String, OpenElmError> {
        self.with(|session| session.text())
    }

    /// The tokens so far.
    ///
    /// # Errors
    /// If the session is busy.
    pub fn tokens(&self) -> Result<Vec<u32>, OpenElmError> {
        self.with(|session| session.tokens().to_vec())
    }

    /// Forgets all tokens from position `tokens` on.
    ///
    /// # Errors
    /// If the session is busy.
    pub fn truncate(&self, tokens: u32) -> Result<(), OpenElmError> {
        self.with(|session| session.truncate(tokens as usize))
    }

    /// Gives back the keys and values; they are computed again, to the same bits, when the session goes on.
    ///
    /// # Errors
    /// If the session is busy.
    pub fn drop_cache(&self) -> Result<(), OpenElmError> {
        self.with(openelm::Session::drop_cache)
    }
}
