//! SentencePiece models.

#![no_main]

use libfuzzer_sys::fuzz_target;
use openelm_model::Tokenizer;
use openelm_fuzz::use_tokenizer;

fuzz_target!(|data: &[u8]| {
    if let Ok(tokenizer) = Tokenizer::from_sentencepiece(data) {
        use_tokenizer(&tokenizer);
    }
});
