//! Where a text can be cut without a piece reaching across: long texts are encoded word by word.

use super::SPACE_CHARACTER as SPACE;

/// The places at which every text can be cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Cut {
    /// Before a space that follows something else: pieces have spaces at their beginnings alone.
    BeforeSpaces,
    /// Behind a space that something else follows: pieces have spaces at their ends alone.
    BehindSpaces,
    /// Nowhere.
    Nowhere,
}

impl Cut {
    /// What can be done with such pieces.
    pub fn between<'p>(pieces: impl Iterator<Item = &'p str>) -> Self {
        let (mut before, mut behind) = (true, true);
        for piece in pieces {
            for (at, _) in piece.match_indices(SPACE) {
                let (left, right) = (&piece[..at], &piece[at + SPACE.len_utf8()..]);
                before &= left.is_empty() || left.ends_with(SPACE);
                behind &= right.is_empty() || right.starts_with(SPACE);
            }
        }
        match (before, behind) {
            (true, _) => Cut::BeforeSpaces,
            (false, true) => Cut::BehindSpaces,
            (false, false) => Cut::Nowhere,
        }
    }
}

/// More than this is cut at the next character, though a piece might reach across: lengths are kept in 32 bits.
const MAX_BYTES: usize = 1 << 31;

/// The parts of `text` between its cuts.
pub(super) fn words(text: &str, cut: Cut) -> impl Iterator<Item = &str> {
    let mut rest = text;
    std::iter::from_fn(move || {
        let end = end_of_word(rest, cut).unwrap_or(rest.len());
        let end = if end > MAX_BYTES { rest.floor_char_boundary(MAX_BYTES) } else { end };
        let (word, behind) = rest.split_at(end);
        rest = behind;
        (!word.is_empty()).then_some(word)
    })
}

fn end_of_word(text: &str, cut: Cut) -> Option<usize> {
    let spaces = text.len() - text.trim_start_matches(SPACE).len();
    match cut {
        Cut::BeforeSpaces => text[spaces..].find(SPACE).map(|at| spaces + at),
        Cut::BehindSpaces => {
            let at = text.find(SPACE)?;
            let behind = text[at..].trim_start_matches(SPACE);
            Some(text.len() - behind.len())
        }
        Cut::Nowhere => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_end_where_no_piece_reaches_across() {
        let cut = |pieces: &[&'static str]| Cut::between(pieces.iter().copied());
        let parts = |text, cut| words(text, cut).collect::<Vec<_>>();
        assert_eq!(parts("▁a▁▁b", cut(&["▁a", "▁▁", "b"])), ["▁a", "▁▁b"]);
        assert_eq!(parts("a▁▁b▁", cut(&["a▁", "▁▁"])), ["a▁▁", "b▁"]);
        assert_eq!(parts("▁a▁b", cut(&["▁a▁b"])), ["▁a▁b"]);
        assert_eq!(parts("", Cut::BeforeSpaces), [""; 0]);
    }
}
