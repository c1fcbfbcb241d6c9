//! Objectives that look at whole sequences before they scale them, by the example of DPO (Rafailov et al., 2023), as TRL
//! computes it: `tests/golden/dpo`.

#![allow(clippy::unwrap_used)]

use std::collections::HashMap;

use half::f16;
use openelm_formats::huggingface;
use openelm_kernels::Threads;
use openelm_model::ModelConfig;
use openelm_testing::{golden, json, max_difference, npz};
use openelm_train::data::Batch;
use openelm_train::{
    Objective, Parameters, TargetWeights, TrainableModel, Trainer, TrainerOptions, Weighed, initialise,
};
use serde_json::Value;

/// Sequences of which a part is the answer.
struct Answers {
    sequences: Batch,
    /// Whether each target is part of an answer.
    counts: Vec<bool>,
}

impl Answers {
    /// Each prompt with its answer, filled up with 0.
    fn new(rows: &[(Vec<u32>, Vec<u32>)]) -> Self {
        let time = rows.iter().map(|(prompt, answer)| prompt.len() + answer.len() - 1).max().unwrap();
        let (mut inputs, mut targets, mut counts) = (Vec::new(), Vec::new(), Vec::new());
        for (prompt, answer) in rows {
            let mut ids = [&prompt[..], answer].concat();
            let real = ids.len();
            ids.resize(time + 1, 0);
            inputs.extend(&ids[..time]);
            targets.extend(&ids[1..]);
            counts.extend((1..=time).map(|i| (prompt.len()..real).contains(&i)));
        }
        let sequences = Batch { inputs, targets, document_starts: None, sequences: rows.len(), time };
        Self { sequences, counts }
    }

    /// Sums of what counts in each sequence.
    fn sums(&self, log_probabilities: &[f64]) -> Vec<f64> {
        let time = self.sequences.time;
        let rows = log_probabilities.chunks(time).zip(self.counts.chunks(time));
        rows.map(|(row, counts)| row.iter().zip(counts).filter(|(_, counts)| **counts).map(|(x, _)| x).sum()).collect()
    }
}

/// The answers, token by token.
struct Supervised;

impl Objective for Supervised {
    type Batch = Answers;

    fn sequences<'b>(&self, batch: &'b Answers) -> &'b Batch {
        &batch.sequences
    }

    fn amount(&self, batch: &Answers) -> f64 {
        batch.counts.iter().filter(|counts| **counts).count() as f64
    }

    fn weigh(&self, batch: &Answers, _: &mut dyn FnMut() -> Vec<f64>) -> Weighed {
        let weights = batch.counts.iter().map(|&counts| f32::from(u8::from(counts))).collect();
        Weighed::targets(TargetWeights::Each(weights))
    }
}

/// A preferred answer before each rejected one, and the reference's log-probability of each answer.
struct Pairs {
    answers: Answers,
    reference: Vec<f64>,
}

/// `-ln sigmoid(beta h)`, where `h` is by how much more the policy prefers the better answer than the reference does.
struct Sigmoid {
    beta: f64,
}

impl Sigmoid {
    /// Loss of each pair, and its derivative by `h`.
    fn losses(&self, pairs: &Pairs, log_probabilities: &[f64]) -> Vec<(f64, f64)> {
        let gains = pairs.answers.sums(log_probabilities);
        let gains: Vec<f64> =
            gains.iter().zip(&pairs.reference).map(|(policy, reference)| policy - reference).collect();
        gains
            .chunks(2)
            .map(|pair| {
                let x = (-self.beta * (pair[0] - pair[1])).exp();
                (x.ln_1p(), -self.beta * x / (1.0 + x))
            })
            .collect()
    }
}

impl Objective for Sigmoid {
    type Batch = Pairs;

    fn sequences<'b>(&self, batch: &'b Pairs) -> &'b Batch {
        &batch.answers.sequences
    }

    fn amount(&self, batch: &Pairs) -> f64 {
        batch.reference.len() as f64 / 2.0
    }

    fn weigh(&self, batch: &Pairs, log_probabilities: &mut dyn FnMut() -> Vec<f64>) -> Weighed {
        let losses = self.losses(batch, &log_probabilities());
        let time = batch.answers.sequences.time;
        let weight = |(i, &counts): (usize, &bool)| {
            let (pair, is_better) = (i / time / 2, (i / time).is_multiple_of(2));
            let derivative = losses[pair].1 as f32;
            // A cross-entropy is a log-probability turned around.
            if !counts {
                0.0
            } else if is_better {
                -derivative
            } else {
                derivative
            }
        };
        let weights = batch.answers.counts.iter().enumerate().map(weight).collect();
        let told_apart = losses.iter().filter(|(loss, _)| *loss < 2f64.ln()).count() as f64;
        let loss = losses.iter().map(|(loss, _)| loss).sum();
        Weighed { weights: TargetWeights::Each(weights), loss: Some(loss), metrics: vec![told_apart] }
    }

    fn metrics(&self) -> &'static [&'static str] {
        &["accuracy"]
    }
}

fn ids(value: &Value) -> Vec<u32> {
    value.as_array().unwrap().iter().map(|id| id.as_u64().unwrap() as u32).collect()
}

fn numbers(value: &Value) -> Vec<f64> {
    value.as_array().unwrap().iter().map(|number| number.as_f64().unwrap()).collect()
}

fn assert_near(what: &str, found: f64, expected: f64, tolerance: f64) {
    assert!((found - expected).abs() <= tolerance, "{what}: {found} instead of {expected}");
}

/// The reference model.
fn reference() -> TrainableModel {
    let model = huggingface::read(&golden("tiny/hf")).unwrap();
    let mut parameters = Parameters::zeros(&model.config);
    for (spec, values) in parameters.tensors_mut() {
        values.copy_from_slice(&model.tensor(&spec.name).unwrap().to_f32());
    }
    TrainableModel::new(model.config.clone(), parameters).unwrap()
}

fn policy() -> TrainableModel {
    let mut model = reference();
    let bytes = std::fs::read(golden("dpo/policy_f16.safetensors")).unwrap();
    let file = safetensors::SafeTensors::deserialize(&bytes).unwrap();
    for (spec, values) in model.parameters_mut().tensors_mut() {
        let view = file.tensor(&format!("transformer.{}", spec.name)).unwrap();
        let halves: Vec<f16> = bytemuck::pod_collect_to_vec(view.data());
        values.iter_mut().zip(halves).for_each(|(value, half)| *value = half.to_f32());
    }
    model
}

fn trainer(model: TrainableModel) -> Trainer {
    Trainer::new(model, Threads::new(2), TrainerOptions::default())
}

/// The pairs of the reference data, with the reference model's own log-probabilities.
fn pairs(expected: &Value, range: std::ops::Range<usize>) -> Pairs {
    let rows: Vec<_> = expected["rows"].as_array().unwrap()[range]
        .iter()
        .flat_map(|row| ["chosen", "rejected"].map(|answer| (ids(&row["prompt"]), ids(&row[answer]))))
        .collect();
    let answers = Answers::new(&rows);
    let reference = answers.sums(&trainer(reference()).log_probabilities(&answers.sequences));
    Pairs { answers, reference }
}

#[test]
fn log_probabilities_of_targets_are_those_of_trl() {
    let arrays = npz(&golden("dpo/per_token_logps.npz"));
    let samples = &arrays["input_ids"];
    let [sequences, time] = samples.shape[..] else { panic!("ids are not [B, T]") };
    let ids = samples.ids();
    // The last target is not in the reference data; whatever it is, it changes nothing before.
    let targets = ids[1..].iter().copied().chain([0]).collect();
    let batch = Batch { inputs: ids, targets, document_starts: None, sequences, time };
    for (name, model) in [("policy", policy()), ("reference", reference())] {
        let (expected, mask) = (&arrays[name], &arrays["completion_mask"]);
        let known = expected.shape[1];
        let found = trainer(model).log_probabilities(&batch);
        let mut compared = 0;
        for (i, expected) in expected.values.iter().enumerate() {
            let (row, place) = (i / known, i % known);
            if mask.values[row * time + place + 1] != 0.0 {
                assert_near(&format!("{name} {row} {place}"), found[row * time + place], *expected, 5e-4);
                compared += 1;
            }
        }
        assert!(compared > 50, "only {compared} targets were compared");
    }
}

#[test]
fn losses_and_gradients_of_preferences_are_those_of_trl() {
    let expected = json(&golden("dpo/expected.json"));
    let pairs = pairs(&expected, 0..expected["rows"].as_array().unwrap().len());
    let interleaved = |name: &str| -> Vec<f64> {
        let [chosen, rejected] =
            ["chosen", "rejected"].map(|which| numbers(&expected[format!("{name}_logps_{which}")]));
        chosen.into_iter().zip(rejected).flat_map(|(a, b)| [a, b]).collect()
    };
    let mut trainer = trainer(policy());
    let found = pairs.answers.sums(&trainer.log_probabilities(&pairs.answers.sequences));
    for (found, expected) in found.iter().zip(interleaved("policy")) {
        assert_near("a log-probability", *found, expected, 5e-4);
    }
    for (found, expected) in pairs.reference.iter().zip(interleaved("ref")) {
        assert_near("a log-probability of the reference", *found, expected, 5e-4);
    }
    let cases = expected["cases"].as_array().unwrap().iter().filter(|case| case["loss_type"] == "sigmoid");
    for case in cases {
        let objective = Sigmoid { beta: case["beta"].as_f64().unwrap() };
        let losses = objective.losses(&pairs, &trainer.log_probabilities(&pairs.answers.sequences));
        for ((found, _), expected) in losses.iter().zip(numbers(&case["losses"])) {
            assert_near("a loss", *found, expected, 1e-4 * expected);
        }
        let report = trainer.step(&objective, std::slice::from_ref(&pairs), 0.0).unwrap();
        let (loss, norm) = (case["loss"].as_f64().unwrap(), case["grad_norm"].as_f64().unwrap());
        assert_near("the loss", report.loss.mean(), loss, 1e-4 * loss);
        assert_near("the gradient norm", report.gradient_norm, norm, 1e-3 * norm);
        let accuracy = case["rewards_accuracy"].as_f64().unwrap();
        assert_near("the accuracy", report.loss.metrics[0] / report.loss.amount, accuracy, 1e-6);
        assert_eq!(trainer.validate(&objective, &pairs).sum, report.loss.sum);
        if objective.beta == 0.1 {
            let bytes = std::fs::read(golden("dpo/gradients_sigmoid_beta0.1_sample.safetensors")).unwrap();
            let file = safetensors::SafeTensors::deserialize(&bytes).unwrap();
            let gradients: HashMap<&str, &[f32]> =
                trainer.gradients().tensors().map(|(spec, values)| (spec.name.as_str(), values)).collect();
            for (name, view) in file.iter() {
                let expected: Vec<f32> = bytemuck::pod_collect_to_vec(view.data());
                let difference = max_difference(gradients[name], &expected);
                assert!(difference < 1e-4, "{name} differs by {difference:e}");
            }
        }
    }
}

#[test]
fn answers_alone_can_be_learnt() {
    let expected = json(&golden("dpo/expected.json"));
    let rows = expected["rows"].as_array().unwrap().iter();
    let rows: Vec<_> = rows.map(|row| (ids(&row["prompt"]), ids(&row["chosen"]))).collect();
    let report = trainer(policy()).step(&Supervised, &[Answers::new(&rows)], 0.0).unwrap();
    let expected = &expected["sft"];
    assert_eq!(report.loss.tokens as u64, expected["tokens"].as_u64().unwrap());
    assert_near("the loss", report.loss.mean(), expected["loss"].as_f64().unwrap(), 1e-4);
    let norm = expected["grad_norm"].as_f64().unwrap();
    assert_near("the gradient norm", report.gradient_norm, norm, 1e-3 * norm);
}

#[test]
fn pairs_count_alike_in_whatever_micro_batches_they_come() {
    let expected = json(&golden("dpo/expected.json"));
    let objective = Sigmoid { beta: 0.5 };
    let gradients = |cuts: &[usize]| {
        let batches: Vec<Pairs> = cuts.windows(2).map(|cut| pairs(&expected, cut[0]..cut[1])).collect();
        let mut trainer = trainer(policy());
        let report = trainer.step(&objective, &batches, 0.0).unwrap();
        (report.loss.mean(), trainer.gradients().values().to_vec())
    };
    let ((loss, whole), (cut_loss, cut)) = (gradients(&[0, 5]), gradients(&[0, 2, 5]));
    assert_near("the loss", cut_loss, loss, 1e-5);
    assert!(max_difference(&whole, &cut) < 1e-4, "gradients differ by {}", max_difference(&whole, &cut));
}

#[test]
fn the_derivative_of_preferences_is_that_of_finite_differences() {
    let config: ModelConfig = reference().config().clone();
    let model = TrainableModel::new(config.clone(), initialise(&config, 5)).unwrap();
    let row = |seed: u32, prompt: u32, answer: u32| {
        let id = |i: u32| (i * i * 37 + i * 11 + seed * 101) % 480 + 1;
        ((0..prompt).map(id).collect::<Vec<_>>(), (prompt..prompt + answer).map(id).collect::<Vec<_>>())
    };
    let answers = Answers::new(&[row(1, 5, 7), row(2, 5, 3), row(3, 9, 2), row(4, 9, 6)]);
    let pairs = Pairs { answers, reference: vec![-40.0, -21.0, -10.0, -33.0] };
    let (objective, mut trainer) = (Sigmoid { beta: 0.3 }, trainer(model));
    trainer.step(&objective, std::slice::from_ref(&pairs), 0.0).unwrap();
    let gradients = trainer.gradients().values().to_vec();
    let start = trainer.parameters().values().to_vec();
    let mut at = |direction: &[f64], distance: f64| {
        let values = trainer.restore(0).parameters_mut().values_mut();
        values
            .iter_mut()
            .zip(&start)
            .zip(direction)
            .for_each(|((value, start), d)| *value = start + (distance * d) as f32);
        trainer.validate(&objective, &pairs).mean()
    };
    // Along the gradient, and along some that have nothing to do with it.
    let along = |seed: usize| -> Vec<f64> {
        let direction: Vec<f64> = match seed {
            0 => gradients.iter().map(|&x| f64::from(x)).collect(),
            _ => (0..gradients.len()).map(|i| ((i * 7919 + seed * 31) as f64 * 0.618).sin()).collect(),
        };
        let length = direction.iter().map(|x| x * x).sum::<f64>().sqrt();
        direction.iter().map(|x| x / length).collect()
    };
    for seed in 0..4 {
        let direction = along(seed);
        let expected: f64 = gradients.iter().zip(&direction).map(|(&g, d)| f64::from(g) * d).sum();
        // Short where the loss is steep: its higher derivatives are large there too.
        let step = 2e-2 / expected.abs().max(1.0);
        let found = (at(&direction, step) - at(&direction, -step)) / (2.0 * step);
        assert_near(&format!("direction {seed}"), found, expected, 1e-3 * expected.abs() + 5e-4);
    }
}
