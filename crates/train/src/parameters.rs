//! A model's numbers in one buffer: weights, gradients and moments share the layout, so that norms, clipping, optimiser
//! and checkpoints are single passes over memory.

use std::collections::VecDeque;
use std::ops::Range;

use openelm_kernels::Matrix;
use openelm_kernels::qk_norm_rope::QkNormGradients;
use openelm_model::{ModelConfig, TensorSpec, Weights, tensor_specs};

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
        Self { values: vec![0.0; length(&specs)], specs }
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

    /// Where the tensors lie that a backward pass completes together: the embedding table, each layer, and what follows
    /// the layers.
    pub(crate) fn segments(&self) -> Vec<Range<usize>> {
        let mut end = 0;
        let segments = self.specs.chunk_by(together).map(|specs| {
            let start = end;
            end += length(specs);
            start..end
        });
        segments.collect()
    }

    /// The buffer as gradients, segment by segment.
    pub(crate) fn gradients(&mut self) -> Gradients<'_> {
        let (mut start, mut rest) = (0, &mut self.values[..]);
        let mut segments: VecDeque<_> = self
            .specs
            .chunk_by(together)
            .map(|specs| {
                let length = length(specs);
                let (values, tail) = std::mem::take(&mut rest).split_at_mut(length);
                rest = tail;
                start += length;
                Segment { start: start - length, specs, values }
            })
            .collect();
        Gradients {
            embedding: segments.pop_front().unwrap_or_default(),
            tail: segments.pop_back().unwrap_or_default(),
            layers: segments.into(),
        }
    }
}

/// Whether two neighbouring tensors belong to the same layer, or both to none.
fn together(a: &TensorSpec, b: &TensorSpec) -> bool {
    fn layer(spec: &TensorSpec) -> Option<&str> {
        spec.name.strip_prefix("layers.")?.split('.').next()
    }
    layer(a) == layer(b)
}

fn length(specs: &[TensorSpec]) -> usize {
    specs.iter().map(TensorSpec::len).sum()
}

/// Neighbouring tensors whose gradients are complete at the same time.
#[derive(Default)]
pub(crate) struct Segment<'a> {
    /// Where it begins among all values.
    pub start: usize,
    specs: &'a [TensorSpec],
    pub values: &'a mut [f32],
}

impl Segment<'_> {
    /// Its tensors, in order.
    fn tensors(&mut self) -> impl Iterator<Item = &mut [f32]> {
        let mut rest = &mut *self.values;
        self.specs.iter().map(move |spec| {
            let (values, tail) = std::mem::take(&mut rest).split_at_mut(spec.len());
            rest = tail;
            values
        })
    }

    /// The tensors of a layer.
    pub fn layer(&mut self, qk_norm: bool) -> LayerGradients<'_> {
        let mut tensors = self.tensors();
        let mut next = || tensors.next().unwrap_or_default();
        LayerGradients {
            attn_norm: next(),
            qkv_proj: next(),
            qk_norms: qk_norm.then(|| QkNormGradients { q: next(), k: next() }),
            out_proj: next(),
            ffn_norm: next(),
            proj_1: next(),
            proj_2: next(),
        }
    }

    /// The last norm, and the output projection unless it is the embedding table.
    pub fn norm_and_head(&mut self) -> (&mut [f32], Option<&mut [f32]>) {
        let mut tensors = self.tensors();
        (tensors.next().unwrap_or_default(), tensors.next())
    }
}

/// Where the derivatives by one layer's weights are added; shapes as in [`openelm_model::LayerWeights`].
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
    pub embedding: Segment<'a>,
    pub layers: Vec<Segment<'a>>,
    /// What follows the layers.
    pub tail: Segment<'a>,
}
