//! How the ranks of a run keep step. Rank 0 alone reads the data, writes files and decides what comes next; it tells the
//! others by one of a few commands. So the position in the data, the log and the checkpoints are the same for any number
//! of ranks.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use openelm_model::kernels::Threads;
use serde::de::{DeserializeOwned, IgnoredAny};
use serde::{Deserialize, Serialize};

use super::checkpoint::{self, RunState, Snapshot};
use super::error::RunError;
use super::training::{Settings, Training};
use crate::collective::{Collective, CollectiveError};
use crate::reduction::Distribution;
use crate::trainer::{StepReport, Trainer, Update};

/// What all ranks do next. Rank 0 lends the micro-batches that the others get for their own.
#[derive(Serialize, Deserialize)]
enum Command<B> {
    /// Go back to the checkpoint of this name.
    Resume(String),
    /// Make an update.
    Update {
        learning_rate: f64,
        /// Those of all ranks.
        micro_batches: B,
    },
    /// Bring the moments together.
    Moments,
    /// Leave the run.
    End,
}

/// A trainer that works together with those of the other ranks.
pub(super) struct Team<'t, T: Training> {
    training: &'t T,
    ranks: Arc<dyn Collective>,
    trainer: Trainer,
}

impl<'t, T: Training> Team<'t, T> {
    /// A trainer as it is at the beginning of the run.
    pub fn new(
        training: &'t T,
        settings: &Settings,
        threads: Threads,
        ranks: Arc<dyn Collective>,
    ) -> Result<Self, RunError> {
        let shares = shares(settings, ranks.ranks())?;
        let distribution = Distribution { ranks: ranks.clone(), shares, sharded: settings.sharded };
        Ok(Self { training, ranks, trainer: training.trainer(threads, distribution)? })
    }

    /// This rank's trainer.
    pub fn trainer(&self) -> &Trainer {
        &self.trainer
    }

    /// This rank's trainer.
    pub fn trainer_mut(&mut self) -> &mut Trainer {
        &mut self.trainer
    }

    /// Takes all ranks back to the checkpoint at `path`, and gives the state of the run there.
    pub fn resume<P: DeserializeOwned>(&mut self, path: &Path) -> Result<RunState<P>, RunError> {
        // This rank first: if it finds the checkpoint damaged, nobody else need look.
        let state = checkpoint::load(path, &mut self.trainer, self.training.tokenizer())?;
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        self.send(&Command::Resume(name.into_owned()))?;
        Ok(state)
    }

    /// One update of all ranks from `micro_batches`, unless `accept` refuses; `stop` becomes true if any rank was asked to
    /// stop.
    pub fn step(
        &mut self,
        micro_batches: &[T::Batch],
        learning_rate: f64,
        stop: &AtomicBool,
        accept: impl FnOnce(&StepReport) -> bool,
    ) -> Result<Update, RunError> {
        self.send(&Command::Update { learning_rate, micro_batches })?;
        Ok(self.update(micro_batches, learning_rate, stop, accept)?)
    }

    /// Everything that a checkpoint holds, from all ranks; `state` is that of the run.
    pub fn snapshot<P>(&self, state: RunState<P>) -> Result<Snapshot<'_, P>, RunError> {
        self.send(&Command::Moments)?;
        Ok(Snapshot::new(&self.trainer, self.trainer.moments()?, state, self.training.tokenizer()))
    }

    /// Lets the other ranks go.
    pub fn end(&self) -> Result<(), RunError> {
        self.send(&Command::End)
    }

    /// Does what rank 0 says, until it says that the run is over.
    pub fn follow(mut self, settings: &Settings, stop: &AtomicBool) -> Result<(), RunError> {
        loop {
            match self.receive()? {
                Command::Resume(name) => {
                    let path = settings.checkpoints().join(name);
                    checkpoint::load::<IgnoredAny>(&path, &mut self.trainer, self.training.tokenizer())?;
                }
                Command::Update { learning_rate, micro_batches } => {
                    _ = self.update(&micro_batches, learning_rate, stop, |_| true)?;
                }
                Command::Moments => drop(self.trainer.moments()?),
                Command::End => return Ok(()),
            }
        }
    }

    /// Tells the other ranks, if there are any.
    fn send(&self, command: &Command<&[T::Batch]>) -> Result<(), RunError> {
        if self.ranks.ranks() == 1 {
            return Ok(());
        }
        let mut bytes = serde_json::to_vec(command).map_err(RunError::Command)?;
        Ok(self.ranks.broadcast(&mut bytes)?)
    }

    /// What rank 0 sent.
    fn receive(&self) -> Result<Command<Vec<T::Batch>>, RunError> {
        let mut bytes = Vec::new();
        self.ranks.broadcast(&mut bytes)?;
        serde_json::from_slice(&bytes).map_err(RunError::Command)
    }

    /// An update from this rank's part of `micro_batches`.
    fn update(
        &mut self,
        micro_batches: &[T::Batch],
        learning_rate: f64,
        stop: &AtomicBool,
        accept: impl FnOnce(&StepReport) -> bool,
    ) -> Result<Update, CollectiveError> {
        let each = micro_batches.len() / self.ranks.ranks();
        let mine = &micro_batches[self.ranks.rank() * each..][..each];
        let update = self.trainer.step_if(self.training.objective(), mine, learning_rate as f32, accept)?;
        if self.ranks.any(stop.load(Ordering::Relaxed))? {
            stop.store(true, Ordering::Relaxed);
        }
        Ok(update)
    }
}

/// Parts in which the gradients of an update are summed, if `ranks` ranks can share the work evenly.
fn shares(settings: &Settings, ranks: usize) -> Result<usize, RunError> {
    let accumulation = settings.accumulation;
    let shares = settings.shares.unwrap_or(ranks);
    let even = accumulation.is_multiple_of(ranks) && accumulation.is_multiple_of(shares);
    let tree = shares.is_multiple_of(ranks) && (shares / ranks).is_power_of_two();
    if even && tree { Ok(shares) } else { Err(RunError::Ranks { ranks, shares, accumulation }) }
}
