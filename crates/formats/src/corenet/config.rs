//! The part `model.language_modeling.general_gpt` of CoreNet's configuration, which names an architecture, and the architectures.

use openelm_model::ModelConfig;
use serde::{Deserialize, Serialize};

/// The part of the YAML that matters.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct GeneralGpt {
    /// A key of CoreNet's table of architectures.
    pub model_name: String,
    /// Rows of the embedding table.
    pub vocab_size: usize,
    /// Longest sequence.
    pub max_context_length: usize,
    /// The id that stands for nothing.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub padding_index: Option<usize>,
}

impl GeneralGpt {
    /// The architecture, if CoreNet's table has it.
    pub fn architecture_in_table(&self) -> Option<ModelConfig> {
        let known = table().into_iter().find(|(name, _)| *name == self.model_name.trim().replace('.', "_"));
        known.map(|(_, known)| self.sized(known))
    }

    pub(super) fn sized(&self, config: ModelConfig) -> ModelConfig {
        ModelConfig { vocab_size: self.vocab_size, context_length: self.max_context_length, ..config }
    }
}

/// CoreNet's table of architectures.
fn table() -> [(&'static str, ModelConfig); 4] {
    [
        ("OpenELM-270M", ModelConfig::openelm_270m()),
        ("OpenELM-450M", ModelConfig::openelm_450m()),
        ("OpenELM-1_1B", ModelConfig::openelm_1_1b()),
        ("OpenELM-3B", ModelConfig::openelm_3b()),
    ]
}

/// CoreNet's key for `config`, if it is in its table.
pub(crate) fn model_name(config: &ModelConfig) -> Option<&'static str> {
    let same = |known: &ModelConfig| {
        let sized = ModelConfig {
            vocab_size: config.vocab_size,
            context_length: config.context_length,
            rope_max_length: config.rope_max_length,
            ..known.clone()
        };
        sized == *config
    };
    table().into_iter().find(|(_, known)| same(known)).map(|(name, _)| name)
}
