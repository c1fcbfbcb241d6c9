//! An evaluation: tasks on a model, block by block of documents.

use std::collections::{BTreeMap, HashSet};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;

use openelm_formats::atomic;
use openelm_model::Tokenizer;
use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::EvalError;
use crate::data::{Documents, Sources};
use crate::journal::Journal;
use crate::metrics::{Metric, Outcome, Score, Value};
use crate::request::{Encoding, Queries, Query};
use crate::schedule::{Done, Scorer};
use crate::shots::{SEED, Shots};
use crate::task::{Rendered, Renderer, Selection, Task};

/// Documents whose queries are in memory together; what they begin with is shared among them.
const BLOCK: usize = 256;

/// How tasks are evaluated.
#[derive(Debug, Clone)]
pub struct Options {
    /// Whether texts begin with BOS.
    pub bos: bool,
    /// Most tokens that the model sees at once.
    pub context: usize,
    /// Of each task the first documents only.
    pub limit: Option<usize>,
    /// The seed that shots are drawn with.
    pub seed: u32,
}

impl Options {
    /// Whole tasks, with the harness's seed.
    pub fn new(bos: bool, context: usize) -> Self {
        Self { bos, context, limit: None, seed: SEED }
    }
}

/// What a task came to.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TaskResult {
    /// The task's name.
    pub task: String,
    /// Its version.
    pub version: u32,
    /// The harness whose rules were followed.
    pub harness: String,
    /// Shots in front of each document.
    pub shots: usize,
    /// Documents.
    pub documents: usize,
    /// Continuations that were scored.
    pub requests: usize,
    /// Those whose beginning did not fit the context.
    pub truncated: usize,
    /// By name.
    pub metrics: BTreeMap<String, Score>,
    /// The files that the documents came from, with their SHA-256.
    pub data: Vec<DataFile>,
}

/// A file that documents came from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DataFile {
    /// Its path.
    pub file: PathBuf,
    /// Its SHA-256.
    pub sha256: String,
}

/// How far an evaluation is.
#[derive(Debug, Clone, Copy)]
pub struct Progress<'a> {
    /// The task at work.
    pub task: &'a str,
    /// Work done and work in all: bytes of documents with their shots.
    pub done: u64,
    /// Work in all.
    pub of: u64,
    /// Tokens that went through the model so far.
    pub tokens: usize,
}

/// A task that is ready to run: its files are found and its first document is one.
pub struct Prepared<'t> {
    task: &'t Task,
    key: String,
    renderer: Renderer,
    documents: Documents,
    shots: Option<Shots>,
}

/// The key of each task in results and file names: its name, with the shots behind it where it comes with several numbers of them,
/// and the harness where it is an older one beside the newer.
pub fn keys(tasks: &[(&Task, usize)]) -> Vec<String> {
    let differ = |task: &Task, of: &dyn Fn(&(&Task, usize)) -> String| {
        let mut seen = tasks.iter().filter(|(other, _)| other.name == task.name).map(of);
        let first = seen.next();
        seen.any(|other| Some(other) != first)
    };
    let key = |&(task, shots): &(&Task, usize)| {
        let mut key = task.name.clone();
        if differ(task, &|(_, shots)| shots.to_string()) {
            key += &format!("-{shots}shot");
        }
        if differ(task, &|(task, _)| task.harness.to_string()) {
            key += &format!("@{}", task.harness);
        }
        key
    };
    tasks.iter().map(key).collect()
}

/// The tasks in `selections` with their shots, each once.
pub fn distinct(selections: &[Selection]) -> Vec<(&Task, usize)> {
    let mut tasks: Vec<(&Task, usize)> = Vec::new();
    for (task, shots) in selections.iter().flat_map(Selection::tasks) {
        let same = |(other, count): &(&Task, usize)| {
            (&other.name, *count, other.harness, &other.file) == (&task.name, shots, task.harness, &task.file)
        };
        if !tasks.iter().any(same) {
            tasks.push((task, shots));
        }
    }
    tasks
}

/// Finds the documents of `tasks`, and renders the first one of each.
///
/// # Errors
/// If documents are missing, or the first one is not as its task expects.
pub fn prepare<'t>(
    tasks: &[(&'t Task, usize)],
    sources: &Sources<'_>,
    options: &Options,
) -> Result<Vec<Prepared<'t>>, EvalError> {
    let prepare = |(&(task, count), key): (&(&'t Task, usize), String)| {
        let renderer = Renderer::new(task)?;
        let mut documents = sources.open(task, &task.data.split)?;
        if let Some(seed) = task.data.shuffle {
            documents.shuffle(seed);
        }
        if let Some(limit) = options.limit {
            documents.limit(limit);
        }
        let shots = match (count, &task.shots) {
            (0, _) => None,
            (_, Some(shots)) => Some(Shots::new(task, sources.open(task, &shots.split)?, count, options.seed)?),
            (_, None) => {
                let reason = format!("{} takes no shots: its file has no [shots]", task.name);
                return Err(EvalError::Task { file: task.file.clone(), reason });
            }
        };
        let prepared = Prepared { task, key, renderer, documents, shots };
        let first: Vec<usize> = prepared.shots.iter().map(|_| 0).collect();
        prepared.render(0, &first)?;
        Ok(prepared)
    };
    tasks.iter().zip(keys(tasks)).map(prepare).collect()
}

impl Prepared<'_> {
    /// Its key in results.
    pub fn key(&self) -> &str {
        &self.key
    }

    /// Number of documents.
    pub fn documents(&self) -> usize {
        self.documents.len()
    }

    fn render(&self, index: usize, shots: &[usize]) -> Result<Rendered, EvalError> {
        let (row, document) = self.documents.get(index)?;
        let pool = self.shots.iter().flat_map(|pool| shots.iter().map(|&place| pool.pool().get(place)));
        let shots = pool.map(|found| Ok(found?.1)).collect::<Result<Vec<_>, EvalError>>()?;
        let rendered = self.renderer.render(&document, &shots);
        rendered.map_err(|reason| {
            let fields = document.as_object().into_iter().flat_map(|fields| fields.keys());
            let fields = fields.map(String::as_str).collect::<Vec<_>>().join(", ");
            let reason = format!("{reason}; the document has {fields}");
            EvalError::Document { path: self.documents.path().to_owned(), row, reason }
        })
    }

    /// The work of the document `index`.
    fn work(&self, index: usize) -> u64 {
        let shots = self.shots.as_ref().map_or(0, |shots| {
            let some = shots.pool().len().min(16);
            (0..some).map(|place| shots.pool().size(place)).sum::<usize>() * shots.count() / some.max(1)
        });
        (self.documents.size(index) + shots) as u64
    }
}

/// A model at work on tasks.
pub struct Evaluation<'a> {
    /// What scores.
    pub scorer: &'a mut Scorer,
    /// The model's tokenizer.
    pub tokenizer: &'a Tokenizer,
    /// How.
    pub options: Options,
    /// What is finished.
    pub journal: Journal,
    /// Raised to stop.
    pub stop: &'a AtomicBool,
}

impl Evaluation<'_> {
    /// Runs `tasks` one after the other; each document goes to `samples/TASK.jsonl` in `folder`, if there is one.
    ///
    /// # Errors
    /// See [`EvalError`]; finished queries are in the journal.
    pub fn run(
        &mut self,
        tasks: Vec<Prepared<'_>>,
        folder: Option<&Path>,
        on_progress: &mut dyn FnMut(Progress<'_>),
    ) -> Result<Vec<(String, TaskResult)>, EvalError> {
        let work = |task: &Prepared<'_>| (0..task.documents.len()).map(|index| task.work(index)).sum::<u64>();
        let of = tasks.iter().map(work).sum();
        let mut done = 0;
        let mut results = Vec::new();
        for mut task in tasks {
            let result = match folder {
                None => self.task(&mut task, &mut io::sink(), &mut done, of, on_progress)?,
                Some(folder) => {
                    let folder = folder.join("samples");
                    std::fs::create_dir_all(&folder).map_err(EvalError::io(&folder))?;
                    let path = folder.join(format!("{}.jsonl", task.key));
                    let mut result = None;
                    let written = atomic::write_file(&path, |file| {
                        let found = self.task(&mut task, file, &mut done, of, on_progress);
                        result = Some(found.map_err(io::Error::other)?);
                        Ok(())
                    });
                    written.map_err(|e| e.downcast::<EvalError>().unwrap_or_else(EvalError::io(&path)))?;
                    result.unwrap_or_else(|| unreachable!("it was written"))
                }
            };
            results.push((task.key, result));
        }
        Ok(results)
    }

    fn task(
        &mut self,
        task: &mut Prepared<'_>,
        samples: &mut dyn Write,
        done: &mut u64,
        of: u64,
        on_progress: &mut dyn FnMut(Progress<'_>),
    ) -> Result<TaskResult, EvalError> {
        let metrics = &task.task.metrics;
        let mut values: Vec<Vec<Value>> = vec![Vec::new(); metrics.len()];
        let mut chances: Vec<Option<f64>> = vec![Some(0.0); metrics.len()];
        let (mut requests, mut truncated) = (0, 0);
        let count = task.documents.len();
        for start in (0..count).step_by(BLOCK) {
            let block = start..count.min(start + BLOCK);
            let mut documents = Vec::new();
            for index in block.clone() {
                let (row, document) = task.documents.get(index)?;
                let shots = task.shots.as_mut().map_or(Ok(Vec::new()), |shots| shots.choose(&document))?;
                let rendered = task.render(index, &shots)?;
                let encoding = Encoding {
                    tokenizer: self.tokenizer,
                    bos: self.options.bos,
                    context: self.options.context,
                    harness: task.task.harness,
                };
                let queries = encoding.queries(&rendered).map_err(|e| EvalError::Document {
                    path: task.documents.path().to_owned(),
                    row,
                    reason: e.to_string(),
                })?;
                requests += queries.of_continuations.len();
                truncated += queries.truncated;
                documents.push((row, rendered, queries));
            }
            let work: u64 = block.map(|index| task.work(index)).sum();
            let key = &task.key;
            self.score(&documents, &mut |share, tokens| {
                on_progress(Progress { task: key, done: *done + (share * work as f64) as u64, of, tokens });
            })?;
            *done += work;
            for (row, rendered, queries) in &documents {
                let outcomes = self.outcomes(queries);
                let mut of_document = serde_json::Map::new();
                for ((metric, values), chance) in metrics.iter().zip(&mut values).zip(&mut chances) {
                    let value = metric.of(rendered, &outcomes);
                    of_document.insert(metric.name().to_owned(), json!(value));
                    values.push(value);
                    *chance = chance.zip(metric.chance(rendered)).map(|(sum, chance)| sum + chance);
                }
                let sample = sample(*row, rendered, &outcomes, of_document);
                writeln!(samples, "{sample}").map_err(EvalError::io(Path::new("samples")))?;
            }
        }
        let threads = self.scorer.engine().threads();
        let score = |((metric, values), chance): ((&Metric, &Vec<Value>), &Option<f64>)| {
            let chance = chance.map(|sum| sum / count as f64);
            (metric.name().to_owned(), Score::of(*metric, values, chance, threads))
        };
        let metrics = metrics.iter().zip(&values).zip(&chances).map(score).collect();
        let pool = task.shots.iter().flat_map(|shots| shots.pool().files());
        let mut data: Vec<DataFile> = Vec::new();
        for (file, sha256) in task.documents.files().iter().chain(pool) {
            let file = DataFile { file: file.clone(), sha256: sha256.clone() };
            if !data.contains(&file) {
                data.push(file);
            }
        }
        Ok(TaskResult {
            task: task.task.name.clone(),
            version: task.task.version,
            harness: task.task.harness.to_string(),
            shots: task.shots.as_ref().map_or(0, Shots::count),
            documents: count,
            requests,
            truncated,
            metrics,
            data,
        })
    }

    /// Scores the queries of `documents` that are not known yet; says what share of them is done and how many tokens went through the
    /// model so far.
    fn score(
        &mut self,
        documents: &[(usize, Rendered, Queries)],
        on_progress: &mut dyn FnMut(f64, usize),
    ) -> Result<(), EvalError> {
        let all = documents.iter().flat_map(|(_, _, queries)| queries.of_continuations.iter().flatten());
        let mut seen: HashSet<&Query> = HashSet::new();
        let mut pending: Vec<Query> = Vec::new();
        for query in all {
            if self.journal.get(query).is_none() && seen.insert(query) {
                pending.push(query.clone());
            }
        }
        let before = self.scorer.computed();
        let Self { scorer, journal, stop, .. } = self;
        let mut written = Ok(());
        let scored = scorer.score(&pending, stop, &mut |done| match done {
            Done::Query(place, outcome) => {
                if written.is_ok() {
                    written = journal.insert(&pending[place], outcome);
                }
            }
            Done::Tokens { done, of } => {
                if written.is_ok() {
                    written = journal.flush();
                }
                on_progress(done as f64 / of.max(1) as f64, before + done);
            }
        });
        journal.flush()?;
        written.and(scored)
    }

    /// What is known of each continuation: the sum over its windows.
    fn outcomes(&self, queries: &Queries) -> Vec<Outcome> {
        let of = |windows: &Vec<Query>| {
            let known = windows.iter().filter_map(|query| self.journal.get(query));
            known.fold(Outcome { log_likelihood: 0.0, greedy: true }, |sum, outcome| Outcome {
                log_likelihood: sum.log_likelihood + outcome.log_likelihood,
                greedy: sum.greedy && outcome.greedy,
            })
        };
        queries.of_continuations.iter().map(of).collect()
    }
}

/// A document with what the model said of it.
fn sample(
    index: usize,
    rendered: &Rendered,
    outcomes: &[Outcome],
    metrics: serde_json::Map<String, serde_json::Value>,
) -> serde_json::Value {
    let contexts = &rendered.contexts;
    // One for all, or one for each.
    let context = match contexts.split_first() {
        Some((first, rest)) if rest.iter().all(|context| context == first) => json!(first),
        _ => json!(contexts),
    };
    json!({
        "index": index,
        "context": context,
        "continuations": rendered.continuations,
        "log_likelihoods": outcomes.iter().map(|outcome| outcome.log_likelihood).collect::<Vec<_>>(),
        "greedy": outcomes.iter().map(|outcome| outcome.greedy).collect::<Vec<_>>(),
        "metrics": metrics,
    })
}
