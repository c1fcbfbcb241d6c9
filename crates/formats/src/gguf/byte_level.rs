//! Byte-level tokenizers in a file (`gpt2`), as the `tokenizer.json` that gives the ids of llama.cpp.

use serde_json::{Map, Value as Json, json};

use super::parse::{Header, Value};
use super::tokenizer::Pieces;
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

/// Takes a `tokenizer.json` apart and fills it up to `rows` with tokens that never occur. One whose ids llama.cpp would not give is
/// refused.
pub(super) fn pieces(tokenizer: &EmbeddedJson, rows: usize) -> Result<Pieces, String> {
    const NORMAL: i32 = 1;
    const UNUSED: i32 = 5;
    // What is not followed here at all is refused first.
    let checked = tokenizer.open().map_err(|e| e.to_string())?;
    let json: Json = serde_json::from_slice(&tokenizer.json).map_err(|e| e.to_string())?;
    let pre = pre(&json)?;
    let mut pieces = Pieces {
        model: "gpt2",
        pre,
        merges: json["model"]["merges"].as_array().into_iter().flatten().map(merge).collect(),
        chat_template: tokenizer.chat_template.clone(),
        texts: (0..rows).map(|i| format!("[PAD{i}]")).collect(),
        scores: Vec::new(),
        kinds: vec![UNUSED; rows],
        bos: tokenizer.bos,
        eos: tokenizer.eos,
        end_of_turn: None,
        unknown: None,
        adds_bos: tokenizer.adds_bos,
        space_prefix: true,
    };
    let mut put = |text: &str, id: &Json, kind: i32| {
        let place = id.as_u64().and_then(|id| usize::try_from(id).ok()).filter(|&id| id < rows);
        let place =
            place.ok_or_else(|| format!("the token {text:?} has the id {id}, but the model only {rows} rows"))?;
        pieces.texts[place] = text.to_owned();
        pieces.kinds[place] = kind;
        Ok::<_, String>(())
    };
    json["model"]["vocab"].as_object().into_iter().flatten().try_for_each(|(text, id)| put(text, id, NORMAL))?;
    for token in json["added_tokens"].as_array().into_iter().flatten() {
        let text = token["content"].as_str().unwrap_or_default();
        if let Some(key) = ["lstrip", "rstrip", "single_word"].into_iter().find(|key| token[*key] == true) {
            return Err(format!("the added token {text:?} has {key}, which GGUF's tokenizer gpt2 cannot say"));
        }
        put(text, &token["id"], if token["special"] == true { CONTROL } else { USER_DEFINED } as i32)?;
    }
    let is_known = |id: u32| pieces.texts.get(id as usize).is_some_and(|text| ENDS.contains(&text.as_str()));
    let mut others = checked.eos_ids().iter().copied().filter(|&id| Some(id) != tokenizer.eos && !is_known(id));
    pieces.end_of_turn = others.next();
    if others.next().is_some() {
        return Err("the tokenizer has more than two tokens that end a text; GGUF has keys for two".to_owned());
    }
    Ok(pieces)
}

/// `"a b"`, also of `["a", "b"]`.
fn merge(entry: &Json) -> String {
    let parts = entry.as_array().into_iter().flatten().filter_map(Json::as_str);
    entry.as_str().map_or_else(|| parts.collect::<Vec<_>>().join(" "), str::to_owned)
}

/// llama.cpp's name for how a `tokenizer.json` cuts texts.
fn pre(json: &Json) -> Result<&'static str, String> {
    let step = &json["pre_tokenizer"];
    let parts = step["pretokenizers"].as_array().map_or(std::slice::from_ref(step), Vec::as_slice);
    let found: Vec<String> = parts.iter().map(essence).collect();
    let ignores_merges = json["model"]["ignore_merges"] == true;
    let is = |name: &&str| {
        steps(name).is_ok_and(|steps| {
            steps.ignores_merges == ignores_merges && steps.pre_tokenizers.iter().map(essence).eq(found.iter().cloned())
        })
    };
    let name = ["gpt-2", "smollm", "llama-bpe", "dbrx", "qwen2", "default"].into_iter().find(is);
    let name = name.ok_or("the tokenizer cuts texts in a way that GGUF has no name for")?;
    // The models with this name bring composed characters together first; llama.cpp does not, and no text in that form differs.
    let is_composed = name == "qwen2" && json["normalizer"]["type"] == "NFC";
    if !json["normalizer"].is_null() && !is_composed {
        return Err(format!("the tokenizer rewrites texts ({}), which GGUF cannot say", json["normalizer"]["type"]));
    }
    Ok(name)
}

/// What a step of a pre-tokeniser does, without what changes no ids.
fn essence(step: &Json) -> String {
    let keys: &[&str] = match step["type"].as_str() {
        Some("ByteLevel") => &["add_prefix_space", "use_regex"],
        Some("Digits") => &["individual_digits"],
        _ => &["pattern", "behavior", "invert"],
    };
    let values: Vec<String> = keys.iter().map(|key| step[*key].to_string()).collect();
    format!("{} {}", step["type"], values.join(" "))
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

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use openelm_testing::golden;

    use super::*;

    fn stored(name: &str, change: fn(&mut Json)) -> EmbeddedJson {
        let mut json = openelm_testing::json(&golden("tokenizers").join(name));
        change(&mut json);
        let json = json.to_string().into();
        EmbeddedJson { json, bos: Some(1), eos: Some(2), adds_bos: false, ends: vec![2], chat_template: None }
    }

    /// Without what GGUF cannot say: added tokens that take spaces along, and a space before the text.
    fn plain(json: &mut Json) {
        let flags = ["lstrip", "rstrip", "single_word"];
        if let Some(added) = json["added_tokens"].as_array_mut() {
            added.retain(|token| flags.iter().all(|flag| token[*flag] != true));
        }
        if json["pre_tokenizer"]["type"] == "ByteLevel" {
            json["pre_tokenizer"]["add_prefix_space"] = false.into();
        }
    }

    fn header(pieces: &Pieces) -> Header {
        let texts = |texts: &[String]| Value::Array(texts.iter().cloned().map(Value::Text).collect());
        let kinds = pieces.kinds.iter().map(|&kind| Value::Integer(kind.into())).collect();
        let values = [
            ("pre", Value::Text(pieces.pre.to_owned())),
            ("tokens", texts(&pieces.texts)),
            ("merges", texts(&pieces.merges)),
            ("token_type", Value::Array(kinds)),
            ("bos_token_id", Value::Integer(1)),
            ("eos_token_id", Value::Integer(2)),
            ("add_bos_token", Value::Bool(pieces.adds_bos)),
        ];
        let values: HashMap<_, _> =
            values.into_iter().map(|(key, value)| (format!("tokenizer.ggml.{key}"), value)).collect();
        Header { values, tensors: Vec::new() }
    }

    #[test]
    fn what_is_written_gives_the_same_ids_when_it_is_read() {
        let cases = openelm_testing::json(&golden("tokenizers/cases.json"));
        let texts: Vec<&str> = cases["texts"].as_array().unwrap().iter().filter_map(Json::as_str).collect();
        assert!(texts.len() >= 50);
        for (name, pre) in
            [("gpt2.json", "gpt-2"), ("smollm.json", "smollm"), ("llama3.json", "llama-bpe"), ("qwen2.json", "qwen2")]
        {
            let stored = stored(name, plain);
            let pieces = pieces(&stored, 2000).unwrap();
            assert_eq!(pieces.pre, pre);
            let (before, after) = (stored.open().unwrap(), read(&header(&pieces)).unwrap().open().unwrap());
            // Qwen 2's brings characters together first, which llama.cpp leaves out.
            for text in texts.iter().filter(|text| pre != "qwen2" || text.is_ascii()) {
                assert_eq!(after.encode(text), before.encode(text), "{name}: {text:?}");
            }
        }
    }

    #[test]
    fn what_llama_cpp_would_encode_in_another_way_is_refused() {
        let refused = |name: &str, change: fn(&mut Json)| pieces(&stored(name, change), 2000).map(|_| ()).unwrap_err();
        let rewritten = refused("smollm.json", |json| {
            plain(json);
            json["normalizer"] = json!({ "type": "NFKC" });
        });
        assert!(rewritten.contains("NFKC"), "{rewritten}");
        assert!(refused("smollm.json", |_| ()).contains("strip"));
        assert!(refused("gpt2.json", |_| ()).contains("no name"));
        assert!(refused("metaspace_first.json", |_| ()).contains("no name"));
        assert!(pieces(&stored("gpt2.json", plain), 100).map(|_| ()).unwrap_err().contains("100 rows"));
    }
}
