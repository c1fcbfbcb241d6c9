//! CoreNet's filter of short documents.

/// Characters of `text` in lower case, without ASCII punctuation, with white space run together and none at the ends.
pub(super) fn normalised_length(text: &str) -> usize {
    let kept = text.chars().flat_map(char::to_lowercase).filter(|c| !c.is_ascii_punctuation());
    let (mut length, mut gap) = (0, false);
    for c in kept {
        if c.is_whitespace() {
            gap = length > 0;
        } else {
            length += 1 + usize::from(gap);
            gap = false;
        }
    }
    length
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn punctuation_and_runs_of_white_space_do_not_count() {
        assert_eq!(normalised_length("  Hello,\n\n  World! -- "), "hello world".len());
        assert_eq!(normalised_length("..."), 0);
        assert_eq!(normalised_length("Éa"), 2);
    }
}
