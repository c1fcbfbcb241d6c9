//! The bytes of a shard, wherever they lie.
//!
//! ```text
//! Folder, Store (a Place) --open--> Content --reader--> text, JSONL
//!                                           --chunks--> Parquet
//! ```

use std::fmt::Debug;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use serde::{Deserialize, Serialize, Serializer};

use super::DataError;

/// A document, or `None` where a row or a line has no text.
pub(super) type Found = Result<Option<String>, DataError>;

/// Documents of one file, in order. After an error that is one document's own there may be others.
pub(super) type Documents = Box<dyn Iterator<Item = Found> + Send>;

/// Where shards lie: a file system or an object store.
pub(super) trait Place: Debug + Send + Sync {
    /// What matches `pattern`, sorted.
    fn find(&self, pattern: &str) -> Result<Vec<Mark>, DataError>;

    /// What is in the folder called `name` and those in it, sorted; hidden files aside. `None` if it is no folder.
    fn below(&self, name: &str) -> Result<Option<Vec<Mark>>, DataError>;

    /// Opens what had this mark when it was found.
    fn open(self: Arc<Self>, mark: &Mark) -> Result<Content, DataError>;
}

/// By what a shard is known again: a checkpoint remembers it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Mark {
    /// Path or URL. What is not UTF-8 in it is not told apart by a checkpoint, as JSON has no way to say it.
    #[serde(serialize_with = "lossy")]
    pub path: PathBuf,
    pub bytes: u64,
    /// What changes with the content: the time when it was modified or an object's ETag; `None` where nothing is known.
    #[serde(default)]
    pub version: Option<String>,
}

impl Mark {
    /// What tells that this one is not `known` any more, as far as the marks say.
    pub fn difference(&self, known: &Self) -> Option<String> {
        let (path, was) = (self.path.display(), known.path.display());
        if self.path.to_string_lossy() != known.path.to_string_lossy() {
            return Some(format!("{was} is now {path}"));
        }
        if self.bytes != known.bytes {
            return Some(format!("{path} had {} bytes and has {} now", known.bytes, self.bytes));
        }
        match (&self.version, &known.version) {
            (Some(now), Some(was)) if now != was => Some(format!("{path} was modified: {was} then, {now} now")),
            _ => None,
        }
    }

    /// # Errors
    /// If this one is not `known` any more.
    pub fn check(&self, known: &Self) -> Result<(), DataError> {
        self.difference(known).map_or(Ok(()), |change| Err(DataError::Changed { change, accepts: false }))
    }
}

fn lossy<S: Serializer>(path: &Path, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&path.to_string_lossy())
}

/// Bytes that can be read from any place on.
pub(super) trait ReadAt: Send + Sync {
    /// Reads into the front of `buffer` what lies from the byte `start` on. Less than would fit is no sign of the end;
    /// nothing is.
    fn read_at(&self, start: u64, buffer: &mut [u8]) -> Result<usize, DataError>;
}

/// An opened shard.
#[derive(Clone)]
pub(super) struct Content {
    path: PathBuf,
    #[cfg_attr(not(feature = "parquet"), expect(dead_code, reason = "only Parquet begins at the end"))]
    size: u64,
    bytes: Arc<dyn ReadAt>,
    /// Why reading failed: what lies between does not hand errors through as they are.
    failure: Arc<Mutex<Option<DataError>>>,
}

impl Content {
    pub fn new(mark: &Mark, bytes: Arc<dyn ReadAt>) -> Self {
        Self { path: mark.path.clone(), size: mark.bytes, bytes, failure: Arc::default() }
    }

    /// Path or URL.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Reads from the byte `start` on.
    pub fn reader(&self, start: u64) -> Reader {
        Reader { content: self.clone(), place: start }
    }

    /// The failure to read that led to `error`, or `error` itself.
    pub fn cause(&self, error: DataError) -> DataError {
        self.failure.lock().unwrap_or_else(PoisonError::into_inner).take().unwrap_or(error)
    }
}

/// Reads a content to its end.
pub(super) struct Reader {
    content: Content,
    place: u64,
}

impl Read for Reader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.content.bytes.read_at(self.place, buffer).map_err(|e| {
            let error = io::Error::other(e.to_string());
            *self.content.failure.lock().unwrap_or_else(PoisonError::into_inner) = Some(e);
            error
        })?;
        self.place += read as u64;
        Ok(read)
    }
}

#[cfg(feature = "parquet")]
mod chunks {
    use std::io::{BufReader, Read};

    use ::parquet::errors::{ParquetError, Result};
    use ::parquet::file::reader::{ChunkReader, Length};
    use bytes::Bytes;

    use super::{Content, Reader};

    impl Length for Content {
        fn len(&self) -> u64 {
            self.size
        }
    }

    impl ChunkReader for Content {
        type T = BufReader<Reader>;

        fn get_read(&self, start: u64) -> Result<Self::T> {
            Ok(BufReader::new(self.reader(start)))
        }

        fn get_bytes(&self, start: u64, length: usize) -> Result<Bytes> {
            let mut bytes = Vec::new();
            self.reader(start).take(length as u64).read_to_end(&mut bytes)?;
            if bytes.len() < length {
                return Err(ParquetError::EOF(format!("{length} bytes from {start} on reach beyond the end")));
            }
            Ok(bytes.into())
        }
    }
}
