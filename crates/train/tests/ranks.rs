//! Several ranks, one run: the same bits for any number of them, with and without sharing out the moments.

#![allow(clippy::unwrap_used)]

mod support;

use std::fs;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use openelm_model::kernels::Threads;
use openelm_model::{Geometry, ModelConfig, Multipliers};
use openelm_testing::run::SmallRun;
use openelm_train::collective::{Collective, Local};
use openelm_train::data::Batch;
use openelm_train::pretrain::pretrain_on;
use openelm_train::run::{Event, Outcome, RunError};
use openelm_train::{
    Accumulation, Distribution, NextToken, OptimizerOptions, Recipe, StepReport, TrainableModel, Trainer,
    TrainerOptions, initialise,
};
use support::load;

/// Large enough that each of four ranks answers for a part of each layer.
fn config() -> ModelConfig {
    let geometry = Geometry {
        layers: 2,
        dim: 64,
        head_dim: 16,
        gqa_groups: 2,
        ffn_multipliers: Multipliers::List(vec![2.0, 4.0]),
        ffn_divisor: 16,
        context_length: 32,
        ..Geometry::default()
    };
    geometry.build(500).unwrap()
}

const MICRO_BATCHES: usize = 8;

/// The micro-batches of an update; some targets are padding, in each batch another number of them.
fn batches() -> Vec<Batch> {
    let id = |batch: usize, i: usize| ((i * i * 31 + i * 7 + batch * 113) % 499 + 1) as u32;
    let batch = |batch: usize| {
        let rows: Vec<Vec<u32>> = (0..2).map(|row| (0..17).map(|i| id(batch, row * 17 + i)).collect()).collect();
        let mut batch_ = Batch::from_rows(&rows.into_iter().map(Into::into).collect::<Vec<_>>());
        batch_.targets[16 + batch..].fill(0);
        batch_
    };
    (0..MICRO_BATCHES).map(batch).collect()
}

/// Three updates on `ranks` ranks: reports, weights and moments as rank 0 has them; all ranks must have the same weights.
fn train(ranks: usize, shares: usize, sharded: bool, how: Accumulation) -> (Vec<StepReport>, Vec<f32>, [Vec<f32>; 2]) {
    let results = Local::on_each(ranks, |rank| {
        let (number, ranks) = (rank.rank(), rank.ranks());
        let objective = NextToken { ignore: Some(0), z_weight: 1e-4 };
        let options = TrainerOptions {
            optimizer: OptimizerOptions { clip: 0.5, ..OptimizerOptions::default() },
            accumulation: how,
            distribution: Distribution { ranks: Arc::new(rank), shares, sharded },
            padding: Some(0),
            ..TrainerOptions::default()
        };
        let model = TrainableModel::new(config(), initialise(&config(), 1)).unwrap();
        let mut trainer = Trainer::new(model, Threads::new(1 + number % 2), options);
        let mine = MICRO_BATCHES / ranks;
        let update = |_| trainer.step(&objective, &batches()[number * mine..][..mine], 3e-3).unwrap();
        let reports: Vec<_> = (0..3).map(update).collect();
        let moments = trainer.moments().unwrap().map(|moments| moments.into_owned());
        (reports, trainer.parameters().values().to_vec(), moments)
    });
    for (reports, weights, _) in &results[1..] {
        assert!((reports, weights) == (&results[0].0, &results[0].1), "ranks came to differ");
    }
    results.into_iter().next().unwrap()
}

#[test]
fn one_two_and_four_ranks_give_the_same_bits_with_moments_whole_or_shared_out() {
    for (how, shares) in [(Accumulation::Mean, 8), (Accumulation::SumOfMeans, 4)] {
        let alone = train(1, shares, false, how);
        assert!(alone.0[2].loss.sum < alone.0[0].loss.sum, "nothing was learnt");
        for (ranks, sharded) in [(1, true), (2, false), (2, true), (4, false), (4, true)] {
            assert!(train(ranks, shares, sharded, how) == alone, "{how:?}, {ranks} ranks, {shares} shares, {sharded}");
        }
    }
}

#[test]
fn shares_change_rounding_and_nothing_else() {
    let (reports, weights, _) = train(1, 1, false, Accumulation::Mean);
    let (in_shares, other, _) = train(1, 8, false, Accumulation::Mean);
    assert!(weights != other, "shares had no part in it");
    for (a, b) in reports.iter().zip(&in_shares) {
        assert!((a.gradient_norm / b.gradient_norm - 1.0).abs() < 1e-5, "{} and {}", a.gradient_norm, b.gradient_norm);
        assert!((a.loss.sum / b.loss.sum - 1.0).abs() < 1e-5);
    }
}

const STEPS: u64 = 9;

fn small_run() -> SmallRun {
    SmallRun::new(
        3,
        12,
        &format!(
            "train = {{ sequence_length = 16, batch_size = 2, accumulation = 4, shares = 4, steps = {STEPS} }}\n\
             schedule = {{ max_lr = 1e-2, warmup_steps = 3 }}\n"
        ),
    )
}

/// A file of the last checkpoint.
fn last(run: &SmallRun, name: &str) -> Vec<u8> {
    fs::read(run.out(&format!("checkpoints/step-{STEPS:08}")).join(name)).unwrap()
}

/// Runs on `ranks` ranks until `step` was made, where rank `asked` is told to stop.
fn run_until(recipe: &Recipe, ranks: usize, asked: usize, step: u64) -> Outcome {
    let stops: Vec<AtomicBool> = (0..ranks).map(|_| AtomicBool::new(false)).collect();
    let mut outcomes = Local::on_each(ranks, |rank| {
        let own = &stops[rank.rank()];
        let mut watch = |event: Event| {
            if let Event::Step(entry) = event
                && entry.step == step
            {
                stops[asked].store(true, Ordering::Relaxed);
            }
        };
        pretrain_on(Arc::new(rank), recipe, Threads::new(1), own, &mut watch).unwrap()
    });
    assert!(outcomes[1..].iter().all(Option::is_none), "only rank 0 reports");
    outcomes.remove(0).unwrap()
}

#[test]
fn a_run_goes_on_with_another_number_of_ranks_to_the_bit() {
    let whole = small_run();
    assert!(run_until(&load(&whole, &[]), 1, 0, u64::MAX).finished);

    let parts = small_run();
    let shared_out = load(&parts, &["train.sharding=optimizer"]);
    // The rank that was asked stops all of them; another than the first takes part until the next update is made.
    assert_eq!(run_until(&shared_out, 2, 1, 2).step, 3);
    assert_eq!(run_until(&shared_out, 1, 0, 5).step, 5);
    assert_eq!(run_until(&load(&parts, &[]), 2, 0, 7).step, 7);
    assert!(run_until(&shared_out, 4, 0, u64::MAX).finished);
    for name in ["model.safetensors", "optimizer.safetensors"] {
        assert!(last(&whole, name) == last(&parts, name), "{name} differs");
    }
}

#[test]
fn an_update_that_is_refused_ends_all_ranks_and_is_kept_as_by_one() {
    let kept = |ranks: usize| {
        let run = small_run();
        let sets =
            ["schedule.max_lr=1e30", "schedule.warmup_steps=0", "train.sharding=optimizer", "checkpoint.every=1"];
        let recipe = load(&run, &sets);
        let results = Local::on_each(ranks, |rank| {
            pretrain_on(Arc::new(rank), &recipe, Threads::new(1), &AtomicBool::new(false), &mut |_| ())
        });
        let Err(RunError::Diverged { kept: Ok(folder), .. }) = &results[0] else { panic!("{:?}", results[0]) };
        assert!(results[1..].iter().all(|result| matches!(result, Err(RunError::Collective(_)))));
        fs::read_to_string(folder.join("batch.json")).unwrap()
    };
    assert_eq!(kept(1), kept(2));
}

#[test]
fn ranks_that_cannot_share_the_work_are_told_why() {
    let run = small_run();
    let message = |ranks: usize, sets: &[&str]| {
        let recipe = load(&run, sets);
        let mut results = Local::on_each(ranks, |rank| {
            pretrain_on(Arc::new(rank), &recipe, Threads::new(1), &AtomicBool::new(false), &mut |_| ())
        });
        results.remove(0).unwrap_err().to_string()
    };
    let found = message(3, &[]);
    assert!(found.contains("3 ranks cannot share the 4 micro-batches"), "{found}");
    let found = message(1, &["train.accumulation=6", "train.shares=6"]);
    assert!(found.contains("in 6 shares"), "{found}");
}

#[test]
fn a_rank_that_fails_ends_the_run_and_the_checkpoints_stand() {
    let run = small_run();
    assert_eq!(run_until(&load(&run, &[]), 2, 0, 4).step, 4);
    let (good, bad) = (load(&run, &[]), load(&run, &["tokenizer.path=nowhere"]));
    let results = Local::on_each(2, |rank| {
        let recipe = if rank.rank() == 1 { &bad } else { &good };
        pretrain_on(Arc::new(rank), recipe, Threads::new(1), &AtomicBool::new(false), &mut |_| ())
    });
    assert!(matches!(results[0], Err(RunError::Collective(_))), "{:?}", results[0]);
    assert!(run_until(&good, 2, 0, u64::MAX).finished);
}
