//! What tasks of the harness take from Python: its random numbers, its literals, its notion of white space.

pub mod literal;
pub mod random;

/// Whether Python's `str.isspace` holds for `character`: Unicode's white space, and four separators of ASCII.
pub fn is_space(character: char) -> bool {
    character.is_whitespace() || ('\u{1c}'..='\u{1f}').contains(&character)
}

/// `text` without white space at its end, as `str.rstrip` gives it.
pub fn trim_end(text: &str) -> &str {
    text.trim_end_matches(is_space)
}

/// The number of pieces into which `re.split(r"\s+", text)` takes a text apart: one more than there are runs of white space.
pub fn count_words(text: &str) -> usize {
    let mut words = 1;
    let mut in_space = false;
    for character in text.chars() {
        words += usize::from(is_space(character) && !in_space);
        in_space = is_space(character);
    }
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_counted_as_python_splits() {
        // len(re.split(r"\s+", text)) in CPython 3.11.
        for (text, words) in [("", 1), (" ", 2), ("a", 1), (" a  b\n", 4), ("a\u{1f}b", 2), ("a\u{a0}b", 2)] {
            assert_eq!(count_words(text), words, "{text:?}");
        }
    }
}
