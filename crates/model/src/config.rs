//! The geometry of a model: how many heads and how wide a feed-forward network each layer has.

use std::fmt;

pub use openelm_kernels::rope::RopeScaling;
use openelm_kernels::rope::RopeTable;
pub use openelm_kernels::swiglu::Activation;
use openelm_kernels::swiglu::FeedForward;
use openelm_kernels::{Heads, Norm};

use crate::family::Family;
use crate::geometry::{Geometry, Multipliers};
use crate::layout::{TensorSpec, tensor_specs};
use crate::rivals;

/// One layer's own sizes.
#[derive(Debug, Clone, PartialEq)]
pub struct LayerConfig {
    /// Query heads.
    pub query_heads: usize,
    /// Key/value heads; each serves `query_heads / kv_heads` consecutive query heads.
    pub kv_heads: usize,
    /// Inner size of the feed-forward network divided by the model dimension, rounded to two decimals.
    pub ffn_multiplier: f64,
    /// Inner size of the feed-forward network.
    pub ffn_dim: usize,
}

/// What a norm of the residual stream computes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum NormKind {
    /// RMSNorm with weights.
    #[default]
    Rms,
    /// LayerNorm without weights: the mean is subtracted.
    Layer,
}

/// Where the norms of a block stand.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum NormPlacement {
    /// Before attention and the feed-forward network.
    #[default]
    Before,
    /// Behind them, before their results are added to the residual stream.
    Behind,
}

/// The norms of the residual stream.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Norms {
    /// What they compute.
    pub kind: NormKind,
    /// Where those of a block stand.
    pub placement: NormPlacement,
    /// Added to the mean square, in the norms of queries and keys too.
    pub eps: f32,
}

impl Default for Norms {
    /// OpenELM's.
    fn default() -> Self {
        Self { kind: NormKind::default(), placement: NormPlacement::default(), eps: 1e-6 }
    }
}

/// How queries and keys are normalised before RoPE.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum QkNorm {
    /// They are not.
    None,
    /// Head by head, with weights that a layer's heads share.
    Heads,
    /// All query heads of a token together, and all key heads.
    Together,
}

/// Everything that fixes a model's shapes and arithmetic.
#[derive(Debug, Clone, PartialEq)]
pub struct ModelConfig {
    /// Whose configuration files and names of tensors it has.
    pub family: Family,
    /// Rows of the embedding table.
    pub vocab_size: usize,
    /// Longest sequence seen in training (CoreNet's `max_context_length`).
    pub context_length: usize,
    /// Width of the residual stream.
    pub model_dim: usize,
    /// Width of one attention head.
    pub head_dim: usize,
    /// Query heads per key/value head.
    pub gqa_groups: usize,
    /// Width of all query heads relative to `model_dim` (kept for the config files; the layers' heads count).
    pub qkv_multipliers: Multipliers,
    /// The feed-forward sizes are multiples of this.
    pub ffn_divisor: usize,
    /// Whether the feed-forward network is gated (`proj_1` then has `2 * ffn_dim` rows: gate, then up).
    pub ffn_glu: bool,
    /// Non-linearity of the feed-forward network.
    pub activation: Activation,
    /// The norms of the residual stream.
    pub norms: Norms,
    /// How queries and keys are normalised before RoPE.
    pub qk_norm: QkNorm,
    /// Whether queries, keys and values have biases.
    pub qkv_bias: bool,
    /// Whether the output projection is the embedding table.
    pub tied_embeddings: bool,
    /// Base of the rotary frequencies.
    pub rope_theta: f64,
    /// How they are changed for longer texts.
    pub rope_scaling: RopeScaling,
    /// Length that CoreNet builds its rotary table for (kept for the config files; longer contexts work).
    pub rope_max_length: usize,
    /// The layers, from the text to the output.
    pub layers: Vec<LayerConfig>,
}

impl ModelConfig {
    /// The heads of `layer`.
    pub fn heads(&self, layer: &LayerConfig) -> Heads {
        Heads { query_heads: layer.query_heads, kv_heads: layer.kv_heads, head_dim: self.head_dim }
    }

    /// Rows of `qkv_proj` of `layer`: queries, keys and values of all its heads.
    pub fn qkv_dim(&self, layer: &LayerConfig) -> usize {
        self.heads(layer).qkv_dim()
    }

    /// The norm of the residual stream with `weight`, `[dim]`; empty where norms have none.
    pub fn norm<'a>(&self, weight: &'a [f32]) -> Norm<'a> {
        match self.norms.kind {
            NormKind::Rms => Norm::Rms { weight, eps: self.norms.eps },
            NormKind::Layer => Norm::Layer { dim: self.model_dim, eps: self.norms.eps },
        }
    }

    /// An empty table of the rotations of queries and keys.
    pub fn rope_table(&self) -> RopeTable {
        RopeTable::new(self.head_dim, self.rope_theta).scaled(self.rope_scaling)
    }

    /// What stands between `proj_1` and `proj_2` of `layer`.
    pub fn feed_forward(&self, layer: &LayerConfig) -> FeedForward {
        FeedForward { activation: self.activation, gated: self.ffn_glu, inner: layer.ffn_dim }
    }

    /// Rows of `proj_1` of `layer`: gate and up of a gated network, one of them otherwise.
    pub fn ffn_hidden_dim(&self, layer: &LayerConfig) -> usize {
        self.feed_forward(layer).hidden_dim()
    }
}

/// A geometry that no model can have.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum ConfigError {
    /// A size that must be at least 1.
    #[error("{what} is 0; it must be at least 1")]
    Zero {
        /// Name of the size.
        what: &'static str,
    },
    /// A list of multipliers that is neither a pair nor one per layer.
    #[error(
        "{what} has {found} entries; give one number, two (first and last layer) or one for each of the {layers} layers"
    )]
    ListLength {
        /// Name of the list.
        what: &'static str,
        /// Layers of the model.
        layers: usize,
        /// Entries found.
        found: usize,
    },
    /// A multiplier that is not a positive number.
    #[error("{what} holds {value}; multipliers are positive numbers")]
    Multiplier {
        /// Name of the list.
        what: &'static str,
        /// The number found.
        value: f64,
    },
    /// More layers than a model can have.
    #[error("the model would have {layers} layers; at most {limit} are possible")]
    Layers {
        /// Layers asked for.
        layers: usize,
        /// Most layers that a model may have.
        limit: usize,
    },
    /// Query heads that cannot be shared out among key/value heads.
    #[error("layer {layer} has {query_heads} query heads, which {kv_heads} key/value heads do not divide evenly")]
    Heads {
        /// Index of the layer.
        layer: usize,
        /// Its query heads.
        query_heads: usize,
        /// Its key/value heads.
        kv_heads: usize,
    },
    /// Rotary embedding turns pairs of elements.
    #[error("head_dim is {head_dim}; it must be even, for rotary embedding turns pairs")]
    OddHead {
        /// Elements per head.
        head_dim: usize,
    },
    /// A model beyond what memory can address.
    #[error("the model would have more than {limit} parameters; check its sizes")]
    TooLarge {
        /// Most parameters that a model may have.
        limit: usize,
    },
    /// A base of the rotary frequencies that is not a positive number.
    #[error("rope_theta is {value}; it must be a positive number")]
    Theta {
        /// The number found.
        value: f64,
    },
    /// A number added in norms that is not a positive one.
    #[error("the norms add {value} to mean squares; it must be a positive number")]
    Eps {
        /// The number found.
        value: f32,
    },
    /// Scaling of the rotary frequencies that makes no sense.
    #[error("{what} of the rotary scaling is {value}; it must be a positive number{rule}")]
    Scaling {
        /// Name of the number.
        what: &'static str,
        /// The number found.
        value: f64,
        /// What else must hold.
        rule: &'static str,
    },
    /// Something that no model of the family has, and its files cannot say.
    #[error("no model of the family {family} has {what}")]
    Family {
        /// The family.
        family: Family,
        /// What the geometry has.
        what: &'static str,
    },
    /// A name that no known model has.
    #[error(
        "no model is called {name}; known are openelm-270m, openelm-450m, openelm-1.1b, openelm-3b, {}",
        rivals::names().collect::<Vec<_>>().join(", ")
    )]
    Name {
        /// The name given.
        name: String,
    },
}

/// More parameters than any file or memory here holds: sizes beyond are taken for mistakes.
const MAX_PARAMETERS: usize = match 1usize.checked_shl(40) {
    Some(limit) => limit,
    // Where addresses have 32 bits; the norms, which are not counted before the check, come on top.
    None => usize::MAX / 4 * 3,
};

impl ModelConfig {
    /// OpenELM-270M with LLaMA's vocabulary of 32000 pieces.
    pub fn openelm_270m() -> Self {
        Self::released(16, 1280, 64)
    }

    /// OpenELM-450M with LLaMA's vocabulary of 32000 pieces.
    pub fn openelm_450m() -> Self {
        Self::released(20, 1536, 64)
    }

    /// OpenELM-1.1B with LLaMA's vocabulary of 32000 pieces.
    pub fn openelm_1_1b() -> Self {
        Self::released(28, 2048, 64)
    }

    /// OpenELM-3B with LLaMA's vocabulary of 32000 pieces.
    pub fn openelm_3b() -> Self {
        Self::released(36, 3072, 128)
    }

    fn released(layers: usize, dim: usize, head_dim: usize) -> Self {
        let geometry = Geometry { layers, dim, head_dim, ..Geometry::default() };
        geometry.build(32_000).unwrap_or_else(|e| unreachable!("a released geometry is sound: {e}"))
    }

    /// A released model by its name: `openelm-270m`, `OpenELM-1_1B`, `3B` and the like; or one of another family, such as
    /// `smollm2-135m` or `olmo-1b`.
    ///
    /// # Errors
    /// If no model has that name.
    pub fn by_name(name: &str) -> Result<Self, ConfigError> {
        let plain = name.to_lowercase().replace('_', ".");
        match plain.strip_prefix("openelm-").unwrap_or(&plain) {
            "270m" => Ok(Self::openelm_270m()),
            "450m" => Ok(Self::openelm_450m()),
            "1.1b" => Ok(Self::openelm_1_1b()),
            "3b" => Ok(Self::openelm_3b()),
            _ => rivals::by_name(&plain).ok_or_else(|| ConfigError::Name { name: name.to_owned() }),
        }
    }

    /// Checks that the sizes make a model.
    ///
    /// # Errors
    /// The first thing that is wrong; see [`ConfigError`].
    pub fn validate(&self) -> Result<(), ConfigError> {
        let sizes = [
            ("vocab_size", self.vocab_size),
            ("context_length", self.context_length),
            ("model_dim", self.model_dim),
            ("head_dim", self.head_dim),
            ("the number of layers", self.layers.len()),
        ];
        if let Some(&(what, _)) = sizes.iter().find(|(_, value)| *value == 0) {
            return Err(ConfigError::Zero { what });
        }
        if !self.head_dim.is_multiple_of(2) {
            return Err(ConfigError::OddHead { head_dim: self.head_dim });
        }
        if !(self.rope_theta.is_finite() && self.rope_theta > 0.0) {
            return Err(ConfigError::Theta { value: self.rope_theta });
        }
        if !(self.norms.eps.is_finite() && self.norms.eps > 0.0) {
            return Err(ConfigError::Eps { value: self.norms.eps });
        }
        self.validate_scaling()?;
        let mut total = self.vocab_size as f64 * self.model_dim as f64;
        for (index, layer) in self.layers.iter().enumerate() {
            let &LayerConfig { query_heads, kv_heads, ffn_dim, .. } = layer;
            if ffn_dim == 0 {
                return Err(ConfigError::Zero { what: "the feed-forward size of a layer" });
            }
            if !(layer.ffn_multiplier.is_finite() && layer.ffn_multiplier > 0.0) {
                return Err(ConfigError::Multiplier { what: "ffn_multipliers", value: layer.ffn_multiplier });
            }
            if kv_heads == 0 || query_heads == 0 || query_heads % kv_heads != 0 {
                return Err(ConfigError::Heads { layer: index, query_heads, kv_heads });
            }
            // In floating point, where nothing overflows; the exact count comes after the check.
            let heads = (2.0 * query_heads as f64 + 2.0 * kv_heads as f64) * self.head_dim as f64;
            total += (heads + 3.0 * ffn_dim as f64) * self.model_dim as f64;
        }
        if total > MAX_PARAMETERS as f64 {
            return Err(ConfigError::TooLarge { limit: MAX_PARAMETERS });
        }
        match self.family.misfit(self) {
            Some(what) => Err(ConfigError::Family { family: self.family, what }),
            None => Ok(()),
        }
    }

    fn validate_scaling(&self) -> Result<(), ConfigError> {
        let numbers = match self.rope_scaling {
            RopeScaling::None => vec![],
            RopeScaling::Linear { factor } => vec![("the factor", factor)],
            RopeScaling::Llama3 { factor, low_turns, high_turns, original_length } => vec![
                ("the factor", factor),
                ("low_freq_factor", low_turns),
                ("high_freq_factor", high_turns),
                ("the original length", original_length as f64),
            ],
        };
        if let Some(&(what, value)) = numbers.iter().find(|(_, value)| !(value.is_finite() && *value > 0.0)) {
            return Err(ConfigError::Scaling { what, value, rule: "" });
        }
        match self.rope_scaling {
            RopeScaling::Llama3 { low_turns, high_turns, .. } if high_turns <= low_turns => Err(ConfigError::Scaling {
                what: "high_freq_factor",
                value: high_turns,
                rule: " above low_freq_factor",
            }),
            _ => Ok(()),
        }
    }

    /// Parameters in all; a tied output projection counts once.
    pub fn parameters(&self) -> usize {
        tensor_specs(self).iter().map(TensorSpec::len).sum()
    }

    /// Parameters of the embedding table.
    pub fn embedding_parameters(&self) -> usize {
        self.vocab_size * self.model_dim
    }

    /// Parameters of the layer at `index`, its norms included.
    pub fn layer_parameters(&self, index: usize) -> usize {
        let prefix = format!("layers.{index}.");
        tensor_specs(self).iter().filter(|spec| spec.name.starts_with(&prefix)).map(TensorSpec::len).sum()
    }

    /// Elements of the key/value cache per token.
    pub fn kv_elements_per_token(&self) -> usize {
        self.layers.iter().map(|layer| 2 * layer.kv_heads * self.head_dim).sum()
    }

    /// Bytes of all weights at `precision`; at most what an address can tell.
    pub fn weight_bytes(&self, precision: Precision) -> usize {
        let tensor = |spec: &TensorSpec| match (&spec.shape[..], precision.bits()) {
            (_, 32) => spec.len().saturating_mul(4),
            ([rows, columns], bits @ (4 | 8)) => rows * (columns * bits / 8 + columns.div_ceil(GROUP) * 4),
            _ => spec.len().saturating_mul(2),
        };
        tensor_specs(self).iter().map(tensor).fold(0, usize::saturating_add)
    }
}

/// Columns that share a scale and a bias where matrices are quantised.
const GROUP: usize = 64;

/// How weights may be stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Precision {
    /// 32-bit floating point.
    F32,
    /// 16-bit floating point of either kind.
    F16,
    /// 8-bit integers in groups of 64 with a 16-bit scale and bias each, as MLX stores them.
    Int8,
    /// 4-bit integers, likewise.
    Int4,
}

impl Precision {
    /// All of them, widest first.
    pub const ALL: [Precision; 4] = [Precision::F32, Precision::F16, Precision::Int8, Precision::Int4];

    fn bits(self) -> usize {
        match self {
            Precision::F32 => 32,
            Precision::F16 => 16,
            Precision::Int8 => 8,
            Precision::Int4 => 4,
        }
    }
}

impl fmt::Display for Precision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Precision::F32 => "float32",
            Precision::F16 => "float16 or bfloat16",
            Precision::Int8 => "8 bits",
            Precision::Int4 => "4 bits",
        })
    }
}
