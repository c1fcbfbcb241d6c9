//! `config.json` of Llama and its neighbours, as transformers 4 and 5 write it.

use std::path::Path;

use openelm_model::{Activation, DType, Family, LayerConfig, ModelConfig, Multipliers, Norms, RopeScaling};
use serde_json::{Map, Value, json};

use crate::FormatError;

/// Keys that say nothing of what a model computes. Others that are not looked at are refused if they switch anything on.
const WITHOUT_EFFECT: [&str; 34] = [
    "_attn_implementation",
    "_attn_implementation_autoset",
    "_model_name_or_path",
    "_name_or_path",
    "architectures",
    "attention_dropout",
    "attn_implementation",
    "auto_map",
    "bos_token_id",
    "dtype",
    "eos_token_id",
    "hidden_dropout",
    "initializer_range",
    "is_llama_config",
    "max_length",
    "max_sequence_length",
    "max_window_layers",
    "model_name",
    "model_type",
    "pad_token_id",
    "pretraining_tp",
    "quantization",
    "quantization_config",
    "residual_dropout",
    "sliding_window",
    "task_specific_params",
    "tokenizer_class",
    "torch_dtype",
    "transformers.js_config",
    "transformers_version",
    "unk_token_id",
    "unsloth_fixed",
    "unsloth_version",
    "use_cache",
];

/// Reads the geometry of a model of `family` from the keys of its `config.json` at `path`.
pub(super) fn geometry(family: Family, keys: &Map<String, Value>, path: &Path) -> Result<ModelConfig, FormatError> {
    let wrong = |reason: String| FormatError::Config { path: path.to_owned(), reason };
    let config = Keys { family, keys: keys.clone() }.geometry().map_err(wrong)?;
    config.validate().map_err(|source| FormatError::Geometry { path: path.to_owned(), source })?;
    Ok(config)
}

/// The keys that were not looked at yet.
struct Keys {
    family: Family,
    keys: Map<String, Value>,
}

impl Keys {
    fn geometry(mut self) -> Result<ModelConfig, String> {
        let heads = self.size("num_attention_heads")?;
        let model_dim = self.size("hidden_size")?;
        let kv_heads = self.optional_size("num_key_value_heads")?.unwrap_or(heads);
        let head_dim = match self.optional_size("head_dim")? {
            Some(head_dim) => head_dim,
            None if heads > 0 && model_dim % heads == 0 => model_dim / heads,
            None => return Err(format!("hidden_size is {model_dim}, which {heads} heads do not divide evenly")),
        };
        let ffn_dim = self.size("intermediate_size")?;
        let layers = self.size("num_hidden_layers")?;
        let context_length = self.size("max_position_embeddings")?;
        let eps = match self.family {
            // Its norm has no other.
            Family::Olmo => self.family.norms().eps,
            _ => self.number("rms_norm_eps")? as f32,
        };
        match self.take("hidden_act") {
            Some(Value::String(name)) if name == "silu" || name == "swish" => (),
            other => return Err(format!("hidden_act is {}; only \"silu\" is known", other.unwrap_or_default())),
        }
        let tied_embeddings = match self.take("tie_word_embeddings") {
            None => false,
            Some(Value::Bool(tied)) => tied,
            Some(other) => return Err(format!("tie_word_embeddings is {other}; it must be true or false")),
        };
        let (rope_theta, rope_scaling) = self.rotations(context_length)?;
        let vocab_size = self.size("vocab_size")?;
        self.layer_types()?;
        self.refuse_others()?;
        const MAX_LAYERS: usize = 1 << 16;
        if layers > MAX_LAYERS {
            return Err(format!("num_hidden_layers is {layers}; at most {MAX_LAYERS} are possible"));
        }
        let ffn_multiplier = ffn_dim as f64 / model_dim.max(1) as f64;
        let layer = LayerConfig { query_heads: heads, kv_heads, ffn_multiplier, ffn_dim };
        Ok(ModelConfig {
            family: self.family,
            vocab_size,
            context_length,
            model_dim,
            head_dim,
            gqa_groups: heads.checked_div(kv_heads).unwrap_or(1),
            qkv_multipliers: Multipliers::Uniform(heads as f64 * head_dim as f64 / model_dim.max(1) as f64),
            ffn_divisor: ffn_dim.max(1),
            ffn_glu: true,
            activation: Activation::Swish,
            norms: Norms { eps, ..self.family.norms() },
            qk_norm: self.family.qk_norm(),
            qkv_bias: self.family == Family::Qwen2,
            tied_embeddings,
            rope_theta,
            rope_scaling,
            rope_max_length: context_length,
            layers: vec![layer; layers],
        })
    }

    /// The value of `key`, if there is one other than null.
    fn take(&mut self, key: &str) -> Option<Value> {
        self.keys.remove(key).filter(|value| !value.is_null())
    }

    fn optional_size(&mut self, key: &str) -> Result<Option<usize>, String> {
        let size = |value: Value| {
            let size = value.as_u64().and_then(|size| usize::try_from(size).ok());
            size.ok_or_else(|| format!("{key} is {value}; it must be a whole number"))
        };
        self.take(key).map(size).transpose()
    }

    fn size(&mut self, key: &str) -> Result<usize, String> {
        self.optional_size(key)?.ok_or_else(|| format!("{key} is missing"))
    }

    fn number(&mut self, key: &str) -> Result<f64, String> {
        number(&mut self.keys, key)?.ok_or_else(|| format!("{key} is missing"))
    }

    /// Base and scaling of the rotations: `rope_theta` and `rope_scaling` of transformers 4, `rope_parameters` of 5.
    fn rotations(&mut self, context_length: usize) -> Result<(f64, RopeScaling), String> {
        let theta = number(&mut self.keys, "rope_theta")?;
        let (key, said) = match (self.take("rope_parameters"), self.take("rope_scaling")) {
            (Some(said), _) => ("rope_parameters", said),
            (None, Some(said)) => ("rope_scaling", said),
            // What both versions take where nothing is said.
            (None, None) => return Ok((theta.unwrap_or(10_000.0), RopeScaling::None)),
        };
        let Value::Object(mut said) = said else { return Err(format!("{key} is {said}; it must be an object")) };
        let within = |reason: String| format!("{key}: {reason}");
        let theta = number(&mut said, "rope_theta").map_err(within)?.or(theta).unwrap_or(10_000.0);
        let kind = [said.remove("rope_type"), said.remove("type")].into_iter().flatten().find(|kind| !kind.is_null());
        let kind = kind.map_or(Ok("default".to_owned()), |kind| match kind {
            Value::String(kind) => Ok(kind),
            other => Err(format!("{key}: rope_type is {other}; it must be a name")),
        })?;
        let mut required = |name: &str| number(&mut said, name)?.ok_or_else(|| format!("{name} is missing"));
        let scaling = match kind.as_str() {
            "default" => RopeScaling::None,
            "linear" => RopeScaling::Linear { factor: required("factor").map_err(within)? },
            "llama3" => RopeScaling::Llama3 {
                factor: required("factor").map_err(within)?,
                low_turns: required("low_freq_factor").map_err(within)?,
                high_turns: required("high_freq_factor").map_err(within)?,
                original_length: required("original_max_position_embeddings").map_err(within)? as usize,
            },
            other => {
                return Err(format!(
                    "{key}: rope_type is {other:?}, a scaling that cannot be followed; \"default\", \"linear\" and \"llama3\" can"
                ));
            }
        };
        said.retain(|_, value| switches_on(value));
        if scaling == RopeScaling::None {
            // Meant for scaling that is not there.
            said.remove("factor");
        }
        match said.into_iter().find(|(name, value)| !(name == "partial_rotary_factor" && value.as_f64() == Some(1.0))) {
            Some((name, value)) => Err(format!("{key}: {name} is {value}, which is not known with {kind:?}")),
            None if context_length == 0 => Err("max_position_embeddings is 0; it must be at least 1".to_owned()),
            None => Ok((theta, scaling)),
        }
    }

    /// All layers see the whole text.
    fn layer_types(&mut self) -> Result<(), String> {
        let Some(types) = self.take("layer_types") else { return Ok(()) };
        match types.as_array().map(|types| types.iter().find(|kind| kind.as_str() != Some("full_attention"))) {
            Some(None) => Ok(()),
            Some(Some(kind)) => Err(format!("layer_types has {kind}; only \"full_attention\" is known")),
            None => Err(format!("layer_types is {types}; it must be a list")),
        }
    }

    /// Refuses keys that may say something of the arithmetic: what they would change is not known here.
    fn refuse_others(&mut self) -> Result<(), String> {
        self.keys.retain(|key, value| !WITHOUT_EFFECT.contains(&key.as_str()) && switches_on(value));
        if self.keys.get("partial_rotary_factor").and_then(Value::as_f64) == Some(1.0) {
            self.keys.remove("partial_rotary_factor");
        }
        match self.keys.iter().next() {
            Some((key, value)) => Err(format!(
                "{key} is {value}, which is not known of {}: it may change what the model computes",
                self.family
            )),
            None => Ok(()),
        }
    }
}

/// Whether a value says more than that something is not so.
fn switches_on(value: &Value) -> bool {
    match value {
        Value::Null | Value::Bool(false) => false,
        Value::Array(values) => !values.is_empty(),
        Value::Object(values) => !values.is_empty(),
        _ => true,
    }
}

fn number(keys: &mut Map<String, Value>, key: &str) -> Result<Option<f64>, String> {
    let value = keys.remove(key).filter(|value| !value.is_null());
    value.map(|value| value.as_f64().ok_or_else(|| format!("{key} is {value}; it must be a number"))).transpose()
}

/// The `config.json` of a model of another family than OpenELM, whose tensors are mostly of `dtype`; in keys that transformers 4
/// and 5 read.
pub(super) fn to_json(config: &ModelConfig, dtype: DType) -> Value {
    let architecture = match config.family {
        Family::OpenElm => "OpenELMForCausalLM",
        Family::Llama => "LlamaForCausalLM",
        Family::Qwen2 => "Qwen2ForCausalLM",
        Family::Olmo => "OlmoForCausalLM",
        Family::Olmo2 => "Olmo2ForCausalLM",
    };
    let (heads, kv_heads, ffn_dim) =
        config.layers.first().map_or((0, 0, 0), |layer| (layer.query_heads, layer.kv_heads, layer.ffn_dim));
    let mut json = json!({
        "architectures": [architecture],
        "attention_dropout": 0.0,
        "bos_token_id": 1,
        "eos_token_id": 2,
        "hidden_act": "silu",
        "hidden_size": config.model_dim,
        "initializer_range": 0.02,
        "intermediate_size": ffn_dim,
        "max_position_embeddings": config.context_length,
        "model_type": config.family.name(),
        "num_attention_heads": heads,
        "num_hidden_layers": config.layers.len(),
        "num_key_value_heads": kv_heads,
        "rope_scaling": scaling_to_json(config.rope_scaling),
        "rope_theta": config.rope_theta,
        "tie_word_embeddings": config.tied_embeddings,
        "torch_dtype": dtype.to_string(),
        "use_cache": true,
        "vocab_size": config.vocab_size,
    });
    if config.family != Family::Olmo {
        json["rms_norm_eps"] = shortest(config.norms.eps);
    }
    if config.head_dim * heads != config.model_dim || config.family == Family::Llama {
        json["head_dim"] = config.head_dim.into();
    }
    json
}

/// The number as a person writes it: `1e-5` for the nearest `f32`.
fn shortest(value: f32) -> Value {
    value.to_string().parse::<f64>().map_or(json!(value), |value| json!(value))
}

fn scaling_to_json(scaling: RopeScaling) -> Value {
    match scaling {
        RopeScaling::None => Value::Null,
        RopeScaling::Linear { factor } => json!({ "rope_type": "linear", "factor": factor }),
        RopeScaling::Llama3 { factor, low_turns, high_turns, original_length } => json!({
            "rope_type": "llama3",
            "factor": factor,
            "low_freq_factor": low_turns,
            "high_freq_factor": high_turns,
            "original_max_position_embeddings": original_length,
        }),
    }
}
