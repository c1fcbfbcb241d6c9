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
mod ranks;
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

use crate::Recipe;
use crate::checkpoint::{self, Checkpoints, RunState};
use crate::collective::{Alone, Collective};
use crate::data::{Batch, Counts, DataError, RowStream};
pub use error::PretrainError;
use error::at;
use log::Log;
pub use log::{Entry, StepEntry, ValidationEntry};
use ranks::Team;
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
    /// Documents and tokens read.
    pub counts: Counts,
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
    lead(recipe, threads, Arc::new(Alone), stop, watch)
}

/// The same as one of several `ranks`, each of which calls it with the same recipe; `stop` counts on any of them. Rank 0
/// alone reads the corpus, watches and has an outcome. All must see the output folder, which holds the checkpoints.
///
/// # Errors
/// As [`pretrain`]; and if the ranks cannot share the recipe's micro-batches evenly, or one of them is gone.
pub fn pretrain_on(
    ranks: Arc<dyn Collective>,
    recipe: &Recipe,
    threads: Threads,
    stop: &AtomicBool,
    watch: &mut dyn FnMut(Event),
) -> Result<Option<Outcome>, PretrainError> {
    if ranks.rank() == 0 {
        return lead(recipe, threads, ranks, stop, watch).map(Some);
    }
    let tokenizer = RunTokenizer::open(recipe)?;
    let config = recipe.model_config(tokenizer.tokenizer.vocab_size())?;
    Team::new(recipe, config, threads, ranks)?.follow(&tokenizer, stop)?;
    Ok(None)
}

fn lead(
    recipe: &Recipe,
    threads: Threads,
    ranks: Arc<dyn Collective>,
    stop: &AtomicBool,
    watch: &mut dyn FnMut(Event),
) -> Result<Outcome, PretrainError> {
    let _lock = lock(recipe)?;
    let mut run = Run::open(recipe, threads, ranks)?;
    let from = run.resume()?;
    watch(Event::Started { config: run.team.trainer.config(), step: run.team.trainer.steps(), from });
    let path = recipe.output.join("recipe.toml");
    atomic::write_file(&path, |file| file.write_all(recipe.to_toml().as_bytes())).map_err(at(&path))?;
    let outcome = run.train(stop, watch)?;
    run.team.end()?;
    Ok(outcome)
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
}

struct Run<'r> {
    recipe: &'r Recipe,
    tokenizer: RunTokenizer,
    team: Team<'r>,
    stream: RowStream,
    checkpoints: Checkpoints,
    tokens: u64,
}

impl<'r> Run<'r> {
    fn open(recipe: &'r Recipe, threads: Threads, ranks: Arc<dyn Collective>) -> Result<Self, PretrainError> {
        let tokenizer = RunTokenizer::open(recipe)?;
        let config = recipe.model_config(tokenizer.tokenizer.vocab_size())?;
        let stream = rows(recipe, &tokenizer, true)?;
        let team = Team::new(recipe, config, threads, ranks)?;
        let checkpoints = Checkpoints::open(recipe.output.join("checkpoints"))?;
        Ok(Self { recipe, tokenizer, team, stream, checkpoints, tokens: 0 })
    }

    /// Goes back to the newest checkpoint, if there is one.
    fn resume(&mut self) -> Result<Option<PathBuf>, PretrainError> {
        let Some(newest) = self.checkpoints.list()?.pop() else { return Ok(None) };
        let state = checkpoint::load(&newest, &mut self.team.trainer, &self.tokenizer.sha256)?;
        self.team.load(&newest)?;
        self.stream.restore(state.stream)?;
        self.tokens = state.tokens;
        Ok(Some(newest))
    }

    fn train(&mut self, stop: &AtomicBool, watch: &mut dyn FnMut(Event)) -> Result<Outcome, PretrainError> {
        let recipe = self.recipe;
        let log_path = recipe.output.join("log.jsonl");
        let mut log = Log::open(log_path.clone(), self.team.trainer.steps()).map_err(at(&log_path))?;
        let events_path = recipe.output.join("tensorboard");
        let mut events = match recipe.log.tensorboard {
            true => Some(EventFile::create(&events_path, self.team.trainer.steps()).map_err(at(&events_path))?),
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
        while self.team.trainer.steps() < recipe.train.steps && !stop.load(Ordering::Relaxed) {
            let mut entry = self.step(stop)?;
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
        let (epochs, counts) = self.stream.progress();
        let step = self.team.trainer.steps();
        Ok(Outcome { step, finished: step >= recipe.train.steps, checkpoint, epochs, counts })
    }

    /// One update; the rate is left to the caller, who knows the time.
    fn step(&mut self, stop: &AtomicBool) -> Result<StepEntry, PretrainError> {
        let train = &self.recipe.train;
        let count = train.accumulation * train.batch_size;
        let rows = take(&mut self.stream, count)?;
        if rows.len() < count {
            return Err(DataError::Empty { tokens: train.sequence_length }.into());
        }
        let lr = self.recipe.schedule().rounded(self.team.trainer.steps());
        let report = self.team.step(&rows, lr as f32, stop)?;
        let step = self.team.trainer.steps();
        let loss = mean(report.loss);
        for (what, value) in [("loss", loss), ("gradient norm", report.gradient_norm)] {
            if !value.is_finite() {
                return Err(PretrainError::Diverged { what, value, step });
            }
        }
        self.tokens += report.loss.valid as u64;
        let (epoch, _) = self.stream.progress();
        let gradient_norm = report.gradient_norm;
        Ok(StepEntry { step, tokens: self.tokens, epoch, loss, lr, gradient_norm, tokens_per_second: 0.0 })
    }

    /// Mean loss on the validation corpus, if the recipe has one.
    fn validate(&mut self) -> Result<Option<ValidationEntry>, PretrainError> {
        if self.recipe.validation.is_none() {
            return Ok(None);
        }
        let mut stream = rows(self.recipe, &self.tokenizer, false).map_err(PretrainError::Validation)?;
        let mut sums = LossSums::default();
        for _ in 0..self.recipe.log.validation_batches {
            let rows = take(&mut stream, self.recipe.train.batch_size).map_err(PretrainError::Validation)?;
            if rows.is_empty() {
                break;
            }
            sums += self.team.trainer.validate(&Batch::from_rows(&rows));
        }
        if sums.valid == 0 {
            let tokens = self.recipe.train.sequence_length;
            return Err(PretrainError::Validation(DataError::Empty { tokens }));
        }
        let (step, validation_tokens) = (self.team.trainer.steps(), sums.valid as u64);
        Ok(Some(ValidationEntry { step, validation_loss: mean(sums), validation_tokens }))
    }

    fn save(&self) -> Result<PathBuf, PretrainError> {
        let state = RunState {
            step: self.team.trainer.steps(),
            tokens: self.tokens,
            tokenizer: self.tokenizer.sha256.clone(),
            stream: self.stream.state().clone(),
        };
        let file = (self.tokenizer.file_name.as_str(), self.tokenizer.bytes.as_slice());
        self.team.before_moments()?;
        let moments = self.team.trainer.moments()?;
        let path = self.checkpoints.save(&self.team.trainer, &moments, &state, file)?;
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
    let (tokenizer, repair) = (tokenizer.tokenizer.clone(), recipe.tokenizer.clean);
    let encode = move |text: &str| match repair {
        true => tokenizer.encode_with(&clean(text), true, true),
        false => tokenizer.encode_with(text, true, true),
    };
    RowStream::new(corpus, Box::new(encode), recipe.train.sequence_length + 1, recipe.train.seed, training)
}

/// The next `count` rows, fewer at the end.
fn take(stream: &mut RowStream, count: usize) -> Result<Vec<Vec<u32>>, DataError> {
    let mut rows = Vec::with_capacity(count);
    while rows.len() < count {
        match stream.next_row()? {
            Some(row) => rows.push(row),
            None => break,
        }
    }
    Ok(rows)
}

fn mean(sums: LossSums) -> f64 {
    sums.cross_entropy / sums.valid as f64
}
