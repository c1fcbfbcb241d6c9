//! A whole training run, from a recipe to checkpoints that are models.
//!
//! ```text
//! output/  recipe.toml            the recipe with every default written out
//!          log.jsonl              a line per logged update and per validation
//!          tensorboard/           the same for TensorBoard
//!          loss.svg               the same as a picture, at the end
//!          checkpoints/step-*/    the state, and a model in the Hugging Face layout
//!          run.lock               held while a run is at work
//! ```

mod curve;
mod error;
mod log;
mod tensorboard;

use std::fs::{File, TryLockError};
use std::io::Write;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use openelm::kernels::Threads;
use openelm::kernels::cross_entropy::LossSums;
use openelm::{ModelConfig, Tokenizer, clean};
use openelm_formats::atomic;

use crate::checkpoint::{self, Checkpoints, RunState};
use crate::data::{Batch, Counts, CorpusConfig, DataError, Encode, RowStream};
use crate::{LossOptions, Recipe, Trainer, initialise};
pub use error::PretrainError;
use error::at;
use log::Log;
pub use log::{Entry, StepEntry, ValidationEntry};
use tensorboard::EventFile;

/// What happens in a run, for whoever watches it.
#[derive(Debug)]
pub enum Event<'a> {
    /// The run is about to begin, or to go on, at `step`.
    Started {
        /// The model.
        config: &'a ModelConfig,
        /// Updates made before.
        step: u64,
        /// The checkpoint that it goes on from.
        from: Option<PathBuf>,
    },
    /// An update was made.
    Step(StepEntry),
    /// The validation corpus was measured.
    Validated(ValidationEntry),
    /// A checkpoint is on the disk.
    Saved(PathBuf),
}

/// How a run ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outcome {
    /// Updates made in all.
    pub step: u64,
    /// Whether all updates of the recipe were made; otherwise the same call goes on.
    pub finished: bool,
    /// The newest checkpoint.
    pub checkpoint: PathBuf,
    /// Times the corpus was read to its end.
    pub epochs: u64,
    /// Documents and tokens read of each source, in the recipe's order.
    pub counts: Vec<Counts>,
}

/// Trains as `recipe` says, from the newest checkpoint in its output folder or from the start. When `stop` becomes true
/// the update under way is finished, the state saved, and the run left; the same call resumes it to the bit.
///
/// # Errors
/// See [`PretrainError`]. After an error in the middle, the checkpoints written before stand.
pub fn pretrain(
    recipe: &Recipe,
    threads: Threads,
    stop: &AtomicBool,
    watch: &mut dyn FnMut(Event),
) -> Result<Outcome, PretrainError> {
    let _lock = lock(recipe)?;
    let mut run = Run::open(recipe, threads)?;
    let from = run.resume()?;
    watch(Event::Started { config: run.trainer.config(), step: run.trainer.steps(), from });
    let path = recipe.output.join("recipe.toml");
    atomic::write_file(&path, |file| file.write_all(recipe.to_toml().as_bytes())).map_err(at(&path))?;
    run.train(stop, watch)
}

/// Keeps other runs out of the output folder for as long as the file lives.
fn lock(recipe: &Recipe) -> Result<File, PretrainError> {
    let folder = &recipe.output;
    std::fs::create_dir_all(folder).map_err(at(folder))?;
    let path = folder.join("run.lock");
    let file = File::options().create(true).truncate(false).write(true).open(&path).map_err(at(&path))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(PretrainError::Busy { folder: folder.clone() }),
        Err(TryLockError::Error(source)) => Err(PretrainError::Io { path, source }),
    }
}

/// The tokenizer of a run and the file that every checkpoint takes along.
struct RunTokenizer {
    tokenizer: Arc<Tokenizer>,
    file_name: String,
    bytes: Vec<u8>,
    sha256: String,
}

impl RunTokenizer {
    fn open(recipe: &Recipe) -> Result<Self, PretrainError> {
        let path = Tokenizer::find(&recipe.tokenizer.path)?;
        let tokenizer = Arc::new(Tokenizer::open(&path)?);
        let bytes = std::fs::read(&path).map_err(at(&path))?;
        let is_json = path.extension().is_some_and(|extension| extension == "json");
        let file_name = if is_json { "tokenizer.json" } else { "tokenizer.model" }.to_owned();
        Ok(Self { tokenizer, file_name, sha256: checkpoint::sha256(&bytes), bytes })
    }

    /// The id behind the last piece, as in CoreNet: 32000 for LLaMA's.
    fn pad_id(&self) -> u32 {
        self.tokenizer.vocab_size() as u32
    }
}

/// Rows of an embedding with room for `pad`: CoreNet's is a multiple of 128.
fn rows_with_pad(pad: u32) -> usize {
    (pad as usize + 1).next_multiple_of(128)
}

struct Run<'r> {
    recipe: &'r Recipe,
    tokenizer: RunTokenizer,
    trainer: Trainer,
    stream: RowStream,
    checkpoints: Checkpoints,
    tokens: u64,
}

impl<'r> Run<'r> {
    fn open(recipe: &'r Recipe, threads: Threads) -> Result<Self, PretrainError> {
        let tokenizer = RunTokenizer::open(recipe)?;
        let pad = tokenizer.pad_id();
        let padded = recipe.data.parity.is_some();
        let config = recipe.model_config(if padded { rows_with_pad(pad) } else { pad as usize })?;
        let stream = rows(recipe, &tokenizer, true)?;
        let parameters = initialise(&config, recipe.train.seed);
        let loss = LossOptions { ignore: padded.then_some(pad), z_weight: recipe.optimizer.z_loss };
        let trainer = Trainer::new(config, parameters, threads, loss, recipe.optimizer(), recipe.accumulation());
        let checkpoints = Checkpoints::open(recipe.output.join("checkpoints"))?;
        Ok(Self { recipe, tokenizer, trainer, stream, checkpoints, tokens: 0 })
    }

    /// Goes back to the newest checkpoint, if there is one.
    fn resume(&mut self) -> Result<Option<PathBuf>, PretrainError> {
        let Some(newest) = self.checkpoints.list()?.pop() else { return Ok(None) };
        let state = checkpoint::load(&newest, &mut self.trainer, &self.tokenizer.sha256)?;
        self.stream.restore(state.stream)?;
        self.tokens = state.tokens;
        Ok(Some(newest))
    }

    fn train(&mut self, stop: &AtomicBool, watch: &mut dyn FnMut(Event)) -> Result<Outcome, PretrainError> {
        let recipe = self.recipe;
        let log_path = recipe.output.join("log.jsonl");
        let mut log = Log::open(log_path.clone(), self.trainer.steps()).map_err(at(&log_path))?;
        let events_path = recipe.output.join("tensorboard");
        let mut events = match recipe.log.tensorboard {
            true => Some(EventFile::create(&events_path, self.trainer.steps()).map_err(at(&events_path))?),
            false => None,
        };
        let mut record = |entry: Entry| -> Result<(), PretrainError> {
            log.add(&entry).map_err(at(&log_path))?;
            let Some(events) = &mut events else { return Ok(()) };
            match entry {
                Entry::Step(StepEntry { step, loss, lr, gradient_norm, tokens_per_second, .. }) => events.scalars(
                    step,
                    &[
                        ("loss/train", loss),
                        ("lr", lr),
                        ("gradient_norm", gradient_norm),
                        ("tokens_per_second", tokens_per_second),
                    ],
                ),
                Entry::Validation(entry) => events.scalars(entry.step, &[("loss/validation", entry.validation_loss)]),
            }
            .map_err(at(&events_path))
        };

        let mut since = (Instant::now(), self.tokens);
        while self.trainer.steps() < recipe.train.steps && !stop.load(Ordering::Relaxed) {
            let mut entry = match self.step() {
                // The rows that were read wait in the state; a step that did not come about changed nothing else.
                Err(PretrainError::Data(e)) if self.trainer.steps() > 0 => {
                    watch(Event::Saved(self.save()?));
                    return Err(e.into());
                }
                entry => entry?,
            };
            let step = entry.step;
            let last = step == recipe.train.steps;
            entry.tokens_per_second = (self.tokens - since.1) as f64 / since.0.elapsed().as_secs_f64();
            if step % recipe.log.every == 0 || last {
                record(Entry::Step(entry))?;
                since = (Instant::now(), self.tokens);
            }
            watch(Event::Step(entry));
            if (step % recipe.log.validate_every == 0 || last)
                && let Some(entry) = self.validate()?
            {
                record(Entry::Validation(entry))?;
                watch(Event::Validated(entry));
                since = (Instant::now(), self.tokens);
            }
            if step % recipe.checkpoint.every == 0 {
                watch(Event::Saved(self.save()?));
                since = (Instant::now(), self.tokens);
            }
        }
        let checkpoint = self.save()?;
        watch(Event::Saved(checkpoint.clone()));

        let picture = recipe.output.join("loss.svg");
        let svg = curve::loss_curve(&log.entries().map_err(at(&log_path))?);
        let svg = svg.map_err(|e| PretrainError::Curve(e.to_string()))?;
        atomic::write_file(&picture, |file| file.write_all(svg.as_bytes())).map_err(at(&picture))?;
        let (epochs, counts) = (self.stream.epochs(), self.stream.counts());
        let step = self.trainer.steps();
        Ok(Outcome { step, finished: step >= recipe.train.steps, checkpoint, epochs, counts })
    }

    /// One update; the rate is left to the caller, who knows the time.
    fn step(&mut self) -> Result<StepEntry, PretrainError> {
        let train = &self.recipe.train;
        let rows = self.stream.take(train.batch_size * train.accumulation)?;
        if rows.len() < train.batch_size * train.accumulation {
            return Err(DataError::Empty { tokens: train.sequence_length }.into());
        }
        let packing = self.recipe.data.packing;
        let batches: Vec<Batch> = rows.chunks(train.batch_size).map(|rows| Batch::from_rows(rows, packing)).collect();
        let lr = self.recipe.schedule().rounded(self.trainer.steps());
        let report = self.trainer.step(&batches, lr as f32);
        let step = self.trainer.steps();
        let loss = mean(report.loss);
        for (what, value) in [("loss", loss), ("gradient norm", report.gradient_norm)] {
            if !value.is_finite() {
                return Err(PretrainError::Diverged { what, value, step });
            }
        }
        self.tokens += report.loss.valid as u64;
        let epoch = self.stream.epochs();
        let gradient_norm = report.gradient_norm;
        Ok(StepEntry { step, tokens: self.tokens, epoch, loss, lr, gradient_norm, tokens_per_second: 0.0 })
    }

    /// Mean loss on the validation corpus, if the recipe has one.
    fn validate(&mut self) -> Result<Option<ValidationEntry>, PretrainError> {
        let Some(CorpusConfig { packing, .. }) = self.recipe.validation else { return Ok(None) };
        let mut stream = rows(self.recipe, &self.tokenizer, false).map_err(PretrainError::Validation)?;
        let mut sums = LossSums::default();
        for _ in 0..self.recipe.log.validation_batches {
            let rows = stream.take(self.recipe.train.batch_size).map_err(PretrainError::Validation)?;
            if rows.is_empty() {
                break;
            }
            sums += self.trainer.validate(&Batch::from_rows(&rows, packing));
        }
        if sums.valid == 0 {
            let tokens = self.recipe.train.sequence_length;
            return Err(PretrainError::Validation(DataError::Empty { tokens }));
        }
        let (step, validation_tokens) = (self.trainer.steps(), sums.valid as u64);
        Ok(Some(ValidationEntry { step, validation_loss: mean(sums), validation_tokens }))
    }

    fn save(&self) -> Result<PathBuf, PretrainError> {
        let state = RunState {
            step: self.trainer.steps(),
            tokens: self.tokens,
            tokenizer: self.tokenizer.sha256.clone(),
            stream: self.stream.state().clone(),
        };
        let file = (self.tokenizer.file_name.as_str(), self.tokenizer.bytes.as_slice());
        let path = self.checkpoints.save(&self.trainer, &state, file)?;
        self.checkpoints.prune(self.recipe.checkpoint.keep)?;
        Ok(path)
    }
}

/// Rows of one id more than a sequence: of the training corpus without end, or of the validation corpus once, in order.
fn rows(recipe: &Recipe, tokenizer: &RunTokenizer, training: bool) -> Result<RowStream, DataError> {
    let mut corpus = recipe.data.clone();
    if let (false, Some(validation)) = (training, &recipe.validation) {
        corpus = validation.clone();
        corpus.shuffle_buffer = 0;
    }
    let pad = tokenizer.pad_id();
    let (tokenizer, repair) = (tokenizer.tokenizer.clone(), recipe.tokenizer.clean);
    let encode: Encode = Arc::new(move |text| match repair {
        true => tokenizer.encode_with(&clean(text), true, true),
        false => tokenizer.encode_with(text, true, true),
    });
    RowStream::new(corpus, encode, recipe.train.sequence_length + 1, pad, recipe.train.seed, training)
}

fn mean(sums: LossSums) -> f64 {
    sums.cross_entropy / sums.valid as f64
}
