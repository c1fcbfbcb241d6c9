//! One transformer block, forward: the same code trains and generates.
//!
//! ```text
//! x ─┬─ attn_norm ─ qkv_proj ─ qk_norm, RoPE ─ attention ─ out_proj ─┐
//!    └───────────────────────────────────────────────────────────── + ─ mid
//! mid ─┬─ ffn_norm ─ proj_1 ─ SwiGLU ─ proj_2 ─┐
//!      └────────────────────────────────────── + ─ out
//! ```
//!
//! In some families biases follow `qkv_proj`; in some the norms stand behind `out_proj` and `proj_2` instead.

use openelm_kernels::attention::{self, Inputs, KvCache, Rows, Shape};
use openelm_kernels::qk_norm_rope::{QkNormRope, QkNorms};
use openelm_kernels::rope::RopeTable;
use openelm_kernels::rounded::Products;
use openelm_kernels::{Input, Matrix, Norm, Threads, bias, residual};

use crate::config::{LayerConfig, ModelConfig, NormPlacement};
use crate::layout::{Role, Site};
use crate::linear::{Change, Linear, LinearScratch};
use crate::weights::LayerWeights;

/// What a block computes on the way and its backward pass needs; `N` rows, one per token.
///
/// Training keeps one for each layer, inference uses one for all.
#[derive(Default)]
pub struct Activations {
    /// Output of `qkv_proj`, with biases if there are any, `[N, (query_heads + 2 kv_heads) * head_dim]`.
    pub qkv: Vec<f32>,
    /// Normalised and rotated queries, `[N, query_heads * head_dim]`.
    pub q: Vec<f32>,
    /// Normalised and rotated keys, `[N, kv_heads * head_dim]`.
    pub k: Vec<f32>,
    /// Output of attention, `[N, query_heads * head_dim]`.
    pub attended: Vec<f32>,
    /// Logarithms of the softmax denominators, `[N, query_heads]`; empty where nothing is kept for a backward pass.
    pub log_sums: Vec<f32>,
    /// Output of `out_proj` where it is normalised or has DoRA's gains, `[N, dim]`; empty otherwise.
    pub attn_out: Vec<f32>,
    /// The residual stream after attention, `[N, dim]`.
    pub mid: Vec<f32>,
    /// Output of `proj_1`, `[N, 2 * ffn_dim]` (`[N, ffn_dim]` without a gate).
    pub hidden: Vec<f32>,
    /// Output of `proj_2` where it is normalised or has DoRA's gains, `[N, dim]`; empty otherwise.
    pub ffn_out: Vec<f32>,
}

/// Where a row finds the keys and values of its sequence.
pub enum KeysAndValues<'a> {
    /// In caches, to which those of this pass are appended; how many rows each sequence has, one sequence behind the other.
    /// [`Activations::k`] stays empty.
    Cached(Vec<(&'a mut KvCache, usize)>),
    /// In the pass itself, of whole sequences.
    InPass(Sequences<'a>),
}

/// Whole sequences of equal length, as training and validation have them.
#[derive(Debug, Clone, Copy)]
pub struct Sequences<'a> {
    /// How many.
    pub count: usize,
    /// Tokens of each.
    pub time: usize,
    /// Where documents in one sequence must not see each other: for each row, the position in its sequence at which its
    /// document begins.
    pub document_starts: Option<&'a [u32]>,
}

/// What is the same for all blocks of a pass.
#[derive(Clone, Copy)]
pub struct Pass<'a> {
    /// The threads to use.
    pub threads: &'a Threads,
    /// The model's geometry.
    pub config: &'a ModelConfig,
    /// Rotations, grown to the last position of the pass.
    pub rope: &'a RopeTable,
    /// The position of each row in its sequence, `[N]`.
    pub positions: &'a [u32],
    /// Adapters, each at work on rows of its own.
    pub changes: &'a [Change<'a>],
    /// In which numbers rows and weights of `f32` are multiplied.
    pub products: Products,
}

/// What a block reads and writes.
pub struct BlockBuffers<'a> {
    /// The residual stream before the block, `[N, dim]`.
    pub x: &'a [f32],
    /// The residual stream behind it, `[N, dim]`.
    pub out: &'a mut Vec<f32>,
    /// What a backward pass would need.
    pub kept: &'a mut Activations,
    /// What no backward pass needs.
    pub scratch: &'a mut LinearScratch,
    /// Where keys and values are.
    pub keys_and_values: KeysAndValues<'a>,
}

/// Sets a buffer's length without clearing what will be overwritten.
pub fn fit(buffer: &mut Vec<f32>, length: usize) {
    buffer.resize(length, 0.0);
}

impl<'a> Pass<'a> {
    /// Number of rows.
    pub fn rows(&self) -> usize {
        self.positions.len()
    }

    /// The linear layer of `matrix`, which stands at `site`.
    pub fn linear(&self, site: Site, matrix: Matrix<'a>) -> Linear<'a> {
        Linear { matrix, site, changes: self.changes, products: self.products }
    }

    /// The norms and rotations of queries and keys in `layer`.
    pub fn qk_norm_rope(&self, layer: &LayerConfig, norms: Option<QkNorms<'a>>) -> QkNormRope<'a> {
        let Pass { config, rope, positions, .. } = *self;
        QkNormRope { heads: config.heads(layer), norms, eps: config.norms.eps, rope, positions }
    }

    /// What attention or the feed-forward network is given of the residual stream `x`, with the norm that is its own.
    pub fn layer_input(&self, x: &'a [f32], norm: Norm<'a>) -> Input<'a> {
        match self.config.norms.placement {
            NormPlacement::Before => Input::Normed { x, norm },
            NormPlacement::Behind => Input::Rows { x, inputs: norm.dim() },
        }
    }

    /// Adds what its last projection gives to the residual stream `out`; where it is normalised on the way, or a backward pass would
    /// need it, `given` keeps what was given.
    fn add_layer_output(
        &self,
        out: &mut [f32],
        last: Linear<'_>,
        input: Input<'_>,
        norm: Norm<'_>,
        (given, scratch): (&mut Vec<f32>, &mut LinearScratch),
    ) {
        match self.config.norms.placement {
            NormPlacement::Before if last.has_gains() => {
                fit(given, out.len());
                last.forward(self.threads, given, input, scratch, false);
                residual::add(self.threads, out, given);
            }
            NormPlacement::Before => {
                given.clear();
                last.forward(self.threads, out, input, scratch, true);
            }
            NormPlacement::Behind => {
                fit(given, out.len());
                last.forward(self.threads, given, input, scratch, false);
                norm.forward_added(self.threads, out, given);
            }
        }
    }
}

impl Activations {
    /// What attention is given where keys and values are those of the pass itself.
    pub fn attention_inputs<'a>(
        &'a self,
        config: &ModelConfig,
        layer: &LayerConfig,
        sequences: Sequences<'a>,
    ) -> Inputs<'a> {
        let heads = config.heads(layer);
        let Sequences { count, time, document_starts } = sequences;
        Inputs {
            q: &self.q,
            k: Rows { data: &self.k, stride: heads.kv_dim() },
            v: Rows { data: &self.qkv[heads.query_dim() + heads.kv_dim()..], stride: heads.qkv_dim() },
            document_starts,
            shape: Shape { sequences: count, time, heads },
        }
    }
}

/// Computes `buffers.out` from `buffers.x` in the layer `index`, whose weights are `weights`.
pub fn forward(pass: &Pass<'_>, index: usize, weights: &LayerWeights<'_>, buffers: BlockBuffers<'_>) {
    let BlockBuffers { x, out, kept, scratch, keys_and_values } = buffers;
    let Pass { threads, config, .. } = *pass;
    let layer = &config.layers[index];
    let (rows, heads) = (pass.rows(), config.heads(layer));
    let site = |role| Site::of_layer(index, role);

    fit(&mut kept.qkv, rows * heads.qkv_dim());
    let input = pass.layer_input(x, weights.attn_norm);
    pass.linear(site(Role::QkvProj), weights.qkv_proj).forward(threads, &mut kept.qkv, input, scratch, false);
    if let Some(biases) = weights.qkv_bias {
        bias::forward(threads, &mut kept.qkv, biases);
    }
    fit(&mut kept.q, rows * heads.query_dim());
    fit(&mut kept.attended, rows * heads.query_dim());
    let qk = pass.qk_norm_rope(layer, weights.qk_norms);
    match keys_and_values {
        KeysAndValues::Cached(mut caches) => {
            let appended = caches.iter_mut().map(|(cache, rows)| (&mut **cache, *rows));
            qk.forward_into_caches(threads, &mut kept.q, &kept.qkv, appended);
            let caches: Vec<(&KvCache, usize)> = caches.iter().map(|(cache, rows)| (&**cache, *rows)).collect();
            attention::cached(threads, &mut kept.attended, &kept.q, heads.query_heads, &caches);
        }
        KeysAndValues::InPass(sequences) => {
            fit(&mut kept.k, rows * heads.kv_dim());
            qk.forward(threads, &mut kept.q, &mut kept.k, &kept.qkv);
            fit(&mut kept.log_sums, rows * heads.query_heads);
            let (mut attended, mut log_sums) = (std::mem::take(&mut kept.attended), std::mem::take(&mut kept.log_sums));
            attention::forward(threads, &mut attended, &mut log_sums, kept.attention_inputs(config, layer, sequences));
            (kept.attended, kept.log_sums) = (attended, log_sums);
        }
    }
    kept.mid.clear();
    kept.mid.extend_from_slice(x);
    let attended = Input::Rows { x: &kept.attended, inputs: heads.query_dim() };
    let out_proj = pass.linear(site(Role::OutProj), weights.out_proj);
    let given = (&mut kept.attn_out, &mut *scratch);
    pass.add_layer_output(&mut kept.mid, out_proj, attended, weights.attn_norm, given);

    fit(&mut kept.hidden, rows * config.ffn_hidden_dim(layer));
    let input = pass.layer_input(&kept.mid, weights.ffn_norm);
    pass.linear(site(Role::Proj1), weights.proj_1).forward(threads, &mut kept.hidden, input, scratch, false);
    out.copy_from_slice(&kept.mid);
    let gated = Input::Gated { hidden: &kept.hidden, network: config.feed_forward(layer) };
    let proj_2 = pass.linear(site(Role::Proj2), weights.proj_2);
    pass.add_layer_output(out, proj_2, gated, weights.ffn_norm, (&mut kept.ffn_out, scratch));
}
