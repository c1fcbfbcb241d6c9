//! Encoding as SentencePiece does, from its `.model`.
//!
//! ```text
//! text -> normaliser -> words (where no piece reaches across) -> merges or unigram -> ids; unknown characters -> bytes
//! ```

mod bpe;
mod charsmap;
mod normalizer;
mod unigram;

use crate::sentencepiece::{ModelProto, ModelType, Type};

use self::bpe::Bpe;
use self::normalizer::Normalizer;
use self::unigram::{Kind, Unigram};
use super::hash::FastMap;
use super::pieces::byte_of;
use super::trie::Trie;
use super::words::{Cut, words};
use super::{TokenizerError, check_length, unusable};

/// The encoder of a SentencePiece model.
#[derive(Debug)]
pub(super) struct SentencePiece {
    normalizer: Normalizer,
    cut: Cut,
    segmenter: Segmenter,
    unknown: u32,
    /// The pieces of the 256 bytes, if unknown characters become bytes.
    bytes: Option<Box<[u32; 256]>>,
}

#[derive(Debug)]
enum Segmenter {
    Bpe(Bpe),
    Unigram(Unigram),
}

impl SentencePiece {
    pub fn new(model: &ModelProto) -> Result<Self, TokenizerError> {
        let default = Default::default();
        let trainer = model.trainer_spec.as_ref().unwrap_or(&default);
        check_pieces(model)?;
        if model.denormalizer_spec.as_ref().is_some_and(|spec| !spec.precompiled_charsmap().is_empty()) {
            return Err(unusable("it has rules for rewriting what it decodes, which are not supported"));
        }
        let unknown = model.pieces.iter().position(|piece| piece.r#type() == Type::Unknown);
        let unknown = unknown.ok_or_else(|| unusable("it has no piece for the unknown"))? as u32;
        let user_defined = || {
            let pieces = model.pieces.iter().zip(0..).filter(|(piece, _)| piece.r#type() == Type::UserDefined);
            let mut keys = pieces.map(|(piece, id)| (piece.piece().as_bytes(), id)).peekable();
            keys.peek().is_some().then(|| Trie::new(keys))
        };
        let segmenter = match trainer.model_type() {
            ModelType::Bpe => Segmenter::Bpe(Bpe::new(model, user_defined())?),
            ModelType::Unigram => Segmenter::Unigram(Unigram::new(
                model.pieces.iter().map(|piece| (piece.piece(), piece.score(), kind(piece.r#type()))),
            )),
            other => {
                return Err(unusable(format_args!(
                    "its model is of type {other:?}; only BPE and unigram are supported"
                )));
            }
        };
        let in_texts = model.pieces.iter().filter(|piece| kind(piece.r#type()) != Kind::Other);
        Ok(Self {
            normalizer: Normalizer::new(model, user_defined())?,
            cut: Cut::between(in_texts.map(|piece| piece.piece())),
            segmenter,
            unknown,
            bytes: bytes_of(model, trainer.byte_fallback())?,
        })
    }

    pub fn encode(&self, text: &str) -> Vec<u32> {
        let text = self.normalizer.normalize(text);
        let mut out = Output { encoder: self, ids: Vec::with_capacity(text.len() / 3), behind_unknown: false };
        match &self.segmenter {
            Segmenter::Bpe(bpe) => {
                let mut symbols = Vec::new();
                words(&text, self.cut).for_each(|word| bpe.encode(word, &mut symbols, &mut out));
            }
            Segmenter::Unigram(unigram) => {
                let mut total = 0.0;
                for mut word in words(&text, self.cut) {
                    unigram.encode(word, &mut total, |length, id| {
                        let (piece, rest) = word.split_at(length);
                        out.put(piece, id);
                        word = rest;
                    });
                }
            }
        }
        out.ids
    }
}

/// Where ids go.
struct Output<'e> {
    encoder: &'e SentencePiece,
    ids: Vec<u32>,
    behind_unknown: bool,
}

impl Output<'_> {
    /// Puts the piece `id`, or what stands for the unknown `text`: its bytes, or one piece for a run of unknown characters.
    fn put(&mut self, text: &str, id: Option<u32>) {
        match (id, &self.encoder.bytes) {
            (Some(id), _) => self.ids.push(id),
            (None, Some(bytes)) => self.ids.extend(text.bytes().map(|byte| bytes[byte as usize])),
            (None, None) if self.behind_unknown => (),
            (None, None) => self.ids.push(self.encoder.unknown),
        }
        self.behind_unknown = id.is_none();
    }
}

fn kind(kind: Type) -> Kind {
    match kind {
        Type::Normal => Kind::Normal,
        Type::UserDefined => Kind::UserDefined,
        Type::Unused => Kind::Unused,
        Type::Unknown | Type::Control | Type::Byte => Kind::Other,
    }
}

/// Checks what SentencePiece checks, and what would take for ever.
fn check_pieces(model: &ModelProto) -> Result<(), TokenizerError> {
    let mut texts = FastMap::default();
    let mut unknown = 0;
    for piece in &model.pieces {
        let (text, kind) = (piece.piece(), piece.r#type());
        if text.is_empty() {
            return Err(unusable("one of its pieces has no text"));
        }
        check_length(text)?;
        if texts.insert(text, kind).is_some() {
            return Err(unusable(format_args!("the piece {text:?} is there twice")));
        }
        if !piece.score().is_finite() {
            return Err(unusable(format_args!("the piece {text:?} has the score {}", piece.score())));
        }
        unknown += usize::from(kind == Type::Unknown);
    }
    if unknown > 1 {
        return Err(unusable("it has several pieces for the unknown"));
    }
    if !model.pieces.iter().any(|piece| matches!(piece.r#type(), Type::Normal | Type::Byte | Type::UserDefined)) {
        return Err(unusable("none of its pieces can be a part of a text"));
    }
    Ok(())
}

/// The pieces of the bytes, which are all there or none.
fn bytes_of(model: &ModelProto, fallback: bool) -> Result<Option<Box<[u32; 256]>>, TokenizerError> {
    let mut bytes = Box::new([None; 256]);
    for (piece, id) in model.pieces.iter().zip(0..).filter(|(piece, _)| piece.r#type() == Type::Byte) {
        let text = piece.piece();
        let byte = byte_of(text)
            .ok_or_else(|| unusable(format_args!("the piece {text:?} ought to be a byte, such as <0x0A>")))?;
        if !fallback {
            return Err(unusable(format_args!("it has the byte {text}, but does not fall back to bytes")));
        }
        bytes[byte as usize] = Some(id);
    }
    if !fallback {
        return Ok(None);
    }
    if let Some(byte) = bytes.iter().position(Option::is_none) {
        return Err(unusable(format_args!("it falls back to bytes, but has no piece <0x{byte:02X}>")));
    }
    Ok(Some(Box::new(bytes.map(Option::unwrap_or_default))))
}
