//! Every stored form of a model gives the logits that its peer computed (`tests/golden/{tiny,tiny_variants,mlx,gguf}`;
//! tolerances as in the README there).

#![allow(clippy::unwrap_used)]

use std::fs;
use std::path::{Path, PathBuf};

use openelm_formats::{Format, StoredModel, open};
use openelm_model::kernels::Threads;
use openelm_model::{Engine, ModelConfig, Session};
use openelm_testing::{golden, json, max_difference, npz};

/// Logits `[T, V]` of `ids`, computed with weights widened to `f32`.
fn logits(stored: StoredModel, ids: &[u32]) -> Vec<f32> {
    let model = stored.into_model().unwrap().widened();
    let mut session = Session::new(Engine::new(model.clone(), Threads::new(2)), ids.len());
    let mut all = Vec::new();
    session.append_all(ids, |logits| all.extend_from_slice(logits)).unwrap();
    all
}

/// Compares with the array `key` of `arrays`, a file of logits.
#[track_caller]
fn agrees(stored: StoredModel, format: Format, arrays: &Path, key: &str, tolerance: f32) {
    let path = stored.path.clone();
    assert_eq!(stored.format, format, "{}", path.display());
    let arrays = npz(arrays);
    let ids = &arrays["input_ids"];
    let time = *ids.shape.last().unwrap();
    let width = time * stored.config.vocab_size;
    // Sequences of a batch do not see each other: one will do.
    let found = logits(stored, &ids.ids()[..time]);
    let difference = max_difference(&found, &arrays[key].f32()[..width]);
    println!("{} against {key}: {difference:e}", path.display());
    assert!(difference <= tolerance, "{} against {key}: {difference:e}", path.display());
}

/// The entries of a folder, in order.
fn entries(folder: &Path) -> Vec<PathBuf> {
    let mut entries: Vec<PathBuf> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    entries.sort();
    entries
}

#[test]
fn hugging_face_and_corenet_folders_and_files() {
    let arrays = npz(&golden("tiny/logits.npz"));
    let (ids, expected) = (arrays["seq0.input_ids"].ids(), arrays["seq0.logits"].f32());
    for (path, format) in [
        ("tiny/hf", Format::HuggingFace),
        ("tiny/hf/model.safetensors", Format::HuggingFace),
        ("tiny/corenet", Format::CoreNet),
        ("tiny/corenet/checkpoint_average.pt", Format::CoreNet),
    ] {
        let stored = open(&golden(path)).unwrap();
        assert_eq!(stored.format, format);
        let difference = max_difference(&logits(stored, &ids), &expected);
        assert!(difference <= 5e-5, "{path}: {difference:e}");
    }
    for variant in ["noglu_mqa", "untied_noqknorm"] {
        let folder = golden(&format!("tiny_variants/{variant}"));
        let arrays = folder.join("logits.npz");
        agrees(open(&folder).unwrap(), Format::HuggingFace, &arrays, "logits", 5e-5);
        agrees(open(&folder.join("checkpoint.pt")).unwrap(), Format::CoreNet, &arrays, "logits", 5e-5);
    }
}

#[test]
fn mlx_folders_of_every_width_and_group() {
    let mut count = 0;
    for folder in entries(&golden("mlx")).into_iter().filter(|path| path.join("model.safetensors").exists()) {
        let name = folder.file_name().unwrap().to_str().unwrap().to_owned();
        let own = folder.join("logits.npz");
        let wide = if name.contains("bfloat16") { 0.4 } else { 0.06 };
        match name.as_str() {
            "hf_source_f16" => {
                let exact = golden("mlx/torch_f32_logits.npz");
                agrees(open(&folder).unwrap(), Format::HuggingFace, &exact, "logits", 2e-4);
            }
            _ if name.starts_with('q') => {
                agrees(open(&folder).unwrap(), Format::Mlx, &own, "logits_dequantised_f32", 1e-3);
                agrees(open(&folder).unwrap(), Format::Mlx, &own, "logits", wide);
            }
            "float16" => {
                let exact = golden("mlx/torch_f32_logits.npz");
                agrees(open(&folder).unwrap(), Format::Mlx, &exact, "logits", 2e-4);
                agrees(open(&folder).unwrap(), Format::Mlx, &own, "logits", wide);
            }
            _ => agrees(open(&folder).unwrap(), Format::Mlx, &own, "logits", wide),
        }
        count += 1;
    }
    assert_eq!(count, 11);
}

#[test]
fn folders_of_corenets_own_mlx_converter() {
    let exact = golden("mlx/corenet_open_elm/torch_logits.npz");
    agrees(open(&golden("mlx/corenet_open_elm")).unwrap(), Format::CoreNet, &exact, "logits", 5e-5);
    for (dtype, tolerance) in [("float32", 2e-4), ("float16", 0.06), ("bfloat16", 0.4)] {
        let folder = golden(&format!("mlx/corenet_open_elm/{dtype}"));
        let own = folder.join("logits.npz");
        agrees(open(&folder).unwrap(), Format::Mlx, &own, "logits", tolerance);
        agrees(open(&folder.join("weights.safetensors")).unwrap(), Format::Mlx, &own, "logits", tolerance);
    }
}

#[test]
fn gguf_files_of_every_type() {
    let mut count = 0;
    for file in entries(&golden("gguf")).into_iter().filter(|path| path.extension().is_some_and(|e| e == "gguf")) {
        let arrays = file.with_extension("logits.npz");
        let llama_cpp = match file.file_stem().unwrap().to_str().unwrap() {
            "a-F32" => 1e-4,
            "a-F16" => 0.03,
            "a-BF16" => 0.15,
            _ => 0.5,
        };
        agrees(open(&file).unwrap(), Format::Gguf, &arrays, "logits_dequantised_f32", 2e-4);
        agrees(open(&file).unwrap(), Format::Gguf, &arrays, "logits", llama_cpp);
        count += 1;
    }
    assert_eq!(count, 8);
}

#[test]
fn the_tokenizer_in_a_gguf_encodes_as_llama_cpp_does() {
    let info = json(&golden("gguf/info.json"));
    for name in ["a-F32.gguf", "b-Q4_K_M.gguf"] {
        let tokenizer = open(&golden("gguf").join(name)).unwrap().tokenizer.unwrap().open().unwrap();
        let prompt = tokenizer.encode_with(info["prompt"].as_str().unwrap(), true, false);
        assert_eq!(serde_json::json!(prompt), info["ids"]);
        for case in info["tokenizer_checks"].as_array().unwrap() {
            let text = case["text"].as_str().unwrap();
            assert_eq!(serde_json::json!(tokenizer.encode(text)), case["ids"], "{text:?}");
        }
    }
}

#[test]
fn a_training_checkpoint_holds_the_model_beside_its_moments() {
    let folder = golden("train/checkpoint_dir");
    let info = json(&folder.join("info.json"));
    // There is no YAML: the geometry is that of the shapes. Of several files the folder's last checkpoint counts.
    let plain = open(&folder).unwrap();
    assert_eq!(plain.files, [folder.join("checkpoint_last.pt")]);
    let stored = open(&folder.join("training_checkpoint_last.pt")).unwrap();
    for model in [&plain, &stored] {
        let ModelConfig { vocab_size, model_dim, head_dim, ref layers, .. } = model.config;
        assert_eq!(info["model"]["vocab_size"], vocab_size);
        assert_eq!(info["model"]["model_dim"], model_dim);
        assert_eq!(info["model"]["head_dim"], head_dim);
        assert_eq!(info["model"]["num_transformer_layers"], layers.len());
        assert!(!model.notes.is_empty(), "a guess must be told");
    }
    for spec in plain.specs() {
        assert_eq!(plain.tensor(&spec.name).unwrap().bytes(), stored.tensor(&spec.name).unwrap().bytes());
    }
}

#[test]
fn a_padded_vocabulary_is_cut_on_request() {
    let mut cut = open(&golden("tiny/corenet")).unwrap();
    let whole = open(&golden("tiny/corenet")).unwrap();
    let (rows, ids) = (500, [1, 7, 42, 499]);
    assert!(cut.trim_vocabulary(whole.config.vocab_size + 1).is_err());
    assert!(cut.trim_vocabulary(0).is_err());
    cut.trim_vocabulary(rows).unwrap();
    let vocabulary = whole.config.vocab_size;
    let (found, expected) = (logits(cut, &ids), logits(whole, &ids));
    for (found, expected) in found.chunks(rows).zip(expected.chunks(vocabulary)) {
        assert_eq!(found, &expected[..rows]);
    }
}
