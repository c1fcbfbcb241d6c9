//! How well a model foresees a text.

use std::ops::{ControlFlow, Range};

use openelm_model::{EngineError, NotFinite, Session, check_finite, log_probability};

/// How a text longer than the context is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Evaluation {
    /// In windows of so many tokens side by side. The first half of each is context, the tokens of the second half count; the token
    /// that begins a text takes the place of a window's first. A rest that fills no window is left out. So does `llama-perplexity`.
    Chunks(usize),
    /// In windows of `window` tokens, each `stride` behind the one before. Every token counts once, in the first window that holds
    /// it.
    Strides {
        /// Tokens of a window.
        window: usize,
        /// New tokens of each window but the first.
        stride: usize,
    },
}

/// What came of it.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Perplexity {
    /// Tokens that counted.
    pub tokens: usize,
    /// The sum of their negative log-probabilities, in nats.
    pub nats: f64,
}

impl Perplexity {
    /// The mean negative log-probability of a token.
    pub fn nats_per_token(self) -> f64 {
        self.nats / self.tokens.max(1) as f64
    }

    /// Its exponential.
    pub fn perplexity(self) -> f64 {
        self.nats_per_token().exp()
    }
}

/// An evaluation that cannot go on.
#[derive(Debug, thiserror::Error, PartialEq)]
pub enum PerplexityError {
    /// A window that leaves nothing to count, or more new tokens than a window has.
    #[error(
        "a window of {window} tokens and a stride of {stride} make no evaluation; a window has at least 4 tokens, a stride 1 to as many as the window"
    )]
    Window {
        /// Tokens of a window.
        window: usize,
        /// New tokens of a window.
        stride: usize,
    },
    /// Too little text.
    #[error("the text has {tokens} tokens; at least {needed} are needed")]
    Short {
        /// Tokens that there are.
        tokens: usize,
        /// Tokens that one window takes.
        needed: usize,
    },
    /// The text does not suit the model.
    #[error(transparent)]
    Engine(#[from] EngineError),
    /// The model says nothing.
    #[error(transparent)]
    NotFinite(#[from] NotFinite),
}

/// A window of a text, and which of its tokens count.
struct Window {
    tokens: Range<usize>,
    counted: Range<usize>,
}

/// Evaluates `session`'s model on `ids`. `bos` begins each window of chunks; of strides, `ids` has it if it is to be there.
/// `progress` is told what was found so far, behind each window, and may stop.
///
/// # Errors
/// See [`PerplexityError`].
pub fn perplexity(
    session: &mut Session,
    ids: &[u32],
    bos: Option<u32>,
    evaluation: Evaluation,
    progress: &mut dyn FnMut(Perplexity) -> ControlFlow<()>,
) -> Result<Perplexity, PerplexityError> {
    let vocabulary = session.engine().model().config().vocab_size;
    let mut found = Perplexity::default();
    for Window { tokens, counted } in windows(ids.len(), evaluation)? {
        session.truncate(0);
        let mut window = ids[tokens.clone()].to_vec();
        if let (Evaluation::Chunks(_), Some(bos)) = (evaluation, bos) {
            window[0] = bos;
        }
        // The logits behind a token say what comes next; of those before nobody asks.
        let first = counted.start - tokens.start - 1;
        let (context, rest) = window[..window.len() - 1].split_at(first);
        session.extend(context)?;
        let mut targets = window[first + 1..].iter();
        let mut failure = Ok(());
        session.append_all(rest, |logits| {
            for (logits, &target) in logits.chunks(vocabulary).zip(&mut targets) {
                failure = failure.and_then(|()| check_finite(logits));
                found.nats -= f64::from(log_probability(logits, target));
                found.tokens += 1;
            }
        })?;
        failure?;
        if progress(found).is_break() {
            break;
        }
    }
    Ok(found)
}

fn windows(count: usize, evaluation: Evaluation) -> Result<Vec<Window>, PerplexityError> {
    let (window, stride) = match evaluation {
        Evaluation::Chunks(window) => (window, window),
        Evaluation::Strides { window, stride } => (window, stride),
    };
    if window < 4 || stride == 0 || stride > window {
        return Err(PerplexityError::Window { window, stride });
    }
    let needed = if matches!(evaluation, Evaluation::Chunks(_)) { window } else { 2 };
    if count < needed {
        return Err(PerplexityError::Short { tokens: count, needed });
    }
    Ok(match evaluation {
        Evaluation::Chunks(window) => (0..count / window)
            .map(|i| i * window..(i + 1) * window)
            .map(|tokens| Window { counted: tokens.start + window / 2 + 1..tokens.end, tokens })
            .collect(),
        Evaluation::Strides { window, stride } => {
            let mut windows = vec![Window { tokens: 0..window.min(count), counted: 1..window.min(count) }];
            let mut done = window.min(count);
            while done < count {
                let end = (done + stride).min(count);
                // One token is context at least, or the first of the new ones could not count.
                windows.push(Window { tokens: end.saturating_sub(window).min(done - 1)..end, counted: done..end });
                done = end;
            }
            windows
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_token_but_the_first_counts_once() {
        for (count, window, stride) in [(10, 4, 2), (100, 16, 16), (100, 16, 1), (7, 16, 8), (33, 16, 15)] {
            let windows = windows(count, Evaluation::Strides { window, stride }).unwrap();
            let counted: Vec<usize> = windows.iter().flat_map(|window| window.counted.clone()).collect();
            assert_eq!(counted, (1..count).collect::<Vec<_>>());
            assert!(windows.iter().all(|w| w.tokens.len() <= window + 1 && w.tokens.start < w.counted.start));
        }
    }

    #[test]
    fn second_halves_of_chunks_count() {
        let windows = windows(1100, Evaluation::Chunks(512)).unwrap();
        let counted: Vec<Range<usize>> = windows.into_iter().map(|window| window.counted).collect();
        assert_eq!(counted, [257..512, 769..1024]);
        assert!(super::windows(511, Evaluation::Chunks(512)).is_err());
    }
}
