//! A model that goes on learning.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::mpsc::SyncSender;

use openelm_formats::StoredModel;
use openelm_model::available_memory;
use openelm_model::kernels::Threads;
use openelm_train::TrainingFootprint;
use openelm_train::collective::Alone;
use openelm_train::run::Event;
use openelm_train::tune::{AdapterKind, BaseRecipe, Beginning, TuneRecipe, tune_on};
use pyo3::prelude::*;

use crate::error::{Failure, detached};
use crate::interruptible::interruptible;
use crate::log::Said;
use crate::source::{Source, stored};

/// Tunes `model` on the examples in `data` by a recipe of numbers that suit most, with the `changes`, each `dotted.key=value`.
/// Gives the output folder and the newest checkpoint.
#[pyfunction]
#[pyo3(signature = (model, data, *, output, method, pairs, tokenizer, changes, threads, on_step))]
#[allow(clippy::too_many_arguments)] // Keywords, as Python has them.
pub fn tune(
    py: Python<'_>,
    model: Source,
    data: Vec<String>,
    output: PathBuf,
    method: &str,
    pairs: bool,
    tokenizer: Option<PathBuf>,
    changes: Vec<String>,
    threads: usize,
    on_step: Option<Py<PyAny>>,
) -> PyResult<(PathBuf, PathBuf)> {
    let place = model.places(tokenizer);
    let (recipe, stored) = detached(py, || {
        let adapter = match method {
            "lora" => Some(AdapterKind::Lora),
            "dora" => Some(AdapterKind::Dora),
            "full" => None,
            _ => return Err(Failure::input(format!("{method:?} is no method; there are lora, dora and full"))),
        };
        let stored = stored(&place)?;
        let (path, tokenizer) = place;
        let model = BaseRecipe { path, tokenizer, exact: false };
        let beginning = Beginning { output, model, data, adapter, pairs };
        Ok((beginning.recipe(stored.config.context_length).changed(&changes)?, stored))
    })?;
    follow(py, recipe, stored, threads, on_step)
}

/// Tunes by the recipe at `path`, with the `changes`, each `dotted.key=value`. Gives the output folder and the newest checkpoint.
#[pyfunction]
#[pyo3(signature = (path, *, changes, threads, on_step))]
pub fn tune_recipe(
    py: Python<'_>,
    path: PathBuf,
    changes: Vec<String>,
    threads: usize,
    on_step: Option<Py<PyAny>>,
) -> PyResult<(PathBuf, PathBuf)> {
    let (recipe, stored) = detached(py, || {
        let recipe = TuneRecipe::load(&path, &changes)?;
        let stored = stored(&(recipe.model.path.clone(), recipe.model.tokenizer.clone()))?;
        Ok::<_, Failure>((recipe, stored))
    })?;
    follow(py, recipe, stored, threads, on_step)
}

fn follow(
    py: Python<'_>,
    recipe: TuneRecipe,
    stored: StoredModel,
    threads: usize,
    on_step: Option<Py<PyAny>>,
) -> PyResult<(PathBuf, PathBuf)> {
    let output = recipe.output.clone();
    let work = |stop: &AtomicBool, told: &SyncSender<Told>| -> Result<PathBuf, Failure> {
        // Nobody listens any more behind an interruption.
        let tell = |told_now| drop(told.send(told_now));
        stored.notes.iter().for_each(|note| tell(Told::Said(Said::Warning(note.clone()))));
        recipe.max_length(&stored.config)?;
        if let Some(available) = available_memory() {
            TrainingFootprint::tuning(&stored.config, stored.size() as u64, &recipe, 1).check(available)?;
        }
        let watch = &mut |event: Event| match &event {
            Event::Step(entry) => tell(Told::Step(serde_json::to_string(entry).unwrap_or_default())),
            Event::RecipeChanged { .. } | Event::LogMended { .. } => {
                event.described().into_iter().for_each(|line| tell(Told::Said(Said::Warning(line))));
            }
            _ => event.described().into_iter().for_each(|line| tell(Told::Said(Said::Info(line)))),
        };
        let outcome = tune_on(Arc::new(Alone), &recipe, stored, Threads::new(threads), stop, watch)?;
        Ok(outcome.map(|outcome| outcome.checkpoint).unwrap_or_default())
    };
    let checkpoint = interruptible(py, work, |py, told| match (told, &on_step) {
        (Told::Step(entry), Some(on_step)) => on_step.call1(py, (entry,)).map(drop),
        (Told::Step(_), None) => Ok(()),
        (Told::Said(said), _) => said.to_python(py),
    })?;
    Ok((output, checkpoint))
}

/// What a run tells.
enum Told {
    /// An update, as the log has it.
    Step(String),
    /// What the command would print.
    Said(Said),
}
