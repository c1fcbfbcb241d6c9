//! A text that a model goes on with.

use std::cell::{RefCell, RefMut};
use std::rc::Rc;
use std::sync::Arc;

use openelm::Conversations;
use openelm_ffi::{Message, OpenElmError, chat};
use wasm_bindgen::prelude::*;

use crate::error::Failure;
use crate::generation::{Generation, Prompt};
use crate::options::Options;

/// A conversation with a model: it remembers what it has read and written, and goes on from there.
#[wasm_bindgen]
pub struct Session {
    session: Rc<RefCell<openelm::Session>>,
    conversations: Arc<Conversations>,
}

impl Session {
    pub(crate) fn new(session: Rc<RefCell<openelm::Session>>, conversations: Arc<Conversations>) -> Self {
        Self { session, conversations }
    }

    fn borrow(&self) -> Result<RefMut<'_, openelm::Session>, OpenElmError> {
        self.session.try_borrow_mut().map_err(|_| OpenElmError::Busy)
    }
}

#[wasm_bindgen]
impl Session {
    /// A text behind `prompt`, to be written step by step. The session is busy until it has ended or was cancelled.
    ///
    /// # Errors
    /// If the options make no sense or the session is busy.
    pub fn generate(&self, prompt: String, options: Options) -> Result<Generation, Failure> {
        drop(self.borrow()?);
        Generation::new(&self.session, Prompt::Text(prompt), options)
    }

    /// An answer to the last message of a conversation, given from its beginning: who speaks, and what is said. What the session
    /// holds of it already is not read again.
    ///
    /// # Errors
    /// If the chat template refuses the conversation; otherwise as [`Session::generate`].
    pub fn chat(&self, roles: Vec<String>, contents: Vec<String>, options: Options) -> Result<Generation, Failure> {
        drop(self.borrow()?);
        let messages = roles.into_iter().zip(contents).map(|(role, content)| Message { role, content }).collect();
        let ids = chat::encode(&self.conversations, messages)?;
        Generation::new(&self.session, Prompt::Whole(ids), options)
    }

    /// The text so far.
    ///
    /// # Errors
    /// If the session is busy.
    pub fn text(&self) -> Result<String, Failure> {
        Ok(self.borrow()?.text())
    }

    /// The tokens so far.
    ///
    /// # Errors
    /// If the session is busy.
    pub fn tokens(&self) -> Result<Vec<u32>, Failure> {
        Ok(self.borrow()?.tokens().to_vec())
    }

    /// Another session that begins with the same text. What was computed of it is shared.
    ///
    /// # Errors
    /// If the session is busy.
    pub fn fork(&self) -> Result<Session, Failure> {
        let fork = Rc::new(RefCell::new(self.borrow()?.fork()));
        Ok(Self::new(fork, self.conversations.clone()))
    }

    /// Forgets all tokens from position `tokens` on.
    ///
    /// # Errors
    /// If the session is busy.
    pub fn truncate(&self, tokens: usize) -> Result<(), Failure> {
        self.borrow()?.truncate(tokens);
        Ok(())
    }
}
