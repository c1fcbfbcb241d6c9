//! Kinds of tokenizers beyond LLaMA's: the ids of SentencePiece and of the library tokenizers.

#![allow(clippy::unwrap_used)]

use std::path::Path;

use openelm_model::Tokenizer;
use openelm_testing::{golden, json, shared};
use proptest::prelude::*;
use serde_json::Value;

fn ids(value: &Value) -> Vec<u32> {
    value.as_array().unwrap().iter().map(|id| id.as_u64().unwrap() as u32).collect()
}

#[test]
fn every_kind_gives_the_ids_of_its_own_library() {
    let folder = golden("tokenizers");
    let cases = json(&folder.join("cases.json"));
    let texts: Vec<&str> = cases["texts"].as_array().unwrap().iter().map(|text| text.as_str().unwrap()).collect();
    for (name, expected) in cases["tokenizers"].as_object().unwrap() {
        let tokenizer = Tokenizer::open(&folder.join(name)).unwrap();
        for (i, text) in texts.iter().enumerate() {
            let expected_ids = ids(&expected["ids"][i]);
            assert_eq!(tokenizer.encode(text), expected_ids, "{name}: {text:?}");
            if let Some(decoded) = expected.get("decoded") {
                assert_eq!(tokenizer.decode(&expected_ids), decoded[i].as_str().unwrap(), "{name}: {text:?}");
            }
        }
    }
}

#[test]
fn odd_models_give_the_ids_of_sentencepiece() {
    let Some(folder) = shared("cases/tokenizers") else { return };
    let cases = json(&folder.join("encode.json"));
    for (model, cases) in cases.as_object().unwrap().iter().filter(|(model, _)| *model != "panics.model") {
        let tokenizer = Tokenizer::open(&folder.join(model)).unwrap();
        for case in cases.as_array().unwrap() {
            let text = case["text"].as_str().unwrap();
            assert_eq!(tokenizer.encode(text), ids(&case["ids"]), "{model}: {text:?}");
            assert_eq!(tokenizer.decode(&ids(&case["ids"])), case["decoded"].as_str().unwrap(), "{model}: {text:?}");
        }
    }
    let message = Tokenizer::open(&folder.join("panics.model")).unwrap_err().to_string();
    assert!(message.contains("has no text"), "{message}");
}

fn of_kinds() -> Vec<Tokenizer> {
    let names = ["bpe_bytes.model", "unigram_user.model", "bpe_suffix.model", "qwen2.json", "llama2.json"];
    names.map(|name| Tokenizer::open(&golden("tokenizers").join(name)).unwrap()).into()
}

proptest! {
    #[test]
    fn a_stream_says_what_decoding_says(ids in prop::collection::vec(0..430u32, 0..40)) {
        for tokenizer in of_kinds() {
            let mut stream = tokenizer.detokenizer();
            let parts: Vec<String> = ids.iter().map(|&id| stream.push(id)).collect();
            prop_assert_eq!(parts.concat() + &stream.finish(), tokenizer.decode(&ids));
        }
    }

    #[test]
    fn a_stream_shows_whole_characters(text in "(\\PC|é|日本| )*") {
        for tokenizer in of_kinds() {
            let ids = tokenizer.encode(&text);
            let mut stream = tokenizer.detokenizer();
            let shown: String = ids.iter().map(|&id| stream.push(id)).collect();
            let [in_shown, in_text] = [&shown, &text].map(|text| text.contains(char::REPLACEMENT_CHARACTER));
            prop_assert!(in_text || !in_shown, "{}", shown);
        }
    }
}

fn opened(folder: &Path, file: &str, beside: &[(&str, &str)]) -> Tokenizer {
    std::fs::copy(golden("tokenizers").join(file), folder.join(file)).unwrap();
    for (name, text) in beside {
        std::fs::write(folder.join(name), text).unwrap();
    }
    Tokenizer::open(&folder.join(file)).unwrap()
}

#[test]
fn files_beside_a_tokenizer_say_how_texts_begin_and_end() {
    let folder = tempfile::tempdir().unwrap();
    let plain = opened(folder.path(), "bpe_bytes.model", &[]);
    assert_eq!((plain.adds_bos(), plain.eos_ids()), (true, &[2][..]));
    assert_eq!(plain.encode_prompt("a")[0], 1);
    let config = "\u{feff}{\"add_bos_token\": false, \"eos_token\": {\"content\": \"<s>\"}}";
    let beside = [
        ("tokenizer_config.json", config),
        ("generation_config.json", "{\"eos_token_id\": [2, 7, 100000]}"),
        ("config.json", "{\"eos_token_id\": 9}"),
    ];
    let tokenizer = opened(folder.path(), "bpe_bytes.model", &beside);
    assert_eq!((tokenizer.adds_bos(), tokenizer.eos_id(), tokenizer.eos_ids()), (false, Some(1), &[1, 2, 7, 9][..]));
    assert_eq!(tokenizer.encode_prompt("a"), tokenizer.encode("a"));
    assert!(tokenizer.is_end(7) && !tokenizer.is_end(8));
    std::fs::write(folder.path().join("config.json"), "{").unwrap();
    let message = Tokenizer::open(&folder.path().join("bpe_bytes.model")).unwrap_err().to_string();
    assert!(message.contains("config.json") && message.contains("not JSON"), "{message}");
}

#[test]
fn a_template_says_whether_prompts_begin_with_a_token() {
    let with = |template: Value| {
        let mut described = json(&golden("tokenizers/qwen2.json"));
        described["post_processor"] = template;
        Tokenizer::from_tokenizer_json(described.to_string().as_bytes()).unwrap().adds_bos()
    };
    let byte_level =
        serde_json::json!({ "type": "ByteLevel", "add_prefix_space": true, "trim_offsets": false, "use_regex": true });
    let sequence = serde_json::json!([{ "Sequence": { "id": "A", "type_id": 0 } }]);
    let token = serde_json::json!([{ "SpecialToken": { "id": "<s>", "type_id": 0 } }, { "Sequence": { "id": "A", "type_id": 0 } }]);
    let template = |single: Value| serde_json::json!({ "type": "TemplateProcessing", "single": single });
    assert!(with(Value::Null) && with(template(token.clone())));
    assert!(!with(byte_level.clone()) && !with(template(sequence)));
    assert!(with(serde_json::json!({ "type": "Sequence", "processors": [byte_level, template(token)] })));
}
