//! Learning a tokenizer: byte-pair encoding with byte fallback, written as a SentencePiece model as LLaMA's is, because
//! every tool that knows OpenELM reads that.

mod pairs;

use std::cmp::Reverse;
use std::collections::{BTreeMap, HashMap};

use openelm_model::sentencepiece::{ModelProto, ModelType, NormalizerSpec, SentencePiece, TrainerSpec, Type};
use prost::Message;

/// Control pieces and byte pieces, which every vocabulary begins with.
const FIXED_PIECES: usize = 3 + 256;

/// A tokenizer that could not be learnt.
#[derive(Debug, thiserror::Error)]
pub enum TokenizerTrainingError<E: std::error::Error> {
    /// The corpus could not be read.
    #[error(transparent)]
    Corpus(E),
    /// There is no room for a single merge.
    #[error("a vocabulary of {vocab_size} is too small: bytes and characters alone take {needed}")]
    VocabularyTooSmall {
        /// Pieces asked for.
        vocab_size: usize,
        /// Pieces needed before the first merge.
        needed: usize,
    },
    /// The corpus has fewer distinct sequences than the vocabulary was to have.
    #[error("the corpus yields {found} pieces of the {vocab_size} asked for; ask for fewer or bring more text")]
    CorpusTooSmall {
        /// Pieces asked for.
        vocab_size: usize,
        /// Pieces found.
        found: usize,
    },
    /// There is nothing to learn from.
    #[error("the corpus has no text")]
    Empty,
}

/// Learns `vocab_size` pieces from `texts` and gives the bytes of a SentencePiece model: unknown 0, BOS 1, EOS 2, the 256
/// bytes, merged pieces in the order they were learnt, single characters. Words begin with `▁`; digits stand alone; no piece
/// has more than 16 characters.
///
/// The same texts give the same bytes. Time and memory grow with the number of distinct words, beside one pass over the corpus.
///
/// # Errors
/// The first error of `texts`, or a vocabulary that the corpus does not fit.
pub fn train_tokenizer<E: std::error::Error>(
    texts: impl Iterator<Item = Result<String, E>>,
    vocab_size: usize,
) -> Result<Vec<u8>, TokenizerTrainingError<E>> {
    let too_small = |needed| TokenizerTrainingError::VocabularyTooSmall { vocab_size, needed };
    let size = vocab_size.checked_sub(FIXED_PIECES).filter(|&n| n > 0).ok_or_else(|| too_small(FIXED_PIECES + 1))?;
    let mut counts: HashMap<String, u64> = HashMap::new();
    for text in texts {
        count_words(&text.map_err(TokenizerTrainingError::Corpus)?, &mut counts);
    }
    let mut characters = BTreeMap::new();
    for (word, count) in &counts {
        word.chars().for_each(|c| *characters.entry(c).or_insert(0) += count);
    }
    // The space that stands before each text is none of it.
    if characters.keys().all(|&c| c == '▁') {
        return Err(TokenizerTrainingError::Empty);
    }
    // A quarter of the pieces, but the letters and signs of a language if they leave room for as many others.
    let alphabet = alphabet(characters, (size / 4).max(64.min(size / 2)));
    if alphabet.len() >= size {
        return Err(too_small(FIXED_PIECES + alphabet.len() + 1));
    }
    let merged = pairs::learn(counts, &alphabet, size);
    let found = FIXED_PIECES + merged.len() + alphabet.len();
    if found < vocab_size {
        return Err(TokenizerTrainingError::CorpusTooSmall { vocab_size, found });
    }
    let characters = alphabet.iter().map(char::to_string);
    Ok(sentencepiece(merged.into_iter().chain(characters), vocab_size).encode_to_vec())
}

/// The most frequent characters, `limit` of them, in their own order; the others are left to the bytes.
fn alphabet(counts: BTreeMap<char, u64>, limit: usize) -> Vec<char> {
    let mut counts: Vec<(char, u64)> = counts.into_iter().collect();
    counts.sort_by_key(|&(c, count)| (Reverse(count), c));
    let mut kept: Vec<char> = counts.into_iter().take(limit.max(1)).map(|(c, _)| c).collect();
    kept.sort_unstable();
    kept
}

/// Longest word in characters. What is longer is cut, so that a text without spaces is not one word.
const MAX_WORD: usize = 8 * pairs::MAX_PIECE;

/// Counts the words of a text, which is cut where no piece may reach across: before spaces, around digits, between letters and
/// everything else.
fn count_words(text: &str, counts: &mut HashMap<String, u64>) {
    #[derive(Clone, Copy, PartialEq)]
    enum Kind {
        Space,
        Letter,
        Digit,
        Other,
    }
    let mut count = |word: &mut String| {
        match counts.get_mut(word) {
            _ if word.is_empty() => (),
            Some(count) => *count += 1,
            None => drop(counts.insert(word.clone(), 1)),
        }
        word.clear();
    };
    let (mut word, mut length, mut last) = (String::new(), 0, Kind::Digit);
    // A space stands before the text, as encoding puts one there; line breaks and the like are left to the bytes.
    for c in std::iter::once(' ').chain(text.chars()) {
        if c.is_control() {
            last = Kind::Digit;
            continue;
        }
        let (kind, c) = match c {
            ' ' => (Kind::Space, '▁'),
            c if c.is_numeric() => (Kind::Digit, c),
            c if c.is_alphabetic() => (Kind::Letter, c),
            c => (Kind::Other, c),
        };
        let joins = kind != Kind::Space && kind != Kind::Digit && (last == kind || last == Kind::Space);
        if !joins || length == MAX_WORD {
            count(&mut word);
            length = 0;
        }
        word.push(c);
        (length, last) = (length + 1, kind);
    }
    count(&mut word);
}

fn sentencepiece(learnt: impl Iterator<Item = String>, vocab_size: usize) -> ModelProto {
    let piece = |piece: String, score: f32, kind: Type| SentencePiece {
        piece: Some(piece),
        score: Some(score),
        r#type: Some(kind as i32),
    };
    let mut pieces = vec![
        piece("<unk>".into(), 0.0, Type::Unknown),
        piece("<s>".into(), 0.0, Type::Control),
        piece("</s>".into(), 0.0, Type::Control),
    ];
    pieces.extend((0..=255u8).map(|byte| piece(format!("<0x{byte:02X}>"), 0.0, Type::Byte)));
    // The earlier a piece was learnt, the higher its score: encoding joins the pair of the highest score first.
    pieces.extend(learnt.enumerate().map(|(rank, text)| piece(text, -(rank as f32), Type::Normal)));
    ModelProto {
        pieces,
        trainer_spec: Some(TrainerSpec {
            model_type: Some(ModelType::Bpe as i32),
            vocab_size: Some(vocab_size as i32),
            byte_fallback: Some(true),
            split_digits: Some(true),
            unk_id: Some(0),
            bos_id: Some(1),
            eos_id: Some(2),
            pad_id: Some(-1),
            ..TrainerSpec::default()
        }),
        normalizer_spec: Some(NormalizerSpec {
            name: Some("identity".to_owned()),
            add_dummy_prefix: Some(true),
            remove_extra_whitespaces: Some(false),
            escape_whitespaces: Some(true),
            ..NormalizerSpec::default()
        }),
        ..ModelProto::default()
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use openelm_model::Tokenizer;

    use super::*;

    fn corpus() -> impl Iterator<Item = Result<String, Infallible>> + Send {
        let nouns = ["cat", "hat", "house", "mouse", "river", "little bear", "lantern", "garden", "story"];
        (0..2000).map(move |i| {
            let (a, b) = (nouns[i % 9], nouns[i * 7 % 8]);
            Ok(format!("The {a} saw the {b}, and in {} it wasn't afraid.\nÉté came again; \"so\" it went.", 1700 + i))
        })
    }

    #[test]
    fn a_learnt_tokenizer_keeps_every_text_whole() {
        let tokenizer = Tokenizer::from_sentencepiece(&train_tokenizer(corpus(), 340).unwrap()).unwrap();
        assert_eq!(tokenizer.vocab_size(), 340);
        assert_eq!((tokenizer.unk_id(), tokenizer.bos_id(), tokenizer.eos_id()), (Some(0), Some(1), Some(2)));
        for text in ["The little bear.", " two  spaces ", "日本 \u{1f600} tabs\t\n\nend", "1789 wasn't"] {
            assert_eq!(tokenizer.decode(&tokenizer.encode(text)), text);
        }
        let text = "The cat saw the garden, and in 1700 it wasn't afraid.";
        assert!(tokenizer.encode(text).len() * 2 < text.len(), "nothing was merged");
        assert_eq!(tokenizer.encode("1789").len(), 5, "digits stand alone, behind the space");
    }

    #[test]
    fn the_same_texts_give_the_same_bytes() {
        assert_eq!(train_tokenizer(corpus(), 340).unwrap(), train_tokenizer(corpus(), 340).unwrap());
    }

    /// Of a text in one breath, and of one with runs that a piece could swallow.
    #[test]
    fn texts_without_spaces_take_no_longer_than_others() {
        let begin = std::time::Instant::now();
        let letters = |i: usize| char::from(b'a' + (i * i / 7 % 26) as u8);
        let texts = [(0..3 << 20).map(letters).collect::<String>(), "=".repeat(1 << 20), "na".repeat(1 << 19)];
        let model = train_tokenizer(texts.into_iter().map(Ok::<_, Infallible>), 500).unwrap();
        assert!(begin.elapsed().as_secs() < 100, "{:?}", begin.elapsed());
        let model = ModelProto::decode(&*model).unwrap();
        let longest = model.pieces.iter().map(|piece| piece.piece().chars().count()).max();
        assert_eq!(longest, Some(pairs::MAX_PIECE));
        Tokenizer::from_sentencepiece(&model.encode_to_vec()).unwrap();
    }

    /// The textbook's example: the most frequent pair first, of equal ones the one of earlier pieces.
    #[test]
    fn the_most_frequent_pair_is_learnt_first() {
        let words = [("low", 5), ("lower", 2), ("newest", 6), ("widest", 3)];
        let words: HashMap<String, u64> = words.map(|(word, count)| (word.to_owned(), count)).into();
        let alphabet = ['d', 'e', 'i', 'l', 'n', 'o', 'r', 's', 't', 'w'];
        assert_eq!(pairs::learn(words.clone(), &alphabet, 17), ["es", "est", "lo", "low", "ew", "new", "newest"]);
        let without_e: Vec<char> = alphabet.into_iter().filter(|&c| c != 'e').collect();
        assert_eq!(pairs::learn(words, &without_e, 12), ["st", "lo", "low"]);
        let runs = HashMap::from([("aaaaaaa".to_owned(), 3)]);
        assert_eq!(pairs::learn(runs, &['a'], 4), ["aa", "aaaa", "aaa"]);
    }

    #[test]
    fn vocabularies_that_do_not_fit_are_refused() {
        let refused = |size| train_tokenizer(corpus(), size).unwrap_err().to_string();
        assert!(refused(100).contains("too small"));
        assert!(refused(260).contains("too small"));
        assert!(refused(50_000).contains("bring more text"));
        for nothing in [vec![], vec!["\n\n".to_owned()]] {
            let nothing = nothing.into_iter().map(Ok::<_, Infallible>);
            assert_eq!(train_tokenizer(nothing, 4096).unwrap_err().to_string(), "the corpus has no text");
        }
        let failing = corpus().map(|_| Err::<String, _>(std::io::Error::other("torn page")));
        assert!(train_tokenizer(failing, 350).unwrap_err().to_string().contains("torn page"));
    }
}
