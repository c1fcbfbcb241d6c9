//! Published models of the neighbouring families: to plan beside OpenELM, and to measure with random weights.

use crate::config::{Activation, LayerConfig, ModelConfig, Norms, RopeScaling};
use crate::family::Family;
use crate::geometry::Multipliers;

/// The sizes of a model whose layers are alike.
struct Uniform {
    name: &'static str,
    family: Family,
    vocab_size: usize,
    layers: usize,
    dim: usize,
    /// Query heads, key/value heads and the width of each.
    heads: [usize; 3],
    ffn_dim: usize,
    context_length: usize,
    eps: f32,
    theta: f64,
    tied: bool,
}

/// What only some of them have.
fn scaling(name: &str) -> RopeScaling {
    match name {
        "llama-3.2-1b" => RopeScaling::Llama3 { factor: 32.0, low_turns: 1.0, high_turns: 4.0, original_length: 8192 },
        _ => RopeScaling::None,
    }
}

#[rustfmt::skip]
const KNOWN: [Uniform; 9] = {
    use Family::{Llama, Olmo, Olmo2, Qwen2};
    [
        Uniform { name: "tinyllama-1.1b", family: Llama, vocab_size: 32_000, layers: 22, dim: 2048, heads: [32, 4, 64], ffn_dim: 5632, context_length: 2048, eps: 1e-5, theta: 1e4, tied: false },
        Uniform { name: "smollm2-135m", family: Llama, vocab_size: 49_152, layers: 30, dim: 576, heads: [9, 3, 64], ffn_dim: 1536, context_length: 8192, eps: 1e-5, theta: 1e5, tied: true },
        Uniform { name: "smollm2-360m", family: Llama, vocab_size: 49_152, layers: 32, dim: 960, heads: [15, 5, 64], ffn_dim: 2560, context_length: 8192, eps: 1e-5, theta: 1e5, tied: true },
        Uniform { name: "smollm2-1.7b", family: Llama, vocab_size: 49_152, layers: 24, dim: 2048, heads: [32, 32, 64], ffn_dim: 8192, context_length: 8192, eps: 1e-5, theta: 1.3e5, tied: true },
        Uniform { name: "llama-3.2-1b", family: Llama, vocab_size: 128_256, layers: 16, dim: 2048, heads: [32, 8, 64], ffn_dim: 8192, context_length: 131_072, eps: 1e-5, theta: 5e5, tied: true },
        Uniform { name: "qwen2.5-0.5b", family: Qwen2, vocab_size: 151_936, layers: 24, dim: 896, heads: [14, 2, 64], ffn_dim: 4864, context_length: 32_768, eps: 1e-6, theta: 1e6, tied: true },
        Uniform { name: "qwen2.5-1.5b", family: Qwen2, vocab_size: 151_936, layers: 28, dim: 1536, heads: [12, 2, 128], ffn_dim: 8960, context_length: 32_768, eps: 1e-6, theta: 1e6, tied: true },
        Uniform { name: "olmo-1b", family: Olmo, vocab_size: 50_304, layers: 16, dim: 2048, heads: [16, 16, 128], ffn_dim: 8192, context_length: 2048, eps: 1e-5, theta: 1e4, tied: true },
        Uniform { name: "olmo-2-1b", family: Olmo2, vocab_size: 100_352, layers: 16, dim: 2048, heads: [16, 16, 128], ffn_dim: 8192, context_length: 4096, eps: 1e-6, theta: 5e5, tied: false },
    ]
};

/// The names of all of them.
pub(crate) fn names() -> impl Iterator<Item = &'static str> {
    KNOWN.iter().map(|known| known.name)
}

/// The geometry of the model of that name.
pub(crate) fn by_name(name: &str) -> Option<ModelConfig> {
    let known = KNOWN.iter().find(|known| known.name == name)?;
    let &Uniform { family, vocab_size, layers, dim, heads: [query_heads, kv_heads, head_dim], ffn_dim, .. } = known;
    let layer = LayerConfig { query_heads, kv_heads, ffn_multiplier: ffn_dim as f64 / dim as f64, ffn_dim };
    Some(ModelConfig {
        family,
        vocab_size,
        context_length: known.context_length,
        model_dim: dim,
        head_dim,
        gqa_groups: query_heads / kv_heads,
        qkv_multipliers: Multipliers::Uniform((query_heads * head_dim) as f64 / dim as f64),
        ffn_divisor: ffn_dim,
        ffn_glu: true,
        activation: Activation::Swish,
        norms: Norms { eps: known.eps, ..family.norms() },
        qk_norm: family.qk_norm(),
        qkv_bias: family == Family::Qwen2,
        tied_embeddings: known.tied,
        rope_theta: known.theta,
        rope_scaling: scaling(known.name),
        rope_max_length: known.context_length,
        layers: vec![layer; layers],
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_are_those_of_the_published_files() {
        let published = [
            ("tinyllama-1.1b", 1_100_048_384),
            ("smollm2-135m", 134_515_008),
            ("smollm2-360m", 361_821_120),
            ("smollm2-1.7b", 1_711_376_384),
            ("llama-3.2-1b", 1_235_814_400),
            ("qwen2.5-0.5b", 494_032_768),
            ("qwen2.5-1.5b", 1_543_714_304),
            ("olmo-1b", 1_176_764_416),
            ("olmo-2-1b", 1_484_916_736),
        ];
        assert_eq!(names().count(), published.len());
        for (name, parameters) in published {
            let config = by_name(name).unwrap();
            config.validate().unwrap();
            assert_eq!(config.parameters(), parameters, "{name}");
        }
    }
}
