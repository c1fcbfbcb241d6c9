//! One transformer block, backward: the mirror of [`openelm_model::block::forward`].
//!
//! The outputs of the norms and of SwiGLU are computed anew rather than kept: they cost little and are large.

use openelm_kernels::qk_norm_rope::QkvDerivatives;
use openelm_kernels::{attention, linear, rms_norm, swiglu};
use openelm_model::block::{Activations, Pass, Sequences, fit};
use openelm_model::{LayerConfig, LayerWeights, NORM_EPS};

use crate::parameters::LayerGradients;

/// Derivatives on the way through a block, and what is computed anew, one row per token.
#[derive(Default)]
pub(crate) struct Derivatives {
    /// Outputs of the norms and of SwiGLU.
    normed_again: Vec<f32>,
    gated_again: Vec<f32>,
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
    sequences: Sequences<'_>,
    stream: &mut [f32],
    d: &mut Derivatives,
) {
    let Pass { threads, config, .. } = *pass;
    let (rows, dim, heads) = (pass.rows(), config.model_dim, config.heads(layer));
    let (query_dim, kv_dim) = (heads.query_dim(), heads.kv_dim());

    fit(&mut d.gated, rows * layer.ffn_dim);
    linear::backward_input(threads, &mut d.gated, stream, weights.proj_2, layer.ffn_dim, false);
    fit(&mut d.hidden, kept.hidden.len());
    fit(&mut d.gated_again, rows * layer.ffn_dim);
    swiglu::backward(
        threads,
        &mut d.hidden,
        &mut d.gated_again,
        &d.gated,
        &kept.hidden,
        config.activation,
        config.ffn_glu,
        layer.ffn_dim,
    );
    linear::backward_weight(threads, gradients.proj_2, stream, &d.gated_again, layer.ffn_dim, true);
    fit(&mut d.normed_again, rows * dim);
    rms_norm::forward(threads, &mut d.normed_again, &kept.mid, weights.ffn_norm, NORM_EPS);
    linear::backward_weight(threads, gradients.proj_1, &d.hidden, &d.normed_again, dim, true);
    fit(&mut d.normed, rows * dim);
    linear::backward_input(threads, &mut d.normed, &d.hidden, weights.proj_1, dim, false);
    rms_norm::backward(threads, stream, gradients.ffn_norm, &d.normed, &kept.mid, weights.ffn_norm, NORM_EPS);

    linear::backward_weight(threads, gradients.out_proj, stream, &kept.attended, query_dim, true);
    fit(&mut d.attended, rows * query_dim);
    linear::backward_input(threads, &mut d.attended, stream, weights.out_proj, query_dim, false);
    fit(&mut d.q, rows * query_dim);
    fit(&mut d.k, rows * kv_dim);
    fit(&mut d.v, rows * kv_dim);
    let by_inputs = attention::Gradients { q: &mut d.q, k: &mut d.k, v: &mut d.v };
    let inputs = kept.attention_inputs(config, layer, sequences);
    attention::backward(threads, by_inputs, &d.attended, &kept.attended, &kept.log_sums, inputs);
    fit(&mut d.qkv, kept.qkv.len());
    let by = QkvDerivatives { q: &d.q, k: &d.k, v: &d.v };
    let qk = pass.qk_norm_rope(layer, weights.qk_norms);
    qk.backward(threads, &mut d.qkv, gradients.qk_norms.as_mut(), by, &kept.qkv);
    rms_norm::forward(threads, &mut d.normed_again, x, weights.attn_norm, NORM_EPS);
    linear::backward_weight(threads, gradients.qkv_proj, &d.qkv, &d.normed_again, dim, true);
    linear::backward_input(threads, &mut d.normed, &d.qkv, weights.qkv_proj, dim, false);
    rms_norm::backward(threads, stream, gradients.attn_norm, &d.normed, x, weights.attn_norm, NORM_EPS);
}
