//! A text in the making, step by step.

use std::cell::{Cell, RefCell};
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use openelm::Finish;
use openelm_ffi::OpenElmError;
use wasm_bindgen::prelude::*;

use crate::error::Failure;
use crate::options::Options;

/// What a text goes on behind.
pub(crate) enum Prompt {
    Text(String),
    /// All tokens of the session from its beginning: those that it has already are kept.
    Whole(Vec<u32>),
}

/// What passes between the writer and whoever asks for steps.
#[derive(Default)]
struct Desk {
    /// Tokens of the prompt that the next step may read.
    most: Cell<usize>,
    /// Tokens of the session before the first one that is drawn; `None` while they are not known.
    begin: Cell<Option<usize>>,
    /// Tokens of the prompt that are not read yet.
    waiting: Cell<usize>,
    piece: RefCell<Option<openelm::Piece>>,
}

type Writer = Pin<Box<dyn Future<Output = Result<Option<Finish>, OpenElmError>>>>;

/// A text in the making.
#[wasm_bindgen]
pub struct Generation {
    session: Rc<RefCell<openelm::Session>>,
    /// Borrows the session from its first step to its end.
    writer: Option<Writer>,
    desk: Rc<Desk>,
}

/// What a step came to.
#[wasm_bindgen]
pub struct Step {
    text: String,
    tokens: Vec<u32>,
    finish: Option<&'static str>,
    waiting: usize,
}

#[wasm_bindgen]
impl Step {
    /// Some text; empty while the prompt is read.
    #[wasm_bindgen(getter)]
    pub fn text(&self) -> String {
        self.text.clone()
    }

    /// The ids of the tokens drawn since the step before; the text of the last ones may come later.
    #[wasm_bindgen(getter)]
    pub fn tokens(&self) -> Vec<u32> {
        self.tokens.clone()
    }

    /// Why the text ended: `end`, `stop`, `length` or `context`; nothing while it goes on.
    #[wasm_bindgen(getter)]
    pub fn finish(&self) -> Option<String> {
        self.finish.map(str::to_owned)
    }

    /// Tokens of the prompt that are not read yet.
    #[wasm_bindgen(getter)]
    pub fn waiting(&self) -> usize {
        self.waiting
    }
}

impl Generation {
    pub(crate) fn new(
        session: &Rc<RefCell<openelm::Session>>,
        prompt: Prompt,
        options: Options,
    ) -> Result<Self, Failure> {
        let options: openelm::Options = options.into();
        options.sampling.validate().map_err(openelm::GenerationError::from)?;
        let desk = Rc::new(Desk::default());
        let writer = Box::pin(write(session.clone(), prompt, options, desk.clone()));
        Ok(Self { session: session.clone(), writer: Some(writer), desk })
    }
}

#[wasm_bindgen]
impl Generation {
    /// Reads up to `most` tokens of the prompt, or writes a piece.
    ///
    /// # Errors
    /// If the prompt does not suit the session, or the model says nothing; the text has then ended.
    pub fn step(&mut self, most: usize) -> Result<Step, Failure> {
        let mut step = Step { text: String::new(), tokens: Vec::new(), finish: None, waiting: 0 };
        let Some(writer) = &mut self.writer else {
            step.finish = Some("cancelled");
            return Ok(step);
        };
        self.desk.most.set(most.max(1));
        if let Poll::Ready(end) = writer.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
            self.writer = None;
            step.finish = Some(match end? {
                Some(Finish::EndOfText) => "end",
                Some(Finish::Stop) => "stop",
                Some(Finish::MaxTokens) => "length",
                Some(Finish::ContextFull) => "context",
                None => "cancelled",
            });
        }
        step.waiting = self.desk.waiting.get();
        if let Some(piece) = self.desk.piece.take() {
            step.text = piece.text;
            step.tokens = piece.tokens.iter().map(|token| token.id).collect();
        }
        Ok(step)
    }

    /// Ends the text. Of it, the session keeps the `read` tokens that were handed on, and the prompt.
    pub fn cancel(&mut self, read: usize) {
        self.writer = None;
        if let (Some(begin), Ok(mut session)) = (self.desk.begin.get(), self.session.try_borrow_mut()) {
            session.truncate(begin + read);
        }
    }
}

/// Gives the turn back to whoever asked for the step.
async fn end_of_step() {
    let mut is_over = false;
    poll_fn(|_| if std::mem::replace(&mut is_over, true) { Poll::Ready(()) } else { Poll::Pending }).await;
}

/// Reads the prompt and writes until the text ends.
#[allow(clippy::await_holding_refcell_ref, reason = "the session is busy as long as this is alive, and says so")]
async fn write(
    session: Rc<RefCell<openelm::Session>>,
    prompt: Prompt,
    options: openelm::Options,
    desk: Rc<Desk>,
) -> Result<Option<Finish>, OpenElmError> {
    let mut session = session.try_borrow_mut().map_err(|_| OpenElmError::Busy)?;
    match prompt {
        Prompt::Text(text) => session.read(&text, || false)?,
        Prompt::Whole(ids) => session.reread_ids(&ids, || false)?,
    }
    desk.begin.set(Some(session.tokens().len()));
    loop {
        desk.waiting.set(session.advance(desk.most.get())?);
        if desk.waiting.get() == 0 {
            break;
        }
        end_of_step().await;
    }
    let mut generation = session.generate("", options)?;
    while let Some(piece) = generation.next() {
        desk.piece.replace(Some(piece?));
        end_of_step().await;
    }
    Ok(generation.finish())
}
