//! Byte-pair encoding by a list of merges, as in a `tokenizer.json`.

use std::collections::HashMap;

use serde_json::{Map, Value};

use super::super::byte_level;
use super::super::hash::FastMap;
use super::super::merges::{Merge, Merges, Symbol};
use super::super::pieces::byte_of;
use super::super::words::{Cut, words};
use super::{TokenizerError, unusable};

#[derive(Debug)]
pub(super) struct Bpe {
    merges: Merges,
    start: Start,
    /// Words, byte by byte, that become one piece as a whole.
    words: FastMap<Box<[u8]>, u32>,
    cut: Cut,
}

/// What a word is before pairs are joined.
#[derive(Debug)]
enum Start {
    /// Its bytes; one without a piece is left out, and its neighbours meet.
    Bytes(Box<[Option<u32>; 256]>),
    /// Its characters; one without a piece becomes its bytes or what stands for the unknown.
    Characters {
        pieces: FastMap<char, u32>,
        bytes: Option<Box<[Option<u32>; 256]>>,
        unknown: Option<u32>,
        /// Whether a run of unknown characters is one.
        fuse: bool,
    },
}

impl Bpe {
    /// Of a model of the type BPE.
    pub fn new(
        model: &Map<String, Value>,
        vocab: &HashMap<&str, u32>,
        byte_level: bool,
    ) -> Result<Self, TokenizerError> {
        let characters = byte_level::characters();
        let is = |key: &str| model.get(key) == Some(&Value::Bool(true));
        let start = if byte_level {
            bytes(model, vocab, &characters)?
        } else {
            start(model, vocab, is("byte_fallback"), is("fuse_unk"))?
        };
        let (merges, joined) = merges(model.get("merges"), vocab, &start)?;
        let key = |text: &str| {
            if byte_level { byte_level::bytes_of(text, &characters) } else { Some(text.as_bytes().to_vec()) }
        };
        let cut = match &start {
            // A run of unknown characters goes on behind a space that is one of them.
            Start::Characters { pieces, .. } if pieces.contains_key(&'▁') && !is("ignore_merges") => {
                Cut::between(joined.iter().map(String::as_str))
            }
            _ => Cut::Nowhere,
        };
        let mut bpe = Self { merges, start, words: FastMap::default(), cut };
        let mut symbols = Vec::new();
        bpe.words = vocab.iter().filter_map(|(text, &id)| Some((key(text)?.into_boxed_slice(), id))).collect();
        if !is("ignore_merges") {
            let mut words = std::mem::take(&mut bpe.words);
            words.retain(|text, id| match std::str::from_utf8(text) {
                Ok(text) => {
                    bpe.join(text, &mut symbols);
                    matches!(&symbols[..], [symbol] if symbol.id == *id)
                }
                // No word of a text.
                Err(_) => false,
            });
            bpe.words = words;
        }
        Ok(bpe)
    }

    /// Puts the ids of `word` to `ids`.
    pub fn encode(&self, word: &str, symbols: &mut Vec<Symbol>, ids: &mut Vec<u32>) {
        for word in words(word, self.cut) {
            if let Some(&id) = self.words.get(word.as_bytes()) {
                ids.push(id);
                continue;
            }
            self.join(word, symbols);
            ids.extend(symbols.iter().map(|symbol| symbol.id));
        }
    }

    /// The symbols that `word` becomes.
    fn join(&self, word: &str, symbols: &mut Vec<Symbol>) {
        symbols.clear();
        match &self.start {
            Start::Bytes(pieces) => {
                let known = word.bytes().filter_map(|byte| pieces[byte as usize]);
                symbols.extend(known.map(|id| Symbol { id, length: 1 }));
            }
            Start::Characters { pieces, bytes, unknown, fuse } => {
                // The unknown waits for the next piece: bytes that follow go before it.
                let mut waiting: Option<Symbol> = None;
                for character in word.chars() {
                    let length = character.len_utf8() as u32;
                    if let Some(&id) = pieces.get(&character) {
                        symbols.extend(waiting.take());
                        symbols.push(Symbol { id, length });
                    } else if let Some(bytes) = bytes.as_ref().and_then(|bytes| bytes_of(character, bytes)) {
                        symbols.extend(bytes.map(|id| Symbol { id, length: 1 }));
                    } else if let Some(id) = *unknown {
                        match &mut waiting {
                            Some(waiting) if *fuse => waiting.length += length,
                            _ => symbols.extend(waiting.replace(Symbol { id, length })),
                        }
                    }
                }
                symbols.extend(waiting);
            }
        }
        self.merges.apply(symbols);
    }
}

/// The pieces of the bytes of `character`, if all of them have one.
fn bytes_of(character: char, pieces: &[Option<u32>; 256]) -> Option<impl Iterator<Item = u32>> {
    let mut bytes = [0; 4];
    let length = character.encode_utf8(&mut bytes).len();
    let found = bytes.map(|byte| pieces[byte as usize]);
    found[..length].iter().all(Option::is_some).then(|| found.into_iter().take(length).flatten())
}

fn bytes(
    model: &Map<String, Value>,
    vocab: &HashMap<&str, u32>,
    characters: &[char; 256],
) -> Result<Start, TokenizerError> {
    let mut pieces = Box::new([None; 256]);
    for (byte, character) in characters.iter().enumerate() {
        pieces[byte] = vocab.get(character.encode_utf8(&mut [0; 4]) as &str).copied();
        if pieces[byte].is_none() && model.get("unk_token").is_some_and(|token| !token.is_null()) {
            return Err(unusable(format_args!(
                "it has no piece {character:?} for the byte 0x{byte:02X}, but a token for the unknown, which is not supported"
            )));
        }
    }
    if pieces.iter().all(Option::is_none) {
        return Err(unusable("it has no piece for any byte"));
    }
    Ok(Start::Bytes(pieces))
}

fn start(
    model: &Map<String, Value>,
    vocab: &HashMap<&str, u32>,
    byte_fallback: bool,
    fuse: bool,
) -> Result<Start, TokenizerError> {
    let single = vocab.iter().filter_map(|(text, &id)| {
        let mut characters = text.chars();
        Some((characters.next()?, id)).filter(|_| characters.next().is_none())
    });
    let bytes = byte_fallback.then(|| {
        let mut bytes = Box::new([None; 256]);
        for (text, &id) in vocab {
            if let Some(byte) = byte_of(text) {
                bytes[byte as usize] = Some(id);
            }
        }
        bytes
    });
    let named = model.get("unk_token").and_then(Value::as_str);
    let unknown = named.and_then(|name| vocab.get(name).copied());
    if let (Some(name), None) = (named, unknown) {
        return Err(unusable(format_args!("its unknown token {name:?} is no piece")));
    }
    let has_all = bytes.as_ref().is_some_and(|bytes| bytes.iter().all(Option::is_some));
    if unknown.is_none() && !has_all {
        return Err(unusable("it has neither a piece for each byte nor one for the unknown: characters would be lost"));
    }
    Ok(Start::Characters { pieces: single.collect(), bytes, unknown, fuse })
}

/// The list of merges, and what comes of them.
fn merges(
    list: Option<&Value>,
    vocab: &HashMap<&str, u32>,
    start: &Start,
) -> Result<(Merges, Vec<String>), TokenizerError> {
    let list = list.and_then(Value::as_array).ok_or_else(|| unusable("its model has no list of merges"))?;
    let (mut merges, mut joined) = (Merges::default(), Vec::new());
    for (entry, rank) in list.iter().zip(0..) {
        let wrong = |what: &str| unusable(format_args!("the merge {entry} {what}"));
        let (left, right) = pair(entry).ok_or_else(|| wrong("does not name two pieces"))?;
        let text = format!("{left}{right}");
        let id = |text: &str| vocab.get(text).copied();
        let (Some(left_id), Some(right_id), Some(id)) = (id(left), id(right), id(&text)) else {
            return Err(wrong("joins or makes a piece that is not in the vocabulary"));
        };
        if let Start::Characters { bytes, unknown, .. } = start {
            let is_byte = |text: &str| bytes.is_some() && byte_of(text).is_some();
            let is_unknown = |id| *unknown == Some(id);
            if is_byte(left) || is_byte(right) || is_unknown(left_id) || is_unknown(right_id) {
                return Err(wrong("joins what stands for no text of its own"));
            }
        }
        merges.insert((left_id, right_id), Merge { rank, id });
        joined.push(text);
    }
    Ok((merges, joined))
}

/// `"a b"` or `["a", "b"]`.
fn pair(entry: &Value) -> Option<(&str, &str)> {
    match entry {
        Value::String(text) => text.split_once(' ').filter(|(_, right)| !right.contains(' ')),
        Value::Array(parts) => match &parts[..] {
            [left, right] => Some((left.as_str()?, right.as_str()?)),
            _ => None,
        },
        _ => None,
    }
}
