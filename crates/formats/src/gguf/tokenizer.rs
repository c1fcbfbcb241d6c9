//! The tokenizer in a file: pieces, scores and kinds, as SentencePiece has them.

use openelm_model::sentencepiece::{ModelProto, ModelType, NormalizerSpec, SentencePiece, TrainerSpec, Type};
use prost::Message;

use super::byte_level;
use super::parse::{Header, Value};
use crate::tokenizer::beyond_llama;
use crate::{EmbeddedTokenizer, StoredTokenizer};

/// Reads the tokenizer as a SentencePiece model: BPE where the file says `llama`, unigram where it says `t5`; as a `tokenizer.json`
/// where it says `gpt2`; `None` if it has none of these. What the file does not say is as llama.cpp takes it.
pub(super) fn read(header: &Header) -> Result<Option<StoredTokenizer>, String> {
    let values = &header.values;
    let value = |key: &str| values.get(&format!("tokenizer.ggml.{key}"));
    let model_type = match value("model").and_then(Value::as_text) {
        Some("llama") => ModelType::Bpe,
        Some("t5") => ModelType::Unigram,
        Some("gpt2") => return byte_level::read(header).map(StoredTokenizer::HuggingFace).map(Some),
        _ => return Ok(None),
    };
    let id = |key: &str| value(key).and_then(Value::as_usize).and_then(|id| i32::try_from(id).ok());
    let is = |key: &str| value(key).and_then(Value::as_bool);
    let ids = Ids {
        unknown: id("unknown_token_id").unwrap_or(if model_type == ModelType::Bpe { 0 } else { 2 }),
        bos: id("bos_token_id").unwrap_or(1),
        eos: id("eos_token_id").unwrap_or(if model_type == ModelType::Bpe { 2 } else { 1 }),
    };
    let pieces = pieces_of(&value, &ids)?;
    let charsmap = value("precompiled_charsmap").and_then(Value::as_array).map(|bytes| {
        bytes.iter().map(|byte| byte.as_usize().and_then(|byte| u8::try_from(byte).ok())).collect::<Option<Vec<u8>>>()
    });
    let charsmap = match charsmap {
        Some(None) => return Err("the key tokenizer.ggml.precompiled_charsmap holds no bytes".to_owned()),
        charsmap => charsmap.flatten().filter(|bytes| !bytes.is_empty()),
    };
    let has_bytes = pieces.iter().any(|piece| piece.r#type() == Type::Byte);
    let model = ModelProto {
        trainer_spec: Some(TrainerSpec {
            model_type: Some(model_type as i32),
            vocab_size: i32::try_from(pieces.len()).ok(),
            byte_fallback: Some(has_bytes),
            unk_id: Some(ids.unknown),
            bos_id: Some(ids.bos),
            eos_id: Some(ids.eos),
            pad_id: Some(-1),
            ..TrainerSpec::default()
        }),
        normalizer_spec: Some(NormalizerSpec {
            name: Some(if charsmap.is_some() { "precompiled" } else { "identity" }.to_owned()),
            add_dummy_prefix: Some(is("add_space_prefix").unwrap_or(true)),
            remove_extra_whitespaces: Some(is("remove_extra_whitespaces").unwrap_or(false)),
            escape_whitespaces: Some(true),
            precompiled_charsmap: charsmap,
        }),
        pieces,
        ..ModelProto::default()
    };
    let ends = ["eot_token_id", "eom_token_id"].into_iter().filter_map(id).filter_map(|id| u32::try_from(id).ok());
    Ok(Some(StoredTokenizer::SentencePiece(EmbeddedTokenizer {
        model: model.encode_to_vec().into(),
        adds_bos: is("add_bos_token").unwrap_or(model_type == ModelType::Bpe),
        ends: ends.collect(),
        chat_template: values.get("tokenizer.chat_template").and_then(Value::as_text).map(str::to_owned),
    })))
}

/// The special pieces.
struct Ids {
    unknown: i32,
    bos: i32,
    eos: i32,
}

fn pieces_of<'v>(value: &dyn Fn(&str) -> Option<&'v Value>, ids: &Ids) -> Result<Vec<SentencePiece>, String> {
    let list = |key: &str| match value(key) {
        None => Ok(None),
        Some(list) => list.as_array().map(Some).ok_or_else(|| format!("the key tokenizer.ggml.{key} is no list")),
    };
    let tokens = list("tokens")?.ok_or("the key tokenizer.ggml.tokens is missing")?;
    let (scores, kinds) = (list("scores")?, list("token_type")?);
    if [scores, kinds].into_iter().flatten().any(|list| list.len() != tokens.len()) {
        return Err("tokens, scores and types of its tokenizer are not equally many".to_owned());
    }
    let piece = |i: usize| {
        let text = tokens[i].as_text()?;
        let kind = match kinds {
            Some(kinds) => i32::try_from(kinds[i].as_usize()?).ok()?,
            None => kind_of(i, text, ids) as i32,
        };
        let score = scores.map_or(Some(0.0), |scores| scores[i].as_f64())?;
        Some(SentencePiece { piece: Some(text.to_owned()), score: Some(score as f32), r#type: Some(kind) })
    };
    let pieces: Option<Vec<SentencePiece>> = (0..tokens.len()).map(piece).collect();
    let mut pieces = pieces.ok_or("tokens, scores or types of its tokenizer are of the wrong kind")?;
    if !pieces.iter().any(|piece| piece.r#type() == Type::Unknown)
        && let Some(unknown) = usize::try_from(ids.unknown).ok().and_then(|id| pieces.get_mut(id))
    {
        unknown.r#type = Some(Type::Unknown as i32);
    }
    Ok(pieces)
}

/// What a piece is where the file does not say it.
fn kind_of(id: usize, text: &str, ids: &Ids) -> Type {
    let is = |other: i32| usize::try_from(other) == Ok(id);
    let is_byte = text.len() == 6 && text.starts_with("<0x") && text.ends_with('>');
    match () {
        () if is(ids.unknown) => Type::Unknown,
        () if is(ids.bos) || is(ids.eos) => Type::Control,
        () if is_byte => Type::Byte,
        () => Type::Normal,
    }
}

/// A tokenizer as the file wants it.
#[derive(Default)]
pub(super) struct Pieces {
    /// What llama.cpp calls its kind.
    pub model: &'static str,
    /// What it calls the way in which texts are cut.
    pub pre: &'static str,
    /// Pairs that join, where they are listed.
    pub merges: Vec<String>,
    /// The source of the chat template.
    pub chat_template: Option<String>,
    pub texts: Vec<String>,
    pub scores: Vec<f32>,
    pub kinds: Vec<i32>,
    pub bos: Option<u32>,
    pub eos: Option<u32>,
    /// Another token that ends a text.
    pub end_of_turn: Option<u32>,
    /// Where it is not the first.
    pub unknown: Option<u32>,
    /// Whether a prompt begins with BOS.
    pub adds_bos: bool,
    /// Whether a space is put before the text.
    pub space_prefix: bool,
}

/// The tokenizer as the file wants it, for a model of `rows` rows.
pub(super) fn pieces(tokenizer: &StoredTokenizer, rows: usize) -> Result<Pieces, String> {
    match tokenizer.embedded().map_err(|e| e.to_string())? {
        StoredTokenizer::HuggingFace(embedded) => byte_level::pieces(&embedded, rows),
        StoredTokenizer::SentencePiece(embedded) => sentencepiece(&embedded, rows),
        StoredTokenizer::File(path) => Err(format!("{} is no tokenizer", path.display())),
    }
}

/// Takes a SentencePiece model apart and fills it up to `rows` with pieces that never occur, as llama.cpp expects. One that is
/// more than LLaMA's is refused: the file could not say so, and the same text would have other ids there.
fn sentencepiece(tokenizer: &EmbeddedTokenizer, rows: usize) -> Result<Pieces, String> {
    const UNUSED: i32 = 5;
    let checked = tokenizer.open().map_err(|e| e.to_string())?;
    let model = ModelProto::decode(&*tokenizer.model).map_err(|e| e.to_string())?;
    if let Some(what) = beyond_llama(&model) {
        return Err(format!("the tokenizer has {what}, which GGUF's tokenizer llama cannot say"));
    }
    if model.pieces.len() > rows {
        return Err(format!("the tokenizer has {} pieces but the model only {rows} rows", model.pieces.len()));
    }
    let mut others = checked.eos_ids().iter().copied().filter(|&id| checked.eos_id() != Some(id));
    let end_of_turn = others.next();
    if others.next().is_some() {
        return Err("the tokenizer has more than two tokens that end a text; GGUF has keys for two".to_owned());
    }
    let mut pieces = Pieces {
        model: "llama",
        pre: "default",
        merges: Vec::new(),
        chat_template: tokenizer.chat_template.clone(),
        texts: model.pieces.iter().map(|piece| piece.piece().to_owned()).collect(),
        scores: model.pieces.iter().map(SentencePiece::score).collect(),
        kinds: model.pieces.iter().map(|piece| piece.r#type() as i32).collect(),
        bos: checked.bos_id(),
        eos: checked.eos_id(),
        end_of_turn,
        unknown: checked.unk_id().filter(|&id| id != 0),
        adds_bos: checked.adds_bos(),
        space_prefix: model.normalizer_spec.is_none_or(|spec| spec.add_dummy_prefix()),
    };
    for i in pieces.texts.len()..rows {
        pieces.texts.push(format!("[PAD{i}]"));
        pieces.scores.push(-10_000.0);
        pieces.kinds.push(UNUSED);
    }
    Ok(pieces)
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use openelm_model::Tokenizer;
    use openelm_testing::golden;

    use super::*;

    fn model(name: &str) -> EmbeddedTokenizer {
        bytes::Bytes::from(std::fs::read(golden("tokenizers").join(name)).unwrap()).into()
    }

    /// A header with the pieces of a model and `others`.
    fn header(name: &str, kind: &str, others: &[(&str, Value)]) -> Header {
        let model = ModelProto::decode(&*model(name).model).unwrap();
        let list = |of: &dyn Fn(&SentencePiece) -> Value| Value::Array(model.pieces.iter().map(of).collect());
        let mut values = HashMap::from([
            ("tokenizer.ggml.model".to_owned(), Value::Text(kind.to_owned())),
            ("tokenizer.ggml.tokens".to_owned(), list(&|piece| Value::Text(piece.piece().to_owned()))),
            ("tokenizer.ggml.scores".to_owned(), list(&|piece| Value::Float(piece.score().into()))),
            ("tokenizer.ggml.token_type".to_owned(), list(&|piece| Value::Integer(piece.r#type() as i128))),
        ]);
        values.extend(others.iter().map(|(key, value)| (format!("tokenizer.ggml.{key}"), value.clone())));
        Header { values, tensors: Vec::new() }
    }

    fn opened(header: &Header) -> Tokenizer {
        read(header).unwrap().unwrap().open().unwrap()
    }

    const TEXT: &str = " the  sea 日本 <sep> 12";

    #[test]
    fn a_file_says_how_texts_begin_and_end() {
        let plain = opened(&header("bpe_bytes.model", "llama", &[]));
        assert_eq!((plain.adds_bos(), plain.eos_ids()), (true, &[2][..]));
        let others = [
            ("add_bos_token", Value::Bool(false)),
            ("eot_token_id", Value::Integer(300)),
            ("eom_token_id", Value::Integer(1 << 40)),
        ];
        let tokenizer = opened(&header("bpe_bytes.model", "llama", &others));
        assert_eq!((tokenizer.adds_bos(), tokenizer.eos_ids()), (false, &[2, 300][..]));
    }

    #[test]
    fn a_file_says_what_is_done_to_spaces() {
        let opened = |others: &[(&str, Value)]| opened(&header("bpe_bytes.model", "llama", others));
        let plain = opened(&[]).encode(TEXT);
        assert_eq!(plain, model("bpe_bytes.model").open().unwrap().encode(TEXT));
        let removed = opened(&[("remove_extra_whitespaces", Value::Bool(true))]);
        assert_eq!(removed.encode(TEXT), opened(&[]).encode("the sea 日本 <sep> 12"));
        let none = opened(&[("add_space_prefix", Value::Bool(false))]);
        assert_eq!(none.encode(" the"), opened(&[]).encode("the"));
    }

    #[test]
    fn unigrams_come_with_their_rules() {
        let original = ModelProto::decode(&*model("unigram_rules.model").model).unwrap();
        let rules = original.normalizer_spec.unwrap();
        let rules = rules.precompiled_charsmap();
        let rules = Value::Array(rules.iter().map(|&byte| Value::Integer(byte.into())).collect());
        let others = [
            ("precompiled_charsmap", rules),
            ("remove_extra_whitespaces", Value::Bool(true)),
            ("unknown_token_id", Value::Integer(0)),
        ];
        let tokenizer = opened(&header("unigram_rules.model", "t5", &others));
        let expected = model("unigram_rules.model").open().unwrap();
        for text in [TEXT, "ﬁne\tÜ ½ ～", "strasse e\u{301}"] {
            assert_eq!(tokenizer.encode(text), expected.encode(text), "{text:?}");
        }
    }

    #[test]
    fn what_a_file_leaves_out_is_taken_as_llama_cpp_takes_it() {
        let mut header = header("bpe_bytes.model", "llama", &[]);
        header.values.remove("tokenizer.ggml.token_type");
        assert_eq!(opened(&header).encode(TEXT), model("bpe_bytes.model").open().unwrap().encode(TEXT));
        header.values.remove("tokenizer.ggml.scores");
        let tokenizer = opened(&header);
        assert_eq!(tokenizer.decode(&tokenizer.encode(TEXT)), TEXT);
    }

    #[test]
    fn what_the_file_cannot_say_is_refused() {
        let refused = |name: &str| sentencepiece(&model(name), 1000).map(|_| ()).unwrap_err();
        for (name, part) in [
            ("unigram_bytes.model", "another model"),
            ("bpe_identity.model", "no bytes"),
            ("bpe_rules.model", "no bytes"),
        ] {
            assert!(refused(name).contains(part), "{name}: {}", refused(name));
        }
        sentencepiece(&model("bpe_bytes.model"), 1000).unwrap();
        let changed = |change: fn(&mut ModelProto)| {
            let mut changed = ModelProto::decode(&*model("bpe_bytes.model").model).unwrap();
            change(&mut changed);
            let embedded = bytes::Bytes::from(changed.encode_to_vec()).into();
            sentencepiece(&embedded, 1000).map(|_| ()).unwrap_err()
        };
        fn normalizer(model: &mut ModelProto) -> &mut NormalizerSpec {
            model.normalizer_spec.get_or_insert_default()
        }
        let suffix =
            changed(|model| model.trainer_spec.get_or_insert_default().treat_whitespace_as_suffix = Some(true));
        assert!(suffix.contains("spaces behind words"), "{suffix}");
        let spaces = changed(|model| normalizer(model).remove_extra_whitespaces = Some(true));
        assert!(spaces.contains("extra spaces"), "{spaces}");
        let rules = changed(|model| {
            normalizer(model).precompiled_charsmap = Some([&4u32.to_le_bytes()[..], &[0; 5]].concat());
        });
        assert!(rules.contains("rules for normalising"), "{rules}");
        let user_defined = changed(|model| model.pieces[300].r#type = Some(Type::UserDefined as i32));
        assert!(user_defined.contains("never cut"), "{user_defined}");
    }
}
