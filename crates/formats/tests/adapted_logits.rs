//! Logits of models with adapters at work, as PEFT gives them (`tests/golden/{lora,dora}`; 5e-5 absolute), and what must not
//! depend on where an adapter works.

#![allow(clippy::unwrap_used)]

use std::sync::Arc;

use openelm_formats::{adapter, huggingface};
use openelm_model::kernels::Threads;
use openelm_model::{AdapterWeights, Engine, Feed, Logits, Model, Rows, Session};
use openelm_testing::{golden, max_difference, npz};

const CASES: [&str; 5] = ["lora/basic", "lora/rslora", "lora/with_embeddings", "dora/basic", "dora/qkv_only"];
const TOLERANCE: f32 = 5e-5;

fn model() -> Model {
    huggingface::read(&golden("tiny/hf")).unwrap().into_model().unwrap()
}

fn weights(case: &str, model: &Model) -> Arc<AdapterWeights> {
    let adapter = adapter::open(&golden(case), model.config()).unwrap();
    Arc::new(AdapterWeights::new(&adapter, model, &Threads::new(2)))
}

#[test]
fn logits_are_those_of_peft() {
    let model = model();
    for case in CASES {
        let golden = npz(&golden(&format!("{case}/logits.npz")));
        let (ids, expected) = (golden["input_ids"].ids(), golden["logits"].f32());
        let engine = Engine::new(model.clone(), Threads::new(2));
        let mut session = Session::adapted(engine, ids.len(), weights(case, &model)).unwrap();
        let mut found = Vec::new();
        session.append_all(&ids, |rows| found.extend_from_slice(rows)).unwrap();
        let difference = max_difference(&found, &expected);
        println!("{case}: {difference:e}");
        assert!(difference <= TOLERANCE, "{case} differs by {difference:e}");
    }
}

/// Sequences with other adapters, or none, in the same passes change no bit.
#[test]
fn every_sequence_has_an_adapter_of_its_own() {
    let model = model();
    let ids: Vec<u32> = (0..40).map(|i| 3 + i * 7 % 300).collect();
    let engine = Engine::new(model.clone(), Threads::new(2));
    let sequence = |case: Option<&&str>| match case {
        Some(case) => engine.adapted_sequence(100, weights(case, &model)).unwrap(),
        None => engine.sequence(100),
    };
    let cases: Vec<Option<&&str>> = CASES.iter().map(Some).chain([None]).collect();
    let alone = cases.iter().map(|&case| {
        let (mut sequence, mut logits) = (sequence(case), Logits::default());
        let feed = Feed { sequence: &mut sequence, tokens: &ids, logits: Rows::All };
        engine.step(&mut [feed], &mut logits).unwrap();
        logits.of(0).to_vec()
    });
    let alone: Vec<Vec<f32>> = alone.collect();
    assert!(alone.windows(2).all(|pair| pair[0] != pair[1]));
    for cut in [1, 3, 40] {
        let mut sequences: Vec<_> = cases.iter().map(|&case| sequence(case)).collect();
        let mut found = vec![Vec::new(); cases.len()];
        for tokens in ids.chunks(cut) {
            let mut logits = Logits::default();
            let feed = |sequence| Feed { sequence, tokens, logits: Rows::All };
            let mut feeds: Vec<Feed<'_>> = sequences.iter_mut().map(feed).collect();
            engine.step(&mut feeds, &mut logits).unwrap();
            found.iter_mut().enumerate().for_each(|(i, found)| found.extend_from_slice(logits.of(i)));
        }
        for ((found, alone), case) in found.iter().zip(&alone).zip(&cases) {
            let difference = max_difference(found, alone);
            assert!(found == alone, "{case:?} in steps of {cut}: {difference:e}");
        }
    }
}

#[test]
fn an_adapter_of_another_model_is_refused() {
    let model = model();
    let other = huggingface::read(&golden("mlx/hf_source_f16")).unwrap().into_model().unwrap();
    assert_ne!(model.config(), other.config());
    let engine = Engine::new(other, Threads::single());
    assert!(engine.adapted_sequence(10, weights("lora/basic", &model)).is_err());
    assert!(adapter::open(&golden("lora/basic"), engine.model().config()).is_err());
}
