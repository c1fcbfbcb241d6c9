//! The families of models that share the block, each with a layout of its own for configuration files and names of tensors.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::config::{Activation, ModelConfig, NormKind, NormPlacement, Norms, QkNorm, RopeScaling};

/// Whose files a model is written as. The arithmetic is said by the rest of the geometry, of which each family has its part.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Family {
    /// OpenELM: layers of different widths, queries and keys normalised head by head.
    #[default]
    OpenElm,
    /// Llama 1 to 3.2, TinyLlama, SmolLM, MobiLlama.
    Llama,
    /// Qwen 2 and 2.5: Llama with biases of queries, keys and values.
    Qwen2,
    /// OLMo: Llama with norms that have no weights.
    Olmo,
    /// OLMo 2: norms behind the layers, and over all queries and all keys of a token.
    Olmo2,
}

impl Family {
    /// The name in `config.json`, and of the architecture in a GGUF file.
    pub fn name(self) -> &'static str {
        match self {
            Family::OpenElm => "openelm",
            Family::Llama => "llama",
            Family::Qwen2 => "qwen2",
            Family::Olmo => "olmo",
            Family::Olmo2 => "olmo2",
        }
    }

    /// The family of that name.
    pub fn by_name(name: &str) -> Option<Self> {
        [Family::OpenElm, Family::Llama, Family::Qwen2, Family::Olmo, Family::Olmo2]
            .into_iter()
            .find(|family| family.name() == name)
    }

    /// The norms of its models, as far as they do not say otherwise.
    pub fn norms(self) -> Norms {
        match self {
            Family::OpenElm | Family::Qwen2 | Family::Llama => Norms::default(),
            Family::Olmo => Norms { kind: NormKind::Layer, eps: 1e-5, ..Norms::default() },
            Family::Olmo2 => Norms { placement: NormPlacement::Behind, ..Norms::default() },
        }
    }

    /// The norms of queries and keys of its models. OpenELM may have none.
    pub fn qk_norm(self) -> QkNorm {
        match self {
            Family::OpenElm => QkNorm::Heads,
            Family::Olmo2 => QkNorm::Together,
            Family::Llama | Family::Qwen2 | Family::Olmo => QkNorm::None,
        }
    }

    /// What a model of the geometry `config` has that no model of this family has.
    pub(crate) fn misfit(self, config: &ModelConfig) -> Option<&'static str> {
        let own = self.norms();
        let common = [
            (config.norms.kind != own.kind, "norms of that kind"),
            (config.norms.placement != own.placement, "norms in that place"),
            (config.qkv_bias && self != Family::Qwen2, "biases"),
            (!config.qkv_bias && self == Family::Qwen2, "no biases"),
        ];
        let first = &config.layers[0];
        let alike = config.layers.iter().all(|layer| {
            (layer.query_heads, layer.kv_heads, layer.ffn_dim) == (first.query_heads, first.kv_heads, first.ffn_dim)
        });
        let particular = match self {
            Family::OpenElm => [
                (config.norms.eps != own.eps, "another norm_eps than 1e-6"),
                (config.qk_norm == QkNorm::Together, "norms over all heads of a token together"),
                (config.rope_scaling != RopeScaling::None, "scaled rotations"),
            ],
            _ => [
                (!alike, "layers of different widths; give one multiplier for all of them"),
                (
                    !config.ffn_glu || config.activation != Activation::Swish,
                    "other networks than gated ones with swish",
                ),
                (config.qk_norm != self.qk_norm(), if self == Family::Olmo2 { NOT_NORMALISED } else { NORMALISED }),
            ],
        };
        // OLMo's configurations say nothing of it.
        let fixed = [(self == Family::Olmo && config.norms.eps != own.eps, "another norm_eps than 1e-5")];
        let all = common.into_iter().chain(particular).chain(fixed);
        all.into_iter().find(|(found, _)| *found).map(|(_, what)| what)
    }
}

const NORMALISED: &str = "normalised queries and keys; set qk_norm = false";
const NOT_NORMALISED: &str = "queries and keys that are not normalised over all heads; set qk_norm = true";

impl fmt::Display for Family {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Family::OpenElm => "OpenELM",
            Family::Llama => "Llama",
            Family::Qwen2 => "Qwen 2",
            Family::Olmo => "OLMo",
            Family::Olmo2 => "OLMo 2",
        })
    }
}
