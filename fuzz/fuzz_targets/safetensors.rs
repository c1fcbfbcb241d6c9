//! Weights of a Hugging Face folder, with the configuration of the smallest model.

#![no_main]

use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use openelm_formats::huggingface;
use openelm_fuzz::{micro, owned, use_model};

static CONFIG: LazyLock<String> =
    LazyLock::new(|| huggingface::config_to_json(&micro(), openelm_model::DType::F32).to_string());

fuzz_target!(|data: &[u8]| {
    if let Ok(model) = huggingface::from_bytes(CONFIG.as_bytes(), owned(data), "model.safetensors") {
        use_model(model);
    }
});
