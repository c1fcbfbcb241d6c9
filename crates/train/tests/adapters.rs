//! Adapters in training, beside PEFT: losses, gradients and ten updates (`tests/golden/{lora,dora}`), on floats and on
//! quantised weights.

#![allow(clippy::unwrap_used)]

use std::collections::{BTreeMap, HashMap};
use std::path::Path;

use openelm_formats::{adapter, huggingface, open};
use openelm_kernels::Threads;
use openelm_model::{Adapter, Model, Part};
use openelm_testing::{Array, golden, json, max_difference, npz};
use openelm_train::data::Batch;
use openelm_train::{Loss, NextToken, OptimizerOptions, StepReport, TrainableModel, Trainer, TrainerOptions};
use serde_json::Value;

const CASES: [&str; 5] = ["lora/basic", "lora/rslora", "lora/with_embeddings", "dora/basic", "dora/qkv_only"];
const Z_WEIGHT: f32 = 1e-4;

fn number(value: &Value) -> f64 {
    value.as_f64().unwrap_or_else(|| panic!("{value} is not a number"))
}

fn ignored_id() -> u32 {
    number(&json(&golden("train/losses.json"))["ignore_index"]) as u32
}

fn tiny() -> Model {
    huggingface::read(&golden("tiny/hf")).unwrap().into_model().unwrap()
}

fn trainer(model: Model, adapter: &Adapter) -> Trainer {
    let model = TrainableModel::adapted(model, adapter).unwrap();
    let optimizer = OptimizerOptions { weight_decay: 0.0, ..OptimizerOptions::default() };
    let options = TrainerOptions { optimizer, padding: Some(ignored_id()), ..TrainerOptions::default() };
    Trainer::new(model, Threads::new(2), options)
}

fn batch(arrays: &BTreeMap<String, Array>, index: usize) -> Batch {
    let samples = &arrays["samples"];
    let [sequences, time] = samples.shape[samples.shape.len() - 2..] else { panic!("samples are not [.., B, T]") };
    let range = index * sequences * time..(index + 1) * sequences * time;
    let (inputs, targets) = (samples.ids()[range.clone()].to_vec(), arrays["targets"].ids()[range].to_vec());
    Batch { inputs, targets, document_starts: None, sequences, time }
}

fn step(trainer: &mut Trainer, batch: &Batch, learning_rate: f32) -> StepReport {
    let objective = NextToken { ignore: Some(ignored_id()), z_weight: Z_WEIGHT };
    trainer.step(&objective, std::slice::from_ref(batch), learning_rate).unwrap()
}

/// CoreNet's total: the mean cross-entropy and z-loss, which it inflates by the positions it ignores.
fn total(loss: &Loss, batch: &Batch, vocabulary: usize) -> f64 {
    let ignored = batch.targets.len() - loss.tokens;
    let z = loss.squared_log_partition + ignored as f64 * (vocabulary as f64).ln().powi(2);
    (loss.sum + f64::from(Z_WEIGHT) * z) / loss.amount
}

fn assert_near(what: &str, found: f64, expected: f64, tolerance: f64) {
    assert!((found - expected).abs() <= tolerance, "{what}: {found} instead of {expected}");
}

fn tensors(path: &Path) -> HashMap<String, Vec<f32>> {
    let bytes = std::fs::read(path).unwrap();
    let file = safetensors::SafeTensors::deserialize(&bytes).unwrap();
    file.iter().map(|(name, view)| (name.to_owned(), bytemuck::pod_collect_to_vec(view.data()))).collect()
}

/// The largest difference of what belongs to the modules of `adapter` in a file with PEFT's names from what `of` gives.
fn difference(adapter: &Adapter, file: &Path, of: impl Fn(&str, Part) -> Vec<f32>) -> f32 {
    let expected = tensors(file);
    let (mut largest, mut compared) = (0.0f32, 0);
    for (target, module) in adapter.modules() {
        for part in Part::ALL.into_iter().filter(|&part| module.part(part).is_some()) {
            let (key, is_weight) = target.key(part);
            let prefix = if target.name == "classifier" { "" } else { "transformer." };
            // Its own state, before it is saved, calls the magnitude a weight too.
            let weight = if is_weight || part == Part::Magnitude { ".weight" } else { "" };
            let name = format!("base_model.model.{prefix}{}.{key}{weight}", target.name);
            largest = largest.max(max_difference(&of(&target.name, part), &expected[&name]));
            compared += 1;
        }
    }
    assert_eq!(compared, expected.len(), "{}", file.display());
    largest
}

/// A gradient of `trainer` by CoreNet's name of the module.
fn gradient(trainer: &Trainer, module: &str, part: Part) -> Vec<f32> {
    let part = match part {
        Part::A => "lora_a",
        Part::B => "lora_b",
        Part::Magnitude => "lora_magnitude",
    };
    let name = format!("{module}.{part}");
    let found = trainer.gradients().tensors().find(|(spec, _)| spec.name == name);
    found.unwrap_or_else(|| panic!("{name} has no gradient")).1.to_vec()
}

#[test]
fn losses_and_gradients_are_those_of_peft() {
    let batch = batch(&npz(&golden("train/batch.npz")), 0);
    for case in CASES {
        let (model, expected) = (tiny(), json(&golden(&format!("{case}/expected.json"))));
        let adapter = adapter::open(&golden(case), model.config()).unwrap();
        let mut trainer = trainer(model, &adapter);
        let vocabulary = trainer.config().vocab_size;
        let report = step(&mut trainer, &batch, 0.0);
        assert_near(case, total(&report.loss, &batch, vocabulary), number(&expected["loss"]["total_loss"]), 2e-5);
        let norm = number(&expected["grad_norm"]);
        assert_near(case, report.gradient_norm, norm, 1e-4 * norm);
        let file = golden(&format!("{case}/gradients.safetensors"));
        let largest = difference(&adapter, &file, |module, part| gradient(&trainer, module, part));
        println!("{case}: gradients differ by {largest:e}");
        assert!(largest <= 1e-5, "{case}: gradients differ by {largest:e}");
    }
}

#[test]
fn ten_updates_are_those_of_peft() {
    let batches = npz(&golden("train/run20_batches.npz"));
    for case in CASES {
        let (model, expected) = (tiny(), json(&golden(&format!("{case}/expected.json"))));
        let adapter = adapter::open(&golden(case), model.config()).unwrap();
        let mut trainer = trainer(model, &adapter);
        let vocabulary = trainer.config().vocab_size;
        for (i, expected) in expected["adamw"]["steps"].as_array().unwrap().iter().enumerate() {
            let batch = batch(&batches, i);
            let report = step(&mut trainer, &batch, number(&expected["lr"]) as f32);
            let what = format!("{case}, update {i}");
            assert_near(&what, total(&report.loss, &batch, vocabulary), number(&expected["total_loss"]), 2e-5);
            let norm = number(&expected["grad_norm"]);
            assert_near(&what, report.gradient_norm, norm, 1e-4 * norm);
        }
        let trained = trainer.model().adapter().unwrap().unwrap();
        let file = golden(&format!("{case}/adapter_after_10_steps.safetensors"));
        let largest =
            difference(&trained, &file, |module, part| trained.module(module).unwrap().part(part).unwrap().to_f32());
        println!("{case}: after ten updates values differ by {largest:e}");
        assert!(largest <= 5e-5, "{case}: after ten updates values differ by {largest:e}");
    }
}

/// On quantised weights, widened on the way or packed for integers, gradients are near those on the same weights in `f32`.
#[test]
fn gradients_go_through_quantised_weights() {
    let mut batch = batch(&npz(&golden("train/batch.npz")), 0);
    for (file, packed, tolerance) in [
        ("gguf/a-Q8_0.gguf", false, 1e-5),
        ("gguf/a-Q4_0.gguf", false, 1e-5),
        ("gguf/a-Q8_0.gguf", true, 0.03),
        ("gguf/a-Q4_0.gguf", true, 0.05),
        ("mlx/q4_g32_float16", true, 0.05),
    ] {
        let stored = || open(&golden(file)).unwrap();
        let vocabulary = stored().config.vocab_size as u32;
        batch.inputs.iter_mut().chain(&mut batch.targets).for_each(|id| *id %= vocabulary);
        let threads = Threads::new(2);
        let model = if packed { stored().into_packed_model(&threads) } else { stored().into_model() }.unwrap();
        let wide = stored().into_model().unwrap().widened();
        let adapter = noisy(&wide);
        let gradients = |model: Model| {
            let mut trainer = trainer(model, &adapter);
            step(&mut trainer, &batch, 0.0);
            trainer.gradients().values().to_vec()
        };
        let (found, expected) = (gradients(model), gradients(wide));
        let norm = |x: &mut dyn Iterator<Item = f32>| x.map(|x| f64::from(x).powi(2)).sum::<f64>().sqrt();
        let distance = norm(&mut found.iter().zip(&expected).map(|(a, b)| a - b)) / norm(&mut expected.iter().copied());
        println!("{file}, packed {packed}: {distance:.2e}");
        assert!(distance <= tolerance, "{file}, packed {packed}: {distance} from the gradients in f32");
    }
}

/// An adapter of DoRA on all linear modules of `model`, with factors that are not zero.
fn noisy(model: &Model) -> Adapter {
    use openelm_model::{AdapterModule, AdapterOptions, Tensor, targets};
    let values = |count: usize, scale: f32| (0..count).map(|i| (i as f32 * 1.618).sin() * scale).collect::<Vec<f32>>();
    let modules = targets(model.config()).into_iter().filter(|target| !target.embedding).map(|target| {
        let a = Tensor::from_f32(vec![3, target.inputs], values(3 * target.inputs, 0.05)).unwrap();
        let b = Tensor::from_f32(vec![target.outputs, 3], values(3 * target.outputs, 0.05)).unwrap();
        let magnitude = Tensor::from_f32(vec![target.outputs], vec![1.0; target.outputs]).unwrap();
        (target.name, AdapterModule { alpha: 6.0, a, b, magnitude: Some(magnitude) })
    });
    Adapter::new(model.config(), AdapterOptions::default(), modules.collect()).unwrap()
}

#[test]
fn only_the_adapter_has_gradients_and_moments() {
    let model = tiny();
    let adapter = adapter::open(&golden("dora/basic"), model.config()).unwrap();
    let numbers: usize = adapter
        .modules()
        .flat_map(|(_, module)| Part::ALL.into_iter().filter_map(|part| module.part(part)))
        .map(|tensor| tensor.shape().iter().product::<usize>())
        .sum();
    let trainer = trainer(model, &adapter);
    assert_eq!(trainer.gradients().values().len(), numbers);
    assert_eq!(trainer.moments().unwrap()[0].len(), numbers);
}
