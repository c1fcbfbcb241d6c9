//! `config.json`.

use std::path::Path;

use openelm_model::{
    Activation, Family, LayerConfig, ModelConfig, Multipliers, Norms, QkNorm, RopeScaling, make_divisible,
};
use serde::Deserialize;
use serde_json::{Value, json};

use super::neighbours;
use crate::{FormatError, text};

/// The keys that matter; others are Hugging Face's own business.
#[derive(Deserialize)]
struct Keys {
    vocab_size: usize,
    max_context_length: usize,
    num_transformer_layers: usize,
    model_dim: usize,
    head_dim: usize,
    num_query_heads: Vec<usize>,
    num_kv_heads: Vec<usize>,
    num_gqa_groups: usize,
    ffn_multipliers: Multipliers,
    qkv_multipliers: Multipliers,
    ffn_dim_divisor: usize,
    ffn_with_glu: bool,
    activation_fn_name: String,
    normalization_layer_name: String,
    normalize_qk_projections: bool,
    share_input_output_layers: bool,
    rope_freq_constant: f64,
    rope_max_length: usize,
}

/// Reads the text of a `config.json`; `path` is for messages.
///
/// # Errors
/// If it is not JSON, lacks a key, is of another architecture, or its sizes make no model.
pub fn config_from_json(text: &[u8], path: &Path) -> Result<ModelConfig, FormatError> {
    let text = text::plain(text, path)?;
    let wrong = |reason: String| FormatError::Config { path: path.to_owned(), reason };
    let value: Value = serde_json::from_slice(text).map_err(|e| wrong(format!("not JSON: {e}")))?;
    let known = "\"openelm\", \"llama\", \"qwen2\", \"olmo\" and \"olmo2\" can be read";
    let family = match value.get("model_type") {
        Some(Value::String(name)) => Family::by_name(name),
        Some(_) => None,
        None => return Err(wrong(format!("model_type is missing; {known}"))),
    };
    match (family, &value) {
        (Some(Family::OpenElm), _) => geometry_from_json(text, path),
        (Some(family), Value::Object(keys)) => neighbours::geometry(family, keys, path),
        _ => Err(wrong(format!("model_type is {}; {known}", value["model_type"]))),
    }
}

/// The same for any JSON with these keys, such as CoreNet's resolved `GPTConfig`.
pub(crate) fn geometry_from_json(text: &[u8], path: &Path) -> Result<ModelConfig, FormatError> {
    let text = text::plain(text, path)?;
    let wrong = |reason: String| FormatError::Config { path: path.to_owned(), reason };
    let keys: Keys = serde_json::from_slice(text).map_err(|e| wrong(e.to_string()))?;
    let activation = match keys.activation_fn_name.as_str() {
        "swish" | "silu" => Activation::Swish,
        "gelu" => Activation::Gelu,
        other => return Err(wrong(format!("activation_fn_name is {other:?}; known are \"swish\" and \"gelu\""))),
    };
    if keys.normalization_layer_name != "rms_norm" {
        let other = keys.normalization_layer_name;
        return Err(wrong(format!("normalization_layer_name is {other:?}; only \"rms_norm\" is known")));
    }
    let layers = keys.num_transformer_layers;
    for (key, list) in [("num_query_heads", &keys.num_query_heads), ("num_kv_heads", &keys.num_kv_heads)] {
        if list.len() != layers {
            let found = list.len();
            return Err(wrong(format!("{key} has {found} entries, but num_transformer_layers is {layers}")));
        }
    }
    let geometry = |source| FormatError::Geometry { path: path.to_owned(), source };
    // The list has one entry per layer here, so that two are two layers', not a pair of ends.
    let multipliers = match keys.ffn_multipliers {
        Multipliers::List(values) if values.len() == layers => values,
        other => other.per_layer(layers, "ffn_multipliers").map_err(geometry)?,
    };
    if keys.ffn_dim_divisor == 0 {
        return Err(wrong("ffn_dim_divisor is 0; it must be at least 1".to_owned()));
    }
    let heads = keys.num_query_heads.into_iter().zip(keys.num_kv_heads);
    let layers = multipliers.into_iter().zip(heads).map(|(ffn_multiplier, (query_heads, kv_heads))| LayerConfig {
        query_heads,
        kv_heads,
        ffn_multiplier,
        ffn_dim: make_divisible(ffn_multiplier * keys.model_dim as f64, keys.ffn_dim_divisor),
    });
    let config = ModelConfig {
        family: Family::OpenElm,
        vocab_size: keys.vocab_size,
        context_length: keys.max_context_length,
        model_dim: keys.model_dim,
        head_dim: keys.head_dim,
        gqa_groups: keys.num_gqa_groups,
        qkv_multipliers: keys.qkv_multipliers,
        ffn_divisor: keys.ffn_dim_divisor,
        ffn_glu: keys.ffn_with_glu,
        activation,
        norms: Norms::default(),
        qk_norm: if keys.normalize_qk_projections { QkNorm::Heads } else { QkNorm::None },
        qkv_bias: false,
        tied_embeddings: keys.share_input_output_layers,
        rope_theta: keys.rope_freq_constant,
        rope_scaling: RopeScaling::None,
        rope_max_length: keys.rope_max_length,
        layers: layers.collect(),
    };
    config.validate().map_err(geometry)?;
    Ok(config)
}

/// The `config.json` of a model whose tensors are mostly of `dtype`: of an OpenELM as Apple's conversion writes it, without
/// `auto_map`, which would name Python files that are not there; of others as transformers does.
pub fn config_to_json(config: &ModelConfig, dtype: openelm_model::DType) -> Value {
    if config.family != Family::OpenElm {
        return neighbours::to_json(config, dtype);
    }
    let of_layers = |f: fn(&LayerConfig) -> usize| config.layers.iter().map(f).collect::<Vec<_>>();
    let multipliers: Vec<f64> = config.layers.iter().map(|layer| layer.ffn_multiplier).collect();
    let theta = config.rope_theta;
    json!({
        "activation_fn_name": match config.activation {
            Activation::Swish => "swish",
            Activation::Gelu => "gelu",
        },
        "architectures": ["OpenELMForCausalLM"],
        "bos_token_id": 1,
        "eos_token_id": 2,
        "ffn_dim_divisor": config.ffn_divisor,
        "ffn_multipliers": multipliers,
        "ffn_with_glu": config.ffn_glu,
        "head_dim": config.head_dim,
        "initializer_range": 0.02,
        "max_context_length": config.context_length,
        "model_dim": config.model_dim,
        "model_type": "openelm",
        "normalization_layer_name": "rms_norm",
        "normalize_qk_projections": config.qk_norm == QkNorm::Heads,
        "num_gqa_groups": config.gqa_groups,
        "num_kv_heads": of_layers(|layer| layer.kv_heads),
        "num_query_heads": of_layers(|layer| layer.query_heads),
        "num_transformer_layers": config.layers.len(),
        "qkv_multipliers": config.qkv_multipliers,
        "rope_freq_constant": if theta.fract() == 0.0 { json!(theta as u64) } else { json!(theta) },
        "rope_max_length": config.rope_max_length,
        "share_input_output_layers": config.tied_embeddings,
        "torch_dtype": dtype.to_string(),
        "use_cache": true,
        "vocab_size": config.vocab_size,
    })
}
