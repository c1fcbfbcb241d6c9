//! Training with products in bf16: near the gradients in `f32`, to the bit on any number of threads, and decided once in a run.

#![allow(clippy::unwrap_used)]

mod support;

use std::sync::atomic::AtomicBool;

use openelm_formats::huggingface;
use openelm_kernels::Threads;
use openelm_kernels::rounded::Products;
use openelm_testing::run::SmallRun;
use openelm_testing::{golden, json, npz};
use openelm_train::data::Batch;
use openelm_train::pretrain::pretrain;

use openelm_train::{NextToken, Parameters, ProductPrecision, Recipe, TrainableModel, Trainer, TrainerOptions};
use support::load;

/// Gradients of the batch of `tests/golden/train`, tensor by tensor with their names.
fn gradients(products: Products, threads: usize) -> Vec<(String, Vec<f32>)> {
    let model = huggingface::read(&golden("tiny/hf")).unwrap();
    let mut parameters = Parameters::zeros(&model.config);
    for (spec, values) in parameters.tensors_mut() {
        values.copy_from_slice(&model.tensor(&spec.name).unwrap().to_f32());
    }
    let model = TrainableModel::new(model.config, parameters).unwrap();
    let mut trainer =
        Trainer::new(model, Threads::new(threads), TrainerOptions { products, ..TrainerOptions::default() });
    let arrays = npz(&golden("train/batch.npz"));
    let [sequences, time] = arrays["samples"].shape[..] else { panic!("samples are not [B, T]") };
    let (inputs, targets) = (arrays["samples"].ids(), arrays["targets"].ids());
    let batch = Batch { inputs, targets, document_starts: None, sequences, time };
    let ignore = json(&golden("train/losses.json"))["ignore_index"].as_u64().unwrap() as u32;
    trainer.step(&NextToken { ignore: Some(ignore), z_weight: 1e-4 }, &[batch], 0.0).unwrap();
    trainer.gradients().tensors().map(|(spec, values)| (spec.name.clone(), values.to_vec())).collect()
}

#[test]
fn gradients_are_near_those_in_single_precision_and_depend_on_nothing_else() {
    let (found, expected) = (gradients(Products::BF16, 1), gradients(Products::F32, 1));
    let dot = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum::<f64>();
    let mut worst = [1.0f64, 0.0];
    for ((name, a), (_, b)) in found.iter().zip(&expected) {
        let (lengths, product) = ([dot(a, a).sqrt(), dot(b, b).sqrt()], dot(a, b));
        let cosine = product / (lengths[0] * lengths[1]);
        let norm = (lengths[0] / lengths[1] - 1.0).abs();
        // PyTorch's autocast, which rounds the products too, comes to a cosine of 0.9944 and a norm that is off by 0.10 here.
        assert!(cosine > 0.9944 && norm < 0.1, "{name}: cosine {cosine}, norm off by {norm}");
        worst = [worst[0].min(cosine), worst[1].max(norm)];
    }
    println!("smallest cosine {:.6}, largest difference of norms {:.2e}", worst[0], worst[1]);
    assert!(found.iter().zip(&expected).any(|((_, a), (_, b))| a != b), "products are in f32 still");
    assert_eq!(found, gradients(Products::BF16, 3));
}

/// What a run did: its weights, and the precision that its recipe holds.
fn run(small: &SmallRun, sets: &[&str]) -> (Vec<u8>, ProductPrecision) {
    let recipe = load(small, sets);
    let outcome = pretrain(&recipe, Threads::new(2), &AtomicBool::new(false), &mut |_| ()).unwrap();
    let weights = std::fs::read(outcome.checkpoint.join("model.safetensors")).unwrap();
    (weights, Recipe::load(&small.out("recipe.toml"), &[]).unwrap().train.precision)
}

#[test]
fn a_run_keeps_the_precision_that_it_began_with() {
    let small = || {
        SmallRun::new(
            2,
            60,
            "train = { sequence_length = 32, batch_size = 4, steps = 6 }\nschedule = { max_lr = 1e-3, warmup_steps = 0 }",
        )
    };
    let whole = |precision: &str| run(&small(), &[&format!("train.precision=\"{precision}\"")]);
    let (in_f32, in_bf16) = (whole("f32"), whole("bf16"));
    assert_ne!(in_f32.0, in_bf16.0);
    let decided = whole("auto");
    assert_eq!(decided, if decided.1 == ProductPrecision::BF16 { in_bf16.clone() } else { in_f32 });
    // Begun in bf16, it goes on in bf16 wherever it is, and to the bit.
    let resumed = small();
    run(&resumed, &["train.precision=\"bf16\"", "train.steps=3", "schedule.min_lr=1e-3"]);
    let (_, precision) = run(&resumed, &["train.precision=\"auto\"", "schedule.min_lr=1e-3"]);
    assert_eq!(precision, ProductPrecision::BF16);
    // CoreNet's numbers are those in f32.
    let parity = small();
    let sets = ["train.precision=\"auto\"", "data.parity=\"corenet\"", "data.shuffle_buffer=0"];
    assert_eq!(run(&parity, &sets).1, ProductPrecision::F32);
}
