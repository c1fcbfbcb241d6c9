//! A group as its file declares it: tasks whose scores make one.

use serde::Deserialize;

use crate::EvalError;

/// Tasks whose scores make one.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Group {
    /// Its name.
    pub name: String,
    /// How the score is made.
    #[serde(default)]
    pub mean: Mean,
    /// What it is made of.
    pub members: Vec<Member>,
}

/// How the scores of a group's members make one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Mean {
    /// Each member counts alike.
    #[default]
    Members,
    /// Each member counts as much as it has documents.
    Documents,
}

/// A task or group in a group.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Member {
    /// Its name, with `:N` behind it where it takes N shots.
    pub task: String,
    /// The metric that counts.
    pub metric: String,
}

pub(super) fn parse(text: &str, file: &str) -> Result<Group, EvalError> {
    let wrong = |reason: String| EvalError::Task { file: file.to_owned(), reason };
    let group: Group = toml::from_str(text).map_err(|e| wrong(e.message().to_owned()))?;
    if group.members.is_empty() { Err(wrong("the group has no members".to_owned())) } else { Ok(group) }
}
