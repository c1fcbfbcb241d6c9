//! A run without a recipe: numbers that suit most, which the run writes down as a recipe.

use std::path::PathBuf;

use anyhow::{Context, Result};
use clap::Args;
use openelm_train::tune::{
    AdapterKind, AdapterRecipe, BaseRecipe, ExamplesRecipe, PreferenceRecipe, RowSource, TooLong, TuneRecipe,
    TuneScheduleRecipe, TuneTrainRecipe,
};
use openelm_train::{CheckpointRecipe, LogRecipe, SpikeRecipe};

use crate::model::BUILTIN;

/// Longest example in tokens; longer ones are left out, or pairs cut.
const MAX_LENGTH: usize = 1024;
/// Share of the examples that are held out.
const HELD_OUT: f64 = 0.05;

/// What stands in the place of a recipe.
#[derive(Args)]
pub struct Beginning {
    /// Without a recipe: the model to tune [default: the one built in]
    #[arg(long, short, value_name = "MODEL", conflicts_with = "recipe")]
    model: Option<PathBuf>,
    /// Without a recipe: examples to learn from, JSONL, JSON or Parquet: files, patterns or folders
    #[arg(long, value_name = "FILES", num_args = 1..)]
    data: Vec<String>,
    /// Without a recipe: folder for checkpoints and logs
    #[arg(long, short, value_name = "FOLDER", default_value = "tuned", conflicts_with = "recipe")]
    output: PathBuf,
    /// Tune an adapter: LoRA (default)
    #[arg(long, group = "what", conflicts_with = "recipe")]
    lora: bool,
    /// Tune an adapter: DoRA
    #[arg(long, group = "what", conflicts_with = "recipe")]
    dora: bool,
    /// Tune all weights
    #[arg(long, group = "what", conflicts_with = "recipe")]
    full: bool,
    /// Learn from pairs of answers (DPO)
    #[arg(long, conflicts_with = "recipe")]
    dpo: bool,
}

impl Beginning {
    /// The recipe that this stands for.
    pub fn recipe(&self) -> Result<TuneRecipe> {
        let path = self.model.clone().unwrap_or_else(|| BUILTIN.into());
        let context = crate::model::open(&path, None)
            .with_context(|| format!("--model {}", path.display()))?
            .config
            .context_length;
        let sources = self.data.iter().map(|path| RowSource { path: path.clone(), format: None }).collect();
        let too_long = if self.dpo { TooLong::Cut } else { TooLong::Drop };
        let max_length = Some(context.min(MAX_LENGTH));
        let kind = if self.dora { AdapterKind::Dora } else { AdapterKind::Lora };
        // A preference needs smaller steps than an answer, and all weights smaller ones than a few.
        let max_lr = match (self.full, self.dpo) {
            (false, false) => 2e-4,
            (false, true) => 5e-5,
            (true, false) => 2e-5,
            (true, true) => 2e-6,
        };
        Ok(TuneRecipe {
            output: self.output.clone(),
            model: BaseRecipe { path, tokenizer: None, exact: false },
            data: ExamplesRecipe { held_out: HELD_OUT, max_length, too_long, ..ExamplesRecipe::new(sources) },
            adapter: (!self.full).then(|| AdapterRecipe { kind, ..AdapterRecipe::default() }),
            preference: self.dpo.then(PreferenceRecipe::default),
            train: TuneTrainRecipe::default(),
            optimizer: TuneRecipe::optimizer(),
            schedule: TuneScheduleRecipe { max_lr, ..TuneScheduleRecipe::default() },
            log: LogRecipe { validate_every: 50, ..LogRecipe::default() },
            checkpoint: CheckpointRecipe { every: 200, ..CheckpointRecipe::default() },
            spike: SpikeRecipe::default(),
        })
    }
}
