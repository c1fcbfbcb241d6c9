//! A model's numbers in one buffer: weights, gradients and moments share the layout, so that norms, clipping, optimiser
//! and checkpoints are single passes over memory.

use openelm::{ModelConfig, TensorSpec, Weights, tensor_specs};
use openelm_kernels::Matrix;
use openelm_kernels::qk_norm_rope::QkNormGradients;

/// One `f32` for each element of a model's tensors, tensor after tensor in the order of [`tensor_specs`].
#[derive(Clone)]
pub struct Parameters {
    specs: Vec<TensorSpec>,
    values: Vec<f32>,
}

impl Parameters {
    /// Zeros for all tensors of `config`.
    pub fn zeros(config: &ModelConfig) -> Self {
        let specs = tensor_specs(config);
        let length = specs.iter().map(TensorSpec::len).sum();
        Self { specs, values: vec![0.0; length] }
    }

    /// All values, tensor after tensor.
    pub fn values(&self) -> &[f32] {
        &self.values
    }

    /// All values, tensor after tensor.
    pub fn values_mut(&mut self) -> &mut [f32] {
        &mut self.values
    }

    /// Each tensor with its values.
    pub fn tensors(&self) -> impl Iterator<Item = (&TensorSpec, &[f32])> {
        let mut rest = &self.values[..];
        self.specs.iter().map(move |spec| {
            let (values, tail) = rest.split_at(spec.len());
            rest = tail;
            (spec, values)
        })
    }

    /// Each tensor with its values.
    pub fn tensors_mut(&mut self) -> impl Iterator<Item = (&TensorSpec, &mut [f32])> {
        let mut rest = &mut self.values[..];
        self.specs.iter().map(move |spec| {
            let (values, tail) = std::mem::take(&mut rest).split_at_mut(spec.len());
            rest = tail;
            (spec, values)
        })
    }

    /// The buffer as weights of `config`, for which it was made.
    pub fn weights(&self, config: &ModelConfig) -> Weights<'_> {
        Weights::in_order(config, self.tensors().map(|(_, values)| Matrix::F32(values)))
    }

    /// The buffer as gradients of `config`, for which it was made.
    pub(crate) fn gradients(&mut self, config: &ModelConfig) -> Gradients<'_> {
        let mut tensors = self.tensors_mut().map(|(_, values)| values);
        let mut next = || tensors.next().unwrap_or_default();
        let embedding = next();
        let layers = (0..config.layers.len())
            .map(|_| LayerGradients {
                attn_norm: next(),
                qkv_proj: next(),
                qk_norms: config.qk_norm.then(|| QkNormGradients { q: next(), k: next() }),
                out_proj: next(),
                ffn_norm: next(),
                proj_1: next(),
                proj_2: next(),
            })
            .collect();
        Gradients { embedding, layers, norm: next(), head: (!config.tied_embeddings).then(next) }
    }
}

/// Where the derivatives by one layer's weights are added; shapes as in [`openelm::LayerWeights`].
pub(crate) struct LayerGradients<'a> {
    pub attn_norm: &'a mut [f32],
    pub qkv_proj: &'a mut [f32],
    pub qk_norms: Option<QkNormGradients<'a>>,
    pub out_proj: &'a mut [f32],
    pub ffn_norm: &'a mut [f32],
    pub proj_1: &'a mut [f32],
    pub proj_2: &'a mut [f32],
}

/// Where the derivatives by all weights are added.
pub(crate) struct Gradients<'a> {
    pub embedding: &'a mut [f32],
    pub layers: Vec<LayerGradients<'a>>,
    pub norm: &'a mut [f32],
    /// `None` where the output projection is the embedding table.
    pub head: Option<&'a mut [f32]>,
}
