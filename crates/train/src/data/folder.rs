//! Shards that are files.

use std::fs::{File, Metadata};
use std::io::{Read, Seek, SeekFrom};
use std::path::{Component, Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::UNIX_EPOCH;

use glob::Pattern;

use super::DataError;
use super::content::{Content, Mark, Place, ReadAt};

/// The file system; patterns are relative to the current folder.
#[derive(Debug)]
pub(super) struct Folder;

impl Place for Folder {
    fn find(&self, pattern: &str) -> Result<Vec<Mark>, DataError> {
        let mut paths = Vec::new();
        // A file may be called like a pattern.
        if Path::new(pattern).is_file() {
            paths.push(PathBuf::from(pattern));
        } else {
            let wrong =
                |e: glob::PatternError| DataError::Pattern { pattern: pattern.to_owned(), reason: e.to_string() };
            let parts = Path::new(pattern).components().map(Part::new).collect::<Result<Vec<_>, _>>().map_err(wrong)?;
            matching(PathBuf::new(), &parts, &mut paths)?;
        }
        paths.sort();
        paths.dedup();
        let mut marks = Vec::new();
        for path in paths {
            let metadata = path.metadata().map_err(wrong(&path))?;
            if metadata.is_file() {
                marks.push(mark(&path, &metadata));
            }
        }
        Ok(marks)
    }

    fn below(&self, folder: &str) -> Result<Option<Vec<Mark>>, DataError> {
        if !Path::new(folder).is_dir() {
            return Ok(None);
        }
        let mut marks = self.find(&format!("{}/**/*", Pattern::escape(folder)))?;
        let is_hidden = |part: Component| part.as_os_str().as_encoded_bytes().starts_with(b".");
        marks.retain(|mark| {
            let inner = mark.path.strip_prefix(folder).or(mark.path.strip_prefix("./")).unwrap_or(&mark.path);
            !inner.components().any(is_hidden)
        });
        Ok(Some(marks))
    }

    fn open(self: Arc<Self>, known: &Mark) -> Result<Content, DataError> {
        let path = &known.path;
        let file = File::open(path).map_err(wrong(path))?;
        mark(path, &file.metadata().map_err(wrong(path))?).check(known)?;
        let opened = OpenFile { file: Mutex::new(file), path: path.clone() };
        Ok(Content::new(known, Arc::new(opened)))
    }
}

/// What stands between two slashes of a pattern.
enum Part<'p> {
    /// A name, the root, or a step up.
    Plain(Component<'p>),
    /// `**`: any folders, or none.
    Folders,
    Names(Pattern),
}

impl<'p> Part<'p> {
    fn new(part: Component<'p>) -> Result<Self, glob::PatternError> {
        match part {
            Component::Normal(name) => match name.to_str() {
                Some("**") => Ok(Self::Folders),
                Some(name) if name.contains(['*', '?', '[']) => Pattern::new(name).map(Self::Names),
                _ => Ok(Self::Plain(part)),
            },
            _ => Ok(Self::Plain(part)),
        }
    }
}

/// Adds what matches `parts` below `folder`. A name that is not UTF-8 is matched with U+FFFD in the place of what is not; links to
/// folders are followed where the pattern names them, not by `**`.
fn matching(folder: PathBuf, parts: &[Part<'_>], paths: &mut Vec<PathBuf>) -> Result<(), DataError> {
    let Some((part, rest)) = parts.split_first() else {
        paths.push(folder);
        return Ok(());
    };
    match part {
        Part::Plain(Component::CurDir) => matching(folder, rest, paths),
        Part::Plain(name) => {
            let path = folder.join(name);
            // What is not there matches nothing.
            if path.symlink_metadata().is_ok() { matching(path, rest, paths) } else { Ok(()) }
        }
        Part::Folders => {
            for (path, is_folder) in entries(&folder)? {
                if is_folder {
                    matching(path, parts, paths)?;
                }
            }
            matching(folder, rest, paths)
        }
        Part::Names(pattern) => {
            for (path, _) in entries(&folder)? {
                let name = path.file_name().unwrap_or_default().to_string_lossy();
                if pattern.matches(&name) && (rest.is_empty() || path.is_dir()) {
                    matching(path, rest, paths)?;
                }
            }
            Ok(())
        }
    }
}

/// What is in `folder`, and whether it is a folder and no link to one.
fn entries(folder: &Path) -> Result<Vec<(PathBuf, bool)>, DataError> {
    let named = if folder.as_os_str().is_empty() { Path::new(".") } else { folder };
    let entry = |entry: std::io::Result<std::fs::DirEntry>| {
        let entry = entry?;
        Ok((folder.join(entry.file_name()), entry.file_type()?.is_dir()))
    };
    named.read_dir().and_then(|entries| entries.map(entry).collect()).map_err(wrong(named))
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
