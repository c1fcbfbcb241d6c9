//! The files of a corpus and the documents in them.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::{CorpusConfig, DataError, Format, Source, jsonl, text};

/// Documents of one file, in order.
pub(super) type Documents = Box<dyn Iterator<Item = Result<String, DataError>> + Send>;

/// The files of a corpus, in the order of its sources and sorted within each.
#[derive(Debug, Clone)]
pub struct Shards {
    files: Vec<Shard>,
}

#[derive(Debug, Clone)]
struct Shard {
    path: PathBuf,
    bytes: u64,
    format: Format,
    text_key: String,
    source: usize,
}

/// What a checkpoint remembers of a file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Mark {
    pub path: PathBuf,
    pub bytes: u64,
}

impl Shards {
    /// Finds the files of `config`.
    ///
    /// # Errors
    /// If a source matches no file, or the format of one cannot be told.
    pub fn find(config: &CorpusConfig) -> Result<Self, DataError> {
        let mut files = Vec::new();
        for (index, source) in config.sources.iter().enumerate() {
            for pattern in patterns(source)? {
                let matches = glob::glob(&pattern)
                    .map_err(|e| DataError::Pattern { pattern: pattern.clone(), reason: e.to_string() })?;
                let before = files.len();
                for path in matches {
                    let path =
                        path.map_err(|e| DataError::File { path: e.path().to_owned(), reason: e.error().to_string() })?;
                    if path.is_file() {
                        files.push(Shard::new(path, source, index)?);
                    }
                }
                if files.len() == before {
                    return Err(DataError::NoFiles { pattern });
                }
            }
        }
        if files.is_empty() {
            return Err(DataError::NoFiles { pattern: "an empty list of sources".to_owned() });
        }
        Ok(Self { files })
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
        self.files.iter().map(|file| file.bytes).sum()
    }

    pub(super) fn marks(&self) -> Vec<Mark> {
        self.files.iter().map(|file| Mark { path: file.path.clone(), bytes: file.bytes }).collect()
    }

    /// The source that each file belongs to.
    pub(super) fn sources(&self) -> impl Iterator<Item = usize> {
        self.files.iter().map(|file| file.source)
    }

    /// Opens the file at `index`.
    pub(super) fn open(&self, index: usize) -> Result<Documents, DataError> {
        let Shard { path, format, text_key, .. } = &self.files[index];
        Ok(match format {
            Format::Text => Box::new(text::documents(path)?),
            Format::Jsonl => Box::new(jsonl::documents(path, text_key)?),
            #[cfg(feature = "parquet")]
            Format::Parquet => Box::new(super::parquet::documents(path, text_key)?),
            #[cfg(not(feature = "parquet"))]
            Format::Parquet => {
                let reason = "this build reads no Parquet; build with the feature \"parquet\"".to_owned();
                return Err(DataError::File { path: path.clone(), reason });
            }
        })
    }
}

impl Shard {
    fn new(path: PathBuf, source: &Source, index: usize) -> Result<Self, DataError> {
        let metadata = path.metadata();
        let metadata = metadata.map_err(|e| DataError::File { path: path.clone(), reason: e.to_string() })?;
        let format = source.format.or_else(|| format_of(&path));
        let format = format.ok_or_else(|| DataError::UnknownFormat { path: path.clone() })?;
        Ok(Self { path, bytes: metadata.len(), format, text_key: source.text_key.clone(), source: index })
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
    let name = path.file_name()?.to_str()?.to_lowercase();
    let name = name.strip_suffix(".gz").or_else(|| name.strip_suffix(".zst")).unwrap_or(&name);
    match name.rsplit_once('.')?.1 {
        "txt" | "md" | "text" => Some(Format::Text),
        "jsonl" | "json" | "ndjson" => Some(Format::Jsonl),
        "parquet" => Some(Format::Parquet),
        _ => None,
    }
}

/// All documents of a corpus, file after file.
///
/// # Errors
/// See [`DataError`]; the documents end with the first error.
pub fn documents(
    config: &CorpusConfig,
) -> Result<impl Iterator<Item = Result<String, DataError>> + Send + use<>, DataError> {
    let shards = Shards::find(config)?;
    Ok((0..shards.len()).flat_map(move |index| match shards.open(index) {
        Ok(documents) => documents,
        Err(e) => Box::new(std::iter::once(Err(e))),
    }))
}
