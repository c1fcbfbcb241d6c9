//! `tokenizer.json`.

#![no_main]

use libfuzzer_sys::fuzz_target;
use openelm_fuzz::use_tokenizer;
use openelm_model::Tokenizer;

fuzz_target!(|data: &[u8]| {
    if let Ok(tokenizer) = Tokenizer::from_tokenizer_json(data) {
        use_tokenizer(&tokenizer);
    }
});
