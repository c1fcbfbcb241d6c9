//! The loop of every kind of training: a folder that is locked, updates, checkpoints, records, ranks. In what one kind differs
//! from another, says its [`Training`].
//!
//! ```text
//! output/  recipe.toml            the recipe with every default written out; .1, .2 and so on: those of before
//!          log.jsonl              a line per logged update and per validation
//!          tensorboard/           the same for TensorBoard
//!          loss.svg               the same as a picture, at the end
//!          checkpoints/step-*/    the state, and a model in the Hugging Face layout
//!          spike-step-*/          an update that was not made because it would have spoiled the model
//!          run.lock               held while a run is at work
//! ```

mod checkpoint;
mod curve;
mod error;
mod event;
mod fresh;
mod log;
mod recipe;
mod records;
mod refused;
mod saver;
mod spike;
mod team;
mod tensorboard;
mod tokenizer;
mod training;

use std::fs::{File, TryLockError};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use openelm_formats::atomic;
use openelm_model::kernels::Threads;

use crate::collective::Collective;
use crate::objective::Objective;
use crate::trainer::{StepReport, Update};
use checkpoint::{Checkpoints, Retention, RunState, Snapshot};
use error::at;
pub use error::{CheckpointError, RunError};
pub use event::{Event, Outcome};
use fresh::Fresh;
pub(crate) use log::read as read_log;
pub use log::{Entry, MetricsEntry, SampleEntry, StepEntry, ValidationEntry};
use recipe::Changed;
use records::Records;
use refused::{RefusedUpdate, gradient_norms};
use saver::Saver;
use spike::SpikeDetector;
use team::Team;
pub use tokenizer::RunTokenizer;
pub use training::{Datasets, Settings, Training};

/// Trains, from the newest checkpoint in the output folder or from the start, as one of several `ranks`, each of which calls
/// this with the same training. When `stop` becomes true on any of them, the update under way is finished, the state saved,
/// and the run left; the same call resumes it to the bit. Rank 0 alone reads the data, watches and has an outcome. All must
/// see the output folder, which holds the checkpoints.
///
/// # Errors
/// See [`RunError`]. After an error in the middle, the checkpoints written before stand.
pub fn run<T: Training>(
    training: &T,
    ranks: Arc<dyn Collective>,
    threads: Threads,
    stop: &AtomicBool,
    watch: &mut dyn FnMut(Event),
) -> Result<Option<Outcome>, RunError> {
    let settings = training.settings();
    if ranks.rank() > 0 {
        Team::new(training, &settings, threads, ranks)?.follow(&settings, stop)?;
        return Ok(None);
    }
    let fresh = Fresh::before(&settings.output);
    let outcome = lead(training, settings, ranks, threads, stop, watch);
    if outcome.is_err() {
        fresh.remove_unused();
    }
    outcome.map(Some)
}

fn lead<T: Training>(
    training: &T,
    settings: Settings,
    ranks: Arc<dyn Collective>,
    threads: Threads,
    stop: &AtomicBool,
    watch: &mut dyn FnMut(Event),
) -> Result<Outcome, RunError> {
    let _lock = lock(&settings.output)?;
    atomic::tidy(&settings.output).map_err(at(&settings.output))?;
    let mut run = Run::open(training, settings, threads, ranks)?;
    let from = run.resume()?;
    let (step, path) = (run.steps(), run.settings.output.join("recipe.toml"));
    let changes = |before: &Path| training.changes_since(before, step);
    let changed = recipe::write(&run.settings.recipe, &path, from.is_some(), changes).map_err(at(&path))?;
    watch(Event::Started { config: run.team.trainer().config(), step, steps: run.settings.steps, from });
    if let Some(Changed { changes, before }) = changed {
        watch(Event::RecipeChanged { changes, before });
    }
    let outcome = run.train(stop, watch)?;
    run.team.end()?;
    Ok(outcome)
}

/// Keeps other runs out of the output folder for as long as the file lives.
fn lock(folder: &Path) -> Result<File, RunError> {
    std::fs::create_dir_all(folder).map_err(at(folder))?;
    let path = folder.join("run.lock");
    let file = File::options().create(true).truncate(false).write(true).open(&path).map_err(at(&path))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(RunError::Busy { folder: folder.to_owned() }),
        Err(TryLockError::Error(source)) => Err(RunError::Io { path, source }),
    }
}

/// A run as rank 0 leads it.
struct Run<'t, T: Training> {
    training: &'t T,
    settings: Settings,
    team: Team<'t, T>,
    datasets: T::Datasets,
    checkpoints: Checkpoints,
    losses: SpikeDetector,
    tokens: u64,
}

/// What a run writes as it goes on, and who watches it.
struct Output<'w> {
    records: Records,
    saver: Saver,
    watch: &'w mut dyn FnMut(Event),
}

impl Output<'_> {
    /// Tells of the checkpoint at `path`, if there is one.
    fn saved(&mut self, path: Option<PathBuf>) {
        path.into_iter().for_each(|path| (self.watch)(Event::Saved(path)));
    }
}

type Position<T> = <<T as Training>::Datasets as Datasets>::Position;

impl<'t, T: Training> Run<'t, T> {
    fn open(
        training: &'t T,
        settings: Settings,
        threads: Threads,
        ranks: Arc<dyn Collective>,
    ) -> Result<Self, RunError> {
        let datasets = training.datasets()?;
        let team = Team::new(training, &settings, threads, ranks)?;
        let checkpoints = Checkpoints::open(settings.checkpoints())?;
        checkpoints.tidy()?;
        Ok(Self { training, settings, team, datasets, checkpoints, losses: SpikeDetector::default(), tokens: 0 })
    }

    /// Updates made.
    fn steps(&self) -> u64 {
        self.team.trainer().steps()
    }

    /// Goes back to the newest checkpoint, if there is one.
    fn resume(&mut self) -> Result<Option<PathBuf>, RunError> {
        let Some(newest) = self.checkpoints.list()?.pop() else { return Ok(None) };
        let state = self.team.resume(&newest)?;
        self.datasets.restore(state.position)?;
        self.losses = state.losses;
        self.tokens = state.tokens;
        Ok(Some(newest))
    }

    /// Makes the updates that are left, and saves the state behind the last one.
    fn train(&mut self, stop: &AtomicBool, watch: &mut dyn FnMut(Event)) -> Result<Outcome, RunError> {
        let Settings { output: folder, log, checkpoint, .. } = &self.settings;
        let (records, broken) = Records::open(folder, self.steps(), log.tensorboard)?;
        if !broken.is_empty() {
            watch(Event::LogMended { path: folder.join("log.jsonl"), lines: broken });
        }
        let retention = Retention { newest: checkpoint.keep, every: checkpoint.keep_every };
        let saver = Saver::new(self.checkpoints.clone(), retention);
        let mut output = Output { records, saver, watch };
        let checkpoint = match self.updates(stop, &mut output) {
            Ok(()) => self.save(&mut output)?,
            Err(reason) => {
                // The data is at fault; the updates are good. What could be read waits in the position.
                if reason.is_about_data()
                    && self.steps() > 0
                    && let Err(source) = self.save(&mut output)
                {
                    return Err(RunError::Unsaved { reason: Box::new(reason), source: Box::new(source) });
                }
                return Err(reason);
            }
        };
        output.records.draw()?;
        let (step, epochs, counts) = (self.steps(), self.datasets.epochs(), self.datasets.counts());
        Ok(Outcome { step, finished: step >= self.settings.steps, checkpoint, epochs, counts })
    }

    fn updates(&mut self, stop: &AtomicBool, output: &mut Output<'_>) -> Result<(), RunError> {
        if self.settings.measures_start && self.steps() == 0 && !stop.load(Ordering::Relaxed) {
            self.measure(output, |every| every > 0)?;
        }
        let mut clock = Clock::start(self.tokens);
        while self.steps() < self.settings.steps && !stop.load(Ordering::Relaxed) {
            let (mut entry, metrics) = self.step(stop)?;
            let step = entry.step;
            let last = step == self.settings.steps;
            entry.tokens_per_second = clock.rate(self.tokens);
            let due = |every: u64| every > 0 && (step.is_multiple_of(every) || last);
            if due(self.settings.log.every) {
                output.records.add(&Entry::Step(entry))?;
                clock = Clock::start(self.tokens);
            }
            (output.watch)(Event::Step(entry));
            if due(self.settings.log.every) && !metrics.metrics.is_empty() {
                output.records.add(&Entry::Metrics(metrics.clone()))?;
                (output.watch)(Event::Measured(metrics));
            }
            (output.watch)(Event::Read(self.datasets.counts()));
            let paused = Instant::now();
            self.measure(output, due)?;
            clock.paused(paused.elapsed());
            let written = output.saver.written()?;
            output.saved(written);
            if step.is_multiple_of(self.settings.checkpoint.every) && !last {
                if self.settings.checkpoint.background {
                    let written = output.saver.wait()?;
                    output.saved(written);
                    output.records.sync()?;
                    output.saver.begin(self.snapshot()?.into_owned())?;
                } else {
                    self.save(output)?;
                    clock = Clock::start(self.tokens);
                }
            }
        }
        Ok(())
    }

    /// Measures the validation corpora, and writes samples, where a number of updates between two of them is `due`.
    fn measure(&mut self, output: &mut Output<'_>, due: impl Fn(u64) -> bool) -> Result<(), RunError> {
        if due(self.settings.log.validate_every) {
            self.datasets.validate(self.team.trainer_mut(), &mut |entry| {
                output.records.add(&Entry::Validation(entry.clone()))?;
                (output.watch)(Event::Validated(entry));
                Ok(())
            })?;
        }
        if due(self.settings.log.sample_every) {
            for entry in self.datasets.sample(self.team.trainer())? {
                output.records.add(&Entry::Sample(entry.clone()))?;
                (output.watch)(Event::Sampled(entry));
            }
        }
        Ok(())
    }

    /// Saves the state here and now, behind a checkpoint that may be under way.
    fn save(&self, output: &mut Output<'_>) -> Result<PathBuf, RunError> {
        let written = output.saver.wait()?;
        output.saved(written);
        output.records.sync()?;
        let path = output.saver.save(&self.snapshot()?)?;
        output.saved(Some(path.clone()));
        Ok(path)
    }

    /// One update; the rate is left to the caller, who knows the time. An update that would spoil the model is not made.
    fn step(&mut self, stop: &AtomicBool) -> Result<(StepEntry, MetricsEntry), RunError> {
        let micro_batches = self.datasets.next()?;
        assert_eq!(micro_batches.len(), self.settings.accumulation, "an update has so many micro-batches");
        let lr = self.settings.schedule.rounded(self.steps());
        let (mut losses, spike) = (self.losses, &self.settings.spike);
        let update = self.team.step(&micro_batches, lr, stop, |report| {
            let loss = report.loss.mean();
            loss.is_finite() && report.gradient_norm.is_finite() && !losses.observe(loss, spike)
        })?;
        let report = match update {
            Update::Made(report) => report,
            Update::Refused(report) => return Err(self.refused(&micro_batches, lr, &report)?),
        };
        self.losses = losses;
        self.tokens += report.loss.tokens as u64;
        let (loss, gradient_norm) = (report.loss.mean(), report.gradient_norm);
        let (step, tokens, epoch) = (self.steps(), self.tokens, self.datasets.epochs());
        let entry = StepEntry { step, tokens, epoch, loss, lr, gradient_norm, tokens_per_second: 0.0 };
        let means = report.loss.metrics.iter().map(|sum| sum / report.loss.amount);
        let named = self.training.objective().metrics().iter().map(|name| (*name).to_owned()).zip(means);
        Ok((entry, MetricsEntry { step, metrics: named.filter(|(_, mean)| mean.is_finite()).collect() }))
    }

    /// Keeps for study what an update would have been that was not made; gives the reason for which the run ends.
    fn refused(&mut self, micro_batches: &[T::Batch], lr: f64, report: &StepReport) -> Result<RunError, RunError> {
        let (loss, gradient_norm, usual) = (report.loss.mean(), report.gradient_norm, self.losses.mean());
        let step = self.steps() + 1;
        let trainer = self.team.trainer_mut();
        let refused = RefusedUpdate {
            step,
            learning_rate: lr,
            loss,
            smoothed_loss: usual,
            standard_deviation: self.losses.deviation(),
            gradient_norm,
            gradient_norms: gradient_norms(trainer),
            micro_batches: micro_batches.iter().map(|batch| self.datasets.explain(trainer, batch)).collect(),
        };
        let kept = refused.save(&self.settings.output, &self.snapshot()?);
        Ok(if !loss.is_finite() {
            RunError::Diverged { what: "loss", value: loss, step, kept }
        } else if !gradient_norm.is_finite() {
            RunError::Diverged { what: "gradient norm", value: gradient_norm, step, kept }
        } else {
            RunError::Spike { updates: self.settings.spike.updates, loss, usual, step, kept }
        })
    }

    /// The state as it is now.
    fn snapshot(&self) -> Result<Snapshot<'_, Position<T>>, RunError> {
        self.team.snapshot(RunState {
            step: self.steps(),
            tokens: self.tokens,
            tokenizer: self.training.tokenizer().sha256.clone(),
            losses: self.losses,
            position: self.datasets.position(),
        })
    }
}

/// How fast tokens are learnt from, pauses left out.
struct Clock {
    since: Instant,
    tokens: u64,
}

impl Clock {
    fn start(tokens: u64) -> Self {
        Self { since: Instant::now(), tokens }
    }

    fn paused(&mut self, time: Duration) {
        self.since += time;
    }

    /// Tokens per second, `tokens` having been learnt from by now.
    fn rate(&self, tokens: u64) -> f64 {
        (tokens - self.tokens) as f64 / self.since.elapsed().as_secs_f64()
    }
}
