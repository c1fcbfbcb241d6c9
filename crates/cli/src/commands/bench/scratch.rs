//! A folder for temporary models, which are large: it goes with the program, and what an aborted one left goes with the next.

use std::fs::{self, File};
use std::io;
use std::path::Path;

use tempfile::TempDir;

/// How the folders' names begin.
const PREFIX: &str = "openelm-bench-";
/// A file in the folder that is locked for as long as its program lives.
const LOCK: &str = "lock";

/// A folder that is removed in the end.
pub struct Scratch {
    folder: TempDir,
    _lock: File,
}

impl Scratch {
    /// Makes one in `parent`, and removes those whose programs are gone.
    pub fn new(parent: &Path) -> io::Result<Self> {
        remove_abandoned(parent);
        let folder = tempfile::Builder::new().prefix(PREFIX).tempdir_in(parent)?;
        // Locked before it has the name by which it is looked for.
        let unnamed = folder.path().join("new-lock");
        let lock = File::create(&unnamed)?;
        lock.lock()?;
        fs::rename(unnamed, folder.path().join(LOCK))?;
        Ok(Self { folder, _lock: lock })
    }

    pub fn path(&self) -> &Path {
        self.folder.path()
    }
}

/// What cannot be looked at or removed is left to the system's own cleaning of temporary files.
fn remove_abandoned(parent: &Path) {
    for entry in fs::read_dir(parent).into_iter().flatten().flatten() {
        let ours = entry.file_name().to_str().is_some_and(|name| name.starts_with(PREFIX));
        if !ours || !entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            continue;
        }
        let abandoned = File::open(entry.path().join(LOCK)).is_ok_and(|lock| lock.try_lock().is_ok());
        if abandoned {
            let _ = fs::remove_dir_all(entry.path());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_program_left_that_is_gone_is_removed_and_nothing_else() {
        let parent = tempfile::tempdir().unwrap();
        let living = Scratch::new(parent.path()).unwrap();
        let left = parent.path().join("openelm-bench-left");
        fs::create_dir(&left).unwrap();
        fs::write(left.join(LOCK), "").unwrap();
        fs::write(left.join("model"), "large").unwrap();
        for others in ["openelm-bench-of-a-user", "else"] {
            fs::create_dir(parent.path().join(others)).unwrap();
        }
        let next = Scratch::new(parent.path()).unwrap();
        assert!(living.path().exists() && next.path().exists() && !left.exists());
        assert_eq!(fs::read_dir(parent.path()).unwrap().count(), 4);
        drop(next);
        assert_eq!(fs::read_dir(parent.path()).unwrap().count(), 3);
    }
}
