//! Models as people have them: which file is meant, what configurations say, what stands in a file's place.

#![allow(clippy::unwrap_used)]

use std::fs;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use openelm_formats::huggingface::{self, WriteOptions};
use openelm_formats::{Format, StoredModel, Target, corenet, open};
use openelm_model::kernels::Threads;
use openelm_model::{DType, Geometry, ModelConfig, Tensor, TensorSpec};
use openelm_testing::{golden, shared};
use serde_json::{Value, json};
use tempfile::TempDir;

fn config() -> ModelConfig {
    Geometry { layers: 1, dim: 64, head_dim: 32, gqa_groups: 1, ffn_divisor: 32, ..Geometry::default() }
        .build(40)
        .unwrap()
}

/// A Hugging Face folder whose weights are all `value`.
fn model(folder: &Path, value: f32, shard_bytes: usize) {
    let tensor = |spec: &TensorSpec| Ok(Tensor::from_f32(spec.shape.clone(), vec![value; spec.len()])?);
    let options = WriteOptions { dtype: DType::F32, shard_bytes };
    huggingface::write(folder, &config(), None, &tensor, options, &Threads::single()).unwrap();
}

fn value_of(model: &StoredModel) -> f32 {
    let values: Vec<f32> = model.specs().iter().map(|spec| model.tensor(&spec.name).unwrap().to_f32()[0]).collect();
    assert!(values.iter().all(|value| *value == values[0]), "tensors of several models: {values:?}");
    values[0]
}

fn edit(file: &Path, change: impl FnOnce(&mut Value)) {
    let mut json = serde_json::from_slice(&fs::read(file).unwrap()).unwrap();
    change(&mut json);
    fs::write(file, json.to_string()).unwrap();
}

fn json_at(file: &Path) -> Value {
    serde_json::from_slice(&fs::read(file).unwrap()).unwrap()
}

fn converted(from: &Path, to: &Path, target: Target) -> StoredModel {
    let go_on = |_| ControlFlow::Continue(());
    openelm_formats::convert(&open(from).unwrap(), to, target, &Threads::single(), &go_on).unwrap();
    open(to).unwrap()
}

#[test]
fn the_file_that_is_named_is_read() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    model(&at("a"), 1.0, 0);
    model(&at("b"), 2.0, 0);
    fs::copy(at("b/model.safetensors"), at("a/other.safetensors")).unwrap();
    for (name, value) in [("a/model.safetensors", 1.0), ("a/other.safetensors", 2.0), ("a", 1.0)] {
        let read = open(&at(name)).unwrap();
        assert_eq!(value_of(&read), value, "{name}");
        assert_eq!(read.path, at(name));
    }
    assert_eq!(open(&at("a/other.safetensors")).unwrap().files, [at("a/other.safetensors")]);
    // The same for what CoreNet's converter to MLX writes.
    fs::create_dir(at("mlx")).unwrap();
    for name in ["config.json", "weights.safetensors"] {
        fs::copy(golden("mlx/corenet_open_elm/float32").join(name), at("mlx").join(name)).unwrap();
    }
    fs::rename(at("mlx/weights.safetensors"), at("mlx/mine.safetensors")).unwrap();
    let read = open(&at("mlx/mine.safetensors")).unwrap();
    assert_eq!((read.format, read.files), (Format::Mlx, vec![at("mlx/mine.safetensors")]));
}

#[test]
fn any_shard_stands_for_all_of_them() {
    let folder = tempfile::tempdir().unwrap();
    model(folder.path(), 1.0, 20_000);
    let shards = open(folder.path()).unwrap().files;
    assert!(shards.len() > 2);
    // A whole model of another value beside them.
    let other = tempfile::tempdir().unwrap();
    model(other.path(), 2.0, 0);
    fs::copy(other.path().join("model.safetensors"), folder.path().join("model.safetensors")).unwrap();
    for shard in &shards {
        let read = open(shard).unwrap();
        assert_eq!((value_of(&read), &read.files), (1.0, &shards));
    }
    fs::remove_file(&shards[1]).unwrap();
    let error = open(&shards[0]).unwrap_err().to_string();
    assert!(error.contains("-00002-of-") && error.contains("missing"), "{error}");
}

#[test]
fn an_old_index_beside_a_whole_model_is_passed_over() {
    let folder = tempfile::tempdir().unwrap();
    let index = folder.path().join("model.safetensors.index.json");
    model(folder.path(), 1.0, 0);
    for (what, text) in [
        ("shards that are gone", r#"{"weight_map": {"transformer.norm.weight": "model-00001-of-00002.safetensors"}}"#),
        ("nonsense", "nonsense"),
    ] {
        fs::write(&index, text).unwrap();
        let read = open(folder.path()).unwrap();
        assert_eq!(value_of(&read), 1.0, "{what}");
        assert!(read.notes[0].contains("model.safetensors.index.json"), "{what}: {:?}", read.notes);
    }
    // One that names the file is followed, without a word.
    fs::write(&index, r#"{"weight_map": {"transformer.norm.weight": "model.safetensors"}}"#).unwrap();
    assert!(open(folder.path()).unwrap().notes.is_empty());
    // Without the whole file it is asked for what is gone.
    fs::write(&index, r#"{"weight_map": {"transformer.norm.weight": "model-00001-of-00002.safetensors"}}"#).unwrap();
    fs::remove_file(folder.path().join("model.safetensors")).unwrap();
    assert!(open(folder.path()).unwrap_err().to_string().contains("model-00001-of-00002.safetensors is missing"));
}

#[test]
fn the_dtype_is_said_once_and_as_it_was() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    model(&at("a"), 1.0, 0);
    for (before, after) in [
        (json!({ "torch_dtype": "float32" }), json!({ "torch_dtype": "bfloat16" })),
        (json!({ "dtype": "float32" }), json!({ "dtype": "bfloat16" })),
        (json!({ "dtype": "float32", "torch_dtype": "float32" }), json!({ "dtype": "bfloat16" })),
        (json!({}), json!({ "torch_dtype": "bfloat16" })),
    ] {
        edit(&at("a/config.json"), |json| {
            let keys = json.as_object_mut().unwrap();
            keys.retain(|key, _| !key.contains("dtype"));
            keys.extend(before.as_object().unwrap().clone());
        });
        for (name, target) in [("hf", Target::HuggingFace(DType::BF16)), ("mlx", Target::Mlx(DType::BF16, None))] {
            converted(&at("a"), &at(name), target);
            let mut written = json_at(&at(name).join("config.json"));
            written.as_object_mut().unwrap().retain(|key, _| key.contains("dtype"));
            assert_eq!(written, after, "{name} from {before}");
            fs::remove_dir_all(at(name)).unwrap();
        }
    }
}

#[test]
fn several_end_tokens_and_how_to_generate_go_along() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    model(&at("a"), 1.0, 0);
    edit(&at("a/config.json"), |json| json["eos_token_id"] = json!([2, 7]));
    fs::write(at("a/generation_config.json"), "\u{feff}{\"eos_token_id\": [2, 7, 9], \"top_p\": 0.5}").unwrap();
    for (name, target) in [("hf", Target::HuggingFace(DType::F16)), ("mlx", Target::Mlx(DType::F16, None))] {
        converted(&at("a"), &at(name), target);
        assert_eq!(json_at(&at(name).join("config.json"))["eos_token_id"], json!([2, 7]), "{name}");
        let generation = json_at(&at(name).join("generation_config.json"));
        assert_eq!(generation, json!({ "eos_token_id": [2, 7, 9], "top_p": 0.5 }), "{name}");
    }
    fs::write(at("a/generation_config.json"), "{").unwrap();
    assert!(open(&at("a")).unwrap_err().to_string().contains("generation_config.json: not JSON"));
}

#[test]
fn special_tokens_are_those_of_the_tokenizer_where_no_configuration_says_them() {
    let folder = tempfile::tempdir().unwrap();
    let target = folder.path().join("hf");
    let source = golden("gguf/a-F32.gguf");
    let tokenizer = open(&source).unwrap().tokenizer.unwrap().open().unwrap();
    converted(&source, &target, Target::HuggingFace(DType::F32));
    let written = json_at(&target.join("config.json"));
    assert_eq!(written["bos_token_id"], json!(tokenizer.bos_id()));
    assert_eq!(written["eos_token_id"], json!(tokenizer.eos_id()));
}

#[test]
fn a_byte_order_mark_says_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    let marked = |file: PathBuf| {
        let text = fs::read(&file).unwrap();
        fs::write(&file, [b"\xef\xbb\xbf", &text[..]].concat()).unwrap();
    };
    model(&at("hf"), 1.0, 20_000);
    marked(at("hf/config.json"));
    marked(at("hf/model.safetensors.index.json"));
    assert_eq!(value_of(&open(&at("hf")).unwrap()), 1.0);
    let written = converted(&at("hf"), &at("written"), Target::HuggingFace(DType::F32));
    assert_eq!(written.config, config());

    let tensor = |spec: &TensorSpec| Ok(Tensor::from_f32(spec.shape.clone(), vec![3.0; spec.len()])?);
    corenet::write(&at("corenet"), &config(), &tensor, DType::F32, &Threads::single()).unwrap();
    marked(at("corenet/config.yaml"));
    marked(at("corenet/gpt_config.json"));
    let read = open(&at("corenet")).unwrap();
    assert_eq!((value_of(&read), read.notes), (3.0, Vec::new()));

    let utf16: Vec<u8> = "\u{feff}{}".encode_utf16().flat_map(u16::to_le_bytes).collect();
    fs::write(at("hf/config.json"), utf16).unwrap();
    assert!(open(&at("hf")).unwrap_err().to_string().contains("save it as UTF-8"));
}

/// What Git leaves in place of a large file where Git LFS is not installed.
const POINTER: &str = "version https://git-lfs.github.com/spec/v1\n\
    oid sha256:4d7a214614ab2935c943f9e0ff69d22eadbb8f32b1258daaa5e2ca24d17e2393\nsize 12345\n";

#[test]
fn a_pointer_of_git_lfs_is_called_by_its_name() {
    let folder = tempfile::tempdir().unwrap();
    let folder_with = |name: &str, file: &str| {
        let place = folder.path().join(name);
        model(&place, 1.0, 0);
        fs::remove_file(place.join("model.safetensors")).unwrap();
        if name == "mlx" {
            fs::copy(golden("mlx/corenet_open_elm/float32/config.json"), place.join("config.json")).unwrap();
        }
        fs::write(place.join(file), POINTER).unwrap();
        (place.clone(), place.join(file))
    };
    for (name, file) in [
        ("hf", "model.safetensors"),
        ("config", "config.json"),
        ("mlx", "weights.safetensors"),
        ("corenet", "checkpoint_average.pt"),
        ("old", "model.pth"),
        ("gguf", "model.gguf"),
        ("part", "model-00001-of-00001.gguf"),
        ("nothing", "model.bin"),
    ] {
        let (place, file) = folder_with(name, file);
        for named in [file.clone(), place] {
            // Of files of another kind the folder knows nothing.
            if named.is_dir() && ["old", "nothing"].contains(&name) {
                continue;
            }
            let message = open(&named).unwrap_err().to_string();
            assert!(message.contains("is a Git LFS pointer") && message.contains("git lfs pull"), "{message}");
            assert!(message.starts_with(file.to_str().unwrap()), "{message}");
        }
    }
}

/// A safetensors folder whose first matrix is stored as `dtype` numbers of `columns` columns with scales and no biases.
fn with_modes(folder: &TempDir, config_json: &Value) -> PathBuf {
    let place = folder.path().join("mode");
    let _ = fs::remove_dir_all(&place);
    model(&place, 1.0, 0);
    edit(&place.join("config.json"), |json| {
        json.as_object_mut().unwrap().extend(config_json.as_object().unwrap().clone())
    });
    place
}

#[test]
fn other_quantisations_are_refused_by_their_names() {
    let folder = tempfile::tempdir().unwrap();
    for (keys, name) in [
        (json!({ "quantization": { "group_size": 32, "bits": 4, "mode": "mxfp4" } }), "mxfp4"),
        (json!({ "quantization": { "group_size": 16, "bits": 4, "mode": "nvfp4" } }), "nvfp4"),
        (json!({ "quantization": { "group_size": 32, "bits": 8, "mode": "mxfp8" } }), "mxfp8"),
        (json!({ "quantization_config": { "quant_method": "gptq", "bits": 4 } }), "gptq"),
        (
            json!({ "quantization": { "group_size": 64, "bits": 4, "lm_head": { "mode": "nvfp4", "bits": 4 } } }),
            "nvfp4",
        ),
    ] {
        let message = open(&with_modes(&folder, &keys)).unwrap_err().to_string();
        assert!(message.contains(&format!("quantised as {name}, which cannot be read")), "{message}");
        assert!(message.contains("config.json"), "{message}");
    }
    // Groups as mlx-lm writes them say their mode, or as older ones none.
    for keys in [json!({ "quantization": { "group_size": 64, "bits": 4, "mode": "affine" } }), json!({})] {
        open(&with_modes(&folder, &keys)).unwrap();
    }
    let Some(example) = shared("cases/models/mxfp4") else { return };
    assert!(open(&example).unwrap_err().to_string().contains("mxfp4"));
    // And where no configuration says it.
    let place = folder.path().join("silent");
    fs::create_dir(&place).unwrap();
    for name in ["config.json", "model.safetensors"] {
        fs::copy(example.join(name), place.join(name)).unwrap();
    }
    edit(&place.join("config.json"), |json| {
        json.as_object_mut().unwrap().retain(|key, _| !key.contains("quantization"))
    });
    let message = open(&place).unwrap_err().to_string();
    assert!(message.contains("scales (U8) without biases") && message.contains("mxfp4"), "{message}");
}

#[test]
fn no_python_is_named_that_is_not_there() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    model(&at("a"), 1.0, 0);
    assert_eq!(json_at(&at("a/config.json")).get("auto_map"), None);
    edit(&at("a/config.json"), |json| {
        json["auto_map"] = json!({ "AutoConfig": "configuration_openelm.OpenELMConfig" })
    });
    for (name, target) in [("hf", Target::HuggingFace(DType::F16)), ("mlx", Target::Mlx(DType::F16, None))] {
        converted(&at("a"), &at(name), target);
        assert_eq!(json_at(&at(name).join("config.json")).get("auto_map"), None, "{name}");
    }
}
