//! Causal grouped-query attention without the full score matrix: keys are met in blocks and the softmax is carried along
//! (Milakov and Gimelshein 2018; Dao et al., "FlashAttention", 2022).
//!
//! For one key/value head and a block of queries, the rows of all query heads that share the head stand together, so that
//! keys and values are read once for the group:
//!
//! ```text
//! S = Q K^T / sqrt(d)     P = softmax(S), masked above the diagonal     out = P V
//! ```

mod backward;
mod cache;
mod forward;
mod product;
mod running;
mod source;
mod tile;

pub use backward::{Gradients, backward, backward_scratch};
pub use cache::{CacheType, KvCache};
pub use forward::{cached, forward};

use crate::lanes::LANES;

/// Keys per block.
const KEYS: usize = 64;

/// Elements that a value takes in a tile: whole vectors.
#[inline(always)]
const fn padded(head_dim: usize) -> usize {
    head_dim.next_multiple_of(LANES)
}

/// Sizes of an attention operation over several sequences of equal length.
///
/// Query `t` of a sequence stands at position `keys - queries + t` and sees the keys up to and with its own position: the
/// mask is aligned at the bottom right, so a chunk of a prompt may follow keys that are cached already.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shape {
    /// Number of sequences.
    pub sequences: usize,
    /// Queries per sequence.
    pub queries: usize,
    /// Keys per sequence, at least as many as queries.
    pub keys: usize,
    /// Query heads, a multiple of `kv_heads`.
    pub query_heads: usize,
    /// Key/value heads; each serves `query_heads / kv_heads` consecutive query heads.
    pub kv_heads: usize,
    /// Elements per head.
    pub head_dim: usize,
}

impl Shape {
    /// Query heads per key/value head.
    fn group(&self) -> usize {
        self.query_heads / self.kv_heads
    }

    fn query_dim(&self) -> usize {
        self.query_heads * self.head_dim
    }

    fn scale(&self) -> f32 {
        1.0 / (self.head_dim as f32).sqrt()
    }
}

/// Keys or values of all sequences: row `s * keys + t` begins at `(s * keys + t) * stride` and holds the heads in order.
#[derive(Clone, Copy)]
pub struct Rows<'a> {
    /// The elements; the last row may end with its last head.
    pub data: &'a [f32],
    /// Distance of neighbouring rows.
    pub stride: usize,
}

impl<'a> Rows<'a> {
    fn row(&self, row: usize, head: usize, head_dim: usize) -> &'a [f32] {
        &self.data[row * self.stride + head * head_dim..][..head_dim]
    }
}

/// Copies the rows of the query heads that share key/value head `head`, for `count` queries from row `first` of
/// `[.., query_dim]` on, as `[count * group, head_dim]` (the heads of a query side by side), multiplied by `factor`.
fn gather(target: &mut Vec<f32>, source: &[f32], shape: &Shape, head: usize, first: usize, count: usize, factor: f32) {
    let width = shape.group() * shape.head_dim;
    target.clear();
    for row in first..first + count {
        let source = &source[row * shape.query_dim() + head * width..][..width];
        target.extend(source.iter().map(|x| x * factor));
    }
}

#[cfg(test)]
mod tests;
