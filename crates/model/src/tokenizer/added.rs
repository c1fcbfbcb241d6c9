//! Tokens that are found in a text before anything else: those that were added to a vocabulary, and control tokens.

use serde_json::Value;
use unicode_properties::{GeneralCategory, GeneralCategoryGroup, UnicodeGeneralCategory};

use super::trie::Trie;

/// The added tokens of one kind.
#[derive(Debug)]
pub(super) struct AddedTokens {
    tokens: Vec<AddedToken>,
    trie: Trie,
    /// Whether all of them are special.
    are_special: bool,
}

#[derive(Debug, Clone)]
pub(super) struct AddedToken {
    /// As it is looked for.
    pub text: String,
    pub id: u32,
    single_word: bool,
    /// Spaces on this side belong to it.
    lstrip: bool,
    rstrip: bool,
    /// Looked for in the text as it is after normalising.
    pub normalized: bool,
    /// What is said of the text, like its end; its spelling is text like any other.
    pub special: bool,
}

impl AddedToken {
    /// A control token of a SentencePiece model.
    pub fn control(text: &str, id: u32) -> Self {
        let (text, special) = (text.to_owned(), true);
        Self { text, id, single_word: false, lstrip: false, rstrip: false, normalized: false, special }
    }

    /// Of an entry of `added_tokens`.
    pub fn new(json: &Value, text: &str, id: u32) -> Self {
        let is = |key: &str| json[key] == true;
        Self {
            text: text.to_owned(),
            id,
            single_word: is("single_word"),
            lstrip: is("lstrip"),
            rstrip: is("rstrip"),
            normalized: is("normalized"),
            special: is("special"),
        }
    }
}

impl AddedTokens {
    /// `None` without any.
    pub fn new(tokens: Vec<AddedToken>) -> Option<Self> {
        let trie = Trie::new(tokens.iter().zip(0..).map(|(token, place)| (token.text.as_bytes(), place)));
        let are_special = tokens.iter().all(|token| token.special);
        (!tokens.is_empty()).then_some(Self { tokens, trie, are_special })
    }

    /// Hands over the parts of `text`: what is between tokens, with whether it is where the text begins, and the ids of tokens.
    /// Special tokens are taken if `special`; otherwise they are text, but hide what is spelt within them.
    pub fn split(&self, text: &str, special: bool, mut put: impl FnMut(Part<'_>)) {
        if self.are_special && !special {
            return put(Part::Text { text, is_first: true });
        }
        let (mut at, mut done) = (0, 0);
        while let Some(first) = text[at..].chars().next() {
            let found = self.trie.longest(&text.as_bytes()[at..]);
            let Some((length, place)) = found else {
                at += first.len_utf8();
                continue;
            };
            let (start, end) = (at, at + length);
            at = end;
            let token = &self.tokens[place as usize];
            let is_word = |c: Option<char>| c.is_some_and(is_word_character);
            let in_word = is_word(text[..start].chars().next_back()) || is_word(text[end..].chars().next());
            if token.special && !special || token.single_word && in_word {
                continue;
            }
            let start = if token.lstrip { text[..start].trim_end().len().max(done) } else { start };
            let end = if token.rstrip { text.len() - text[end..].trim_start().len() } else { end };
            if done < start {
                put(Part::Text { text: &text[done..start], is_first: done == 0 });
            }
            put(Part::Token(token.id));
            done = end;
        }
        if done < text.len() {
            put(Part::Text { text: &text[done..], is_first: done == 0 });
        }
    }
}

/// A part of a text in which tokens were looked for.
pub(super) enum Part<'t> {
    Text { text: &'t str, is_first: bool },
    Token(u32),
}

/// `\w` of regular expressions.
fn is_word_character(c: char) -> bool {
    let other = || {
        matches!(c.general_category(), GeneralCategory::DecimalNumber | GeneralCategory::ConnectorPunctuation)
            || c.general_category_group() == GeneralCategoryGroup::Mark
    };
    c.is_alphabetic() || matches!(c, '\u{200c}' | '\u{200d}') || other()
}
