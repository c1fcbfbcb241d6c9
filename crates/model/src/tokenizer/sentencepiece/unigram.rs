//! The unigram model of SentencePiece: of all ways to cut a text into pieces the one with the highest sum of scores.

use super::super::trie::Trie;

/// How much lower than the worst piece an unknown character scores.
const UNKNOWN_PENALTY: f32 = 10.0;

#[derive(Debug)]
pub(super) struct Unigram {
    trie: Trie,
    /// What each piece adds; `None` if it is never taken.
    scores: Vec<Option<f32>>,
    unknown_score: f32,
}

/// What a piece is, as far as its score goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Normal,
    UserDefined,
    Unused,
    /// Never a part of a text.
    Other,
}

/// The best way to a place in the text.
#[derive(Debug, Clone, Copy)]
struct Best {
    score: f32,
    /// Where its last piece begins.
    start: usize,
    /// The last piece; `None` for an unknown character.
    id: Option<u32>,
}

impl Unigram {
    /// Of text, score and kind of each piece.
    pub fn new<'p>(pieces: impl Iterator<Item = (&'p str, f32, Kind)> + Clone) -> Self {
        let normal = pieces.clone().filter(|&(.., kind)| kind == Kind::Normal).map(|(_, score, _)| score);
        let (least, most) = normal.fold((f32::MAX, f32::MIN_POSITIVE), |(a, b), score| (a.min(score), b.max(score)));
        let scores = pieces.clone().map(|(text, score, kind)| match kind {
            Kind::Normal => Some(score),
            // Better than whatever lies within, so that the piece is always taken.
            Kind::UserDefined => Some((f64::from(text.len() as f32 * most) - 0.1) as f32),
            Kind::Unused | Kind::Other => None,
        });
        let in_texts = pieces.clone().zip(0..).filter(|((.., kind), _)| *kind != Kind::Other);
        Self {
            scores: scores.collect(),
            trie: Trie::new(in_texts.map(|((text, ..), id)| (text.as_bytes(), id))),
            unknown_score: least - UNKNOWN_PENALTY,
        }
    }

    /// Hands the pieces of `text` to `put`: length in bytes and id, `None` for an unknown character. `total` is the score of what
    /// stands before `text`, and grows by it: sums that are rounded differ with where they begin.
    pub fn encode(&self, text: &str, total: &mut f32, mut put: impl FnMut(usize, Option<u32>)) {
        let mut best: Vec<Option<Best>> = vec![None; text.len() + 1];
        for (start, character) in text.char_indices() {
            let before = best[start].map_or(*total, |best| best.score);
            let mut is_known = false;
            for (length, id) in self.trie.prefixes(&text.as_bytes()[start..]) {
                let Some(score) = self.scores[id as usize] else { continue };
                let score = score + before;
                let place = &mut best[start + length];
                if place.is_none_or(|best| score > best.score) {
                    *place = Some(Best { score, start, id: Some(id) });
                }
                is_known |= length == character.len_utf8();
            }
            if !is_known {
                let place = &mut best[start + character.len_utf8()];
                let score = self.unknown_score + before;
                if place.is_none_or(|best| score > best.score) {
                    *place = Some(Best { score, start, id: None });
                }
            }
        }
        let mut path = Vec::new();
        let mut end = text.len();
        while let Some(last) = best[end] {
            path.push((end - last.start, last.id));
            end = last.start;
        }
        *total = best[text.len()].map_or(*total, |best| best.score);
        path.into_iter().rev().for_each(|(length, id)| put(length, id));
    }
}
