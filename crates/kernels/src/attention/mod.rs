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

use crate::Heads;
use crate::lanes::LANES;

/// Keys per block.
const KEYS: usize = 64;

/// Elements that a value takes in a tile: whole vectors.
#[inline(always)]
const fn padded(head_dim: usize) -> usize {
    head_dim.next_multiple_of(LANES)
}

/// Sizes of attention over several whole sequences of equal length.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shape {
    /// Number of sequences.
    pub sequences: usize,
    /// Tokens of each sequence.
    pub time: usize,
    /// The heads of the layer.
    pub heads: Heads,
}

/// Queries, keys and values of whole sequences.
#[derive(Clone, Copy)]
pub struct Inputs<'a> {
    /// Normalised and rotated queries, `[sequences * time, query_heads * head_dim]`.
    pub q: &'a [f32],
    /// Normalised and rotated keys.
    pub k: Rows<'a>,
    /// Values.
    pub v: Rows<'a>,
    /// Where documents in one sequence stay apart, `[sequences * time]`: a query sees no key of its sequence before that
    /// position, which is not behind its own and does not fall from one query to the next.
    pub document_starts: Option<&'a [u32]>,
    /// Sizes of all of them.
    pub shape: Shape,
}

/// What scores are multiplied by.
fn scale(heads: Heads) -> f32 {
    1.0 / (heads.head_dim as f32).sqrt()
}

/// Keys or values of all sequences: row `s * time + t` begins at `(s * time + t) * stride` and holds the heads in order.
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

#[cfg(test)]
mod tests;
