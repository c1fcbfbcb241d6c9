//! A whole training run, from a recipe to checkpoints that are models.
//!
//! ```text
//! output/  recipe.toml            the recipe with every default written out
//!          log.jsonl              a line per logged update and per validation
//!          tensorboard/           the same for TensorBoard
//!          loss.svg               the same as a picture, at the end
//!          checkpoints/step-*/    the state, and a model in the Hugging Face layout
//!          spike-step-*/          an update that was not made because it would have spoiled the model
//!          run.lock               held while a run is at work
//! ```

mod curve;
pub(crate) mod error;
mod log;
mod ranks;
mod records;
mod samples;
mod saver;
mod study;
mod tensorboard;
mod tokenizer;
mod validation;

use std::fs::{File, TryLockError};
use std::io::Write;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use openelm_formats::atomic;
use openelm_model::ModelConfig;
use openelm_model::kernels::Threads;

use crate::checkpoint::{self, Checkpoints, Keep, RunState, Snapshot};
use crate::collective::{Alone, Collective, CollectiveError};
use crate::data::{Counts, DataError, Row, RowStream};
use crate::recipe::CheckpointRecipe;
use crate::spike::SpikeDetector;
use crate::{Recipe, Update};
pub use error::PretrainError;
use error::at;
pub(crate) use log::read as read_log;
pub use log::{Entry, SampleEntry, StepEntry, ValidationEntry};
use ranks::Team;
use records::Records;
use samples::Samples;
use saver::Saver;
use study::{Refused, Study};
use tokenizer::{RunTokenizer, rows};
use validation::Validation;

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
    /// Lines of the log, counted from 1, that were no entries; they are gone from it.
    LogMended {
        /// The log.
        path: PathBuf,
        /// The lines.
        lines: Vec<usize>,
    },
    /// An update was made.
    Step(StepEntry),
    /// What was read of each source up to the last update, in the recipe's order.
    Read(Vec<Counts>),
    /// A validation corpus was measured.
    Validated(ValidationEntry),
    /// The model wrote a text.
    Sampled(SampleEntry),
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
    Team::new(recipe, config, &tokenizer, threads, ranks)?.follow(&tokenizer, stop)?;
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
    atomic::tidy(&recipe.output).map_err(at(&recipe.output))?;
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

struct Run<'r> {
    recipe: &'r Recipe,
    threads: Threads,
    tokenizer: RunTokenizer,
    team: Team<'r>,
    stream: RowStream,
    validation: Vec<Validation<'r>>,
    samples: Samples,
    checkpoints: Checkpoints,
    losses: SpikeDetector,
    tokens: u64,
}

impl<'r> Run<'r> {
    fn open(recipe: &'r Recipe, threads: Threads, ranks: Arc<dyn Collective>) -> Result<Self, PretrainError> {
        let tokenizer = RunTokenizer::open(recipe)?;
        let config = recipe.model_config(tokenizer.tokenizer.vocab_size())?;
        let stream = rows(recipe, recipe.data.clone(), &tokenizer, true)?;
        let validation = recipe.validation.iter().map(|corpus| Validation::open(recipe, corpus, &tokenizer));
        let validation = validation.collect::<Result<_, _>>()?;
        let samples = Samples::open(recipe, &config, &tokenizer)?;
        let team = Team::new(recipe, config, &tokenizer, threads.clone(), ranks)?;
        let checkpoints = Checkpoints::open(recipe.checkpoints())?;
        checkpoints.tidy()?;
        Ok(Self {
            recipe,
            threads,
            tokenizer,
            team,
            stream,
            validation,
            samples,
            checkpoints,
            losses: SpikeDetector::default(),
            tokens: 0,
        })
    }

    /// Goes back to the newest checkpoint, if there is one.
    fn resume(&mut self) -> Result<Option<PathBuf>, PretrainError> {
        let Some(newest) = self.checkpoints.list()?.pop() else { return Ok(None) };
        let state = checkpoint::load(&newest, &mut self.team.trainer, &self.tokenizer.sha256)?;
        self.team.load(&newest)?;
        self.stream.restore(state.stream)?;
        self.losses = state.losses;
        self.tokens = state.tokens;
        Ok(Some(newest))
    }

    /// Makes the updates that are left, and saves the state behind the last one.
    fn train(&mut self, stop: &AtomicBool, watch: &mut dyn FnMut(Event)) -> Result<Outcome, PretrainError> {
        let recipe = self.recipe;
        let (mut records, broken) = Records::open(&recipe.output, self.team.trainer.steps(), recipe.log.tensorboard)?;
        if !broken.is_empty() {
            watch(Event::LogMended { path: recipe.output.join("log.jsonl"), lines: broken });
        }
        let CheckpointRecipe { keep, keep_every, .. } = recipe.checkpoint;
        let mut saver = Saver::new(self.checkpoints.clone(), Keep { newest: keep, every: keep_every });
        let checkpoint = match self.updates(&mut records, &mut saver, stop, watch) {
            Ok(()) => self.save(&records, &mut saver, watch)?,
            Err(reason) => {
                // A text is at fault; the updates are good. Rows that could be read wait in the state.
                use PretrainError::{Data, Sample, Unsaved, Validation};
                if matches!(reason, Data(_) | Validation { .. } | Sample { .. })
                    && self.team.trainer.steps() > 0
                    && let Err(source) = self.save(&records, &mut saver, watch)
                {
                    return Err(Unsaved { reason: Box::new(reason), source: Box::new(source) });
                }
                return Err(reason);
            }
        };
        records.draw()?;
        let (step, epochs, counts) = (self.team.trainer.steps(), self.stream.epochs(), self.stream.counts());
        Ok(Outcome { step, finished: step >= recipe.train.steps, checkpoint, epochs, counts })
    }

    fn updates(
        &mut self,
        records: &mut Records,
        saver: &mut Saver,
        stop: &AtomicBool,
        watch: &mut dyn FnMut(Event),
    ) -> Result<(), PretrainError> {
        let recipe = self.recipe;
        let mut since = (Instant::now(), self.tokens);
        while self.team.trainer.steps() < recipe.train.steps && !stop.load(Ordering::Relaxed) {
            let mut entry = self.step(stop)?;
            let step = entry.step;
            let last = step == recipe.train.steps;
            entry.tokens_per_second = (self.tokens - since.1) as f64 / since.0.elapsed().as_secs_f64();
            let due = |every: u64| every > 0 && (step.is_multiple_of(every) || last);
            if due(recipe.log.every) {
                records.add(&Entry::Step(entry))?;
                since = (Instant::now(), self.tokens);
            }
            watch(Event::Step(entry));
            watch(Event::Read(self.stream.counts()));
            let paused = Instant::now();
            if due(recipe.log.validate_every) {
                for validation in &mut self.validation {
                    let entry = validation.measure(&mut self.team.trainer, &self.team.objective)?;
                    records.add(&Entry::Validation(entry.clone()))?;
                    watch(Event::Validated(entry));
                }
            }
            if due(recipe.log.sample_every) {
                for entry in self.samples.write(&self.team.trainer, &self.tokenizer, &self.threads)? {
                    records.add(&Entry::Sample(entry.clone()))?;
                    watch(Event::Sampled(entry));
                }
            }
            since.0 += paused.elapsed();
            saver.written()?.into_iter().for_each(|path| watch(Event::Saved(path)));
            if step.is_multiple_of(recipe.checkpoint.every) && !last {
                if recipe.checkpoint.background {
                    saver.wait()?.into_iter().for_each(|path| watch(Event::Saved(path)));
                    records.sync()?;
                    saver.begin(self.snapshot()?.into_owned())?;
                } else {
                    self.save(records, saver, watch)?;
                    since = (Instant::now(), self.tokens);
                }
            }
        }
        Ok(())
    }

    /// Saves the state here and now, behind a checkpoint that may be under way.
    fn save(
        &self,
        records: &Records,
        saver: &mut Saver,
        watch: &mut dyn FnMut(Event),
    ) -> Result<PathBuf, PretrainError> {
        saver.wait()?.into_iter().for_each(|path| watch(Event::Saved(path)));
        records.sync()?;
        let path = saver.save(&self.snapshot()?)?;
        watch(Event::Saved(path.clone()));
        Ok(path)
    }

    /// One update; the rate is left to the caller, who knows the time. An update that would spoil the model is not made.
    fn step(&mut self, stop: &AtomicBool) -> Result<StepEntry, PretrainError> {
        let train = &self.recipe.train;
        let count = train.batch_size * train.accumulation;
        let rows = self.stream.take(count)?;
        if rows.len() < count {
            return Err(DataError::Empty { tokens: train.sequence_length + 1 }.into());
        }
        let rows: Vec<&[Row]> = rows.chunks(train.batch_size).collect();
        let learning_rate = self.recipe.schedule().rounded(self.team.trainer.steps());
        let (mut losses, spike) = (self.losses, &self.recipe.spike);
        let update = self.team.step(&rows, stop, |report| {
            let loss = report.loss.mean();
            loss.is_finite() && report.gradient_norm.is_finite() && !losses.observe(loss, spike)
        })?;
        let (Update::Made(report) | Update::Refused(report)) = update;
        let (loss, gradient_norm) = (report.loss.mean(), report.gradient_norm);
        if let Update::Refused(_) = update {
            let finite = loss.is_finite() && gradient_norm.is_finite();
            let (smoothed_loss, standard_deviation) = (self.losses.mean(), self.losses.deviation());
            let refused =
                Refused { rows: &rows, learning_rate, loss, smoothed_loss, standard_deviation, gradient_norm };
            let study = Study::new(&refused, &mut self.team.trainer, &self.team.objective);
            let study = study.save(&self.recipe.output, &self.snapshot()?);
            let step = self.team.trainer.steps() + 1;
            let (what, value) = if loss.is_finite() { ("gradient norm", gradient_norm) } else { ("loss", loss) };
            return Err(match finite {
                true => PretrainError::Spike { updates: spike.updates, loss, usual: smoothed_loss, step, study },
                false => PretrainError::Diverged { what, value, step, study },
            });
        }
        self.losses = losses;
        self.tokens += report.loss.tokens as u64;
        let epoch = self.stream.epochs();
        let (step, tokens, lr) = (self.team.trainer.steps(), self.tokens, learning_rate);
        Ok(StepEntry { step, tokens, epoch, loss, lr, gradient_norm, tokens_per_second: 0.0 })
    }

    /// The state as it is now.
    fn snapshot(&self) -> Result<Snapshot<'_>, CollectiveError> {
        self.team.before_moments()?;
        let state = RunState {
            step: self.team.trainer.steps(),
            tokens: self.tokens,
            tokenizer: self.tokenizer.sha256.clone(),
            losses: self.losses,
            stream: self.stream.state().clone(),
        };
        Snapshot::new(&self.team.trainer, state, (self.tokenizer.file_name.clone(), self.tokenizer.bytes.clone()))
    }
}
