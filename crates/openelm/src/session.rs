//! A text that a model goes on with.

use std::sync::Arc;

use openelm_model::{Generation, GenerationOptions, Tokenizer};

use crate::Error;

/// A conversation with a model. It remembers what it has read and written, and goes on from there.
pub struct Session {
    session: openelm_model::Session,
    tokenizer: Arc<Tokenizer>,
}

impl Session {
    pub(crate) fn new(session: openelm_model::Session, tokenizer: Arc<Tokenizer>) -> Self {
        Self { session, tokenizer }
    }

    /// Reads `prompt` and writes on behind it, piece by piece. To stop, drop the iterator: the session then holds what was
    /// written so far.
    ///
    /// # Errors
    /// If the prompt does not fit the session, or the options make no sense.
    pub fn generate(&mut self, prompt: &str, options: GenerationOptions) -> Result<Generation<'_>, Error> {
        let ids = self.tokenizer.encode_with(prompt, self.session.is_empty(), false);
        Ok(Generation::new(&mut self.session, &self.tokenizer, &ids, options)?)
    }

    /// Another session that begins with the same text. What was computed of it is shared.
    #[must_use]
    pub fn fork(&self) -> Self {
        Self { session: self.session.fork(), tokenizer: self.tokenizer.clone() }
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
