//! The loop with a kind of training that has nothing to do with a corpus: sequences that are made up, an objective that looks
//! at whole sequences first, and a part of the model in training.

#![allow(clippy::unwrap_used)]

use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use openelm_model::kernels::Threads;
use openelm_model::{Geometry, ModelConfig, Tensor, TensorSpec, tensor_specs};
use openelm_testing::golden;
use openelm_train::collective::Local;
use openelm_train::data::{Batch, Counts, DataError};
use openelm_train::run::{
    Datasets, Event, Outcome, RunError, RunTokenizer, SampleEntry, Settings, Training, ValidationEntry, run,
};
use openelm_train::{
    CheckpointRecipe, Distribution, LogRecipe, Loss, Objective, Parameters, Schedule, SpikeRecipe, TargetWeights,
    TrainableModel, Trainer, TrainerOptions, Weighed, initialise,
};
use serde::{Deserialize, Serialize};

const STEPS: u64 = 8;
const VOCABULARY: u32 = 60;

/// Sequences, the first targets of which do not count.
#[derive(Serialize, Deserialize)]
struct Lesson {
    sequences: Batch,
    skipped: usize,
}

/// Half the square of the cross-entropy of each sequence.
struct Squares;

impl Objective for Squares {
    type Batch = Lesson;

    fn sequences<'b>(&self, batch: &'b Lesson) -> &'b Batch {
        &batch.sequences
    }

    fn amount(&self, batch: &Lesson) -> f64 {
        batch.sequences.sequences as f64
    }

    fn weigh(&self, batch: &Lesson, log_probabilities: &mut dyn FnMut() -> Vec<f64>) -> Weighed {
        let (time, skipped) = (batch.sequences.time, batch.skipped);
        let sums: Vec<f64> = log_probabilities().chunks(time).map(|row| -row[skipped..].iter().sum::<f64>()).collect();
        let weight = |i: usize| if i % time < skipped { 0.0 } else { sums[i / time] as f32 };
        let weights = TargetWeights::Each((0..batch.sequences.targets.len()).map(weight).collect());
        let (loss, nats) = (sums.iter().map(|sum| sum * sum / 2.0).sum(), sums.iter().sum());
        Weighed { weights, loss: Some(loss), metrics: vec![nats, f64::INFINITY] }
    }

    fn metrics(&self) -> &'static [&'static str] {
        &["nats", "no number"]
    }
}

/// Which lesson is next.
struct Lessons(u64);

impl Datasets for Lessons {
    type Batch = Lesson;
    type Explanation = Loss;
    type Position = u64;

    fn next(&mut self) -> Result<Vec<Lesson>, RunError> {
        if self.0 > 40 {
            return Err(DataError::Empty { tokens: 7 }.into());
        }
        let lesson = |number: u64| {
            // The same four again and again.
            let ids: Vec<u32> = (0..14).map(|i| (i * i + number as u32 % 4 * 7) % VOCABULARY).collect();
            let rows: Vec<_> = ids.chunks(7).map(|row| row.to_vec().into()).collect();
            Lesson { sequences: Batch::from_rows(&rows), skipped: number as usize % 4 % 3 }
        };
        self.0 += 4;
        Ok((self.0 - 4..self.0).map(lesson).collect())
    }

    fn position(&self) -> u64 {
        self.0
    }

    fn restore(&mut self, position: u64) -> Result<(), RunError> {
        self.0 = position;
        Ok(())
    }

    fn epochs(&self) -> u64 {
        0
    }

    fn counts(&self) -> Vec<Counts> {
        Vec::new()
    }

    fn validate(
        &mut self,
        trainer: &mut Trainer,
        note: &mut dyn FnMut(ValidationEntry) -> Result<(), RunError>,
    ) -> Result<(), RunError> {
        let lessons = Lessons(0).next()?;
        let loss = trainer.validate(&Squares, &lessons[0]);
        let (step, corpus) = (trainer.steps(), "first".to_owned());
        let (validation_loss, validation_tokens) = (loss.mean(), loss.tokens as u64);
        let validation_metrics = BTreeMap::new();
        note(ValidationEntry { step, corpus, validation_loss, validation_tokens, validation_metrics })
    }

    fn sample(&mut self, _: &Trainer) -> Result<Vec<SampleEntry>, RunError> {
        Ok(Vec::new())
    }

    fn explain(&self, trainer: &mut Trainer, batch: &Lesson) -> Loss {
        trainer.validate(&Squares, batch)
    }
}

/// Trains the tensors whose names hold `part`.
struct MadeUp {
    output: PathBuf,
    part: &'static str,
    tokenizer: RunTokenizer,
    max_lr: f64,
}

impl MadeUp {
    fn new(output: &Path, part: &'static str) -> Self {
        let tokenizer = RunTokenizer::open(&golden("tokenizer_small/tokenizer.model")).unwrap();
        Self { output: output.to_owned(), part, tokenizer, max_lr: 1e-2 }
    }

    fn config() -> ModelConfig {
        let geometry = Geometry { layers: 2, dim: 64, head_dim: 16, gqa_groups: 2, ..Geometry::default() };
        geometry.build(VOCABULARY as usize).unwrap()
    }
}

impl Training for MadeUp {
    type Batch = Lesson;
    type Objective = Squares;
    type Datasets = Lessons;

    fn settings(&self) -> Settings {
        let max_lr = self.max_lr;
        Settings {
            output: self.output.clone(),
            recipe: "made = \"up\"\n".to_owned(),
            steps: STEPS,
            schedule: Schedule { warmup_init_lr: max_lr, max_lr, min_lr: 1e-3, warmup_steps: 0, steps: STEPS },
            accumulation: 4,
            shares: Some(4),
            sharded: true,
            log: LogRecipe { every: 1, validate_every: 3, ..LogRecipe::default() },
            measures_start: true,
            checkpoint: CheckpointRecipe { every: 2, keep: 0, ..CheckpointRecipe::default() },
            spike: SpikeRecipe::default(),
        }
    }

    fn changes_since(&self, before: &Path, _: u64) -> Vec<String> {
        vec![format!("{} is not as it was", before.display())]
    }

    fn tokenizer(&self) -> &RunTokenizer {
        &self.tokenizer
    }

    fn objective(&self) -> &Squares {
        &Squares
    }

    fn trainer(&self, threads: Threads, distribution: Distribution) -> Result<Trainer, RunError> {
        let config = Self::config();
        let specs = tensor_specs(&config).into_iter().filter(|spec| spec.name.contains(self.part));
        let mut parameters = Parameters::of(specs.collect());
        let all = initialise(&config, 3);
        let tensor = |(spec, values): (&TensorSpec, &[f32])| {
            (spec.name.clone(), Tensor::from_f32(spec.shape.clone(), values.to_vec()).unwrap())
        };
        let frozen: HashMap<String, Tensor> = all.tensors().map(tensor).collect();
        for (spec, values) in parameters.tensors_mut() {
            values.copy_from_slice(&frozen[&spec.name].to_f32());
        }
        let options = TrainerOptions { distribution, ..TrainerOptions::default() };
        Ok(Trainer::new(TrainableModel::partly(config, parameters, frozen)?, threads, options))
    }

    fn datasets(&self) -> Result<Lessons, RunError> {
        Ok(Lessons(0))
    }
}

/// Runs on `ranks` ranks until `step` was made; gives what the first of them says.
fn run_until(training: &MadeUp, ranks: usize, step: u64) -> Result<Outcome, RunError> {
    let stop = AtomicBool::new(false);
    let mut results = Local::on_each(ranks, |rank| {
        let mut watch = |event: Event| {
            if matches!(event, Event::Step(entry) if entry.step == step) {
                stop.store(true, Ordering::Relaxed);
            }
        };
        run(training, Arc::new(rank), Threads::new(1), &stop, &mut watch)
    });
    results.remove(0).map(Option::unwrap)
}

#[test]
fn what_is_trained_goes_on_to_the_bit_wherever_it_stopped() {
    let folder = tempfile::tempdir().unwrap();
    let [whole, parts] = ["whole", "parts"].map(|name| MadeUp::new(&folder.path().join(name), "proj_2"));
    let whole = run_until(&whole, 1, u64::MAX).unwrap();
    assert!(whole.finished);
    for (ranks, step) in [(2, 3), (1, 5), (4, u64::MAX)] {
        run_until(&parts, ranks, step).unwrap();
    }
    let last = parts.output.join(format!("checkpoints/step-{STEPS:08}"));
    for name in ["trained.safetensors", "optimizer.safetensors", "state.json", "config.json"] {
        let [a, b] = [&whole.checkpoint, &last].map(|checkpoint| fs::read(checkpoint.join(name)).unwrap());
        assert!(a == b, "{name} differs");
    }
    let bytes = fs::read(last.join("trained.safetensors")).unwrap();
    let names = safetensors::SafeTensors::deserialize(&bytes).unwrap().len();
    assert_eq!(names, 2, "one tensor of each layer");
    assert!(!last.join("model.safetensors").exists());
    let state: serde_json::Value = serde_json::from_slice(&fs::read(last.join("state.json")).unwrap()).unwrap();
    assert_eq!(state["stream"], 4 * STEPS);
    let log = fs::read_to_string(parts.output.join("log.jsonl")).unwrap();
    let entries: Vec<serde_json::Value> = log.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let measured: Vec<_> = entries.iter().filter(|entry| entry["validation_loss"].is_number()).collect();
    let steps: Vec<_> = measured.iter().map(|entry| entry["step"].as_u64().unwrap()).collect();
    assert_eq!(steps, [0, 3, 6, STEPS], "the start is measured once");
    let losses: Vec<f64> = measured.iter().filter_map(|entry| entry["validation_loss"].as_f64()).collect();
    let metrics: Vec<_> = entries.iter().filter_map(|entry| entry["metrics"].as_object()).collect();
    assert!(metrics.len() == 8 && metrics.iter().all(|metrics| metrics.keys().eq(["nats"])), "{metrics:?}");
    assert!(losses[3] < losses[0], "nothing was learnt: {losses:?}");
}

#[test]
fn a_checkpoint_of_another_choice_of_tensors_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    run_until(&MadeUp::new(folder.path(), "qkv_proj"), 1, 2).unwrap();
    for part in ["proj_1", "layers.0.attn.qkv_proj", ""] {
        let message = run_until(&MadeUp::new(folder.path(), part), 1, 3).unwrap_err().to_string();
        assert!(message.contains("another choice of what is trained"), "{part}: {message}");
    }
}

#[test]
fn an_update_that_is_refused_is_explained_in_the_words_of_its_training() {
    let folder = tempfile::tempdir().unwrap();
    let mut hot = MadeUp::new(folder.path(), "");
    hot.max_lr = 1e30;
    let error = run_until(&hot, 1, u64::MAX).unwrap_err();
    let RunError::Diverged { kept: Ok(kept), .. } = error else { panic!("{error}") };
    let batch: serde_json::Value = serde_json::from_slice(&fs::read(kept.join("batch.json")).unwrap()).unwrap();
    assert_eq!(batch["micro_batches"].as_array().unwrap().len(), 4);
    assert_eq!(batch["micro_batches"][1]["amount"], 2.0);
}
