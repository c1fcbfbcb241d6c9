//! The key/value cache of one sequence.

use openelm_kernels::attention::{CacheType, KvCache};

use crate::config::ModelConfig;

/// The key/value cache of all layers. It grows with the sequence.
#[derive(Debug, Clone)]
pub struct Cache {
    /// Keys (normalised and rotated) and values of each layer.
    pub(crate) layers: Vec<KvCache>,
}

impl Cache {
    /// An empty cache.
    pub fn new(config: &ModelConfig, cache_type: CacheType) -> Self {
        let layer = |kv_heads| KvCache::new(cache_type, kv_heads, config.head_dim);
        Self { layers: config.layers.iter().map(|config| layer(config.kv_heads)).collect() }
    }

    /// Bytes that the cache of `tokens` tokens takes; no more than there are numbers for.
    pub fn bytes(config: &ModelConfig, cache_type: CacheType, tokens: usize) -> usize {
        let layer = |kv_heads| KvCache::bytes(cache_type, kv_heads, config.head_dim, tokens);
        config.layers.iter().fold(0, |sum: usize, config| sum.saturating_add(layer(config.kv_heads)))
    }

    /// Tokens seen so far.
    pub fn len(&self) -> usize {
        self.layers.first().map_or(0, KvCache::len)
    }

    /// Whether no token was seen yet.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Forgets all tokens from position `tokens` on; does nothing if there are fewer.
    pub fn truncate(&mut self, tokens: usize) {
        self.layers.iter_mut().for_each(|layer| layer.truncate(tokens));
    }
}
