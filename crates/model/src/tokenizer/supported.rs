//! What of a tokenizer can be used. The library that encodes takes files at their word, and decoding here knows SentencePiece's
//! ways only: whatever goes beyond them is refused, rather than encoded in one way and decoded in another.

use sentencepiece_model::{ModelProto, Type};
use serde_json::{Map, Value, json};

use super::pieces::byte_of;
use super::{TokenizerError, unusable};

/// Longest piece in bytes: SentencePiece learns pieces of up to 16 characters unless told otherwise. The time to prepare an
/// encoder grows with the square of it.
const MAX_PIECE_BYTES: usize = 256;

/// Checks what the encoder relies on.
pub(super) fn check_sentencepiece(model: &ModelProto) -> Result<(), TokenizerError> {
    for piece in &model.pieces {
        check_length(piece.piece())?;
        if piece.r#type() == Type::Byte && byte_of(piece.piece()).is_none() {
            let text = piece.piece();
            return Err(unusable(format_args!("the piece {text:?} ought to be a byte, such as <0x0A>")));
        }
    }
    let encodes = |kind| matches!(kind, Type::Normal | Type::Byte);
    if !model.pieces.iter().any(|piece| encodes(piece.r#type())) {
        return Err(unusable("none of its pieces can be a part of a text"));
    }
    match &model.normalizer_spec {
        Some(normaliser) if normaliser.name() == "user_defined" => {
            Err(unusable("it has rules of its own for normalising text; only SentencePiece's can be used"))
        }
        _ => Ok(()),
    }
}

/// The parts of a `tokenizer.json` that encode a text, after checking that they are of kinds that can be used.
pub(super) fn encoding_parts(json: &Value) -> Result<Value, TokenizerError> {
    let empty = Map::new();
    let model = json["model"].as_object().unwrap_or(&empty);
    if model.get("type").is_some_and(|kind| kind != "BPE") {
        return Err(unusable(format_args!("its model is of type {}; only \"BPE\" can be used", model["type"])));
    }
    for key in ["continuing_subword_prefix", "end_of_word_suffix", "dropout"] {
        if model.get(key).is_some_and(|value| !value.is_null() && value != "") {
            return Err(unusable(format_args!("its model has {key} = {}, which cannot be used", model[key])));
        }
    }
    check_step(&json["normalizer"], "normalizers", &|step| match step["type"].as_str() {
        Some("Prepend") => step["prepend"] == "▁",
        Some("Replace") => step["pattern"] == json!({ "String": " " }) && step["content"] == "▁",
        Some("NFC" | "NFD" | "NFKC" | "NFKD") => true,
        _ => false,
    })?;
    check_step(&json["pre_tokenizer"], "pretokenizers", &|step| match step["type"].as_str() {
        Some("Metaspace") => step["replacement"] == "▁",
        Some("Digits") => true,
        _ => false,
    })?;
    let vocab = model.get("vocab").and_then(Value::as_object).unwrap_or(&empty);
    let added = json["added_tokens"].as_array().map(Vec::as_slice).unwrap_or_default();
    let mut added_texts = Vec::new();
    for token in added {
        match token["content"].as_str() {
            Some(text) if !text.is_empty() => added_texts.push(text),
            _ => return Err(unusable("an added token has no text")),
        }
    }
    for text in vocab.keys().map(String::as_str).chain(added_texts.iter().copied()) {
        check_length(text)?;
    }
    added_texts.sort_unstable();
    if vocab.keys().all(|text| added_texts.binary_search(&text.as_str()).is_ok()) {
        return Err(unusable("none of its pieces can be a part of a text"));
    }
    // Templates, padding and truncation stay outside: ids are those of the text alone.
    let part = |key: &str| (key.to_owned(), json[key].clone());
    Ok(Value::Object(["added_tokens", "normalizer", "pre_tokenizer", "model"].map(part).into_iter().collect()))
}

fn check_length(piece: &str) -> Result<(), TokenizerError> {
    if piece.len() > MAX_PIECE_BYTES {
        let begin: String = piece.chars().take(20).collect();
        return Err(unusable(format_args!(
            "the piece {begin:?}… has {} bytes; at most {MAX_PIECE_BYTES} are possible",
            piece.len()
        )));
    }
    Ok(())
}

/// Checks a step, or all steps of a sequence, whose list is called `list`.
fn check_step(step: &Value, list: &str, is_known: &dyn Fn(&Value) -> bool) -> Result<(), TokenizerError> {
    match &step["type"] {
        Value::Null if step.is_null() => Ok(()),
        Value::String(kind) if kind == "Sequence" => {
            step[list].as_array().into_iter().flatten().try_for_each(|step| check_step(step, list, is_known))
        }
        _ if is_known(step) => Ok(()),
        _ => {
            let kind = list.trim_end_matches('s');
            let reason = format_args!("its {kind} of type {} goes beyond what SentencePiece does", step["type"]);
            Err(unusable(reason))
        }
    }
}
