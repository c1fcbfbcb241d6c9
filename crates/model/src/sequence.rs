//! One text in the making: its tokens, and the keys and values of those that were computed.

use std::sync::Arc;

use openelm_kernels::attention::{CacheType, KvCache};

use crate::adapter::AdapterWeights;
use crate::config::ModelConfig;
use crate::engine::EngineError;

/// A sequence of tokens that an [`crate::Engine`] works on.
///
/// Keys and values lie in pages. A clone shares them with the original until one of the two goes on behind a page that both
/// hold; so forking a sequence, or beginning many with the same prefix, costs next to nothing.
#[derive(Debug, Clone)]
pub struct Sequence {
    pub(crate) tokens: Vec<u32>,
    /// Keys (normalised and rotated) and values of each layer. The tokens behind the last of these wait to be computed.
    pub(crate) layers: Vec<KvCache>,
    pub(crate) limit: usize,
    pub(crate) adapter: Option<Arc<AdapterWeights>>,
}

impl Sequence {
    /// An empty sequence for a model of `config`, of at most `limit` tokens.
    pub(crate) fn new(config: &ModelConfig, cache_type: CacheType, limit: usize) -> Self {
        let layer = |kv_heads| KvCache::new(cache_type, kv_heads, config.head_dim);
        let layers = config.layers.iter().map(|config| layer(config.kv_heads)).collect();
        Self { tokens: Vec::new(), layers, limit, adapter: None }
    }

    /// Bytes that keys and values of `tokens` tokens take; no more than there are numbers for.
    pub fn bytes(config: &ModelConfig, cache_type: CacheType, tokens: usize) -> usize {
        let layer = |kv_heads| KvCache::bytes(cache_type, kv_heads, config.head_dim, tokens);
        config.layers.iter().fold(0, |sum: usize, config| sum.saturating_add(layer(config.kv_heads)))
    }

    /// All tokens.
    pub fn tokens(&self) -> &[u32] {
        &self.tokens
    }

    /// Number of tokens.
    pub fn len(&self) -> usize {
        self.tokens.len()
    }

    /// Whether there is no token yet.
    pub fn is_empty(&self) -> bool {
        self.tokens.is_empty()
    }

    /// Most tokens that the sequence may have.
    pub fn limit(&self) -> usize {
        self.limit
    }

    /// Tokens whose keys and values are there: the first ones.
    pub fn computed(&self) -> usize {
        self.layers.iter().map(KvCache::len).min().unwrap_or(0)
    }

    /// Forgets all tokens from position `tokens` on; does nothing if there are fewer.
    pub fn truncate(&mut self, tokens: usize) {
        self.tokens.truncate(tokens);
        self.layers.iter_mut().for_each(|layer| layer.truncate(tokens));
    }

    /// Whether `tokens` can follow, in a model whose vocabulary has `vocabulary` tokens.
    pub(crate) fn check(&self, tokens: &[u32], vocabulary: usize) -> Result<(), EngineError> {
        if let Some(&id) = tokens.iter().find(|&&id| id as usize >= vocabulary) {
            return Err(EngineError::Id { id, vocabulary });
        }
        let tokens = self.len() + tokens.len();
        if tokens > self.limit { Err(EngineError::ContextFull { tokens, limit: self.limit }) } else { Ok(()) }
    }
}
