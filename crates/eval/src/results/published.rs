//! Scores that were published, each with its source.

use std::collections::BTreeMap;

use serde::Deserialize;

use crate::EvalError;

const FILE: &str = include_str!("../../published/openelm.toml");

/// A model with its published scores.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PublishedModel {
    /// The model.
    pub name: String,
    /// Its parameters.
    pub size: Option<String>,
    /// The tokens it was trained on.
    pub tokens: Option<String>,
    /// Where the scores are from.
    pub source: String,
    /// Scores in per cent, by `task metric`, with `:N` behind a task with N shots.
    #[serde(default)]
    scores: BTreeMap<String, f64>,
    /// Means in per cent, by group.
    #[serde(default)]
    groups: BTreeMap<String, f64>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    model: Vec<PublishedModel>,
}

/// All models whose scores are known.
///
/// # Errors
/// If the file compiled in is none, which a test rules out.
pub fn published() -> Result<Vec<PublishedModel>, EvalError> {
    let wrong = |e: toml::de::Error| EvalError::Task {
        file: "published/openelm.toml".to_owned(),
        reason: e.message().to_owned(),
    };
    Ok(toml::from_str::<File>(FILE).map_err(wrong)?.model)
}

impl PublishedModel {
    /// The share of `metric` on `task` with `shots`.
    pub fn score(&self, task: &str, shots: usize, metric: &str) -> Option<f64> {
        let key = if shots == 0 { format!("{task} {metric}") } else { format!("{task}:{shots} {metric}") };
        self.scores.get(&key).map(|score| score / 100.0)
    }

    /// The mean of a group, as a share.
    pub fn group(&self, name: &str) -> Option<f64> {
        self.groups.get(name).map(|score| score / 100.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::task::{Harness, Library, TaskName};

    #[test]
    fn scores_are_of_tasks_and_groups_that_there_are_and_make_their_means() {
        let library = Library::new(Harness::default()).unwrap();
        for model in published().unwrap() {
            assert!(!model.source.is_empty());
            for key in model.scores.keys() {
                let (task, metric) = key.split_once(' ').unwrap();
                let selection = library.select(&TaskName::parse(task).unwrap(), 0).unwrap();
                assert!(selection.tasks()[0].0.metrics.iter().any(|known| known.name() == metric), "{key}");
            }
            for (name, mean) in &model.groups {
                let group = library.groups().iter().find(|group| group.name == *name).unwrap();
                let scores = group.members.iter().map(|member| {
                    let key = format!("{} {}", member.task.trim_end_matches(":0"), member.metric);
                    model.scores.get(&key).copied()
                });
                // Of some models the means alone are known.
                if let Some(scores) = scores.collect::<Option<Vec<f64>>>() {
                    let found = scores.iter().sum::<f64>() / scores.len() as f64;
                    assert!((found - mean).abs() < 0.02, "{} {name}: {found} instead of {mean}", model.name);
                }
            }
        }
    }
}
