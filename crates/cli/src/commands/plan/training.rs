//! What a training run takes in memory, item by item.

use std::num::NonZeroUsize;

use anyhow::Result;
use comfy_table::{CellAlignment, Table, presets};
use openelm_model::{Bytes, available_memory};
use openelm_train::{Recipe, TrainingFootprint};
use serde_json::{Map, Value, json};

/// The reckoning for `recipe` on the first of `ranks` ranks, as a table or as JSON.
pub(super) fn plan(recipe: &Recipe, ranks: NonZeroUsize, as_json: bool) -> Result<String> {
    let footprint = TrainingFootprint::of(recipe, ranks.get())?;
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
        table.add_row([name, Bytes(bytes).to_string()]);
    }
    table.column_iter_mut().skip(1).for_each(|column| column.set_cell_alignment(CellAlignment::Right));
    let total = footprint.total();
    let machine = match available {
        Some(available) if total <= available => format!("{} are available: it fits", Bytes(available)),
        Some(available) => format!("only {} are available: it does not fit", Bytes(available)),
        None => "the system does not say how much is available".to_owned(),
    };
    Ok(format!("{table}\n\ntotal: {}; {machine}\n", Bytes(total)))
}
