//! A geometry worked out from what a file says of each layer, where no configuration says it.

use std::collections::HashMap;

use openelm_model::{
    Activation, ConfigError, Family, LayerConfig, ModelConfig, Multipliers, Norms, QkNorm, RopeScaling,
};

/// What a file knows of a model: sizes, but none of the multipliers they came from.
pub(crate) struct Sizes {
    pub family: Family,
    pub vocab_size: usize,
    pub context_length: usize,
    pub model_dim: usize,
    pub head_dim: usize,
    pub ffn_glu: bool,
    pub norms: Norms,
    pub qk_norm: QkNorm,
    pub tied_embeddings: bool,
    pub rope_theta: f64,
    pub rope_scaling: RopeScaling,
    /// Query heads, key/value heads and feed-forward size of each layer.
    pub layers: Vec<(usize, usize, usize)>,
}

impl Sizes {
    /// Reads the sizes off the shapes of CoreNet's tensors. Without norms of queries and keys nothing tells how wide a head
    /// is, without a gate nothing which activation there is: then there is no answer, nor for shapes that fit no model.
    pub fn from_shapes(shapes: &HashMap<String, Vec<usize>>, context_length: usize) -> Option<Self> {
        let shape = |name: &str| shapes.get(name).map(Vec::as_slice);
        let &[vocab_size, model_dim] = shape("token_embeddings.weight")? else { return None };
        let &[head_dim] = shape("layers.0.attn.q_norm.weight")? else { return None };
        let mut layers = Vec::new();
        while let Some(out_proj) = shape(&format!("layers.{}.attn.out_proj.weight", layers.len())) {
            let layer = |part: &str| shape(&format!("layers.{}.{part}.weight", layers.len()));
            let (&[_, query_dim], &[qkv_dim, _]) = (out_proj, layer("attn.qkv_proj")?) else { return None };
            let (&[hidden, _], &[_, ffn_dim]) = (layer("ffn.proj_1")?, layer("ffn.proj_2")?) else { return None };
            if hidden != ffn_dim.checked_mul(2)? {
                return None;
            }
            let head = head_dim.max(1);
            layers.push((query_dim / head, qkv_dim.checked_sub(query_dim)? / 2 / head, ffn_dim));
        }
        Some(Self {
            family: Family::OpenElm,
            vocab_size,
            context_length,
            model_dim,
            head_dim,
            ffn_glu: true,
            norms: Norms::default(),
            qk_norm: QkNorm::Heads,
            tied_embeddings: !shapes.contains_key("classifier.weight"),
            rope_theta: 10_000.0,
            rope_scaling: RopeScaling::None,
            layers,
        })
    }

    /// The configuration: that of a released OpenELM if the sizes are its, so that its multipliers are known; otherwise one
    /// whose multipliers give these sizes.
    ///
    /// # Errors
    /// If the sizes make no model.
    pub fn into_config(self) -> Result<ModelConfig, ConfigError> {
        let released = [
            ModelConfig::openelm_270m(),
            ModelConfig::openelm_450m(),
            ModelConfig::openelm_1_1b(),
            ModelConfig::openelm_3b(),
        ];
        for known in released {
            if self.is(&known) {
                return Ok(ModelConfig { vocab_size: self.vocab_size, context_length: self.context_length, ..known });
            }
        }
        let (query_heads, kv_heads, _) = self.layers.first().copied().unwrap_or((1, 1, 1));
        let divisor = self.layers.iter().fold(0, |divisor, &(_, _, ffn_dim)| common_divisor(divisor, ffn_dim));
        let dim = self.model_dim.max(1) as f64;
        let layer = |&(query_heads, kv_heads, ffn_dim): &(usize, usize, usize)| LayerConfig {
            query_heads,
            kv_heads,
            ffn_multiplier: ffn_dim as f64 / dim,
            ffn_dim,
        };
        let qkv = self.layers.iter().map(|&(query_heads, ..)| query_heads as f64 * self.head_dim as f64 / dim);
        let config = ModelConfig {
            family: self.family,
            vocab_size: self.vocab_size,
            context_length: self.context_length,
            model_dim: self.model_dim,
            head_dim: self.head_dim,
            gqa_groups: query_heads / kv_heads.max(1),
            qkv_multipliers: Multipliers::List(qkv.collect()),
            ffn_divisor: divisor.max(1),
            ffn_glu: self.ffn_glu,
            activation: Activation::Swish,
            norms: self.norms,
            qk_norm: self.qk_norm,
            qkv_bias: self.family == Family::Qwen2,
            tied_embeddings: self.tied_embeddings,
            rope_theta: self.rope_theta,
            rope_scaling: self.rope_scaling,
            rope_max_length: self.context_length.saturating_mul(2),
            layers: self.layers.iter().map(layer).collect(),
        };
        config.validate()?;
        Ok(config)
    }

    fn is(&self, known: &ModelConfig) -> bool {
        let layers = known.layers.iter().map(|layer| (layer.query_heads, layer.kv_heads, layer.ffn_dim));
        (self.family, self.model_dim, self.head_dim) == (known.family, known.model_dim, known.head_dim)
            && (self.ffn_glu, self.qk_norm, self.tied_embeddings) == (true, QkNorm::Heads, true)
            && self.rope_theta == known.rope_theta
            && self.layers.iter().copied().eq(layers)
    }
}

fn common_divisor(a: usize, b: usize) -> usize {
    if b == 0 { a } else { common_divisor(b, a % b) }
}

#[cfg(test)]
mod tests {
    use openelm_model::{make_divisible, tensor_specs};

    use super::*;

    fn inferred(config: &ModelConfig) -> ModelConfig {
        let shapes = tensor_specs(config).into_iter().map(|spec| (spec.name, spec.shape)).collect();
        Sizes::from_shapes(&shapes, config.context_length).unwrap().into_config().unwrap()
    }

    #[test]
    fn released_models_are_recognised_by_their_shapes() {
        for config in [ModelConfig::openelm_270m(), ModelConfig::openelm_3b()] {
            assert_eq!(inferred(&config), config);
        }
    }

    #[test]
    fn the_multipliers_of_unknown_models_give_their_sizes_again() {
        let geometry = openelm_model::Geometry {
            layers: 5,
            dim: 144,
            head_dim: 16,
            gqa_groups: 3,
            ffn_divisor: 16,
            ..openelm_model::Geometry::default()
        };
        let config = geometry.build(300).unwrap();
        let found = inferred(&config);
        assert_eq!(tensor_specs(&found), tensor_specs(&config));
        for layer in &found.layers {
            assert_eq!(make_divisible(layer.ffn_multiplier * found.model_dim as f64, found.ffn_divisor), layer.ffn_dim);
        }
    }
}
