//! Models computed in integers or 16 bits, beside the exact ones and beside llama.cpp and MLX, which round too.

#![allow(clippy::unwrap_used)]

use std::path::Path;

use openelm_formats::open;
use openelm_model::kernels::Threads;
use openelm_model::kernels::rounded::Products;
use openelm_model::{Engine, Model, Session};
use openelm_testing::{golden, npz};

fn logits(model: &Model, ids: &[u32]) -> Vec<f32> {
    let mut session = Session::new(Engine::new(model.clone(), Threads::new(2)), ids.len());
    let mut logits = Vec::new();
    session.append_all(ids, |rows| logits.extend_from_slice(rows)).unwrap();
    logits
}

/// Root of the mean squared difference.
fn distance(a: &[f32], b: &[f32]) -> f64 {
    assert_eq!(a.len(), b.len());
    let sum: f64 = a.iter().zip(b).map(|(a, b)| f64::from(a - b).powi(2)).sum();
    (sum / a.len() as f64).sqrt()
}

/// Compares the model packed with the peer's own logits, both by their distance from the exact ones.
#[track_caller]
fn as_close_as_the_peer(name: &str, model: &Path, arrays: &Path) {
    let packed = open(model).unwrap().into_packed_model(&Threads::new(2)).unwrap();
    is_as_close_as_the_peer(name, &packed, arrays);
}

#[track_caller]
fn is_as_close_as_the_peer(name: &str, packed: &Model, arrays: &Path) {
    let arrays = npz(arrays);
    let key = arrays.keys().find(|key| key.ends_with("ids")).unwrap();
    let ids = arrays[key].ids();
    let exact = arrays["logits_dequantised_f32"].f32();
    let ours = distance(&logits(packed, &ids), &exact);
    let theirs = distance(&arrays["logits"].f32(), &exact);
    println!("{name}: ours {ours:.5}, the peer's {theirs:.5} from the exact logits");
    assert!(ours > 0.0, "{name}: nothing was rounded");
    assert!(ours <= theirs, "{name}: {ours} from the exact logits, the peer {theirs}");
}

#[test]
fn products_in_bf16_are_as_close_to_the_exact_logits_as_llama_cpp() {
    let folder = golden("gguf");
    let model = open(&folder.join("a-BF16.gguf")).unwrap().into_model().unwrap().with_products(Products::BF16);
    is_as_close_as_the_peer("a-BF16", &model, &folder.join("a-BF16.logits.npz"));
}

/// The mean over the positions of the Kullback-Leibler divergence of the logits `found` from `exact`, in nats.
fn mean_divergence(exact: &[f32], found: &[f32], vocabulary: usize) -> f64 {
    let log_probabilities = |row: &[f32]| {
        let sum: f64 = row.iter().map(|&x| f64::from(x).exp()).sum();
        row.iter().map(|&x| f64::from(x) - sum.ln()).collect::<Vec<_>>()
    };
    let rows = exact.chunks_exact(vocabulary).zip(found.chunks_exact(vocabulary));
    let divergence = |(exact, found): (&[f32], &[f32])| {
        let (p, q) = (log_probabilities(exact), log_probabilities(found));
        p.iter().zip(&q).map(|(p, q)| p.exp() * (p - q)).sum::<f64>()
    };
    rows.map(divergence).sum::<f64>() / (exact.len() / vocabulary) as f64
}

#[test]
fn models_of_sixteen_bits_change_little_in_bf16() {
    let arrays = npz(&golden("gguf/a-F16.logits.npz"));
    let ids = arrays[arrays.keys().find(|key| key.ends_with("ids")).unwrap()].ids();
    for (name, limit) in [("a-BF16", 1e-4), ("a-F16", 3e-4)] {
        let model = open(&golden(&format!("gguf/{name}.gguf"))).unwrap().into_model().unwrap();
        let exact = logits(&model, &ids);
        let vocabulary = model.config().vocab_size;
        let found = mean_divergence(&exact, &logits(&model.with_products(Products::BF16), &ids), vocabulary);
        println!("{name}: {found:.2e} nats from the exact logits");
        assert!(found > 0.0 && found < limit, "{name}: {found}");
    }
}

#[test]
fn blocks_in_integers_are_as_close_to_the_exact_logits_as_llama_cpp() {
    for name in ["a-Q8_0", "a-Q4_0", "b-Q4_K_M", "b-Q5_K_M", "b-Q6_K"] {
        let folder = golden("gguf");
        as_close_as_the_peer(name, &folder.join(format!("{name}.gguf")), &folder.join(format!("{name}.logits.npz")));
    }
}
