//! GGUF files: header, metadata, tensors, tokenizer.

#![no_main]

use std::path::Path;

use libfuzzer_sys::fuzz_target;
use openelm_formats::gguf;
use openelm_fuzz::{owned, use_model};

fuzz_target!(|data: &[u8]| {
    if let Ok(model) = gguf::from_bytes(owned(data), Path::new("model.gguf")) {
        use_model(model);
    }
});
