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

/// The standard deviation that CoreNet draws a matrix with: `inputs^-1/2` (the embedding: `dim^-1/2`), and
/// `dim^-1/2 (2 layers)^-1/2` for `out_proj` and `proj_2`, whatever their inputs. `None` for vectors: norms are 1.
pub fn initial_deviation(config: &ModelConfig, spec: &TensorSpec) -> Option<f32> {
    let &[_, inputs] = &spec.shape[..] else { return None };
    let closes_residual = spec.name.ends_with("out_proj.weight") || spec.name.ends_with("proj_2.weight");
    let inverse_variance = if closes_residual { config.model_dim * 2 * config.layers.len() } else { inputs };
    Some((inverse_variance as f32).sqrt().recip())
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
