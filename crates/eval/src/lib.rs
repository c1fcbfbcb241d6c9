//! Evaluation of language models that agrees with lm-evaluation-harness, request by request.
//!
//! ```text
//! task (TOML) + documents (JSONL, Parquet) ── Renderer, Shots ──> contexts and continuations
//!     ── Encoding ──> queries ── Scorer: what they begin with in common is computed once ──> log-likelihoods
//!     ── Metric ──> a value for each document ── Score ──> score, standard error, chance
//! ```
//!
//! Tasks are data: a file of TOML with templates of Jinja. Results are a folder: `results.json`, `samples/TASK.jsonl` with an object
//! for each document, and `requests.jsonl`, from which an interrupted evaluation goes on.
//!
//! ```
//! use openelm_eval::{Harness, Library, TaskName};
//!
//! let library = Library::new(Harness::default())?;
//! let selection = library.select(&TaskName::parse("arc_challenge:25").unwrap(), 0)?;
//! let [(task, shots)] = selection.tasks()[..] else { panic!("one task") };
//! assert_eq!((task.name.as_str(), shots), ("arc_challenge", 25));
//! # Ok::<(), openelm_eval::EvalError>(())
//! ```

mod data;
mod error;
mod journal;
mod metrics;
mod python;
mod request;
mod results;
mod run;
mod schedule;
mod shots;
mod subject;
mod task;
mod template;

pub use data::{Documents, HubFiles, OnHub, Sources};
pub use error::EvalError;
pub use journal::Journal;
pub use metrics::{Metric, Outcome, Score, Value};
pub use request::{Encoding, Queries, Query, QueryError};
pub use results::{
    Beside, Column, Earlier, GroupResult, Paired, PublishedModel, Results, Row, Settings, chart, markdown, paper_table,
    published, rows, table,
};
pub use run::{DataFile, Evaluation, Options, Prepared, Progress, TaskResult, distinct, keys, prepare};
pub use schedule::{Done, Scorer, tokens_in_memory};
pub use shots::Shots;
pub use subject::{Running, Subject};
pub use task::{
    Data, Group, Harness, Library, Mean, Member, Rendered, Renderer, Selection, ShotOrder, ShotSource, Task, TaskName,
};
