//! What a training run takes in memory, item by item.

use std::num::NonZeroUsize;
use std::path::Path;

use anyhow::{Result, anyhow};
use comfy_table::{CellAlignment, Table, presets};
use openelm_model::{ByteSize, available_memory};
use openelm_train::tune::TuneRecipe;
use openelm_train::{Recipe, TrainingFootprint};
use serde_json::{Map, Value, json};

use crate::model::open;

/// The reckoning for the recipe at `path` with `sets` on the first of `ranks` ranks, as a table or as JSON. A recipe of tuning, which
/// has the path of a model, has that looked at; for one of pretraining the recipe's tokenizer is asked for the size of its
/// vocabulary where no `vocab_size` is given.
pub(super) fn plan(
    path: &Path,
    sets: &[String],
    vocab_size: Option<usize>,
    ranks: NonZeroUsize,
    as_json: bool,
) -> Result<String> {
    let footprint = if TuneRecipe::is_at(path) {
        let recipe = TuneRecipe::load(path, sets)?;
        let stored = open(&recipe.model.path, recipe.model.tokenizer.as_deref())?;
        TrainingFootprint::tuning(&stored.config, stored.size() as u64, &recipe, ranks.get())
    } else {
        let recipe = Recipe::load(path, sets)?;
        match vocab_size {
            Some(pieces) => TrainingFootprint::new(&recipe.model_config(pieces)?, &recipe, ranks.get()),
            None => TrainingFootprint::of(&recipe, ranks.get())
                .map_err(|e| anyhow!("{e} (--vocab-size N reckons without a tokenizer)"))?,
        }
    };
    table(&footprint, as_json)
}

fn table(footprint: &TrainingFootprint, as_json: bool) -> Result<String> {
    let available = available_memory();
    if as_json {
        let items: Map<String, Value> =
            footprint.items().into_iter().map(|(name, bytes)| (name, bytes.into())).collect();
        return Ok(format!(
            "{:#}\n",
            json!({ "bytes": items, "total_bytes": footprint.total(), "available_bytes": available })
        ));
    }
    let mut table = Table::new();
    table.load_style(presets::ASCII_MARKDOWN);
    table.set_header(["item", "memory"]);
    for (name, bytes) in footprint.items() {
        table.add_row([name, ByteSize(bytes).to_string()]);
    }
    table.column_iter_mut().skip(1).for_each(|column| column.set_cell_alignment(CellAlignment::Right));
    let total = footprint.total();
    let machine = match available {
        Some(available) if total <= available => format!("{} are available: it fits", ByteSize(available)),
        Some(available) => format!("only {} are available: it does not fit", ByteSize(available)),
        None => "the system does not say how much is available".to_owned(),
    };
    Ok(format!("{table}\n\ntotal: {}; {machine}\n", ByteSize(total)))
}
