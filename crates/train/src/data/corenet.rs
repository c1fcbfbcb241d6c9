//! CoreNet's pipeline, where it differs: pieces of words, padding, and the order of Python's `random.Random(0)`.
//!
//! Its data set takes each file in an order shuffled once and again before each further epoch, splits documents on single
//! spaces into pieces of at most 2048 words, and makes one row of each piece: the front of it, or padded on the right.

use rand_mt::Mt;

/// Words of a piece, at most, in the recipes of OpenELM.
pub(super) const WORDS: usize = 2048;

/// The pieces of a document, of at most `words` words each.
pub(super) fn pieces(text: &str, words: usize) -> impl Iterator<Item = String> {
    let mut rest = text.split(' ');
    std::iter::from_fn(move || {
        let piece: Vec<&str> = rest.by_ref().take(words).collect();
        (!piece.is_empty()).then(|| piece.join(" "))
    })
}

/// `files` in the order of `epoch`, as one process of one worker takes them.
pub(super) fn file_order(files: &[usize], epoch: u64) -> Vec<usize> {
    let mut files = files.to_vec();
    let mut random = Mt::new_with_key([0]);
    for _ in 0..=epoch {
        shuffle(&mut files, &mut random);
    }
    files
}

/// CPython's `random.shuffle`.
fn shuffle(items: &mut [usize], random: &mut Mt) {
    for i in (1..items.len()).rev() {
        items.swap(i, below(i as u32 + 1, random));
    }
}

/// CPython's `Random._randbelow`: draws as many bits as `end` has until they make a number below it.
fn below(end: u32, random: &mut Mt) -> usize {
    loop {
        let drawn = random.next_u32() >> end.leading_zeros();
        if drawn < end {
            return drawn as usize;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_join_to_the_document() {
        let text = "a  b c d  e";
        let found: Vec<String> = pieces(text, 3).collect();
        assert_eq!(found, ["a  b", "c d ", "e"]);
        assert_eq!(found.join(" "), text);
    }

    /// `random.Random(0).shuffle(files)`, once and twice, in CPython 3.11.
    #[test]
    fn files_come_in_the_order_of_python() {
        let files: Vec<usize> = (0..7).collect();
        assert_eq!(file_order(&files, 0), [4, 2, 1, 0, 5, 3, 6]);
        assert_eq!(file_order(&files, 1), [2, 4, 5, 3, 6, 1, 0]);
        let many: Vec<usize> = (0..300).collect();
        assert_eq!(file_order(&many, 0)[..10], [99, 54, 3, 34, 211, 103, 283, 276, 57, 88]);
    }
}
