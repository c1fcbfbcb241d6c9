//! The tokenizer in a file: pieces, scores and kinds, as SentencePiece has them.

use openelm_model::{Tokenizer, TokenizerError};
use prost::Message;
use sentencepiece_model::{ModelProto, ModelType, NormalizerSpec, SentencePiece, TrainerSpec};

use super::parse::{Header, Value};

/// Puts the tokenizer together as a SentencePiece model; `None` if the file has none of that kind.
pub(super) fn sentencepiece(header: &Header) -> Result<Option<Vec<u8>>, String> {
    let values = &header.values;
    if values.get("tokenizer.ggml.model").and_then(Value::as_text) != Some("llama") {
        return Ok(None);
    }
    let list = |key: &str| {
        let found = values.get(key).and_then(Value::as_array);
        found.ok_or_else(|| format!("the key {key} is missing or no list"))
    };
    let tokens = list("tokenizer.ggml.tokens")?;
    let (scores, kinds) = (list("tokenizer.ggml.scores")?, list("tokenizer.ggml.token_type")?);
    if scores.len() != tokens.len() || kinds.len() != tokens.len() {
        return Err("tokens, scores and types of its tokenizer are not equally many".to_owned());
    }
    let pieces = tokens.iter().zip(scores).zip(kinds).map(|((token, score), kind)| {
        Some(SentencePiece {
            piece: Some(token.as_text()?.to_owned()),
            score: Some(score.as_f64()? as f32),
            r#type: Some(i32::try_from(kind.as_usize()?).ok()?),
        })
    });
    let pieces: Option<Vec<SentencePiece>> = pieces.collect();
    let pieces = pieces.ok_or("tokens, scores or types of its tokenizer are of the wrong kind")?;
    let id = |key: &str| values.get(key).and_then(Value::as_usize).and_then(|id| i32::try_from(id).ok());
    let space = values.get("tokenizer.ggml.add_space_prefix");
    let model = ModelProto {
        trainer_spec: Some(TrainerSpec {
            model_type: Some(ModelType::Bpe as i32),
            vocab_size: i32::try_from(pieces.len()).ok(),
            byte_fallback: Some(true),
            unk_id: Some(id("tokenizer.ggml.unknown_token_id").unwrap_or(0)),
            bos_id: Some(id("tokenizer.ggml.bos_token_id").unwrap_or(1)),
            eos_id: Some(id("tokenizer.ggml.eos_token_id").unwrap_or(2)),
            pad_id: Some(-1),
            ..TrainerSpec::default()
        }),
        normalizer_spec: Some(NormalizerSpec {
            name: Some("identity".to_owned()),
            add_dummy_prefix: Some(space != Some(&Value::Bool(false))),
            remove_extra_whitespaces: Some(false),
            escape_whitespaces: Some(true),
            ..NormalizerSpec::default()
        }),
        pieces,
        ..ModelProto::default()
    };
    Ok(Some(model.encode_to_vec()))
}

/// A tokenizer as the file wants it.
pub(super) struct Pieces {
    pub texts: Vec<String>,
    pub scores: Vec<f32>,
    pub kinds: Vec<i32>,
    pub bos: Option<u32>,
    pub eos: Option<u32>,
    /// Whether a space is put before the text.
    pub space_prefix: bool,
}

/// Takes a SentencePiece model apart and fills it up to `rows` with pieces that never occur, as llama.cpp expects.
pub(super) fn pieces(model: &[u8], rows: usize) -> Result<Pieces, String> {
    const UNUSED: i32 = 5;
    let checked = Tokenizer::from_sentencepiece(model).map_err(|e: TokenizerError| e.to_string())?;
    let model = ModelProto::decode(model).map_err(|e| e.to_string())?;
    if model.pieces.len() > rows {
        return Err(format!("the tokenizer has {} pieces but the model only {rows} rows", model.pieces.len()));
    }
    let mut pieces = Pieces {
        texts: model.pieces.iter().map(|piece| piece.piece().to_owned()).collect(),
        scores: model.pieces.iter().map(SentencePiece::score).collect(),
        kinds: model.pieces.iter().map(|piece| piece.r#type() as i32).collect(),
        bos: checked.bos_id(),
        eos: checked.eos_id(),
        space_prefix: model.normalizer_spec.is_none_or(|spec| spec.add_dummy_prefix()),
    };
    for i in pieces.texts.len()..rows {
        pieces.texts.push(format!("[PAD{i}]"));
        pieces.scores.push(-10_000.0);
        pieces.kinds.push(UNUSED);
    }
    Ok(pieces)
}
