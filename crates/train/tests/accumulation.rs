//! The first micro-batch of an update overwrites the gradients of the one before: nothing of them is left.

#![allow(clippy::unwrap_used)]

use openelm_formats::{adapter, huggingface};
use openelm_model::kernels::Threads;
use openelm_model::kernels::rounded::Products;
use openelm_model::{Geometry, ModelConfig};
use openelm_testing::golden;
use openelm_train::data::Batch;
use openelm_train::{Distribution, NextToken, TrainableModel, Trainer, TrainerOptions, initialise};

const VOCABULARY: u32 = 90;
/// More rows than the output projection takes at a time.
const TIME: usize = 150;

/// Two sequences of ids below `ids`, and the padding.
fn batch(seed: u32, ids: u32) -> Batch {
    let mut inputs: Vec<u32> = (0..2 * TIME as u32).map(|i| (i * i + 7 * i * seed) % ids).collect();
    inputs[TIME - 1] = VOCABULARY - 1;
    let targets = inputs[1..].iter().copied().chain([3]).collect();
    Batch { inputs, targets, document_starts: None, sequences: 2, time: TIME }
}

fn geometry(tied_embeddings: bool) -> ModelConfig {
    let geometry = Geometry { layers: 2, dim: 32, head_dim: 16, gqa_groups: 2, ffn_divisor: 16, ..Geometry::default() };
    Geometry { tied_embeddings, ..geometry }.build(VOCABULARY as usize).unwrap()
}

fn whole(tied_embeddings: bool) -> TrainableModel {
    let config = geometry(tied_embeddings);
    let parameters = initialise(&config, 1);
    TrainableModel::new(config, parameters).unwrap()
}

fn adapted(name: &str) -> TrainableModel {
    let base = huggingface::read(&golden("tiny/hf")).unwrap().into_model().unwrap();
    let adapter = adapter::open(&golden(name), base.config()).unwrap();
    TrainableModel::adapted(base, &adapter).unwrap()
}

/// The gradients of the last of `updates`, none of which changes a weight.
fn gradients(model: TrainableModel, products: Products, updates: &[&[Batch]], shares: usize) -> Vec<f32> {
    let distribution = Distribution { shares, ..Distribution::default() };
    let options = TrainerOptions { products, distribution, padding: Some(VOCABULARY - 1), ..TrainerOptions::default() };
    let mut trainer = Trainer::new(model, Threads::new(2), options);
    for micro_batches in updates {
        let objective = NextToken { ignore: Some(VOCABULARY - 1), z_weight: 1e-4 };
        trainer.step(&objective, micro_batches, 0.0).unwrap();
    }
    trainer.gradients().values().to_vec()
}

#[test]
fn an_update_keeps_nothing_of_the_gradients_before() {
    let models: [(&str, &dyn Fn() -> TrainableModel); 5] = [
        ("tied", &|| whole(true)),
        ("untied", &|| whole(false)),
        ("LoRA", &|| adapted("lora/basic")),
        ("LoRA of embeddings", &|| adapted("lora/with_embeddings")),
        ("DoRA", &|| adapted("dora/basic")),
    ];
    // The later update has fewer ids: rows that the one before touched stay untouched.
    let (before, after) = ([1, 2, 3, 4].map(|seed| batch(seed, 80)), [5, 6, 7, 8].map(|seed| batch(seed, 40)));
    for ((name, model), products) in models.into_iter().flat_map(|m| [(m, Products::F32), (m, Products::BF16)]) {
        for (count, shares) in [(1, 1), (2, 1), (4, 2), (4, 4)] {
            let after = &after[..count];
            let found = gradients(model(), products, &[&before[..count], after], shares);
            let expected = gradients(model(), products, &[after], shares);
            assert!(found == expected, "{name} in {products:?}, {count} micro-batches in {shares} shares");
            assert!(found.iter().any(|&x| x != 0.0), "{name}: there are gradients");
        }
    }
}

#[test]
fn what_no_micro_batch_touches_has_no_gradient() {
    let found = gradients(whole(false), Products::F32, &[&[batch(1, 80)], &[batch(2, 40)]], 1);
    let dim = geometry(false).model_dim;
    let rows: Vec<&[f32]> = found[..VOCABULARY as usize * dim].chunks_exact(dim).collect();
    assert!(rows[40..].iter().all(|row| row.iter().all(|&x| x == 0.0)), "beyond the ids of the batch");
    assert!(rows[..40].iter().any(|row| row.iter().any(|&x| x != 0.0)));
}
