//! How a text goes on.

use openelm_ffi::GenerationOptions;
use wasm_bindgen::prelude::*;

/// The options of a generation, with the defaults of the command.
#[wasm_bindgen]
#[derive(Clone)]
pub struct Options {
    /// Most tokens to generate.
    #[wasm_bindgen(js_name = maxTokens)]
    pub max_tokens: u32,
    /// Flattens (above 1) or sharpens (below 1) the distribution; at 0 the most probable token is taken.
    pub temperature: f32,
    /// Draw among this many most probable tokens; 0 is all.
    #[wasm_bindgen(js_name = topK)]
    pub top_k: u32,
    /// Draw among the fewest most probable tokens that reach this probability; 1 is all.
    #[wasm_bindgen(js_name = topP)]
    pub top_p: f32,
    /// Draw among tokens at least this probable relative to the most probable one; 0 is all.
    #[wasm_bindgen(js_name = minP)]
    pub min_p: f32,
    /// Makes tokens that were there before less probable; 1 is off.
    #[wasm_bindgen(js_name = repetitionPenalty)]
    pub repetition_penalty: f32,
    /// No sequence of this many tokens comes twice; 0 is off.
    #[wasm_bindgen(js_name = noRepeatNgram)]
    pub no_repeat_ngram: u32,
    /// The same seed gives the same text. An integer.
    pub seed: f64,
    /// Texts that end the generation; they are not part of it.
    #[wasm_bindgen(getter_with_clone)]
    pub stop: Vec<String>,
    /// Go on behind the token that ends a text.
    #[wasm_bindgen(js_name = ignoreEnd)]
    pub ignore_end: bool,
}

#[wasm_bindgen]
impl Options {
    /// The defaults.
    #[wasm_bindgen(constructor)]
    #[allow(clippy::new_without_default, reason = "a constructor for JavaScript")]
    pub fn new() -> Self {
        let defaults = GenerationOptions::default();
        Self {
            max_tokens: defaults.max_tokens,
            temperature: defaults.temperature,
            top_k: defaults.top_k,
            top_p: defaults.top_p,
            min_p: defaults.min_p,
            repetition_penalty: defaults.repetition_penalty,
            no_repeat_ngram: defaults.no_repeat_ngram,
            seed: defaults.seed as f64,
            stop: defaults.stop,
            ignore_end: defaults.ignore_end,
        }
    }
}

impl From<Options> for openelm::Options {
    fn from(options: Options) -> Self {
        GenerationOptions {
            max_tokens: options.max_tokens,
            temperature: options.temperature,
            top_k: options.top_k,
            top_p: options.top_p,
            min_p: options.min_p,
            repetition_penalty: options.repetition_penalty,
            no_repeat_ngram: options.no_repeat_ngram,
            seed: options.seed as u64,
            stop: options.stop,
            ignore_end: options.ignore_end,
            ..GenerationOptions::default()
        }
        .into()
    }
}
