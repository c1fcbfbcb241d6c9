//! The tensors of a model: what they are for, their names, shapes and order.

use crate::config::{ModelConfig, NormKind, QkNorm};

/// What a tensor is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Role {
    /// The embedding table, `[vocabulary, dim]`.
    Embedding,
    /// RMSNorm before or behind attention, `[dim]`.
    AttnNorm,
    /// Queries, keys and values, `[(query_heads + 2 kv_heads) * head_dim, dim]`.
    QkvProj,
    /// What is added to queries, keys and values, `[(query_heads + 2 kv_heads) * head_dim]`.
    QkvBias,
    /// RMSNorm of the queries' heads, `[head_dim]`, or of all of them together, `[query_heads * head_dim]`.
    QNorm,
    /// RMSNorm of the keys' heads, `[head_dim]`, or of all of them together, `[kv_heads * head_dim]`.
    KNorm,
    /// The output of attention, `[dim, query_heads * head_dim]`.
    OutProj,
    /// RMSNorm before or behind the feed-forward network, `[dim]`.
    FfnNorm,
    /// `[2 * ffn_dim, dim]`, gate then up, or `[ffn_dim, dim]` without a gate.
    Proj1,
    /// `[dim, ffn_dim]`.
    Proj2,
    /// RMSNorm before the output projection, `[dim]`.
    Norm,
    /// The output projection, `[vocabulary, dim]`, where it is not the embedding table.
    Head,
}

/// One place for a tensor in a model.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Site {
    /// The layer, of those that have one.
    pub layer: Option<usize>,
    /// What the tensor is for.
    pub role: Role,
}

impl Site {
    /// Of a tensor outside the layers.
    pub const fn outside(role: Role) -> Self {
        Self { layer: None, role }
    }

    /// Of a tensor of a layer.
    pub const fn of_layer(layer: usize, role: Role) -> Self {
        Self { layer: Some(layer), role }
    }

    /// CoreNet's name of the module, for example `layers.0.attn.qkv_proj`.
    pub fn module(&self) -> String {
        let name = match self.role {
            Role::Embedding => "token_embeddings",
            Role::AttnNorm => "attn_norm",
            Role::QkvProj | Role::QkvBias => "attn.qkv_proj",
            Role::QNorm => "attn.q_norm",
            Role::KNorm => "attn.k_norm",
            Role::OutProj => "attn.out_proj",
            Role::FfnNorm => "ffn_norm",
            Role::Proj1 => "ffn.proj_1",
            Role::Proj2 => "ffn.proj_2",
            Role::Norm => "norm",
            Role::Head => "classifier",
        };
        match self.layer {
            Some(layer) => format!("layers.{layer}.{name}"),
            None => name.to_owned(),
        }
    }

    /// The tensor's name and shape in a model of `config`, which has this place.
    pub fn spec(&self, config: &ModelConfig) -> TensorSpec {
        let dim = config.model_dim;
        let layer = self.layer.map(|layer| &config.layers[layer]);
        let sized = |size: &dyn Fn(&crate::LayerConfig) -> usize| layer.map_or(0, size);
        let shape = match self.role {
            Role::Embedding | Role::Head => vec![config.vocab_size, dim],
            Role::AttnNorm | Role::FfnNorm | Role::Norm => vec![dim],
            Role::QNorm | Role::KNorm if config.qk_norm != QkNorm::Together => vec![config.head_dim],
            Role::QNorm => vec![sized(&|layer| config.heads(layer).query_dim())],
            Role::KNorm => vec![sized(&|layer| config.heads(layer).kv_dim())],
            Role::QkvBias => vec![sized(&|layer| config.qkv_dim(layer))],
            Role::QkvProj => vec![sized(&|layer| config.qkv_dim(layer)), dim],
            Role::OutProj => vec![dim, sized(&|layer| config.heads(layer).query_dim())],
            Role::Proj1 => vec![sized(&|layer| config.ffn_hidden_dim(layer)), dim],
            Role::Proj2 => vec![dim, sized(&|layer| layer.ffn_dim)],
        };
        let part = if self.role == Role::QkvBias { ".bias" } else { ".weight" };
        TensorSpec { name: self.module() + part, shape }
    }
}

/// The roles of a layer's tensors, in the order the data meets them.
pub fn layer_roles(config: &ModelConfig) -> impl Iterator<Item = Role> + Clone + use<> {
    use Role::*;
    let (has_norms, has_qk_norms) = (norms_have_weights(config), config.qk_norm != QkNorm::None);
    let has_bias = config.qkv_bias;
    let all = [AttnNorm, QkvProj, QkvBias, QNorm, KNorm, OutProj, FfnNorm, Proj1, Proj2];
    all.into_iter().filter(move |role| match role {
        AttnNorm | FfnNorm => has_norms,
        QkvBias => has_bias,
        QNorm | KNorm => has_qk_norms,
        _ => true,
    })
}

/// Whether the norms of the residual stream have weights.
pub(crate) fn norms_have_weights(config: &ModelConfig) -> bool {
    config.norms.kind == NormKind::Rms
}

/// All places of a model's tensors, in the order the data meets them; the output projection, where it is not the embedding
/// table, comes last.
pub fn sites(config: &ModelConfig) -> Vec<Site> {
    let layers =
        (0..config.layers.len()).flat_map(|layer| layer_roles(config).map(move |role| Site::of_layer(layer, role)));
    let first = Some(Site::outside(Role::Embedding));
    let norm = norms_have_weights(config).then_some(Site::outside(Role::Norm));
    let head = (!config.tied_embeddings).then_some(Site::outside(Role::Head));
    first.into_iter().chain(layers).chain(norm).chain(head).collect()
}

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
/// `dim^-1/2 (2 layers)^-1/2` for `out_proj` and `proj_2`, whatever their inputs. `None` for vectors: see [`initial_value`].
pub fn initial_deviation(config: &ModelConfig, spec: &TensorSpec) -> Option<f32> {
    let &[_, inputs] = &spec.shape[..] else { return None };
    let closes_residual = spec.name.ends_with("out_proj.weight") || spec.name.ends_with("proj_2.weight");
    let inverse_variance = if closes_residual { config.model_dim * 2 * config.layers.len() } else { inputs };
    Some((inverse_variance as f32).sqrt().recip())
}

/// What the elements of a vector begin with: norms with 1, biases with 0.
pub fn initial_value(spec: &TensorSpec) -> f32 {
    if spec.name.ends_with(".bias") { 0.0 } else { 1.0 }
}

/// All tensors of a model in CoreNet's names, in the order of [`sites`].
pub fn tensor_specs(config: &ModelConfig) -> Vec<TensorSpec> {
    sites(config).iter().map(|site| site.spec(config)).collect()
}
