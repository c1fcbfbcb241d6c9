//! The files of a corpus and the documents in them.

use std::path::Path;
use std::sync::Arc;
#[cfg(feature = "object-store")]
use std::time::Duration;

use super::content::{Documents, Mark, Place};
use super::folder::Folder;
use super::records::{self, Record};
#[cfg(feature = "object-store")]
use super::store::Store;
use super::{CorpusConfig, DataError, Format, OnChange, Source, jsonl, text};

/// Files that a message lists, at most.
const LISTED: usize = 5;

/// The files of a corpus, in the order of its sources and sorted within each.
#[derive(Debug, Clone)]
pub struct Shards {
    files: Vec<Shard>,
    /// Whether a file may change between one start and the next.
    accepts: bool,
}

#[derive(Debug, Clone)]
struct Shard {
    place: Arc<dyn Place>,
    mark: Mark,
    format: Format,
    text_key: String,
    source: usize,
}

impl Shards {
    /// Finds the files of `config`, in folders and, with the feature `object-store`, in stores.
    ///
    /// # Errors
    /// If a source matches no file, a store cannot be reached, or the format of a file cannot be told.
    pub fn find(config: &CorpusConfig) -> Result<Self, DataError> {
        let mut places = Places::new(config);
        let mut files = Vec::new();
        for (index, source) in config.sources.iter().enumerate() {
            for pattern in patterns(source)? {
                let place = places.of(&pattern)?;
                let marks = match place.below(&pattern)? {
                    Some(marks) => of_known_format(marks, source)?,
                    None => place.find(&pattern)?,
                };
                if marks.is_empty() {
                    return Err(DataError::NoFiles { pattern });
                }
                for mark in marks {
                    files.push(Shard::new(place.clone(), mark, source, index)?);
                }
            }
        }
        if files.is_empty() {
            return Err(DataError::NoFiles { pattern: "an empty list of sources".to_owned() });
        }
        Ok(Self { files, accepts: config.on_change == OnChange::Accept })
    }

    /// Number of files.
    pub fn len(&self) -> usize {
        self.files.len()
    }

    /// Whether there are no files; a corpus that was found has some.
    pub fn is_empty(&self) -> bool {
        self.files.is_empty()
    }

    /// Size of all files as they are stored, in bytes.
    pub fn bytes(&self) -> u64 {
        self.files.iter().map(|file| file.mark.bytes).sum()
    }

    pub(super) fn marks(&self) -> Vec<Mark> {
        self.files.iter().map(|file| file.mark.clone()).collect()
    }

    /// The source that each file belongs to.
    pub(super) fn sources(&self) -> impl Iterator<Item = usize> {
        self.files.iter().map(|file| file.source)
    }

    /// Calls `visit` with each row of all files, in order.
    ///
    /// # Errors
    /// If a file cannot be read or a row is no object, with the place; and what `visit` reports.
    pub(crate) fn records<E: From<DataError>>(&self, visit: &mut dyn FnMut(Record) -> Result<(), E>) -> Result<(), E> {
        for Shard { place, mark, format, .. } in &self.files {
            records::visit(&place.clone().open(mark)?, *format, visit)?;
        }
        Ok(())
    }

    /// Opens the file at `index`.
    pub(super) fn open(&self, index: usize) -> Result<Documents, DataError> {
        let Shard { place, mark, format, text_key, .. } = &self.files[index];
        let accepts = self.accepts;
        let content = place.clone().open(mark).map_err(|e| e.accepted(accepts))?;
        let documents: Result<Documents, DataError> = match format {
            Format::Text => text::documents(&content).map(|documents| Box::new(documents) as _),
            Format::Jsonl => jsonl::documents(&content, text_key).map(|documents| Box::new(documents) as _),
            #[cfg(feature = "parquet")]
            Format::Parquet => super::parquet::documents(&content, text_key).map(|documents| Box::new(documents) as _),
            #[cfg(not(feature = "parquet"))]
            Format::Parquet => {
                let reason = "this build reads no Parquet; build with the feature \"parquet\"".to_owned();
                Err(DataError::File { path: mark.path.clone(), reason })
            }
        };
        let documents = documents.map_err(|e| content.cause(e).accepted(accepts))?;
        Ok(Box::new(documents.map(move |document| document.map_err(|e| content.cause(e).accepted(accepts)))))
    }
}

impl Shard {
    fn new(place: Arc<dyn Place>, mark: Mark, source: &Source, index: usize) -> Result<Self, DataError> {
        let format = source.format.or_else(|| format_of(&mark.path));
        let format = format.ok_or_else(|| DataError::UnknownFormat { path: mark.path.clone() })?;
        Ok(Self { place, mark, format, text_key: source.text_key.clone(), source: index })
    }
}

/// The places of a corpus, each opened once.
struct Places {
    folder: Arc<Folder>,
    #[cfg(feature = "object-store")]
    stores: Vec<Arc<Store>>,
    #[cfg(feature = "object-store")]
    patience: Duration,
}

impl Places {
    #[cfg_attr(not(feature = "object-store"), expect(unused_variables, reason = "folders need no settings"))]
    fn new(config: &CorpusConfig) -> Self {
        Self {
            folder: Arc::new(Folder),
            #[cfg(feature = "object-store")]
            stores: Vec::new(),
            #[cfg(feature = "object-store")]
            patience: Duration::from_secs(config.retry_seconds),
        }
    }

    fn of(&mut self, pattern: &str) -> Result<Arc<dyn Place>, DataError> {
        if pattern.contains("://") { Ok(self.store(pattern)?) } else { Ok(self.folder.clone()) }
    }

    #[cfg(feature = "object-store")]
    fn store(&mut self, url: &str) -> Result<Arc<dyn Place>, DataError> {
        if let Some(store) = self.stores.iter().find(|store| store.holds(url)) {
            return Ok(store.clone());
        }
        let store = Arc::new(Store::open(url, self.patience)?);
        self.stores.push(store.clone());
        Ok(store)
    }

    #[cfg(not(feature = "object-store"))]
    fn store(&mut self, url: &str) -> Result<Arc<dyn Place>, DataError> {
        let reason = "this build reads no object stores; build with `--features object-store`".to_owned();
        Err(DataError::Store { url: url.to_owned(), reason })
    }
}

/// The pattern of `source`, or one for each of its numbers.
fn patterns(source: &Source) -> Result<Vec<String>, DataError> {
    let pattern = &source.path;
    let wrong = |reason: &str| DataError::Pattern { pattern: pattern.clone(), reason: reason.to_owned() };
    let Some([first, end]) = source.file_id_range else {
        let has_number = pattern.contains("{file_id");
        return if has_number { Err(wrong("it needs file_id_range")) } else { Ok(vec![pattern.clone()]) };
    };
    let field = pattern.split_once("{file_id").and_then(|(before, rest)| Some((before, rest.split_once('}')?)));
    let (before, (spec, after)) = field.ok_or_else(|| wrong("file_id_range is given, but it holds no {file_id}"))?;
    let digits = match spec {
        "" => Some(0),
        _ => spec.strip_prefix(":0").and_then(|spec| spec.strip_suffix('d')).and_then(|digits| digits.parse().ok()),
    };
    let digits: u8 =
        digits.ok_or_else(|| wrong("a number is written {file_id} or, with five digits, {file_id:05d}"))?;
    if first >= end {
        return Err(wrong("file_id_range is empty"));
    }
    let digits = usize::from(digits);
    Ok((first..end).map(|id| format!("{before}{id:0digits$}{after}")).collect())
}

/// The format that a file's name tells, with or without `.gz` or `.zst` behind it.
fn format_of(path: &Path) -> Option<Format> {
    let name = path.file_name()?.to_string_lossy().to_lowercase();
    let name = name.strip_suffix(".gz").or_else(|| name.strip_suffix(".zst")).unwrap_or(&name);
    match name.rsplit_once('.')?.1 {
        "txt" | "md" | "text" => Some(Format::Text),
        "jsonl" | "json" | "ndjson" => Some(Format::Jsonl),
        "parquet" => Some(Format::Parquet),
        _ => None,
    }
}

/// The files of a folder whose format is known, by their names or by what the source says; the others are passed over.
fn of_known_format(mut marks: Vec<Mark>, source: &Source) -> Result<Vec<Mark>, DataError> {
    let found: Vec<_> = marks.iter().take(LISTED).map(|mark| mark.path.clone()).collect();
    marks.retain(|mark| source.format.is_some() || format_of(&mark.path).is_some());
    if marks.is_empty() {
        return Err(DataError::NoneInFolder { folder: source.path.clone(), found });
    }
    Ok(marks)
}
