//! A text that a model goes on with.

use std::sync::Arc;

use openelm_model::{Generation, GenerationOptions, Message, Tokenizer};

use crate::{Conversations, Error};

/// Tokens that are read between two questions whether to go on: as many as keep the threads busy.
const READ_TOKENS: usize = 256;

/// A conversation with a model. It remembers what it has read and written, and goes on from there.
pub struct Session {
    session: openelm_model::Session,
    tokenizer: Arc<Tokenizer>,
    conversations: Arc<Conversations>,
}

impl Session {
    pub(crate) fn new(
        session: openelm_model::Session,
        tokenizer: Arc<Tokenizer>,
        conversations: Arc<Conversations>,
    ) -> Self {
        Self { session, tokenizer, conversations }
    }

    /// Reads `prompt` and writes on behind it, piece by piece. To stop, drop the iterator: the session then holds what was
    /// written so far.
    ///
    /// # Errors
    /// If the prompt does not fit the session, or the options make no sense.
    pub fn generate(&mut self, prompt: &str, options: GenerationOptions) -> Result<Generation<'_>, Error> {
        let ids = self.encode(prompt);
        Ok(Generation::new(&mut self.session, &self.tokenizer, &ids, options)?)
    }

    /// Answers the last of `messages`, a conversation from its beginning, as the model was taught to. What the session holds of it
    /// already is not read again; what it holds beyond is forgotten.
    ///
    /// # Errors
    /// If the model has no chat template or it refuses the conversation, and as [`Session::generate`].
    pub fn chat(&mut self, messages: &[Message], options: GenerationOptions) -> Result<Generation<'_>, Error> {
        let ids = self.conversations.encode(messages)?;
        self.reread_ids(&ids, || true)?;
        Ok(Generation::new(&mut self.session, &self.tokenizer, &[], options)?)
    }

    /// Reads `prompt` some tokens at a time, as long as `go_on` says so; what was not read is read when the session goes on.
    ///
    /// # Errors
    /// If the prompt does not fit the session, which is then as it was.
    pub fn read(&mut self, prompt: &str, go_on: impl FnMut() -> bool) -> Result<(), Error> {
        let ids = self.encode(prompt);
        self.read_ids(&ids, go_on)
    }

    /// [`Session::read`] of tokens.
    ///
    /// # Errors
    /// If they do not fit the session or are none of the model's; the session is then as it was.
    pub fn read_ids(&mut self, ids: &[u32], mut go_on: impl FnMut() -> bool) -> Result<(), Error> {
        self.session.extend(ids)?;
        while go_on() && self.session.advance(READ_TOKENS)? > 0 {}
        Ok(())
    }

    /// Reads up to `most` of the tokens that wait to be read; says how many still wait. For callers that look after something else
    /// in between: see `go_on` of [`Session::read_ids`].
    ///
    /// # Errors
    /// None that [`Session::read_ids`] did not report.
    pub fn advance(&mut self, most: usize) -> Result<usize, Error> {
        Ok(self.session.advance(most)?)
    }

    /// Takes in the tokens of a text that mostly begins as this one: what they have in common is kept, the rest is read as
    /// [`Session::read`] does.
    ///
    /// # Errors
    /// As [`Session::read_ids`], but that the session is then cut to what is in common.
    pub fn reread_ids(&mut self, ids: &[u32], go_on: impl FnMut() -> bool) -> Result<(), Error> {
        let common = self.tokens().iter().zip(ids).take_while(|(a, b)| a == b).count();
        self.truncate(common);
        self.read_ids(&ids[common..], go_on)
    }

    fn encode(&self, text: &str) -> Vec<u32> {
        if self.session.is_empty() { self.tokenizer.encode_prompt(text) } else { self.tokenizer.encode(text) }
    }

    /// Lets go of what was computed; it is computed again, to the same bits, when the session goes on.
    pub fn drop_cache(&mut self) {
        self.session.drop_cache();
    }

    /// Another session that begins with the same text. What was computed of it is shared.
    #[must_use]
    pub fn fork(&self) -> Self {
        let (tokenizer, conversations) = (self.tokenizer.clone(), self.conversations.clone());
        Self { session: self.session.fork(), tokenizer, conversations }
    }

    /// The text so far.
    pub fn text(&self) -> String {
        self.tokenizer.decode(self.session.tokens())
    }

    /// The tokens so far.
    pub fn tokens(&self) -> &[u32] {
        self.session.tokens()
    }

    /// Forgets all tokens from position `tokens` on.
    pub fn truncate(&mut self, tokens: usize) {
        self.session.truncate(tokens);
    }
}
