//! The regular expressions by which byte-level tokenizers cut texts, matched by hand: there are few of them in the field, and an
//! engine that knows their look-ahead may take for ever.

use unicode_properties::{GeneralCategoryGroup, UnicodeGeneralCategory};

/// How a text is cut. Every character is in a part.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Pattern {
    /// GPT-2's, and SmolLM's behind the digits.
    Gpt2,
    /// Those of GPT-4, Llama 3 and Qwen 2, with at most so many digits in a part.
    Gpt4 { digits: usize },
    /// Runs of punctuation, of which a few signs are part, apart from all else: what llama.cpp begins with by default.
    Punctuation,
    /// Three ASCII digits at a time, apart from all else: what it ends with.
    ThreeDigits,
}

/// GPT-2's, in both spellings that there are.
const GPT2: [&str; 2] = [
    r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+",
    r"'(?:[sdmt]|ll|ve|re)| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+",
];
const THREE_DIGITS: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";
const ONE_DIGIT: &str =
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";

impl Pattern {
    /// The pattern of a regular expression, if it is one of those.
    pub fn of(expression: &str) -> Option<Self> {
        match expression {
            _ if GPT2.contains(&expression) => Some(Pattern::Gpt2),
            THREE_DIGITS => Some(Pattern::Gpt4 { digits: 3 }),
            ONE_DIGIT => Some(Pattern::Gpt4 { digits: 1 }),
            r"[\p{P}\$\+<=>\^~\|]+" => Some(Pattern::Punctuation),
            "[0-9][0-9][0-9]" => Some(Pattern::ThreeDigits),
            _ => None,
        }
    }

    /// The parts of `text`.
    pub fn split(self, text: &str) -> impl Iterator<Item = &str> {
        let mut rest = text;
        std::iter::from_fn(move || {
            let first = rest.chars().next()?;
            let length = match self {
                Pattern::Gpt2 => gpt2(rest),
                Pattern::Gpt4 { digits } => gpt4(rest, first, digits),
                Pattern::Punctuation => {
                    let is_first = is_punctuation(first);
                    rest.find(|c| is_punctuation(c) != is_first).unwrap_or(rest.len())
                }
                Pattern::ThreeDigits => three_digits(rest),
            };
            let (part, behind) = rest.split_at(length);
            rest = behind;
            Some(part)
        })
    }
}

/// Length of what the expression matches at the beginning of `text`.
fn gpt2(text: &str) -> usize {
    if let Some(length) = contraction(text, |a, b| a == b) {
        return length;
    }
    let behind_space = text.strip_prefix(' ').unwrap_or(text);
    let space = text.len() - behind_space.len();
    match behind_space.chars().next().map(class) {
        Some(Class::Space) | None => spaces(text),
        Some(class) => space + run(&text[space..], class),
    }
}

fn gpt4(text: &str, first: char, digits: usize) -> usize {
    if let Some(length) = contraction(text, |a, b| a.eq_ignore_ascii_case(&b) || a == 'ſ' && b == 's') {
        return length;
    }
    let behind_first = &text[first.len_utf8()..];
    let letters = run(behind_first, Class::Letter);
    match class(first) {
        Class::Letter => return first.len_utf8() + letters,
        Class::Number => {
            return text.chars().take(digits).take_while(|&c| class(c) == Class::Number).map(char::len_utf8).sum();
        }
        Class::Space | Class::Other if !matches!(first, '\r' | '\n') && letters > 0 => {
            return first.len_utf8() + letters;
        }
        _ => (),
    }
    let space = usize::from(first == ' ');
    let others = run(&text[space..], Class::Other);
    if others > 0 {
        let end = space + others;
        return text.len() - text[end..].trim_start_matches(['\r', '\n']).len();
    }
    let blank = &text[..run(text, Class::Space)];
    blank.rfind(['\r', '\n']).map_or_else(|| spaces(text), |last| last + 1)
}

fn is_punctuation(c: char) -> bool {
    matches!(c, '$' | '+' | '<' | '=' | '>' | '^' | '~' | '|')
        || c.general_category_group() == GeneralCategoryGroup::Punctuation
}

/// Three digits, or all that comes before the next three.
fn three_digits(text: &str) -> usize {
    match text.as_bytes().windows(3).position(|bytes| bytes.iter().all(u8::is_ascii_digit)) {
        None => text.len(),
        Some(0) => 3,
        Some(at) => at,
    }
}

/// An apostrophe with what English puts behind it.
fn contraction(text: &str, equals: impl Fn(char, char) -> bool) -> Option<usize> {
    let behind = text.strip_prefix('\'')?;
    let ending = ["s", "t", "re", "ve", "m", "ll", "d"].into_iter().find(|ending| {
        let mut characters = behind.chars();
        ending.chars().all(|expected| characters.next().is_some_and(|c| equals(c, expected)))
    })?;
    let length: usize = behind.chars().take(ending.len()).map(char::len_utf8).sum();
    Some(1 + length)
}

/// Spaces at the beginning of `text`; the last of several is left to the word that follows.
fn spaces(text: &str) -> usize {
    let blank = &text[..run(text, Class::Space)];
    match blank.char_indices().next_back() {
        Some((last, _)) if blank.len() < text.len() && last > 0 => last,
        _ => blank.len(),
    }
}

/// Length of the characters of `wanted` that `text` begins with.
fn run(text: &str, wanted: Class) -> usize {
    text.find(|c| class(c) != wanted).unwrap_or(text.len())
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Class {
    Space,
    Letter,
    Number,
    Other,
}

fn class(c: char) -> Class {
    match c {
        'a'..='z' | 'A'..='Z' => Class::Letter,
        '0'..='9' => Class::Number,
        _ if c.is_whitespace() => Class::Space,
        _ if c.is_ascii() => Class::Other,
        _ => match c.general_category_group() {
            GeneralCategoryGroup::Letter => Class::Letter,
            GeneralCategoryGroup::Number => Class::Number,
            _ => Class::Other,
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parts(pattern: Pattern, text: &str) -> Vec<&str> {
        pattern.split(text).collect()
    }

    #[test]
    fn texts_are_cut_as_gpt2_does() {
        assert_eq!(
            parts(Pattern::Gpt2, "I'm  sure, it's 1234!"),
            ["I", "'m", " ", " sure", ",", " it", "'s", " 1234", "!"]
        );
        assert_eq!(parts(Pattern::Gpt2, "a \n\n b\u{301} \n"), ["a", " \n\n", " b", "\u{301}", " \n"]);
    }

    #[test]
    fn texts_are_cut_as_llama_cpp_does_by_default() {
        assert_eq!(parts(Pattern::Punctuation, "a, b=>c €"), ["a", ",", " b", "=>", "c €"]);
        assert_eq!(parts(Pattern::ThreeDigits, " 12345678"), [" ", "123", "456", "78"]);
    }

    #[test]
    fn texts_are_cut_as_llama_3_does() {
        let three = Pattern::of(THREE_DIGITS).unwrap();
        assert_eq!(
            parts(three, "I'M (so) 12345.\n\n  x"),
            ["I", "'M", " (", "so", ")", " ", "123", "45", ".\n\n", " ", " x"]
        );
        assert_eq!(parts(three, " \n \n  é\u{a0}b\t"), [" \n \n", " ", " é", "\u{a0}b", "\t"]);
        assert_eq!(parts(Pattern::of(ONE_DIGIT).unwrap(), "12 it'ſ"), ["1", "2", " it", "'ſ"]);
    }
}
