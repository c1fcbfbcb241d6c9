//! What each id stands for when text is put together.

use std::collections::BTreeMap;

use crate::sentencepiece::{ModelProto, SentencePiece, Type};
use serde_json::Value;

use super::byte_level;
use super::{TokenizerError, unusable};

/// What an id stands for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Piece {
    /// Text, with `▁` for spaces.
    Text(String),
    /// One byte of a character that has no piece.
    Byte(u8),
    /// Bytes of a vocabulary that is made of them.
    Bytes(Vec<u8>),
    /// What stands for the unknown.
    Unknown(String),
    /// Nothing that is seen: the beginning or the end of a text.
    Control,
}

/// All pieces of a tokenizer.
#[derive(Debug, Clone)]
pub(super) struct Vocabulary {
    pub pieces: Vec<Piece>,
    pub bos: Option<u32>,
    pub eos: Option<u32>,
    pub unk: Option<u32>,
    pub leading_space: LeadingSpace,
    /// Whether a row of bytes that is no character becomes one U+FFFD, and not one for each byte.
    pub byte_level: bool,
    /// Ids of the tokens that are no text, and of those that are never cut.
    pub names: BTreeMap<String, u32>,
}

/// What decoding does with the space at the beginning, which encoding put there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum LeadingSpace {
    Stays,
    /// The first piece loses it.
    Goes,
    /// Each piece loses one until there is text.
    AllGo,
}

/// More pieces than any vocabulary has; a larger number is a sign of a damaged file.
const MAX_PIECES: usize = 1 << 24;

impl Vocabulary {
    pub fn from_sentencepiece(model: &ModelProto) -> Self {
        let trainer = model.trainer_spec.clone().unwrap_or_default();
        let normalizer = model.normalizer_spec.clone().unwrap_or_default();
        let pieces = model.pieces.iter().map(|piece| {
            let text = piece.piece().to_owned();
            match piece.r#type() {
                Type::Control => Piece::Control,
                Type::Unknown => Piece::Unknown(trainer.unk_surface().to_owned()),
                Type::Byte => byte_of(piece.piece()).map_or(Piece::Text(text), Piece::Byte),
                _ => Piece::Text(text),
            }
        });
        let name = |(piece, id): (&SentencePiece, u32)| {
            let is_named = matches!(piece.r#type(), Type::Control | Type::Unknown | Type::UserDefined);
            is_named.then(|| (piece.piece().to_owned(), id))
        };
        let id = |id: i32| u32::try_from(id).ok().filter(|&id| (id as usize) < model.pieces.len());
        Self {
            bos: id(trainer.bos_id()),
            eos: id(trainer.eos_id()),
            unk: id(trainer.unk_id()),
            leading_space: match (normalizer.add_dummy_prefix(), normalizer.remove_extra_whitespaces()) {
                (_, true) => LeadingSpace::AllGo,
                (true, false) => LeadingSpace::Goes,
                (false, false) => LeadingSpace::Stays,
            },
            byte_level: false,
            names: model.pieces.iter().zip(0..).filter_map(name).collect(),
            pieces: pieces.collect(),
        }
    }

    pub fn from_tokenizer_json(json: &Value) -> Result<Self, TokenizerError> {
        let model = &json["model"];
        let Some(vocab) = model["vocab"].as_object().filter(|vocab| !vocab.is_empty()) else {
            return Err(unusable("the tokenizer.json has no model with a vocabulary"));
        };
        let added = json["added_tokens"].as_array().map(Vec::as_slice).unwrap_or_default();
        let id = |value: &Value| value.as_u64().filter(|&id| id < MAX_PIECES as u64).map(|id| id as usize);
        let byte_level = is_byte_level(json);
        let characters = byte_level::characters();
        let bytes = |text: &str| byte_level::bytes_of(text, &characters).unwrap_or_else(|| text.as_bytes().to_vec());
        let mut entries = Vec::new();
        for (piece, value) in vocab {
            let id = id(value).ok_or_else(|| unusable(format_args!("the piece {piece:?} has the id {value}")))?;
            let text = || Piece::Text(piece.clone());
            let piece =
                if byte_level { Piece::Bytes(bytes(piece)) } else { byte_of(piece).map_or_else(text, Piece::Byte) };
            entries.push((id, piece));
        }
        for token in added {
            let (Some(id), Some(text)) = (id(&token["id"]), token["content"].as_str()) else {
                return Err(unusable("an added token has no id or no text"));
            };
            let piece = match token["special"] == true {
                true => Piece::Control,
                false if byte_level => Piece::Bytes(bytes(text)),
                false => Piece::Text(text.to_owned()),
            };
            entries.push((id, piece));
        }
        let count = entries.iter().map(|(id, _)| id + 1).max().unwrap_or_default();
        // Ids are dense but for a few holes; a file that claims one huge id must not make us allocate for it.
        if count > 2 * entries.len() + 1024 {
            return Err(unusable(format_args!("{} pieces have ids up to {}", entries.len(), count - 1)));
        }
        let mut pieces = vec![Piece::Control; count];
        for (id, piece) in entries {
            pieces[id] = piece;
        }
        let named = |names: &[&str]| {
            let in_vocab = |name: &&str| vocab.get(*name).and_then(id);
            let in_added = |name: &&str| added.iter().find(|t| t["content"] == **name).and_then(|t| id(&t["id"]));
            names.iter().find_map(|name| in_vocab(name).or_else(|| in_added(name))).map(|id| id as u32)
        };
        let unk = named(&[model["unk_token"].as_str().unwrap_or("<unk>")]);
        if let Some(unk) = unk.filter(|_| !byte_level) {
            pieces[unk as usize] = Piece::Unknown(" \u{2047} ".to_owned());
        }
        Ok(Self {
            bos: named(&["<s>", "<bos>", "<|begin_of_text|>"]),
            eos: named(&["</s>", "<eos>", "<|end_of_text|>", "<|endoftext|>"]),
            unk,
            leading_space: if has_leading_space(json) { LeadingSpace::Goes } else { LeadingSpace::Stays },
            byte_level,
            names: added
                .iter()
                .filter_map(|t| Some((t["content"].as_str()?.to_owned(), id(&t["id"])? as u32)))
                .collect(),
            pieces,
        })
    }
}

impl Vocabulary {
    /// The tokens that are no text, with their spellings, in the order of these.
    pub fn control(&self) -> impl Iterator<Item = (&str, u32)> {
        let is_control = |id: u32| matches!(self.pieces.get(id as usize), Some(Piece::Control | Piece::Unknown(_)));
        self.names.iter().map(|(name, &id)| (name.as_str(), id)).filter(move |&(_, id)| is_control(id))
    }
}

/// The byte that a piece such as `<0x0A>` stands for.
pub(super) fn byte_of(piece: &str) -> Option<u8> {
    let digits = piece.strip_prefix("<0x")?.strip_suffix('>')?;
    let is_byte = digits.len() == 2 && digits.bytes().all(|digit| digit.is_ascii_hexdigit());
    u8::from_str_radix(digits, 16).ok().filter(|_| is_byte)
}

/// Whether pieces are made of bytes.
fn is_byte_level(json: &Value) -> bool {
    let step = &json["pre_tokenizer"];
    let parts = step["pretokenizers"].as_array().into_iter().flatten();
    parts.chain([step]).any(|step| step["type"] == "ByteLevel")
}

/// Whether the normaliser or the pre-tokeniser puts `▁` before the text.
fn has_leading_space(json: &Value) -> bool {
    let prepends = |step: &Value| match step["type"].as_str() {
        Some("Prepend") => step["prepend"] == "▁",
        Some("Metaspace") => step["prepend_scheme"] != "never" && step["add_prefix_space"] != false,
        _ => false,
    };
    ["normalizer", "pre_tokenizer"].iter().any(|key| {
        let step = &json[key];
        let parts = ["normalizers", "pretokenizers"].iter().filter_map(|key| step[key].as_array()).flatten();
        prepends(step) || parts.into_iter().any(prepends)
    })
}
