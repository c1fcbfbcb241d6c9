//! Text from a model: prompt in, token after token out.

mod sampling;
mod stop;

use std::time::{Duration, Instant};

pub use sampling::{NotFinite, Sampler, SamplingError, SamplingOptions, check_finite};
pub use stop::StopStrings;

use crate::session::{Session, SessionError};
use crate::tokenizer::Tokenizer;

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
}

impl Default for GenerationOptions {
    fn default() -> Self {
        Self { sampling: SamplingOptions::default(), max_tokens: 256, stop: Vec::new(), ignore_eos: false }
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

/// What came out, and how long it took.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Generation {
    /// The tokens drawn; one that ended the text is not among them.
    pub ids: Vec<u32>,
    /// The text behind the prompt, without the stop string that ended it.
    pub text: String,
    /// Why it ended.
    pub finish: Finish,
    /// Time from the prompt to the first logits.
    pub prompt_time: Duration,
    /// Time from there to the end.
    pub generation_time: Duration,
}

/// Generates behind `prompt` in an empty or a running `session` and hands every piece of text to `sink` as soon as it is
/// certain: whole characters that are not the beginning of a stop string.
///
/// # Errors
/// If the prompt does not fit the session, holds ids out of range, the options make no sense, or logits are not finite.
pub fn generate(
    session: &mut Session,
    tokenizer: &Tokenizer,
    prompt: &[u32],
    options: &GenerationOptions,
    mut sink: impl FnMut(&str),
) -> Result<Generation, GenerationError> {
    let mut sampler = Sampler::new(options.sampling.clone())?;
    let mut stop = StopStrings::new(&options.stop);
    let mut detokenizer = tokenizer.detokenizer();
    // So that the text goes on where the prompt ends, its space included.
    prompt.iter().for_each(|&id| drop(detokenizer.push(id)));
    let mut history = prompt.to_vec();
    let mut text = String::new();
    let mut emit = |piece: String| {
        if !piece.is_empty() {
            sink(&piece);
            text.push_str(&piece);
        }
    };

    let begin = Instant::now();
    let mut logits = session.append(prompt)?;
    let prompt_time = begin.elapsed();
    let begin = Instant::now();
    let finish = loop {
        if history.len() - prompt.len() == options.max_tokens {
            break Finish::MaxTokens;
        }
        let id = sampler.sample(logits, &history)?;
        if tokenizer.eos_id() == Some(id) && !options.ignore_eos {
            break Finish::EndOfText;
        }
        history.push(id);
        emit(stop.push(&detokenizer.push(id)));
        if stop.stopped() {
            break Finish::Stop;
        }
        logits = match session.append(&[id]) {
            Ok(logits) => logits,
            Err(SessionError::ContextFull { .. }) => break Finish::ContextFull,
            Err(e) => return Err(e.into()),
        };
    };
    let generation_time = begin.elapsed();
    if finish != Finish::Stop {
        emit(stop.push(&detokenizer.finish()));
        emit(stop.finish());
    }
    let ids = history.split_off(prompt.len());
    Ok(Generation { ids, text, finish, prompt_time, generation_time })
}

/// A generation that cannot begin or go on.
#[derive(Debug, thiserror::Error, PartialEq)]
pub enum GenerationError {
    /// The prompt does not suit the model.
    #[error(transparent)]
    Session(#[from] SessionError),
    /// The options make no sense.
    #[error(transparent)]
    Sampling(#[from] SamplingError),
    /// The model says nothing.
    #[error(transparent)]
    NotFinite(#[from] NotFinite),
}
