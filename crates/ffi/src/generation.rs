//! A text in the making, as other languages read it.

use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{Builder, JoinHandle};
use std::time::Duration;

use openelm::Options;

use crate::channel::Channel;
use crate::slot::Lease;
use crate::{OpenElmError, guard};

/// Why a text ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(feature = "uniffi", derive(uniffi::Enum))]
pub enum Finish {
    /// The model ended it.
    EndOfText,
    /// A stop string came.
    Stop,
    /// As many tokens as asked for were made.
    MaxTokens,
    /// The session takes no more tokens.
    ContextFull,
    /// It was cancelled.
    Cancelled,
}

impl From<openelm::Finish> for Finish {
    fn from(finish: openelm::Finish) -> Self {
        match finish {
            openelm::Finish::EndOfText => Self::EndOfText,
            openelm::Finish::Stop => Self::Stop,
            openelm::Finish::MaxTokens => Self::MaxTokens,
            openelm::Finish::ContextFull => Self::ContextFull,
        }
    }
}

/// A token that was drawn.
#[derive(Debug, Clone, Copy, PartialEq)]
#[cfg_attr(feature = "uniffi", derive(uniffi::Record))]
pub struct Token {
    /// Its id.
    pub id: u32,
    /// The logarithm of its probability by the model's own distribution, where it was asked for.
    pub log_probability: Option<f32>,
}

/// Some text, and the tokens drawn since the piece before.
#[derive(Debug, Clone, PartialEq)]
#[cfg_attr(feature = "uniffi", derive(uniffi::Record))]
pub struct Piece {
    /// Whole characters. Only the last piece may be empty.
    pub text: String,
    /// The tokens; the text of the last ones may come with the next piece.
    pub tokens: Vec<Token>,
}

impl From<openelm::Piece> for Piece {
    fn from(piece: openelm::Piece) -> Self {
        let token = |token: openelm::Token| Token { id: token.id, log_probability: token.log_probability };
        Self { text: piece.text, tokens: piece.tokens.into_iter().map(token).collect() }
    }
}

/// What a text goes on behind.
pub(crate) enum Prompt {
    Text(String),
    Tokens(Vec<u32>),
    /// All tokens of the session from its beginning: those that it has already are kept.
    Whole(Vec<u32>),
}

/// A text in the making. Dropping it cancels.
#[cfg_attr(feature = "uniffi", derive(uniffi::Object))]
pub struct Generation {
    channel: Arc<Channel>,
    /// Until somebody has waited for it.
    thread: Mutex<Option<JoinHandle<()>>>,
}

impl Generation {
    pub(crate) fn spawn(
        lease: Lease,
        channel: Arc<Channel>,
        prompt: Prompt,
        options: Options,
    ) -> Result<Arc<Self>, OpenElmError> {
        let shared = channel.clone();
        let work = move || {
            let mut lease = lease;
            let end = guard(|| write(&mut lease, &channel, &prompt, options));
            // Whoever reads the end finds the session free.
            drop(lease);
            channel.end(end);
        };
        let thread = Builder::new().name("openelm-generation".to_owned()).spawn(work);
        let thread = thread.map_err(|e| OpenElmError::Thread(e.to_string()))?;
        Ok(Arc::new(Self { channel: shared, thread: Mutex::new(Some(thread)) }))
    }
}

/// Reads the prompt and writes until the text ends or nobody wants more of it.
fn write(
    session: &mut openelm::Session,
    channel: &Channel,
    prompt: &Prompt,
    options: Options,
) -> Result<Finish, OpenElmError> {
    let go_on = || !channel.is_cancelled();
    match prompt {
        Prompt::Text(text) => session.read(text, go_on)?,
        Prompt::Tokens(ids) => session.read_ids(ids, go_on)?,
        Prompt::Whole(ids) => session.reread_ids(ids, go_on)?,
    }
    if channel.is_cancelled() {
        return Ok(Finish::Cancelled);
    }
    let prompt_tokens = session.tokens().len();
    let mut generation = session.generate("", options)?;
    let end = loop {
        if !channel.wait_for_room() {
            break Ok(None);
        }
        match generation.next() {
            Some(Ok(piece)) => channel.push(piece.into()),
            Some(Err(error)) => break Err(error.into()),
            None => break Ok(generation.finish()),
        }
    };
    drop(generation);
    if channel.wait_until_read() {
        return end.map(|finish| finish.map_or(Finish::Cancelled, Finish::from));
    }
    // What was computed ahead of the reader was never said.
    session.truncate(prompt_tokens + channel.tokens_read());
    Ok(Finish::Cancelled)
}

#[cfg_attr(feature = "uniffi", uniffi::export)]
impl Generation {
    /// The next piece: waits for it. Nothing behind the last one, and once cancelled.
    ///
    /// # Errors
    /// If the prompt does not suit the session, or the model says nothing. The error comes once.
    pub fn next(&self) -> Result<Option<Piece>, OpenElmError> {
        guard(|| self.channel.next())
    }

    /// Why the text ended; nothing while it goes on.
    pub fn finish(&self) -> Option<Finish> {
        self.channel.finish()
    }

    /// Ends the text at once, whatever the thread is at; who waits for a piece gets none. The session holds the prompt and
    /// the tokens handed out, and is free as soon as the thread looks up.
    pub fn cancel(&self) {
        self.channel.cancel();
    }

    /// Stops computing behind the next token until [`Generation::resume`], as an app does in the background.
    pub fn pause(&self) {
        self.channel.pause(true);
    }

    /// Goes on after [`Generation::pause`].
    pub fn resume(&self) {
        self.channel.pause(false);
    }

    /// Waits until the thread has ended: after [`Generation::cancel`], or once the last piece was read.
    pub fn join(&self) {
        self.channel.wait();
        let thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner).take();
        // It has said its last word; a panic would have been caught before.
        drop(thread.map(JoinHandle::join));
    }
}

impl Generation {
    /// Waits up to `time` for something to read, and says whether there is: for callers that look after signals meanwhile.
    pub fn is_ready_within(&self, time: Duration) -> bool {
        self.channel.is_ready_within(time)
    }
}

impl Drop for Generation {
    fn drop(&mut self) {
        self.cancel();
    }
}
