//! The recipe in the folder of its run.

use std::io::{self, Write};
use std::path::{Path, PathBuf};

use openelm_formats::atomic;

/// Another recipe than the run had before.
#[derive(Debug)]
pub(super) struct Changed {
    /// What is different, and what it does.
    pub changes: Vec<String>,
    /// Where the recipe of before is kept.
    pub before: PathBuf,
}

/// Writes the recipe `text` to `path`. If another one is there, and the run goes on, that is kept beside it as `.1`, or `.2` and
/// so on where these are taken; `changes` looks at it there and says what is different.
pub(super) fn write(
    text: &str,
    path: &Path,
    goes_on: bool,
    changes: impl FnOnce(&Path) -> Vec<String>,
) -> io::Result<Option<Changed>> {
    let mut changed = None;
    if goes_on
        && let Ok(old) = std::fs::read_to_string(path)
        && old != text
    {
        let changes = changes(path);
        let before = numbered(path);
        atomic::write_file(&before, |file| file.write_all(old.as_bytes()))?;
        changed = Some(Changed { changes, before });
    }
    atomic::write_file(path, |file| file.write_all(text.as_bytes()))?;
    Ok(changed)
}

/// The first of `path.1`, `path.2` and so on that is not there.
fn numbered(path: &Path) -> PathBuf {
    let mut number = 1u32;
    loop {
        let mut name = path.as_os_str().to_owned();
        name.push(format!(".{number}"));
        if !Path::new(&name).exists() {
            return name.into();
        }
        number += 1;
    }
}
