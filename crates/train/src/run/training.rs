//! In what one kind of training differs from another.

use std::path::{Path, PathBuf};

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::error::RunError;
use super::log::{SampleEntry, ValidationEntry};
use super::tokenizer::RunTokenizer;
use crate::data::Counts;
use crate::objective::Objective;
use crate::recipe::{CheckpointRecipe, LogRecipe, SpikeRecipe};
use crate::reduction::Distribution;
use crate::schedule::Schedule;
use crate::trainer::Trainer;
use openelm_model::kernels::Threads;

/// A kind of training, such as pretraining: what [`run`](super::run) is asked to do. Each rank of a run has its own.
pub trait Training {
    /// What a micro-batch is. Rank 0 sends the others theirs.
    type Batch: Serialize + DeserializeOwned;
    /// What is learnt from a micro-batch.
    type Objective: Objective<Batch = Self::Batch>;
    /// What rank 0 reads.
    type Datasets: Datasets<Batch = Self::Batch>;

    /// How long the run is, and what it leaves behind.
    fn settings(&self) -> Settings;

    /// What of the recipe is not as in the file at `before`, and what that does to a run that has made `step` updates; in
    /// sentences.
    fn changes_since(&self, before: &Path, step: u64) -> Vec<String>;

    /// The tokenizer.
    fn tokenizer(&self) -> &RunTokenizer;

    /// What is learnt.
    fn objective(&self) -> &Self::Objective;

    /// A trainer with the weights that the run begins with.
    ///
    /// # Errors
    /// If there are no such weights.
    fn trainer(&self, threads: Threads, distribution: Distribution) -> Result<Trainer, RunError>;

    /// Opens what is learnt from and measured, at its beginning. Whatever can be wrong with it should be found here, before
    /// the run begins.
    ///
    /// # Errors
    /// If it cannot be read.
    fn datasets(&self) -> Result<Self::Datasets, RunError>;
}

/// What rank 0 of a run reads: what is learnt from, and what progress is measured on.
pub trait Datasets {
    /// What a micro-batch is.
    type Batch;
    /// What there is to say of a micro-batch.
    type Explanation: Serialize;
    /// Where in the data a run is, exact to the row: a checkpoint holds it, in the field `stream` of its `state.json`.
    type Position: Serialize + DeserializeOwned + Send + 'static;

    /// The micro-batches of the next update, [`Settings::accumulation`] of them.
    ///
    /// # Errors
    /// If the data cannot be read or is at its end. Nothing is lost then: what was read before is in the position.
    fn next(&mut self) -> Result<Vec<Self::Batch>, RunError>;

    /// The position behind the micro-batches given out last.
    fn position(&self) -> Self::Position;

    /// Goes on from `position`.
    ///
    /// # Errors
    /// If the data is not that which the position was made with.
    fn restore(&mut self, position: Self::Position) -> Result<(), RunError>;

    /// Times that all of the data was read.
    fn epochs(&self) -> u64;

    /// What was read so far of each source.
    fn counts(&self) -> Vec<Counts>;

    /// Measures the model on what is held out, and gives `note` each result.
    ///
    /// # Errors
    /// If it cannot be read, or what `note` reports.
    fn validate(
        &mut self,
        trainer: &mut Trainer,
        note: &mut dyn FnMut(ValidationEntry) -> Result<(), RunError>,
    ) -> Result<(), RunError>;

    /// What the model writes at this moment.
    ///
    /// # Errors
    /// If it cannot write.
    fn sample(&mut self, trainer: &Trainer) -> Result<Vec<SampleEntry>, RunError>;

    /// A micro-batch of an update that was not made, for whoever wants to know why: its content, and the loss of each part.
    fn explain(&self, trainer: &mut Trainer, batch: &Self::Batch) -> Self::Explanation;
}

/// How long a run is, and what it leaves behind.
#[derive(Debug, Clone, PartialEq)]
pub struct Settings {
    /// Folder for checkpoints and logs; the same folder again goes on where the run stopped.
    pub output: PathBuf,
    /// The recipe as TOML, every default written out.
    pub recipe: String,
    /// Updates.
    pub steps: u64,
    /// The learning rate of each update.
    pub schedule: Schedule,
    /// Micro-batches of an update, of all ranks together.
    pub accumulation: usize,
    /// Parts in which an update's micro-batches are summed; as many as there are ranks where nothing is said.
    pub shares: Option<usize>,
    /// Whether each rank keeps the moments of a part of the weights only (ZeRO-1).
    pub sharded: bool,
    /// What is written down on the way, and when.
    pub log: LogRecipe,
    /// Whether the model is measured, and writes samples, before the first update too: of one that is trained already this is
    /// what the run starts from.
    pub measures_start: bool,
    /// When the state is saved.
    pub checkpoint: CheckpointRecipe,
    /// When a loss that rises stops the run.
    pub spike: SpikeRecipe,
}

impl Settings {
    /// Where the checkpoints of the run are.
    pub(super) fn checkpoints(&self) -> PathBuf {
        self.output.join("checkpoints")
    }
}
