//! The messages of SentencePiece's `.model` files, as far as they say how to encode and decode; the rest of a file is passed over.
//!
//! Field numbers and defaults are those of `sentencepiece_model.proto`.

use prost::{Enumeration, Message};

/// A whole file.
#[derive(Clone, PartialEq, Message)]
pub struct ModelProto {
    /// The vocabulary; a piece's place is its id.
    #[prost(message, repeated, tag = "1")]
    pub pieces: Vec<SentencePiece>,
    /// How it was learnt, and with it how it encodes.
    #[prost(message, optional, tag = "2")]
    pub trainer_spec: Option<TrainerSpec>,
    /// What is done to a text before it is encoded.
    #[prost(message, optional, tag = "3")]
    pub normalizer_spec: Option<NormalizerSpec>,
    /// What is done to a text after it is decoded.
    #[prost(message, optional, tag = "5")]
    pub denormalizer_spec: Option<NormalizerSpec>,
}

/// A piece of the vocabulary.
#[derive(Clone, PartialEq, Message)]
pub struct SentencePiece {
    /// Its text, with `▁` for a space.
    #[prost(string, optional, tag = "1")]
    pub piece: Option<String>,
    /// The higher, the sooner it is taken.
    #[prost(float, optional, tag = "2")]
    pub score: Option<f32>,
    /// What it is.
    #[prost(enumeration = "Type", optional, tag = "3", default = "Normal")]
    pub r#type: Option<i32>,
}

/// What a piece is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Enumeration)]
#[repr(i32)]
pub enum Type {
    /// A text.
    Normal = 1,
    /// What stands for the unknown.
    Unknown = 2,
    /// No text, such as the beginning of one.
    Control = 3,
    /// A text that is never cut.
    UserDefined = 4,
    /// A text that is never taken.
    Unused = 5,
    /// A byte of a character that has no piece.
    Byte = 6,
}

/// How a vocabulary was learnt.
#[derive(Clone, PartialEq, Message)]
pub struct TrainerSpec {
    /// How a text is cut into pieces.
    #[prost(enumeration = "ModelType", optional, tag = "3", default = "Unigram")]
    pub model_type: Option<i32>,
    /// Number of pieces.
    #[prost(int32, optional, tag = "4", default = "8000")]
    pub vocab_size: Option<i32>,
    /// Whether the space sign stands behind a word.
    #[prost(bool, optional, tag = "24", default = "false")]
    pub treat_whitespace_as_suffix: Option<bool>,
    /// Whether digits are pieces of their own.
    #[prost(bool, optional, tag = "25", default = "false")]
    pub split_digits: Option<bool>,
    /// Whether characters without a piece become bytes.
    #[prost(bool, optional, tag = "35", default = "false")]
    pub byte_fallback: Option<bool>,
    /// The piece for the unknown.
    #[prost(int32, optional, tag = "40", default = "0")]
    pub unk_id: Option<i32>,
    /// The piece that begins a text; negative if there is none.
    #[prost(int32, optional, tag = "41", default = "1")]
    pub bos_id: Option<i32>,
    /// The piece that ends a text; negative if there is none.
    #[prost(int32, optional, tag = "42", default = "2")]
    pub eos_id: Option<i32>,
    /// The piece that fills up; negative if there is none.
    #[prost(int32, optional, tag = "43", default = "-1")]
    pub pad_id: Option<i32>,
    /// What the unknown is decoded to.
    #[prost(string, optional, tag = "44", default = " \u{2047} ")]
    pub unk_surface: Option<String>,
}

/// How a text is cut into pieces.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Enumeration)]
#[repr(i32)]
pub enum ModelType {
    /// The best sum of scores.
    Unigram = 1,
    /// Byte-pair encoding.
    Bpe = 2,
    /// Into words.
    Word = 3,
    /// Into characters.
    Char = 4,
}

/// What is done to a text.
#[derive(Clone, PartialEq, Message)]
pub struct NormalizerSpec {
    /// Name of the rules.
    #[prost(string, optional, tag = "1")]
    pub name: Option<String>,
    /// The rules: size of a double-array trie, the trie, the texts that it points to.
    #[prost(bytes = "vec", optional, tag = "2")]
    pub precompiled_charsmap: Option<Vec<u8>>,
    /// Whether a space is put before the text, or behind it.
    #[prost(bool, optional, tag = "3", default = "true")]
    pub add_dummy_prefix: Option<bool>,
    /// Whether spaces at both ends, and all but one of several, are taken away.
    #[prost(bool, optional, tag = "4", default = "true")]
    pub remove_extra_whitespaces: Option<bool>,
    /// Whether spaces become `▁`.
    #[prost(bool, optional, tag = "5", default = "true")]
    pub escape_whitespaces: Option<bool>,
}
