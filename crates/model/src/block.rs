//! One transformer block, forward: the same code trains and generates.
//!
//! ```text
//! x ─┬─ attn_norm ─ qkv_proj ─ qk_norm, RoPE ─ attention ─ out_proj ─┐
//!    └───────────────────────────────────────────────────────────── + ─ mid
//! mid ─┬─ ffn_norm ─ proj_1 ─ SwiGLU ─ proj_2 ─┐
//!      └────────────────────────────────────── + ─ out
//! ```

use openelm_kernels::attention::{self, KvCache, Rows, Shape};
use openelm_kernels::qk_norm_rope::{self, Heads, Positions};
use openelm_kernels::rope::RopeTable;
use openelm_kernels::{Input, Threads, linear};

use crate::config::{LayerConfig, ModelConfig, NORM_EPS};
use crate::weights::LayerWeights;

/// What a block computes on the way and its backward pass needs; `N` rows, one per token.
///
/// Training keeps one for each layer, inference uses one for all.
#[derive(Default)]
pub struct Activations {
    /// Output of `qkv_proj`, `[N, (query_heads + 2 kv_heads) * head_dim]`.
    pub qkv: Vec<f32>,
    /// Normalised and rotated queries, `[N, query_heads * head_dim]`.
    pub q: Vec<f32>,
    /// Normalised and rotated keys, `[N, kv_heads * head_dim]`.
    pub k: Vec<f32>,
    /// Output of attention, `[N, query_heads * head_dim]`.
    pub attended: Vec<f32>,
    /// Logarithms of the softmax denominators, `[N, query_heads]`; empty where nothing is kept for a backward pass.
    pub log_sums: Vec<f32>,
    /// The residual stream after attention, `[N, dim]`.
    pub mid: Vec<f32>,
    /// Output of `proj_1`, `[N, 2 * ffn_dim]` (`[N, ffn_dim]` without a gate).
    pub hidden: Vec<f32>,
}

/// Buffers that no backward pass needs; packed weights need none.
#[derive(Default)]
pub struct Scratch {
    /// Output of a norm, `[N, dim]`.
    pub normed: Vec<f32>,
    /// Output of SwiGLU, `[N, ffn_dim]`.
    pub gated: Vec<f32>,
}

/// What the rows of a forward pass are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Span {
    /// Number of sequences.
    pub sequences: usize,
    /// Tokens of each sequence in this pass.
    pub time: usize,
    /// Tokens of each sequence before this pass, whose keys and values are in the cache.
    pub past: usize,
}

impl Span {
    /// Rows of all buffers.
    pub fn rows(&self) -> usize {
        self.sequences * self.time
    }

    /// The positions of the rows.
    pub fn positions(&self) -> Positions {
        Positions { start: self.past, time: self.time }
    }

    /// Sizes of the attention operation of `layer`.
    pub fn attention(&self, config: &ModelConfig, layer: &LayerConfig) -> Shape {
        Shape {
            sequences: self.sequences,
            queries: self.time,
            keys: self.past + self.time,
            query_heads: layer.query_heads,
            kv_heads: layer.kv_heads,
            head_dim: config.head_dim,
        }
    }
}

/// Where the keys and values of a pass go.
pub enum Memory<'a> {
    /// Into the cache, behind those of earlier passes (one sequence); [`Activations::k`] stays empty.
    Cache(&'a mut KvCache),
    /// They are not needed again, but a backward pass follows.
    Backward,
}

/// What is the same for all blocks of a pass.
pub struct Pass<'a> {
    /// The threads to use.
    pub threads: &'a Threads,
    /// The model's geometry.
    pub config: &'a ModelConfig,
    /// Rotations, grown to the last position of the pass.
    pub rope: &'a RopeTable,
    /// What the rows are.
    pub span: Span,
    /// Where documents in one sequence must not see each other (training): for each row, the position in its sequence at
    /// which its document begins.
    pub document_starts: Option<&'a [u32]>,
}

/// Sets a buffer's length without clearing what will be overwritten.
pub fn fit(buffer: &mut Vec<f32>, length: usize) {
    buffer.resize(length, 0.0);
}

/// The heads of `layer`.
pub fn heads(config: &ModelConfig, layer: &LayerConfig) -> Heads {
    Heads { query_heads: layer.query_heads, kv_heads: layer.kv_heads, head_dim: config.head_dim }
}

/// Computes `out` from `x`, both `[N, dim]`, and leaves in `kept` what a backward pass needs.
pub fn forward(
    pass: &Pass<'_>,
    layer: &LayerConfig,
    weights: &LayerWeights<'_>,
    x: &[f32],
    out: &mut [f32],
    kept: &mut Activations,
    scratch: &mut Scratch,
    memory: Memory<'_>,
) {
    let Pass { threads, config, rope, span, document_starts } = *pass;
    let rows = span.rows();
    let (query_dim, kv_dim) = (layer.query_heads * config.head_dim, layer.kv_heads * config.head_dim);
    let qkv_dim = config.qkv_dim(layer);

    fit(&mut kept.qkv, rows * qkv_dim);
    let normed = Input::Normed { x, weight: weights.attn_norm, eps: NORM_EPS };
    linear::forward_fused(threads, &mut kept.qkv, normed, &mut scratch.normed, weights.qkv_proj, false);
    fit(&mut kept.q, rows * query_dim);
    fit(&mut kept.attended, rows * query_dim);
    let heads = heads(config, layer);
    match memory {
        Memory::Cache(cache) => {
            let (q, qkv, norms) = (&mut kept.q, &kept.qkv, weights.qk_norms);
            qk_norm_rope::forward_into_cache(threads, q, cache, qkv, norms, rope, heads, NORM_EPS);
            attention::cached(threads, &mut kept.attended, &kept.q, cache, layer.query_heads);
        }
        Memory::Backward => {
            fit(&mut kept.k, rows * kv_dim);
            let (q, k, qkv, norms) = (&mut kept.q, &mut kept.k, &kept.qkv, weights.qk_norms);
            qk_norm_rope::forward(threads, q, k, qkv, norms, rope, span.positions(), heads, NORM_EPS);
            fit(&mut kept.log_sums, rows * layer.query_heads);
            let k = Rows { data: &kept.k, stride: kv_dim };
            let v = Rows { data: &kept.qkv[query_dim + kv_dim..], stride: qkv_dim };
            let shape = span.attention(config, layer);
            let (out, log_sums) = (&mut kept.attended, &mut kept.log_sums);
            attention::forward(threads, out, log_sums, &kept.q, k, v, document_starts, shape);
        }
    }
    kept.mid.clear();
    kept.mid.extend_from_slice(x);
    linear::forward(threads, &mut kept.mid, &kept.attended, weights.out_proj, query_dim, true);

    fit(&mut kept.hidden, rows * config.ffn_hidden_dim(layer));
    let normed = Input::Normed { x: &kept.mid, weight: weights.ffn_norm, eps: NORM_EPS };
    linear::forward_fused(threads, &mut kept.hidden, normed, &mut scratch.normed, weights.proj_1, false);
    out.copy_from_slice(&kept.mid);
    let (hidden, activation, gated, inner) = (&kept.hidden, config.activation, config.ffn_glu, layer.ffn_dim);
    let gated = Input::Gated { hidden, activation, gated, inner };
    linear::forward_fused(threads, out, gated, &mut scratch.gated, weights.proj_2, true);
}
