//! Scores of groups.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::metrics::{Score, mean_of_members, mean_over_documents};
use crate::run::TaskResult;
use crate::task::{Mean, Selection};

/// What a group came to.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct GroupResult {
    /// The score.
    pub score: Score,
    /// Documents of all members.
    pub documents: usize,
    /// Its members, each with the metric that counts.
    pub members: Vec<(String, String)>,
}

/// The scores of all groups in `selections`, groups in groups included.
pub(super) fn all(selections: &[Selection], tasks: &[(String, TaskResult)]) -> BTreeMap<String, GroupResult> {
    let mut groups = BTreeMap::new();
    selections.iter().for_each(|selection| {
        score(selection, "acc", tasks, &mut groups);
    });
    groups
}

/// The score of `metric` of a task or group with its documents and how it is called; `None` if a task has no such metric.
fn score(
    selection: &Selection,
    metric: &str,
    tasks: &[(String, TaskResult)],
    groups: &mut BTreeMap<String, GroupResult>,
) -> Option<(Score, usize, String)> {
    match selection {
        Selection::Task(task, shots) => {
            let harness = task.harness.to_string();
            let same = |(_, result): &&(String, TaskResult)| {
                (&result.task, result.shots, &result.harness) == (&task.name, *shots, &harness)
            };
            let (key, result) = tasks.iter().find(same)?;
            Some((*result.metrics.get(metric)?, result.documents, key.clone()))
        }
        Selection::Group { name, mean, members } => {
            let found: Vec<_> =
                members.iter().map(|(member, metric)| (score(member, metric, tasks, groups), metric.clone())).collect();
            let scores: Vec<(Score, usize)> = found
                .iter()
                .map(|(found, _)| found.as_ref().map(|&(score, count, _)| (score, count)))
                .collect::<Option<_>>()?;
            let alike: Vec<Score> = scores.iter().map(|&(score, _)| score).collect();
            let total = match mean {
                Mean::Members => mean_of_members(&alike),
                // Over all documents, however they are grouped.
                Mean::Documents => mean_over_documents(&leaves(members, tasks)?),
            };
            let documents = scores.iter().map(|(_, count)| count).sum();
            let members = found.into_iter().filter_map(|(found, metric)| Some((found?.2, metric))).collect();
            groups.insert(name.clone(), GroupResult { score: total, documents, members });
            Some((total, documents, name.clone()))
        }
    }
}

/// The scores of the tasks in `members`.
fn leaves(members: &[(Selection, String)], tasks: &[(String, TaskResult)]) -> Option<Vec<(Score, usize)>> {
    let mut scores = Vec::new();
    for (member, metric) in members {
        match member {
            Selection::Task(..) => {
                let (score, documents, _) = score(member, metric, tasks, &mut BTreeMap::new())?;
                scores.push((score, documents));
            }
            Selection::Group { members, .. } => scores.extend(leaves(members, tasks)?),
        }
    }
    Some(scores)
}
