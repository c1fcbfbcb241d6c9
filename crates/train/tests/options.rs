//! What may be chosen for memory or data, beside the plain way.

#![allow(clippy::unwrap_used)]

use std::collections::HashMap;

use openelm_model::kernels::Threads;
use openelm_model::{Geometry, Tensor, tensor_specs};
use openelm_train::data::Batch;
use openelm_train::{Keeping, NextToken, Parameters, StepReport, TrainableModel, Trainer, TrainerOptions, initialise};

const TIME: usize = 70;
const OBJECTIVE: NextToken = NextToken { ignore: Some(99), z_weight: 1e-4 };

fn trainer(keeping: Keeping) -> Trainer {
    let config = Geometry { layers: 3, dim: 64, head_dim: 16, gqa_groups: 2, ffn_divisor: 16, ..Geometry::default() };
    let config = config.build(100).unwrap();
    let parameters = initialise(&config, 1);
    let model = TrainableModel::new(config, parameters).unwrap();
    let options = TrainerOptions { keeping, padding: Some(99), ..TrainerOptions::default() };
    Trainer::new(model, Threads::new(2), options)
}

fn batch(step: u32) -> Batch {
    let ids: Vec<u32> = (0..2 * TIME as u32).map(|i| (i * i + 7 * i * step) % 97).collect();
    Batch {
        targets: ids[1..].iter().copied().chain([3]).collect(),
        inputs: ids,
        document_starts: None,
        sequences: 2,
        time: TIME,
    }
}

fn train(keeping: Keeping) -> (Vec<StepReport>, Vec<f32>) {
    let mut trainer = trainer(keeping);
    let reports = (0..5).map(|i| trainer.step(&OBJECTIVE, &[batch(i)], 1e-2).unwrap()).collect();
    (reports, trainer.parameters().values().to_vec())
}

#[test]
fn blocks_computed_again_give_the_same_bits() {
    assert_eq!(train(Keeping { recompute: true, ..Keeping::default() }), train(Keeping::default()));
}

#[test]
fn activations_in_bf16_give_nearly_the_same_gradients() {
    let gradients = |keeping| {
        let mut trainer = trainer(keeping);
        let report = trainer.step(&OBJECTIVE, &[batch(1)], 1e-2).unwrap();
        (report.loss, trainer.gradients().values().to_vec())
    };
    let (loss, exact) = gradients(Keeping::default());
    let norm = |values: &mut dyn Iterator<Item = f32>| values.map(|x| x * x).sum::<f32>().sqrt();
    for recompute in [false, true] {
        let (rounded_loss, rounded) = gradients(Keeping { recompute, bf16_activations: true, ..Keeping::default() });
        assert_eq!(rounded_loss, loss, "the forward pass is the same");
        let difference = norm(&mut exact.iter().zip(&rounded).map(|(a, b)| a - b)) / norm(&mut exact.iter().copied());
        // Each activation is right to 2^-9.
        assert!(difference > 0.0 && difference < 4.0 / 512.0, "recompute {recompute}: {difference} of the gradient");
    }
}

#[test]
fn separate_documents_in_a_row_teach_what_rows_of_their_own_teach() {
    // Two documents of equal length in each row, and the same four documents as rows. Rotary positions are relative: where
    // a document begins is of no consequence.
    let (half, together) = (TIME / 2, batch(1));
    let starts = |place: usize| if place % TIME < half { 0 } else { half as u32 };
    let together = Batch { document_starts: Some((0..2 * TIME).map(starts).collect()), ..together };
    let apart = Batch { document_starts: None, sequences: 4, time: half, ..together.clone() };
    let mixed = Batch { document_starts: None, ..together.clone() };
    let gradients = |batch: &Batch| {
        let mut trainer = trainer(Keeping::default());
        trainer.step(&OBJECTIVE, std::slice::from_ref(batch), 0.0).unwrap();
        trainer.gradients().values().to_vec()
    };
    let (together, apart, mixed) = (gradients(&together), gradients(&apart), gradients(&mixed));
    let difference = |other: &[f32]| together.iter().zip(other).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
    assert!(difference(&apart) < 2e-6, "gradients differ by {}", difference(&apart));
    assert!(difference(&mixed) > 1e-4, "the case does not tell the two apart");
}

#[test]
fn moments_in_bf16_lead_nearly_to_the_same_weights_and_survive_a_checkpoint() {
    let keeping = Keeping { bf16_moments: true, ..Keeping::default() };
    let ((plain, weights), (rounded, near)) = (train(Keeping::default()), train(keeping));
    assert_eq!(plain[0], rounded[0]);
    let difference = weights.iter().zip(&near).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
    // Five steps of at most about 0.01 each.
    assert!(difference > 0.0 && difference < 5e-3, "weights differ by {difference}");

    let mut first = trainer(keeping);
    first.step(&OBJECTIVE, &[batch(0)], 1e-2).unwrap();
    let moments = first.moments().unwrap().map(std::borrow::Cow::into_owned);
    let mut second = trainer(keeping);
    second.restore(1).parameters_mut().values_mut().copy_from_slice(first.parameters().values());
    second.restore_moments(0, &moments[0], &moments[1]);
    let report = first.step(&OBJECTIVE, &[batch(1)], 1e-2).unwrap();
    assert_eq!(second.step(&OBJECTIVE, &[batch(1)], 1e-2).unwrap(), report);
    assert_eq!(second.parameters().values(), first.parameters().values());
}

#[test]
fn gradients_and_moments_exist_only_for_what_is_trained() {
    let mut whole = trainer(Keeping::default());
    let loss = whole.step(&OBJECTIVE, &[batch(1)], 0.0).unwrap().loss;
    let config = whole.config().clone();
    let frozen = |wanted: &dyn Fn(&str) -> bool| {
        let mut parameters =
            Parameters::of(tensor_specs(&config).into_iter().filter(|spec| wanted(&spec.name)).collect());
        let all = initialise(&config, 1);
        let mut tensors: HashMap<String, Tensor> = all
            .tensors()
            .map(|(spec, values)| (spec.name.clone(), Tensor::from_f32(spec.shape.clone(), values.to_vec()).unwrap()))
            .collect();
        for (spec, values) in parameters.tensors_mut() {
            values.copy_from_slice(&tensors.remove(&spec.name).unwrap().to_f32());
        }
        let model = TrainableModel::partly(config.clone(), parameters, tensors).unwrap();
        Trainer::new(model, Threads::new(2), TrainerOptions { padding: Some(99), ..TrainerOptions::default() })
    };
    let expected: HashMap<&str, &[f32]> =
        whole.gradients().tensors().map(|(spec, values)| (spec.name.as_str(), values)).collect();
    for wanted in [
        |name: &str| name.contains("qkv_proj"),
        |name: &str| name.starts_with("layers.2.") || name == "norm.weight",
        |name: &str| name.ends_with("q_norm.weight"),
        |name: &str| name.starts_with("token_embeddings"),
    ] {
        let mut part = frozen(&wanted);
        let report = part.step(&OBJECTIVE, &[batch(1)], 1e-2).unwrap();
        assert_eq!(report.loss, loss);
        let mut numbers = 0;
        for (spec, values) in part.gradients().tensors() {
            assert!(values == expected[spec.name.as_str()], "{} differs", spec.name);
            assert!(wanted(&spec.name) && values.iter().any(|&x| x != 0.0));
            numbers += values.len();
        }
        assert_eq!(part.moments().unwrap()[0].len(), numbers);
        assert!(part.validate(&OBJECTIVE, &batch(1)).sum < report.loss.sum, "nothing was learnt");
    }
    let nothing = TrainableModel::partly(config.clone(), Parameters::of(Vec::new()), HashMap::new());
    assert!(nothing.err().unwrap().to_string().contains("token_embeddings.weight is missing"));
}
