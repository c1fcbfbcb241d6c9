//! The tasks and groups there are, by name: those compiled in, and a user's own files.

use std::path::Path;

use super::{Group, Harness, Mean, Task, file, group};
use crate::EvalError;

macro_rules! files {
    ($folder:literal: $($name:literal),+ $(,)?) => {
        &[$((concat!($name, ".toml"), include_str!(concat!("../../", $folder, "/", $name, ".toml")))),+]
    };
}

const TASKS: &[(&str, &str)] = files!("tasks":
    "arc_challenge", "arc_easy", "boolq", "crows_pairs_english", "hellaswag", "lambada_openai", "llm_adapters", "mmlu",
    "openbookqa", "piqa", "race", "sciq", "social_iqa", "truthfulqa_mc1", "truthfulqa_mc2", "wikitext", "winogrande",
);

const GROUPS: &[(&str, &str)] = files!("groups":
    "commonsense-peft", "llm360", "mmlu", "mmlu_humanities", "mmlu_other", "mmlu_social_sciences", "mmlu_stem",
    "openelm-zero-shot", "openllm",
);

/// Deepest that groups may lie in groups.
const DEPTH: usize = 8;

/// What a task is called on the command line: `arc_challenge`, `arc_challenge:25` with 25 shots, `race@0.4.9.1` by the rules of an
/// older harness, or the path of a TOML file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TaskName {
    /// The name or path.
    pub name: String,
    /// Shots asked for.
    pub shots: Option<usize>,
    /// The harness whose rules are followed.
    pub harness: Option<Harness>,
}

impl TaskName {
    /// # Errors
    /// If the number of shots or the version of the harness is none.
    pub fn parse(text: &str) -> Result<Self, String> {
        let (rest, harness) = match text.rsplit_once('@') {
            Some((rest, harness)) => (rest, Some(harness.parse()?)),
            None => (text, None),
        };
        let (name, shots) = match rest.rsplit_once(':').filter(|(_, shots)| !shots.contains(['/', '\\', '.'])) {
            Some((name, shots)) => {
                let number = shots.parse().map_err(|_| format!("{shots:?} in {text:?} is no number of shots"))?;
                (name, Some(number))
            }
            None => (rest, None),
        };
        Ok(Self { name: name.to_owned(), shots, harness })
    }
}

/// A task to be run, or a group of them.
#[derive(Debug, Clone)]
pub enum Selection {
    /// One task with its shots.
    Task(Box<Task>, usize),
    /// A group with what it is made of, each with the metric that counts.
    Group {
        /// The name, with the shots where they were asked for.
        name: String,
        /// How the score is made.
        mean: Mean,
        /// What it is made of.
        members: Vec<(Selection, String)>,
    },
}

impl Selection {
    /// The tasks in it with their shots, in order.
    pub fn tasks(&self) -> Vec<(&Task, usize)> {
        match self {
            Self::Task(task, shots) => vec![(task, *shots)],
            Self::Group { members, .. } => members.iter().flat_map(|(member, _)| member.tasks()).collect(),
        }
    }
}

/// All tasks and groups that are compiled in, by the rules of one version of the harness.
pub struct Library {
    tasks: Vec<Task>,
    groups: Vec<Group>,
    harness: Harness,
}

impl Library {
    /// # Errors
    /// If a file is no task or group, which a test rules out.
    pub fn new(harness: Harness) -> Result<Self, EvalError> {
        let tasks = TASKS.iter().map(|(name, text)| file::parse(text, name, None, harness));
        let groups = GROUPS.iter().map(|(name, text)| group::parse(text, name));
        Ok(Self {
            tasks: tasks.collect::<Result<Vec<_>, _>>()?.concat(),
            groups: groups.collect::<Result<_, _>>()?,
            harness,
        })
    }

    /// The tasks.
    pub fn tasks(&self) -> &[Task] {
        &self.tasks
    }

    /// The groups.
    pub fn groups(&self) -> &[Group] {
        &self.groups
    }

    /// The task or group called `name`, with `shots` where the name says none; a group hands the shots that its name asks for on to
    /// members that have none.
    ///
    /// # Errors
    /// If there is none, or a file of the user's is no task or group.
    pub fn select(&self, name: &TaskName, shots: usize) -> Result<Selection, EvalError> {
        match name.harness.filter(|&harness| harness != self.harness) {
            Some(harness) => Self::new(harness)?.find(&name.name, name.shots, shots, 0),
            None => self.find(&name.name, name.shots, shots, 0),
        }
    }

    fn find(&self, name: &str, asked: Option<usize>, usual: usize, depth: usize) -> Result<Selection, EvalError> {
        let shots = asked.unwrap_or(usual);
        let of_task = |task: &Task| Selection::Task(Box::new(task.clone()), task.shots_for(shots));
        if let Some(task) = self.tasks.iter().find(|task| task.name == name) {
            return Ok(of_task(task));
        }
        if let Some(group) = self.groups.iter().find(|group| group.name == name) {
            return self.open(group, asked, usual, depth);
        }
        if !name.ends_with(".toml") {
            return Err(EvalError::UnknownTask { name: name.to_owned(), nearest: self.nearest(name) });
        }
        let path = Path::new(name);
        let text = std::fs::read_to_string(path).map_err(EvalError::io(path))?;
        if text.parse::<toml::Table>().is_ok_and(|table| table.contains_key("members")) {
            return self.open(&group::parse(&text, name)?, asked, usual, depth);
        }
        let tasks = file::parse(&text, name, Some(path), self.harness)?;
        match &tasks[..] {
            [task] => Ok(of_task(task)),
            several => {
                let metric = several.iter().find_map(|task| task.metrics.first()).map_or("acc", |metric| metric.name());
                let members = several.iter().map(|task| (of_task(task), metric.to_owned())).collect();
                let stem = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
                Ok(Selection::Group { name: stem, mean: Mean::Members, members })
            }
        }
    }

    fn open(&self, group: &Group, asked: Option<usize>, usual: usize, depth: usize) -> Result<Selection, EvalError> {
        let wrong = |reason: String| EvalError::Task { file: format!("{}.toml", group.name), reason };
        if depth > DEPTH {
            return Err(wrong("groups lie in groups without end".to_owned()));
        }
        let member = |member: &super::Member| {
            let name = TaskName::parse(&member.task).map_err(wrong)?;
            let found = self.find(&name.name, name.shots.or(asked), usual, depth + 1)?;
            Ok((found, member.metric.clone()))
        };
        let members = group.members.iter().map(member).collect::<Result<_, EvalError>>()?;
        let name = asked.map_or_else(|| group.name.clone(), |shots| format!("{}:{shots}", group.name));
        Ok(Selection::Group { name, mean: group.mean, members })
    }

    /// The name most like `name`, if one is.
    fn nearest(&self, name: &str) -> Option<String> {
        let names = self.tasks.iter().map(|task| &task.name).chain(self.groups.iter().map(|group| &group.name));
        let distances = names.map(|known| (distance(&name.to_lowercase(), &known.to_lowercase()), known));
        let (least, nearest) = distances.min()?;
        (least <= name.len().max(3) / 2).then(|| nearest.clone())
    }
}

/// Levenshtein's distance in bytes.
fn distance(a: &str, b: &str) -> usize {
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.bytes().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, y) in b.bytes().enumerate() {
            let changed = diagonal + usize::from(x != y);
            diagonal = row[j + 1];
            row[j + 1] = changed.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::task::Renderer;

    #[test]
    fn every_file_is_a_sound_task_or_group() {
        for harness in Harness::ALL {
            let library = Library::new(harness).unwrap();
            assert_eq!(library.tasks().iter().filter(|task| task.name.starts_with("mmlu_")).count(), 57);
            library.tasks().iter().for_each(|task| drop(Renderer::new(task).unwrap()));
            for group in library.groups() {
                let name = TaskName::parse(&group.name).unwrap();
                for (task, _) in library.select(&name, 0).unwrap().tasks() {
                    assert!(!task.metrics.is_empty());
                }
            }
        }
        let folders = [("tasks", TASKS), ("groups", GROUPS)];
        for (folder, files) in folders {
            let there = std::fs::read_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join(folder)).unwrap().count();
            assert_eq!(there, files.len(), "{folder}");
        }
    }

    #[test]
    fn names_carry_shots_and_the_harness() {
        let name = TaskName::parse("arc_challenge:25").unwrap();
        assert_eq!((name.name.as_str(), name.shots, name.harness), ("arc_challenge", Some(25), None));
        let name = TaskName::parse("race:3@0.4.9.1").unwrap();
        assert_eq!((name.name.as_str(), name.shots, name.harness), ("race", Some(3), Some(Harness::V0_4_9_1)));
        assert_eq!(TaskName::parse("C:/my.toml").unwrap().name, "C:/my.toml");
        assert!(TaskName::parse("race@0.3").is_err() && TaskName::parse("race:x").is_err());
    }

    #[test]
    fn shots_of_a_group_reach_its_members() {
        let library = Library::new(Harness::default()).unwrap();
        let tasks = library.select(&TaskName::parse("mmlu:5").unwrap(), 0).unwrap();
        assert!(tasks.tasks().len() == 57 && tasks.tasks().iter().all(|(_, shots)| *shots == 5));
        let openllm = library.select(&TaskName::parse("openllm").unwrap(), 0).unwrap();
        let shots: Vec<usize> = openllm.tasks().iter().map(|(_, shots)| *shots).collect();
        assert_eq!((shots.len(), shots[0], shots[1], shots[2], shots[60]), (61, 25, 10, 5, 5));
    }

    #[test]
    fn an_unknown_name_is_answered_with_the_nearest() {
        let library = Library::new(Harness::default()).unwrap();
        let message = |name: &str| library.select(&TaskName::parse(name).unwrap(), 0).unwrap_err().to_string();
        assert!(message("helaswag").contains("perhaps \"hellaswag\""));
        assert!(message("ARC_easy").contains("perhaps \"arc_easy\""));
        assert!(!message("something else entirely").contains("perhaps"));
    }
}
