//! Git LFS: a repository that was cloned without it holds a few lines of text in place of each large file.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use crate::FormatError;

/// How such a text begins.
const POINTER: &[u8] = b"version https://git-lfs.github.com/spec/";

/// Refuses the few lines that stand for a file: `bytes` are the file's beginning, `path` its place.
pub(crate) fn refuse_pointer(bytes: &[u8], path: &Path) -> Result<(), FormatError> {
    if bytes.starts_with(POINTER) { Err(FormatError::LfsPointer { path: path.to_owned() }) } else { Ok(()) }
}

/// The same for the file at `path`, of which only the beginning is read.
///
/// # Errors
/// [`FormatError::LfsPointer`], or if the file cannot be read.
pub fn refuse_pointer_at(path: &Path) -> Result<(), FormatError> {
    let mut beginning = Vec::new();
    let file = File::open(path).map_err(FormatError::io(path))?;
    file.take(POINTER.len() as u64).read_to_end(&mut beginning).map_err(FormatError::io(path))?;
    refuse_pointer(&beginning, path)
}
