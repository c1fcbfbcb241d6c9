//! Texts as the model sees them: which tokens are scored behind which others.

use openelm_model::Tokenizer;

use crate::EvalError;
use crate::python::trim_end;
use crate::task::{Harness, Rendered};

/// Tokens, of which the last ones are scored.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Query {
    /// All tokens; the last one is not shown to the model.
    pub tokens: Vec<u32>,
    /// How many of them are scored, from the end.
    pub scored: usize,
}

/// How texts become tokens.
pub struct Encoding<'a> {
    /// The tokenizer.
    pub tokenizer: &'a Tokenizer,
    /// Whether texts begin with the token for that.
    pub bos: bool,
    /// Most tokens that the model sees at once.
    pub context: usize,
    /// Whose rules are followed.
    pub harness: Harness,
}

/// The queries of a document.
#[derive(Debug, Default)]
pub struct Queries {
    /// For each continuation the queries whose log-likelihoods add up to its own: one, or one for each window of a text.
    pub of_continuations: Vec<Vec<Query>>,
    /// Queries that did not fit the context and lost their beginning.
    pub truncated: usize,
}

impl Encoding<'_> {
    /// The queries that `document` makes.
    ///
    /// # Errors
    /// If a continuation has no tokens, or too many, or there is no token to begin with.
    pub fn queries(&self, document: &Rendered) -> Result<Queries, QueryError> {
        let mut queries = Queries::default();
        if document.is_text {
            for text in &document.continuations {
                queries.of_continuations.push(self.windows(text)?);
            }
            return Ok(queries);
        }
        // Choices have their context in common.
        let mut encoded: Option<(&str, Context)> = None;
        for (context, continuation) in document.contexts.iter().zip(&document.continuations) {
            let context = match encoded.take() {
                Some((text, known)) if text == context => known,
                _ => self.context(context)?,
            };
            let tail = self.tail(&context, continuation)?;
            let mut tokens = [&context.ids[..], &tail].concat();
            if tokens.len() > self.context + 1 {
                if tail.len() > self.context {
                    return Err(QueryError::TooLong { tokens: tail.len(), context: self.context });
                }
                tokens.drain(..tokens.len() - self.context - 1);
                queries.truncated += 1;
            }
            queries.of_continuations.push(vec![Query { tokens, scored: tail.len() }]);
            encoded = Some((&document.contexts[queries.of_continuations.len() - 1], context));
        }
        Ok(queries)
    }

    /// The context `text`, without the white space at its end, which belongs to the continuation.
    fn context(&self, text: &str) -> Result<Context, QueryError> {
        let kept = trim_end(text);
        let mut ids = if text.is_empty() { Vec::new() } else { self.encode(kept) };
        let bare = ids.is_empty();
        if bare {
            ids.push(self.prefix()?);
        }
        Ok(Context { kept: kept.to_owned(), moved: text[kept.len()..].to_owned(), ids, bare })
    }

    /// The tokens of `continuation` behind `context`.
    fn tail(&self, context: &Context, continuation: &str) -> Result<Vec<u32>, QueryError> {
        let Context { kept, moved, ids, bare } = context;
        let tail = if *bare {
            // The older harness put BOS before the continuation, too, where texts begin with it.
            let bos = self.bos && self.harness <= Harness::V0_4_9_1;
            self.tokenizer.encode_with(&format!("{moved}{continuation}"), bos, false)
        } else {
            let whole = self.encode(&format!("{kept}{moved}{continuation}"));
            whole.get(ids.len()..).unwrap_or_default().to_vec()
        };
        if tail.is_empty() { Err(QueryError::Empty) } else { Ok(tail) }
    }

    fn encode(&self, text: &str) -> Vec<u32> {
        self.tokenizer.encode_with(text, self.bos, false)
    }

    /// What stands for a context where there is none.
    fn prefix(&self) -> Result<u32, QueryError> {
        self.tokenizer.bos_id().or(self.tokenizer.eos_id()).ok_or(QueryError::NoPrefix)
    }

    /// A text in windows of the context's length: each token is scored once, behind as many others as fit.
    fn windows(&self, text: &str) -> Result<Vec<Query>, QueryError> {
        let mut tokens = vec![self.prefix()?];
        tokens.extend(self.encode(text));
        let count = tokens.len() - 1;
        let mut windows = Vec::new();
        let mut done = 0;
        while done < count {
            let scored = self.context.min(count - done);
            let end = done + scored + 1;
            windows.push(Query { tokens: tokens[end.saturating_sub(self.context + 1)..end].to_vec(), scored });
            done += scored;
        }
        Ok(windows)
    }
}

/// A context in tokens.
struct Context {
    kept: String,
    /// White space that goes to the continuation.
    moved: String,
    ids: Vec<u32>,
    /// Whether there is nothing but the token that stands for a context.
    bare: bool,
}

/// A document that makes no query.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum QueryError {
    /// A continuation that is no token of its own.
    #[error("a continuation has no tokens of its own behind its context, so there is nothing to score")]
    Empty,
    /// A continuation that the context does not hold.
    #[error("a continuation has {tokens} tokens, but the model sees only {context} at once; raise --context")]
    TooLong {
        /// Tokens of the continuation.
        tokens: usize,
        /// Tokens that the model sees.
        context: usize,
    },
    /// There is no token that stands for a context.
    #[error("{}", EvalError::NoPrefix)]
    NoPrefix,
}
