//! Adapters of Llama's separate modules, of mlx-lm and of llama.cpp: read to the peers' logits (`tests/golden/adapters`; 5e-5
//! absolute), and written so that nothing changes.

#![allow(clippy::unwrap_used)]

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use openelm_formats::adapter::{self, mlx, peft};
use openelm_formats::{FormatError, gguf, huggingface};
use openelm_model::kernels::Threads;
use openelm_model::{Adapter, AdapterWeights, Engine, Model, Session};
use openelm_testing::{golden, json, max_difference, npz};

const CASES: [&str; 7] =
    ["peft_lora", "peft_rslora", "peft_dora", "mlx_lora", "mlx_dora", "mlx_openelm", "mlx_openelm_dora"];
const TOLERANCE: f32 = 5e-5;

fn folder(case: &str) -> PathBuf {
    golden("adapters").join(case)
}

fn model_of(case: &str) -> Model {
    let path = golden(if case.contains("openelm") { "tiny/hf" } else { "rivals/llama3" });
    huggingface::read(&path).unwrap().into_model().unwrap()
}

fn read(case: &str) -> Adapter {
    adapter::open(&folder(case), model_of(case).config()).unwrap()
}

fn logits(model: &Model, adapter: &Adapter, ids: &[u32]) -> Vec<f32> {
    let threads = Threads::new(2);
    let weights = Arc::new(AdapterWeights::new(adapter, model, &threads));
    let mut session = Session::adapted(Engine::new(model.clone(), threads), ids.len(), weights).unwrap();
    let mut found = Vec::new();
    session.append_all(ids, |rows| found.extend_from_slice(rows)).unwrap();
    found
}

/// How far `adapter` is from what the peer of `case` made of the one it wrote.
fn difference(case: &str, adapter: &Adapter) -> f32 {
    let expected = npz(&folder(case).join("logits.npz"));
    max_difference(&logits(&model_of(case), adapter, &expected["input_ids"].ids()), &expected["logits"].f32())
}

#[test]
fn logits_are_those_of_the_peers() {
    for case in CASES {
        let difference = difference(case, &read(case));
        println!("{case}: {difference:e}");
        assert!(difference <= TOLERANCE, "{case} differs by {difference:e}");
    }
}

type Write = fn(&Path, &Adapter) -> Result<(), FormatError>;

const FORMS: [(&str, Write); 3] = [
    ("peft", peft::write),
    ("mlx", mlx::write),
    ("adapter.gguf", |path, adapter| gguf::adapter::write(path, "test", adapter)),
];

#[test]
fn an_adapter_goes_through_every_format_and_does_the_same() {
    for case in CASES {
        let adapter = read(case);
        for (name, write) in FORMS {
            let folder = tempfile::tempdir().unwrap();
            let target = folder.path().join(name);
            let written = write(&target, &adapter);
            if case.contains("dora") && name.contains("gguf") {
                let refused = written.unwrap_err().to_string();
                assert!(refused.contains("no DoRA") && !target.exists(), "{refused}");
                continue;
            }
            written.unwrap();
            assert!(write(&target, &adapter).unwrap_err().to_string().contains("exists already"));
            let back = adapter::open(&target, adapter.config()).unwrap();
            let difference = difference(case, &back);
            assert!(difference <= TOLERANCE, "{case} through {name} differs by {difference:e}");
        }
    }
}

#[test]
fn what_peft_wrote_of_llama_is_written_so_again() {
    // In `peft_lora` parts of one matrix are scaled otherwise than each other, which goes into B.
    for case in ["peft_rslora", "peft_dora"] {
        let target = tempfile::tempdir().unwrap();
        peft::write(target.path(), &read(case)).unwrap();
        let weights = |folder: &Path| fs::read(folder.join("adapter_model.safetensors")).unwrap();
        assert!(weights(target.path()) == weights(&folder(case)), "{case}: other tensors");
        let [ours, theirs] = [target.path(), &folder(case)].map(|folder| json(&folder.join("adapter_config.json")));
        for key in ["use_dora", "use_rslora"] {
            assert_eq!(ours[key], theirs[key], "{case}: {key}");
        }
    }
}

#[test]
fn what_a_format_cannot_say_is_refused_and_leaves_nothing() {
    // The table of `tiny/hf` is its output projection too.
    let config = model_of("mlx_openelm").config().clone();
    let adapter = adapter::open(&golden("lora/with_embeddings"), &config).unwrap();
    let folder = tempfile::tempdir().unwrap();
    for (name, write) in &FORMS[1..] {
        let target = folder.path().join(name);
        let refused = write(&target, &adapter).unwrap_err().to_string();
        assert!(refused.contains("output projection as well"), "{refused}");
        assert!(!target.exists(), "{name} was begun");
    }
}

#[test]
fn adapters_of_other_models_are_refused() {
    let (llama, tiny) = (model_of("mlx_lora").config().clone(), model_of("mlx_openelm").config().clone());
    assert!(adapter::open(&folder("mlx_lora"), &tiny).unwrap_err().to_string().contains("adapters.safetensors"));
    assert!(adapter::open(&folder("peft_lora"), &tiny).unwrap_err().to_string().contains("no such linear"));
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("a.gguf");
    gguf::adapter::write(&file, "a", &read("mlx_lora")).unwrap();
    let refused = adapter::open(&file, &tiny).unwrap_err().to_string();
    assert!(refused.contains("general.architecture is llama; an adapter for this model has openelm"), "{refused}");
    let refused = adapter::open(&golden("rivals/llama3/model.gguf"), &llama).unwrap_err().to_string();
    assert!(refused.contains("general.type is model"), "{refused}");
    // Cut off anywhere, it is refused and never read beyond its end.
    let bytes = fs::read(&file).unwrap();
    for length in (0..bytes.len()).step_by(97) {
        assert!(gguf::adapter::from_bytes(bytes[..length].to_vec().into(), &file, &llama).is_err(), "{length} bytes");
    }
}
