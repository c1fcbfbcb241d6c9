//! Every way in which a Hugging Face folder can be wrong is told apart, in one sentence that names the file.

use std::fs;
use std::path::Path;

use openelm_formats::huggingface;
use openelm_testing::golden;
use safetensors::{Dtype, SafeTensors, serialize, tensor::TensorView};
use serde_json::{Value, json};

/// A copy of the small reference model.
fn copy() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    for name in ["config.json", "model.safetensors"] {
        fs::write(folder.path().join(name), fs::read(golden("tiny/hf").join(name)).unwrap()).unwrap();
    }
    folder
}

fn message(folder: &Path) -> String {
    huggingface::read(folder).expect_err("this is no sound model").to_string()
}

#[track_caller]
fn refuses(folder: &Path, parts: &[&str]) {
    let message = message(folder);
    for part in parts {
        assert!(message.contains(part), "{part:?} is not in: {message}");
    }
    assert!(!message.contains('\n'), "more than one line: {message}");
}

fn change_config(folder: &Path, change: impl FnOnce(&mut Value)) {
    let path = folder.join("config.json");
    let mut config: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    change(&mut config);
    fs::write(path, config.to_string()).unwrap();
}

/// Rewrites the weights with one tensor replaced, or left out where `with` is `None`.
fn change_tensor(folder: &Path, name: &str, with: Option<(Dtype, Vec<usize>, Vec<u8>)>) {
    let path = folder.join("model.safetensors");
    let bytes = fs::read(&path).unwrap();
    let file = SafeTensors::deserialize(&bytes).unwrap();
    let tensors = file.iter().filter_map(|(found, view)| match (&with, found == name) {
        (_, false) => Some((found.to_owned(), view.clone())),
        (None, true) => None,
        (Some((dtype, shape, data)), true) => {
            Some((found.to_owned(), TensorView::new(*dtype, shape.clone(), data).unwrap()))
        }
    });
    let changed = serialize(tensors, None).unwrap();
    fs::write(path, changed).unwrap();
}

#[test]
fn files_that_are_missing_empty_or_cut_off() {
    let folder = copy();
    let (root, weights) = (folder.path(), folder.path().join("model.safetensors"));
    refuses(&root.join("nowhere"), &["nowhere"]);
    let whole = fs::read(&weights).unwrap();
    for (length, reason) in [(0, "empty"), (5, "model.safetensors"), (whole.len() - 1, "model.safetensors")] {
        fs::write(&weights, &whole[..length]).unwrap();
        refuses(root, &[reason]);
    }
    // A header that claims to be longer than the file, and one longer than any memory.
    for length in [whole.len() as u64, u64::MAX] {
        let mut lying = whole.clone();
        lying[..8].copy_from_slice(&length.to_le_bytes());
        fs::write(&weights, lying).unwrap();
        refuses(root, &["model.safetensors", "not a sound safetensors file"]);
    }
    fs::remove_file(&weights).unwrap();
    refuses(root, &["model.safetensors is missing"]);
    fs::remove_file(root.join("config.json")).unwrap();
    refuses(root, &["config.json is missing"]);
}

#[test]
fn tensors_that_are_not_what_the_geometry_asks_for() {
    const NAME: &str = "transformer.norm.weight";
    let file = "model.safetensors";
    let dim = huggingface::read(&golden("tiny/hf")).unwrap().config.model_dim;

    let folder = copy();
    change_tensor(folder.path(), NAME, Some((Dtype::F32, vec![dim + 1], vec![0; 4 * (dim + 1)])));
    refuses(folder.path(), &[NAME, file, &format!("expected [{dim}], found [{}]", dim + 1)]);
    let folder = copy();
    change_tensor(folder.path(), NAME, Some((Dtype::I64, vec![dim], vec![0; 8 * dim])));
    refuses(folder.path(), &[NAME, file, "I64"]);
    let folder = copy();
    change_tensor(folder.path(), NAME, None);
    refuses(folder.path(), &[NAME, "missing"]);
    let folder = copy();
    change_config(folder.path(), |config| config["num_transformer_layers"] = json!(1));
    let message = message(folder.path());
    assert!(message.contains("config.json"), "{message}");
}

#[test]
fn configurations_that_make_no_model() {
    let refuses_change = |change: fn(&mut Value), parts: &[&str]| {
        let folder = copy();
        change_config(folder.path(), change);
        refuses(folder.path(), &[&["config.json"], parts].concat());
    };
    refuses_change(|config| config["num_kv_heads"][0] = json!(3), &["which 3 key/value heads do not divide"]);
    refuses_change(|config| config["vocab_size"] = json!(0), &["vocab_size is 0"]);
    refuses_change(|config| config["vocab_size"] = json!("many"), &["\"many\"", "line 1"]);
    refuses_change(|config| config["model_dim"] = json!(1u64 << 40), &["parameters"]);
    refuses_change(|config| config["head_dim"] = json!(-8), &["-8", "line 1"]);
    refuses_change(|config| *config = json!([1, 2]), &[]);
    let folder = copy();
    fs::write(folder.path().join("config.json"), "{ \"model_dim\": 12").unwrap();
    refuses(folder.path(), &["config.json", "line 1"]);
}

#[test]
fn an_index_cannot_name_files_elsewhere() {
    let folder = copy();
    let index = folder.path().join("model.safetensors.index.json");
    fs::remove_file(folder.path().join("model.safetensors")).unwrap();
    for (file, reason) in
        [("../secret", "../secret"), ("/etc/hostname", "/etc/hostname"), ("part.safetensors", "is missing")]
    {
        fs::write(&index, json!({ "weight_map": { "transformer.norm.weight": file } }).to_string()).unwrap();
        refuses(folder.path(), &[reason]);
    }
    fs::write(&index, "{}").unwrap();
    refuses(folder.path(), &["index.json", "weight_map"]);
}
