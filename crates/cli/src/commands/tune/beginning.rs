//! A run without a recipe, as it is asked for on the command line.

use std::path::PathBuf;

use anyhow::{Context, Result};
use clap::Args;
use openelm_train::tune::{self, AdapterKind, BaseRecipe, TuneRecipe};

use crate::model::BUILTIN;

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
        let adapter = if self.dora { AdapterKind::Dora } else { AdapterKind::Lora };
        let beginning = tune::Beginning {
            output: self.output.clone(),
            model: BaseRecipe { path, tokenizer: None, exact: false },
            data: self.data.clone(),
            adapter: (!self.full).then_some(adapter),
            pairs: self.dpo,
        };
        Ok(beginning.recipe(context))
    }
}
