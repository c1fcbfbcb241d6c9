//! Shards that are files.

use std::fs::{File, Metadata};
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::UNIX_EPOCH;

use super::DataError;
use super::content::{Content, Mark, Place, ReadAt};

/// The file system; patterns are relative to the current folder.
#[derive(Debug)]
pub(super) struct Folder;

impl Place for Folder {
    fn find(&self, pattern: &str) -> Result<Vec<Mark>, DataError> {
        let matches = glob::glob(pattern);
        let matches = matches.map_err(|e| DataError::Pattern { pattern: pattern.to_owned(), reason: e.to_string() })?;
        let mut marks = Vec::new();
        for path in matches {
            let path =
                path.map_err(|e| DataError::File { path: e.path().to_owned(), reason: e.error().to_string() })?;
            let metadata = path.metadata().map_err(wrong(&path))?;
            if metadata.is_file() {
                marks.push(mark(&path, &metadata));
            }
        }
        // The pattern's own order has folders before files below `**`.
        marks.sort_by(|a, b| a.path.cmp(&b.path));
        Ok(marks)
    }

    fn open(self: Arc<Self>, known: &Mark) -> Result<Content, DataError> {
        let path = &known.path;
        let file = File::open(path).map_err(wrong(path))?;
        mark(path, &file.metadata().map_err(wrong(path))?).check(known)?;
        let opened = OpenFile { file: Mutex::new(file), path: path.clone() };
        Ok(Content::new(known, Arc::new(opened)))
    }
}

fn mark(path: &Path, metadata: &Metadata) -> Mark {
    let modified = metadata.modified().ok().and_then(|time| time.duration_since(UNIX_EPOCH).ok());
    let version = modified.map(|time| format!("{}.{:09}", time.as_secs(), time.subsec_nanos()));
    Mark { path: path.to_owned(), bytes: metadata.len(), version }
}

fn wrong(path: &Path) -> impl Fn(std::io::Error) -> DataError {
    move |e| DataError::File { path: path.to_owned(), reason: e.to_string() }
}

struct OpenFile {
    file: Mutex<File>,
    path: PathBuf,
}

impl ReadAt for OpenFile {
    fn read_at(&self, start: u64, buffer: &mut [u8]) -> Result<usize, DataError> {
        let mut file = self.file.lock().unwrap_or_else(PoisonError::into_inner);
        file.seek(SeekFrom::Start(start)).and_then(|_| file.read(buffer)).map_err(wrong(&self.path))
    }
}
