//! How well a model answers.

use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::sync::atomic::AtomicBool;
use std::sync::mpsc::SyncSender;

use openelm_eval::{
    EvalError, Harness, Journal, Library, Options, Progress, Running, Selection, Sources, Subject, TaskName, distinct,
    prepare, tokens_in_memory,
};
use openelm_formats::adapter;
use openelm_model::kernels::Threads;
use openelm_model::{Adapter, CacheType, Footprint, Precision, available_memory};
use pyo3::prelude::*;

use crate::error::Failure;
use crate::interruptible::interruptible;
use crate::log::Said;
use crate::model::cache_type;
use crate::source::{Source, stored};

/// Evaluates `model` on `tasks`. Gives the results as `results.json` has them.
#[pyfunction]
#[pyo3(signature = (
    model, tasks, *, data, num_fewshot, limit, adapter, seed, harness, bos, context, cache, exact, output, tokenizer, threads,
    on_progress
))]
#[allow(clippy::too_many_arguments)] // Keywords, as Python has them.
pub fn evaluate(
    py: Python<'_>,
    model: Source,
    tasks: Vec<String>,
    data: Option<PathBuf>,
    num_fewshot: usize,
    limit: Option<NonZeroUsize>,
    adapter: Option<PathBuf>,
    seed: u32,
    harness: &str,
    bos: Option<bool>,
    context: Option<NonZeroUsize>,
    cache: &str,
    exact: bool,
    output: Option<PathBuf>,
    tokenizer: Option<PathBuf>,
    threads: usize,
    on_progress: Option<Py<PyAny>>,
) -> PyResult<String> {
    let place = model.places(tokenizer);
    let work = |stop: &AtomicBool, told: &SyncSender<Told>| -> Result<String, Failure> {
        // Nobody listens any more behind an interruption.
        let tell = |told_now| drop(told.send(told_now));
        let warn = |note: &String| tell(Told::Said(Said::Warning(note.clone())));
        let library = Library::new(harness.parse::<Harness>().map_err(Failure::input)?)?;
        let select = |name: &String| -> Result<Selection, Failure> {
            let name = TaskName::parse(name).map_err(Failure::input)?;
            Ok(library.select(&name, num_fewshot)?)
        };
        let selections: Vec<Selection> = tasks.iter().map(select).collect::<Result<_, _>>()?;
        let stored = stored(&place)?;
        stored.notes.iter().for_each(warn);
        let tokenizer = stored.open_tokenizer()?;
        let (config, cache) = (&stored.config, CacheType::from(cache_type(cache)?));
        let context = context.map_or(config.context_length, NonZeroUsize::get);
        if let Some(available) = available_memory() {
            let weights = if exact { config.weight_bytes(Precision::F32) } else { stored.size() };
            Footprint::new(config, weights, tokens_in_memory(context), cache).check(available)?;
        }
        let adapters: Vec<(Adapter, f32)> = match &adapter {
            Some(path) => vec![(adapter::open(path, config)?, 1.0)],
            None => Vec::new(),
        };
        adapters.iter().flat_map(|(adapter, _)| &adapter.notes).for_each(warn);
        let bos = bos.unwrap_or(tokenizer.adds_bos());
        let options = Options { limit: limit.map(NonZeroUsize::get), seed, ..Options::new(bos, context) };
        let running = Running { adapters, exact, cache, threads: Threads::new(threads) };
        let mut subject = Subject::load(stored, tokenizer, running, options)?;
        // The hub is not asked: it is another package's work.
        let sources = Sources { folder: data, hub: None };
        let prepared = prepare(&distinct(&selections), &sources, &subject.options)?;
        let output = output.as_deref();
        let journal = output.map_or(Ok(Journal::default()), |folder| Journal::open(folder, &subject.identity))?;
        let results = subject.evaluate(&selections, prepared, journal, output, stop, &mut |progress| {
            let Progress { task, done, of, .. } = progress;
            tell(Told::Progress(task.to_owned(), done as f64 / of.max(1) as f64));
        });
        let results = match results {
            // What asked for it is raised.
            Err(EvalError::Stopped) => return Ok(String::new()),
            results => results?,
        };
        results.notes().iter().for_each(warn);
        Ok(serde_json::to_string(&results).unwrap_or_default())
    };
    interruptible(py, work, |py, told| match (told, &on_progress) {
        (Told::Progress(task, share), Some(on_progress)) => on_progress.call1(py, (task, share)).map(drop),
        (Told::Progress(..), None) => Ok(()),
        (Told::Said(said), _) => said.to_python(py),
    })
}

/// What an evaluation tells.
enum Told {
    /// A task, and how much of all work is done, from 0 to 1.
    Progress(String, f64),
    /// What the command would print.
    Said(Said),
}
