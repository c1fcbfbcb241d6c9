//! A run without a recipe: numbers that suit most, which the run writes down as a recipe.

use std::path::PathBuf;

use super::{
    AdapterKind, AdapterRecipe, BaseRecipe, ExamplesRecipe, PreferenceRecipe, RowSource, TooLong, TuneRecipe,
    TuneScheduleRecipe, TuneTrainRecipe,
};
use crate::recipe::{CheckpointRecipe, LogRecipe, SpikeRecipe};

/// Longest example in tokens; longer ones are left out, or pairs cut.
const MAX_LENGTH: usize = 1024;
/// Share of the examples that are held out.
const HELD_OUT: f64 = 0.05;

/// What has to be said of a run where there is no recipe.
#[derive(Debug, Clone)]
pub struct Beginning {
    /// Folder for checkpoints and logs.
    pub output: PathBuf,
    /// The model to begin with.
    pub model: BaseRecipe,
    /// Examples to learn from: files, patterns or folders.
    pub data: Vec<String>,
    /// The adapter that is trained; without it all weights are.
    pub adapter: Option<AdapterKind>,
    /// Whether the examples are pairs of answers (DPO).
    pub pairs: bool,
}

impl Beginning {
    /// The recipe that this stands for, with a model of `context` tokens.
    pub fn recipe(self, context: usize) -> TuneRecipe {
        let Self { output, model, data, adapter, pairs } = self;
        let sources = data.into_iter().map(|path| RowSource { path, format: None }).collect();
        let too_long = if pairs { TooLong::Cut } else { TooLong::Drop };
        let max_length = Some(context.min(MAX_LENGTH));
        // A preference needs smaller steps than an answer, and all weights smaller ones than a few.
        let max_lr = match (adapter.is_some(), pairs) {
            (true, false) => 2e-4,
            (true, true) => 5e-5,
            (false, false) => 2e-5,
            (false, true) => 2e-6,
        };
        TuneRecipe {
            output,
            model,
            data: ExamplesRecipe { held_out: HELD_OUT, max_length, too_long, ..ExamplesRecipe::new(sources) },
            adapter: adapter.map(|kind| AdapterRecipe { kind, ..AdapterRecipe::default() }),
            preference: pairs.then(PreferenceRecipe::default),
            train: TuneTrainRecipe::default(),
            optimizer: TuneRecipe::optimizer(),
            schedule: TuneScheduleRecipe { max_lr, ..TuneScheduleRecipe::default() },
            log: LogRecipe { validate_every: 50, ..LogRecipe::default() },
            checkpoint: CheckpointRecipe { every: 200, ..CheckpointRecipe::default() },
            spike: SpikeRecipe::default(),
        }
    }
}
