//! Agreement of the neighbouring families with transformers 5 in training: loss and gradients of one batch, as
//! `tests/golden/rivals` holds them (1e-5 relative).

#![allow(clippy::unwrap_used)]

use openelm_formats::huggingface::{self, WriteOptions};
use openelm_formats::open;
use openelm_kernels::Threads;
use openelm_model::{DType, Tensor, TensorSpec};
use openelm_testing::{golden, json, npz};
use openelm_train::data::Batch;
use openelm_train::{Keeping, NextToken, Parameters, TrainableModel, Trainer, TrainerOptions};

/// Loss of the golden batch of `name`, and the gradients by their names in transformers.
fn gradients(name: &str, keeping: Keeping) -> (f64, Vec<(String, Vec<f64>)>) {
    let stored = open(&golden("rivals").join(name)).unwrap();
    let mut parameters = Parameters::zeros(&stored.config);
    for (spec, values) in parameters.tensors_mut() {
        values.copy_from_slice(&stored.tensor(&spec.name).unwrap().to_f32());
    }
    let config = stored.config.clone();
    let model = TrainableModel::new(config.clone(), parameters).unwrap();
    let mut trainer = Trainer::new(model, Threads::new(2), TrainerOptions { keeping, ..TrainerOptions::default() });
    let arrays = npz(&golden("rivals").join(name).join("logits.npz"));
    let (ids, time) = (arrays["input_ids"].ids(), arrays["input_ids"].shape[1]);
    let rows = || ids.chunks(time);
    let batch = Batch {
        inputs: rows().flat_map(|row| &row[..time - 1]).copied().collect(),
        targets: rows().flat_map(|row| &row[1..]).copied().collect(),
        document_starts: None,
        sequences: ids.len() / time,
        time: time - 1,
    };
    let report = trainer.step(&NextToken { ignore: None, z_weight: 0.0 }, &[batch], 1e-3).unwrap();
    // As transformers names and cuts them.
    let folder = tempfile::tempdir().unwrap();
    let found = trainer.gradients();
    let tensor = |spec: &TensorSpec| {
        let (_, values) = found.tensors().find(|(known, _)| *known == spec).unwrap();
        Ok(Tensor::from_f32(spec.shape.clone(), values.to_vec())?)
    };
    let options = WriteOptions { dtype: DType::F32, shard_bytes: 0 };
    huggingface::write(folder.path(), &config, None, &tensor, options, &Threads::single()).unwrap();
    let bytes = std::fs::read(folder.path().join("model.safetensors")).unwrap();
    let file = safetensors::SafeTensors::deserialize(&bytes).unwrap();
    let values = |data: &[u8]| bytemuck::pod_collect_to_vec::<u8, f32>(data).into_iter().map(f64::from).collect();
    (report.loss.mean(), file.iter().map(|(name, view)| (name.to_owned(), values(view.data()))).collect())
}

#[test]
fn losses_and_gradients_are_those_of_transformers() {
    for name in ["llama", "llama3", "llama_linear", "qwen2", "olmo", "olmo2"] {
        let expected = json(&golden("rivals").join(name).join("gradients.json"));
        let number = |value: &serde_json::Value| value.as_f64().unwrap();
        for recompute in [false, true] {
            let (loss, gradients) = gradients(name, Keeping { recompute, ..Keeping::default() });
            assert!((loss - number(&expected["loss"])).abs() < 2e-5, "{name}: {loss}");
            assert_eq!(gradients.len() + 1, expected.as_object().unwrap().len(), "{name}");
            for (parameter, gradient) in gradients {
                let norm = gradient.iter().map(|x| x * x).sum::<f64>().sqrt();
                let inner: f64 = gradient.iter().enumerate().map(|(i, x)| x * (i as f64).cos()).sum();
                let [expected_norm, expected_inner] = [0, 1].map(|i| number(&expected[&parameter][i]));
                let near = |found: f64, expected: f64| (found - expected).abs() <= 1e-5 * expected_norm + 1e-7;
                assert!(near(norm, expected_norm), "{name}, length of {parameter}: {norm} instead of {expected_norm}");
                assert!(near(inner, expected_inner), "{name}, {parameter}: {inner} instead of {expected_inner}");
            }
        }
    }
}
