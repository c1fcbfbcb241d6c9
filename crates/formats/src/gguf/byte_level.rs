//! Byte-level tokenizers in a file (`gpt2`), as the `tokenizer.json` that gives the ids of llama.cpp.

use serde_json::{Map, Value as Json, json};

use super::parse::{Header, Value};
use crate::tokenizer::EmbeddedJson;

/// What a token is, by ggml's numbers.
const CONTROL: usize = 3;
const USER_DEFINED: usize = 4;

/// Tokens that end a turn or a text under these names, whether the file says so or not: llama.cpp takes them so, too.
const ENDS: [&str; 6] = ["<|eot_id|>", "<|im_end|>", "<|end|>", "<end_of_turn>", "<|endoftext|>", "<|eom_id|>"];

/// Reads the tokenizer as a `tokenizer.json`.
pub(super) fn read(header: &Header) -> Result<EmbeddedJson, String> {
    let value = |key: &str| header.values.get(&format!("tokenizer.ggml.{key}"));
    let list = |key: &str| {
        let list = value(key).ok_or_else(|| format!("the key tokenizer.ggml.{key} is missing"))?;
        list.as_array().ok_or_else(|| format!("the key tokenizer.ggml.{key} is no list"))
    };
    let texts = |key: &str| -> Result<Vec<&str>, String> {
        let texts = list(key)?.iter().map(Value::as_text).collect::<Option<Vec<_>>>();
        texts.ok_or_else(|| format!("the key tokenizer.ggml.{key} holds other things than texts"))
    };
    let tokens = texts("tokens")?;
    let kinds = list("token_type")?.iter().map(Value::as_usize).collect::<Option<Vec<_>>>();
    let kinds = kinds.ok_or("the key tokenizer.ggml.token_type holds other things than numbers")?;
    if kinds.len() != tokens.len() {
        return Err("tokens and types of its tokenizer are not equally many".to_owned());
    }
    let steps = steps(value("pre").and_then(Value::as_text).unwrap_or("default"))?;
    let mut vocab = Map::new();
    for (token, id) in tokens.iter().zip(0u32..) {
        if vocab.insert((*token).to_owned(), id.into()).is_some() {
            return Err(format!("its tokenizer has the token {token:?} twice"));
        }
    }
    let added = tokens.iter().zip(&kinds).zip(0u32..).filter(|((_, kind), _)| matches!(**kind, CONTROL | USER_DEFINED));
    let added = added.map(|((token, kind), id)| {
        json!({
            "id": id, "content": token, "single_word": false, "lstrip": false, "rstrip": false, "normalized": false,
            "special": *kind == CONTROL,
        })
    });
    let id = |key: &str| {
        let id = value(key).and_then(Value::as_usize).filter(|&id| id < tokens.len());
        id.and_then(|id| u32::try_from(id).ok())
    };
    let (bos, eos) = (id("bos_token_id"), id("eos_token_id"));
    let adds_bos = value("add_bos_token").and_then(Value::as_bool).unwrap_or(steps.adds_bos) && bos.is_some();
    let text_of = |id: u32| tokens.get(id as usize).copied().unwrap_or_default();
    let post_processor = match bos.filter(|_| adds_bos) {
        None => json!({ "type": "ByteLevel", "add_prefix_space": false, "trim_offsets": false, "use_regex": true }),
        Some(bos) => json!({
            "type": "TemplateProcessing",
            "single": [{ "SpecialToken": { "id": text_of(bos), "type_id": 0 } }, { "Sequence": { "id": "A", "type_id": 0 } }],
            "pair": [
                { "SpecialToken": { "id": text_of(bos), "type_id": 0 } }, { "Sequence": { "id": "A", "type_id": 0 } },
                { "SpecialToken": { "id": text_of(bos), "type_id": 1 } }, { "Sequence": { "id": "B", "type_id": 1 } },
            ],
            "special_tokens": { text_of(bos): { "id": text_of(bos), "ids": [bos], "tokens": [text_of(bos)] } },
        }),
    };
    let json = json!({
        "version": "1.0",
        "truncation": null,
        "padding": null,
        "added_tokens": added.collect::<Vec<_>>(),
        "normalizer": null,
        "pre_tokenizer": { "type": "Sequence", "pretokenizers": steps.pre_tokenizers },
        "post_processor": post_processor,
        "decoder": { "type": "ByteLevel", "add_prefix_space": true, "trim_offsets": true, "use_regex": true },
        "model": {
            "type": "BPE",
            "dropout": null,
            "unk_token": null,
            "continuing_subword_prefix": null,
            "end_of_word_suffix": null,
            "fuse_unk": false,
            "byte_fallback": false,
            "ignore_merges": steps.ignores_merges,
            "vocab": vocab,
            "merges": texts("merges")?,
        },
    });
    let named = ["eot_token_id", "eom_token_id"].into_iter().filter_map(id);
    let known =
        tokens.iter().zip(&kinds).zip(0u32..).filter(|((token, kind), _)| **kind == CONTROL && ENDS.contains(token));
    Ok(EmbeddedJson {
        json: json.to_string().into(),
        bos,
        eos,
        adds_bos,
        ends: named.chain(known.map(|(_, id)| id)).collect(),
        chat_template: header.values.get("tokenizer.chat_template").and_then(Value::as_text).map(str::to_owned),
    })
}

/// How texts are cut, and what goes with it.
struct Steps {
    pre_tokenizers: Vec<Json>,
    /// Whether words that are tokens are taken whole, whatever the merges say.
    ignores_merges: bool,
    /// Whether prompts begin with BOS unless the file says otherwise.
    adds_bos: bool,
}

const GPT2: &str = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+";
const THREE_DIGITS: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";
const ONE_DIGIT: &str =
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";

/// The steps that llama.cpp takes under the name `pre`.
fn steps(pre: &str) -> Result<Steps, String> {
    let bytes =
        |cuts: bool| json!({ "type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": cuts });
    let split = |regex: &str| json!({ "type": "Split", "pattern": { "Regex": regex }, "behavior": "Isolated", "invert": false });
    let digits = |one_by_one: bool| json!({ "type": "Digits", "individual_digits": one_by_one });
    let (pre_tokenizers, is_llama) = match pre {
        "default" => {
            let cuts = [r"[\p{P}\$\+<=>\^~\|]+", GPT2].map(split).into_iter();
            (cuts.chain([digits(false), split("[0-9][0-9][0-9]"), bytes(false)]).collect(), false)
        }
        "gpt-2" | "olmo" => (vec![bytes(true)], false),
        "smollm" => (vec![digits(true), bytes(true)], false),
        "llama-bpe" | "llama3" | "llama-v3" => (vec![split(THREE_DIGITS), bytes(false)], true),
        "dbrx" => (vec![split(THREE_DIGITS), bytes(false)], false),
        "qwen2" => (vec![split(ONE_DIGIT), bytes(false)], false),
        other => {
            return Err(format!(
                "its tokenizer cuts texts as {other:?}; default, gpt-2, smollm, llama-bpe, dbrx, qwen2 and olmo are known"
            ));
        }
    };
    Ok(Steps { pre_tokenizers, ignores_merges: is_llama, adds_bos: is_llama })
}
