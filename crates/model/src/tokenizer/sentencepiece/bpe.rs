//! SentencePiece's byte-pair encoding: two neighbours join if their text is a piece, that of the highest score first.

use crate::sentencepiece::{ModelProto, SentencePiece, Type};

use super::super::hash::FastMap;
use super::super::merges::{Merge, Merges, Symbol};
use super::super::trie::Trie;
use super::{Output, TokenizerError, unusable};

#[derive(Debug)]
pub(super) struct Bpe {
    merges: Merges,
    characters: FastMap<char, u32>,
    ascii: Box<[u32; 128]>,
    user_defined: Option<Trie>,
    /// What pieces that must not be used were joined from, and how long the left part is.
    unused: FastMap<u32, (Symbol, u32)>,
    /// Number of pieces. Symbols from here on are characters that are in pieces, but are none.
    count: u32,
    /// Ids of the texts of pieces.
    pieces: FastMap<Box<str>, u32>,
    /// Of each piece whether a word of its text becomes this piece.
    is_whole: Vec<bool>,
}

/// The symbol of a character that is in no piece: it joins nothing.
const FOREIGN: u32 = FROZEN - 1;
/// Set in the id of a user-defined piece while pieces are joined, so that it joins nothing.
const FROZEN: u32 = 1 << 31;

impl Bpe {
    pub fn new(model: &ModelProto, user_defined: Option<Trie>) -> Result<Self, TokenizerError> {
        let mut control = model.pieces.iter().filter(|piece| piece.r#type() == Type::Control);
        if let Some(piece) = control.find(|piece| piece.piece().chars().nth(1).is_none()) {
            return Err(unusable(format_args!("the control piece {:?} would be found in texts", piece.piece())));
        }
        let joinable = |(piece, _): &(&SentencePiece, u32)| matches!(piece.r#type(), Type::Normal | Type::Unused);
        let pieces = || model.pieces.iter().zip(0..).filter(joinable);
        let mut bpe = Self {
            merges: Merges::default(),
            characters: FastMap::default(),
            ascii: Box::new([FOREIGN; 128]),
            user_defined,
            unused: FastMap::default(),
            count: model.pieces.len() as u32,
            pieces: pieces().map(|(piece, id)| (piece.piece().into(), id)).collect(),
            is_whole: Vec::new(),
        };
        bpe.number_characters(pieces().map(|(piece, _)| piece.piece()));
        let ranks = ranks(pieces().map(|(piece, _)| piece.score()));
        for (piece, id) in pieces() {
            bpe.add_merges(piece, Merge { rank: ranks[&piece.score().to_bits()], id })?;
        }
        let mut parts = Vec::new();
        let is_whole = model.pieces.iter().zip(0..).map(|(piece, id)| {
            bpe.join(piece.piece(), &mut parts);
            piece.r#type() == Type::Normal && parts.len() == 1 && parts[0].id == id
        });
        bpe.is_whole = is_whole.collect();
        Ok(bpe)
    }

    /// Gives each character of the pieces its symbol.
    fn number_characters<'p>(&mut self, pieces: impl Iterator<Item = &'p str>) {
        let mut next = self.count;
        for character in pieces.flat_map(str::chars) {
            if self.symbol_of(character) != FOREIGN {
                continue;
            }
            let piece = self.pieces.get(character.encode_utf8(&mut [0; 4]) as &str);
            let symbol = piece.copied().unwrap_or(next);
            next += u32::from(piece.is_none());
            match self.ascii.get_mut(character as usize) {
                Some(place) => *place = symbol,
                None => drop(self.characters.insert(character, symbol)),
            }
        }
    }

    fn symbol_of(&self, character: char) -> u32 {
        match self.ascii.get(character as usize) {
            Some(&symbol) => symbol,
            None => self.characters.get(&character).copied().unwrap_or(FOREIGN),
        }
    }

    /// Adds all ways in which `piece` can come of two others.
    fn add_merges(&mut self, piece: &SentencePiece, merge: Merge) -> Result<(), TokenizerError> {
        let text = piece.piece();
        let (mut first, last) = (text.chars(), text.char_indices().next_back());
        let (Some(first), Some((last, last_character))) = (first.next(), last) else { return Ok(()) };
        for (i, _) in text.char_indices().skip(1) {
            let (left, right) = text.split_at(i);
            let symbol = |bpe: &Self, text: &str| bpe.pieces.get(text).copied();
            let left_id = if i == first.len_utf8() { Some(self.symbol_of(first)) } else { symbol(self, left) };
            let Some(left_id) = left_id else { continue };
            let right_id = if i == last { Some(self.symbol_of(last_character)) } else { symbol(self, right) };
            let Some(right_id) = right_id else { continue };
            self.merges.insert((left_id, right_id), merge);
            let left = Symbol { id: left_id, length: left.len() as u32 };
            // SentencePiece takes it apart as it was last put together, anywhere in the text.
            if piece.r#type() == Type::Unused && self.unused.insert(merge.id, (left, right_id)).is_some() {
                return Err(unusable(format_args!(
                    "the unused piece {text:?} can be put together in more than one way"
                )));
            }
        }
        Ok(())
    }

    /// Puts the pieces of `word` to `out`.
    pub fn encode(&self, word: &str, symbols: &mut Vec<Symbol>, out: &mut Output<'_>) {
        if let Some(&id) = self.pieces.get(word).filter(|&&id| self.is_whole[id as usize]) {
            return out.put(word, Some(id));
        }
        self.join(word, symbols);
        let mut rest = word;
        // Taken from behind, as pieces that must not be used are put back in parts.
        symbols.reverse();
        while let Some(symbol) = symbols.pop() {
            if let Some(&(left, right)) = self.unused.get(&symbol.id) {
                symbols.extend([Symbol { id: right, length: symbol.length - left.length }, left]);
                continue;
            }
            let (text, behind) = rest.split_at(symbol.length as usize);
            out.put(text, Some(symbol.id & !FROZEN).filter(|&id| id < self.count));
            rest = behind;
        }
    }

    /// The symbols that `word` becomes.
    fn join(&self, word: &str, symbols: &mut Vec<Symbol>) {
        symbols.clear();
        let mut rest = word;
        while let Some(character) = rest.chars().next() {
            let user_defined = self.user_defined.as_ref().and_then(|pieces| pieces.longest(rest.as_bytes()));
            let (length, id) = match user_defined {
                Some((length, id)) => (length, id | FROZEN),
                None => (character.len_utf8(), self.symbol_of(character)),
            };
            symbols.push(Symbol { id, length: length as u32 });
            rest = &rest[length..];
        }
        self.merges.apply(symbols);
    }
}

/// The place of each score, the highest first; equal ones share theirs.
fn ranks(scores: impl Iterator<Item = f32>) -> FastMap<u32, u32> {
    // Two zeros are equal, whatever their signs.
    let mut scores: Vec<f32> = scores.collect();
    scores.sort_by(|a, b| b.total_cmp(a));
    let (mut ranks, mut rank, mut last) = (FastMap::default(), 0, None);
    for score in scores {
        rank += u32::from(last.is_some_and(|last| last != score));
        last = Some(score);
        ranks.insert(score.to_bits(), rank);
    }
    ranks
}
