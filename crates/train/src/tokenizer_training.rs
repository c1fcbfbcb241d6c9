//! Learning a tokenizer: byte-pair encoding with byte fallback, written as a SentencePiece model as LLaMA's is, because
//! every tool that knows OpenELM reads that.

use std::cmp::Reverse;
use std::collections::{BTreeMap, HashSet};
use std::sync::Mutex;

use prost::Message;
use sentencepiece_model::{ModelProto, ModelType, NormalizerSpec, SentencePiece, TrainerSpec, Type};
use tokenizers::Trainer as _;
use tokenizers::models::bpe::{BPE, BpeTrainerBuilder};

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
    /// The learning itself failed.
    #[error("the tokenizer could not be learnt: {0}")]
    Learning(String),
}

/// Learns `vocab_size` pieces from `texts` and gives the bytes of a SentencePiece model: unknown 0, BOS 1, EOS 2, the 256
/// bytes, merged pieces in the order they were learnt, single characters. Words begin with `▁`; digits stand alone.
///
/// The same texts give the same bytes. Memory grows with the number of distinct words, not with the corpus.
///
/// # Errors
/// The first error of `texts`, or a vocabulary that the corpus does not fit.
pub fn train_tokenizer<E: std::error::Error + Send>(
    texts: impl Iterator<Item = Result<String, E>> + Send,
    vocab_size: usize,
) -> Result<Vec<u8>, TokenizerTrainingError<E>> {
    let too_small = |needed| TokenizerTrainingError::VocabularyTooSmall { vocab_size, needed };
    let learnt = vocab_size.checked_sub(FIXED_PIECES).filter(|&n| n > 0).ok_or_else(|| too_small(FIXED_PIECES + 1))?;
    let mut trainer = BpeTrainerBuilder::new().vocab_size(learnt).min_frequency(2).show_progress(false).build();
    let learning = |e: tokenizers::Error| TokenizerTrainingError::Learning(e.to_string());
    let failure = Mutex::new(None);
    let texts = texts.map_while(|text| match text {
        Ok(text) => Some(text),
        Err(e) => {
            failure.lock().unwrap_or_else(|e| e.into_inner()).get_or_insert(e);
            None
        }
    });
    let characters = Mutex::new(BTreeMap::new());
    let count_characters = |words: &[String]| {
        let mut characters = characters.lock().unwrap_or_else(|e| e.into_inner());
        words.iter().flat_map(|word| word.chars()).for_each(|c| *characters.entry(c).or_insert(0u64) += 1);
    };
    let feed = trainer.feed(texts, |text| {
        let words = words(text);
        count_characters(&words);
        Ok(words)
    });
    feed.map_err(learning)?;
    if let Some(e) = failure.into_inner().unwrap_or_else(|e| e.into_inner()) {
        return Err(TokenizerTrainingError::Corpus(e));
    }
    let alphabet = alphabet(characters.into_inner().unwrap_or_else(|e| e.into_inner()), learnt / 4);
    // Named one by one: left to itself the library chooses among equally rare characters by chance.
    trainer.limit_alphabet = Some(alphabet.len());
    trainer.initial_alphabet = alphabet.into_iter().collect();
    let mut model = BPE::default();
    trainer.train(&mut model).map_err(learning)?;
    let mut pieces: Vec<(u32, String)> =
        tokenizers::Model::get_vocab(&model).into_iter().map(|(p, id)| (id, p)).collect();
    pieces.sort();
    let (characters, merged): (Vec<_>, Vec<_>) =
        pieces.into_iter().map(|(_, piece)| piece).partition(|piece| piece.chars().nth(1).is_none());
    if merged.is_empty() {
        return Err(too_small(FIXED_PIECES + characters.len() + 1));
    }
    let found = FIXED_PIECES + merged.len() + characters.len();
    if found < vocab_size {
        return Err(TokenizerTrainingError::CorpusTooSmall { vocab_size, found });
    }
    Ok(sentencepiece(merged.into_iter().chain(characters), vocab_size).encode_to_vec())
}

/// The most frequent characters, `limit` of them; the others are left to the bytes.
fn alphabet(counts: BTreeMap<char, u64>, limit: usize) -> HashSet<char> {
    let mut counts: Vec<(char, u64)> = counts.into_iter().collect();
    counts.sort_by_key(|&(c, count)| (Reverse(count), c));
    counts.into_iter().take(limit.max(1)).map(|(c, _)| c).collect()
}

/// Cuts a text where no piece may reach across: before spaces, around digits, between letters and everything else.
fn words(text: &str) -> Vec<String> {
    #[derive(PartialEq)]
    enum Kind {
        Space,
        Letter,
        Digit,
        Other,
    }
    let mut words: Vec<String> = Vec::new();
    let mut last = Kind::Digit;
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
        match words.last_mut() {
            Some(word) if joins => word.push(c),
            _ => words.push(c.to_string()),
        }
        last = kind;
    }
    words
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

    #[test]
    fn vocabularies_that_do_not_fit_are_refused() {
        let refused = |size| train_tokenizer(corpus(), size).unwrap_err().to_string();
        assert!(refused(100).contains("too small"));
        assert!(refused(260).contains("too small"));
        assert!(refused(50_000).contains("bring more text"));
        let failing = corpus().map(|_| Err::<String, _>(std::io::Error::other("torn page")));
        assert!(train_tokenizer(failing, 350).unwrap_err().to_string().contains("torn page"));
    }
}
