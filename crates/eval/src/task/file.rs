//! A task as its file declares it.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use toml::{Table, Value};

use super::Harness;
use super::prompt::Prompt;
use crate::EvalError;
use crate::metrics::Metric;

/// A task: where its documents are, what is asked of them, what is measured.
#[derive(Debug, Clone)]
pub struct Task {
    /// Its name.
    pub name: String,
    /// Its version: scores of different versions do not compare.
    pub version: u32,
    /// What is measured.
    pub metrics: Vec<Metric>,
    /// Where its documents are.
    pub data: Data,
    /// Where its shots come from.
    pub shots: Option<Shots>,
    /// The rules that are followed.
    pub harness: Harness,
    pub(crate) prompt: Prompt,
    /// Which of the tasks of its file it is.
    pub(crate) variant: Option<String>,
    /// The file, as messages name it.
    pub(crate) file: String,
    /// The folder of the file, for paths in it.
    pub(crate) beside: Option<PathBuf>,
}

/// Where the documents of a task are.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Data {
    /// The folder under that of all data sets.
    pub folder: Option<String>,
    /// The data set on the hub.
    pub hub: Option<String>,
    /// Its configuration there; without one it is `default`.
    pub config: Option<String>,
    /// Files by split, beside the task's file.
    #[serde(default)]
    pub files: BTreeMap<String, PathBuf>,
    /// The split whose documents are asked.
    pub split: String,
    /// Fields and the value they must have; other documents are passed over.
    #[serde(default, rename = "where")]
    pub condition: BTreeMap<String, String>,
    /// Shuffles the documents as Python's `random.seed(N)` and `random.shuffle` do, which matters with a limit only.
    pub shuffle: Option<u32>,
}

/// Where the shots of a task come from.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Shots {
    /// The split they are taken from.
    pub split: String,
    /// Which of its documents.
    #[serde(default)]
    pub order: ShotOrder,
    /// One more is drawn than is needed, in case that the document itself is among them.
    #[serde(default)]
    pub spare: bool,
    /// Always this many, whatever is asked for.
    pub always: Option<usize>,
}

/// Which documents become shots.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ShotOrder {
    /// Others for each document, drawn as Python's `random.sample` draws.
    #[default]
    Random,
    /// The first ones, for all documents.
    First,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    name: String,
    version: u32,
    metrics: Vec<Metric>,
    data: Data,
    prompt: Prompt,
    shots: Option<Shots>,
}

/// The tasks that `text`, the content of the file called `file`, declares, by the rules of `harness`: one, or one for each variant.
pub(super) fn parse(text: &str, file: &str, path: Option<&Path>, harness: Harness) -> Result<Vec<Task>, EvalError> {
    let wrong = |reason: String| EvalError::Task { file: file.to_owned(), reason };
    let mut table: Table = text.parse().map_err(|e: toml::de::Error| wrong(e.to_string().trim().replace('\n', " ")))?;
    let mut older = match table.remove("older") {
        None => Table::new(),
        Some(Value::Table(older)) => older,
        Some(_) => return Err(wrong("`older` must be a table, one entry for each version of the harness".to_owned())),
    };
    if let Some(version) = older.keys().find(|version| version.parse::<Harness>().is_err()) {
        return Err(wrong(format!("`older` names the harness {version:?}, which is not followed here")));
    }
    if let Some(changes) = older.remove(harness.version()) {
        merge(&mut table, changes);
    }
    let variants = match table.remove("variants") {
        None => vec![None],
        Some(variants) => {
            let variants: Vec<String> =
                variants.try_into().map_err(|_| wrong("`variants` must be a list of names".to_owned()))?;
            variants.into_iter().map(Some).collect()
        }
    };
    let task = |variant: Option<String>| {
        let mut table = table.clone();
        if let Some(variant) = &variant {
            for key in ["name", "data"] {
                table.get_mut(key).into_iter().for_each(|value| substitute(value, variant));
            }
        }
        let parsed: Result<File, _> = Value::Table(table).try_into();
        let File { name, version, metrics, data, prompt, shots } =
            parsed.map_err(|e: toml::de::Error| wrong(e.message().to_owned()))?;
        let beside = path.map(|path| path.parent().unwrap_or(Path::new("")).to_owned());
        let task =
            Task { name, version, metrics, data, shots, harness, prompt, variant, file: file.to_owned(), beside };
        task.check().map_err(wrong)?;
        Ok(task)
    };
    variants.into_iter().map(task).collect()
}

/// Puts `changes` into `table`, tables within it key by key.
fn merge(table: &mut Table, changes: Value) {
    let Value::Table(changes) = changes else { return };
    for (key, change) in changes {
        match (table.get_mut(&key), change) {
            (Some(Value::Table(inner)), change @ Value::Table(_)) => merge(inner, change),
            (_, change) => {
                table.insert(key, change);
            }
        }
    }
}

/// Writes `variant` wherever a text of `value` says `{variant}`.
fn substitute(value: &mut Value, variant: &str) {
    match value {
        Value::String(text) => *text = text.replace("{variant}", variant),
        Value::Array(items) => items.iter_mut().for_each(|item| substitute(item, variant)),
        Value::Table(table) => table.iter_mut().for_each(|(_, item)| substitute(item, variant)),
        _ => (),
    }
}

impl Task {
    fn check(&self) -> Result<(), String> {
        let sound = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
        if self.name.is_empty() || self.name.starts_with('.') || !self.name.chars().all(sound) {
            return Err(format!("the name {:?} must be of letters, digits, `.`, `_` and `-`", self.name));
        }
        if self.metrics.is_empty() {
            return Err("`metrics` is empty; name at least one".to_owned());
        }
        self.metrics.iter().try_for_each(|&metric| self.prompt.check(metric))?;
        if self.data.files.values().any(|file| file.is_absolute()) {
            return Err("`data.files` must be paths beside the task's file".to_owned());
        }
        Ok(())
    }

    /// How many shots it is given where `asked` for.
    pub fn shots_for(&self, asked: usize) -> usize {
        self.shots.as_ref().and_then(|shots| shots.always).unwrap_or(asked)
    }
}
