//! How a model is opened and how it writes. The defaults are those of the command.

use std::path::PathBuf;

use openelm::{Options, SamplingOptions};

/// How keys and values are stored.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[cfg_attr(feature = "uniffi", derive(uniffi::Enum))]
pub enum CacheType {
    /// Exact.
    #[default]
    F32,
    /// Half of the memory.
    F16,
    /// A quarter of it.
    Int8,
}

impl From<CacheType> for openelm::CacheType {
    fn from(cache: CacheType) -> Self {
        match cache {
            CacheType::F32 => Self::F32,
            CacheType::F16 => Self::F16,
            CacheType::Int8 => Self::Int8,
        }
    }
}

/// How a model is opened.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[cfg_attr(feature = "uniffi", derive(uniffi::Record))]
pub struct LoadOptions {
    /// Threads that compute; 0 means one per physical core.
    #[cfg_attr(feature = "uniffi", uniffi(default = 0))]
    pub threads: u32,
    /// How keys and values are stored.
    pub cache: CacheType,
    /// Most tokens of a session; nothing is what the model was trained for.
    #[cfg_attr(feature = "uniffi", uniffi(default = None))]
    pub context: Option<u32>,
    /// Bytes that the model and one session may take; nothing asks the system, where it says. On iOS it does not: pass what
    /// `os_proc_available_memory` gives.
    #[cfg_attr(feature = "uniffi", uniffi(default = None))]
    pub memory: Option<u64>,
    /// The tokenizer's file, if it is not beside the model or in it.
    #[cfg_attr(feature = "uniffi", uniffi(default = None))]
    pub tokenizer: Option<String>,
    /// A template in Jinja by which conversations are written; nothing is the model's own, and OpenELM-Instruct's for an OpenELM
    /// without one.
    #[cfg_attr(feature = "uniffi", uniffi(default = None))]
    pub chat_template: Option<String>,
}

impl From<&LoadOptions> for openelm::LoadOptions {
    fn from(options: &LoadOptions) -> Self {
        Self {
            threads: options.threads as usize,
            cache: options.cache.into(),
            context: options.context.map(|tokens| tokens as usize),
            memory: options.memory,
            tokenizer: options.tokenizer.as_ref().map(PathBuf::from),
            chat_template: options.chat_template.clone(),
        }
    }
}

/// When and how a text goes on.
#[derive(Debug, Clone, PartialEq)]
#[cfg_attr(feature = "uniffi", derive(uniffi::Record))]
pub struct GenerationOptions {
    /// Most tokens to generate.
    #[cfg_attr(feature = "uniffi", uniffi(default = 200))]
    pub max_tokens: u32,
    /// Flattens (above 1) or sharpens (below 1) the distribution; at 0 the most probable token is taken.
    #[cfg_attr(feature = "uniffi", uniffi(default = 0.8))]
    pub temperature: f32,
    /// Draw among this many most probable tokens; 0 is all.
    #[cfg_attr(feature = "uniffi", uniffi(default = 0))]
    pub top_k: u32,
    /// Draw among the fewest most probable tokens that reach this probability; 1 is all.
    #[cfg_attr(feature = "uniffi", uniffi(default = 0.95))]
    pub top_p: f32,
    /// Draw among tokens at least this probable relative to the most probable one; 0 is all.
    #[cfg_attr(feature = "uniffi", uniffi(default = 0.0))]
    pub min_p: f32,
    /// Makes tokens that were there before less probable; 1 is off.
    #[cfg_attr(feature = "uniffi", uniffi(default = 1.0))]
    pub repetition_penalty: f32,
    /// No sequence of this many tokens comes twice; 0 is off.
    #[cfg_attr(feature = "uniffi", uniffi(default = 0))]
    pub no_repeat_ngram: u32,
    /// The same seed gives the same text.
    #[cfg_attr(feature = "uniffi", uniffi(default = 0))]
    pub seed: u64,
    /// Texts that end the generation; they are not part of it.
    #[cfg_attr(feature = "uniffi", uniffi(default = []))]
    pub stop: Vec<String>,
    /// Go on behind the token that ends a text.
    #[cfg_attr(feature = "uniffi", uniffi(default = false))]
    pub ignore_end: bool,
    /// Give the logarithm of each token's probability.
    #[cfg_attr(feature = "uniffi", uniffi(default = false))]
    pub log_probabilities: bool,
}

impl Default for GenerationOptions {
    fn default() -> Self {
        Self {
            max_tokens: 200,
            temperature: 0.8,
            top_k: 0,
            top_p: 0.95,
            min_p: 0.0,
            repetition_penalty: 1.0,
            no_repeat_ngram: 0,
            seed: 0,
            stop: Vec::new(),
            ignore_end: false,
            log_probabilities: false,
        }
    }
}

impl From<GenerationOptions> for Options {
    fn from(options: GenerationOptions) -> Self {
        let sampling = SamplingOptions {
            repetition_penalty: options.repetition_penalty,
            no_repeat_ngram: options.no_repeat_ngram as usize,
            temperature: options.temperature,
            top_k: options.top_k as usize,
            top_p: options.top_p,
            min_p: options.min_p,
            seed: options.seed,
        };
        Self {
            sampling,
            max_tokens: options.max_tokens as usize,
            stop: options.stop,
            ignore_eos: options.ignore_end,
            log_probabilities: options.log_probabilities,
        }
    }
}
