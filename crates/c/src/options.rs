//! How a model is opened and how it writes.

use std::ffi::c_char;
use std::ptr;

use openelm_ffi as ffi;

use crate::owned::text;
use crate::status::Failure;

/// How keys and values are stored.
#[repr(C)]
pub enum Cache {
    /// Exact.
    F32 = 0,
    /// Half of the memory.
    F16 = 1,
    /// A quarter of it.
    Int8 = 2,
}

/// How a model is opened. Take `openelm_load_options_default` and change what should differ.
#[repr(C)]
pub struct LoadOptions {
    /// Threads that compute; 0 means one per physical core.
    pub threads: u32,
    /// How keys and values are stored: an `openelm_cache`.
    pub cache: u32,
    /// Most tokens of a session; 0 means what the model was trained for.
    pub context: u32,
    /// Bytes that the model and one session may take; 0 asks the system.
    pub memory: u64,
    /// The tokenizer's file, if it is not beside the model or in it; or null.
    pub tokenizer: *const c_char,
    /// A template in Jinja by which conversations are written; null is the model's own, and OpenELM-Instruct's for an
    /// OpenELM without one.
    pub chat_template: *const c_char,
}

/// When and how a text goes on. Take `openelm_generation_options_default` and change what should differ.
#[repr(C)]
pub struct GenerationOptions {
    /// Most tokens to generate.
    pub max_tokens: u32,
    /// Flattens (above 1) or sharpens (below 1) the distribution; at 0 the most probable token is taken.
    pub temperature: f32,
    /// Draw among this many most probable tokens; 0 is all.
    pub top_k: u32,
    /// Draw among the fewest most probable tokens that reach this probability; 1 is all.
    pub top_p: f32,
    /// Draw among tokens at least this probable relative to the most probable one; 0 is all.
    pub min_p: f32,
    /// Makes tokens that were there before less probable; 1 is off.
    pub repetition_penalty: f32,
    /// No sequence of this many tokens comes twice; 0 is off.
    pub no_repeat_ngram: u32,
    /// The same seed gives the same text.
    pub seed: u64,
    /// Texts that end the generation; they are not part of it. Null if there are none.
    pub stop: *const *const c_char,
    /// How many.
    pub stop_count: usize,
    /// Go on behind the token that ends a text.
    pub ignore_end: bool,
    /// Give the logarithm of each token's probability.
    pub log_probabilities: bool,
}

/// The options that a model is opened with where none are given.
#[unsafe(no_mangle)]
pub extern "C" fn openelm_load_options_default() -> LoadOptions {
    LoadOptions {
        threads: 0,
        cache: Cache::F32 as u32,
        context: 0,
        memory: 0,
        tokenizer: ptr::null(),
        chat_template: ptr::null(),
    }
}

/// The options that a text is written with where none are given: those of the command.
#[unsafe(no_mangle)]
pub extern "C" fn openelm_generation_options_default() -> GenerationOptions {
    let ffi::GenerationOptions {
        max_tokens,
        temperature,
        top_k,
        top_p,
        min_p,
        repetition_penalty,
        no_repeat_ngram,
        seed,
        stop: _,
        ignore_end,
        log_probabilities,
    } = ffi::GenerationOptions::default();
    GenerationOptions {
        max_tokens,
        temperature,
        top_k,
        top_p,
        min_p,
        repetition_penalty,
        no_repeat_ngram,
        seed,
        stop: ptr::null(),
        stop_count: 0,
        ignore_end,
        log_probabilities,
    }
}

/// # Safety
/// `options` is null or valid, and so are the texts in it.
pub(crate) unsafe fn load_options(options: *const LoadOptions) -> Result<ffi::LoadOptions, Failure> {
    // SAFETY: the caller's.
    let Some(options) = (unsafe { options.as_ref() }) else { return Ok(ffi::LoadOptions::default()) };
    let cache = match options.cache {
        0 => ffi::CacheType::F32,
        1 => ffi::CacheType::F16,
        2 => ffi::CacheType::Int8,
        other => return Err(Failure::Option("openelm_cache", other)),
    };
    let optional = |given: *const c_char, what| match given.is_null() {
        true => Ok(None),
        // SAFETY: the caller's.
        false => unsafe { text(given, what) }.map(Some),
    };
    Ok(ffi::LoadOptions {
        threads: options.threads,
        cache,
        context: Some(options.context).filter(|&tokens| tokens > 0),
        memory: Some(options.memory).filter(|&bytes| bytes > 0),
        tokenizer: optional(options.tokenizer, "the tokenizer's path")?,
        chat_template: optional(options.chat_template, "the chat template")?,
    })
}

/// # Safety
/// `options` is null or valid, and so are the texts in it.
pub(crate) unsafe fn generation_options(options: *const GenerationOptions) -> Result<ffi::GenerationOptions, Failure> {
    // SAFETY: the caller's.
    let Some(options) = (unsafe { options.as_ref() }) else { return Ok(ffi::GenerationOptions::default()) };
    let stop: &[*const c_char] = match (options.stop.is_null(), options.stop_count) {
        (_, 0) => &[],
        (true, _) => return Err(Failure::Null("the list of texts that end the generation")),
        // SAFETY: the caller says that there are that many.
        (false, count) => unsafe { std::slice::from_raw_parts(options.stop, count) },
    };
    // SAFETY: the caller's.
    let stop = stop.iter().map(|&stop| unsafe { text(stop, "a text that ends the generation") });
    let GenerationOptions { max_tokens, temperature, top_k, top_p, min_p, repetition_penalty, .. } = *options;
    let GenerationOptions { no_repeat_ngram, seed, ignore_end, log_probabilities, .. } = *options;
    Ok(ffi::GenerationOptions {
        max_tokens,
        temperature,
        top_k,
        top_p,
        min_p,
        repetition_penalty,
        no_repeat_ngram,
        seed,
        stop: stop.collect::<Result<_, _>>()?,
        ignore_end,
        log_probabilities,
    })
}
