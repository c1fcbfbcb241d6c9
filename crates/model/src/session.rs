//! One sequence of an engine, and the logits that follow it.

use std::sync::Arc;

use crate::adapter::AdapterWeights;
use crate::engine::{Engine, EngineError, Feed, Logits, Rows};
use crate::sequence::Sequence;

/// Tokens whose logits are in memory together where those of all are asked for.
const LOGITS_TOKENS: usize = 64;

/// A conversation with an engine: a sequence that grows.
///
/// ```
/// # use std::collections::HashMap;
/// # use openelm_model::{Geometry, Model, Tensor, tensor_specs};
/// use openelm_model::kernels::Threads;
/// use openelm_model::{Engine, Session};
///
/// # let config = Geometry { layers: 2, dim: 64, head_dim: 16, gqa_groups: 2, ..Geometry::default() }.build(100)?;
/// # let mut tensors = HashMap::new();
/// # for spec in tensor_specs(&config) {
/// #     let values = (0..spec.len()).map(|i| (i as f32).sin()).collect();
/// #     tensors.insert(spec.name, Tensor::from_f32(spec.shape, values)?);
/// # }
/// # let model = Model::new(config, tensors)?;
/// let mut session = Session::new(Engine::new(model, Threads::new(2)), 2048);
/// let logits = session.append(&[1, 5, 7])?;
/// assert_eq!(logits.len(), 100);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct Session {
    engine: Arc<Engine>,
    sequence: Sequence,
    /// Those of the last token computed, if they were asked for.
    logits: Logits,
    /// Number of tokens that `logits` follow.
    known: Option<usize>,
}

impl Session {
    /// A session for up to `limit` tokens.
    pub fn new(engine: impl Into<Arc<Engine>>, limit: usize) -> Self {
        let engine = engine.into();
        Self { sequence: engine.sequence(limit), engine, logits: Logits::default(), known: None }
    }

    /// A session for up to `limit` tokens of the model as `adapter` changes it.
    ///
    /// # Errors
    /// If the adapter was made for a model of another geometry.
    pub fn adapted(
        engine: impl Into<Arc<Engine>>,
        limit: usize,
        adapter: Arc<AdapterWeights>,
    ) -> Result<Self, EngineError> {
        let engine = engine.into();
        let sequence = engine.adapted_sequence(limit, adapter)?;
        Ok(Self { sequence, engine, logits: Logits::default(), known: None })
    }

    /// Another session that has seen the same tokens; what was computed of them is shared.
    #[must_use]
    pub fn fork(&self) -> Self {
        Self { engine: self.engine.clone(), sequence: self.sequence.clone(), logits: Logits::default(), known: None }
    }

    /// The engine.
    pub fn engine(&self) -> &Arc<Engine> {
        &self.engine
    }

    /// All tokens.
    pub fn tokens(&self) -> &[u32] {
        self.sequence.tokens()
    }

    /// Number of tokens.
    pub fn len(&self) -> usize {
        self.sequence.len()
    }

    /// Whether there is no token yet.
    pub fn is_empty(&self) -> bool {
        self.sequence.is_empty()
    }

    /// Most tokens that the session may have.
    pub fn limit(&self) -> usize {
        self.sequence.limit()
    }

    /// Puts `ids` behind the tokens that are there. They are computed when logits are asked for.
    ///
    /// # Errors
    /// If an id is out of range or they are too many; the session is then as it was.
    pub fn extend(&mut self, ids: &[u32]) -> Result<(), EngineError> {
        self.sequence.check(ids, self.engine.model().config().vocab_size)?;
        self.sequence.tokens.extend_from_slice(ids);
        Ok(())
    }

    /// The logits `[vocabulary]` that follow the last token.
    ///
    /// # Errors
    /// If there is no token.
    pub fn logits(&mut self) -> Result<&[f32], EngineError> {
        if self.known != Some(self.len()) {
            if self.sequence.computed() == self.len() {
                // Their logits were not asked for when they were computed: the last one is computed again, to the same bits.
                let last = self.sequence.tokens.last().copied();
                self.sequence.truncate(self.len().saturating_sub(1));
                self.sequence.tokens.extend(last);
            }
            self.step(&[], Rows::Last)?;
            self.known = Some(self.len());
        }
        Ok(self.logits.of(0))
    }

    /// Computes up to `most` of the tokens that wait for it, but not the last one, whose logits may be wanted; says how many
    /// still wait. For callers that may want to stop on the way; [`Session::logits`] needs none of it.
    ///
    /// # Errors
    /// None that [`Session::extend`] did not report.
    pub fn advance(&mut self, most: usize) -> Result<usize, EngineError> {
        let waiting = (self.len() - self.sequence.computed()).saturating_sub(1);
        let now = waiting.min(most);
        if now > 0 {
            let later = self.sequence.tokens.split_off(self.sequence.computed() + now);
            let step = self.step(&[], Rows::None);
            self.sequence.tokens.extend(later);
            self.known = None;
            step?;
        }
        Ok(waiting - now)
    }

    /// Lets go of the keys and values; those of all tokens are computed again when logits are asked for.
    pub fn drop_cache(&mut self) {
        let tokens = std::mem::take(&mut self.sequence.tokens);
        self.truncate(0);
        self.sequence.tokens = tokens;
        self.logits = Logits::default();
    }

    /// What [`Session::logits`] gave last, and the tokens.
    pub(crate) fn known_logits(&self) -> (&[f32], &[u32]) {
        (self.logits.of(0), self.tokens())
    }

    /// Takes in `ids` and returns the logits `[vocabulary]` that follow the last of them.
    ///
    /// # Errors
    /// See [`EngineError`]; the session is then as it was.
    pub fn append(&mut self, ids: &[u32]) -> Result<&[f32], EngineError> {
        if ids.is_empty() {
            return Err(EngineError::Empty);
        }
        self.extend(ids)?;
        self.logits()
    }

    /// Takes in `ids` and hands the logits `[tokens, vocabulary]` of each few of them to `sink`, in order.
    ///
    /// # Errors
    /// See [`EngineError`]; the session is then as it was.
    pub fn append_all(&mut self, ids: &[u32], mut sink: impl FnMut(&[f32])) -> Result<(), EngineError> {
        if ids.is_empty() {
            return Err(EngineError::Empty);
        }
        self.sequence.check(ids, self.engine.model().config().vocab_size)?;
        for ids in ids.chunks(LOGITS_TOKENS) {
            self.known = None;
            self.step(ids, Rows::All)?;
            sink(self.logits.of(0));
        }
        Ok(())
    }

    /// Forgets all tokens from position `tokens` on.
    pub fn truncate(&mut self, tokens: usize) {
        self.sequence.truncate(tokens);
        self.known = self.known.filter(|&known| known == self.len());
    }

    fn step(&mut self, tokens: &[u32], logits: Rows<'_>) -> Result<(), EngineError> {
        let feed = Feed { sequence: &mut self.sequence, tokens, logits };
        self.engine.step(&mut [feed], &mut self.logits)
    }
}
