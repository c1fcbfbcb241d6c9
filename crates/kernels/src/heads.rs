//! The heads of a layer.

/// How many heads a layer's attention has, and how wide they are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Heads {
    /// Query heads, a multiple of `kv_heads`.
    pub query_heads: usize,
    /// Key/value heads; each serves `query_heads / kv_heads` consecutive query heads.
    pub kv_heads: usize,
    /// Elements per head.
    pub head_dim: usize,
}

impl Heads {
    /// Query heads per key/value head.
    pub fn group(&self) -> usize {
        self.query_heads / self.kv_heads
    }

    /// Width of the queries of a token.
    pub fn query_dim(&self) -> usize {
        self.query_heads * self.head_dim
    }

    /// Width of the keys, or of the values, of a token.
    pub fn kv_dim(&self) -> usize {
        self.kv_heads * self.head_dim
    }

    /// Width of queries, keys and values side by side, as the projection gives them.
    pub fn qkv_dim(&self) -> usize {
        self.query_dim() + 2 * self.kv_dim()
    }
}
