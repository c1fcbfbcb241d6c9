//! A run that never began leaves nothing behind.

use std::fs;
use std::path::{Path, PathBuf};

/// The folders that a run is about to make.
pub(super) struct Fresh {
    output: PathBuf,
    /// Those that are not there yet, the innermost first.
    missing: Vec<PathBuf>,
}

impl Fresh {
    /// Looks before anything is made.
    pub fn before(output: &Path) -> Self {
        let missing = output.ancestors().take_while(|path| !path.as_os_str().is_empty() && !path.exists());
        Self { output: output.to_owned(), missing: missing.map(Path::to_owned).collect() }
    }

    /// Removes what was made, unless there is something in it that took work.
    pub fn remove_unused(self) {
        if self.missing.first() == Some(&self.output) && !has_work(&self.output) {
            // Why the run did not begin is what is worth telling.
            let _ = fs::remove_dir_all(&self.output);
            self.missing[1..].iter().for_each(|folder| drop(fs::remove_dir(folder)));
        }
    }
}

/// Whether an update was logged, saved, or kept for study.
fn has_work(output: &Path) -> bool {
    let names = |folder: &Path, start: &str| {
        let entries = fs::read_dir(folder).into_iter().flatten().flatten();
        entries.filter(|entry| entry.file_name().to_string_lossy().starts_with(start)).count()
    };
    let is_logged = fs::metadata(output.join("log.jsonl")).is_ok_and(|log| log.len() > 0);
    is_logged || names(output, "spike-") > 0 || names(&output.join("checkpoints"), "step-") > 0
}
