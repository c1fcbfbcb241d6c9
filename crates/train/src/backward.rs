//! One transformer block, backward: the mirror of [`openelm_model::block::forward`].
//!
//! The outputs of the norms and of SwiGLU are computed anew rather than kept: they cost little and are large.

use openelm_kernels::attention::{self, Rows};
use openelm_kernels::{linear, qk_norm_rope, rms_norm, swiglu};
use openelm_model::block::{Activations, Pass, Scratch, fit, heads};
use openelm_model::{LayerConfig, LayerWeights, NORM_EPS};

use crate::parameters::LayerGradients;

/// Derivatives on the way through a block, one row per token.
#[derive(Default)]
pub(crate) struct Derivatives {
    normed: Vec<f32>,
    gated: Vec<f32>,
    hidden: Vec<f32>,
    attended: Vec<f32>,
    q: Vec<f32>,
    k: Vec<f32>,
    v: Vec<f32>,
    qkv: Vec<f32>,
}

/// Turns `stream`, the derivative by the block's output, into that by its input `x`, both `[N, dim]`, and adds the
/// derivatives by the weights to `gradients`.
pub(crate) fn backward(
    pass: &Pass<'_>,
    layer: &LayerConfig,
    weights: &LayerWeights<'_>,
    gradients: &mut LayerGradients<'_>,
    x: &[f32],
    kept: &Activations,
    stream: &mut [f32],
    scratch: &mut Scratch,
    d: &mut Derivatives,
) {
    let Pass { threads, config, rope, span, document_starts } = *pass;
    let (rows, dim) = (span.rows(), config.model_dim);
    let (query_dim, kv_dim) = (layer.query_heads * config.head_dim, layer.kv_heads * config.head_dim);

    fit(&mut d.gated, rows * layer.ffn_dim);
    linear::backward_input(threads, &mut d.gated, stream, weights.proj_2, layer.ffn_dim, false);
    fit(&mut d.hidden, kept.hidden.len());
    fit(&mut scratch.gated, rows * layer.ffn_dim);
    swiglu::backward(
        threads,
        &mut d.hidden,
        &mut scratch.gated,
        &d.gated,
        &kept.hidden,
        config.activation,
        config.ffn_glu,
        layer.ffn_dim,
    );
    linear::backward_weight(threads, gradients.proj_2, stream, &scratch.gated, layer.ffn_dim);
    fit(&mut scratch.normed, rows * dim);
    rms_norm::forward(threads, &mut scratch.normed, &kept.mid, weights.ffn_norm, NORM_EPS);
    linear::backward_weight(threads, gradients.proj_1, &d.hidden, &scratch.normed, dim);
    fit(&mut d.normed, rows * dim);
    linear::backward_input(threads, &mut d.normed, &d.hidden, weights.proj_1, dim, false);
    rms_norm::backward(threads, stream, gradients.ffn_norm, &d.normed, &kept.mid, weights.ffn_norm, NORM_EPS);

    linear::backward_weight(threads, gradients.out_proj, stream, &kept.attended, query_dim);
    fit(&mut d.attended, rows * query_dim);
    linear::backward_input(threads, &mut d.attended, stream, weights.out_proj, query_dim, false);
    fit(&mut d.q, rows * query_dim);
    fit(&mut d.k, rows * kv_dim);
    fit(&mut d.v, rows * kv_dim);
    let by_inputs = attention::Gradients { q: &mut d.q, k: &mut d.k, v: &mut d.v };
    let k = Rows { data: &kept.k, stride: kv_dim };
    let v = Rows { data: &kept.qkv[query_dim + kv_dim..], stride: config.qkv_dim(layer) };
    let shape = span.attention(config, layer);
    let (dout, out, log_sums) = (&d.attended, &kept.attended, &kept.log_sums);
    attention::backward(threads, by_inputs, dout, out, log_sums, &kept.q, k, v, document_starts, shape);
    fit(&mut d.qkv, kept.qkv.len());
    qk_norm_rope::backward(
        threads,
        &mut d.qkv,
        gradients.qk_norms.as_mut(),
        &d.q,
        &d.k,
        &d.v,
        &kept.qkv,
        weights.qk_norms,
        rope,
        span.positions(),
        heads(config, layer),
        NORM_EPS,
    );
    rms_norm::forward(threads, &mut scratch.normed, x, weights.attn_norm, NORM_EPS);
    linear::backward_weight(threads, gradients.qkv_proj, &d.qkv, &scratch.normed, dim);
    linear::backward_input(threads, &mut d.normed, &d.qkv, weights.qkv_proj, dim, false);
    rms_norm::backward(threads, stream, gradients.attn_norm, &d.normed, x, weights.attn_norm, NORM_EPS);
}
