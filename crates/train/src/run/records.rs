//! Everything a run writes down, in each of the places where it is read.

use std::io::Write;
use std::path::{Path, PathBuf};

use openelm_formats::atomic;

use super::curve;
use super::error::{RunError, at};
use super::log::{Entry, Log, StepEntry};
use super::tensorboard::EventFile;

/// `log.jsonl`, TensorBoard's events and the picture of the losses.
pub(super) struct Records {
    output: PathBuf,
    log: Log,
    events: Option<EventFile>,
}

impl Records {
    /// The records in `output` of a run that goes on from `step`; gives the lines of the log that could not be read as well.
    pub fn open(output: &Path, step: u64, tensorboard: bool) -> Result<(Self, Vec<usize>), RunError> {
        let path = output.join("log.jsonl");
        let (log, broken) = Log::open(path.clone(), step).map_err(at(&path))?;
        let path = output.join("tensorboard");
        let events = tensorboard.then(|| EventFile::create(&path, step)).transpose().map_err(at(&path))?;
        Ok((Self { output: output.to_owned(), log, events }, broken))
    }

    /// Adds an entry.
    pub fn add(&mut self, entry: &Entry) -> Result<(), RunError> {
        self.log.add(entry).map_err(at(&self.output.join("log.jsonl")))?;
        let Some(events) = &mut self.events else { return Ok(()) };
        match entry {
            Entry::Step(StepEntry { step, loss, lr, gradient_norm, tokens_per_second, .. }) => events.scalars(
                *step,
                &[
                    ("loss/train", *loss),
                    ("lr", *lr),
                    ("gradient_norm", *gradient_norm),
                    ("tokens_per_second", *tokens_per_second),
                ],
            ),
            Entry::Validation(entry) => {
                let named =
                    entry.validation_metrics.iter().map(|(name, &value)| (format!("{name}/{}", entry.corpus), value));
                let values: Vec<(String, f64)> =
                    [(format!("loss/{}", entry.corpus), entry.validation_loss)].into_iter().chain(named).collect();
                let values: Vec<(&str, f64)> = values.iter().map(|(name, value)| (name.as_str(), *value)).collect();
                events.scalars(entry.step, &values)
            }
            Entry::Metrics(entry) => {
                let values: Vec<(&str, f64)> =
                    entry.metrics.iter().map(|(name, &value)| (name.as_str(), value)).collect();
                events.scalars(entry.step, &values)
            }
            Entry::Sample(_) => Ok(()),
        }
        .map_err(at(&self.output.join("tensorboard")))
    }

    /// Waits until the log is on the disk: a checkpoint must not outlive the entries before it.
    pub fn sync(&self) -> Result<(), RunError> {
        self.log.sync().map_err(at(&self.output.join("log.jsonl")))
    }

    /// Draws the losses so far.
    pub fn draw(&self) -> Result<(), RunError> {
        let entries = self.log.entries().map_err(at(&self.output.join("log.jsonl")))?;
        let svg = curve::loss_curve(&entries).map_err(|e| RunError::Curve(e.to_string()))?;
        let picture = self.output.join("loss.svg");
        atomic::write_file(&picture, |file| file.write_all(svg.as_bytes())).map_err(at(&picture))
    }
}
