//! Agreement with CoreNet's `average_ckpts` (`tests/golden/train/average`; exact or one unit in the last place).

#![allow(clippy::unwrap_used)]

use std::fs;
use std::path::PathBuf;

use openelm_formats::{StoredModel, huggingface};
use openelm_model::{DType, Encoding, Geometry, ModelConfig, Multipliers};
use openelm_testing::golden;
use openelm_train::average;
use safetensors::SafeTensors;

/// The geometry that the reference checkpoints were made with.
fn config() -> ModelConfig {
    let geometry = Geometry {
        layers: 2,
        dim: 32,
        head_dim: 8,
        gqa_groups: 2,
        ffn_divisor: 8,
        ffn_multipliers: Multipliers::List(vec![0.5, 2.0]),
        ..Geometry::default()
    };
    geometry.build(64).unwrap()
}

/// Folders in `root` with the three checkpoints of one dtype.
fn checkpoints(root: &tempfile::TempDir, kind: &str, dtype: DType) -> Vec<PathBuf> {
    let make = |index| {
        let folder = root.path().join(format!("{kind}-{index}"));
        fs::create_dir(&folder).unwrap();
        fs::write(folder.join("config.json"), huggingface::config_to_json(&config(), dtype).to_string()).unwrap();
        fs::copy(golden(&format!("train/average/ckpt_{kind}_{index}.safetensors")), folder.join("model.safetensors"))
            .unwrap();
        folder
    };
    (0..3).map(make).collect()
}

fn opened(folders: &[PathBuf]) -> Vec<StoredModel> {
    folders.iter().map(|folder| openelm_formats::open(folder).unwrap()).collect()
}

#[test]
fn the_mean_is_that_of_corenet() {
    let root = tempfile::tempdir().unwrap();
    for (kind, dtype) in [("f32", DType::F32), ("bf16", DType::BF16)] {
        let output = root.path().join(format!("mean-{kind}"));
        average(&opened(&checkpoints(&root, kind, dtype)), &output, None).unwrap();
        let found = huggingface::read(&output).unwrap();
        let bytes = fs::read(golden(&format!("train/average/average_{kind}.safetensors"))).unwrap();
        let expected = SafeTensors::deserialize(&bytes).unwrap();
        assert_eq!(expected.len(), found.specs().len());
        for (name, view) in expected.iter() {
            let tensor = found.tensor(name).unwrap();
            assert_eq!(tensor.encoding(), Encoding::Float(dtype));
            assert!(tensor.bytes()[..] == *view.data(), "{name} differs");
        }
    }
}

#[test]
fn models_of_different_shape_have_no_mean() {
    let root = tempfile::tempdir().unwrap();
    let mut folders = checkpoints(&root, "f32", DType::F32);
    folders.push(golden("tiny/hf"));
    let output = root.path().join("mean");
    let message = average(&opened(&folders), &output, None).unwrap_err().to_string();
    assert!(message.contains("tiny/hf") && message.contains("another model"), "{message}");
    assert!(average(&[], &output, None).is_err());
    fs::create_dir(&output).unwrap();
    assert!(average(&opened(&folders[..3]), &output, None).unwrap_err().to_string().contains("exists already"));
}

#[test]
fn what_the_configuration_says_beyond_the_geometry_stays() {
    let root = tempfile::tempdir().unwrap();
    let folders = checkpoints(&root, "f32", DType::F32);
    let mut json: serde_json::Value =
        serde_json::from_slice(&fs::read(folders[0].join("config.json")).unwrap()).unwrap();
    json["eos_token_id"] = serde_json::json!([2, 7]);
    json["of_somebody"] = "else".into();
    fs::write(folders[0].join("config.json"), json.to_string()).unwrap();
    fs::write(folders[0].join("generation_config.json"), r#"{"temperature": 0.7}"#).unwrap();
    let output = root.path().join("mean");
    average(&opened(&folders), &output, Some(DType::BF16)).unwrap();
    let read =
        |name: &str| -> serde_json::Value { serde_json::from_slice(&fs::read(output.join(name)).unwrap()).unwrap() };
    json["torch_dtype"] = "bfloat16".into();
    assert_eq!(read("config.json"), json);
    assert_eq!(read("generation_config.json")["temperature"], 0.7);
}
