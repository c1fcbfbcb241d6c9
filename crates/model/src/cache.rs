//! The key/value cache of one sequence.

use crate::config::ModelConfig;

/// Keys (normalised and rotated) and values of one layer, `[tokens, kv_heads * head_dim]` each.
#[derive(Debug, Clone, Default)]
pub struct LayerCache {
    pub(crate) keys: Vec<f32>,
    pub(crate) values: Vec<f32>,
}

impl LayerCache {
    pub(crate) fn append<'a>(&mut self, keys: &[f32], values: impl Iterator<Item = &'a [f32]>) {
        self.keys.extend_from_slice(keys);
        values.for_each(|row| self.values.extend_from_slice(row));
    }
}

/// The key/value cache of all layers. It grows with the sequence.
#[derive(Debug, Clone)]
pub struct Cache {
    pub(crate) layers: Vec<LayerCache>,
    tokens: usize,
}

impl Cache {
    /// An empty cache.
    pub fn new(config: &ModelConfig) -> Self {
        Self { layers: vec![LayerCache::default(); config.layers.len()], tokens: 0 }
    }

    /// Bytes that the cache of `tokens` tokens takes.
    pub fn bytes(config: &ModelConfig, tokens: usize) -> usize {
        config.kv_elements_per_token() * tokens * size_of::<f32>()
    }

    /// Tokens seen so far.
    pub fn len(&self) -> usize {
        self.tokens
    }

    /// Whether no token was seen yet.
    pub fn is_empty(&self) -> bool {
        self.tokens == 0
    }

    /// Room for `tokens` tokens in all, so that growing never copies.
    pub(crate) fn reserve(&mut self, config: &ModelConfig, tokens: usize) {
        for (cache, layer) in self.layers.iter_mut().zip(&config.layers) {
            let room = tokens * layer.kv_heads * config.head_dim;
            cache.keys.reserve_exact(room.saturating_sub(cache.keys.len()));
            cache.values.reserve_exact(room.saturating_sub(cache.values.len()));
        }
    }

    /// Counts `tokens` more, which every layer has taken in.
    pub(crate) fn advance(&mut self, tokens: usize) {
        self.tokens += tokens;
    }

    /// Forgets all tokens from position `tokens` on; does nothing if there are fewer.
    pub fn truncate(&mut self, tokens: usize) {
        if tokens >= self.tokens {
            return;
        }
        for layer in &mut self.layers {
            let width = layer.keys.len() / self.tokens;
            layer.keys.truncate(tokens * width);
            layer.values.truncate(tokens * width);
        }
        self.tokens = tokens;
    }
}
