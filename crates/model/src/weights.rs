//! A model's weights as the forward pass sees them: borrowed matrices, whatever holds the bytes.

use openelm_kernels::qk_norm_rope::QkNorms;
use openelm_kernels::{Matrix, Norm};

use crate::config::{ModelConfig, QkNorm};
use crate::layout::norms_have_weights;

/// One layer's weights.
#[derive(Clone, Copy)]
pub struct LayerWeights<'a> {
    /// The norm before or behind attention, of rows of `dim`.
    pub attn_norm: Norm<'a>,
    /// Queries, keys and values, `[(query_heads + 2 kv_heads) * head_dim, dim]`.
    pub qkv_proj: Matrix<'a>,
    /// What is added to them, `[(query_heads + 2 kv_heads) * head_dim]`.
    pub qkv_bias: Option<&'a [f32]>,
    /// Norms of queries and keys.
    pub qk_norms: Option<QkNorms<'a>>,
    /// `[dim, query_heads * head_dim]`.
    pub out_proj: Matrix<'a>,
    /// The norm before or behind the feed-forward network, of rows of `dim`.
    pub ffn_norm: Norm<'a>,
    /// `[2 * ffn_dim, dim]`, gate then up, or `[ffn_dim, dim]` without a gate.
    pub proj_1: Matrix<'a>,
    /// `[dim, ffn_dim]`.
    pub proj_2: Matrix<'a>,
}

impl<'a> LayerWeights<'a> {
    /// Names one layer's tensors, which come in the order of [`crate::layer_roles`].
    ///
    /// # Panics
    /// If there are fewer tensors than a layer has, or a vector is not of `f32`.
    pub fn in_order(config: &ModelConfig, tensors: impl IntoIterator<Item = Matrix<'a>>) -> Self {
        let mut tensors = tensors.into_iter();
        let mut next = || tensors.next().unwrap_or_else(|| panic!("too few tensors for a layer"));
        let has_norms = norms_have_weights(config);
        Self {
            attn_norm: config.norm(if has_norms { vector(next()) } else { &[] }),
            qkv_proj: next(),
            qkv_bias: config.qkv_bias.then(|| vector(next())),
            qk_norms: (config.qk_norm != QkNorm::None).then(|| QkNorms { q: vector(next()), k: vector(next()) }),
            out_proj: next(),
            ffn_norm: config.norm(if has_norms { vector(next()) } else { &[] }),
            proj_1: next(),
            proj_2: next(),
        }
    }
}

/// A tensor of one dimension, which is of `f32` wherever a model holds it.
///
/// # Panics
/// If it is anything else.
pub fn vector(matrix: Matrix<'_>) -> &[f32] {
    match matrix {
        Matrix::F32(data) => data,
        _ => panic!("vectors are f32"),
    }
}

/// All weights of a model.
#[derive(Clone)]
pub struct Weights<'a> {
    /// Embedding table, `[vocabulary, dim]`.
    pub embedding: Matrix<'a>,
    /// From the text to the output.
    pub layers: Vec<LayerWeights<'a>>,
    /// The norm before the output projection, of rows of `dim`.
    pub norm: Norm<'a>,
    /// Output projection, `[vocabulary, dim]`: the embedding table where the two are tied.
    pub head: Matrix<'a>,
}

impl<'a> Weights<'a> {
    /// Names the tensors that come in the order of [`crate::sites`].
    ///
    /// # Panics
    /// If there are fewer tensors than the model has, or a vector is not of `f32`.
    pub fn in_order(config: &ModelConfig, tensors: impl IntoIterator<Item = Matrix<'a>>) -> Self {
        let mut tensors = tensors.into_iter();
        let mut next = || tensors.next().unwrap_or_else(|| panic!("too few tensors for the model"));
        let embedding = next();
        let layers =
            config.layers.iter().map(|_| LayerWeights::in_order(config, std::iter::from_fn(|| Some(next())))).collect();
        let norm = config.norm(if norms_have_weights(config) { vector(next()) } else { &[] });
        let head = if config.tied_embeddings { embedding } else { next() };
        Self { embedding, layers, norm, head }
    }
}
