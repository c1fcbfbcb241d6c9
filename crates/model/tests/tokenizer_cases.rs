//! Kinds of tokenizers beyond LLaMA's: SentencePiece's and tokenizers' ids, or a refusal.

#![allow(clippy::unwrap_used)]

use openelm_model::Tokenizer;
use openelm_testing::{json, shared};
use serde_json::Value;

fn ids(value: &Value) -> Vec<u32> {
    value.as_array().unwrap().iter().map(|id| id.as_u64().unwrap() as u32).collect()
}

#[test]
fn odd_models_give_the_ids_of_sentencepiece() {
    let Some(folder) = shared("cases/tokenizers") else { return };
    let cases = json(&folder.join("encode.json"));
    for (model, cases) in cases.as_object().unwrap() {
        let tokenizer = Tokenizer::open(&folder.join(model)).unwrap();
        for case in cases.as_array().unwrap() {
            let text = case["text"].as_str().unwrap();
            assert_eq!(tokenizer.encode(text), ids(&case["ids"]), "{model}: {text:?}");
            assert_eq!(tokenizer.decode(&ids(&case["ids"])), case["decoded"].as_str().unwrap(), "{model}: {text:?}");
        }
    }
}
