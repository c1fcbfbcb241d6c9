//! What happens in a run, for whoever watches it.

use std::path::PathBuf;

use openelm_model::ModelConfig;

use super::log::{MetricsEntry, SampleEntry, StepEntry, ValidationEntry};
use crate::data::Counts;

/// What happens in a run, for whoever watches it.
#[derive(Debug)]
pub enum Event<'a> {
    /// What is learnt from is made ready before the run begins.
    Preparing {
        /// What is at work, in a few words.
        what: &'static str,
        /// How much is done, rows or pairs.
        done: u64,
        /// Of how much, where that is known.
        of: Option<u64>,
    },
    /// What is learnt from is ready: what there is to say of it.
    Prepared(String),
    /// The run is about to begin, or to go on, at `step`.
    Started {
        /// The model.
        config: &'a ModelConfig,
        /// Updates made before.
        step: u64,
        /// Updates of the whole run.
        steps: u64,
        /// The checkpoint that it goes on from.
        from: Option<PathBuf>,
    },
    /// The recipe is another one than the run had before.
    RecipeChanged {
        /// What is different, and what it does to the run.
        changes: Vec<String>,
        /// Where the recipe of before is kept.
        before: PathBuf,
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
    /// There is more to tell of the last update than its loss; whenever it is logged.
    Measured(MetricsEntry),
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
