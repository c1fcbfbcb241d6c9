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

#[test]
fn blocks_in_integers_are_as_close_to_the_exact_logits_as_llama_cpp() {
    for name in ["a-Q8_0", "a-Q4_0", "b-Q4_K_M", "b-Q5_K_M", "b-Q6_K"] {
        let folder = golden("gguf");
        as_close_as_the_peer(name, &folder.join(format!("{name}.gguf")), &folder.join(format!("{name}.logits.npz")));
    }
}
