//! Agreement with CoreNet: losses, gradients and twenty steps of training, as `tests/golden/train` holds them.

#![allow(clippy::unwrap_used)]

use std::collections::HashMap;
use std::path::Path;

use openelm_formats::huggingface;
use openelm_kernels::Threads;
use openelm_model::ModelConfig;
use openelm_testing::{golden, json, max_difference, npz};
use openelm_train::data::Batch;
use openelm_train::{
    Accumulation, Loss, NextToken, Parameters, Schedule, StepReport, TrainableModel, Trainer, TrainerOptions,
};
use serde_json::Value;

const Z_WEIGHT: f32 = 1e-4;

fn tiny() -> (ModelConfig, Parameters) {
    let model = huggingface::read(&golden("tiny/hf")).unwrap();
    let mut parameters = Parameters::zeros(&model.config);
    for (spec, values) in parameters.tensors_mut() {
        values.copy_from_slice(&model.tensor(&spec.name).unwrap().to_f32());
    }
    (model.config, parameters)
}

fn trainer(accumulation: Accumulation, ignore: u32) -> Trainer {
    let (config, parameters) = tiny();
    let model = TrainableModel::new(config, parameters).unwrap();
    let options = TrainerOptions { accumulation, padding: Some(ignore), ..TrainerOptions::default() };
    Trainer::new(model, Threads::new(2), options)
}

fn step(trainer: &mut Trainer, batches: &[Batch], ignore: u32, learning_rate: f32) -> StepReport {
    let objective = NextToken { ignore: Some(ignore), z_weight: Z_WEIGHT };
    trainer.step(&objective, batches, learning_rate).unwrap()
}

fn tensors(path: &Path) -> HashMap<String, Vec<f32>> {
    let bytes = std::fs::read(path).unwrap();
    let file = safetensors::SafeTensors::deserialize(&bytes).unwrap();
    file.iter().map(|(name, view)| (name.to_owned(), bytemuck::pod_collect_to_vec(view.data()))).collect()
}

fn largest_difference(parameters: &Parameters, expected: &HashMap<String, Vec<f32>>) -> f32 {
    parameters.tensors().map(|(spec, values)| max_difference(values, &expected[&spec.name])).fold(0.0, f32::max)
}

fn batch(arrays: &std::collections::BTreeMap<String, openelm_testing::Array>, index: usize) -> Batch {
    let samples = &arrays["samples"];
    let [sequences, time] = samples.shape[samples.shape.len() - 2..] else { panic!("samples are not [.., B, T]") };
    let range = index * sequences * time..(index + 1) * sequences * time;
    let (inputs, targets) = (samples.ids()[range.clone()].to_vec(), arrays["targets"].ids()[range].to_vec());
    Batch { inputs, targets, document_starts: None, sequences, time }
}

/// CoreNet's total: the mean cross-entropy and z-loss, which it inflates by the positions it ignores.
fn total_loss(sums: &Loss, ignored: usize, vocabulary: usize) -> f64 {
    let z = sums.squared_log_partition + ignored as f64 * (vocabulary as f64).ln().powi(2);
    (sums.sum + f64::from(Z_WEIGHT) * z) / sums.amount
}

fn number(value: &Value) -> f64 {
    value.as_f64().unwrap_or_else(|| panic!("{value} is not a number"))
}

fn assert_near(what: &str, found: f64, expected: f64, tolerance: f64) {
    assert!((found - expected).abs() <= tolerance, "{what}: {found} instead of {expected}");
}

#[test]
fn losses_and_gradients_of_a_batch_with_padding() {
    let expected = json(&golden("train/losses.json"));
    let batch = batch(&npz(&golden("train/batch.npz")), 0);
    let ignore = number(&expected["ignore_index"]) as u32;
    let mut trainer = trainer(Accumulation::Mean, ignore);
    let vocabulary = trainer.config().vocab_size;
    let report = step(&mut trainer, std::slice::from_ref(&batch), ignore, 0.0);
    let ignored = batch.targets.len() - report.loss.tokens;
    assert_eq!(report.loss.amount, number(&expected["valid_tokens"]));
    assert_near("cross-entropy", report.loss.mean(), number(&expected["ce_loss"]), 2e-5);
    assert_near("total", total_loss(&report.loss, ignored, vocabulary), number(&expected["total_loss"]), 2e-5);
    assert_near("norm", report.gradient_norm, number(&expected["grad_norm_before_clip"]), 1e-4 * report.gradient_norm);
    let difference = largest_difference(trainer.gradients(), &tensors(&golden("train/gradients.safetensors")));
    println!("largest difference of a gradient: {difference:e}");
    assert!(difference <= 1e-5, "gradients differ by {difference:e}");
}

#[test]
fn padding_among_the_inputs_teaches_the_embedding_nothing() {
    let arrays = npz(&golden("train/padding_idx_case.npz"));
    let ignore = number(&json(&golden("train/losses.json"))["ignore_index"]) as u32;
    let mut trainer = trainer(Accumulation::Mean, ignore);
    let batch = batch(&arrays, 0);
    let vocabulary = trainer.config().vocab_size;
    let report = step(&mut trainer, std::slice::from_ref(&batch), ignore, 0.0);
    let ignored = batch.targets.len() - report.loss.tokens;
    assert_near("total", total_loss(&report.loss, ignored, vocabulary), arrays["total_loss"].values[0], 2e-5);
    let (_, embedding) = trainer.gradients().tensors().next().unwrap();
    let row = &arrays["embedding_grad_pad_row_with_padding_idx"];
    let found = &embedding[ignore as usize * row.values.len()..][..row.values.len()];
    assert!(max_difference(found, &row.f32()) <= 1e-5);
    let without = &arrays["embedding_grad_pad_row_without"];
    assert!(max_difference(found, &without.f32()) > 1e-4, "the case does not tell the two apart");
}

fn schedule(settings: &Value) -> Schedule {
    Schedule {
        warmup_init_lr: number(&settings["warmup_init_lr"]),
        max_lr: number(&settings["max_lr"]),
        min_lr: number(&settings["min_lr"]),
        warmup_steps: number(&settings["warmup_iterations"]) as u64,
        steps: number(&settings["max_iterations"]) as u64,
    }
}

#[test]
fn twenty_steps() {
    let expected = json(&golden("train/run20.json"));
    let batches = npz(&golden("train/run20_batches.npz"));
    let ignore = number(&json(&golden("train/losses.json"))["ignore_index"]) as u32;
    let mut trainer = trainer(Accumulation::Mean, ignore);
    let vocabulary = trainer.config().vocab_size;
    let schedule = schedule(&expected["schedule"]);
    let (mut loss_difference, mut norm_difference) = (0.0f64, 0.0f64);
    for (i, expected) in expected["steps"].as_array().unwrap().iter().enumerate() {
        let learning_rate = schedule.rounded(i as u64);
        assert_eq!(learning_rate, number(&expected["lr"]), "learning rate of step {i}");
        let batch = batch(&batches, i);
        let report = step(&mut trainer, std::slice::from_ref(&batch), ignore, learning_rate as f32);
        let loss = total_loss(&report.loss, batch.targets.len() - report.loss.tokens, vocabulary);
        loss_difference = loss_difference.max((loss - number(&expected["total_loss"])).abs());
        let norm = number(&expected["grad_norm"]);
        norm_difference = norm_difference.max((report.gradient_norm / norm - 1.0).abs());
        let weights: f64 = trainer.parameters().values().iter().map(|&x| f64::from(x).powi(2)).sum();
        assert_near("norm of the weights", weights.sqrt(), number(&expected["weights_l2"]), 1e-4);
    }
    let difference = largest_difference(trainer.parameters(), &tensors(&golden("train/run20_final.safetensors")));
    println!("largest differences: loss {loss_difference:e}, norm {norm_difference:e}, weights {difference:e}");
    assert!(loss_difference <= 2e-5, "losses differ by {loss_difference:e}");
    assert!(norm_difference <= 1e-4, "gradient norms differ by {norm_difference:e} relative");
    assert!(difference <= 5e-5, "weights differ by {difference:e}");
}

#[test]
fn accumulated_micro_batches_are_summed_in_parity_mode() {
    let expected = json(&golden("train/accum2.json"));
    let batches = npz(&golden("train/accum2_batches.npz"));
    let ignore = number(&json(&golden("train/losses.json"))["ignore_index"]) as u32;
    let mut trainer = trainer(Accumulation::SumOfMeans, ignore);
    let vocabulary = trainer.config().vocab_size;
    let count = number(&expected["accum_freq"]) as usize;
    for (i, expected) in expected["steps"].as_array().unwrap().iter().enumerate() {
        let micro_batches: Vec<Batch> = (0..count).map(|k| batch(&batches, i * count + k)).collect();
        let report = step(&mut trainer, &micro_batches, ignore, number(&expected["lr"]) as f32);
        let ignored = micro_batches[count - 1].targets.len() - report.last.tokens;
        assert_near("total", total_loss(&report.last, ignored, vocabulary), number(&expected["total_loss"]), 2e-5);
        let norm = number(&expected["grad_norm"]);
        assert_near("norm", report.gradient_norm, norm, 1e-4 * norm);
    }
}
