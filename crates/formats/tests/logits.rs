//! Agreement with CoreNet's forward pass: logits, hidden states, incremental decoding (`tests/golden/tiny` and
//! `tiny_variants`; 5e-5 absolute).

#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::sync::Arc;

use openelm_formats::huggingface;
use openelm_model::block::{self, Activations, BlockBuffers, KeysAndValues, Pass, Sequences};
use openelm_model::kernels::rounded::Products;
use openelm_model::kernels::{Threads, embedding};
use openelm_model::{Engine, EngineError, LinearScratch, Model, Session};
use openelm_testing::{Array, golden, max_difference, npz};

const TOLERANCE: f32 = 5e-5;

fn model(folder: &str) -> Model {
    huggingface::read(&golden(folder)).unwrap().into_model().unwrap()
}

/// Logits `[T, V]` of `ids`, taken in `chunk` tokens at a time.
fn logits(model: &Model, ids: &[u32], chunk: usize) -> Vec<f32> {
    let mut session = Session::new(Engine::new(model.clone(), Threads::new(2)), ids.len());
    let mut all = Vec::new();
    for ids in ids.chunks(chunk) {
        session.append_all(ids, |logits| all.extend_from_slice(logits)).unwrap();
    }
    all
}

fn assert_near(what: &str, found: &[f32], expected: &[f32]) {
    let difference = max_difference(found, expected);
    println!("{what}: {difference:e}");
    assert!(difference <= TOLERANCE, "{what} differ by {difference:e}");
}

#[test]
fn logits_of_every_sequence() {
    let model = model("tiny/hf");
    let golden = npz(&golden("tiny/logits.npz"));
    let sequences = golden.iter().filter(|(name, _)| name.starts_with("seq") && name.ends_with(".input_ids"));
    for (name, ids) in sequences {
        let expected = golden[&name.replace("input_ids", "logits")].f32();
        for chunk in [1, 3, 5, 1000] {
            assert_near(&format!("{name} in chunks of {chunk}"), &logits(&model, &ids.ids(), chunk), &expected);
        }
    }
    let (ids, expected) = (golden["batch.input_ids"].ids(), golden["batch.logits"].f32());
    let time = golden["batch.input_ids"].shape[1];
    for (ids, expected) in ids.chunks(time).zip(expected.chunks(time * model.config().vocab_size)) {
        assert_near("batch", &logits(&model, ids, 1000), expected);
    }
}

#[test]
fn positions_beyond_the_context_and_the_rotary_table() {
    let model = model("tiny/hf");
    let golden = npz(&golden("tiny/logits.npz"));
    let ids = golden["long.input_ids"].ids();
    assert!(ids.len() > model.config().context_length);
    let mut session = Session::new(Engine::new(model.clone(), Threads::new(2)), ids.len());
    assert_near("long", session.append(&ids).unwrap(), &golden["long.last_logits"].f32());

    // CoreNet has nothing to compare with here: one token at a time against chunks across 4096 positions.
    let ids: Vec<u32> = (0..4200).map(|i| i * 7 % 500).collect();
    let mut at_once = Session::new(Engine::new(model.clone(), Threads::new(2)), ids.len());
    let mut in_parts = Session::new(Engine::new(model.clone(), Threads::new(1)), ids.len());
    let expected = at_once.append(&ids).unwrap().to_vec();
    in_parts.append(&ids[..4000]).unwrap();
    for &id in &ids[4000..4199] {
        in_parts.append(&[id]).unwrap();
    }
    assert_near("beyond 4096", in_parts.append(&ids[4199..]).unwrap(), &expected);
}

#[test]
fn prefill_then_one_token_at_a_time() {
    let model = model("tiny/hf");
    let golden = npz(&golden("tiny/kv_cache.npz"));
    let (ids, time) = (golden["input_ids"].ids(), golden["input_ids"].shape[1]);
    let prefill = golden["prefill"].values[0] as usize;
    let width = time * model.config().vocab_size;
    for (s, ids) in ids.chunks(time).enumerate() {
        let mut session = Session::new(Engine::new(model.clone(), Threads::new(2)), time);
        let mut found = Vec::new();
        session.append_all(&ids[..prefill], |logits| found.extend_from_slice(logits)).unwrap();
        for &id in &ids[prefill..] {
            found.extend_from_slice(session.append(&[id]).unwrap());
        }
        assert_near("incremental", &found, &golden["incremental_logits"].f32()[s * width..(s + 1) * width]);
        assert_near("full", &found, &golden["full_logits"].f32()[s * width..(s + 1) * width]);

        // Forgetting and taking in again gives the same.
        session.truncate(prefill);
        let again = session.append(&ids[prefill..]).unwrap();
        assert_near("after truncation", again, &found[found.len() - again.len()..]);
    }
}

#[test]
fn variants_without_tied_embeddings_qk_norm_or_gate() {
    for variant in ["noglu_mqa", "untied_noqknorm"] {
        let model = model(&format!("tiny_variants/{variant}"));
        let golden = npz(&golden(&format!("tiny_variants/{variant}/logits.npz")));
        let (ids, time) = (golden["input_ids"].ids(), golden["input_ids"].shape[1]);
        let width = time * model.config().vocab_size;
        for (ids, expected) in ids.chunks(time).zip(golden["logits"].f32().chunks(width)) {
            assert_near(variant, &logits(&model, ids, 1000), expected);
            assert_near(variant, &logits(&model, ids, 1), expected);
        }
    }
}

#[test]
fn bfloat16_weights_widen_exactly() {
    let model = model("tiny/hf_bf16");
    let golden = npz(&golden("tiny/logits_bf16.npz"));
    let expected = golden["logits_weights_upcast_to_f32"].f32();
    assert_near("bfloat16", &logits(&model, &golden["input_ids"].ids(), 1000), &expected);
}

/// Rows `[T, heads * d]` as CoreNet keeps them, `[heads, T, d]`.
fn by_head(rows: &[f32], heads: usize, d: usize) -> Vec<f32> {
    let time = rows.len() / heads / d;
    let row = |h, t| &rows[(t * heads + h) * d..][..d];
    (0..heads).flat_map(|h| (0..time).flat_map(move |t| row(h, t).to_vec())).collect()
}

#[test]
fn all_hidden_states() {
    let model = model("tiny/hf");
    let golden: BTreeMap<String, Array> = npz(&golden("tiny/hidden_states.npz"));
    let expected = |name: &str| golden[name].f32();
    let (config, weights, threads) = (model.config(), model.weights(), Threads::new(2));
    let ids = golden["input_ids"].ids();
    let mut rope = config.rope_table();
    rope.grow_to(ids.len());
    let positions: Vec<u32> = (0..ids.len() as u32).collect();
    let products = Products::F32;
    let pass = Pass { threads: &threads, config, rope: &rope, positions: &positions, changes: &[], products };
    let sequences = Sequences { count: 1, time: ids.len(), document_starts: None };
    let mut x = vec![0.0; ids.len() * config.model_dim];
    let mut out = x.clone();
    embedding::forward(&threads, &mut x, &ids, weights.embedding, config.model_dim);
    assert_near("embedding", &x, &expected("embedding"));
    for (i, (layer, weights)) in config.layers.iter().zip(&weights.layers).enumerate() {
        let (mut kept, mut scratch) = (Activations::default(), LinearScratch::default());
        let keys_and_values = KeysAndValues::InPass(sequences);
        let buffers = BlockBuffers { x: &x, out: &mut out, kept: &mut kept, scratch: &mut scratch, keys_and_values };
        block::forward(&pass, i, weights, buffers);
        let name = |part: &str| format!("layer{i}.{part}");
        assert_near(&name("attn.qkv_proj"), &kept.qkv, &expected(&name("attn.qkv_proj")));
        let q = by_head(&kept.q, layer.query_heads, config.head_dim);
        assert_near(&name("attn.q_rope"), &q, &expected(&name("attn.q_rope")));
        let k = by_head(&kept.k, layer.kv_heads, config.head_dim);
        assert_near(&name("attn.k_rope"), &k, &expected(&name("attn.k_rope")));
        let attention: Vec<f32> = kept.mid.iter().zip(&x).map(|(mid, x)| mid - x).collect();
        assert_near(&name("attn"), &attention, &expected(&name("attn")));
        let mut normed = vec![0.0; x.len()];
        weights.ffn_norm.forward(&threads, &mut normed, &kept.mid);
        assert_near(&name("ffn_norm"), &normed, &expected(&name("ffn_norm")));
        let ffn: Vec<f32> = out.iter().zip(&kept.mid).map(|(out, mid)| out - mid).collect();
        assert_near(&name("ffn"), &ffn, &expected(&name("ffn")));
        assert_near(&name("output"), &out, &expected(&name("output")));
        std::mem::swap(&mut x, &mut out);
    }
    assert_near("logits", &logits(&model, &ids, 1000), &expected("logits"));
}

#[test]
fn an_engine_shows_its_hidden_states() {
    let engine = Engine::new(model("tiny/hf"), Threads::new(2));
    let golden: BTreeMap<String, Array> = npz(&golden("tiny/hidden_states.npz"));
    let states = engine.hidden_states(&golden["input_ids"].ids()).unwrap();
    let layers = engine.model().config().layers.len();
    let name = |state: usize| match state {
        0 => "embedding".to_owned(),
        last if last == layers => "final_norm".to_owned(),
        state => format!("layer{}.output", state - 1),
    };
    for (state, values) in states.chunks(states.len() / (layers + 1)).enumerate() {
        assert_near(&name(state), values, &golden[&name(state)].f32());
    }
    // More tokens than a pass has rows: the first of them have the same states.
    let many: Vec<u32> = golden["input_ids"].ids().into_iter().cycle().take(600).collect();
    let all = engine.hidden_states(&many).unwrap();
    let (few, dim) = (golden["input_ids"].ids().len(), engine.model().config().model_dim);
    for state in 0..=layers {
        assert_eq!(all[state * many.len() * dim..][..few * dim], states[state * few * dim..][..few * dim]);
    }
    assert_eq!(engine.hidden_states(&[]), Err(EngineError::Empty));
    assert_eq!(engine.hidden_states(&[512]), Err(EngineError::Id { id: 512, vocabulary: 512 }));
}

#[test]
fn tokens_taken_in_a_few_at_a_time_or_computed_again_give_the_same_logits() {
    let engine = Arc::new(Engine::new(model("tiny/hf"), Threads::new(2)));
    let ids: Vec<u32> = (0..40).map(|i| i * 37 % 512).collect();
    let mut session = Session::new(engine.clone(), 64);
    let expected = session.append(&ids).unwrap().to_vec();
    session.drop_cache();
    assert_eq!(session.tokens(), ids);
    assert_eq!(session.logits().unwrap(), expected);
    let mut session = Session::new(engine, 64);
    session.extend(&ids).unwrap();
    assert_eq!(session.advance(10).unwrap(), 29);
    assert_eq!(session.advance(100).unwrap(), 0);
    assert_eq!(session.advance(100).unwrap(), 0);
    assert_eq!(session.tokens(), ids);
    assert_eq!(session.logits().unwrap(), expected);
    let mut empty = session.fork();
    empty.truncate(0);
    empty.drop_cache();
    assert_eq!(empty.advance(1).unwrap(), 0);
}

#[test]
fn ids_and_contexts_out_of_range_are_refused_and_change_nothing() {
    let model = model("tiny/hf");
    let mut session = Session::new(Engine::new(model.clone(), Threads::single()), 4);
    assert_eq!(session.append(&[]).unwrap_err(), EngineError::Empty);
    assert_eq!(session.append(&[1, 512]).unwrap_err(), EngineError::Id { id: 512, vocabulary: 512 });
    session.append(&[1, 2, 3]).unwrap();
    assert_eq!(session.append(&[4, 5]).unwrap_err(), EngineError::ContextFull { tokens: 5, limit: 4 });
    assert_eq!(session.len(), 3);
    assert!(session.append(&[4]).is_ok());
}
