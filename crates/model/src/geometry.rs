//! Layer-wise scaling: how the widths of the layers follow from a few numbers (Mehta et al., "OpenELM", 2024, section 2.1).

use serde::{Deserialize, Serialize};

use crate::config::{Activation, ConfigError, LayerConfig, ModelConfig, Norms, QkNorm, RopeScaling};
use crate::family::Family;

/// A multiplier for every layer.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Multipliers {
    /// The same for all layers.
    Uniform(f64),
    /// Two numbers: the first and the last layer's, with equal steps between them. Otherwise one number per layer.
    List(Vec<f64>),
}

impl Multipliers {
    /// One multiplier per layer; those between two ends are rounded to two decimals, as numpy does it.
    ///
    /// # Errors
    /// If a list has neither two entries nor one per layer, an entry is not a positive number, or there are too many layers.
    pub fn per_layer(&self, layers: usize, what: &'static str) -> Result<Vec<f64>, ConfigError> {
        if layers > MAX_LAYERS {
            return Err(ConfigError::Layers { layers, limit: MAX_LAYERS });
        }
        let multipliers = match self {
            Multipliers::Uniform(value) => vec![*value; layers],
            Multipliers::List(ends) if ends.len() == 2 => {
                linspace(ends[0], ends[1], layers).into_iter().map(round_to_cents).collect()
            }
            Multipliers::List(values) if values.len() == layers => values.clone(),
            Multipliers::List(values) => {
                return Err(ConfigError::ListLength { what, layers, found: values.len() });
            }
        };
        match multipliers.iter().find(|m| !(m.is_finite() && **m > 0.0)) {
            Some(&value) => Err(ConfigError::Multiplier { what, value }),
            None => Ok(multipliers),
        }
    }
}

/// More layers than any model has: a number beyond is taken for a mistake, and nothing is allocated for it.
const MAX_LAYERS: usize = 1 << 16;

/// `count` numbers from `first` to `last` in equal steps, like numpy's `linspace`.
fn linspace(first: f64, last: f64, count: usize) -> Vec<f64> {
    let step = (last - first) / (count.max(2) - 1) as f64;
    let mut values: Vec<f64> = (0..count).map(|i| i as f64 * step + first).collect();
    if let [.., end] = &mut values[1.min(count)..] {
        *end = last;
    }
    values
}

/// Rounds to two decimals like numpy: 100 times the value is rounded half to even. 1.115 gives 1.12, 0.125 gives 0.12.
fn round_to_cents(value: f64) -> f64 {
    (value * 100.0).round_ties_even() / 100.0
}

/// The multiple of `divisor` nearest to `value` (at least `divisor`), and one more `divisor` if that falls below nine
/// tenths of `value`.
pub fn make_divisible(value: f64, divisor: usize) -> usize {
    let rounded = ((value + divisor as f64 / 2.0) / divisor as f64).floor() as usize;
    let rounded = rounded.saturating_mul(divisor).max(divisor);
    if (rounded as f64) < 0.9 * value { rounded.saturating_add(divisor) } else { rounded }
}

/// A model as a person describes it; [`Geometry::build`] works out the layers.
///
/// ```
/// use openelm_model::{Geometry, Multipliers};
///
/// let small = Geometry {
///     layers: 8,
///     dim: 256,
///     head_dim: 64,
///     gqa_groups: 2,
///     ffn_multipliers: Multipliers::List(vec![0.5, 4.0]),
///     ..Geometry::default()
/// };
/// let config = small.build(4096)?;
/// assert!(config.layers[0].ffn_dim < config.layers[7].ffn_dim);
/// # Ok::<(), openelm_model::ConfigError>(())
/// ```
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Geometry {
    /// Transformer layers.
    pub layers: usize,
    /// Width of the residual stream.
    pub dim: usize,
    /// Width of one attention head.
    pub head_dim: usize,
    /// Query heads per key/value head.
    pub gqa_groups: usize,
    /// Inner size of the feed-forward network relative to `dim`.
    pub ffn_multipliers: Multipliers,
    /// Width of all query heads relative to `dim`.
    pub qkv_multipliers: Multipliers,
    /// The feed-forward sizes are multiples of this.
    pub ffn_divisor: usize,
    /// Whether the feed-forward network is gated.
    pub ffn_glu: bool,
    /// Non-linearity of the feed-forward network.
    #[serde(with = "activation_name")]
    pub activation: Activation,
    /// Whether queries and keys are normalised, as the family does it.
    pub qk_norm: bool,
    /// Whether the output projection is the embedding table.
    pub tied_embeddings: bool,
    /// Base of the rotary frequencies.
    pub rope_theta: f64,
    /// Longest sequence that the model is trained for.
    pub context_length: usize,
    /// Whose files the model is written as.
    pub family: Family,
    /// Added to the mean square in norms; that of the family if it is not given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub norm_eps: Option<f32>,
}

impl Default for Geometry {
    /// OpenELM-270M.
    fn default() -> Self {
        Self {
            layers: 16,
            dim: 1280,
            head_dim: 64,
            gqa_groups: 4,
            ffn_multipliers: Multipliers::List(vec![0.5, 4.0]),
            qkv_multipliers: Multipliers::List(vec![0.5, 1.0]),
            ffn_divisor: 256,
            ffn_glu: true,
            activation: Activation::Swish,
            qk_norm: true,
            tied_embeddings: true,
            rope_theta: 10_000.0,
            context_length: 2048,
            family: Family::OpenElm,
            norm_eps: None,
        }
    }
}

impl Geometry {
    /// Works out every layer's heads and feed-forward size.
    ///
    /// # Errors
    /// If a number is out of range; see [`ConfigError`].
    pub fn build(&self, vocab_size: usize) -> Result<ModelConfig, ConfigError> {
        for (what, value) in
            [("layers", self.layers), ("dim", self.dim), ("head_dim", self.head_dim), ("gqa_groups", self.gqa_groups)]
        {
            if value == 0 {
                return Err(ConfigError::Zero { what });
            }
        }
        if self.ffn_divisor == 0 {
            return Err(ConfigError::Zero { what: "ffn_divisor" });
        }
        let ffn = self.ffn_multipliers.per_layer(self.layers, "ffn_multipliers")?;
        let qkv = self.qkv_multipliers.per_layer(self.layers, "qkv_multipliers")?;
        let layers = ffn.iter().zip(qkv).map(|(&ffn_multiplier, qkv_multiplier)| {
            let head_group = self.head_dim.saturating_mul(self.gqa_groups);
            let query_heads = make_divisible(self.dim as f64 * qkv_multiplier, head_group) / self.head_dim;
            LayerConfig {
                query_heads,
                kv_heads: query_heads / self.gqa_groups,
                ffn_multiplier,
                ffn_dim: make_divisible(ffn_multiplier * self.dim as f64, self.ffn_divisor),
            }
        });
        let norms = self.family.norms();
        let config = ModelConfig {
            family: self.family,
            vocab_size,
            context_length: self.context_length,
            model_dim: self.dim,
            head_dim: self.head_dim,
            gqa_groups: self.gqa_groups,
            qkv_multipliers: self.qkv_multipliers.clone(),
            ffn_divisor: self.ffn_divisor,
            ffn_glu: self.ffn_glu,
            activation: self.activation,
            norms: Norms { eps: self.norm_eps.unwrap_or(norms.eps), ..norms },
            qk_norm: match (self.qk_norm, self.family) {
                (false, _) => QkNorm::None,
                (true, Family::Olmo2) => QkNorm::Together,
                (true, _) => QkNorm::Heads,
            },
            qkv_bias: self.family == Family::Qwen2,
            tied_embeddings: self.tied_embeddings,
            rope_theta: self.rope_theta,
            rope_scaling: RopeScaling::None,
            rope_max_length: self.context_length.saturating_mul(2),
            layers: layers.collect(),
        };
        config.validate()?;
        Ok(config)
    }
}

mod activation_name {
    use serde::{Deserialize, Deserializer, Serializer, de};

    use crate::config::Activation;

    pub fn serialize<S: Serializer>(activation: &Activation, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(match activation {
            Activation::Swish => "swish",
            Activation::Gelu => "gelu",
        })
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Activation, D::Error> {
        match String::deserialize(deserializer)?.as_str() {
            "swish" => Ok(Activation::Swish),
            "gelu" => Ok(Activation::Gelu),
            other => Err(de::Error::unknown_variant(other, &["swish", "gelu"])),
        }
    }
}
