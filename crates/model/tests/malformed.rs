//! Tokenizers that are broken in every way we could think of, and those that fuzzing found. Each is refused in one sentence, or
//! can be used like any other; none panics, hangs, or allocates more than a sound one of its size would.
//!
//! The files are made here from sound ones.

#![allow(clippy::unwrap_used)]

use openelm::{Tokenizer, TokenizerError};
use openelm_testing::golden;
use sentencepiece_model::{ModelProto, NormalizerSpec, SentencePieceModel, Type};
use serde_json::{Value, json};

/// Far more than any file here needs, far less than any length that one of them lies about.
const MAX_BYTES: u64 = 32 << 20;

/// What `read` gives, used if it is a tokenizer, after asserting that neither took much memory.
#[track_caller]
fn tried(what: &str, read: impl FnOnce() -> Result<Tokenizer, TokenizerError>) -> Result<(), String> {
    let mut result = Ok(());
    let used = allocation_counter::measure(|| {
        result = read().map_err(|e| e.to_string()).map(|tokenizer| {
            let ids = tokenizer.encode_with("Once upon a  time, 12 élan\n\u{1f600}", true, true);
            tokenizer.decode(&ids);
            tokenizer.decode(&[0, 1, 2, 3, 255, u32::MAX]);
        });
    });
    assert!(used.bytes_max < MAX_BYTES, "{what}: {} bytes were allocated", used.bytes_max);
    println!("{what}: {result:?}");
    result
}

#[track_caller]
fn assert_refused(what: &str, part: &str, read: impl FnOnce() -> Result<Tokenizer, TokenizerError>) {
    let message = tried(what, read).expect_err(what);
    assert!(message.contains(part), "{what}: {part:?} is not in: {message}");
    assert!(!message.contains('\n'), "{what}: more than one line: {message}");
}

fn sound() -> Vec<u8> {
    std::fs::read(golden("gguf/tokenizer.model")).unwrap()
}
