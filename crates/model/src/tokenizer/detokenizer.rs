//! Decoding id by id, without ever showing half a character.

use super::SPACE;
use super::pieces::{LeadingSpace, Piece, Vocabulary};

/// Turns a stream of ids into text; made by [`super::Tokenizer::detokenizer`].
#[derive(Debug, Clone)]
pub struct Detokenizer<'t> {
    vocabulary: &'t Vocabulary,
    /// Bytes of a character that is not complete yet.
    pending: Vec<u8>,
    /// Whether a space at this place is one that encoding put before the text.
    at_start: bool,
}

impl<'t> Detokenizer<'t> {
    pub(super) fn new(vocabulary: &'t Vocabulary) -> Self {
        let at_start = vocabulary.leading_space != LeadingSpace::Stays;
        Self { vocabulary, pending: Vec::new(), at_start }
    }

    /// The text that `id` completes, possibly none.
    pub fn push(&mut self, id: u32) -> String {
        let vocabulary = self.vocabulary;
        match vocabulary.pieces.get(id as usize) {
            Some(Piece::Byte(byte)) => {
                self.at_start = false;
                self.pending.push(*byte);
                self.complete()
            }
            Some(Piece::Bytes(bytes)) => {
                self.at_start = false;
                self.pending.extend(bytes);
                self.complete()
            }
            Some(Piece::Text(text)) => {
                let mut out = self.finish();
                let stripped = text.strip_prefix(SPACE).filter(|_| self.at_start);
                let text = stripped.unwrap_or(text);
                let another_may_go = vocabulary.leading_space == LeadingSpace::AllGo || stripped.is_none();
                self.at_start &= text.is_empty() && another_may_go;
                out.push_str(&text.replace(SPACE, " "));
                out
            }
            Some(Piece::Unknown(surface)) => {
                let mut out = self.finish();
                self.at_start &= surface.is_empty();
                out.push_str(surface);
                out
            }
            // A control token ends a row of bytes, like any other piece; but where all are bytes it is as if it were not there.
            Some(Piece::Control) if !vocabulary.byte_level => self.finish(),
            Some(Piece::Control) | None => String::new(),
        }
    }

    /// What is left at the end: bytes that never became a character, as U+FFFD.
    pub fn finish(&mut self) -> String {
        let out = self.replace_invalid(&self.pending);
        self.pending.clear();
        out
    }

    /// Takes the characters that are complete out of `pending`.
    fn complete(&mut self) -> String {
        let tail = self.pending.utf8_chunks().last().map_or(0, |chunk| chunk.invalid().len());
        let may_grow = may_become_character(&self.pending[self.pending.len() - tail..]);
        let complete = self.pending.len() - if may_grow { tail } else { 0 };
        let out = self.replace_invalid(&self.pending[..complete]);
        self.pending.drain(..complete);
        out
    }

    /// One U+FFFD for each byte that belongs to no character, as SentencePiece has it; where all pieces are bytes, one for each
    /// row of them that begins like a character.
    fn replace_invalid(&self, bytes: &[u8]) -> String {
        let mut out = String::new();
        for chunk in bytes.utf8_chunks() {
            out.push_str(chunk.valid());
            let count = if self.vocabulary.byte_level { chunk.invalid().len().min(1) } else { chunk.invalid().len() };
            out.extend(std::iter::repeat_n(char::REPLACEMENT_CHARACTER, count));
        }
        out
    }
}

/// Whether more bytes could make a character of these.
fn may_become_character(bytes: &[u8]) -> bool {
    std::str::from_utf8(bytes).is_err_and(|e| e.error_len().is_none())
}
