//! Running a model over one sequence: prompts in chunks, then token by token.

use openelm_kernels::attention::CacheType;
use openelm_kernels::rope::RopeTable;
use openelm_kernels::{Input, Threads, embedding, linear};

use crate::block::{self, Activations, Memory, Pass, Scratch, Span, fit};
use crate::cache::Cache;
use crate::config::{ModelConfig, NORM_EPS};
use crate::model::Model;
use crate::weights::Weights;

/// Tokens of a prompt that pass through the blocks together, which bounds the memory for activations: more of them share the
/// packing of weights in floats, fewer keep the buffers small beside quantised weights.
pub(crate) fn chunk(config: &ModelConfig, weight_bytes: usize) -> usize {
    let quantised = weight_bytes < 2 * config.parameters();
    if quantised { 256 } else { 512 }
}

/// The same where the logits of all positions are asked for, which would be large with a large vocabulary.
pub(crate) const LOGITS_CHUNK: usize = 64;

/// Input that a session cannot take.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum SessionError {
    /// A token id that the vocabulary does not have.
    #[error("token id {id} is out of range: the model's vocabulary has {vocabulary} tokens")]
    Id {
        /// The id.
        id: u32,
        /// Rows of the embedding table.
        vocabulary: usize,
    },
    /// More tokens than the session was made for.
    #[error("{tokens} tokens do not fit the context of {limit}; shorten the prompt or allow a longer context")]
    ContextFull {
        /// Tokens that there would be.
        tokens: usize,
        /// Tokens that the session was made for.
        limit: usize,
    },
    /// No tokens at all.
    #[error("there is no token to start from; the prompt needs at least one")]
    Empty,
}

/// A model at work on one sequence.
///
/// ```
/// # use std::collections::HashMap;
/// use openelm_model::{Geometry, Model, Session, Tensor, tensor_specs};
/// use openelm_model::kernels::Threads;
///
/// let config = Geometry { layers: 2, dim: 64, head_dim: 16, gqa_groups: 2, ..Geometry::default() }.build(100)?;
/// let mut tensors = HashMap::new();
/// for spec in tensor_specs(&config) {
///     let values = (0..spec.len()).map(|i| (i as f32).sin()).collect();
///     tensors.insert(spec.name, Tensor::from_f32(spec.shape, values)?);
/// }
/// let model = Model::new(config, tensors)?;
/// let mut session = Session::new(&model, Threads::new(2), 2048);
/// let logits = session.append(&[1, 5, 7])?;
/// assert_eq!(logits.len(), 100);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct Session<'m> {
    model: &'m Model,
    weights: Weights<'m>,
    threads: Threads,
    limit: usize,
    chunk: usize,
    cache: Cache,
    rope: RopeTable,
    kept: Activations,
    scratch: Scratch,
    /// The residual stream before and after a block, `[chunk, dim]`.
    stream: [Vec<f32>; 2],
    logits: Vec<f32>,
}

impl<'m> Session<'m> {
    /// A session for up to `limit` tokens. Beyond the context that the model was trained with it works, but the model
    /// has never seen such positions.
    pub fn new(model: &'m Model, threads: Threads, limit: usize) -> Self {
        let config = model.config();
        Self {
            model,
            weights: model.weights(),
            threads,
            limit,
            chunk: chunk(config, model.weight_bytes()),
            cache: Cache::new(config, CacheType::default()),
            rope: RopeTable::new(config.head_dim, config.rope_theta),
            kept: Activations::default(),
            scratch: Scratch::default(),
            stream: [Vec::new(), Vec::new()],
            logits: Vec::new(),
        }
    }

    /// The same session, empty, with keys and values stored as `cache_type` (`f32` otherwise).
    pub fn with_cache(mut self, cache_type: CacheType) -> Self {
        self.cache = Cache::new(self.model.config(), cache_type);
        self
    }

    /// Tokens taken in so far.
    pub fn len(&self) -> usize {
        self.cache.len()
    }

    /// Whether no token was taken in yet.
    pub fn is_empty(&self) -> bool {
        self.cache.is_empty()
    }

    /// Takes in `ids` and returns the logits `[vocabulary]` that follow the last of them.
    ///
    /// # Errors
    /// See [`SessionError`]; the session is then as it was.
    pub fn append(&mut self, ids: &[u32]) -> Result<&[f32], SessionError> {
        self.check(ids)?;
        for chunk in ids.chunks(self.chunk) {
            self.blocks(chunk);
        }
        let dim = self.model.config().model_dim;
        let last = self.stream[0].len() - dim;
        self.stream[0].drain(..last);
        self.project();
        Ok(&self.logits)
    }

    /// Takes in `ids` and hands the logits `[tokens, vocabulary]` of each chunk of them to `sink`, in order.
    ///
    /// # Errors
    /// See [`SessionError`]; the session is then as it was.
    pub fn append_all(&mut self, ids: &[u32], mut sink: impl FnMut(&[f32])) -> Result<(), SessionError> {
        self.check(ids)?;
        for chunk in ids.chunks(LOGITS_CHUNK) {
            self.blocks(chunk);
            self.project();
            sink(&self.logits);
        }
        Ok(())
    }

    /// Forgets all tokens from position `tokens` on.
    pub fn truncate(&mut self, tokens: usize) {
        self.cache.truncate(tokens);
    }

    fn check(&mut self, ids: &[u32]) -> Result<(), SessionError> {
        let vocabulary = self.model.config().vocab_size;
        if ids.is_empty() {
            return Err(SessionError::Empty);
        }
        if let Some(&id) = ids.iter().find(|&&id| id as usize >= vocabulary) {
            return Err(SessionError::Id { id, vocabulary });
        }
        let tokens = self.len() + ids.len();
        if tokens > self.limit {
            return Err(SessionError::ContextFull { tokens, limit: self.limit });
        }
        self.rope.grow_to(tokens);
        Ok(())
    }

    /// Runs `ids` through all blocks; the residual stream behind the last one is left in `self.stream[0]`.
    fn blocks(&mut self, ids: &[u32]) {
        let config = self.model.config();
        let span = Span { sequences: 1, time: ids.len(), past: self.cache.len() };
        let pass = Pass { threads: &self.threads, config, rope: &self.rope, span, document_starts: None };
        let [x, out] = &mut self.stream;
        fit(x, ids.len() * config.model_dim);
        fit(out, ids.len() * config.model_dim);
        embedding::forward(pass.threads, x, ids, self.weights.embedding, config.model_dim);
        for (i, (layer, weights)) in config.layers.iter().zip(&self.weights.layers).enumerate() {
            let memory = Memory::Cache(&mut self.cache.layers[i]);
            block::forward(&pass, layer, weights, x, out, &mut self.kept, &mut self.scratch, memory);
            std::mem::swap(x, out);
        }
    }

    /// Logits of all rows of the residual stream.
    fn project(&mut self) {
        let config = self.model.config();
        let x = &self.stream[0];
        fit(&mut self.logits, x.len() / config.model_dim * config.vocab_size);
        let normed = Input::Normed { x, weight: self.weights.norm, eps: NORM_EPS };
        let (logits, buffer) = (&mut self.logits, &mut self.scratch.normed);
        linear::forward_fused(&self.threads, logits, normed, buffer, self.weights.head, false);
    }
}
