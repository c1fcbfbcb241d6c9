//! Agreement of the neighbouring families with transformers 5: logits of small random models (`tests/golden/rivals`; 5e-5
//! absolute), as they are stored and through every format.

#![allow(clippy::unwrap_used)]

use std::path::Path;

use openelm_formats::{StoredModel, open};
use openelm_model::kernels::Threads;
use openelm_model::{Engine, Family, Model, RopeScaling, Session};
use openelm_testing::{golden, max_difference, npz};

const TOLERANCE: f32 = 5e-5;
const NAMES: [&str; 6] = ["llama", "llama3", "llama_linear", "qwen2", "olmo", "olmo2"];

fn stored(name: &str) -> StoredModel {
    open(&golden("rivals").join(name)).unwrap()
}

/// The distance of the logits of `model` from those of the golden model `name`, taken in `chunk` tokens at a time.
fn distance(name: &str, model: &Model, chunk: usize) -> f32 {
    let golden = npz(&golden("rivals").join(name).join("logits.npz"));
    let (ids, time) = (golden["input_ids"].ids(), golden["input_ids"].shape[1]);
    let mut found = Vec::new();
    for ids in ids.chunks(time) {
        let mut session = Session::new(Engine::new(model.clone(), Threads::new(2)), time);
        for ids in ids.chunks(chunk) {
            session.append_all(ids, |logits| found.extend_from_slice(logits)).unwrap();
        }
    }
    max_difference(&found, &golden["logits"].f32())
}

#[test]
fn logits_are_those_of_transformers() {
    for name in NAMES {
        let model = stored(name).into_model().unwrap();
        for chunk in [1, 5, 1000] {
            let difference = distance(name, &model, chunk);
            println!("{name} in chunks of {chunk}: {difference:e}");
            assert!(difference <= TOLERANCE, "{name} in chunks of {chunk}: {difference:e}");
        }
        assert!(distance(name, &model.widened(), 1000) <= TOLERANCE, "{name}, widened");
        assert_eq!(model.weight_bytes(), 2 * model.config().parameters() + vector_bytes(&model), "{name}");
    }
}

/// Bytes of vectors beyond the two of an element, as they are widened.
fn vector_bytes(model: &Model) -> usize {
    let specs = openelm_model::tensor_specs(model.config());
    2 * specs.iter().filter(|spec| spec.shape.len() == 1).map(|spec| spec.len()).sum::<usize>()
}

/// The golden model `name` with another `config.json`.
fn with_config(name: &str, config: &str, folder: &Path) {
    let source = golden("rivals").join(name);
    std::fs::write(folder.join("config.json"), config).unwrap();
    std::fs::copy(source.join("model.safetensors"), folder.join("model.safetensors")).unwrap();
}

#[test]
fn configurations_of_transformers_4_and_5_say_the_same() {
    for name in NAMES {
        let folder = tempfile::tempdir().unwrap();
        let old = std::fs::read_to_string(golden("rivals").join(name).join("config_v4.json")).unwrap();
        assert!(old.contains("rope_theta") && !old.contains("rope_parameters"));
        with_config(name, &old, folder.path());
        assert_eq!(open(folder.path()).unwrap().config, stored(name).config, "{name}");
    }
    assert_eq!(stored("olmo2").config.family, Family::Olmo2);
    let llama3 = RopeScaling::Llama3 { factor: 8.0, low_turns: 1.0, high_turns: 4.0, original_length: 32 };
    assert_eq!(stored("llama3").config.rope_scaling, llama3);
}
