//! Bits that do not depend on company: the logits of a token are the same however its prompt was cut into passes, whatever
//! other sequences share them, whether it was decoded or prefilled, and whether its prefix was computed or shared; for each
//! format of weights and type of cache, and for any number of threads.

#![allow(clippy::unwrap_used)]

use std::sync::Arc;

use openelm_formats::{huggingface, open};
use openelm_model::kernels::Threads;
use openelm_model::kernels::rounded::Products;
use openelm_model::{CacheType, Engine, Feed, Logits, Model, Rows, Sequence};
use openelm_testing::golden;
use proptest::prelude::*;

/// Longer than a span of attention and than the rows of a pass.
const LENGTH: usize = 620;
const TEXTS: usize = 3;

/// Models in floats, in integers and widened on the way, by name.
fn models() -> Vec<(&'static str, Model)> {
    let tiny = || huggingface::read(&golden("tiny/hf")).unwrap();
    let float = |name| open(&golden(&format!("gguf/{name}.gguf"))).unwrap().into_model().unwrap();
    let packed = |name| open(&golden(name)).unwrap().into_packed_model(&Threads::new(2)).unwrap();
    vec![
        ("f32", tiny().into_model().unwrap()),
        ("F16", float("a-F16")),
        ("BF16", float("a-BF16")),
        ("BF16 in bf16", float("a-BF16").with_products(Products::BF16)),
        ("F16 in bf16", float("a-F16").with_products(Products::BF16)),
        ("Q4_0 widened", float("a-Q4_0")),
        ("Q4_0", packed("gguf/a-Q4_0.gguf")),
        ("Q8_0", packed("gguf/a-Q8_0.gguf")),
        ("Q4_K", packed("gguf/b-Q4_K_M.gguf")),
        ("MLX 4 bits", packed("mlx/q4_g32_float16")),
    ]
}

/// The texts: the second one begins like the first.
fn texts(vocabulary: usize) -> Vec<Vec<u32>> {
    let text = |seed: usize| (0..LENGTH).map(|i| ((i * i + seed * 31 + i * 7) % (vocabulary - 3) + 3) as u32).collect();
    let mut texts: Vec<Vec<u32>> = (0..TEXTS).map(text).collect();
    let (first, rest) = texts.split_at_mut(1);
    rest[0][..200].copy_from_slice(&first[0][..200]);
    texts
}

/// One decision of a schedule: for each text how many of its next tokens a pass takes, with which logits.
#[derive(Debug, Clone)]
struct Turn {
    rows: [usize; TEXTS],
    wanted: [u8; TEXTS],
    /// Whether the second text is begun anew as a fork of the first, as far as the two agree.
    fork: bool,
    /// How many tokens of a text are forgotten and fed again.
    forget: [usize; TEXTS],
}

fn turns() -> impl Strategy<Value = Vec<Turn>> {
    let rows = prop_oneof![Just(0usize), Just(1), 2usize..9, 9usize..70, Just(LENGTH)];
    let forget = prop_oneof![4 => Just(0usize), 1 => 1usize..90];
    let turn = (
        [rows.clone(), rows.clone(), rows],
        [0..3u8, 0..3u8, 0..3u8],
        prop::bool::weighted(0.1),
        [forget.clone(), forget.clone(), forget],
    );
    let turn = turn.prop_map(|(rows, wanted, fork, forget)| Turn { rows, wanted, fork, forget });
    prop::collection::vec(turn, 1..40)
}

struct Case {
    name: &'static str,
    engine: Engine,
    texts: Vec<Vec<u32>>,
    /// Logits of all tokens of each text, computed at once and alone.
    expected: Vec<Vec<f32>>,
}

fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for (index, (name, model)) in models().into_iter().enumerate() {
        let cache_type = [CacheType::F32, CacheType::F16, CacheType::Int8][index % 3];
        let model = Arc::new(model);
        let texts = texts(model.config().vocab_size);
        let alone = Engine::new(model.clone(), Threads::new(3)).with_cache(cache_type);
        let expected = texts.iter().map(|text| {
            let (mut sequence, mut logits) = (alone.sequence(LENGTH), Logits::default());
            let feed = Feed { sequence: &mut sequence, tokens: text, logits: Rows::All };
            alone.step(&mut [feed], &mut logits).unwrap();
            logits.of(0).to_vec()
        });
        let expected = expected.collect();
        let engine = Engine::new(model, Threads::new(1 + index % 2)).with_cache(cache_type);
        cases.push(Case { name, engine, texts, expected });
    }
    cases
}

impl Case {
    /// Follows the schedule and says how many rows of logits were compared.
    fn follow(&self, turns: &[Turn]) -> Result<usize, TestCaseError> {
        let vocabulary = self.engine.model().config().vocab_size;
        let mut sequences: Vec<Sequence> = (0..TEXTS).map(|_| self.engine.sequence(LENGTH)).collect();
        let (mut logits, mut compared) = (Logits::default(), 0);
        for turn in turns {
            if turn.fork {
                sequences[1] = sequences[0].clone();
                sequences[1].truncate(200);
            }
            for (sequence, forget) in sequences.iter_mut().zip(turn.forget) {
                sequence.truncate(sequence.len().saturating_sub(forget));
            }
            let starts: Vec<usize> = sequences.iter().map(Sequence::len).collect();
            let mut feeds = Vec::new();
            let mut fed = Vec::new();
            for (i, sequence) in sequences.iter_mut().enumerate() {
                let start = starts[i];
                let tokens = &self.texts[i][start..LENGTH.min(start + turn.rows[i])];
                if tokens.is_empty() {
                    continue;
                }
                let wanted = match turn.wanted[i] {
                    0 => Rows::None,
                    1 => Rows::Last,
                    _ => Rows::All,
                };
                let rows = match wanted {
                    Rows::None => 0..0,
                    Rows::Last => start + tokens.len() - 1..start + tokens.len(),
                    _ => start..start + tokens.len(),
                };
                fed.push((i, rows));
                feeds.push(Feed { sequence, tokens, logits: wanted });
            }
            self.engine.step(&mut feeds, &mut logits).unwrap();
            for (feed, (text, rows)) in fed.into_iter().enumerate() {
                compared += rows.len();
                let expected = &self.expected[text][rows.start * vocabulary..rows.end * vocabulary];
                let same = logits.of(feed) == expected;
                prop_assert!(same, "{}: text {text}, tokens {rows:?} in {turn:?}", self.name);
            }
        }
        Ok(compared)
    }
}

#[test]
fn no_schedule_changes_a_bit() {
    let cases = cases();
    let mut runner = proptest::test_runner::TestRunner::new(ProptestConfig::with_cases(12));
    let compared = std::cell::Cell::new([0usize; 2]);
    runner
        .run(&turns(), |turns| {
            for case in &cases {
                let [schedules, rows] = compared.get();
                compared.set([schedules + 1, rows + case.follow(&turns)?]);
            }
            Ok(())
        })
        .unwrap_or_else(|e| panic!("{e}"));
    let [schedules, rows] = compared.get();
    println!("{schedules} schedules, {rows} rows of logits");
    assert!(rows > 10_000, "only {rows} rows were compared");
}

#[test]
fn chosen_rows_are_those_of_all() {
    let case = &cases()[0];
    let vocabulary = case.engine.model().config().vocab_size;
    let (mut sequence, mut logits) = (case.engine.sequence(LENGTH), Logits::default());
    let rows = [0, 3, 255, 256, 600];
    let feed = Feed { sequence: &mut sequence, tokens: &case.texts[0], logits: Rows::Some(&rows) };
    case.engine.step(&mut [feed], &mut logits).unwrap();
    for (found, row) in logits.of(0).chunks(vocabulary).zip(rows) {
        assert!(found == &case.expected[0][row * vocabulary..][..vocabulary], "row {row}");
    }
    let feed = Feed { sequence: &mut sequence, tokens: &[], logits: Rows::Some(&[1]) };
    assert!(case.engine.step(&mut [feed], &mut logits).is_err());
    // A feed of nothing gives nothing, alone and beside others.
    let feed = Feed { sequence: &mut sequence, tokens: &[], logits: Rows::All };
    case.engine.step(&mut [feed], &mut logits).unwrap();
    assert!(logits.of(0).is_empty());
    let mut other = case.engine.sequence(LENGTH);
    let nothing = Feed { sequence: &mut sequence, tokens: &[], logits: Rows::None };
    let feed = Feed { sequence: &mut other, tokens: &case.texts[0][..5], logits: Rows::Last };
    case.engine.step(&mut [nothing, feed], &mut logits).unwrap();
    assert!(logits.of(0).is_empty() && logits.of(1) == &case.expected[0][4 * vocabulary..5 * vocabulary]);
}
