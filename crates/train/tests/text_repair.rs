//! Agreement with ftfy, and with CoreNet, which repairs texts by it before they are encoded.

#![allow(clippy::unwrap_used)]
#![cfg(feature = "text-repair")]

use openelm_model::Tokenizer;
use openelm_testing::{json, shared};
use openelm_train::text_repair;
use serde_json::Value;

fn ids(value: &Value) -> Vec<u32> {
    value.as_array().unwrap().iter().map(|id| id.as_u64().unwrap() as u32).collect()
}

#[test]
fn texts_are_repaired_as_ftfy_does() {
    let Some(folder) = shared("golden/tokenizer") else { return };
    let tokenizer = Tokenizer::open(&folder).unwrap();
    let (repair, cases) = (text_repair().unwrap(), json(&folder.join("encode.json")));
    let cases = cases.get("strings").or(cases.get("cases")).unwrap_or(&cases).as_array().unwrap();
    let mut wrong = Vec::new();
    for case in cases {
        let input = case["text"].as_str().unwrap();
        let expected = case.get("ftfy_text").map_or(input, |text| text.as_str().unwrap());
        if repair(input) != expected {
            wrong.push((input.to_owned(), repair(input), expected.to_owned()));
        } else if let Some(expected) = case.get("corenet_ids") {
            assert_eq!(tokenizer.encode_with(&repair(input), true, true), ids(expected), "{input:?}");
        }
    }
    assert!(wrong.is_empty(), "{} texts differ: {wrong:#?}", wrong.len());
}
