//! The reckoned memory of a run beside what its steps and its snapshot really take.

#![allow(clippy::unwrap_used)]

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use openelm_model::kernels::Threads;
use openelm_testing::golden;
use openelm_train::data::{Batch, CorpusConfig, RowStream, Source};
use openelm_train::pretrain::pretrain;
use openelm_train::{NextToken, Recipe, TrainableModel, Trainer, TrainerOptions, TrainingFootprint, initialise};
use peak_alloc::PeakAlloc;

#[global_allocator]
static ALLOCATOR: PeakAlloc = PeakAlloc;

const RECIPE: &str = r#"
output = "unused"
[model]
layers = 4
dim = 512
ffn_divisor = 64
[tokenizer]
path = "unused"
[data]
sources = [{ path = "unused" }]
shuffle_buffer = 0
[train]
sequence_length = 256
batch_size = 4
steps = 1
[schedule]
max_lr = 1e-3
warmup_steps = 0
"#;

fn recipe(sets: &[&str]) -> Recipe {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("recipe.toml");
    std::fs::write(&path, RECIPE).unwrap();
    Recipe::load(&path, &sets.iter().map(|&set| set.to_owned()).collect::<Vec<_>>()).unwrap()
}

#[test]
fn steps_take_what_was_reckoned() {
    let recipe = recipe(&[]);
    let config = recipe.model_config(4000).unwrap();
    let (sequences, time) = (recipe.train.batch_size, recipe.train.sequence_length);
    let ids: Vec<u32> = (0..sequences * time).map(|i| (i % 4000) as u32).collect();
    let batch = Batch { inputs: ids.clone(), targets: ids, document_starts: None, sequences, time };
    let threads = Threads::new(2);

    let before = ALLOCATOR.current_usage();
    ALLOCATOR.reset_peak_usage();
    let parameters = initialise(&config, 1);
    let objective = NextToken { ignore: None, z_weight: 1e-4 };
    let model = TrainableModel::new(config.clone(), parameters).unwrap();
    let mut trainer = Trainer::new(model, threads, TrainerOptions::default());
    for _ in 0..2 {
        trainer.step(&objective, std::slice::from_ref(&batch), 1e-3).unwrap();
    }
    let taken = (ALLOCATOR.peak_usage() - before) as f64;

    let footprint = TrainingFootprint::new(&config, &recipe, 1);
    let reckoned = (footprint.total() - footprint.snapshot) as f64;
    assert!((taken / reckoned - 1.0).abs() < 0.1, "{taken} bytes taken, {reckoned} reckoned: {footprint:?}");
    drop(trainer);
    for sets in [
        &["train.activations=bf16"][..],
        &["optimizer.moments=bf16"],
        &["optimizer.moments=bf16", "checkpoint.background=false"],
    ] {
        a_whole_run_takes_what_was_reckoned(sets);
    }
    duplicates_take_what_is_documented();
}

/// docs/data.md: at most 31 bytes for each document, and nothing afterwards. This many do not fit the table of 2^18 entries
/// any more, which is the dearest case.
fn duplicates_take_what_is_documented() {
    const DOCUMENTS: usize = 229_400;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("many.jsonl");
    std::fs::write(&path, (0..DOCUMENTS).map(|i| format!("{{\"text\": \"{i}\"}}\n")).collect::<String>()).unwrap();
    let mut config = CorpusConfig::new(vec![Source::new(path.display().to_string())]);
    config.deduplicate = true;
    let before = ALLOCATOR.current_usage();
    ALLOCATOR.reset_peak_usage();
    let stream = RowStream::new(config, Arc::new(|_| Vec::new()), 9, 0, 1, false).unwrap();
    let each = |bytes: usize| (bytes - before) as f64 / DOCUMENTS as f64;
    let (most, after) = (each(ALLOCATOR.peak_usage()), each(ALLOCATOR.current_usage()));
    assert!((29.0..31.5).contains(&most) && after < 0.1, "{most} bytes for each document, {after} afterwards");
    drop(stream);
}

/// With checkpoints on the way. Not a test of its own: two at once would count each other's bytes.
fn a_whole_run_takes_what_was_reckoned(sets: &[&str]) {
    let folder = tempfile::tempdir().unwrap();
    let book = folder.path().join("book.txt");
    std::fs::write(&book, "The fox met seven geese and went home.\n\n".repeat(200)).unwrap();
    let run = [
        &format!("output={}", folder.path().join("out").display()),
        &format!("tokenizer.path={}", golden("tokenizer_small/tokenizer.model").display()),
        &format!("data.sources=[{{path=\"{}\"}}]", book.display()),
        "train.sequence_length=64",
        "train.steps=2",
        "checkpoint.every=1",
    ];
    let recipe = recipe(&[&run, sets].concat());
    let before = ALLOCATOR.current_usage();
    ALLOCATOR.reset_peak_usage();
    pretrain(&recipe, Threads::new(2), &AtomicBool::new(false), &mut |_| ()).unwrap();
    let taken = (ALLOCATOR.peak_usage() - before) as f64;
    let footprint = TrainingFootprint::of(&recipe, 1).unwrap();
    let reckoned = footprint.total() as f64;
    assert!((taken / reckoned - 1.0).abs() < 0.1, "{sets:?}: {taken} bytes taken, {reckoned} reckoned: {footprint:?}");
}

#[test]
fn every_choice_of_a_recipe_is_in_the_sum() {
    let footprint = |sets: &[&str]| {
        let recipe = recipe(sets);
        TrainingFootprint::new(&recipe.model_config(4000).unwrap(), &recipe, 1)
    };
    let plain = footprint(&[]);
    let config = recipe(&[]).model_config(4000).unwrap();
    assert_eq!(plain.weights, 4 * config.parameters() as u64);
    assert_eq!((plain.moments, plain.layers.len()), (2 * plain.weights, 4));
    assert_eq!(plain.logits, 4 * 256 * 4000);
    assert_eq!(plain.streams, 5 * 4 * 1024 * 512);
    let items: u64 = plain.items().iter().map(|(_, bytes)| bytes).sum();
    assert_eq!(items, plain.total());
    let recompute = footprint(&["train.recompute=block"]);
    assert_eq!(recompute.layers, [*plain.layers.iter().max().unwrap()]);
    let rounded = footprint(&["train.activations=bf16"]);
    assert_eq!(rounded.layers, plain.layers.iter().map(|bytes| bytes / 2).collect::<Vec<_>>());
    assert_eq!(rounded.scratch, plain.scratch + recompute.layers[0]);
    assert_eq!(rounded.streams, 4 * 2 * 1024 * 512 + 2 * 4 * 1024 * 512);
    assert_eq!(footprint(&["optimizer.moments=bf16"]).moments, plain.weights);
    assert_eq!(footprint(&["data.shuffle_buffer=100"]).data, 2 * 100 * 257 * 4);
    assert_eq!(footprint(&["log.sample_every=9"]).samples, plain.weights);
    let waiting = footprint(&["checkpoint.background=false"]);
    assert_eq!(plain.snapshot - waiting.snapshot, 3 * plain.weights);
    // Four ranks: each has a quarter of the moments, and two shares with one level of sums; the first gathers all moments.
    let ranks = recipe(&["train.sharding=optimizer", "train.accumulation=8", "train.shares=8"]);
    let ranks = TrainingFootprint::new(&config, &ranks, 4);
    assert_eq!((ranks.moments, ranks.gradients), (plain.moments / 4, 2 * plain.gradients));
    assert_eq!(ranks.snapshot, plain.snapshot);
    // Moments in bf16 are copied, and written, in f32.
    let copied = |sets: &[&str]| footprint(&[&["optimizer.moments=bf16"], sets].concat()).snapshot;
    assert_eq!(copied(&[]), plain.snapshot);
    assert_eq!(copied(&["checkpoint.background=false"]), waiting.snapshot + 2 * plain.weights);
    let huge = footprint(&["train.batch_size=1000000000000000"]);
    let message = huge.check(4 << 30).unwrap_err().to_string();
    assert!(message.contains("only 4.0 GiB are available; take a smaller train.batch_size"), "{message}");
    assert_eq!(plain.check(plain.total()), Ok(()));
}

#[test]
fn a_recipe_whose_tokenizer_is_missing_is_named() {
    let missing = TrainingFootprint::of(&recipe(&[]), 1).unwrap_err().to_string();
    assert!(missing.contains("unused"), "{missing}");
    let path = format!("tokenizer.path={}", golden("tokenizer_small/tokenizer.model").display());
    assert!(TrainingFootprint::of(&recipe(&[&path]), 1).unwrap().total() > 0);
}
