//! One transformer block, backward: the mirror of [`openelm_model::block::forward`].
//!
//! The outputs of the norms and of SwiGLU are computed anew rather than kept: they cost little and are large. What nobody
//! trains gets no derivative.

use openelm_kernels::qk_norm_rope::{QkNormGradients, QkvDerivatives};
use openelm_kernels::{Matrix, Norm, Threads, attention, bias, residual, swiglu};
use openelm_model::block::{Activations, Pass, Sequences, fit};
use openelm_model::{LayerWeights, Linear, NormPlacement, Role, Site};

use crate::linear::{self, LinearBuffers, LinearGradients};
use crate::parameters::Segment;
use crate::trainable::RowLengths;

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
    /// By what is normalised behind attention or the feed-forward network.
    given: Vec<f32>,
    scratch: LinearBuffers,
}

impl Derivatives {
    /// Buffers of a linear layer outside the blocks.
    pub fn scratch(&mut self) -> &mut LinearBuffers {
        &mut self.scratch
    }
}

/// Where the derivatives by one layer's weights are written or added, for those that are trained; shapes as in
/// [`openelm_model::LayerWeights`].
#[derive(Default)]
pub(crate) struct LayerGradients<'a> {
    attn_norm: Option<&'a mut [f32]>,
    qkv_proj: LinearGradients<'a>,
    qkv_bias: Option<&'a mut [f32]>,
    q_norm: Option<&'a mut [f32]>,
    k_norm: Option<&'a mut [f32]>,
    out_proj: LinearGradients<'a>,
    ffn_norm: Option<&'a mut [f32]>,
    proj_1: LinearGradients<'a>,
    proj_2: LinearGradients<'a>,
}

impl<'a> LayerGradients<'a> {
    /// The tensors of `segment` by their names.
    ///
    /// # Panics
    /// If a block has no such tensor.
    pub fn of(segment: &'a mut Segment<'_>) -> Self {
        let mut gradients = Self::default();
        for (name, values) in segment.tensors() {
            let (module, part) = name.rsplit_once('.').unwrap_or((name, ""));
            let gradient = match (module, part) {
                ("attn_norm", "weight") => Some(&mut gradients.attn_norm),
                ("attn.qkv_proj", "bias") => Some(&mut gradients.qkv_bias),
                ("attn.qkv_proj", part) => gradients.qkv_proj.part(part),
                ("attn.q_norm", "weight") => Some(&mut gradients.q_norm),
                ("attn.k_norm", "weight") => Some(&mut gradients.k_norm),
                ("attn.out_proj", part) => gradients.out_proj.part(part),
                ("ffn_norm", "weight") => Some(&mut gradients.ffn_norm),
                ("ffn.proj_1", part) => gradients.proj_1.part(part),
                ("ffn.proj_2", part) => gradients.proj_2.part(part),
                _ => None,
            };
            let gradient = gradient.unwrap_or_else(|| panic!("a block has no {name}"));
            *gradient = Some(values);
        }
        gradients
    }
}

/// One block's backward pass.
pub(crate) struct BlockBackward<'a> {
    /// As in the forward pass.
    pub pass: &'a Pass<'a>,
    pub index: usize,
    /// Lengths of the rows of DoRA's matrices.
    pub lengths: &'a RowLengths,
    pub weights: &'a LayerWeights<'a>,
    /// The block's input, `[N, dim]`.
    pub x: &'a [f32],
    /// What the forward pass left.
    pub kept: &'a Activations,
    pub sequences: Sequences<'a>,
    /// Whether the derivatives by matrices are added to what is there.
    pub accumulate: bool,
}

impl BlockBackward<'_> {
    /// Turns `stream`, the derivative by the block's output, into that by its input, both `[N, dim]`, and writes the
    /// derivatives by matrices to `gradients`, or adds them; those by vectors are added.
    pub fn run(&self, gradients: &mut LayerGradients<'_>, stream: &mut [f32], d: &mut Derivatives) {
        self.feed_forward(gradients, stream, d);
        self.attention(gradients, stream, d);
    }

    fn linear<'m>(&'m self, role: Role, matrix: Matrix<'m>) -> Linear<'m> {
        self.pass.linear(Site::of_layer(self.index, role), matrix)
    }

    /// The derivatives by the weights of `linear`, from those by its output, its input and the width of that, and its output, if it
    /// was kept.
    fn weights(
        &self,
        linear: &Linear<'_>,
        gradients: &mut LinearGradients<'_>,
        derivative: (&[f32], &[f32], usize),
        output: Option<&[f32]>,
        scratch: &mut LinearBuffers,
    ) {
        let (threads, kept) = (self.pass.threads, (self.lengths.of(linear.site), output));
        linear::backward_weights(threads, linear, gradients, self.accumulate, derivative, kept, scratch);
    }

    /// The derivative by what a last projection gave, from that by the stream behind it; `given` is what it gave where it is
    /// normalised, `norm` the norm of the layer.
    fn of_output<'d>(
        &self,
        stream: &'d [f32],
        (norm, dweight): (Norm<'_>, Option<&mut [f32]>),
        given: &[f32],
        buffer: &'d mut Vec<f32>,
    ) -> &'d [f32] {
        match self.pass.config.norms.placement {
            NormPlacement::Before => stream,
            NormPlacement::Behind => {
                buffer.clear();
                buffer.resize(stream.len(), 0.0);
                norm_backward(self.pass.threads, buffer, dweight, stream, given, norm);
                buffer
            }
        }
    }

    /// Adds the derivative by the stream `x` to `stream`, from that by what a first projection is given of it.
    fn add_of_input(
        &self,
        stream: &mut [f32],
        (norm, dweight): (Norm<'_>, Option<&mut [f32]>),
        dinput: &[f32],
        x: &[f32],
    ) {
        match self.pass.config.norms.placement {
            NormPlacement::Before => norm_backward(self.pass.threads, stream, dweight, dinput, x, norm),
            NormPlacement::Behind => residual::add(self.pass.threads, stream, dinput),
        }
    }

    /// From the output to the stream in the middle.
    fn feed_forward(&self, gradients: &mut LayerGradients<'_>, stream: &mut [f32], d: &mut Derivatives) {
        let Self { pass, index, weights, kept, .. } = *self;
        let Pass { threads, config, .. } = *pass;
        let layer = &config.layers[index];
        let (rows, dim, inner) = (pass.rows(), config.model_dim, layer.ffn_dim);
        let proj_2 = self.linear(Role::Proj2, weights.proj_2);
        let dweight = gradients.ffn_norm.as_deref_mut();
        let dout = self.of_output(stream, (weights.ffn_norm, dweight), &kept.ffn_out, &mut d.given);
        fit(&mut d.gated, rows * inner);
        linear::backward_input(threads, &proj_2, &mut d.gated, dout, inner, &mut d.scratch);
        fit(&mut d.hidden, kept.hidden.len());
        fit(&mut d.gated_again, rows * inner);
        let network = config.feed_forward(layer);
        swiglu::backward(threads, &mut d.hidden, &mut d.gated_again, &d.gated, &kept.hidden, network);
        let output = kept_output(&kept.ffn_out);
        self.weights(&proj_2, &mut gradients.proj_2, (dout, &d.gated_again, inner), output, &mut d.scratch);
        let proj_1 = self.linear(Role::Proj1, weights.proj_1);
        if gradients.proj_1.any() {
            let input = pass.layer_input(&kept.mid, weights.ffn_norm).rows(threads, &mut d.normed_again);
            let output = Some(&kept.hidden[..]);
            self.weights(&proj_1, &mut gradients.proj_1, (&d.hidden, input, dim), output, &mut d.scratch);
        }
        fit(&mut d.normed, rows * dim);
        linear::backward_input(threads, &proj_1, &mut d.normed, &d.hidden, dim, &mut d.scratch);
        let dweight = gradients.ffn_norm.as_deref_mut();
        self.add_of_input(stream, (weights.ffn_norm, dweight), &d.normed, &kept.mid);
    }

    /// From the stream in the middle to the input.
    fn attention(&self, gradients: &mut LayerGradients<'_>, stream: &mut [f32], d: &mut Derivatives) {
        let Self { pass, index, weights, x, kept, sequences, .. } = *self;
        let Pass { threads, config, .. } = *pass;
        let layer = &config.layers[index];
        let (rows, dim, heads) = (pass.rows(), config.model_dim, config.heads(layer));
        let (query_dim, kv_dim) = (heads.query_dim(), heads.kv_dim());
        let out_proj = self.linear(Role::OutProj, weights.out_proj);
        let dweight = gradients.attn_norm.as_deref_mut();
        let dout = self.of_output(stream, (weights.attn_norm, dweight), &kept.attn_out, &mut d.given);
        let output = kept_output(&kept.attn_out);
        self.weights(&out_proj, &mut gradients.out_proj, (dout, &kept.attended, query_dim), output, &mut d.scratch);
        fit(&mut d.attended, rows * query_dim);
        linear::backward_input(threads, &out_proj, &mut d.attended, dout, query_dim, &mut d.scratch);
        fit(&mut d.q, rows * query_dim);
        fit(&mut d.k, rows * kv_dim);
        fit(&mut d.v, rows * kv_dim);
        let by_inputs = attention::Gradients { q: &mut d.q, k: &mut d.k, v: &mut d.v };
        let inputs = kept.attention_inputs(config, layer, sequences);
        attention::backward(threads, by_inputs, &d.attended, &kept.attended, &kept.log_sums, inputs);
        fit(&mut d.qkv, kept.qkv.len());
        let by = QkvDerivatives { q: &d.q, k: &d.k, v: &d.v };
        // Both norms or none: what is not asked for costs little.
        let lengths = weights.qk_norms.map_or([0, 0], |norms| [norms.q.len(), norms.k.len()]);
        let [unwanted_q, unwanted_k] = &mut lengths.map(|length| vec![0.0; length]);
        let mut norms = QkNormGradients {
            q: gradients.q_norm.as_deref_mut().unwrap_or(unwanted_q),
            k: gradients.k_norm.as_deref_mut().unwrap_or(unwanted_k),
        };
        let norms = weights.qk_norms.is_some().then_some(&mut norms);
        let qk = pass.qk_norm_rope(layer, weights.qk_norms);
        qk.backward(threads, &mut d.qkv, norms, by, &kept.qkv);
        if let Some(dbias) = &mut gradients.qkv_bias {
            bias::backward(threads, dbias, &d.qkv);
        }
        let qkv_proj = self.linear(Role::QkvProj, weights.qkv_proj);
        if gradients.qkv_proj.any() {
            let input = pass.layer_input(x, weights.attn_norm).rows(threads, &mut d.normed_again);
            let output = weights.qkv_bias.is_none().then_some(&kept.qkv[..]);
            self.weights(&qkv_proj, &mut gradients.qkv_proj, (&d.qkv, input, dim), output, &mut d.scratch);
        }
        linear::backward_input(threads, &qkv_proj, &mut d.normed, &d.qkv, dim, &mut d.scratch);
        let dweight = gradients.attn_norm.as_deref_mut();
        self.add_of_input(stream, (weights.attn_norm, dweight), &d.normed, x);
    }
}

/// The output of a last projection, where the forward pass kept it.
fn kept_output(given: &[f32]) -> Option<&[f32]> {
    (!given.is_empty()).then_some(given)
}

/// The derivatives of a norm are added to `dx`, `[N, dim]`, and to `dweight`, `[dim]`, if that is trained.
pub(crate) fn norm_backward(
    threads: &Threads,
    dx: &mut [f32],
    dweight: Option<&mut [f32]>,
    dout: &[f32],
    x: &[f32],
    norm: Norm<'_>,
) {
    let mut unwanted = Vec::new();
    let dweight = dweight.unwrap_or_else(|| {
        unwanted.resize(norm.dim(), 0.0);
        &mut unwanted
    });
    norm.backward(threads, dx, dweight, dout, x);
}
