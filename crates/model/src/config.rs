//! The geometry of a model: how many heads and how wide a feed-forward network each layer has.

/// The non-linearity of the feed-forward network.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Activation {
    /// `x * sigmoid(x)`, also called SiLU; with `glu` the block is SwiGLU.
    Swish,
    /// `x * Phi(x)` with the exact normal distribution function (PyTorch's default GELU).
    Gelu,
}

/// One layer's own sizes.
#[derive(Debug, Clone, PartialEq)]
pub struct LayerConfig {
    /// Query heads.
    pub query_heads: usize,
    /// Key/value heads; each serves `query_heads / kv_heads` consecutive query heads.
    pub kv_heads: usize,
    /// Inner size of the feed-forward network divided by the model dimension, rounded to two decimals.
    pub ffn_multiplier: f64,
    /// Inner size of the feed-forward network.
    pub ffn_dim: usize,
}

/// Everything that fixes a model's shapes and arithmetic.
#[derive(Debug, Clone, PartialEq)]
pub struct ModelConfig {
    /// Rows of the embedding table.
    pub vocab_size: usize,
    /// Longest sequence seen in training (CoreNet's `max_context_length`).
    pub context_length: usize,
    /// Width of the residual stream.
    pub model_dim: usize,
    /// Width of one attention head.
    pub head_dim: usize,
    /// Query heads per key/value head.
    pub gqa_groups: usize,
    /// The feed-forward sizes are multiples of this.
    pub ffn_divisor: usize,
    /// Whether the feed-forward network is gated (`proj_1` then has `2 * ffn_dim` rows: gate, then up).
    pub ffn_glu: bool,
    /// Non-linearity of the feed-forward network.
    pub activation: Activation,
    /// Whether queries and keys are normalised per head before RoPE.
    pub qk_norm: bool,
    /// Whether the output projection is the embedding table.
    pub tied_embeddings: bool,
    /// Base of the rotary frequencies.
    pub rope_theta: f64,
    /// Length that CoreNet builds its rotary table for (kept for the config files; longer contexts work).
    pub rope_max_length: usize,
    /// The layers, from the text to the output.
    pub layers: Vec<LayerConfig>,
}

/// Added to the mean square in every RMSNorm.
pub const NORM_EPS: f32 = 1e-6;

impl ModelConfig {
    /// Rows of `qkv_proj` of `layer`: queries, keys and values of all its heads.
    pub fn qkv_dim(&self, layer: &LayerConfig) -> usize {
        (layer.query_heads + 2 * layer.kv_heads) * self.head_dim
    }

    /// Rows of `proj_1` of `layer`: gate and up of a gated network, one of them otherwise.
    pub fn ffn_hidden_dim(&self, layer: &LayerConfig) -> usize {
        layer.ffn_dim * if self.ffn_glu { 2 } else { 1 }
    }
}
