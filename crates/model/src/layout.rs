//! The tensors of a model: their names, shapes and order.

use crate::config::ModelConfig;

/// Name and shape of one tensor.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TensorSpec {
    /// CoreNet's name, for example `layers.0.attn.qkv_proj.weight`.
    pub name: String,
    /// `[rows, columns]` of a matrix, `[length]` of a vector.
    pub shape: Vec<usize>,
}

impl TensorSpec {
    /// Number of elements.
    pub fn len(&self) -> usize {
        self.shape.iter().product()
    }

    /// Whether the tensor has no elements.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// All tensors of a model in CoreNet's names, in the order the data meets them; the output projection, where it is not
/// the embedding table, comes last.
pub fn tensor_specs(config: &ModelConfig) -> Vec<TensorSpec> {
    let mut specs = Vec::new();
    let mut add = |name: String, shape: &[usize]| specs.push(TensorSpec { name, shape: shape.to_vec() });
    let dim = config.model_dim;
    add("token_embeddings.weight".into(), &[config.vocab_size, dim]);
    for (i, layer) in config.layers.iter().enumerate() {
        let query_dim = layer.query_heads * config.head_dim;
        add(format!("layers.{i}.attn_norm.weight"), &[dim]);
        add(format!("layers.{i}.attn.qkv_proj.weight"), &[config.qkv_dim(layer), dim]);
        if config.qk_norm {
            add(format!("layers.{i}.attn.q_norm.weight"), &[config.head_dim]);
            add(format!("layers.{i}.attn.k_norm.weight"), &[config.head_dim]);
        }
        add(format!("layers.{i}.attn.out_proj.weight"), &[dim, query_dim]);
        add(format!("layers.{i}.ffn_norm.weight"), &[dim]);
        add(format!("layers.{i}.ffn.proj_1.weight"), &[config.ffn_hidden_dim(layer), dim]);
        add(format!("layers.{i}.ffn.proj_2.weight"), &[dim, layer.ffn_dim]);
    }
    add("norm.weight".into(), &[dim]);
    if !config.tied_embeddings {
        add("classifier.weight".into(), &[config.vocab_size, dim]);
    }
    specs
}
