//! Where the documents of a task are.

use std::path::{Path, PathBuf};

use super::Documents;
use super::read::EXTENSIONS;
use crate::EvalError;
use crate::task::Task;

/// A split of a data set on the hub.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OnHub {
    /// The data set, `owner/name`.
    pub data_set: String,
    /// Its configuration.
    pub config: String,
    /// The split.
    pub split: String,
}

/// Fetches the Parquet files of a split and gives their places.
pub type HubFiles<'a> = dyn Fn(&OnHub) -> Result<Vec<PathBuf>, Box<dyn std::error::Error + Send + Sync>> + 'a;

/// Where documents are looked for.
pub struct Sources<'a> {
    /// A folder of data sets; then the hub is not asked.
    pub folder: Option<PathBuf>,
    /// How to fetch from the hub, if that is possible.
    pub hub: Option<Box<HubFiles<'a>>>,
}

impl Sources<'_> {
    /// The documents of `split` of `task`: those that its file names beside itself; or, in the folder, `TASK.SPLIT.jsonl`,
    /// or `SPLIT.jsonl` in the folder of the data set, compressed or not, or in Parquet; or those of the hub.
    ///
    /// # Errors
    /// If they are in none of these places, or cannot be read.
    pub fn open(&self, task: &Task, split: &str) -> Result<Documents, EvalError> {
        Documents::open(self.find(task, split)?, &task.data.condition)
    }

    fn find(&self, task: &Task, split: &str) -> Result<Vec<PathBuf>, EvalError> {
        let nowhere = |reason: String| EvalError::NoData { task: task.name.clone(), split: split.to_owned(), reason };
        let data = &task.data;
        if let Some(file) = data.files.get(split) {
            return Ok(vec![task.beside.as_deref().unwrap_or(Path::new("")).join(file)]);
        }
        if let Some(folder) = &self.folder {
            if !folder.is_dir() {
                return Err(nowhere(format!("{} is no folder", folder.display())));
            }
            let found = with_extension(folder, &format!("{}.{split}", task.name));
            let set = data.folder.as_ref().map(|set| folder.join(set));
            let found = found.or_else(|| with_extension(set.as_ref()?, split)).map(|file| vec![file]);
            let found = found.or_else(|| Some(parts(set.as_ref()?, split)).filter(|parts| !parts.is_empty()));
            return found.ok_or_else(|| {
                let set = data.folder.as_ref().map(|set| format!(" or {set}/{split}.jsonl")).unwrap_or_default();
                let (folder, name) = (folder.display(), &task.name);
                nowhere(format!(
                    "{folder} holds neither {name}.{split}.jsonl{set}, nor the same as .jsonl.zst, .json or .parquet"
                ))
            });
        }
        let Some(data_set) = data.hub.clone() else {
            return Err(nowhere("it is not on the hub; give the folder that holds it with --data".to_owned()));
        };
        let Some(hub) = &self.hub else {
            return Err(nowhere("this build fetches nothing from the hub; give a folder with --data".to_owned()));
        };
        let config = data.config.clone().unwrap_or_else(|| "default".to_owned());
        hub(&OnHub { data_set, config, split: split.to_owned() }).map_err(|e| nowhere(e.to_string()))
    }
}

fn with_extension(folder: &Path, stem: &str) -> Option<PathBuf> {
    EXTENSIONS.iter().map(|extension| folder.join(format!("{stem}.{extension}"))).find(|path| path.is_file())
}

/// Parquet files as the hub cuts a split: `SPLIT-00000-of-00001.parquet`, or `SPLIT/0000.parquet`.
fn parts(folder: &Path, split: &str) -> Vec<PathBuf> {
    let files = |folder: &Path| -> Vec<PathBuf> {
        let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
        entries.map(|entry| entry.path()).filter(|path| path.extension().is_some_and(|e| e == "parquet")).collect()
    };
    let begins =
        |path: &PathBuf| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with(&format!("{split}-")));
    let mut found: Vec<PathBuf> = files(folder).into_iter().filter(begins).chain(files(&folder.join(split))).collect();
    found.sort();
    found
}
