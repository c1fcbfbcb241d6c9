//! Agreement with SentencePiece.

#![allow(clippy::unwrap_used)]

use openelm_model::{Tokenizer, TokenizerError};
use openelm_testing::{golden, json, shared};
use serde_json::Value;
use std::path::{Path, PathBuf};

fn ids(value: &Value) -> Vec<u32> {
    value.as_array().unwrap().iter().map(|id| id.as_u64().unwrap() as u32).collect()
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap()
}

/// The folders with a `tokenizer.model` and what SentencePiece makes of it: ours, and LLaMA's where it is at hand.
fn folders() -> Vec<PathBuf> {
    [Some(golden("tokenizer_small")), shared("golden/tokenizer")].into_iter().flatten().collect()
}

fn cases(folder: &Path, file: &str) -> Vec<Value> {
    let value = json(&folder.join(file));
    let list = value.get("strings").or(value.get("cases")).unwrap_or(&value);
    list.as_array().unwrap_or_else(|| panic!("{file} in {} has no list of cases", folder.display())).clone()
}

#[test]
fn texts_give_the_ids_of_sentencepiece() {
    for folder in folders() {
        let tokenizer = Tokenizer::open(&folder).unwrap();
        for case in cases(&folder, "encode.json") {
            let input = text(&case["text"]);
            assert_eq!(tokenizer.encode(input), ids(&case["ids"]), "{input:?}");
            assert_eq!(tokenizer.encode_with(input, true, true), ids(&case["ids_bos_eos"]), "{input:?}");
            assert_eq!(tokenizer.decode(&ids(&case["ids"])), text(&case["decoded"]), "{input:?}");
        }
    }
}

#[test]
fn every_prefix_of_a_stream_decodes_like_sentencepiece() {
    for folder in folders() {
        let tokenizer = Tokenizer::open(&folder).unwrap();
        for file in ["decode.json", "prefix_decode.json"] {
            if !folder.join(file).exists() {
                continue;
            }
            for case in cases(&folder, file) {
                let ids = ids(&case["ids"]);
                if let Some(decoded) = case.get("decoded") {
                    assert_eq!(tokenizer.decode(&ids), text(decoded), "{ids:?}");
                }
                let Some(prefixes) = case.get("prefix_decodes") else { continue };
                let (mut stream, mut shown) = (tokenizer.detokenizer(), String::new());
                for (i, (&id, expected)) in ids.iter().zip(prefixes.as_array().unwrap()).enumerate() {
                    shown.push_str(&stream.push(id));
                    let whole = format!("{shown}{}", stream.clone().finish());
                    assert_eq!(whole, text(expected), "{:?}", &ids[..=i]);
                }
            }
        }
    }
}

#[test]
fn long_texts_round_trip() {
    let tokenizer = Tokenizer::open(&golden("tokenizer_small")).unwrap();
    let text: String = (0..60_000).map(|i| format!("Word {} of many, many words.\n", i % 977)).collect();
    assert_eq!(tokenizer.decode(&tokenizer.encode(&text)), text);
}

#[test]
fn files_that_are_no_tokenizers_are_refused() {
    let model = std::fs::read(golden("tokenizer_small/tokenizer.model")).unwrap();
    let refused = |bytes: &[u8]| Tokenizer::from_sentencepiece(bytes).unwrap_err().to_string();
    assert!(refused(b"").contains("no pieces"));
    assert!(refused(b"\x89PNG\r\n\x1a\n and more").contains("not a SentencePiece model"));
    assert!(refused(&model[..model.len() / 2]).contains("not a SentencePiece model"));
    let refused = |text: &str| Tokenizer::from_tokenizer_json(text.as_bytes()).unwrap_err().to_string();
    assert!(refused("[").contains("not a tokenizer.json"));
    assert!(refused("{}").contains("no model with a vocabulary"));
    assert!(refused(r#"{"model": {"type": "BPE", "vocab": {"a": 4000000000}, "merges": []}}"#).contains("4000000000"));
    assert!(refused(r#"{"model": {"type": "BPE", "vocab": {"a": 9000000}, "merges": []}}"#).contains("ids up to"));
    assert!(matches!(Tokenizer::open(&golden("train")), Err(TokenizerError::NoTokenizer { .. })));
    assert!(Tokenizer::open(Path::new("nowhere.model")).unwrap_err().to_string().contains("nowhere.model"));
}
