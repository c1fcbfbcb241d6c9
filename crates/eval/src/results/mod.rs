//! Results: a folder with everything, a table, comparisons, a chart.

mod chart;
mod compare;
mod groups;
mod paper;
mod published;
mod table;

use std::collections::BTreeMap;
use std::io::Write;
use std::path::Path;

use openelm_formats::atomic;
use serde::{Deserialize, Serialize};

pub use chart::chart;
pub use compare::{Beside, Column, Earlier, Paired, Row, rows};
pub use groups::GroupResult;
pub use paper::paper_table;
pub use published::{PublishedModel, published};
pub use table::{markdown, table};

use crate::run::TaskResult;
use crate::task::Selection;
use crate::{EvalError, Options};

/// The file's name in a results folder.
pub(crate) const RESULTS: &str = "results.json";

/// What an evaluation came to.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Results {
    /// Version of this program.
    pub openelm: String,
    /// What tells the model from all others.
    pub model: serde_json::Value,
    /// How it was evaluated.
    pub settings: Settings,
    /// By key.
    pub tasks: BTreeMap<String, TaskResult>,
    /// By name.
    pub groups: BTreeMap<String, GroupResult>,
}

/// How tasks were evaluated.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Settings {
    /// Whether texts began with BOS.
    pub bos: bool,
    /// Most tokens that the model saw at once.
    pub context: usize,
    /// Of each task the first documents only.
    pub limit: Option<usize>,
    /// The seed of the shots.
    pub seed: u32,
}

impl Results {
    /// The results `tasks` of `selections`, of the model that `identity` tells from all others.
    pub fn new(
        identity: serde_json::Value,
        options: &Options,
        selections: &[Selection],
        tasks: Vec<(String, TaskResult)>,
    ) -> Self {
        let Options { bos, context, limit, seed } = *options;
        let groups = groups::all(selections, &tasks);
        Self {
            openelm: env!("CARGO_PKG_VERSION").to_owned(),
            model: identity,
            settings: Settings { bos, context, limit, seed },
            tasks: tasks.into_iter().collect(),
            groups,
        }
    }

    /// What a reader of the scores should know.
    pub fn notes(&self) -> Vec<String> {
        let cut = self.tasks.iter().filter(|(_, result)| result.truncated > 0);
        let note = |(key, TaskResult { truncated, requests, .. }): (&String, &TaskResult)| {
            format!("{key}: {truncated} of {requests} requests lost their beginning: they did not fit the context")
        };
        cut.map(note).collect()
    }

    /// Reads the results in `folder`.
    ///
    /// # Errors
    /// If there are none, or they are not of this form.
    pub fn read(folder: &Path) -> Result<Self, EvalError> {
        let path = folder.join(RESULTS);
        let text = std::fs::read_to_string(&path).map_err(EvalError::io(&path))?;
        let wrong = |e: serde_json::Error| EvalError::Results {
            path: path.clone(),
            reason: format!("not the results of an evaluation: {e}"),
        };
        serde_json::from_str(&text).map_err(wrong)
    }

    /// Writes `results.json` into `folder`.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn write(&self, folder: &Path) -> Result<(), EvalError> {
        let path = folder.join(RESULTS);
        let text = serde_json::to_string_pretty(self).map_err(|e| EvalError::io(&path)(e.into()))?;
        atomic::write_file(&path, |file| file.write_all(text.as_bytes()).and_then(|()| file.write_all(b"\n")))
            .map_err(EvalError::io(&path))
    }
}
