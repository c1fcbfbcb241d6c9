//! Text from a model, piece by piece.

mod sampling;
mod stop;

pub use sampling::{NotFinite, Sampler, SamplingError, SamplingOptions, check_finite, log_probability};
pub use stop::StopStrings;

use crate::engine::EngineError;
use crate::session::Session;
use crate::tokenizer::{Detokenizer, Tokenizer};

/// When and how to go on.
#[derive(Debug, Clone, PartialEq)]
pub struct GenerationOptions {
    /// How a token is drawn.
    pub sampling: SamplingOptions,
    /// Most tokens to generate.
    pub max_tokens: usize,
    /// Texts that end the generation; they are not part of the result.
    pub stop: Vec<String>,
    /// Whether to go on behind the token that ends a text.
    pub ignore_eos: bool,
    /// Whether each token comes with the logarithm of its probability.
    pub log_probabilities: bool,
}

impl Default for GenerationOptions {
    fn default() -> Self {
        Self {
            sampling: SamplingOptions::default(),
            max_tokens: 256,
            stop: Vec::new(),
            ignore_eos: false,
            log_probabilities: false,
        }
    }
}

/// Why a generation ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Finish {
    /// The model ended the text.
    EndOfText,
    /// A stop string came.
    Stop,
    /// As many tokens as asked for were made.
    MaxTokens,
    /// The session takes no more tokens.
    ContextFull,
}

/// A token that was drawn.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Token {
    /// Its id.
    pub id: u32,
    /// The logarithm of its probability by the model's own distribution, before penalties, temperature and filters; where it
    /// was asked for.
    pub log_probability: Option<f32>,
}

/// Some text, and the tokens drawn since the piece before.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Piece {
    /// Whole characters that are no beginning of a stop string. Only the last piece may be empty.
    pub text: String,
    /// The tokens; one that ended the text is not among them. The text of the last ones may come with the next piece.
    pub tokens: Vec<Token>,
}

/// A generation that cannot begin or go on.
#[derive(Debug, thiserror::Error, PartialEq)]
pub enum GenerationError {
    /// The prompt does not suit the model.
    #[error(transparent)]
    Engine(#[from] EngineError),
    /// The options make no sense.
    #[error(transparent)]
    Sampling(#[from] SamplingError),
    /// The model says nothing.
    #[error(transparent)]
    NotFinite(#[from] NotFinite),
}

/// A generation at work: an iterator over pieces of text.
///
/// It goes on as long as it is asked to; to stop it, drop it. However it ends, the session then holds the prompt and the tokens
/// drawn (but for one that ended the text), and goes on from there. The model is run for a token only when the next one is
/// wanted.
pub struct Generation<'a> {
    session: &'a mut Session,
    tokenizer: &'a Tokenizer,
    sampler: Sampler,
    stop: StopStrings,
    detokenizer: Detokenizer<'a>,
    options: GenerationOptions,
    drawn: usize,
    finish: Option<Finish>,
    /// Whether it could not go on.
    failed: bool,
    /// Drawn, but not handed out yet.
    piece: Piece,
}

impl<'a> Generation<'a> {
    /// Begins behind `prompt` in an empty or a running `session`, and reads the prompt. Penalties see the whole session.
    ///
    /// # Errors
    /// If the prompt does not fit the session, holds ids out of range, or the options make no sense.
    pub fn new(
        session: &'a mut Session,
        tokenizer: &'a Tokenizer,
        prompt: &[u32],
        options: GenerationOptions,
    ) -> Result<Self, GenerationError> {
        let sampler = Sampler::new(options.sampling.clone())?;
        let stop = StopStrings::new(&options.stop);
        session.extend(prompt)?;
        if options.max_tokens > 0 {
            session.logits()?;
        }
        let mut detokenizer = tokenizer.detokenizer();
        // So that the text goes on where the session ends, its space included.
        session.tokens().iter().for_each(|&id| drop(detokenizer.push(id)));
        let (drawn, finish, failed, piece) = (0, None, false, Piece::default());
        Ok(Self { session, tokenizer, sampler, stop, detokenizer, options, drawn, finish, failed, piece })
    }

    /// Why the generation ended; `None` while it goes on.
    pub fn finish(&self) -> Option<Finish> {
        self.finish
    }

    /// Draws a token and adds it to the piece, or says why not.
    fn draw(&mut self) -> Result<Option<Finish>, GenerationError> {
        if self.drawn == self.options.max_tokens {
            return Ok(Some(Finish::MaxTokens));
        }
        if self.session.len() == self.session.limit() {
            return Ok(Some(Finish::ContextFull));
        }
        self.session.logits()?;
        let (logits, history) = self.session.known_logits();
        let id = self.sampler.sample(logits, history)?;
        if self.tokenizer.eos_id() == Some(id) && !self.options.ignore_eos {
            return Ok(Some(Finish::EndOfText));
        }
        let log_probability = self.options.log_probabilities.then(|| log_probability(logits, id));
        self.session.extend(&[id])?;
        self.drawn += 1;
        self.piece.tokens.push(Token { id, log_probability });
        self.piece.text.push_str(&self.stop.push(&self.detokenizer.push(id)));
        Ok(self.stop.stopped().then_some(Finish::Stop))
    }
}

/// All the text that a [`Generation`] gives.
///
/// # Errors
/// As [`Generation::new`].
pub fn generate(
    session: &mut Session,
    tokenizer: &Tokenizer,
    prompt: &[u32],
    options: GenerationOptions,
) -> Result<String, GenerationError> {
    Generation::new(session, tokenizer, prompt, options)?.map(|piece| Ok(piece?.text)).collect()
}

impl Iterator for Generation<'_> {
    type Item = Result<Piece, GenerationError>;

    fn next(&mut self) -> Option<Self::Item> {
        while !self.failed && self.finish.is_none() && self.piece.text.is_empty() {
            self.finish = match self.draw() {
                Ok(finish) => finish,
                Err(e) => {
                    self.failed = true;
                    return Some(Err(e));
                }
            };
            if self.finish.is_some_and(|finish| finish != Finish::Stop) {
                self.piece.text.push_str(&self.stop.push(&self.detokenizer.finish()));
                self.piece.text.push_str(&self.stop.finish());
            }
        }
        let piece = std::mem::take(&mut self.piece);
        (!piece.text.is_empty() || !piece.tokens.is_empty()).then_some(Ok(piece))
    }
}
